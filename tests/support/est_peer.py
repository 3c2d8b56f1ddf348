"""An EST server with the oddities of real ones: each was seen in a server, an issue thread or an RFC's example.

What is not odd in it is the evaluation EST server's. Each table here names its forms and says whether a client that
keeps to the RFCs gets along with them.
"""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any, Generic, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID, ObjectIdentifier

from enroll import der
from enroll.csr import CertificateRequest, Usage, build
from enroll.evaluation.ca import EvaluationCa
from enroll.evaluation.est_attributes import (
    CHALLENGE_PASSWORD,
    EC_PUBLIC_KEY,
    ECDSA_WITH_SHA256,
    EXTENSION_REQUEST,
    attribute,
    extension_request,
    identifier,
    sequence,
    template,
)
from enroll.evaluation.est_server import EstHandler, EstOptions, EstServer
from enroll.evaluation.https_server import Rejection
from enroll.http import BODY_LIMIT
from tests.support.pki import DEVICE, REQUEST, HospitalCa, new_key

Value = TypeVar("Value")
Issue = Callable[[x509.CertificateSigningRequest, EvaluationCa], Sequence[x509.Certificate]]

CURVE_384 = ObjectIdentifier("1.3.132.0.34")
ECDSA_WITH_SHA384 = ObjectIdentifier("1.2.840.10045.4.3.3")
MAC_ADDRESS = ObjectIdentifier("1.3.6.1.1.1.1.22")
CERTS_ONLY = "application/pkcs7-mime; smime-type=certs-only"
EMPTY_BAG = der.encode(  # SignedData without certificates and signers
    der.SEQUENCE,
    bytes.fromhex("06092a864886f70d010702")
    + der.encode(0xA0, der.encode(der.SEQUENCE, bytes.fromhex("0201013100300b06092a864886f70d0107013100"))),
)


@dataclass(frozen=True)
class Form(Generic[Value]):
    """One way to answer.

    Args:
        value: What is different.
        usable: Whether a client has to get along with it.
    """

    value: Value
    usable: bool = True


def _honest(request: x509.CertificateSigningRequest, ca: EvaluationCa) -> Sequence[x509.Certificate]:
    return [ca.issue(request)]


@dataclass(frozen=True)
class Oddities:
    """What is different from the evaluation server; the defaults are its own.

    Args:
        body: DER as a body.
        transfer_encoding: The header that means nothing (RFC 8951 3).
        issue: What is put into the bag of an enrollment.
        attributes: The whole answer of csrattrs, status and DER; None for that of the options.
        attributes_below: The one label that has csrattrs; None for all.
        answer: Takes the place of the answer to an enrollment.
        newline_strict: Whether a request has to end with a newline.
    """

    body: Callable[[bytes], bytes] = base64.encodebytes
    transfer_encoding: str = "base64"
    issue: Issue = _honest
    attributes: tuple[HTTPStatus, bytes] | None = None
    attributes_below: str | None = None
    answer: Callable[[OddHandler], None] | None = None
    newline_strict: bool = False


