"""The files that a CA answers with: certificates as PKCS#7, PEM or DER, in any mixture and order.

The label of a PEM block is not believed: AD CS puts PKCS#7 under "CERTIFICATE". Of a full response (RFC 5272, the .rsp
file of certreq) the certificates are taken and nothing else. Nothing is verified here; `enroll.trust` judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cryptography import x509

from enroll import der
from enroll.armour import is_der, read_blocks
from enroll.certificates import PARSE_ERRORS, decode_base64
from enroll.errors import CA_OPERATOR, ProtocolViolation
from enroll.foreign import printable
from enroll.signed_data import certificates_in, read_certificate
from enroll.trust import CERTIFICATES_LIMIT

FILE_LIMIT = 512 * 1024  # bytes; ten certificates of the largest size, in base64 and UTF-16
FILES_LIMIT = 16

_IGNORED = frozenset({"X509 CRL"})


def read_answers(files: Mapping[str, bytes]) -> tuple[x509.Certificate, ...]:
    """All certificates in some files, each once.

    Args:
        files: What is in each, by its name.

    Raises:
        ProtocolViolation: One holds none, or something else, or they are too many or too large.
    """
    if len(files) > FILES_LIMIT:
        raise _malformed("The answer", f"more than {FILES_LIMIT} files")
    found: dict[x509.Certificate, None] = {}
    for name, data in files.items():
        if len(data) > FILE_LIMIT:
            raise _malformed(name, f"more than {FILE_LIMIT} bytes")
        try:
            found |= dict.fromkeys(_certificates(data))
        except PARSE_ERRORS as error:
            raise _malformed(name, printable(str(error))) from error
        if len(found) > CERTIFICATES_LIMIT:
            raise _malformed(name, f"more than {CERTIFICATES_LIMIT} certificates together with the files before")
    return tuple(found)


def _certificates(data: bytes) -> tuple[x509.Certificate, ...]:
    certificates = tuple(certificate for value in _values(data) for certificate in _in_value(value))
    if not certificates:
        raise ValueError("no certificate")
    return certificates


def _values(data: bytes) -> Iterator[bytes]:
    """The DER values in a file: the file itself, its PEM blocks, or base64 without any label."""
    if is_der(data):
        yield data
        return
    blocks = read_blocks(data)
    if not blocks:
        yield decode_base64(data)
    for block in blocks:
        if "PRIVATE KEY" in block.label:
            raise ValueError("a private key, which is never taken from outside")
        if "REQUEST" in block.label:
            raise ValueError("a request, not the answer to one")
        if block.label not in _IGNORED:
            yield block.content


def _in_value(value: bytes) -> tuple[x509.Certificate, ...]:
    """RFC 5652 3: a ContentInfo begins with an object identifier; a certificate (RFC 5280 4.1) with a SEQUENCE."""
    if len(value) < 2:  # noqa: PLR2004 - tag and length
        raise ValueError("not one DER value")
    head = 2 + (value[1] & 0x7F if value[1] & 0x80 else 0)  # X.690 8.1.3: tag and length
    if value[head : head + 1] == bytes((der.OBJECT_IDENTIFIER,)):
        return certificates_in(value)
    return (read_certificate(value),)


def _malformed(name: str, why: str) -> ProtocolViolation:
    return ProtocolViolation(
        f"{printable(name)} cannot be used: {why}.",
        remedy="Bring the certificate as PKCS#7, PEM or DER (AD CS: .cer or .p7b). The request stays as it is.",
        code="offline-answer-malformed",
        who_must_act=CA_OPERATOR,
        what_next="Nothing was changed; the request waits for its answer.",
    )
