"""Reading, writing and comparing certificates."""

from __future__ import annotations

import base64
import os
import re
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from enroll import der
from enroll.errors import KeyMismatch
from enroll.foreign import printable
from enroll.keystore.base import PrivateKey
from enroll.record import FORMAT, check_format, damaged, sha256_of
from enroll.statefile import StateFiles

PARSE_ERRORS = (  # what `cryptography` raises for a certificate that it cannot read
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_FIRST_LINE = re.compile(rb"scanseal-format ([0-9]{1,9}) sha256 ([0-9a-f]{64})")
_PLACE = b"scanseal-file "
_ARMOUR = re.compile(rb"-----(?:BEGIN|END) [A-Z0-9 ]{1,40}-----")


def pem(certificates: Sequence[x509.Certificate]) -> bytes:
    """Certificates as PEM, in this order."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def name_text(name: x509.Name) -> str:
    """A subject or issuer for people and reports (RFC 4514, with serialNumber spelt out)."""
    return printable(name.rfc4514_string({NameOID.SERIAL_NUMBER: "serialNumber"}))


def subject_text(certificate: x509.Certificate) -> str:
    """Whom a certificate names, for people; without the warning that the name is longer than it may be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return name_text(certificate.subject)


def serial_text(certificate: x509.Certificate) -> str:
    """The serial number as `openssl x509 -serial` prints it, in lower case: two digits for each byte."""
    number = certificate.serial_number
    return number.to_bytes((number.bit_length() + 7) // 8, "big").hex()


def read_certificates(path: Path, files: StateFiles) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM file, at least one; see `StateFiles.read`.

    Raises:
        StateError: Unreadable, or it holds none.
    """
    return parse_certificates(files.read(path), path)


def parse_certificates(data: bytes, path: Path) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM file that has been read, at least one.

    Raises:
        StateDamaged: It holds none.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(data))
    except PARSE_ERRORS as error:
        raise damaged(path) from error


def write_kept(path: Path, certificates: Sequence[x509.Certificate], files: StateFiles, mode: int) -> None:
    """Put certificates into a file of their own, with two lines before them that other programs skip.

    The first has a checksum. The second has the name of the file, so that those of one CA are not taken for another's.

    Raises:
        StateError: The disk refused.
    """
    data = _place(path) + pem(certificates)
    files.write(path, f"scanseal-format {FORMAT} sha256 {sha256_of(data)}\n".encode("ascii") + data, mode)


def read_kept(path: Path, files: StateFiles) -> tuple[x509.Certificate, ...]:
    """The certificates of such a file.

    Raises:
        StateDamaged: Not as it was written, or the copy of another one.
        StateTooNew: A newer scanseal wrote it.
        StateError: Unreadable.
    """
    first, _, data = files.read(path).partition(b"\n")
    found = _FIRST_LINE.fullmatch(first)
    if found is None or found[2].decode("ascii") != sha256_of(data):
        raise damaged(path)
    check_format(int(found[1]), path)
    if data.startswith(_PLACE) and not data.startswith(_place(path)):  # scanseal 0.1.0 wrote none
        raise damaged(path)
    return parse_certificates(data, path)


def _place(path: Path) -> bytes:
    return _PLACE + path.name.encode() + b"\n"


def decode_base64(body: bytes) -> bytes:
    """The one DER value in a base64 body with any white space in it, and with PEM armour or without (RFC 8951 3.1).

    Raises:
        ValueError: It is not base64, or not exactly one DER value.
    """
    data = base64.b64decode(b"".join(_ARMOUR.sub(b"", body).split()), validate=True)
    if not der.is_one_value(data):
        raise ValueError("not one DER value")
    return data


def public_key_info(key: CertificatePublicKeyTypes) -> bytes:
    """A public key as SubjectPublicKeyInfo (RFC 5280 4.1.2.7): two keys are the same where these bytes are."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def alternative_names(
    certificate: x509.Certificate | x509.CertificateSigningRequest,
) -> tuple[x509.GeneralName, ...]:
    """All subject alternative names; none where the extension is missing.

    Raises:
        ValueError: The extensions cannot be parsed; or another of `PARSE_ERRORS`.
    """
    try:
        return tuple(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return ()


def private_key_usage_period(
    certificate: x509.Certificate | x509.CertificateSigningRequest,
) -> tuple[datetime | None, datetime | None] | None:
    """First and last moment when the private key may sign (RFC 3280 4.2.1.4); None where nothing is said of it.

    One of the two may be missing, never both.

    Raises:
        ValueError: The extensions cannot be parsed, or the end is before the beginning; or another of `PARSE_ERRORS`.
    """
    try:
        period = certificate.extensions.get_extension_for_class(x509.PrivateKeyUsagePeriod).value
    except x509.ExtensionNotFound:
        return None
    return _in_utc(period.not_before), _in_utc(period.not_after)


def _in_utc(moment: datetime | None) -> datetime | None:
    """What `cryptography` read: in UTC, without saying so."""
    return moment and moment.replace(tzinfo=UTC)


def check_pair(key: PrivateKey, certificate: x509.Certificate) -> None:
    """Sign something with the key and verify it with the certificate.

    Raises:
        KeyMismatch: They do not belong together, or the key does not sign properly.
        KeyStoreError: The key's store refused to sign.
    """
    probe = os.urandom(32)
    public_key = certificate.public_key()
    try:
        if isinstance(key, rsa.RSAPrivateKey) and isinstance(public_key, rsa.RSAPublicKey):
            signature = key.sign(probe, padding.PKCS1v15(), hashes.SHA256())
            public_key.verify(signature, probe, padding.PKCS1v15(), hashes.SHA256())
            return
        if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(public_key, ec.EllipticCurvePublicKey):
            public_key.verify(key.sign(probe, ec.ECDSA(hashes.SHA256())), probe, ec.ECDSA(hashes.SHA256()))
            return
    except InvalidSignature as error:
        raise _mismatch() from error
    raise _mismatch()


def _mismatch() -> KeyMismatch:
    return KeyMismatch(
        "The key and the certificate do not belong together.",
        remedy="Enroll again; if that does not help, test the token.",
    )
