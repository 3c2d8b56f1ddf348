"""Who can sign in the attacks: the scanner of a hospital, its neighbours, and people with keys of their own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from agent.dicom.signer_chain import TrustMaterial
from tests.support.certificates import PrivateKey
from tests.support.key_usage_period import period_value, with_period
from tests.support.pki import DEVICE, NOW, HospitalCa, name
from tests.support.revocation import revocation_list
from tests.support.time_stamp_authority import Tsa, new_tsa

SIGNED_AT: Final = NOW - timedelta(days=30)
LONG_AGO: Final = datetime(2021, 3, 1, tzinfo=UTC)
REVOKED_AT: Final = NOW - timedelta(days=60)
FORMER_KEY_FROM: Final = SIGNED_AT - timedelta(days=1)
FORMER_KEY_UNTIL: Final = FORMER_KEY_FROM + timedelta(days=7)
OWNER: Final = "Example Hospital"
MODEL: Final = DEVICE.model
SERIAL: Final = DEVICE.serial_number

_BEGIN, _END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2045, 1, 1, tzinfo=UTC)
_REVOKED_SERIAL: Final = 666


@dataclass(frozen=True)
class Signer:
    """Somebody who can sign: a key, and the certificate that goes with it."""

    key: PrivateKey
    certificate: x509.Certificate

    @property
    def certificate_der(self) -> bytes:
        """The certificate as it stands in (0400,0115)."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def sign(self, digest: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
        """The signature of a digest: RSA PKCS#1 v1.5 or ECDSA."""
        prehashed = utils.Prehashed(algorithm)
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            return self.key.sign(digest, ec.ECDSA(prehashed))
        return self.key.sign(digest, padding.PKCS1v15(), prehashed)


@cache
def rsa_key(owner: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """The key of somebody; the same one each time."""
    return rsa.generate_private_key(65537, bits)


@cache
def hospital_ca() -> HospitalCa:
    """The CA that everybody trusts. Of RSA, so that the size of its certificates does not vary."""
    return HospitalCa(f"{OWNER} CA", key=rsa_key("CA"), serial=1)


@cache
def weak_ca() -> HospitalCa:
    """A CA below that of the hospital, of former times."""
    return HospitalCa("Old CA", parent=hospital_ca(), key=rsa_key("Old CA", 1024))


@cache
def foreign_ca() -> HospitalCa:
    """A CA that nobody here trusts."""
    return HospitalCa("Foreign CA")


@cache
def signer(serial_number: str = SERIAL, issuer: HospitalCa | None = None, **odd: Any) -> Signer:
    """A scanner of the hospital whose certificate names owner, model and serial number.

    Args:
        serial_number: Of the scanner.
        issuer: The CA of the hospital if not given.
        odd: What is odd about its certificate, or about its key (`key`).
    """
    key = odd.pop("key", None) or rsa_key(serial_number)
    subject = name(ORGANIZATION_NAME=OWNER, COMMON_NAME=f"{MODEL} {serial_number}", SERIAL_NUMBER=serial_number)
    content = {"subject": subject, "alternative_names": (), "begin": _BEGIN, "end": _END, "serial": 2, **odd}
    return Signer(key, (issuer or hospital_ca()).issue(key.public_key(), **content))


def scanner() -> Signer:
    """The scanner that makes the honest images."""
    return signer(key=rsa_key(SERIAL, 3072))


def expired_scanner() -> Signer:
    """The same scanner with a certificate that ended years ago."""
    return signer(key=rsa_key(SERIAL, 3072), begin=LONG_AGO - timedelta(days=30), end=LONG_AGO + timedelta(days=30))


@cache
def former_key() -> Signer:
    """The same scanner with a key that it had for a week and then destroyed; the certificate is valid for years."""
    kept = signer(key=rsa_key("former", 3072))
    period = period_value(FORMER_KEY_FROM, FORMER_KEY_UNTIL)
    return Signer(kept.key, with_period(kept.certificate, hospital_ca().key, period))


def revoked_scanner() -> Signer:
    """The same scanner with a certificate that the hospital has revoked since."""
    return signer(key=rsa_key(SERIAL, 3072), serial=_REVOKED_SERIAL)


@cache
def time_ca() -> HospitalCa:
    """The CA that everybody trusts for time stamps."""
    return HospitalCa("Time CA")


@cache
def time_stamp_authority() -> Tsa:
    """The authority that everybody trusts."""
    return new_tsa(time_ca())


@cache
def trust() -> TrustMaterial:
    """What all files are judged by, honest and attacked ones."""
    ca, old, time = hospital_ca(), weak_ca(), time_ca()
    return TrustMaterial(
        anchors=(ca.certificate,),
        intermediates=(old.certificate,),
        time_stamp_anchors=(time_stamp_authority().anchor,),
        revocation_lists=(
            revocation_list(ca.name, ca.key, NOW, {_REVOKED_SERIAL: REVOKED_AT}, expired_since=LONG_AGO),
            revocation_list(old.name, old.key, NOW),
            revocation_list(time.name, time.key, NOW),
        ),
    )
