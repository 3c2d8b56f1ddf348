"""SCEP against Debian's scepserver, which opens and verifies what this side sends; openssl reads it as well."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from agent.cli import exits
from agent.cli.main import run
from enroll.algorithms import KeyAlgorithm
from enroll.config import IdentitiesSettings, IdentitySettings, KeyStoreSettings, Pkcs11StoreSettings, StoreName
from enroll.csr import CertificateRequest, Usage
from enroll.enroller import Enroller
from enroll.errors import (
    CertificateRefused,
    ConfigurationError,
    EnrollmentRefused,
    ProtocolViolation,
    ServerUnreachable,
)
from enroll.flows.base import FlowContext, Pending
from enroll.flows.scep import ScepFlow
from enroll.flows.settings import FlowName
from enroll.identity import Generation, IdentityName
from enroll.issue import NotAsked
from tests.support.clocks import SteppedClock
from tests.support.enrolling import Keyholder, Scanner, settings, with_memory_key
from tests.support.openssl import openssl
from tests.support.scep_server import CHALLENGE, Site, scep_site
from tests.support.softhsm import softhsm_of_this_process

DEVICE, SIGNING = IdentityName.DEVICE, IdentityName.SIGNING
PKCS_REQ, RENEWAL_REQ = "19", "17"  # RFC 8894 3.2.1.2


def ask(site: Site, identity: IdentityName = DEVICE) -> Generation | Pending | NotAsked:
    """One run of the enroller, as after a restart."""
    with Enroller(site.scanner.restarted().context) as enroller:
        return enroller.enroll(identity, FlowName.SCEP)


def enrolled(site: Site, identity: IdentityName = DEVICE) -> Generation:
    answer = ask(site, identity)
    assert isinstance(answer, Generation)
    assert site.scanner.matching_pair(identity) == answer
    return answer


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Site]:
    with scep_site(tmp_path) as running:
        yield running


@pytest.fixture
def with_token(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The key is RSA in SoftHSM, and signs only."""
    softhsm = softhsm_of_this_process(tmp_path_factory.getbasetemp())
    token = Pkcs11StoreSettings(module=softhsm.proxy, token="through-proxy", pin_file=softhsm.pin_file)
    plain = settings(tmp_path)
    keystore = KeyStoreSettings(software=plain.keystore.software, pkcs11=token)
    in_token = IdentitySettings(key_store=StoreName.PKCS11, key_algorithm=KeyAlgorithm.RSA_2048)
    with scep_site(tmp_path, replace(plain, keystore=keystore, identity=IdentitiesSettings(device=in_token))) as site:
        yield site


def attribute(hospital: Site, index: int, oid: str) -> str:
    """A signed attribute of a request, as openssl reads it."""
    path = hospital.server.depot.parent / "message.der"
    path.write_bytes(hospital.server.requests[index])
    lines = openssl("asn1parse", "-inform", "DER", "-in", path).splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.endswith(f":{oid}")]
    return lines[at + 2].rpartition(":")[2]


def kinds(hospital: Site) -> list[str]:
    """The messages that were sent."""
    return [attribute(hospital, i, "2.16.840.1.113733.1.9.2") for i in range(len(hospital.server.requests))]


def transactions(hospital: Site) -> set[str]:
    """Their names."""
    return {attribute(hospital, i, "2.16.840.1.113733.1.9.7") for i in range(len(hospital.server.requests))}


def signer(hospital: Site, index: int) -> x509.Certificate:
    """Of a request, after openssl has verified the signature."""
    folder = hospital.server.depot.parent
    (folder / "message.der").write_bytes(hospital.server.requests[index])
    openssl(
        *("cms", "-verify", "-noverify", "-inform", "DER", "-in", folder / "message.der"),
        *("-signer", folder / "signer.pem", "-out", folder / "envelope.der"),
    )
    return x509.load_pem_x509_certificate((folder / "signer.pem").read_bytes())


def pkcs10(hospital: Site, index: int) -> str:
    """What a request asks for, after openssl has opened it with the key of the CA."""
    folder, depot = hospital.server.depot.parent, hospital.server.depot
    signer(hospital, index)
    openssl(
        *("cms", "-decrypt", "-inform", "DER", "-in", folder / "envelope.der", "-out", folder / "request.der"),
        *("-recip", depot / "ca.pem", "-inkey", depot / "ca.key", "-passin", "pass:of the CA's key"),
    )
    return openssl("req", "-verify", "-noout", "-text", "-inform", "DER", "-in", folder / "request.der")


def test_the_challenge_password_brings_the_first_certificate(hospital: Site) -> None:
    """RFC 8894 2.3, 2.4: the message is signed by the key that is certified, in a certificate of its own making."""
    generation = enrolled(hospital)

    assert kinds(hospital) == [PKCS_REQ]
    assert generation.flow == FlowName.SCEP
    assert signer(hospital, 0).public_key() == generation.certificate.public_key()
    assert signer(hospital, 0).subject == generation.certificate.subject


