"""Keys in a simulated TPM and in a software token are attested through HTTPS, and other programs agree."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from enroll.algorithms import KeyAlgorithm
from enroll.attestation.attest import Attestation
from enroll.attestation.client import AttestationClient
from enroll.attestation.evidence import TpmEvidence
from enroll.attestation.kept import KeptEvidence
from enroll.attestation.names import EK_CERTIFICATE, TpmDetails
from enroll.attestation.tpm_structures import read_public_area, read_signature
from enroll.attestation.verify import identity_challenge
from enroll.clock import SystemClock
from enroll.config import IdentitiesSettings, IdentitySettings, KeyStoreSettings, Pkcs11StoreSettings, StoreName
from enroll.errors import EnrollmentRefused, EvidenceRefused, KeyStoreError, StateUnreadable, UnsupportedKey
from enroll.evaluation.attestation_ca import AttestationCa
from enroll.evaluation.attestation_server import AttestationServer
from enroll.statefile import StateFiles
from enroll.statefile_refusals import unreadable
from enroll.trust import read_ca_certificates
from tests.support import enrolling
from tests.support.attesting import Vendor, attestation, enroll, running_vendor, scanner, scanner_with_tpm
from tests.support.enrolling import Scanner
from tests.support.key_stores import secret_file
from tests.support.openssl import needs_openssl
from tests.support.pki import DEVICE, HospitalCa
from tests.support.softhsm import softhsm_of_this_process
from tests.support.swtpm import SwTpm, running_swtpm

pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is missing: pip install '.[tpm]'")

from tpm2_pytss import TPMS_ATTEST

from enroll.keystore.tpm.attestation import TpmAttestor
from enroll.keystore.tpm.credential import make_credential

CLOCK = SystemClock()


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwTpm]:
    with running_swtpm(tmp_path_factory.mktemp("tpm"), manufactured=True) as running:
        yield running


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory, tpm: SwTpm) -> Iterator[Vendor]:
    with running_vendor(tmp_path_factory.mktemp("vendor"), tpm) as running:
        yield running


@pytest.fixture
def device(tmp_path: Path, tpm: SwTpm, vendor: Vendor) -> Scanner:
    return scanner_with_tpm(tmp_path / "scanner", tpm.tcti, vendor)


def attestor(scanner: Scanner) -> TpmAttestor:
    directory = scanner.settings.state_directory / "tpm"
    return TpmAttestor(scanner.settings.keystore.tpm, directory, scanner.files)


def client(scanner: Scanner) -> AttestationClient:
    settings = scanner.settings.attestation
    assert settings.anchor_file
    return AttestationClient.connect(
        settings, read_ca_certificates(settings.anchor_file, scanner.files), CLOCK, scanner.files
    )


# --- the whole way


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.P_256, KeyAlgorithm.P_384, KeyAlgorithm.RSA_2048])
def test_a_key_in_the_tpm_is_attested_from_the_endorsement_key_on(
    tmp_path: Path, tpm: SwTpm, vendor: Vendor, algorithm: KeyAlgorithm
) -> None:
    device = scanner_with_tpm(tmp_path / "scanner", tpm.tcti, vendor, algorithm)
    generation = enroll(device)
    attesting = attestation(device)

    kept = attesting.attest(generation)

    attested = attesting.verify(generation, kept)
    assert attested.public_key == generation.certificate.public_key()
    assert attested.tpm
    assert attested.tpm.simulated
    assert attesting.kept(generation) == kept


def test_the_attestation_key_and_its_certificate_stay_and_need_no_ca_again(device: Scanner) -> None:
    first = enroll(device)
    attestation(device).attest(first)
    second = enroll(device)

    kept = attestation(device).attest_alone(second)

    assert kept
    assert attestation(device).verify(second, kept).public_key == second.certificate.public_key()
    with pytest.raises(EvidenceRefused) as refused:  # evidence of the generation before is for that one only
        attestation(device).verify(first, kept)
    assert refused.value.code == "evidence-wrong-challenge"


def test_without_a_certificate_of_the_attestation_key_nothing_is_attested_alone(device: Scanner) -> None:
    assert attestation(device).attest_alone(enroll(device)) is None


def test_after_the_tpm_was_cleared_everything_is_attested_anew(device: Scanner, tpm: SwTpm) -> None:
    attestation(device).attest(enroll(device))
    before = attestor(device).attestation_key()
    tpm.clear()

    generation = enroll(device)
    kept = attestation(device).attest(generation)

    assert attestation(device).verify(generation, kept)  # type: ignore[truthy-bool]
    assert attestor(device).attestation_key() != before


def test_after_the_authorization_value_was_changed_everything_is_attested_anew(device: Scanner) -> None:
    """The remedy for a lost value is a new key; the attestation key that has the old one must not be in its way."""
    attestation(device).attest(enroll(device))
    before = attestor(device).attestation_key()
    authorization = device.settings.keystore.tpm.authorization_file
    assert authorization
    secret_file(authorization, "another-long-random-value")
    generation = enroll(device)

    assert attestation(device).attest_alone(generation) is None  # a new attestation key has no certificate yet
    kept = attestation(device).attest(generation)

    attested = attestation(device).verify(generation, kept)
    assert attested.public_key == generation.certificate.public_key()
    assert attestor(device).attestation_key() != before


def test_an_attestation_key_that_cannot_be_read_is_not_replaced(
    device: Scanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who runs the command as the wrong user must not cost the scanner the certificate of its attestation key."""
    mine = attestor(device)
    mine.attestation_key()
    (file,) = (device.settings.state_directory / "tpm" / "attestation").iterdir()
    before = file.read_bytes()

    def denied(_files: StateFiles, path: Path, *_limit: int) -> bytes:
        raise unreadable(path)

    monkeypatch.setattr(StateFiles, "read", denied)
    mine._authorization = lambda: b"value"  # type: ignore[method-assign]
    with pytest.raises(StateUnreadable):
        mine.attestation_key()

    assert file.read_bytes() == before


