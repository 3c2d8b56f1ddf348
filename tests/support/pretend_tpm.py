"""Evidence as a TPM would give it, made without one, and wrong wherever a test wants it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ObjectIdentifier

from enroll.attestation.evidence import StepEvidence, TpmEvidence
from enroll.attestation.names import AK_CERTIFICATE, TpmDetails, managed_device
from enroll.csr import DIGITAL_SIGNATURE, permanent_identifier
from enroll.keystore.base import PrivateKey, PublicKey
from tests.support.certificates import rsa_key
from tests.support.pki import NOW, HospitalCa, name

SERIAL_NUMBER = "CT-000123"
CHALLENGE = b"what the evidence is for"
DETAILS = TpmDetails("id:49465800", "SLB9672", "id:0010")

RSA, ECC, SHA1, SHA256, SHA384, NULL = 0x0001, 0x0023, 0x0004, 0x000B, 0x000C, 0x0010
RSASSA, RSAPSS, ECDSA = 0x0014, 0x0016, 0x0018
FIXED_TPM, FIXED_PARENT, ORIGIN, RESTRICTED, SIGN = 1 << 1, 1 << 4, 1 << 5, 1 << 16, 1 << 18
GOOD_ATTRIBUTES = FIXED_TPM | FIXED_PARENT | ORIGIN | 1 << 6 | SIGN

_CURVES = {"secp256r1": 3, "secp384r1": 4, "secp521r1": 5}


def number(value: int, size: int = 2) -> bytes:
    return value.to_bytes(size, "big")


def sized(value: bytes) -> bytes:
    return number(len(value)) + value


def public_area(
    key: PublicKey, attributes: int = GOOD_ATTRIBUTES, scheme: bytes = number(NULL), name_hash: int = SHA256
) -> bytes:
    """TPMT_PUBLIC."""
    head = number(name_hash) + number(attributes, 4) + sized(b"") + number(NULL) + scheme
    if isinstance(key, rsa.RSAPublicKey):
        modulus = key.public_numbers().n.to_bytes(key.key_size // 8, "big")
        return number(RSA) + head + number(key.key_size) + number(0, 4) + sized(modulus)
    point, size = key.public_numbers(), (key.curve.key_size + 7) // 8
    coordinates = sized(point.x.to_bytes(size, "big")) + sized(point.y.to_bytes(size, "big"))
    return number(ECC) + head + number(_CURVES[key.curve.name]) + number(NULL) + coordinates


def key_name(area: bytes) -> bytes:
    return number(SHA256) + hashlib.sha256(area).digest()


def certification(
    area_name: bytes,
    extra_data: bytes,
    *,
    magic: int = 0xFF544347,
    kind: int = 0x8017,
    qualified_signer: bytes = key_name(b"the AK below its parents"),
    qualified_name: bytes = key_name(b"the key below its parents"),
) -> bytes:
    """TPMS_ATTEST."""
    clock = number(1, 8) + number(2, 4) + number(3, 4) + number(1, 1)
    head = number(magic, 4) + number(kind) + sized(qualified_signer) + sized(extra_data)
    return head + clock + number(4, 8) + sized(area_name) + sized(qualified_name)


def signature(algorithm: int, hash_number: int, value: bytes) -> bytes:
    """TPMT_SIGNATURE."""
    return number(algorithm) + number(hash_number) + sized(value)


@cache
def attestation_key() -> rsa.RSAPrivateKey:
    return rsa_key(2048)


@cache
def root() -> HospitalCa:
    return HospitalCa("Attestation root")


@cache
def issuing() -> HospitalCa:
    return HospitalCa("Attestation issuing CA", parent=root())


@dataclass(frozen=True)
class AkCertificate:
    """What is in the certificate of an attestation key; the defaults are as they should be."""

    subject: x509.Name = field(default_factory=lambda: x509.Name([]))
    names: Sequence[x509.GeneralName] = (DETAILS.directory_name(), permanent_identifier(SERIAL_NUMBER))
    names_critical: bool = True
    purposes: Sequence[ObjectIdentifier] = (AK_CERTIFICATE,)
    ca: bool | None = False
    begin: datetime = NOW - timedelta(days=1)
    end: datetime = NOW + timedelta(days=365)
    critical_extension: x509.UnrecognizedExtension | None = None
    key: PrivateKey | None = None
    usage: x509.KeyUsage | None = DIGITAL_SIGNATURE

    def issue(self, issuer: HospitalCa | None = None) -> x509.Certificate:
        issuer = issuer or issuing()
        key = (self.key or attestation_key()).public_key()
        builder = x509.CertificateBuilder(issuer.name, self.subject, key, x509.random_serial_number())
        builder = builder.not_valid_before(self.begin).not_valid_after(self.end)
        if self.usage:
            builder = builder.add_extension(self.usage, critical=True)
        if self.names:
            builder = builder.add_extension(x509.SubjectAlternativeName(self.names), critical=self.names_critical)
        if self.purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(self.purposes), critical=False)
        if self.ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(self.ca, None), critical=True)
        if self.critical_extension:
            builder = builder.add_extension(self.critical_extension, critical=True)
        return builder.sign(issuer.key, hashes.SHA256())


def tpm_evidence(
    key: PublicKey,
    *,
    challenge: bytes = CHALLENGE,
    certificate: AkCertificate | None = None,
    chain: Sequence[x509.Certificate] | None = None,
    attributes: int = GOOD_ATTRIBUTES,
    signer: rsa.RSAPrivateKey | None = None,
    changed: Mapping[str, bytes] | None = None,
    **said: Any,
) -> TpmEvidence:
    """Evidence for a key.

    Args:
        key: It.
        challenge: What it is for.
        certificate: Of the attestation key.
        chain: Instead of that certificate and its intermediate.
        attributes: Of the key.
        signer: Signs instead of the attestation key.
        changed: Another `cert_info`, `public_area` or `signature`; what follows from it fits to it.
        said: Arguments of `certification`.
    """
    parts = changed or {}
    area = parts.get("public_area", public_area(key, attributes))
    said = {"area_name": key_name(area), "extra_data": hashlib.sha256(challenge).digest(), **said}
    info = parts.get("cert_info", certification(**said))
    signed = (signer or attestation_key()).sign(info, padding.PKCS1v15(), hashes.SHA256())
    certificates = chain or ((certificate or AkCertificate()).issue(), issuing().certificate)
    return TpmEvidence(encoded(certificates), info, parts.get("signature", signature(RSASSA, SHA256, signed)), area)


def step_evidence(
    key: PrivateKey,
    challenge: bytes = CHALLENGE,
    serial_number: str = SERIAL_NUMBER,
    signer: PrivateKey | None = None,
    *,
    extension: x509.UnrecognizedExtension | None = None,
    usage: x509.KeyUsage = DIGITAL_SIGNATURE,
    ca: bool = False,
) -> StepEvidence:
    """Evidence for a key that a manufacturer certified."""
    issuer, now = issuing(), NOW
    subject = name(SERIAL_NUMBER=serial_number)
    builder = x509.CertificateBuilder(issuer.name, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=365))
    builder = builder.add_extension(extension or managed_device(serial_number), critical=False)
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
    certificate = builder.sign(issuer.key, hashes.SHA256())
    signing = signer or key
    if isinstance(signing, rsa.RSAPrivateKey):
        signed = signing.sign(challenge, padding.PKCS1v15(), hashes.SHA256())
    else:
        signed = signing.sign(challenge, ec.ECDSA(hashes.SHA256()))
    return StepEvidence(encoded((certificate, issuer.certificate)), signed)


def encoded(certificates: Sequence[x509.Certificate]) -> tuple[bytes, ...]:
    return tuple(certificate.public_bytes(serialization.Encoding.DER) for certificate in certificates)