def test_a_renewal_is_signed_by_the_certificate_in_use(hospital: Site) -> None:
    """RFC 8894 3.3.1: RenewalReq."""
    first = enrolled(hospital)

    second = enrolled(hospital)

    assert kinds(hospital) == [PKCS_REQ, RENEWAL_REQ]
    assert signer(hospital, 1) == first.certificate
    assert second.key_uri != first.key_uri
    assert second.certificate.serial_number != first.certificate.serial_number
    assert len(transactions(hospital)) == 2


def test_a_renewal_needs_no_challenge_password_where_the_server_wants_none(hospital: Site) -> None:
    """RFC 8894 2.4. A file whose password has served may be gone."""
    enrolled(hospital)
    hospital.server.options = ["-allowrenew", "0"]
    hospital.server.restart()
    (hospital.server.depot.parent / "challenge").unlink()

    enrolled(hospital)

    assert kinds(hospital) == [PKCS_REQ, RENEWAL_REQ]


def test_others_read_the_request(hospital: Site) -> None:
    """A second reader beside the server: openssl verifies, opens and verifies again."""
    enrolled(hospital)

    text = pkcs10(hospital, 0)

    assert CHALLENGE in text
    assert "CN = Example CT CT-000123" in text
    assert CHALLENGE.encode() not in hospital.server.requests[0]
    parsed = openssl("asn1parse", "-inform", "DER", "-in", hospital.server.depot.parent / "envelope.der")
    assert "aes-256-cbc" in parsed


def test_a_wrong_challenge_is_refused(hospital: Site, caplog: pytest.LogCaptureFixture) -> None:
    hospital.challenge("a wrong challenge")

    with caplog.at_level(logging.DEBUG), pytest.raises(EnrollmentRefused, match="badRequest") as refused:
        ask(hospital)

    assert refused.value.who_must_act == "hospital IT"
    assert "challenge_file" in refused.value.remedy
    assert "a wrong challenge" not in f"{refused.value} {caplog.text}"
    assert hospital.scanner.identities.current(DEVICE) is None
    assert hospital.scanner.identities.journal(DEVICE).read() is None


def test_a_key_that_only_signs_is_certified_by_way_of_a_key_that_does_not_stay(with_token: Site) -> None:
    """The message is signed, and the answer opened, by a key that nobody has afterwards."""
    generation = enrolled(with_token)

    assert generation.key_uri.startswith("pkcs11:")
    assert signer(with_token, 0).public_key() != generation.certificate.public_key()
    assert signer(with_token, 0).subject == generation.certificate.subject


def test_a_key_that_only_signs_is_renewed_by_the_challenge_password(with_token: Site) -> None:
    """The answer to RenewalReq would be encrypted to the certificate in use, which nobody can read."""
    first, second = enrolled(with_token), enrolled(with_token)

    assert kinds(with_token) == [PKCS_REQ, PKCS_REQ]
    assert second.certificate.serial_number != first.certificate.serial_number


def test_after_its_certificate_has_ended_the_challenge_password_proves_who_asks(hospital: Site) -> None:
    """A scanner that was away for longer than its certificate lived."""
    first = enrolled(hospital)
    request = CertificateRequest.for_device(hospital.scanner.settings.device, Usage.DEVICE)
    later = SteppedClock(first.certificate.not_valid_after_utc + timedelta(days=1))

    def proof(context: FlowContext) -> str:
        with ScepFlow.connect(DEVICE, context) as flow:
            return flow.plan(request, first.certificate)[-1].proof

    assert proof(hospital.scanner.context) == "a signature by the certificate in use"
    assert proof(replace(hospital.scanner.context, clock=later)) == "the challenge password"


def test_a_server_that_does_not_renew_is_asked_with_the_challenge_password(hospital: Site) -> None:
    """RFC 8894 3.5.2: the capability Renewal."""
    hospital.server.rewrite = lambda query, answer: answer.replace(b"Renewal\n", b"") if "Caps" in query else answer

    enrolled(hospital)
    enrolled(hospital)

    assert kinds(hospital) == [PKCS_REQ, PKCS_REQ]


def test_a_server_that_keeps_names_unique_says_who_must_act(tmp_path: Path) -> None:
    """An identity that was lost: this server refuses a second certificate for its name."""
    with scep_site(tmp_path) as hospital:
        hospital.server.options = ["-challenge", CHALLENGE, "-allowrenew", "1"]
        enrolled(hospital)
        (hospital.scanner.identities.directory(DEVICE) / "current").unlink()

        with pytest.raises(EnrollmentRefused, match="badRequest") as refused:
            ask(hospital)

        assert "revoke" in refused.value.remedy


def test_this_server_takes_no_keys_on_a_curve_and_says_only_bad_request(tmp_path: Path) -> None:
    with (
        scep_site(tmp_path, algorithm=KeyAlgorithm.P_256) as hospital,
        pytest.raises(EnrollmentRefused, match="badRequest") as refused,
    ):
        ask(hospital)

    assert "key_algorithm" in refused.value.remedy


