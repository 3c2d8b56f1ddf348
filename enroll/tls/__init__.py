"""TLS contexts of the client side: pinned anchors, TLS 1.2 or later, the certificate of this device where wanted.

A key authenticates this device without leaving its store, on one of these routes:

    key-file           a file, which OpenSSL reads itself
    openssl-provider   a key of a token: OpenSSL signs with it through pkcs11-provider, a system package
    sslcontext         any other key, and a key of a token where there is no such provider: OpenSSL calls our key object

`tls_route` says which one it is, and why, without a connection and without a key. Once chosen there is no other: an
error of the route is the error of the connection.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cryptography import x509

from enroll.certificates import pem, public_key_info
from enroll.config import Pkcs11StoreSettings, StoreName
from enroll.errors import (
    ConfigurationError,
    KeyMismatch,
    KeyNotFound,
    KeyStoreError,
    KeyStoreUnavailable,
)
from enroll.keystore.base import KeyFile, TlsKey
from enroll.tls import token_provider

_MISMATCHES = {"KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}  # the second one where a provider has the key


class RouteName(StrEnum):
    """The ways by which a key authenticates a TLS client."""

    KEY_FILE = "key-file"
    PROVIDER = "openssl-provider"
    SIGNER = "sslcontext"
    NONE = "none"


@dataclass(frozen=True)
class TlsRoute:
    """How the keys of a store authenticate a TLS client on this machine.

    Args:
        name: Which way it is.
        reason: Why this one, in one or two sentences.
        remedy: What to do where there is none.
    """

    name: RouteName
    reason: str
    remedy: str = ""


@dataclass(frozen=True)
class ClientIdentity:
    """What this side proves itself with.

    Args:
        chain_file: PEM: the certificate, then its intermediates.
        key: Its key, as `KeyStores.tls_key` gives it.
    """

    chain_file: Path
    key: TlsKey


def client_context(anchors: Iterable[x509.Certificate], identity: ClientIdentity | None = None) -> ssl.SSLContext:
    """A context that trusts the anchors and nothing else.

    A hospital's CA certificate may lack keyUsage and may be an intermediate: so X509_STRICT is off, on every Python,
    and an anchor need not be a root.

    The key is loaded once, here. One thread at a time may use the context: with pkcs11-provider, OpenSSL 3.0 has the
    token verify signatures of the server as well, which fails now and then where several do so at once.

    Args:
        anchors: The pinned CA certificates.
        identity: For client authentication (RFC 7030 3.3.2).

    Raises:
        ConfigurationError: An anchor is of a kind that TLS cannot use.
        KeyMismatch: The certificate is not for this key.
        KeyNotFound: The key is gone.
        KeyStoreUnavailable: Nothing on this machine lets TLS use such a key; `tls_route` says why.
        KeyStoreError: The key cannot be loaded.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False  # RFC 9525 6.3: only the alternative names count
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        # PEM, because its end leaves a mark in OpenSSL's queue of errors. At the end of DER, Python takes an error that
        # the library of a token left there for ours.
        context.load_verify_locations(cadata=pem(tuple(anchors)).decode("ascii"))
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"The CA certificate cannot be used for TLS: {error.reason}.", remedy="Check [est] anchor_file."
        ) from error
    if identity is not None:
        _load(context, identity.chain_file, identity.key)
    return context


def tls_route(store: StoreName, token: Pkcs11StoreSettings | None = None) -> TlsRoute:
    """How the keys of a store authenticate a TLS client on this machine; opens no token and no connection.

    Args:
        store: Where the key lives.
        token: For a key in a token, its settings as `token_settings` gives them.
    """
    if store is StoreName.SOFTWARE:
        return TlsRoute(RouteName.KEY_FILE, "OpenSSL reads the key file.")
    missing: list[KeyStoreUnavailable] = []
    if token is not None:
        try:
            module = token_provider.activate(token)
            return TlsRoute(RouteName.PROVIDER, f"OpenSSL signs with the token through {module}.")
        except KeyStoreUnavailable as error:
            missing.append(error)
    try:
        version = _check_signer()
    except KeyStoreUnavailable as error:
        missing.append(error)
        return TlsRoute(RouteName.NONE, " ".join(e.what for e in missing), " Or: ".join(e.remedy for e in missing))
    found = f"OpenSSL calls the key through sslcontext {version}."
    return TlsRoute(RouteName.SIGNER, " ".join([*(e.what for e in missing), found]))


def _check_signer() -> str:
    try:
        # sslcontext is an optional extra.
        from enroll.tls import key_signer  # noqa: PLC0415
    except ImportError as error:
        raise KeyStoreUnavailable("sslcontext is not installed.", remedy="Run: pip install 'scanseal[tls]'") from error
    return key_signer.check()


def _load(context: ssl.SSLContext, chain_file: Path, key: TlsKey) -> None:
    chain = _certificates(chain_file)
    if isinstance(key, KeyFile):
        _load_files(context, chain_file, key.path, key.passphrase)
        return
    if public_key_info(chain[0].public_key()) != public_key_info(key.key.public_key()):
        raise _mismatch(chain_file)
    route = tls_route(StoreName(key.uri.partition(":")[0]), key.token)
    if route.name is RouteName.NONE:
        raise KeyStoreUnavailable(
            f"TLS cannot use the key of {chain_file}. {route.reason}", remedy=route.remedy, code="tls-route-missing"
        )
    if route.name is RouteName.PROVIDER:
        with token_provider.key_file(key.uri) as key_file:
            _load_files(context, chain_file, key_file, token_provider.no_pin)
    else:
        from enroll.tls import key_signer  # noqa: PLC0415 - see `_check_signer`

        key_signer.load(context, chain, key.key)


def _load_files(context: ssl.SSLContext, chain_file: Path, key_file: Path, passphrase: Callable[[], bytes]) -> None:
    try:
        # The callback is always given: without one OpenSSL asks on the terminal and waits.
        context.load_cert_chain(chain_file, key_file, password=passphrase)
    except ssl.SSLError as error:
        if error.reason in _MISMATCHES:
            raise _mismatch(chain_file) from error
        raise _unusable(chain_file, error.reason or str(error)) from error
    except FileNotFoundError as error:
        # Also what a provider says of a key that is not in its token.
        raise KeyNotFound(f"The key of {chain_file} is gone.", remedy="Restore it, or enroll again.") from error
    except OSError as error:
        raise _unusable(chain_file, error.strerror or str(error)) from error


def _certificates(chain_file: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(chain_file.read_bytes())
    except (OSError, ValueError) as error:
        raise _unusable(chain_file, "there is no certificate in it") from error


def _unusable(chain_file: Path, reason: str) -> KeyStoreError:
    return KeyStoreError(
        f"The key of {chain_file} cannot be used for TLS: {reason}.",
        remedy="Check that the key is there and belongs to the certificate.",
    )


def _mismatch(chain_file: Path) -> KeyMismatch:
    return KeyMismatch(
        f"The key is not that of the certificate in {chain_file}.",
        remedy="Restore the key that belongs to the certificate, or enroll again.",
    )