class OddHandler(EstHandler):
    """One connection."""

    est: EstPeer

    def get(self) -> None:
        odd = self.est.odd
        if odd.attributes is None or not self.path.endswith("/csrattrs"):
            super().get()
            return
        status, content = odd.attributes
        if odd.attributes_below is not None and not self.path.endswith(f"/est/{odd.attributes_below}/csrattrs"):
            status, content = HTTPStatus.NOT_FOUND, b""
        headers = {"Content-Type": "application/csrattrs"} if status is HTTPStatus.OK else {}
        self.send(status, headers, odd.body(content) if content else b"")

    def decoded(self, body: bytes) -> bytes:
        if self.est.odd.newline_strict and not body.endswith(b"\n"):
            raise Rejection(HTTPStatus.BAD_REQUEST, "")
        return super().decoded(body)

    def decide(self, request: x509.CertificateSigningRequest) -> None:
        odd = self.est.odd
        if odd.answer:
            odd.answer(self)
        elif self.est.options.approve_by_hand:
            super().decide(request)
        else:
            self.send_certificates(odd.issue(request, self.est.ca))

    def send_certificates(self, certificates: Sequence[x509.Certificate]) -> None:
        if certificates:
            super().send_certificates(certificates)
        else:
            self.send_encoded(CERTS_ONLY, EMPTY_BAG)

    def send_encoded(self, content_type: str, content: bytes) -> None:
        odd = self.est.odd
        # What is odd is the enrollment; the client needs the CA certificates to get as far as that.
        body = odd.body(content) if self.command == "POST" else base64.encodebytes(content)
        headers = {"Content-Type": content_type, "Content-Transfer-Encoding": odd.transfer_encoding}
        self.send(HTTPStatus.OK, headers, body)

    def cut(self) -> None:
        """End the connection without saying so."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


class EstPeer(EstServer):
    """The server."""

    handler = OddHandler

    def __init__(
        self,
        ca: EvaluationCa,
        odd: Oddities,
        options: EstOptions | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.odd = odd
        super().__init__(ca, address, options=options)


# --- bodies (RFC 8951 3): DER in base64 is right, whatever white space there is


def _wrapped(content: bytes, newline: bytes) -> bytes:
    return base64.encodebytes(content).replace(b"\n", newline)


def _armoured(content: bytes, title: bytes) -> bytes:
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (title, base64.encodebytes(content), title)


def _indefinite(content: bytes) -> bytes:
    """The same value in BER: the outer length is left open (X.690 8.1.3.6)."""
    head = 2 + (content[1] & 0x7F if content[1] & 0x80 else 0)
    return base64.encodebytes(b"\x30\x80" + content[head:] + b"\x00\x00")


BODIES: Mapping[str, Form[Callable[[bytes], bytes]]] = {
    "one line": Form(base64.b64encode),
    "one line and a newline": Form(lambda content: base64.b64encode(content) + b"\n"),
    "wrapped by CRLF": Form(lambda content: _wrapped(content, b"\r\n")),
    "wrapped with tabs and spaces": Form(lambda content: b" \t\r\n" + _wrapped(content, b" \t\r\n")),
    "PEM armour PKCS7": Form(lambda content: _armoured(content, b"PKCS7")),
    "PEM armour CMS": Form(lambda content: _armoured(content, b"CMS")),
    "a byte after the value": Form(lambda content: base64.encodebytes(content + b"\x00"), usable=False),
    "truncated value": Form(lambda content: base64.encodebytes(content[:-20]), usable=False),
    "truncated base64": Form(lambda content: base64.encodebytes(content)[:-7], usable=False),
    "BER": Form(_indefinite, usable=False),
    "DER without base64": Form(lambda content: content, usable=False),
    "base64url": Form(lambda content: base64.urlsafe_b64encode(b"\xff\xff" + content), usable=False),
    "nothing": Form(lambda _: b"", usable=False),
    "an error page": Form(lambda _: b"<html>Out of order</html>", usable=False),
}
TRANSFER_ENCODINGS = ("base64", "BASE64", "binary", "8bit", "quoted-printable", "x-unknown")


# --- bags (RFC 7030 4.2.3): the certificate of the key, in any place; whatever else there is means nothing


def _other_key(_: x509.CertificateSigningRequest, ca: EvaluationCa) -> Sequence[x509.Certificate]:
    """As from a server that certifies an old key again."""
    return [ca.issue(build(new_key(), CertificateRequest.for_device(DEVICE, Usage.DEVICE)))]


BAGS: Mapping[str, Form[Issue]] = {
    "the CA first": Form(lambda request, ca: [*ca.roots, ca.issue(request)]),
    "a leaf of somebody else first": Form(lambda request, ca: [ca.issue(build(new_key(), REQUEST)), ca.issue(request)]),
    "the certificate of a stranger's CA beside it": Form(
        lambda request, ca: [ca.issue(request), HospitalCa("Stranger").certificate]
    ),
    "the same one twice": Form(lambda request, ca: [ca.issue(request)] * 2),
    "for another key": Form(_other_key, usable=False),
    "the CA alone": Form(lambda _, ca: ca.roots, usable=False),
    "empty": Form(lambda _, __: [], usable=False),
    "two for the key": Form(lambda request, ca: [ca.issue(request), ca.issue(request)], usable=False),
    "eleven": Form(lambda request, ca: [ca.issue(request) for _ in range(11)], usable=False),
}


# --- csrattrs (RFC 8951 4, RFC 9908 3): what cannot be supplied is ignored


def _mac_address() -> bytes:
    """The example of RFC 7030 4.5.2, which RFC 9908 would not allow: attributes where extensions should be."""
    return sequence(
        identifier(CHALLENGE_PASSWORD),
        attribute(EC_PUBLIC_KEY, identifier(CURVE_384)),
        attribute(EXTENSION_REQUEST, identifier(MAC_ADDRESS)),
        identifier(ECDSA_WITH_SHA384),
    )


def _many() -> bytes:
    oids = [identifier(NameOID.EMAIL_ADDRESS), identifier(NameOID.UNSTRUCTURED_NAME), identifier(ECDSA_WITH_SHA256)]
    return sequence(*oids, *(identifier(ObjectIdentifier(f"1.3.6.1.4.1.32473.5.{number}")) for number in range(500)))


OK = HTTPStatus.OK
ATTRIBUTES: Mapping[str, Form[tuple[HTTPStatus, bytes]]] = {
    "204": Form((HTTPStatus.NO_CONTENT, b"")),
    "404": Form((HTTPStatus.NOT_FOUND, b"")),
    "200 without a body": Form((OK, b"")),
    "empty SEQUENCE": Form((OK, sequence())),
    "bare identifiers, 500 of them unknown": Form((OK, _many())),
    "an attribute without a value": Form((OK, sequence(sequence(identifier(MAC_ADDRESS), b"\x31\x00")))),
    "an unknown attribute": Form((OK, sequence(attribute(MAC_ADDRESS, b"\x04\x06\x00\x11\x22\x33\x44\x55")))),
    "another kind of key": Form((OK, sequence(attribute(EC_PUBLIC_KEY, identifier(CURVE_384))))),
    "extensions": Form((OK, sequence(extension_request()))),
    "template": Form((OK, sequence(template(linked=False)))),
    "template and old form": Form((OK, sequence(template(linked=False), extension_request()))),
    "no list": Form((OK, b"\x04\x02hi"), usable=False),
    "broken": Form((OK, sequence(identifier(MAC_ADDRESS))[:-2]), usable=False),
    "a tower of lists": Form((OK, b"\x30\x80" * 5000), usable=False),
}
# With challengePassword, which means a link to the connection.
MAC_ADDRESS_EXAMPLE = (OK, _mac_address())
TEMPLATE_BESIDE_THE_LINK = (OK, sequence(identifier(CHALLENGE_PASSWORD), template(linked=False)))


# --- 202 (RFC 7030 4.2.3, RFC 9110 10.2.3): Retry-After, and how long a client waits then at least and at most


def _date(**ahead: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(**ahead), usegmt=True)


RETRY_AFTER: Mapping[str, tuple[Callable[[], str], timedelta, timedelta]] = {
    "seconds": (lambda: "600", timedelta(seconds=600), timedelta(seconds=600)),
    "a date": (lambda: _date(hours=2), timedelta(minutes=119), timedelta(minutes=121)),
    "nothing": (lambda: "", timedelta(minutes=1), timedelta(days=1)),
    "zero": (lambda: "0", timedelta(seconds=1), timedelta(days=1)),
    "a date in the past": (lambda: _date(days=-3), timedelta(seconds=1), timedelta(days=1)),
    "a hundred years": (lambda: "3155760000", timedelta(minutes=1), timedelta(days=1)),
    "a number without end": (lambda: "9" * 4000, timedelta(minutes=1), timedelta(days=1)),
    "negative": (lambda: "-5", timedelta(minutes=1), timedelta(days=1)),
    "a fraction": (lambda: "1.5", timedelta(minutes=1), timedelta(days=1)),
    "words": (lambda: "after lunch", timedelta(minutes=1), timedelta(days=1)),
}


# --- answers that are none (RFC 7030 4.2.3, 4.4.2)


def _plain_text(handler: OddHandler) -> None:
    handler.send(HTTPStatus.INTERNAL_SERVER_ERROR, {"Content-Type": "text/plain"}, b"database \x1b[2J gone\r\n")


def _oversized(handler: OddHandler) -> None:
    handler.send(OK, {"Content-Type": CERTS_ONLY}, b"A" * (BODY_LIMIT + 4))


def _oversized_text(handler: OddHandler) -> None:
    handler.send(HTTPStatus.BAD_REQUEST, {"Content-Type": "text/plain"}, b"no " * BODY_LIMIT)


def _cut(handler: OddHandler) -> None:
    handler.send_response(OK)
    handler.send_header("Content-Type", CERTS_ONLY)
    handler.send_header("Content-Length", "2000")
    handler.end_headers()
    handler.wfile.write(b"A" * 500)
    handler.cut()


def _silent(handler: OddHandler) -> None:
    time.sleep(0.2)
    handler.cut()


def _redirect(handler: OddHandler) -> None:
    handler.send(HTTPStatus.TEMPORARY_REDIRECT, {"Location": "https://elsewhere.example/.well-known/est/x"}, b"")


def _other_type(handler: OddHandler) -> None:
    handler.send(OK, {"Content-Type": "text/html"}, b"<html>Sign in to the guest network</html>")


def _generated(container: serialization.PrivateFormat) -> Callable[[OddHandler], None]:
    """The answer of serverkeygen, where nobody asked for it: a key in the first part, a certificate in the second."""

    def answer(handler: OddHandler) -> None:
        key = rsa.generate_private_key(65537, 2048)
        key_bytes = key.private_bytes(serialization.Encoding.DER, container, serialization.NoEncryption())
        certificate = handler.est.ca.issue(build(key, REQUEST))
        bag = pkcs7.serialize_certificates([certificate], serialization.Encoding.DER)
        parts = (("application/pkcs8", key_bytes), (CERTS_ONLY, bag))
        body = b"".join(
            f"--part\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\n".encode("ascii")
            + base64.encodebytes(content)
            for kind, content in parts
        )
        handler.send(OK, {"Content-Type": 'multipart/mixed; boundary="part"'}, body + b"--part--\r\n")

    return answer


ANSWERS: Mapping[str, Callable[[OddHandler], Any]] = {
    "an error in plain text": _plain_text,
    "an oversized body": _oversized,
    "an oversized error": _oversized_text,
    "a connection cut in the body": _cut,
    "a connection cut before the answer": _silent,
    "a redirect": _redirect,
    "the page of a guest network": _other_type,
    "a key made by the server": _generated(serialization.PrivateFormat.PKCS8),
    "a key made by the server, as PKCS#1": _generated(serialization.PrivateFormat.TraditionalOpenSSL),
}