def test_a_key_in_a_token_is_certified_by_its_vendor(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, vendor: Vendor
) -> None:
    hsm = softhsm_of_this_process(tmp_path_factory.getbasetemp())
    token = Pkcs11StoreSettings(module=hsm.proxy, token="through-proxy", pin_file=hsm.pin_file)
    settings = replace(
        enrolling.settings(tmp_path),
        keystore=KeyStoreSettings(pkcs11=token),
        identity=IdentitiesSettings(device=IdentitySettings(key_store=StoreName.PKCS11)),
        attestation=vendor.settings(),
    )
    device = scanner(settings)
    generation = enroll(device)

    kept = attestation(device).attest(generation)

    assert kept.evidence.format == "step"
    attested = attestation(device).verify(generation, kept)
    assert attested.public_key == generation.certificate.public_key()
    assert attested.tpm is None


def test_a_key_in_a_file_has_no_evidence(tmp_path: Path, vendor: Vendor) -> None:
    device = scanner(replace(enrolling.settings(tmp_path), attestation=vendor.settings()))

    with pytest.raises(UnsupportedKey, match="no TPM"):
        attestation(device).attest(enroll(device))


def test_an_endorsement_key_on_a_curve_serves_as_well(tmp_path: Path) -> None:
    """TCG EK Credential Profile, template L-2; its certificate is in an NV index that is longer than it."""
    maker = HospitalCa("Maker of TPMs")
    with running_swtpm(tmp_path / "tpm") as tpm:
        tpm.run("tpm2_createek", "-G", "ecc", "-c", "ek.context", "-f", "pem", "-u", "ek.pem")
        tpm.run("tpm2_flushcontext", "-t")
        key = serialization.load_pem_public_key((tpm.directory / "ek.pem").read_bytes())
        assert isinstance(key, ec.EllipticCurvePublicKey)
        names = [TpmDetails("id:00001014", "swtpm", "id:1").directory_name()]
        content = maker.issue(key, alternative_names=names, extended_usage=[EK_CERTIFICATE]).public_bytes(
            serialization.Encoding.DER
        )
        (tpm.directory / "certificate").write_bytes(content + bytes(100))
        index = "0x01c0000a"
        tpm.run("tpm2_nvdefine", index, "-s", str(len(content) + 100), "-a", "authread|ownerread|ownerwrite")
        tpm.run("tpm2_nvwrite", index, "-C", "o", "-i", "certificate")
        ca = AttestationCa.create_or_open(tmp_path / "vendor", [maker.certificate], CLOCK)
        with AttestationServer(ca) as server:
            device = scanner_with_tpm(tmp_path / "scanner", tpm.tcti, Vendor(ca, server.url))
            generation = enroll(device)
            attested = attestation(device).verify(generation, attestation(device).attest(generation))

    assert attested.public_key == generation.certificate.public_key()


