"""What an owner may bring: by fdo.csr a certificate and its CA, by scanseal.renewal the way of its renewal."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.fdo import reference_codec as codec
from tests.support.fdo.hostile_case import (
    INTERNAL,
    INVALID,
    MALFORMED,
    ONBOARDS,
    Arrange,
    Case,
    Chapter,
    Ending,
    refused,
)
from tests.support.fdo.hostile_changes import nested, noise, nth, payload
from tests.support.fdo.hostile_stage import OwnersCa, Stage
from tests.support.fdo.scripted_csr import in_base64
from tests.support.pki import NOW, name, new_key

_CSR, _RENEWAL, _PATH = "fdo.csr 1.0", "scanseal.renewal", "RFC 5280 6.1"
_CA, _ATTRIBUTES, _CERTIFICATE = "cacerts-res", "csrattrs-res", "simpleenroll-res"
_STRANGERS: Final = OwnersCa("Owner CA")  # another one of the same name
_LARGE: Final = 15_500  # bytes of an extension
_P_256: Final = bytes.fromhex("2a8648ce3d030107")
_NAME, _CURVE = (b"Owner", b"\xff" * 5), (_P_256, _P_256[:-1] + b"\x77")


def _case(title: str, clause: str, what: str, arrange: Arrange, ending: Ending, **options: Any) -> Case:
    return Case(f"69-{title}", 69, clause, what, arrange, ending, **options)


def _said(word: str, value: Any) -> Arrange:
    """A value in the place of the right one, or what a function makes of that."""
    change = value if callable(value) else lambda _: value
    return lambda stage: stage.csr.changes.__setitem__(f"fdo.csr:{word}", change)


def _another_word(number: int, word: str, value: Any) -> Arrange:
    """In the place of the answer of that number."""
    return payload(69, nth(number, lambda _: [False, False, [[f"fdo.csr:{word}", codec.write(value)]]]))


def _certificate(title: str, what: str, code: str, **changes: Any) -> Case:
    """A certificate with another content."""

    def arrange(stage: Stage) -> None:
        stage.csr.ca.change = lambda content: replace(content, **changes)

    return _refused(title, what, code, arrange)


def _refused(title: str, what: str, code: str, arrange: Arrange) -> Case:
    return _case(title, _PATH, what, arrange, refused(69, INVALID, f"certificate-{code}"))


def _another_key(stage: Stage) -> None:
    stage.csr.ca.key_change = lambda _: new_key().public_key()


def _by_a_stranger(stage: Stage) -> None:
    own = stage.csr.ca
    stage.csr.ca = _STRANGERS
    stage.csr.changes[f"fdo.csr:{_CA}"] = lambda _: _in_base64(own.certificate)


def _in_base64(*certificates: x509.Certificate) -> str:
    return in_base64(pkcs7.serialize_certificates(list(certificates), Encoding.DER))


def _error(number: int, code: int, ending: Ending, what: str) -> Case:
    return _case(f"error-{code}", _CSR, what, _another_word(number, "error", code), ending)


def _large(count: int) -> list[x509.Certificate]:
    """Roots that are as large as they may be."""
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.32473.9"), noise(_LARGE))
    return [_root(f"Root {number}", extension) for number in range(count)]


def _root(title: str, extension: x509.UnrecognizedExtension) -> x509.Certificate:
    key, subject = new_key(), name(COMMON_NAME=title)
    return (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(extension, critical=False)
        .sign(key, hashes.SHA256())
    )


def _more_than_can_be_kept(stage: Stage) -> None:
    """All of it may come, but a credential has not room for it: it is kept as anchors, and as what was issued."""
    roots = [stage.csr.ca.certificate, *_large(4)]
    stage.csr.changes[f"fdo.csr:{_CA}"] = lambda _: pkcs7.serialize_certificates(roots, Encoding.DER)
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.32473.9"), noise(_LARGE))
    stage.csr.changes[f"fdo.csr:{_CERTIFICATE}"] = lambda value: _with(stage, value, extension)


def _ten_and_one(stage: Stage) -> None:
    roots = [stage.csr.ca.certificate, *(OwnersCa(f"Root {number}").certificate for number in range(9))]
    stage.csr.changes[f"fdo.csr:{_CA}"] = lambda _: _in_base64(*roots)


def _altered(old: bytes, new: bytes) -> x509.Certificate:
    """A CA certificate that can be loaded; what is wrong in it shows only when it is asked for."""
    return x509.load_der_x509_certificate(_STRANGERS.certificate.public_bytes(Encoding.DER).replace(old, new))


def _unreadable_beside(stage: Stage) -> None:
    certificates = [_altered(*_NAME), stage.csr.ca.certificate, _altered(*_CURVE)]
    stage.csr.changes[f"fdo.csr:{_CA}"] = lambda _: _in_base64(*certificates)


def _garbage_beside(stage: Stage) -> None:
    stranger = _STRANGERS.certificate.public_bytes(Encoding.DER)
    message = pkcs7.serialize_certificates([stage.csr.ca.certificate, _STRANGERS.certificate], Encoding.DER)
    garbage = stranger[:4] + noise(len(stranger) - 4)  # behind its tag and its length
    stage.csr.changes[f"fdo.csr:{_CA}"] = lambda _: in_base64(message.replace(stranger, garbage))


def _read(value: str) -> x509.Certificate:
    return x509.load_der_x509_certificate(base64.b64decode(value))


def _with(stage: Stage, value: str, extension: x509.UnrecognizedExtension) -> str:
    """The certificate once more, with an extension that makes it large."""
    issued = _read(value)
    builder = x509.CertificateBuilder(
        issued.issuer,
        issued.subject,
        issued.public_key(),
        issued.serial_number,
        issued.not_valid_before_utc,
        issued.not_valid_after_utc,
        [*issued.extensions, x509.Extension(extension.oid, critical=False, value=extension)],
    )
    certificate = builder.sign(stage.csr.ca.key, hashes.SHA256())
    return in_base64(certificate.public_bytes(Encoding.DER))


def _renewal(title: str, what: str, *said: Any, ending: Ending | None = None, word: str = "renewal") -> Case:
    """The owner says how the certificate is renewed, before it gives one."""
    pieces = [
        ["scanseal.renewal:active", codec.write(value=True)],
        [f"scanseal.renewal:{word}", codec.write(list(said))],
    ]
    arrange = payload(69, nth(2, lambda _: [False, False, pieces]))
    return _case(f"renewal-{title}", _RENEWAL, what, arrange, ending or refused(69, INVALID))


def _in_base64_of_nothing() -> str:
    """A certs-only message (RFC 5652 5.1) without certificates."""
    empty = bytes.fromhex(
        "302306092a864886f70d010702a0163014020101310030 0b06092a864886f70d010701a0003100".replace(" ", "")
    )
    return in_base64(empty)


def _nested_der(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        size = len(data)
        data = b"0" + (bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")) + data
    return data


_REFUSED: Final = refused(69, INTERNAL, "enrollment-refused")
_WORDS = (
    _case(
        "ca-certificates-of-garbage",
        _CSR,
        "Its CA certificates are garbage.",
        _said(_CA, noise(300)),
        refused(69, INVALID),
    ),
    _case(
        "no-ca-certificates",
        _CSR,
        "It brings an empty list of CA certificates.",
        _said(_CA, lambda _: _in_base64_of_nothing()),
        refused(69, INVALID),
    ),
    _case(
        "eleven-ca-certificates",
        _CSR,
        "It brings eleven CA certificates.",
        _said(_CA, lambda _: _in_base64(*[_STRANGERS.certificate] * 11)),
        refused(69, INVALID),
    ),
    _case(
        "ten-ca-certificates-and-one",
        _CSR,
        "It brings ten CA certificates, and one that it issues: eleven in all.",
        _ten_and_one,
        refused(69, INVALID),
    ),
    _case(
        "eleven-certificates",
        _CSR,
        "It brings the certificate with ten others.",
        _said(_CERTIFICATE, lambda value: _in_base64(_read(value), *[_STRANGERS.certificate] * 10)),
        refused(69, INVALID),
    ),
    _case(
        "ca-certificate-with-a-name-of-garbage",
        _CSR,
        "Its CA certificate has a name that is not UTF-8.",
        _said(_CA, lambda _: _in_base64(_altered(*_NAME))),
        refused(69, INVALID),
    ),
    _case(
        "ca-certificate-on-an-unknown-curve",
        _CSR,
        "The key in its CA certificate is on a curve that there is not.",
        _said(_CA, lambda _: _in_base64(_altered(*_CURVE))),
        refused(69, INVALID),
    ),
    _case(
        "unreadable-ca-certificates-beside-the-right-one",
        _CSR,
        "Both come with the right CA certificate, and are left out.",
        _unreadable_beside,
        ONBOARDS,
    ),
    _case(
        "garbage-beside-the-right-ca-certificate",
        _CSR,
        "A garbled certificate comes with the right one of the CA.",
        _garbage_beside,
        refused(69, INVALID),
    ),
    _case(
        "ca-certificates-as-a-number", _CSR, "Its CA certificates are a number.", _said(_CA, 1), refused(69, MALFORMED)
    ),
    _case(
        "ca-certificates-twice",
        _CSR,
        "It brings its CA certificates twice.",
        _another_word(4, _CA, "MAA="),
        refused(69, INVALID),
    ),
    _case(
        "attributes-of-garbage",
        _CSR,
        "What it wants in the request is garbage.",
        _said(_ATTRIBUTES, in_base64(b"0" + noise(60))),
        refused(69, INVALID),
    ),
    _case(
        "attributes-that-are-a-bomb",
        _CSR,
        "What it wants is a list in a list, and so on 200 times.",
        _said(_ATTRIBUTES, in_base64(_nested_der(200))),
        refused(69, INVALID),
    ),
    _case(
        "certificate-before-the-request",
        _CSR,
        "It gives a certificate before it was asked for one.",
        _another_word(3, _CERTIFICATE, "MAA="),
        refused(69, INVALID),
    ),
    _case(
        "certificate-of-garbage",
        _CSR,
        "The certificate is garbage.",
        _said(_CERTIFICATE, noise(300)),
        refused(69, INVALID),
    ),
    _case(
        "certificate-cut-off",
        _CSR,
        "The last byte of the certificate is missing.",
        _said(_CERTIFICATE, lambda value: base64.b64decode(value)[:-1]),
        refused(69, INVALID),
    ),
    _case(
        "certificate-that-is-a-bomb",
        "RFC 8949 10",
        "The certificate is an array in an array, 1,000 times.",
        payload(69, nth(5, lambda _: [False, False, [[f"fdo.csr:{_CERTIFICATE}", nested(b"\x81", 1000)]]])),
        refused(69, MALFORMED),
    ),
    _case(
        "renewal-for-an-enrollment",
        _CSR,
        "It answers simpleenroll as simplereenroll.",
        _another_word(5, "simplereenroll-res", "MAA="),
        refused(69, INVALID),
    ),
    _case(
        "key-made-by-the-owner",
        _CSR,
        "It brings a key that it has made itself, which nobody asked for.",
        _another_word(5, "serverkeygen-res", [noise(32), noise(300)]),
        refused(69, INVALID),
    ),
    _error(5, 1, _REFUSED, "It does not understand the request."),
    _error(5, 2, _REFUSED, "This scanner may not have a certificate."),
    _error(3, 4, _REFUSED, "It is asked too often, it says."),
    _error(5, 77, _REFUSED, "It says no, for a reason that there is not."),
    _error(5, 256, refused(69, MALFORMED), "It says no, by a number beyond 8 bits."),
)
_CERTIFICATES = (
    _refused("certificate-for-another-key", "The certificate is for a key of the owner.", "wrong-key", _another_key),
    _refused("certificate-by-another-ca", "Another CA of the same name has issued it.", "untrusted", _by_a_stranger),
    _certificate(
        "certificate-for-another-scanner",
        "It names another scanner.",
        "wrong-names",
        subject=name(COMMON_NAME="CT-9", SERIAL_NUMBER="CT-9"),
    ),
    _certificate("certificate-of-a-ca", "It makes the scanner a CA.", "is-ca", ca=True),
    _certificate("certificate-that-is-over", "It ended a minute ago.", "wrong-dates", end=NOW - timedelta(minutes=1)),
    _certificate("certificate-not-begun", "It begins tomorrow.", "wrong-dates", begin=NOW + timedelta(days=1)),
    _certificate(
        "certificate-for-other-use",
        "It is for servers.",
        "wrong-usage",
        extended_usage=(ExtendedKeyUsageOID.SERVER_AUTH,),
    ),
    _certificate(
        "certificate-with-another-host",
        "It names a host beside the scanner.",
        "wrong-names",
        alternative_names=(x509.DNSName("pacs.example"),),
    ),
    _certificate(
        "certificate-with-unknown-critical",
        "It has a critical extension that nobody knows.",
        "untrusted",
        critical_extension=x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"),
    ),
    _case(
        "more-than-can-be-kept",
        _CSR,
        "It brings CA certificates of 62 KiB, and a certificate of 16 KiB.",
        _more_than_can_be_kept,
        refused(69, INTERNAL, "credential-too-large"),
        requests=110,  # all of it has to come
    ),
)
_RENEWALS = (
    _renewal("without-tls", "Renewal goes to an address without TLS.", "est", "http://ca.example/", ""),
    _renewal("of-a-file", "It goes to a file.", "est", "file:///etc/passwd", ""),
    _renewal("nowhere", "It goes to an address without a host.", "est", "https://", ""),
    _renewal("unknown-way", "It goes a way that there is not.", "telnet", "https://ca.example/", ""),
    _renewal("by-hand", "It goes by hand.", "offline", "https://ca.example/", ""),
    _renewal(
        "to-a-long-address", "Its address has 2 KiB.", "est", "https://" + "a" * 2048, "", ending=refused(69, MALFORMED)
    ),
    _renewal("with-two-parts", "It has two parts.", "est", "https://ca.example/", ending=refused(69, MALFORMED)),
    _renewal("unknown-word", "It says something of the module that there is not.", "x", word="command"),
)


CHAPTER = Chapter("What the owner brings", (*_WORDS, *_CERTIFICATES, *_RENEWALS))
