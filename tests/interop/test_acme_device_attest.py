"""ACME with device attestation against step-ca: certificates for keys that prove where they are, and for no others."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from fido2 import cbor
from fido2.attestation.tpm import TpmAttestationFormat, TpmPublicFormat

from enroll import csr
from enroll.algorithms import KeyAlgorithm
from enroll.attestation.names import permanent_identifiers
from enroll.clock import SystemClock
from enroll.config import (
    IdentitiesSettings,
    IdentitySettings,
    KeyStoreSettings,
    Pkcs11StoreSettings,
    SigningIdentitySettings,
    StoreName,
)
from enroll.csr import CertificateRequest, Usage
from enroll.enroller import Enroller
from enroll.errors import (
    CertificateRefused,
    ConfigurationError,
    EnrollmentRefused,
    ScansealError,
    ServerUnreachable,
    UnsupportedKey,
)
from enroll.flows.acme import device_attest
from enroll.flows.acme.device_attest import attestation_object
from enroll.flows.base import Enrollment, FlowContext, OfferedEnrollment
from enroll.flows.settings import AcmeIdentifier, AcmeSettings, FlowName
from enroll.identity import Generation, IdentityName
from enroll.statefile import StateFiles
from tests.support import enrolling
from tests.support.acme.step_ca import StepCa, running_step_ca
from tests.support.attesting import Vendor, running_vendor, scanner, scanner_with_tpm
from tests.support.enrolling import Scanner
from tests.support.pki import DEVICE
from tests.support.softhsm import softhsm_of_this_process
from tests.support.swtpm import SwTpm, resource_manager, running_swtpm

pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is missing: pip install '.[tpm]'")

Maker = Callable[[FlowContext, Enrollment | OfferedEnrollment, bytes], bytes]

ROOT = Path(__file__).parents[2]
KEY_AUTHORIZATION = b"token.thumbprint"


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwTpm]:
    with running_swtpm(tmp_path_factory.mktemp("tpm"), manufactured=True) as running:
        yield running


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory, tpm: SwTpm) -> Iterator[Vendor]:
    with running_vendor(tmp_path_factory.mktemp("vendor"), tpm) as running:
        yield running


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory, vendor: Vendor) -> Iterator[StepCa]:
    with running_step_ca(tmp_path_factory.mktemp("hospital"), vendor.ca.anchor_file) as running:
        yield running


@pytest.fixture
def in_tpm(tmp_path: Path, tpm: SwTpm, vendor: Vendor, ca: StepCa) -> Scanner:
    """A scanner with its keys in the simulated TPM, which serves one connection at a time."""
    return at(ca, scanner_with_tpm(tmp_path / "scanner", tpm.tcti, vendor))


@pytest.fixture
def in_token(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, vendor: Vendor, ca: StepCa) -> Scanner:
    """A scanner with its keys in a PKCS#11 token."""
    hsm = softhsm_of_this_process(tmp_path_factory.getbasetemp())
    settings = replace(
        enrolling.settings(tmp_path),
        keystore=KeyStoreSettings(pkcs11=Pkcs11StoreSettings(hsm.proxy, "through-proxy", hsm.pin_file)),
        identity=IdentitiesSettings(
            device=IdentitySettings(key_store=StoreName.PKCS11, key_algorithm=KeyAlgorithm.P_256),
            signing=SigningIdentitySettings(key_store=StoreName.PKCS11, key_algorithm=KeyAlgorithm.RSA_2048),
        ),
        attestation=vendor.settings(),
    )
    return at(ca, scanner(settings))


@pytest.fixture(params=["in_tpm", "in_token"])
def device(request: pytest.FixtureRequest) -> Scanner:
    found: Scanner = request.getfixturevalue(request.param)
    return found


def at(ca: StepCa, scanner: Scanner, **changes: str) -> Scanner:
    """The scanner as a customer of this CA, with its account key where its other keys are."""
    store = scanner.settings.identity.device.key_store
    acme = AcmeSettings(ca.directory_url, ca.anchor_file, account_key_store=store, patience=5, **changes)  # type: ignore[arg-type]
    return scanner.restarted(acme=acme)


def enroll(device: Scanner, identity: IdentityName = IdentityName.DEVICE) -> Generation:
    with Enroller.configured(device.settings, SystemClock(), StateFiles()) as enroller:
        generation = enroller.enroll(identity, FlowName.ACME)
    assert isinstance(generation, Generation)
    return generation


