"""Each role signs with a key and a certificate of its own, from the enrollment to the signed instance."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from agent.cli import exits
from agent.cli.main import run
from agent.client import SigningClient, apply_splice
from agent.daemon.signer import IDENTITY_OF
from agent.daemon.wire import Role
from agent.errors import AgentRefused
from enroll.identity import IdentityName
from tests.support.agent_process import Agent, Scanner, new_scanner, running_agent, wait_until
from tests.support.dicom_tree import find, parse
from tests.support.hospital import Hospital
from tests.support.mac_oracle import Signature, signatures
from tests.support.raw_dicom import Node, instance, part10, text
from tests.support.raw_http import Caller, sign_instance

ME = f"user:{os.getuid()}"
EVERY_ROLE: dict[str, dict[str, Any]] = {"roles": {role: [ME] for role in Role}}
QUICK: dict[str, dict[str, Any]] = {f"identity.{name}": {"key_algorithm": "rsa-2048"} for name in IDENTITY_OF.values()}

ORIGINAL = text(0x00080008, "CS", "ORIGINAL\\PRIMARY\\AXIAL")
DERIVED = text(0x00080008, "CS", "DERIVED\\PRIMARY\\AXIAL")
SYNTHETIC = text(0x0008001C, "CS", "YES")
SERIAL_NUMBER = text(0x00181000, "LO", "SN0001")
FITTING = {Role.ACQUISITION: ORIGINAL, Role.DERIVATION: DERIVED, Role.SYNTHESIS: SYNTHETIC}


def image(*nodes: Node) -> bytes:
    return part10(instance(SERIAL_NUMBER, *nodes))


def signed(agent: Agent, data: bytes, **how: str) -> bytes:
    result = io.BytesIO()
    with SigningClient(agent.socket) as client:
        client.sign_instance(data, result, **how)
    return result.getvalue()


def signature_of(agent: Agent, data: bytes, **how: str) -> Signature:
    """The one signature, which covers what the second encoder says it must."""
    (signature,) = signatures(parse(signed(agent, data, **how)).elements)
    assert signature.recovered_digest() == signature.stream_digest()
    return signature


def certificate_of(signature: Signature) -> x509.Certificate:
    # A byte of padding may follow (PS3.5 6.2), and the certificate itself may end with such a byte.
    length = 4 + int.from_bytes(
        signature.certificate[2:4], "big"
    )  # X.690 8.1.3: of a SEQUENCE with two bytes of length
    return x509.load_der_x509_certificate(signature.certificate[:length])


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scanner]:
    """A scanner with all identities, from the evaluation CA, over EST."""
    folder = tmp_path_factory.mktemp("scanner")
    with new_scanner(folder) as scanner:
        hospital = Hospital(folder / "ca")
        configuration = str(scanner.configure(**hospital.tables(), **QUICK, **EVERY_ROLE))
        with hospital.answers():
            assert run(["enroll", "est", "--config", configuration]) == exits.OK
            for name in ("derivation", "synthesis"):
                assert run(["enroll", "est", "--identity", name, "--config", configuration]) == exits.OK
        yield scanner


@pytest.fixture(scope="module")
def all_roles(enrolled: Scanner) -> Iterator[Agent]:
    with running_agent(enrolled, **EVERY_ROLE) as agent:
        yield agent


def units(certificate: x509.Certificate) -> list[str | bytes]:
    return [
        attribute.value for attribute in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    ]


def test_the_certificates_of_the_roles_are_told_apart(all_roles: Agent) -> None:
    found = {role: certificate_of(signature_of(all_roles, image(FITTING[role]), role=role)) for role in Role}

    assert {role: units(certificate) for role, certificate in found.items()} == {
        Role.ACQUISITION: [],
        Role.DERIVATION: ["derivation"],
        Role.SYNTHESIS: ["synthesis"],
    }
    keys = {
        certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for certificate in found.values()
    }
    assert len(keys) == len(Role)


@pytest.mark.parametrize(("role", "name"), IDENTITY_OF.items())
def test_a_digest_is_signed_by_the_identity_of_the_role(all_roles: Agent, role: Role, name: IdentityName) -> None:
    with SigningClient(all_roles.socket) as client:
        answer = client.sign_digest(bytes(32), algorithm="sha256", role=role)
        certificates = x509.load_pem_x509_certificates(client.certificates(name))

    assert certificates[0] == x509.load_der_x509_certificate(answer.certificate)


def test_the_status_names_all_identities_and_what_each_role_can_do(
    all_roles: Agent, enrolled: Scanner, capsys: pytest.CaptureFixture[str]
) -> None:
    with SigningClient(all_roles.socket) as client:
        status = client.status()
    assert status["state"] == "ready"
    assert status["roles"] == dict.fromkeys(Role, "ready")
    assert {name for name, record in status["identities"].items() if record} == set(IdentityName) - {"idevid", "vendor"}

    assert run(["status", "--config", str(enrolled.directory / "scanseal.toml")]) == exits.OK
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "scanner",
        "device",
        "signing",
        "derivation",
        "synthesis",
        "signs",
        "agent",
    ]
    assert "ready: acquisition ready, derivation ready, synthesis ready" in lines[-1]


REFUSED = [
    (Role.ACQUISITION, DERIVED, "derived-instance"),
    (Role.ACQUISITION, SYNTHETIC, "synthetic-instance"),
    (Role.DERIVATION, ORIGINAL, "original-instance"),
    (Role.DERIVATION, SYNTHETIC, "synthetic-instance"),
    (Role.SYNTHESIS, ORIGINAL, "not-marked-synthetic"),
    (Role.SYNTHESIS, DERIVED, "not-marked-synthetic"),
]


@pytest.mark.parametrize(("role", "node", "code"), REFUSED)
def test_what_contradicts_the_role_is_signed_by_nobody(
    all_roles: Agent, enrolled: Scanner, role: Role, node: Node, code: str
) -> None:
    before = len(enrolled.audit("signature"))
    with pytest.raises(AgentRefused) as refused:
        signed(all_roles, image(node), role=role)

    assert (refused.value.status, refused.value.code) == (422, code)
    assert "role" in refused.value.remedy or "YES" in refused.value.remedy
    assert len(enrolled.audit("signature")) == before


def test_the_role_is_in_the_audit_trail_with_every_signature(all_roles: Agent, enrolled: Scanner) -> None:
    for role, node in FITTING.items():
        signed(all_roles, image(node), role=role)
        line = enrolled.audit("signature")[-1]
        assert (line["role"], line["key_generation"]) == (role, 1)
        assert "warning" not in line


def test_without_a_word_the_configured_profile_and_hash_are_used(all_roles: Agent) -> None:
    """Pixel spacing and Synthetic Data are not in PS3.15 C.2."""
    spacing = text(0x00280030, "DS", "0.5\\0.5")

    everything = signature_of(all_roles, image(SYNTHETIC, spacing), role="synthesis")
    minimum = signature_of(all_roles, image(ORIGINAL, spacing), role="acquisition", profile="creator-rsa")

    assert {0x0008001C, 0x00280030} <= set(everything.tags)
    assert everything.hash_name == "SHA256"
    assert not {0x0008001C, 0x00280030} & set(minimum.tags)


@pytest.mark.parametrize("purpose", ["1", "14"])
def test_the_purpose_of_a_request_is_in_the_signature(all_roles: Agent, purpose: str) -> None:
    result = signed(all_roles, image(ORIGINAL), role="acquisition", purpose=purpose)

    sequence = find(parse(result).elements, 0xFFFAFFFA)
    assert sequence is not None
    (item,) = sequence.items or ()
    code = find(item, 0x04000401)
    assert code is not None
    assert (code.items or ())[0][0].value.decode("ascii").strip() == purpose
    (signature,) = signatures(parse(result).elements)
    assert signature.recovered_digest() == signature.stream_digest()


# --- the configuration decides


CONFIGURED: dict[str, dict[str, Any]] = {
    "signing": {"profile": "creator-rsa", "hash": "sha512", "missing_device_identity": "refuse"},
    **EVERY_ROLE,
}


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    with new_scanner(tmp_path) as scanner:
        scanner.enroll()
        yield scanner


def test_the_configuration_chooses_profile_hash_and_what_happens_without_a_device(scanner: Scanner) -> None:
    with running_agent(scanner, **CONFIGURED) as agent:
        chosen = signature_of(agent, image(ORIGINAL, text(0x00280030, "DS", "0.5\\0.5")), role="acquisition")
        with pytest.raises(AgentRefused) as refused:
            signed(agent, part10(instance(ORIGINAL)), role="acquisition")

    assert chosen.hash_name == "SHA512"
    assert 0x00280030 not in chosen.tags
    assert (refused.value.status, refused.value.code) == (422, "device-identity-missing")


@pytest.mark.parametrize(("switch", "covered"), [(True, True), (False, False)])
def test_private_elements_are_covered_where_the_configuration_says_so(
    scanner: Scanner,
    switch: bool,  # noqa: FBT001 - a parameter of the test, not of a function
    covered: bool,  # noqa: FBT001
) -> None:
    private = (text(0x00190010, "LO", "SOMEONE"), text(0x00191001, "LO", "secret sauce"))
    with running_agent(scanner, signing={"private_elements": switch}) as agent:
        tags = signature_of(agent, image(ORIGINAL, *private), role="acquisition").tags

    assert ({0x00190010, 0x00191001} <= set(tags)) == covered


@pytest.mark.parametrize(("missing", "warnings"), [("warn", ["device-identity-missing"]), ("allow", [])])
def test_an_instance_that_names_no_device_is_answered_with_a_warning(
    scanner: Scanner, missing: str, warnings: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = part10(instance(ORIGINAL))
    source, target = tmp_path / "image.dcm", tmp_path / "signed.dcm"
    source.write_bytes(data)
    with running_agent(scanner, signing={"missing_device_identity": missing}) as agent:
        with agent.connect() as connection:
            head = Caller(connection).ask(sign_instance(data)).fields
        with SigningClient(agent.socket) as client:
            splice = client.splice_instance(data, role="acquisition")
        assert run(["sign", "--json", str(source), "-o", str(target), "--socket", str(agent.socket)]) == exits.OK

    warning = warnings[0] if warnings else None
    assert head.get("scanseal-warning") == warning
    assert list(splice.warnings) == warnings
    assert json.loads(capsys.readouterr().out)["files"][0]["warnings"] == warnings
    assert [line.get("warning") for line in scanner.audit("signature")] == [warning] * 3


def test_an_instance_that_names_its_device_is_answered_without(scanner: Scanner) -> None:
    with running_agent(scanner) as agent, SigningClient(agent.socket) as client:
        data = image(ORIGINAL)
        splice = client.splice_instance(data, role="acquisition")
        result = io.BytesIO()
        apply_splice(data, splice.edits, result)
        with agent.connect() as connection:
            assert "scanseal-warning" not in Caller(connection).ask(sign_instance(data)).fields

    assert splice.warnings == ()
    assert len(signatures(parse(result.getvalue()).elements)) == 1


# --- who may ask, and for what there is no key


def test_a_program_of_a_model_that_asks_as_acquisition_is_refused_and_audited(scanner: Scanner) -> None:
    """A scanner that also generates: the key for originals is out of the generator's reach."""
    scanner.enroll(IdentityName.SYNTHESIS)
    with running_agent(scanner, roles={"acquisition": ["user:65533"], "synthesis": [ME]}) as agent:
        with pytest.raises(AgentRefused) as refused:
            signed(agent, image(ORIGINAL), role="acquisition")
        signed(agent, image(SYNTHETIC), role="synthesis")

    assert (refused.value.status, refused.value.code) == (403, "role-not-allowed")
    assert [(line["uid"], line["role"]) for line in scanner.audit("role-refused")] == [(os.getuid(), "acquisition")]
    assert [line["role"] for line in scanner.audit("signature")] == ["synthesis"]


