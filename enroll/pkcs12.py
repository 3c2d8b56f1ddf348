"""Reads a key with its certificates from a PKCS#12 file (RFC 7292), as certificate authorities hand them out.

How long it takes to open one is for the file to say: each part names how often a hash is repeated. So the sum of these
counts is looked at before anything is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from enroll import der
from enroll.certificates import PARSE_ERRORS
from enroll.errors import ConfigurationError, StateError
from enroll.statefile import StateFiles
from enroll.trust import CERTIFICATES_LIMIT

FILE_LIMIT = 64 * 1024  # bytes
ITERATIONS_LIMIT = 10_000_000  # of all parts together; some seconds

_INTEGER = 0x02
_COUNT_SIZES = range(2, 9)  # bytes of an INTEGER that may be a count; a key has longer ones
_DEPTH_LIMIT = 16
_NESTED_LIMIT = 2  # AuthenticatedSafe and SafeContents are each an OCTET STRING in the one above (RFC 7292 4)
_CONSTRUCTED = 0x20


@dataclass(frozen=True)
class KeyWithCertificates:
    """What such a file holds.

    Args:
        key: The private key.
        certificate: Of that key.
        others: CA certificates, in any order.
    """

    key: rsa.RSAPrivateKey = field(repr=False)
    certificate: x509.Certificate
    others: tuple[x509.Certificate, ...]


def read_pkcs12(path: Path, passphrase: bytes, files: StateFiles) -> KeyWithCertificates:
    """The one key of a file, which has to be RSA: image signatures need it (PS3.15 C.2).

    Raises:
        ConfigurationError: Unreadable, too large, too slow to open, not for this passphrase, or it holds no such key
            with its certificate.
    """
    try:
        data = files.read(path, FILE_LIMIT, follow=True)
    except StateError as error:
        raise ConfigurationError(error.what, remedy=f"Name a PKCS#12 file of at most {FILE_LIMIT} bytes.") from error
    if not der.is_one_value(data):
        raise _refused(path, "is no PKCS#12 file in DER", "Make it anew: openssl pkcs12 -export")
    if sum(_counts(data)) > ITERATIONS_LIMIT:
        raise _refused(path, "would take too long to open", f"Make it with less than {ITERATIONS_LIMIT} iterations.")
    try:
        key, certificate, others = pkcs12.load_key_and_certificates(data, passphrase)
    except PARSE_ERRORS as error:
        raise _refused(path, "does not open with this passphrase, or is damaged", "Compare both.") from error
    if not isinstance(key, rsa.RSAPrivateKey) or certificate is None:
        raise _refused(path, "holds no RSA key with its certificate", "Image signatures need RSA (PS3.15 C.2).")
    if len(others) >= CERTIFICATES_LIMIT:
        raise _refused(path, f"holds more than {CERTIFICATES_LIMIT} certificates", "Leave out what is not needed.")
    return KeyWithCertificates(key, certificate, tuple(others))


def _counts(data: bytes, depth: int = 0, nested: int = 0) -> Iterator[int]:
    """Every INTEGER that may be an iteration count, wherever it stands outside of what is encrypted."""
    while data and depth < _DEPTH_LIMIT:
        size = der.announced_length(data) or len(data)
        head = 2 + (data[1] & 0x7F if data[1] & 0x80 else 0)
        tag, content, data = data[0], data[head:size], data[size:]
        if tag == _INTEGER and len(content) in _COUNT_SIZES:
            yield int.from_bytes(content, "big")
        elif tag & _CONSTRUCTED:
            yield from _counts(content, depth + 1, nested)
        elif tag == der.OCTET_STRING and nested < _NESTED_LIMIT and der.is_one_value(content):
            yield from _counts(content, depth + 1, nested + 1)


def _refused(path: Path, what: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"{path} {what}.", remedy=remedy)
