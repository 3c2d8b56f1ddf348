"""TLS contexts of the client side: pinned anchors, TLS 1.2 or later, the certificate of this device where wanted.

A key authenticates this device without leaving its store, on one of these routes:

    key-file           a file, which OpenSSL reads itself
    openssl-provider   a key of a token: OpenSSL signs with it through pkcs11-provider, a system package
    sslcontext         any other key, and a key of a token where pkcs11-provider is missing or fails in a trial:
                       OpenSSL calls our key object

`tls_route` says what there is on this machine, without a connection and without a key. The trial with the key itself is
made by `client_context`; afterwards there is no other route: an error of the route is the error of the connection.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryptography import x509

from enroll.certificates import check_pair, pem, public_key_info
from enroll.config import Pkcs11StoreSettings, StoreName
from enroll.errors import (
    ConfigurationError,
    KeyMismatch,
    KeyNotFound,
    KeyStoreError,
    KeyStoreUnavailable,
    PinRefused,
)
from enroll.keystore.base import KeyFile, PrivateKey, StoredKey, TlsKey
from enroll.tls import token_provider, trial
from enroll.tls.connection import ClientContext, RouteName

__all__ = ["ClientIdentity", "RouteName", "TlsRoute", "client_context", "tls_route"]

_LOG = logging.getLogger(__name__)
_MISMATCHES = {"KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}  # the second one where a provider has the key
_INSIDE_OPENSSL = {None, "EVP_LIB"}  # before Python has a name for it, and after
_OF_THE_KEY = (KeyMismatch, KeyNotFound, PinRefused)  # another route would not help, or send the PIN again


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


def client_context(anchors: Iterable[x509.Certificate], identity: ClientIdentity | None = None) -> ClientContext:
    """A context that trusts the anchors and nothing else.

    A hospital's CA certificate may lack keyUsage and may be an intermediate: so X509_STRICT is off, on every Python,
    and an anchor need not be a root.

    The key is loaded here, by one thread. Then several may use the context.

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
    context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
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
            f"The CA certificate cannot be used for TLS: {error.reason}.",
            remedy="Check anchor_file, from which it comes.",
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
    signer = _attempt(_check_signer)
    others = [] if isinstance(signer, str) else [signer]
    if token is not None:
        provider = _attempt(partial(token_provider.activate, token))
        if isinstance(provider, str):
            return TlsRoute(RouteName.PROVIDER, _with_trial(provider, signer))
        others.insert(0, provider)
    if isinstance(signer, str):
        reasons = [*(error.what for error in others), f"OpenSSL calls the key through {signer}."]
        return TlsRoute(RouteName.SIGNER, " ".join(reasons))
    return TlsRoute(RouteName.NONE, " ".join(e.what for e in others), " Or: ".join(e.remedy for e in others))


def _attempt(find: Callable[[], str]) -> str | KeyStoreUnavailable:
    try:
        return find()
    except KeyStoreUnavailable as error:
        return error


def _with_trial(provider: str, signer: str | KeyStoreUnavailable) -> str:
    found = f"OpenSSL signs with the token through {provider}, if that stands a trial before the first connection."
    if isinstance(signer, str):
        return f"{found} Otherwise it calls the key through {signer}."
    return f"{found} Otherwise there is no other way: {signer.what}"


def _check_signer() -> str:
    try:
        # sslcontext is an optional extra.
        from enroll.tls import key_signer  # noqa: PLC0415
    except ImportError as error:
        raise KeyStoreUnavailable("sslcontext is not installed.", remedy="Run: pip install 'scanseal[tls]'") from error
    return key_signer.check()


def _load(context: ClientContext, chain_file: Path, key: TlsKey) -> None:
    chain = _certificates(chain_file)
    if isinstance(key, KeyFile):
        _load_files(context, chain_file, key.path, key.passphrase)
        context.route = RouteName.KEY_FILE
        return
    if public_key_info(chain[0].public_key()) != public_key_info(key.key.public_key()):
        raise _mismatch(chain_file)
    route = tls_route(StoreName(key.uri.partition(":")[0]), key.token)
    if route.name is RouteName.NONE:
        raise _no_route(chain_file, route.reason, route.remedy)
    if route.name is RouteName.SIGNER or not _load_by_provider(context, chain_file, chain[0], key):
        _load_by_signer(context, chain, key.key)


def _load_by_provider(context: ClientContext, chain_file: Path, certificate: x509.Certificate, key: StoredKey) -> bool:
    """Whether OpenSSL can use the key of a token by itself."""
    try:
        with token_provider.key_file(key.uri) as key_file:
            load = partial(_load_files, key_file=key_file, passphrase=token_provider.no_pin)
            load(context, chain_file)
            trial.prove(key.key.public_key(), load)
    except _OF_THE_KEY:
        raise
    except KeyStoreError as error:
        signer = _attempt(_check_signer)
        if not isinstance(signer, str):
            raise _no_route(chain_file, f"{error.what} {signer.what}", signer.remedy) from error
        _LOG.warning("TLS calls the key through %s. %s", signer, error.what)
        return False
    context.route = RouteName.PROVIDER
    context.failure_of_key = partial(_failure_of_token, key.key, certificate)
    return True


def _load_by_signer(context: ClientContext, chain: Sequence[x509.Certificate], key: PrivateKey) -> None:
    from enroll.tls import key_signer  # noqa: PLC0415 - see `_check_signer`

    signer = key_signer.load(context, chain, key)
    context.route = RouteName.SIGNER
    context.failure_of_key = lambda _: signer.take_failure()


def _failure_of_token(key: PrivateKey, certificate: x509.Certificate, error: ssl.SSLError) -> KeyStoreError | None:
    """What is the matter with a token where a handshake ended inside OpenSSL, which does not say."""
    if type(error) is not ssl.SSLError or error.reason not in _INSIDE_OPENSSL:
        return None
    try:
        check_pair(key, certificate)
    except KeyStoreError as failure:
        return failure
    return KeyStoreUnavailable(
        f"The token failed in the hands of OpenSSL, and signs otherwise ({error}).",
        remedy="Try again. If it goes on, remove pkcs11-provider and run: pip install 'scanseal[tls]'",
    )


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


def _no_route(chain_file: Path, reason: str, remedy: str) -> KeyStoreUnavailable:
    what = f"TLS cannot use the key of {chain_file}. {reason}"
    return KeyStoreUnavailable(what, remedy=remedy, code="tls-route-missing")


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