def test_what_this_server_issues_signs_no_images(tmp_path: Path) -> None:
    """It certifies for client authentication, whatever is asked; `enroll.trust` says no."""
    plain = settings(tmp_path)
    keys = IdentitiesSettings(signing=replace(plain.identity.signing, key_algorithm=KeyAlgorithm.RSA_2048))
    with scep_site(tmp_path, replace(plain, identity=keys)) as hospital:
        with pytest.raises(CertificateRefused) as refused:
            ask(hospital, SIGNING)

        assert refused.value.code == "certificate-wrong-usage"
        assert hospital.scanner.identities.current(SIGNING) is None


def test_a_key_in_memory_is_not_asked_for(tmp_path: Path) -> None:
    """Its request was signed by the agent, so no challenge password can be put into it."""
    with scep_site(tmp_path, with_memory_key(settings(tmp_path))) as hospital:
        Keyholder(hospital.scanner).offer()

        with pytest.raises(EnrollmentRefused, match="challenge password") as refused:
            ask(hospital, SIGNING)

        assert "key_store" in refused.value.remedy
        assert hospital.server.requests == []


def test_without_an_answer_the_same_request_goes_out_again(hospital: Site) -> None:
    """The name of the transaction was kept before the request was sent."""
    hospital.server.rewrite = lambda query, answer: answer[:-1] if "PKIOperation" in query else answer
    with pytest.raises(ProtocolViolation):
        ask(hospital)
    waiting = hospital.scanner.identities.journal(DEVICE).read()

    hospital.server.rewrite = lambda _, answer: answer
    generation = enrolled(hospital)

    assert waiting is not None
    assert generation.key_uri == waiting.key_uri
    assert len(hospital.server.requests) == 2
    assert len(transactions(hospital)) == 1


def test_an_answer_of_a_megabyte_is_not_read(hospital: Site) -> None:
    hospital.server.rewrite = lambda query, answer: answer + bytes(1 << 20) if "PKIOperation" in query else answer

    with pytest.raises(ProtocolViolation, match="sends more than"):
        ask(hospital)


def test_a_server_that_is_gone(hospital: Site) -> None:
    in_use = enrolled(hospital)
    hospital.server.stop()

    with pytest.raises(ServerUnreachable):
        ask(hospital)

    assert hospital.current() == in_use


def test_it_is_off_unless_configured(hospital: Site) -> None:
    off = replace(hospital.scanner.settings.scep, enabled=False)

    with (
        Enroller(hospital.scanner.restarted(scep=off).context) as enroller,
        pytest.raises(ConfigurationError, match="switched off") as refused,
    ):
        enroller.enroll(DEVICE, FlowName.SCEP)

    assert refused.value.code == "scep-not-enabled"


def test_a_server_of_another_ca_is_shown_no_challenge(hospital: Site, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    with scep_site(folder) as other:
        mixed = Scanner(other.scanner.settings, (hospital.server.ca,), other.scanner.clock)

        with Enroller(mixed.context) as enroller, pytest.raises(CertificateRefused) as refused:
            enroller.enroll(DEVICE, FlowName.SCEP)

        assert refused.value.code == "scep-authority-untrusted"
        assert other.server.requests == []


# --- the command line


@pytest.fixture
def configuration(hospital: Site) -> Path:
    """scanseal.toml of the scanner."""
    scanner = hospital.scanner.settings
    tables: dict[str, dict[str, object]] = {
        "device": {"serial_number": scanner.device.serial_number, "model": scanner.device.model},
        "keystore.software": {"passphrase_file": str(scanner.keystore.software.passphrase_file)},
        "identity.device": {"key_algorithm": "rsa-2048"},
        "scep": {
            "enabled": True,
            "url": scanner.scep.url,
            "anchor_file": str(scanner.scep.anchor_file),
            "challenge_file": str(scanner.scep.challenge_file),
        },
    }
    lines = [f"state_directory = {json.dumps(str(scanner.state_directory))}"]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{option} = {json.dumps(value)}" for option, value in table.items())]
    path = hospital.server.depot.parent / "scanseal.toml"
    path.write_text("\n".join(lines), "utf-8")
    return path


def scanseal(*words: str, configuration: Path) -> int:
    return run([*words, "--config", str(configuration)])


def test_one_command_gets_the_certificate(
    hospital: Site, configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("enroll", "scep", "--identity", "device")
    assert scanseal(*words, "--dry-run", configuration=configuration) == exits.OK
    told = capsys.readouterr().out
    assert "POST: PKCSReq, certificate request for device: " in told
    assert "proved by the challenge password" in told
    assert CHALLENGE not in told
    assert hospital.server.requests == []

    assert scanseal(*words, configuration=configuration) == exits.OK

    assert kinds(hospital) == [PKCS_REQ]
    capsys.readouterr()
    scanseal(*words, "--dry-run", configuration=configuration)
    assert "proved by a signature by the certificate in use" in capsys.readouterr().out


def test_the_command_says_that_it_is_off(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configuration.write_text(configuration.read_text("utf-8").replace("enabled = true", "enabled = false"), "utf-8")

    assert scanseal("enroll", "scep", configuration=configuration) == exits.CONFIGURATION

    assert "offline" in capsys.readouterr().err