def refused(device: Scanner) -> str:
    """What is said when the CA refuses; nothing is in use afterwards, and nothing under way."""
    with pytest.raises(EnrollmentRefused) as raised:
        enroll(device)
    assert device.identities.current(IdentityName.DEVICE) is None
    assert device.identities.journal(IdentityName.DEVICE).read() is None
    return f"{raised.value}"


def evidence_of(monkeypatch: pytest.MonkeyPatch, make: Maker) -> None:
    monkeypatch.setattr(device_attest, "attestation_object", make)


def wanted(store: StoreName, algorithm: KeyAlgorithm, device: Scanner) -> Scanner:
    identity = IdentitySettings(key_store=store, key_algorithm=algorithm)
    return device.restarted(identity=replace(device.settings.identity, device=identity))


# --- certificates for keys that prove where they are


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.P_256, KeyAlgorithm.P_384, KeyAlgorithm.RSA_2048])
def test_a_device_with_its_key_in_a_tpm_gets_its_certificate(in_tpm: Scanner, algorithm: KeyAlgorithm) -> None:
    generation = enroll(wanted(StoreName.TPM, algorithm, in_tpm))

    check_certificate(generation, Usage.DEVICE)
    assert generation.key_uri.startswith("tpm:")


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.P_256, KeyAlgorithm.RSA_2048])
def test_a_device_with_its_key_in_a_token_gets_its_certificate(in_token: Scanner, algorithm: KeyAlgorithm) -> None:
    generation = enroll(wanted(StoreName.PKCS11, algorithm, in_token))

    check_certificate(generation, Usage.DEVICE)
    assert generation.key_uri.startswith("pkcs11:")


def test_so_does_the_key_that_signs_images(device: Scanner) -> None:
    """RSA, as DICOM demands of creators; for documents (RFC 9336) and nothing else."""
    enroll(device)

    check_certificate(enroll(device, IdentityName.SIGNING), Usage.SIGNING)


def test_what_is_made_from_images_is_signed_with_a_key_that_says_so(in_tpm: Scanner) -> None:
    identity = replace(in_tpm.settings.identity, derivation=in_tpm.settings.identity.signing)

    generation = enroll(in_tpm.restarted(identity=identity), IdentityName.DERIVATION)

    check_certificate(generation, Usage.DERIVATION)
    assert "OU=derivation" in generation.certificate.subject.rfc4514_string()


