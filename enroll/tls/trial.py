"""A handshake with oneself: whether OpenSSL can really use a key that it has loaded.

There are tokens with which pkcs11-provider loads a key and then fails to sign. That is found out here, in memory, and
not at the CA. The certificates are made for the trial, so that neither the certificate of the device nor the clock has
a say in it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from enroll.certificates import pem
from enroll.errors import KeyStoreError, KeyStoreUnavailable
from enroll.keystore.base import PublicKey
from enroll.tls.token_provider import private_file

_ADDRESS = "127.0.0.1"  # in the certificate only
_ALWAYS = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))


def prove(key: PublicKey, load: Callable[[ssl.SSLContext, Path], None]) -> None:
    """Authenticate with a key at a server in this process.

    Args:
        key: The public half of the key.
        load: Has a context authenticate with the key and the certificate in a file.

    Raises:
        KeyStoreError: The key cannot be used like this.
    """
    server_key = ec.generate_private_key(ec.SECP256R1())
    server_certificate = _certificate(server_key.public_key(), "server", server_key)
    own = pem([_certificate(key, "client", server_key)]).decode("ascii")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anchor = pem([server_certificate]).decode("ascii")
    for context in (client, server):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=anchor)
    with private_file(f"{_pkcs8(server_key)}{anchor}") as path:
        server.load_cert_chain(path)
    with private_file(own) as path:
        load(client, path)
    try:
        _shake_hands(client, server)
    except ssl.SSLError as error:
        raise _failed(error) from error


def _shake_hands(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> None:
    """TLS 1.3 (RFC 8446 2): two flights of the client, and in between one of the server."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=_ADDRESS)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    client.do_handshake()
    server.do_handshake()


def _certificate(key: PublicKey, name: str, issuer: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    builder = x509.CertificateBuilder(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")]),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
        key,
        x509.random_serial_number(),
        *_ALWAYS,
    )
    constraints = x509.BasicConstraints(ca=name == "server", path_length=None)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(_ADDRESS))])
    builder = builder.add_extension(constraints, critical=True).add_extension(names, critical=False)
    return builder.sign(issuer, hashes.SHA256())


def _pkcs8(key: ec.EllipticCurvePrivateKey) -> str:
    form, encryption = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, encryption).decode("ascii")


def _failed(error: ssl.SSLError) -> KeyStoreError:
    return KeyStoreUnavailable(
        f"OpenSSL has loaded the key of the token and cannot use it ({error}).",
        remedy="Run: pip install 'scanseal[tls]'",
    )
