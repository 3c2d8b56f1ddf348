"""The files that CAs answer with, in every form they come in and after what mail programs do to them."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Callable, Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from enroll import der
from enroll.armour import BLOCKS_LIMIT, read_blocks
from enroll.certificates import pem
from enroll.errors import ProtocolViolation
from enroll.flows.offline.answers import FILE_LIMIT, FILES_LIMIT, read_answers
from tests.support.by_hand import der_of
from tests.support.pki import HospitalCa, new_key

CA = HospitalCa()
LEAF = CA.issue(new_key().public_key())
BOTH = {LEAF, CA.certificate}
SIGNED_DATA, DATA = der.object_identifier("1.2.840.113549.1.7.2"), der.object_identifier("1.2.840.113549.1.7.1")
PKI_RESPONSE = der.object_identifier("1.3.6.1.5.5.7.12.3")  # RFC 5272 3.2.2
SET, CONTEXT_0 = 0x31, 0xA0


def certs_only(certificates: Sequence[x509.Certificate]) -> bytes:
    return pkcs7.serialize_certificates(list(certificates), Encoding.DER)


def message(certificates: Sequence[x509.Certificate], content_type: bytes = DATA, content: bytes = b"") -> bytes:
    """SignedData whose certificates stand in this order, which DER does not allow and CAs do."""
    body = (
        der.encode(0x02, b"\x01")
        + der.encode(SET, b"")
        + der.encode(der.SEQUENCE, content_type + content)
        + der.encode(CONTEXT_0, b"".join(map(der_of, certificates)))
        + der.encode(SET, b"")
    )
    return der.encode(der.SEQUENCE, SIGNED_DATA + der.encode(CONTEXT_0, der.encode(der.SEQUENCE, body)))


def armoured(label: str, data: bytes) -> bytes:
    body = "\n".join(textwrap.wrap(base64.b64encode(data).decode("ascii"), 64))
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n".encode("ascii")


def read(*files: bytes) -> set[x509.Certificate]:
    return set(read_answers({str(number): file for number, file in enumerate(files)}))


def why_not(*files: bytes) -> str:
    with pytest.raises(ProtocolViolation) as caught:
        read(*files)
    assert caught.value.code == "offline-answer-malformed"
    return caught.value.what


PKCS7 = certs_only([LEAF, CA.certificate])


@pytest.mark.parametrize(
    "file",
    [
        PKCS7,
        armoured("PKCS7", PKCS7),
        armoured("CMS", PKCS7),
        armoured("PKCS #7 SIGNED DATA", PKCS7),
        armoured("CERTIFICATE", PKCS7),
        base64.encodebytes(PKCS7),
        pem([LEAF, CA.certificate]),
        pem([CA.certificate, LEAF, LEAF]),
        armoured("X509 CERTIFICATE", der_of(LEAF)) + armoured("PKCS7", certs_only([CA.certificate])),
        message(sorted(BOTH, key=der_of)),
        message(sorted(BOTH, key=der_of, reverse=True)),
        message([LEAF, CA.certificate], PKI_RESPONSE, der.encode(CONTEXT_0, der.encode(der.OCTET_STRING, b"0"))),
        b"subject=CN = x\n\nissuer=CN = y\n" + pem([LEAF]) + b"\nand the CA:\n" + pem([CA.certificate]) + b"\nbye\n",
    ],
    ids=[
        "DER",
        "PKCS7",
        "CMS",
        "old label",
        "AD CS label",
        "bare base64",
        "PEM",
        "PEM, one twice",
        "mixed",
        "sorted",
        "not sorted",
        "rsp of certreq",
        "text around",
    ],
)
def test_every_form_is_read(file: bytes) -> None:
    assert read(file) == BOTH


def test_one_certificate_in_der_and_its_ca_in_another_file() -> None:
    assert read(der_of(LEAF), der_of(CA.certificate)) == BOTH


@pytest.mark.parametrize("form", [pem([LEAF, CA.certificate]), armoured("PKCS7", PKCS7)], ids=["PEM", "PKCS7"])
@pytest.mark.parametrize(
    "mangled",
    [
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: text.replace("\n", " ").encode(),
        lambda text: text.replace("\n", "\n\n").encode(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.encode("utf-16"),
        lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
        lambda text: "".join(f"> > {line}" for line in text.splitlines(keepends=True)).encode(),
        lambda text: "".join(f"  | {line}  " for line in text.splitlines(keepends=True)).encode(),
        lambda text: text.replace("\n", "\xa0\n").encode(),
        lambda text: text.replace("=", "=3D").encode(),
        lambda text: text.replace("-----", "\u2014\u2014-").encode(),
        lambda text: text.rstrip("\n").encode(),
    ],
    ids=[
        "CRLF",
        "CR",
        "one line",
        "empty lines",
        "BOM",
        "UTF-16",
        "UTF-16, big end first",
        "quoted",
        "indented",
        "no-break spaces",
        "quoted-printable",
        "long dashes",
        "no last end of line",
    ],
)
def test_what_mail_and_editors_do_does_no_harm(form: bytes, mangled: Callable[[str], bytes]) -> None:
    assert read(mangled(form.decode("ascii"))) == BOTH


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (b"", "not one DER value"),
        (b"Dear colleague, the certificate is attached.", "cannot be used"),
        (armoured("CERTIFICATE REQUEST", b"0\x00"), "a request, not the answer to one"),
        (armoured("PRIVATE KEY", b"0\x00"), "a private key, which is never taken from outside"),
        (pem([LEAF]) + armoured("RSA PRIVATE KEY", b"0\x00"), "a private key"),
        (armoured("X509 CRL", b"0\x00"), "no certificate"),
        (certs_only([LEAF])[:-1], "cannot be used"),
        (certs_only([LEAF]) + b"\x00", "cannot be used"),
        (armoured("PKCS7", certs_only([LEAF]) + b"\x00"), "not one DER value"),
        (armoured("CERTIFICATE", b""), "not one DER value"),
        (pem([LEAF])[:-10], "BEGIN CERTIFICATE without its end"),
        (pem([LEAF])[30:], "END CERTIFICATE without its beginning"),
        (message([]), "no certificate"),
        (b"x" * (FILE_LIMIT + 1), "bytes"),
    ],
)
def test_what_holds_no_certificate_is_refused_with_the_reason(file: bytes, why: str) -> None:
    assert why in why_not(file)


def test_signed_data_that_is_none_is_refused() -> None:
    enveloped = der.object_identifier("1.2.840.113549.1.7.3")

    assert "not signedData" in why_not(PKCS7.replace(SIGNED_DATA, enveloped, 1))


def test_files_blocks_and_certificates_are_limited() -> None:
    many = [CA.issue(new_key().public_key()) for _ in range(11)]

    assert "more than 10 certificates" in why_not(certs_only(many))
    assert "more than 10 certificates" in why_not(pem(many))
    assert "more than 10 certificates" in why_not(certs_only(many[:6]), certs_only(many[6:]))
    assert "files" in why_not(*[pem([LEAF])] * (FILES_LIMIT + 1))
    assert f"more than {BLOCKS_LIMIT} PEM blocks" in why_not(pem([LEAF]) * (BLOCKS_LIMIT + 1))


def test_an_oversized_certificate_is_refused_before_it_is_parsed() -> None:
    large = der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, b"\x00" * 20_000))

    assert "a certificate of more than" in why_not(large)


def test_blocks_come_with_their_labels() -> None:
    assert [block.label for block in read_blocks(pem([LEAF]) + armoured("CMS", PKCS7))] == ["CERTIFICATE", "CMS"]