@pytest.mark.parametrize("role", [Role.DERIVATION, Role.SYNTHESIS])
def test_a_role_without_an_identity_names_the_command_and_no_other_key_signs(scanner: Scanner, role: Role) -> None:
    with running_agent(scanner, **EVERY_ROLE) as agent, SigningClient(agent.socket) as client:
        for ask in (
            lambda: signed(agent, image(FITTING[role]), role=role),
            lambda: client.sign_digest(bytes(32), algorithm="sha256", role=role),
            lambda: client.certificates(IDENTITY_OF[role]),
        ):
            with pytest.raises(AgentRefused) as refused:
                ask()
            assert (refused.value.status, refused.value.code) == (503, "not-enrolled")
            assert f"scanseal enroll WAY --identity {role}" in refused.value.remedy
        assert scanner.audit("signature") == []

        scanner.enroll(IDENTITY_OF[role])
        wait_until(lambda: client.status()["roles"][role] == "ready", 5)
        assert client.sign_digest(bytes(32), algorithm="sha256", role=role).key_generation == 1


def test_every_identity_has_generations_of_its_own(scanner: Scanner) -> None:
    for _ in range(2):
        scanner.enroll(IdentityName.DERIVATION)
    with running_agent(scanner, **EVERY_ROLE) as agent, SigningClient(agent.socket) as client:
        original = client.splice_instance(image(ORIGINAL), role="acquisition")
        derived = client.splice_instance(image(DERIVED), role="derivation")

    assert (original.key_generation, derived.key_generation) == (1, 2)