def test_a_tpm_without_an_endorsement_certificate_says_what_to_do(tmp_path: Path, vendor: Vendor) -> None:
    with running_swtpm(tmp_path / "tpm") as bare:
        device = scanner_with_tpm(tmp_path / "scanner", bare.tcti, vendor)
        generation = enroll(device)

        with pytest.raises(KeyStoreError, match="no certificate of its endorsement key") as raised:
            attestation(device).attest(generation)
    assert "0x01c00002" in raised.value.remedy


# --- other programs agree


@needs_openssl
def test_openssl_verifies_what_the_tpm_signed_and_who_certified_it(
    device: Scanner, tmp_path: Path, vendor: Vendor
) -> None:
    evidence = attestation(device).attest(enroll(device)).evidence
    assert isinstance(evidence, TpmEvidence)
    ak, issuing = (x509.load_der_x509_certificate(entry) for entry in evidence.x5c)
    for name, certificate in (("ak.pem", ak), ("issuing.pem", issuing)):
        (tmp_path / name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "certInfo").write_bytes(evidence.cert_info)
    (tmp_path / "sig").write_bytes(read_signature(evidence.signature).value)

    def openssl(*arguments: str) -> str:
        command = ["openssl", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, text=True).stdout

    (tmp_path / "ak.pub").write_text(openssl("x509", "-in", "ak.pem", "-noout", "-pubkey"), "ascii")
    assert "Verified OK" in openssl("dgst", "-sha256", "-verify", "ak.pub", "-signature", "sig", "certInfo")
    assert "OK" in openssl("verify", "-CAfile", str(vendor.ca.anchor_file), "-untrusted", "issuing.pem", "ak.pem")
    text = openssl("x509", "-in", "ak.pem", "-noout", "-text")
    assert "X509v3 Subject Alternative Name: critical" in text
    assert "2.23.133.2.1" in text or "tpmManufacturer" in text
    assert "2.23.133.8.3" in text or "Attestation Identity Key Certificate" in text
    assert "Permanent Identifier" in text
    assert "Authority Information Access" not in text


def test_the_software_of_the_tpm_reads_the_evidence_as_we_do(device: Scanner, tmp_path: Path, tpm: SwTpm) -> None:
    generation = enroll(device)
    evidence = attestation(device).attest(generation).evidence
    assert isinstance(evidence, TpmEvidence)
    area = read_public_area(evidence.public_area)

    statement, size = TPMS_ATTEST.unmarshal(evidence.cert_info)
    assert size == len(evidence.cert_info)
    assert bytes(statement.extraData) == hashlib.sha256(identity_challenge(generation.certificate)).digest()
    assert bytes(statement.attested.certify.name) == area.name

    # The TPM itself computes the name of a public area that it loads.
    (tmp_path / "area").write_bytes(len(evidence.public_area).to_bytes(2, "big") + evidence.public_area)
    tpm.run(
        "tpm2_loadexternal",
        "-C",
        "n",
        "-u",
        str(tmp_path / "area"),
        "-c",
        str(tmp_path / "c"),
        "-n",
        f"{tmp_path}/name",
    )
    tpm.run("tpm2_flushcontext", "-t")
    assert (tmp_path / "name").read_bytes() == area.name
    printed = tpm.run("tpm2_print", "-t", "TPM2B_PUBLIC", str(tmp_path / "area")).decode()
    assert "fixedtpm|fixedparent|sensitivedataorigin" in printed
    assert "restricted" not in printed


def test_the_certificate_of_the_attestation_key_is_what_step_ca_wants(device: Scanner) -> None:
    evidence = attestation(device).attest(enroll(device)).evidence
    ak = x509.load_der_x509_certificate(evidence.x5c[0])

    assert not len(ak.subject)
    assert ak.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    assert not ak.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    purposes = ak.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [purpose.dotted_string for purpose in purposes] == ["2.23.133.8.3"]
    assert isinstance(ak.public_key(), rsa.RSAPublicKey)  # what every step-ca verifies


