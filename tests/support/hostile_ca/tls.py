"""TLS before any question is asked."""

from __future__ import annotations

import os
import socket
import ssl
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from enroll.clock import SystemClock
from enroll.errors import HOSPITAL_IT, ServerUnreachable
from enroll.flows.settings import FlowName
from enroll.keystore.base import PrivateKey
from tests.support.hostile_ca.certifying import ECDSA_WITH_SHA_1, LIFETIME, MARGIN, armoured, der_of, resigned
from tests.support.hostile_ca.misbehaviour import NETWORK, Conduct, Expected, Greeting, Layer, Misbehaviour, Tls
from tests.support.pki import HospitalCa, name, new_key
from tests.support.scripted_server import LOOPBACK

_UNREACHABLE = Expected(ServerUnreachable, "server-unreachable", HOSPITAL_IT)
_IMPOSTOR = HospitalCa("Hospital CA")  # the same name, another key
_HANDSHAKE_RECORD = b"\x16\x03\x03"  # RFC 8446 5.1


def _case(
    title: str,
    clause: str,
    what: str,
    conduct: Tls | Conduct,
    expected: Expected = _UNREACHABLE,
    *,
    flows: tuple[FlowName, ...] = NETWORK,
) -> Misbehaviour:
    """One entry."""
    done = conduct if isinstance(conduct, Conduct) else Conduct(tls=conduct)
    return Misbehaviour(title, clause, what, expected, done, flows)


def _greets(greeting: Greeting) -> Conduct:
    return Conduct(greeting=greeting)