def test_an_expired_identity_of_one_role_leaves_the_others_signing(
    scanner: Scanner, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = scanner.authority
    authority.not_before, authority.not_after = (
        authority.not_before.replace(year=2020),
        authority.not_after.replace(year=2021),
    )
    scanner.enroll(IdentityName.DERIVATION)
    with running_agent(scanner, **EVERY_ROLE) as agent:
        assert len(signed(agent, image(ORIGINAL), role="acquisition")) > len(image(ORIGINAL))
        with pytest.raises(AgentRefused) as refused:
            signed(agent, image(DERIVED), role="derivation")
        assert refused.value.code == "certificate-expired"

        assert run(["status", "--config", str(scanner.directory / "scanseal.toml")]) == exits.UNAVAILABLE
    assert "ready: acquisition ready, derivation certificate-expired" in capsys.readouterr().out


def test_a_broken_identity_of_one_role_leaves_the_others_signing(scanner: Scanner) -> None:
    scanner.keys.destroy(scanner.enroll(IdentityName.SYNTHESIS).key_uri)
    with running_agent(scanner, **EVERY_ROLE) as agent, SigningClient(agent.socket) as client:
        assert client.splice_instance(image(ORIGINAL), role="acquisition").key_generation == 1
        with pytest.raises(AgentRefused) as refused:
            client.splice_instance(image(SYNTHETIC), role="synthesis")
        status = client.status()

    assert (refused.value.status, refused.value.code) == (503, "key-damaged")
    assert status["roles"]["synthesis"] == "key-damaged"
    assert (status["refused_generation"]["identity"], status["refused_generation"]["code"]) == (
        "synthesis",
        "key-not-found",
    )


# --- enrollment and renewal


def test_all_identities_that_exist_are_renewed(enrolled: Scanner, capsys: pytest.CaptureFixture[str]) -> None:
    configuration = str(enrolled.directory / "scanseal.toml")

    assert run(["renew", "--dry-run", "--config", configuration]) == exits.OK

    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": due on ")[0] for line in lines] == ["device", "signing", "derivation", "synthesis"]


