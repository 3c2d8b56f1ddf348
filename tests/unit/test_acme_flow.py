"""ACME as a flow: which configurations make sense, what is asked for, and the hook."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from enroll import csr
from enroll.certificates import alternative_names, pem
from enroll.config import (
    AttestationSettings,
    EnrollSettings,
    IdentitiesSettings,
    IdentitySettings,
    SigningIdentitySettings,
    StoreName,
)
from enroll.csr import PERMANENT_IDENTIFIER, CertificateRequest, Usage
from enroll.enroller import Enroller
from enroll.errors import ConfigurationError
from enroll.flows.acme import AcmeFlow, challenge
from enroll.flows.acme.challenge import Hook
from enroll.flows.acme.client import AcmeClient
from enroll.flows.acme.progress import Progress
from enroll.flows.base import Enrollment, Handle
from enroll.flows.settings import AcmeChallenge, AcmeIdentifier, AcmeSettings, FlowName
from enroll.http import HttpsSession
from enroll.identity import IdentityName
from tests.support import enrolling
from tests.support.acme.scripted import BASE, DIRECTORY_URL, ORDER, answer, good
from tests.support.enrolling import CaFlow, Scanner
from tests.support.pki import DEVICE, HospitalCa, new_key

CA = HospitalCa()
HOST = "ct-1.example"
DEVICE_REQUEST = CertificateRequest.for_device(DEVICE, Usage.DEVICE)


def connected(folder: Path, identity: IdentityName = IdentityName.DEVICE, **acme: Any) -> AcmeFlow:
    return AcmeFlow.connect(identity, scanner(settings(folder, **acme)).context)


def settings(folder: Path, store: StoreName = StoreName.TPM, **acme: Any) -> EnrollSettings:
    anchor_file = folder / "ca.pem"
    anchor_file.write_bytes(pem([CA.certificate]))
    usual = AcmeSettings(directory_url="https://ca.example/directory", anchor_file=anchor_file)
    identities = IdentitiesSettings(
        device=IdentitySettings(key_store=store), signing=SigningIdentitySettings(key_store=store)
    )
    attestation = AttestationSettings(url="https://vendor.example", anchor_file=anchor_file)
    return replace(
        enrolling.settings(folder), acme=replace(usual, **acme), identity=identities, attestation=attestation
    )


def scanner(settings: EnrollSettings) -> Scanner:
    return Scanner(settings, (CA.certificate,))


# --- which configurations make sense


@pytest.mark.parametrize(
    ("acme", "said"),
    [
        ({"directory_url": ""}, "directory_url is not set"),
        ({"anchor_file": None}, "anchor_file is not set"),
        ({"challenge": AcmeChallenge.HTTP}, "cannot prove an identifier of the type permanent-identifier"),
        ({"identifier_type": AcmeIdentifier.DNS, "identifier": HOST}, "proves a device and no host name"),
        ({"identifier_type": AcmeIdentifier.DNS, "challenge": AcmeChallenge.DNS}, "no host name"),
        (
            {"identifier_type": AcmeIdentifier.DNS, "challenge": AcmeChallenge.DNS, "identifier": "*.example"},
            "no host name",
        ),
        ({"identifier_type": AcmeIdentifier.HARDWARE_MODULE, "identifier": "CT-2"}, "hardware-module"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_told_before_anything_is_sent(
    tmp_path: Path, acme: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        connected(tmp_path, **acme)


def test_a_host_name_is_for_the_device_identity_only(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not for signing"):
        connected(
            tmp_path,
            IdentityName.SIGNING,
            identifier_type=AcmeIdentifier.DNS,
            identifier=HOST,
            challenge=AcmeChallenge.DNS,
        )


def test_a_key_in_the_memory_of_the_agent_cannot_be_attested(tmp_path: Path) -> None:
    in_memory = scanner(enrolling.with_memory_key(settings(tmp_path)))

    with pytest.raises(ConfigurationError, match="in the memory of the agent"):
        AcmeFlow.connect(IdentityName.SIGNING, in_memory.context)


@pytest.mark.parametrize("identity", [IdentityName.DEVICE, IdentityName.SIGNING])
def test_a_key_in_a_file_cannot_be_attested_so_nothing_is_ordered(tmp_path: Path, identity: IdentityName) -> None:
    in_file = scanner(settings(tmp_path, StoreName.SOFTWARE))

    with pytest.raises(ConfigurationError, match="in a file") as raised:
        AcmeFlow.connect(identity, in_file.context)

    assert f"[identity.{identity}]" in raised.value.remedy


def test_without_an_attestation_ca_nothing_is_ordered(tmp_path: Path) -> None:
    nobody = replace(settings(tmp_path), attestation=AttestationSettings())

    with pytest.raises(ConfigurationError, match=r"\[attestation\]"):
        AcmeFlow.connect(IdentityName.DEVICE, scanner(nobody).context)


def test_without_a_hook_there_is_no_answer_to_http_01(tmp_path: Path) -> None:
    context = scanner(settings(tmp_path, challenge=AcmeChallenge.HTTP)).context

    with pytest.raises(ConfigurationError, match="hook is not set"):
        challenge.prover(context, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("anchors", "replaces"), [((CA.certificate,), True), ((HospitalCa().certificate,), False)])
def test_only_to_the_ca_that_issued_it_a_certificate_is_said_to_be_replaced(
    tmp_path: Path, anchors: tuple[x509.Certificate, ...], *, replaces: bool
) -> None:
    """RFC 9773 5: the identifier is of no use to another CA."""
    enrolled = scanner(settings(tmp_path, StoreName.SOFTWARE))
    enrolled.issue(CaFlow(CA, enrolled.clock, "acme"), IdentityName.DEVICE)
    (tmp_path / "ca.pem").write_bytes(pem(anchors))
    in_tpm = scanner(replace(enrolled.settings, identity=settings(tmp_path).identity))
    (tmp_path / "ca.pem").write_bytes(pem(anchors))

    assert AcmeFlow.connect(IdentityName.DEVICE, in_tpm.context).renews_own is replaces


# --- what is asked for


def test_a_host_is_named_by_its_name(tmp_path: Path) -> None:
    flow = connected(
        tmp_path, identifier_type=AcmeIdentifier.DNS, identifier="CT-1.Example", challenge=AcmeChallenge.DNS
    )

    request = csr.build(new_key(), flow.asks_for(DEVICE_REQUEST))

    assert alternative_names(request) == (x509.DNSName(HOST),)
    assert common_name(request) == [HOST]


def test_a_device_is_named_by_its_permanent_identifier(tmp_path: Path) -> None:
    """RFC 4043 2; step-ca wants the common name to be the same."""
    flow = connected(tmp_path)

    request = csr.build(new_key(), flow.asks_for(DEVICE_REQUEST))

    value = b"\x30\x0b\x0c\x09CT-000123"
    assert alternative_names(request) == (x509.OtherName(PERMANENT_IDENTIFIER, value),)
    assert common_name(request) == [DEVICE.serial_number]


def test_a_hardware_module_is_named_as_ever(tmp_path: Path) -> None:
    flow = connected(tmp_path, identifier_type=AcmeIdentifier.HARDWARE_MODULE)

    assert flow.asks_for(DEVICE_REQUEST) == DEVICE_REQUEST


def test_a_long_host_name_is_no_common_name() -> None:
    """RFC 5280: at most 64 characters."""
    request = csr.build(new_key(), DEVICE_REQUEST.for_host(f"{'a' * 60}.example"))

    assert common_name(request) == []


def common_name(request: x509.CertificateSigningRequest) -> list[str | bytes]:
    return [attribute.value for attribute in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def test_what_would_be_sent_is_told(tmp_path: Path) -> None:
    with Enroller(scanner(settings(tmp_path, eab_key_id="kid-1")).context) as enroller:
        plan = enroller.plan(IdentityName.DEVICE, FlowName.ACME)

    told = " ".join(f"{exchange.what} {exchange.proof}" for exchange in plan)
    assert "permanent-identifier CT-000123" in told
    assert "MAC key kid-1" in told
    assert "device-attest-01" in told
    assert [exchange.to for exchange in plan if "vendor" in exchange.to] == ["https://vendor.example"]


def test_what_the_hook_is_told_is_told_as_well(tmp_path: Path) -> None:
    by_hook = settings(
        tmp_path,
        identifier_type=AcmeIdentifier.DNS,
        identifier=HOST,
        challenge=AcmeChallenge.DNS,
        hook=Path("/etc/scanseal/acme-hook"),
    )
    with Enroller(scanner(by_hook).context) as enroller:
        plan = enroller.plan(IdentityName.DEVICE, FlowName.ACME)

    assert "/etc/scanseal/acme-hook" in [exchange.to for exchange in plan]
    assert "vendor.example" not in " ".join(exchange.to for exchange in plan)


# --- what is gone on with


@pytest.mark.parametrize(
    ("kept", "profile", "is_new"),
    [
        (f"{ORDER} ", "", False),
        (f"{ORDER} device", "device", False),
        (f"{ORDER} device", "", True),
        (f"{ORDER} ", "device", True),
        ("https://other.example/order ", "", True),
    ],
)
def test_an_order_for_another_profile_or_of_another_ca_is_given_up(
    tmp_path: Path, kept: str, profile: str, *, is_new: bool
) -> None:
    flow = connected(
        tmp_path,
        identifier_type=AcmeIdentifier.DNS,
        identifier=HOST,
        challenge=AcmeChallenge.HTTP,
        hook=hook(tmp_path, "exit 0").program,
        profile=profile,
    )
    server = good()
    server.answers["/newAccount"] = lambda *_: answer({"status": "valid"}, 201, location=f"{BASE}/account")
    flow.client = AcmeClient(DIRECTORY_URL, cast("HttpsSession", server), flow.context.clock)
    handle = Handle(kept)

    flow.enroll(Enrollment(new_key(), flow.asks_for(DEVICE_REQUEST), handle=handle))

    assert ("/newOrder" in [path for path, _ in server.asked]) is is_new
    assert Progress.read(handle.text) == Progress(ORDER, profile, flow.context.clock.now())


# --- the hook


def hook(folder: Path, text: str) -> Hook:
    program = folder / "hook"
    program.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    program.chmod(0o755)
    return Hook(program, AcmeChallenge.DNS)


def test_the_hook_gets_the_record_of_dns_01_and_an_environment_without_anything_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 8555 8.4: the SHA-256 of the key authorization."""
    monkeypatch.setenv("SECRET", "of the service")
    said = tmp_path / "said"
    program = hook(tmp_path, f'printf "%s\\n" "$@" > {said}; env >> {said}')

    program.present(HOST, "token", "token.thumbprint")

    present, kind, host, record, value, *environment = said.read_text("utf-8").splitlines()
    assert [present, kind, host, record] == ["present", "dns-01", HOST, f"_acme-challenge.{HOST}"]
    assert value == "61rBZ_4knHblO0MNoxFsXZ_eTFUHum0B6IVRbhvUn5I"
    assert not [line for line in environment if line.startswith("SECRET")]