# --- who does not have the TPM gets nothing


def test_another_tpm_cannot_answer_for_this_one(device: Scanner, tmp_path: Path, vendor: Vendor) -> None:
    """The EK certificate of one TPM and the AK of another; the secret can be read by neither alone."""
    mine = attestor(device)
    mine.attestation_key()
    with running_swtpm(tmp_path / "other-tpm", manufactured=True) as other:
        stolen = attestor(scanner_with_tpm(tmp_path / "other", other.tcti, vendor))
        foreign_key = stolen.attestation_key()
        with client(device) as ca:
            asked = ca.challenge(DEVICE.serial_number, mine.endorsement_certificate(), foreign_key)
            with pytest.raises(KeyStoreError):
                mine.activate(asked.credential, asked.encrypted_secret)
            with pytest.raises(EnrollmentRefused, match="wrong"):
                ca.certificate(asked, b"a guess")
            # Nor is a TPM believed whose maker is not known.
            with pytest.raises(EnrollmentRefused, match="known manufacturer"):
                ca.challenge(DEVICE.serial_number, stolen.endorsement_certificate(), foreign_key)


def test_a_secret_for_another_attestation_key_is_not_given_out(device: Scanner) -> None:
    mine = attestor(device)
    mine.attestation_key()
    other = make_credential(mine.endorsement_certificate().public_key(), b"\0\x0b" + bytes(32), b"secret")

    with pytest.raises(KeyStoreError):
        mine.activate(*other)


def test_a_challenge_is_answered_once(device: Scanner) -> None:
    mine = attestor(device)
    with client(device) as ca:
        asked = ca.challenge(DEVICE.serial_number, mine.endorsement_certificate(), mine.attestation_key())
        secret = mine.activate(asked.credential, asked.encrypted_secret)
        assert ca.certificate(asked, secret)

        with pytest.raises(EnrollmentRefused, match="no such challenge"):
            ca.certificate(asked, secret)


def test_a_wrong_answer_uses_the_challenge_up(device: Scanner) -> None:
    mine = attestor(device)
    with client(device) as ca:
        asked = ca.challenge(DEVICE.serial_number, mine.endorsement_certificate(), mine.attestation_key())
        with pytest.raises(EnrollmentRefused, match="answer to the challenge is wrong"):
            ca.certificate(asked, bytes(32))

        with pytest.raises(EnrollmentRefused, match="no such challenge"):
            ca.certificate(asked, mine.activate(asked.credential, asked.encrypted_secret))


def test_a_key_that_signs_anything_is_no_attestation_key(device: Scanner) -> None:
    """What the TPM says and what somebody makes up would look the same (Part 1, 31.4)."""
    generation = enroll(device)
    statement_key = attestor(device)
    statement_key.attestation_key()
    ordinary = statement_key.certify(generation.key_uri, b"").public_area

    with client(device) as ca, pytest.raises(EnrollmentRefused, match="signs more than what its TPM says"):
        ca.challenge(DEVICE.serial_number, statement_key.endorsement_certificate(), ordinary)


def test_evidence_that_the_own_anchor_refuses_is_not_kept(device: Scanner, tmp_path: Path, vendor: Vendor) -> None:
    generation = enroll(device)
    attestation(device).attest(generation)
    path = tmp_path / "other.pem"
    path.write_bytes(HospitalCa().certificate.public_bytes(serialization.Encoding.PEM))
    settings = replace(device.settings, attestation=replace(vendor.settings(), anchor_file=path))
    other = Attestation.configured(settings, CLOCK, StateFiles())

    assert other.attest_alone(generation) is None  # its AK certificate is worth nothing there


@pytest.mark.parametrize("part", ["cert_info", "signature", "public_area"])
def test_tampered_evidence_is_refused(device: Scanner, part: str) -> None:
    generation = enroll(device)
    attesting = attestation(device)
    kept = attesting.attest(generation)
    whole: bytes = getattr(kept.evidence, part)
    for place in range(0, len(whole), 7):
        flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        evidence = replace(kept.evidence, **{part: flipped})  # type: ignore[arg-type]
        with pytest.raises(EvidenceRefused):
            attesting.verify(generation, KeptEvidence(evidence, kept.made_at))