def test_a_renewed_certificate_of_a_role_keeps_its_unit(tmp_path: Path) -> None:
    with new_scanner(tmp_path) as scanner:
        hospital = Hospital(tmp_path / "ca")
        configuration = str(scanner.configure(**hospital.tables(), **QUICK))
        with hospital.answers():
            assert run(["enroll", "est", "--identity", "device", "--config", configuration]) == exits.OK
            assert run(["enroll", "est", "--identity", "synthesis", "--config", configuration]) == exits.OK
            assert run(["renew", "--force", "--config", configuration]) == exits.OK
        renewed = scanner.identities.current(IdentityName.SYNTHESIS)
        assert scanner.identities.current(IdentityName.SIGNING) is None

    assert renewed is not None
    assert renewed.number == 2
    assert units(renewed.certificate) == ["synthesis"]


def test_a_ca_that_leaves_the_unit_out_enrolls_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its certificate would be one for originals."""
    with new_scanner(tmp_path) as scanner:
        hospital = Hospital(tmp_path / "ca")
        configuration = str(scanner.configure(**hospital.tables(), **QUICK))
        issue = type(hospital.ca).issue

        def without_unit(request: x509.CertificateSigningRequest) -> x509.Certificate:
            return issue(hospital.ca, RequestWithoutUnit(request))  # type: ignore[arg-type]

        with hospital.answers():
            assert run(["enroll", "est", "--identity", "device", "--config", configuration]) == exits.OK
            monkeypatch.setattr(hospital.ca, "issue", without_unit)
            assert run(["enroll", "est", "--identity", "synthesis", "--config", configuration]) == exits.UNAVAILABLE
        assert scanner.identities.current(IdentityName.SYNTHESIS) is None
    assert "not as asked" in capsys.readouterr().err


class RequestWithoutUnit:
    """A request as a CA sees it that does not care for units."""

    def __init__(self, request: x509.CertificateSigningRequest) -> None:
        self._request = request

    @property
    def subject(self) -> x509.Name:
        return x509.Name([part for part in self._request.subject if part.oid != NameOID.ORGANIZATIONAL_UNIT_NAME])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)