def test_a_hook_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(challenge, "HOOK_SECONDS", 0.2)

    with pytest.raises(ConfigurationError, match="did not end within"):
        hook(tmp_path, "sleep 60").present(HOST, "token", "token.thumbprint")


def test_what_a_hook_that_hangs_has_started_is_ended_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would go on changing the name server while the next run does."""
    monkeypatch.setattr(challenge, "HOOK_SECONDS", 0.5)
    pid_file = tmp_path / "pid"

    with pytest.raises(ConfigurationError, match="did not end within"):
        hook(tmp_path, f"sleep 60 & echo $! > {pid_file}; wait").present(HOST, "token", "token.thumbprint")

    assert ended(int(pid_file.read_text("ascii")))


def ended(process: int) -> bool:
    """Whether a process is gone, or waits for whoever inherited it."""
    for _ in range(100):
        state = Path(f"/proc/{process}/stat")
        if not state.exists() or state.read_text("ascii").split(")")[1].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_hook_that_leaves_something_running_does_not_hold_us_up(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    hook(tmp_path, f"sleep 60 & echo $! > {pid_file}").present(HOST, "token", "token.thumbprint")

    os.kill(int(pid_file.read_text("ascii")), 9)


def test_a_hook_that_is_no_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be run: No such file"):
        Hook(tmp_path / "nothing", AcmeChallenge.HTTP).present(HOST, "token", "token.thumbprint")


def test_a_hook_that_fails_to_clean_up_holds_up_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hook(tmp_path, "exit 1").clean_up(HOST, "token", "token.thumbprint")

    assert "exit code 1 on 'cleanup'" in caplog.text


def test_what_a_failing_hook_says_is_one_short_line(tmp_path: Path) -> None:
    program = hook(tmp_path, "head -c 100000 /dev/zero | tr '\\0' 'x'; exit 1")

    with pytest.raises(ConfigurationError, match="exit code 1") as raised:
        program.present(HOST, "token", "token.thumbprint")

    assert len(raised.value.what) < 500
