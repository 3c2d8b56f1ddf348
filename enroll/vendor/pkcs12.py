"""Reads a key with its certificates from a PKCS#12 file (RFC 7292), as certificate authorities hand them out.

How long it takes to open one is for the file to say: each part names how often a hash is repeated. So what is not
encrypted is looked at before anything is opened: the sum of these counts, and whether the key is encrypted at all.
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
from enroll.errors import ConfigurationError, KeyStoreUnavailable, StateError
from enroll.keystore.secretfile import read_secret
from enroll.statefile import StateFiles
from enroll.trust import CERTIFICATES_LIMIT

FILE_LIMIT = 64 * 1024  # bytes
ITERATIONS_LIMIT = 10_000_000  # of all parts together; some seconds

_ANEW = "Make it anew: openssl pkcs12 -export"
_INTEGER = 0x02
_CONSTRUCTED = 0x20
_EXPLICIT = 0xA0  # [0]
_DATA = der.object_identifier("1.2.840.113549.1.7.1")  # RFC 5652 4: an OCTET STRING follows, with more DER in it
_KEY_BAG = der.object_identifier("1.2.840.113549.1.12.10.1.1")  # RFC 7292 4.2.1: a key that is not encrypted
_SHROUDED_KEY_BAG = der.object_identifier("1.2.840.113549.1.12.10.1.2")
_SCRYPT = der.object_identifier("1.3.6.1.4.1.11591.4.11")  # RFC 7914 7.1: it costs memory, which no sum bounds


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


def read_passphrase(path: Path, option: str, files: StateFiles) -> bytes:
    """The passphrase of such a file, which a person has put there for this run: no timer reads it again.

    Raises:
        ConfigurationError: Unreadable, readable by everybody, empty or too long.
    """
    try:
        return read_secret(path, option, files)
    except KeyStoreUnavailable as error:
        raise ConfigurationError(error.what, remedy=f"{error.remedy} Then run the command again.") from error


def read_pkcs12(path: Path, passphrase: bytes, files: StateFiles) -> KeyWithCertificates:
    """The one key of a file, which has to be RSA: image signatures need it (PS3.15 C.2).

    Raises:
        ConfigurationError: Unreadable, too large, too slow to open, not encrypted, not for this passphrase, or it holds
            no such key with its certificate.
    """
    try:
        data = files.read(path, FILE_LIMIT, follow=True)
    except StateError as error:
        raise ConfigurationError(error.what, remedy=f"Name a PKCS#12 file of at most {FILE_LIMIT} bytes.") from error
    _check_before_opening(path, data)
    try:
        key, certificate, others = pkcs12.load_key_and_certificates(data, passphrase)
    except PARSE_ERRORS as error:
        raise _refused(path, "does not open with this passphrase, or is damaged", "Compare both.") from error
    if not isinstance(key, rsa.RSAPrivateKey) or certificate is None:
        raise _refused(path, "holds no RSA key with its certificate", "Image signatures need RSA (PS3.15 C.2).")
    if len(others) >= CERTIFICATES_LIMIT:
        raise _refused(path, f"holds more than {CERTIFICATES_LIMIT} certificates", "Leave out what is not needed.")
    return KeyWithCertificates(key, certificate, tuple(others))


def _check_before_opening(path: Path, data: bytes) -> None:
    try:
        values = list(_unencrypted(data))
    except ValueError as error:
        raise _refused(path, "is no PKCS#12 file in DER", _ANEW) from error
    if sum(int.from_bytes(content, "big") for tag, content in values if tag == _INTEGER) > ITERATIONS_LIMIT:
        raise _refused(path, "would take too long to open", f"Make it with less than {ITERATIONS_LIMIT} iterations.")
    named = [der.encode(tag, content) for tag, content in values if tag == der.OBJECT_IDENTIFIER]
    if _KEY_BAG in named:
        raise _refused(path, "holds a key that is not encrypted", f"{_ANEW}. Whoever saw this file may have the key.")
    if _SCRYPT in named:
        raise _refused(path, "is encrypted with scrypt, which takes any amount of memory", _ANEW)
    if named.count(_SHROUDED_KEY_BAG) > 1:
        raise _refused(path, "holds several keys", "Put the one that signs into a file of its own.")


def _unencrypted(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Every primitive value outside of what is encrypted, with its tag.

    Raises:
        ValueError: There is something that is not DER, in which another reader might find more.
    """
    unread = [_whole(data)]
    while unread:
        values = unread.pop()
        while values:
            tag, content, values = _first(values)
            if tag & _CONSTRUCTED:
                unread.append(_of_data(content) if content.startswith(_DATA) else content)
            else:
                yield tag, content


def _of_data(content: bytes) -> bytes:
    """What a ContentInfo of the kind "data" holds; or itself, where it is the head of something encrypted."""
    tag, explicit, _ = _first(content[len(_DATA) :] or content)
    if tag != _EXPLICIT:
        return content
    tag, octets, rest = _first(explicit)
    if tag != der.OCTET_STRING or rest:
        raise ValueError("data that is not in one piece")
    return _whole(octets)


def _whole(data: bytes) -> bytes:
    if not der.is_one_value(data):
        raise ValueError("not one value in DER")
    return data


def _first(values: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first of several values, and the others; their lengths have been checked."""
    if not values:
        raise ValueError("nothing where a value has to be")
    size = der.announced_length(values) or len(values)
    head = 2 + (values[1] & 0x7F if values[1] & 0x80 else 0)
    return values[0], values[head:size], values[size:]


def _refused(path: Path, what: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"{path} {what}.", remedy=remedy)
