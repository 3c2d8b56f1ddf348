"""A CMP server: `openssl cmp` behind a door that gives it the certificate for each request.

The mock server of OpenSSL parses and verifies what it gets, and signs what it answers, but it always returns the
certificate of its option -rsp_cert. So the door reads the key and the names from each request (with pyasn1, which
shares no code with the product), has the CA issue that certificate, and starts openssl anew with it. What goes through
the door is not changed, unless a test wants that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID, ObjectIdentifier
from pyasn1.codec.der import decoder, encoder
from pyasn1_alt_modules import rfc9810

from enroll import der
from enroll.certificates import pem
from enroll.clock import SystemClock
from enroll.keystore.base import PublicKey
from tests.support.peer_in_namespace import Peer, need_peer
from tests.support.pki import Content, HospitalCa, certify, name, new_key

CMC_RA = ObjectIdentifier("1.3.6.1.5.5.7.3.28")  # RFC 6402 2.10

REQUESTS = ("ir", "cr", "kur", "p10cr")


@dataclass(frozen=True)
class Asked:
    """What a request asks for, as the door read it; what it renews by issuer and serial number."""

    public_key: PublicKey
    subject: x509.Name
    extensions: x509.Extensions
    renews: tuple[x509.Name, int] | None = None


class CmpServer:
    """The door, and openssl behind it; `cmp_server` makes one.

    Args:
        folder: For keys and certificates.
        ca: Issues; also the certificate of the server.
        devices: The CAs whose certificates may sign requests.
    """

    def __init__(self, folder: Path, ca: HospitalCa, devices: Sequence[x509.Certificate]) -> None:
        self.ca = ca
        self.folder = folder
        self.options: list[str] = []
        self.issue: Callable[[Asked], x509.Certificate] = self.as_asked
        self.issued: list[x509.Certificate] = []
        self.requests: list[bytes] = []
        self.bodies: list[str] = []
        self.rewrite: Callable[[bytes], bytes] = lambda answer: answer
        key = new_key()
        title = name(COMMON_NAME="CMP server")
        content = Content(
            subject=title,
            alternative_names=(),
            extended_usage=(CMC_RA,),
            begin=_begin(),
            end=_begin() + timedelta(days=365),
        )
        self.certificate = ca.issue(key.public_key(), content)
        (folder / "server.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        (folder / "server.pem").write_bytes(pem([self.certificate]))
        (folder / "ca.pem").write_bytes(pem([ca.certificate]))
        (folder / "devices.pem").write_bytes(pem(devices))
        self._peer: Peer | None = None
        self._one_at_a_time = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _door(self))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        """Of the door."""
        return f"http://127.0.0.1:{self._http.server_port}/.well-known/cmp"

    def start(self) -> None:
        """Open the door."""
        self._thread.start()

    def stop(self) -> None:
        """Close the door, and end openssl."""
        if self._thread.is_alive():
            self._http.shutdown()
            self._http.server_close()
            self._thread.join()
        with self._one_at_a_time:
            self.restart()

    def restart(self) -> None:
        """Openssl forgets its transactions."""
        if self._peer is not None:
            self._peer.close()
            self._peer = None

    def answer(self, message: bytes) -> tuple[int, bytes]:
        """HTTP status and answer of openssl to a message."""
        parsed = parsed_message(message)
        body = parsed["body"].getName()
        # A client that has gone away and asks anew finds its first question still at work.
        with self._one_at_a_time:
            self.requests.append(message)
            self.bodies.append(body)
            if body in REQUESTS:
                self.restart()
                self.issued.append(self.issue(asked(parsed)))
            if self._peer is None:
                self._peer = Peer("tests.support.cmp_peer", self._command())
            status, answer = self._peer.ask(message)
        return status, self.rewrite(answer)

    def as_asked(self, asked: Asked) -> x509.Certificate:
        """A certificate with everything that is asked for."""
        values = {type(extension.value): extension.value for extension in asked.extensions}
        names: Any = values.get(x509.SubjectAlternativeName, ())
        usage: Any = values[x509.ExtendedKeyUsage]
        content = Content(
            subject=asked.subject,
            alternative_names=tuple(names),
            extended_usage=tuple(usage),
            begin=_begin(),
            end=_begin() + timedelta(days=365),
        )
        if asked.renews is None:
            return self.ca.issue(asked.public_key, content)
        # OpenSSL 3.0 renews no other certificate than the one it returns: it compares serial number and issuer with
        # oldCertID. So the new one has the same serial number, and its issuer another case (RFC 5280 7.1: the same).
        issuer, serial = asked.renews
        (title,) = issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
        other_case = name(COMMON_NAME=str(title.value).swapcase())
        return certify(replace(content, serial=serial), asked.public_key, other_case, self.ca.key)

    def _command(self) -> list[str]:
        response = self.folder / "response.pem"
        if self.issued:
            response.write_bytes(pem([self.issued[-1]]))
        files = {
            "-srv_cert": "server.pem",
            "-srv_key": "server.key",
            "-srv_trusted": "devices.pem",
            "-srv_untrusted": "ca.pem",
            "-rsp_capubs": "ca.pem",
            **({"-rsp_cert": "response.pem"} if self.issued else {}),
        }
        options = [part for option, file in files.items() for part in (option, str(self.folder / file))]
        return [*options, *self.options]


@contextmanager
def cmp_server(folder: Path, ca: HospitalCa, devices: Sequence[x509.Certificate], *options: str) -> Iterator[CmpServer]:
    """A running server.

    Args:
        folder: For it alone; is made.
        ca: Issues.
        devices: The CAs whose certificates may sign requests.
        options: More of `openssl cmp`.
    """
    need_peer("openssl", "openssl")
    folder.mkdir()
    server = CmpServer(folder, ca, devices)
    server.options = list(options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _begin() -> datetime:
    """When a certificate begins. openssl has no other clock than the one of the machine."""
    return SystemClock().now().replace(microsecond=0) - timedelta(minutes=5)


def parsed_message(message: bytes) -> Any:
    """A PKIMessage, by a parser that shares no code with the product."""
    parsed, rest = decoder.decode(message, asn1Spec=rfc9810.PKIMessage())
    assert not rest
    return parsed


def asked(message: Any) -> Asked:
    """What a PKIMessage asks for."""
    body = message["body"].getName()
    if body == "p10cr":
        signed = x509.load_der_x509_csr(_unwrapped(encoder.encode(message["body"]["p10cr"])))
        assert signed.is_signature_valid
        return Asked(_public_key(signed.public_key()), signed.subject, signed.extensions)
    return parsed_template(message["body"][body][0])


def parsed_template(message: Any) -> Asked:
    """What a CertReqMsg asks for (RFC 4211 3)."""
    request = message["certReq"]
    template = request["certTemplate"]
    subject = encoder.encode(template["subject"]["rdnSequence"])
    signed = x509.load_der_x509_csr(_pkcs10_of(template, subject))
    return Asked(_public_key(signed.public_key()), signed.subject, signed.extensions, _renewed(request))


def _renewed(request: Any) -> tuple[x509.Name, int] | None:
    if not request["controls"].isValue:
        return None
    (control,) = request["controls"]
    assert str(control["type"]) == str(rfc9810.rfc4211.id_regCtrl_oldCertID)
    old, rest = decoder.decode(bytes(control["value"]), asn1Spec=rfc9810.rfc4211.OldCertId())
    assert not rest
    issuer = encoder.encode(old["issuer"]["directoryName"]["rdnSequence"])
    # Any request with this subject: `cryptography` reads names as parts of something only.
    key = encoder.encode(request["certTemplate"]["publicKey"])
    return x509.load_der_x509_csr(_pkcs10(issuer, key)).subject, int(old["serialNumber"])


def _pkcs10_of(template: Any, subject: bytes) -> bytes:
    key, extensions = (encoder.encode(template[part]) for part in ("publicKey", "extensions"))
    wanted = der.encode(0x31, _retagged(extensions))
    attribute = der.encode(der.SEQUENCE, der.object_identifier("1.2.840.113549.1.9.14") + wanted)
    return _pkcs10(subject, key, attribute)


def _pkcs10(subject: bytes, key: bytes, attribute: bytes = b"") -> bytes:
    """A PKCS#10 with parts of a template and a signature of nothing: `cryptography` reads it."""
    content = b"\x02\x01\x00" + subject + _retagged(key) + der.encode(0xA0, attribute)
    algorithm = der.encode(der.SEQUENCE, der.object_identifier("1.2.840.10045.4.3.2"))
    return der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, content) + algorithm + der.encode(0x03, b"\x00"))


def _unwrapped(explicit: bytes) -> bytes:
    """What an EXPLICIT tag is around."""
    return explicit[2 + (explicit[1] & 0x7F if explicit[1] & 0x80 else 0) :]


def _retagged(implicit: bytes) -> bytes:
    """A SEQUENCE whose tag was replaced by IMPLICIT."""
    return bytes([der.SEQUENCE]) + implicit[1:]


def _public_key(key: object) -> PublicKey:
    assert isinstance(key, PublicKey)
    return key


def _door(server: CmpServer) -> type[BaseHTTPRequestHandler]:
    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = self.rfile.read(int(self.headers["Content-Length"]))
            status, answer = server.answer(message)
            self.send_response(status)
            self.send_header("Content-Type", "application/pkixcmp")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    return Door
