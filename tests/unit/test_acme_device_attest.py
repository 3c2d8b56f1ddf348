"""The answer to device-attest-01, byte by byte, and which keys have none (draft-ietf-acme-device-attest 5)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from enroll.algorithms import KeyAlgorithm
from enroll.attestation.evidence import StepEvidence, TpmEvidence
from enroll.config import AttestationSettings, StoreName
from enroll.csr import CertificateRequest, Usage, build
from enroll.errors import ConfigurationError, UnsupportedKey
from enroll.flows.acme.device_attest import attestation_object, encoded
from enroll.flows.base import Enrollment, OfferedEnrollment
from enroll.keystore.base import Protection
from tests.support import enrolling
from tests.support.enrolling import Scanner
from tests.support.pki import DEVICE, HospitalCa, new_key

KEY_AUTHORIZATION = b"token.thumbprint"
REQUEST = CertificateRequest.for_device(DEVICE, Usage.DEVICE)
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()

# RFC 8949 3.1: 0x40 + length begins bytes, 0x60 a text, 0x80 an array, 0xa0 a map, 0x26 is -7 and 0x390100 is -257.
ES256, RS256 = "26", "390100"


def text(value: str) -> str:
    return bytes([0x60 + len(value), *value.encode()]).hex()


@pytest.mark.parametrize(("key", "algorithm"), [(new_key().public_key(), ES256), (RSA_KEY, RS256)])
def test_a_signature_of_format_step_is_a_byte_string_in_a_byte_string(key: rsa.RSAPublicKey, algorithm: str) -> None:
    """step-ca reads it so; deterministic CBOR (RFC 8949 4.2.1), shorter names first."""
    evidence = StepEvidence((b"\x01\x02", b"\x03"), b"\xaa\xbb")

    assert encoded(evidence, key).hex() == (
        f"a2{text('fmt')}{text('step')}{text('attStmt')}"
        f"a3{text('alg')}{algorithm}{text('sig')}4342aabb{text('x5c')}82420102" + "4103"
    )


def test_a_statement_of_format_tpm_is_that_of_webauthn() -> None:
    """WebAuthn Level 2, 8.3. `alg` is that of the attestation key, which is RSA."""
    evidence = TpmEvidence((b"\x01",), cert_info=b"\x02", signature=b"\x03", public_area=b"\x04")

    assert encoded(evidence, new_key().public_key()).hex() == (
        f"a2{text('fmt')}{text('tpm')}{text('attStmt')}"
        f"a6{text('alg')}{RS256}{text('sig')}4103{text('ver')}{text('2.0')}{text('x5c')}814101"
        f"{text('pubArea')}4104{text('certInfo')}4102"
    )


@pytest.fixture
def scanner(tmp_path: Path) -> Scanner:
    return with_attestation(Scanner(enrolling.settings(tmp_path), (HospitalCa().certificate,)), tmp_path)


def with_attestation(scanner: Scanner, folder: Path) -> Scanner:
    anchor = folder / "attestation.pem"
    anchor.write_bytes(HospitalCa().certificate.public_bytes(Encoding.PEM))
    return scanner.restarted(attestation=AttestationSettings(anchor_file=anchor))


@pytest.mark.parametrize("store", [StoreName.SOFTWARE, StoreName.MEMORY])
def test_a_key_in_a_file_or_in_memory_has_no_evidence(scanner: Scanner, store: StoreName) -> None:
    uri = scanner.stores.generate(store, "key", KeyAlgorithm.P_256)
    enrollment = Enrollment(scanner.stores.load(uri), REQUEST, key_uri=uri)

    with pytest.raises(UnsupportedKey, match="in no TPM and no token") as refused:
        attestation_object(scanner.context, enrollment, KEY_AUTHORIZATION)
    assert 'key_store = "tpm" or "pkcs11"' in refused.value.remedy


def test_a_key_that_the_agent_holds_has_no_evidence(scanner: Scanner) -> None:
    key = new_key()
    offered = OfferedEnrollment(build(key, REQUEST), REQUEST, key.public_key(), Protection.MEMORY)

    with pytest.raises(UnsupportedKey, match="in the memory of the agent") as refused:
        attestation_object(scanner.context, offered, KEY_AUTHORIZATION)
    assert "[acme] challenge" in refused.value.remedy


def test_without_an_attestation_ca_there_is_no_evidence(scanner: Scanner) -> None:
    context = replace(scanner.context, settings=replace(scanner.settings, attestation=AttestationSettings()))
    enrollment = Enrollment(new_key(), REQUEST, key_uri="tpm:key")

    with pytest.raises(ConfigurationError, match=r"\[attestation\] anchor_file"):
        attestation_object(context, enrollment, KEY_AUTHORIZATION)