def _context(folder: Path, chain: bytes, key: PrivateKey) -> ssl.SSLContext:
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / f"server-{os.urandom(8).hex()}.pem"
    file.write_bytes(chain + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(file)
    return context


def _issued(ca: HospitalCa, key: PrivateKey, **changes: Any) -> x509.Certificate:
    """The right certificate of the server, with changes; a time span counts from now."""
    now = SystemClock().now()
    content: dict[str, Any] = {
        "subject": name(COMMON_NAME="CA server"),
        "alternative_names": LOOPBACK,
        "extended_usage": [ExtendedKeyUsageOID.SERVER_AUTH],
        "begin": -MARGIN,
        "end": LIFETIME,
        **changes,
    }
    dated: dict[str, Any] = {k: now + v if isinstance(v, timedelta) else v for k, v in content.items()}
    return ca.issue(key.public_key(), **dated)


def _shows(issuer: HospitalCa | None = None, key: Callable[[], PrivateKey] = new_key, **changes: Any) -> Tls:
    def tls(ca: HospitalCa, folder: Path) -> ssl.SSLContext:
        own = key()
        return _context(folder, armoured("CERTIFICATE", der_of(_issued(issuer or ca, own, **changes))), own)

    return tls


def _speaks(change: Callable[[ssl.SSLContext], None]) -> Tls:
    def tls(ca: HospitalCa, folder: Path) -> ssl.SSLContext:
        context = _shows()(ca, folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old versions, which is the point
            change(context)
        return context

    return tls


def _old(version: ssl.TLSVersion) -> Callable[[ssl.SSLContext], None]:
    def change(context: ssl.SSLContext) -> None:
        context.minimum_version = context.maximum_version = version

    return change


def _ciphers(names: str) -> Callable[[ssl.SSLContext], None]:
    def change(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(names)

    return change


def _wants_a_certificate_of_its_own(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED


def _sha_1(ca: HospitalCa, folder: Path) -> ssl.SSLContext:
    key = new_key()
    return _context(
        folder, armoured("CERTIFICATE", resigned(_issued(ca, key), ca.key, algorithm=ECDSA_WITH_SHA_1)), key
    )


def _self_signed(_: HospitalCa, folder: Path) -> ssl.SSLContext:
    itself = HospitalCa("127.0.0.1", alternative_names=LOOPBACK)
    return _context(folder, armoured("CERTIFICATE", der_of(itself.certificate)), itself.key)


def _without_intermediate(ca: HospitalCa, folder: Path) -> ssl.SSLContext:
    return _shows(HospitalCa("Server CA", ca))(ca, folder)


def _crowd(ca: HospitalCa, folder: Path) -> ssl.SSLContext:
    key = new_key()
    chain = armoured("CERTIFICATE", der_of(_issued(ca, key)))
    return _context(folder, chain + armoured("CERTIFICATE", der_of(ca.certificate)) * 500, key)


def _says(data: bytes) -> Greeting:
    def greeting(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(data)

    return greeting


def _hangs_up(connection: socket.socket) -> None:
    connection.recv(1)


def _says_nothing(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def _byte_by_byte(connection: socket.socket) -> None:
    connection.recv(4096)
    for byte in _HANDSHAKE_RECORD + b"\x40\x00\x02\x00\x3f\xfc" + bytes(20):
        connection.sendall(bytes([byte]))
        time.sleep(0.2)


def _rsa_1024() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)  # noqa: S505 - to be refused


_VERSION = replace(_UNREACHABLE, code="tls-version-refused")
_DAY = timedelta(days=1)
LAYER = Layer(
    "TLS",
    (
        _case(
            "tls-1.0",
            "RFC 8996 4",
            "It speaks TLS 1.0 and nothing newer.",
            _speaks(_old(ssl.TLSVersion.TLSv1)),
            _VERSION,
        ),
        _case(
            "tls-1.1",
            "RFC 8996 5",
            "It speaks TLS 1.1 and nothing newer.",
            _speaks(_old(ssl.TLSVersion.TLSv1_1)),
            _VERSION,
        ),
        _case(
            "downgrade-by-alert",
            "RFC 7507 3",
            "It refuses the version, so that the client may try an older one.",
            _greets(_says(b"\x15\x03\x01\x00\x02\x02\x46")),
            _VERSION,
        ),
        _case(
            "no-encryption",
            "RFC 9325 4.1",
            "It offers ciphers that encrypt nothing.",
            _speaks(_ciphers("eNULL:@SECLEVEL=0")),
        ),
        _case(
            "anonymous",
            "RFC 9325 4.1",
            "It offers ciphers without a certificate.",
            _speaks(_ciphers("aNULL:@SECLEVEL=0")),
        ),
        _case(
            "no-tls",
            "RFC 7030 3.3",
            "It speaks HTTP without TLS on the port.",
            _greets(_says(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
        ),
        _case(
            "garbage-for-tls",
            "RFC 8446 5.1",
            "It answers the handshake with garbage.",
            _greets(_says(bytes(range(256)) * 16)),
        ),
        _case("hangs-up-at-once", "RFC 8446 6.1", "It closes the connection in the handshake.", _greets(_hangs_up)),
        _case(
            "silent-handshake",
            "RFC 8446 4",
            "It never answers the handshake.",
            _greets(_says_nothing),
            flows=(FlowName.EST,),
        ),
        _case(
            "handshake-byte-by-byte",
            "RFC 8446 4",
            "The handshake comes byte by byte, for ever.",
            _greets(_byte_by_byte),
            flows=(FlowName.CMP,),
        ),
        _case(
            "impostor", "RFC 9525 6", "A server of a foreign CA of the same name poses as the CA.", _shows(_IMPOSTOR)
        ),
        _case(
            "self-signed-server", "RFC 7030 3.6.1", "The certificate of the server vouches for itself.", _self_signed
        ),
        _case(
            "another-host",
            "RFC 9525 6.1",
            "The server shows the certificate of another host.",
            _shows(alternative_names=[x509.DNSName("pacs.hospital.example")]),
        ),
        _case(
            "address-in-the-common-name",
            "RFC 9525 6.3",
            "Only the common name of the server is right.",
            _shows(alternative_names=(), subject=name(COMMON_NAME="127.0.0.1")),
        ),
        _case(
            "address-as-host-name",
            "RFC 9525 6.3",
            "The address stands among the host names.",
            _shows(alternative_names=[x509.DNSName("127.0.0.1")]),
        ),
        _case(
            "scanner-as-server",
            "RFC 5280 4.2.1.12",
            "Another scanner poses as the CA, with its own certificate.",
            _shows(extended_usage=[ExtendedKeyUsageOID.CLIENT_AUTH]),
        ),
        _case(
            "server-certificate-over",
            "RFC 5280 6.1.3",
            "The certificate of the server is over.",
            _shows(begin=-2 * _DAY, end=-_DAY),
        ),
        _case(
            "server-certificate-not-begun",
            "RFC 5280 6.1.3",
            "The certificate of the server begins tomorrow.",
            _shows(begin=_DAY, end=2 * _DAY),
        ),
        _case(
            "server-with-rsa-1024",
            "RFC 9325 4.5",
            "The key of the server is an RSA key of 1024 bits.",
            _shows(key=_rsa_1024),
        ),
        _case("server-with-sha-1", "RFC 9155 1", "The certificate of the server is signed with SHA-1.", _sha_1),
        _case(
            "server-intermediate-missing",
            "RFC 8446 4.4.2",
            "The server leaves out its intermediate CA.",
            _without_intermediate,
        ),
        _case("handshake-of-200-kib", "RFC 8446 4.4.2", "It sends 500 certificates in the handshake.", _crowd),
        _case(
            "wants-another-client",
            "RFC 8446 4.4.2.4",
            "It takes no certificate that the scanner has.",
            _speaks(_wants_a_certificate_of_its_own),
        ),
    ),
)