def test_the_default_template_of_step_ca_serves_the_device_and_not_what_signs(
    in_tpm: Scanner, vendor: Vendor, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with running_step_ca(tmp_path_factory.mktemp("default"), vendor.ca.anchor_file, options=None) as default:
        check_certificate(enroll(at(default, in_tpm)), Usage.DEVICE)
        with pytest.raises(CertificateRefused, match="extendedKeyUsage") as raised:
            enroll(at(default, in_tpm), IdentityName.SIGNING)
    assert "template" in raised.value.remedy


def test_a_renewal_attests_the_new_key(device: Scanner) -> None:
    first, second = enroll(device), enroll(device)

    assert second.number == first.number + 1
    assert second.certificate.public_key() != first.certificate.public_key()
    check_certificate(second, Usage.DEVICE)


def check_certificate(generation: Generation, usage: Usage) -> None:
    certificate = generation.certificate
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [usage.extended_key_usage]
    assert DEVICE.serial_number in certificate.subject.rfc4514_string()
    assert permanent_identifiers(certificate) == (DEVICE.serial_number,)


def test_the_command_does_so_for_both_identities(in_tpm: Scanner, tmp_path: Path) -> None:
    config = tmp_path / "scanseal.toml"
    config.write_text(as_toml(in_tpm), "utf-8")

    said = [scanseal("enroll", "acme", "--config", str(config), "--identity", name) for name in ("device", "signing")]

    serial_number = DEVICE.serial_number
    assert all(f"CN={serial_number}" in each and "issued by CN=Hospital CA" in each for each in said), said
    attested = scanseal("status", "--config", str(config), "--attestation", "--json", code=69)  # no agent runs
    assert json.loads(attested)["identities"]["device"]["attestation"]["state"] == "verified"


def as_toml(scanner: Scanner) -> str:
    settings, tpm, signing = scanner.settings, scanner.settings.keystore.tpm, scanner.settings.identity.signing
    attestation, acme = settings.attestation, settings.acme
    return f"""state_directory = "{settings.state_directory}"
[device]
serial_number = "{settings.device.serial_number}"
model = "{settings.device.model}"
[keystore.tpm]
tcti = "{tpm.tcti}"
authorization_file = "{tpm.authorization_file}"
[identity.device]
key_store = "tpm"
key_algorithm = "p-256"
[identity.signing]
key_store = "tpm"
key_algorithm = "{signing.key_algorithm}"
[attestation]
url = "{attestation.url}"
anchor_file = "{attestation.anchor_file}"
username = "{attestation.username}"
password_file = "{attestation.password_file}"
[acme]
directory_url = "{acme.directory_url}"
anchor_file = "{acme.anchor_file}"
account_key_store = "tpm"
"""


def scanseal(*arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "agent.cli.main", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


# --- and for no others


def test_a_device_that_calls_itself_another_is_refused(in_tpm: Scanner, in_token: Scanner, ca: StepCa) -> None:
    for device in (in_tpm, in_token):
        said = refused(at(ca, device, identifier="CT-999999"))

        assert "permanent identifier does not match" in said
        assert "CT-999999" in said


def test_a_key_that_was_not_attested_is_refused(device: Scanner, ca: StepCa, monkeypatch: pytest.MonkeyPatch) -> None:
    """The evidence is good, and it is about another key than that of the request. The CA says why in its log only."""
    store = device.settings.identity.device.key_store

    def about_another_key(context: FlowContext, enrollment: Enrollment | OfferedEnrollment, value: bytes) -> bytes:
        assert isinstance(enrollment, Enrollment)
        uri = context.stores.generate(store, "another", KeyAlgorithm.P_256)
        key = context.stores.load(uri)
        try:
            return attestation_object(context, replace(enrollment, key=key, key_uri=uri), value)
        finally:
            context.stores.destroy(uri)

    evidence_of(monkeypatch, about_another_key)

    said = refused(device)

    assert "unauthorized" in said
    assert "log of the CA" in said
    assert "csr does not match the attested key" in ca.log


def test_a_statement_about_one_key_does_not_serve_another(in_tpm: Scanner, monkeypatch: pytest.MonkeyPatch) -> None:
    """`certInfo` of a good key beside `pubArea` of the one to be certified."""

    def patched(context: FlowContext, enrollment: Enrollment | OfferedEnrollment, value: bytes) -> bytes:
        assert isinstance(enrollment, Enrollment)
        uri = context.stores.generate(StoreName.TPM, "another", KeyAlgorithm.P_256)
        another = replace(enrollment, key=context.stores.load(uri), key_uri=uri)
        good, other = (decoded(attestation_object(context, each, value)) for each in (another, enrollment))
        context.stores.destroy(uri)
        return cbor.encode({"fmt": "tpm", "attStmt": {**good, "pubArea": other["pubArea"]}})

    evidence_of(monkeypatch, patched)

    assert "invalid certification parameters" in refused(in_tpm)


def test_evidence_of_an_earlier_challenge_is_refused(device: Scanner, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old token (RFC 8555 8.1): the challenge is a new one each time."""

    def of_before(context: FlowContext, enrollment: Enrollment | OfferedEnrollment, value: bytes) -> bytes:
        return attestation_object(context, enrollment, b"an-old-token" + value[value.index(b".") :])

    evidence_of(monkeypatch, of_before)

    reasons = {StoreName.TPM: "key authorization invalid", StoreName.PKCS11: "failed to validate signature"}
    assert reasons[device.settings.identity.device.key_store] in refused(device)


def test_the_word_of_another_attestation_ca_is_refused(
    device: Scanner, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with (
        running_vendor(tmp_path / "other-vendor") as other,
        running_step_ca(tmp_path_factory.mktemp("strict"), other.ca.anchor_file) as strict,
    ):
        assert "x5c is not valid" in refused(at(strict, device))


def test_a_format_that_the_ca_does_not_want_is_refused(
    in_tpm: Scanner, vendor: Vendor, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("strict")
    with running_step_ca(directory, vendor.ca.anchor_file, attestationFormats=["step"]) as strict:
        assert "badAttestationStatement" in refused(at(strict, in_tpm))


def test_after_a_refusal_the_identity_before_stays_in_use(device: Scanner, ca: StepCa) -> None:
    before = enroll(device)

    with pytest.raises(EnrollmentRefused):
        enroll(at(ca, device, identifier="CT-999999"))

    assert device.identities.current(IdentityName.DEVICE) == before


def test_while_the_attestation_ca_is_away_the_order_waits(in_token: Scanner, ca: StepCa) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = replace(in_token.settings.attestation, url=f"https://127.0.0.1:{nobody.getsockname()[1]}")
        with pytest.raises(ServerUnreachable):
            enroll(in_token.restarted(attestation=away))
    placed = ca.log.count("path=/acme/scanners/new-order")

    check_certificate(enroll(in_token), Usage.DEVICE)
    assert ca.log.count("path=/acme/scanners/new-order") == placed


def test_step_ca_knows_no_hardware_modules(in_tpm: Scanner, ca: StepCa) -> None:
    """draft-ietf-acme-device-attest 4; whoever wants them needs another server."""
    refused(at(ca, in_tpm, identifier_type=AcmeIdentifier.HARDWARE_MODULE))

    assert "identifier type unsupported: hardware-module" in ca.log


# --- keys that have no evidence


def test_for_a_key_in_a_file_nothing_is_ordered(in_tpm: Scanner, ca: StepCa) -> None:
    passphrase = enrolling.settings(in_tpm.settings.state_directory.parent).keystore.software
    settings = replace(in_tpm.settings.keystore, software=passphrase)
    device = wanted(StoreName.SOFTWARE, KeyAlgorithm.P_256, in_tpm.restarted(keystore=settings))
    placed = ca.log.count("path=/acme/scanners/new-order")

    with pytest.raises(ConfigurationError, match="in a file"):
        enroll(device)
    assert ca.log.count("path=/acme/scanners/new-order") == placed


def test_a_kind_of_key_that_step_does_not_know_is_named(in_token: Scanner) -> None:
    with pytest.raises(UnsupportedKey, match="neither") as raised:
        enroll(wanted(StoreName.PKCS11, KeyAlgorithm.P_384, in_token))
    assert "p-256" in raised.value.remedy


def test_evidence_that_the_own_anchor_refuses_is_not_sent(in_token: Scanner, ca: StepCa) -> None:
    """[attestation] anchor_file names another CA than the one at [attestation] url."""
    wrong = replace(in_token.settings.attestation, anchor_file=ca.anchor_file)

    with pytest.raises(ScansealError) as raised:
        enroll(in_token.restarted(attestation=wrong))
    assert not isinstance(raised.value, EnrollmentRefused)


# --- what others read in it


@pytest.mark.parametrize("kind", [AcmeIdentifier.PERMANENT_IDENTIFIER, AcmeIdentifier.HARDWARE_MODULE])
def test_a_webauthn_library_reads_the_statement_of_a_tpm(in_tpm: Scanner, ca: StepCa, kind: AcmeIdentifier) -> None:
    """The object is the same whatever the order names; no server for hardware modules was found to try it with."""
    device = at(ca, in_tpm, identifier_type=kind)
    uri = device.stores.generate(StoreName.TPM, "key", KeyAlgorithm.P_256)
    key = device.stores.load(uri)
    request = CertificateRequest.for_device(DEVICE, Usage.DEVICE)
    try:
        statement = decoded(
            attestation_object(device.context, Enrollment(key, request, key_uri=uri), KEY_AUTHORIZATION)
        )

        said, area = TpmAttestationFormat.parse(statement["certInfo"]), TpmPublicFormat.parse(statement["pubArea"])
        assert said.data == hashlib.sha256(KEY_AUTHORIZATION).digest()
        assert said.attested.name == area.name()
        assert csr.build(key, request).is_signature_valid  # the store was paused meanwhile, and goes on
    finally:
        device.stores.close()


def test_beside_other_programs_a_resource_manager_serves(
    tmp_path: Path, tpm: SwTpm, vendor: Vendor, ca: StepCa, monkeypatch: pytest.MonkeyPatch
) -> None:
    with resource_manager(tpm, tmp_path) as manager:
        for name, value in manager.environment.items():
            monkeypatch.setenv(name, value)
        first, second = (
            at(ca, scanner_with_tpm(tmp_path / name, manager.tcti, vendor)) for name in ("first", "second")
        )
        open_key = second.stores.load(second.stores.generate(StoreName.TPM, "key", KeyAlgorithm.P_256))
        try:
            check_certificate(enroll(first), Usage.DEVICE)
            check_certificate(enroll(second), Usage.DEVICE)
            assert csr.build(open_key, CertificateRequest.for_device(DEVICE, Usage.DEVICE)).is_signature_valid
        finally:
            second.stores.close()


def decoded(object_of_ours: bytes) -> dict[str, bytes]:
    values = cbor.decode(object_of_ours)
    assert isinstance(values, dict)
    statement: dict[str, bytes] = values["attStmt"]
    return statement
