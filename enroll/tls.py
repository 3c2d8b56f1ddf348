"""TLS contexts of the client side: pinned anchors, TLS 1.2 or later, the certificate of this device where wanted."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from enroll.certificates import pem
from enroll.errors import ConfigurationError, KeyStoreError
from enroll.keystore.base import TlsKey


@dataclass(frozen=True)
class ClientIdentity:
    """What this side proves itself with.

    Args:
        chain_file: PEM: the certificate, then its intermediates.
        key: Its key, as `KeyStores.tls_key_file` gives it.
    """

    chain_file: Path
    key: TlsKey


def client_context(anchors: Iterable[x509.Certificate], identity: ClientIdentity | None = None) -> ssl.SSLContext:
    """A context that trusts the anchors and nothing else.

    A hospital's CA certificate may lack keyUsage and may be an intermediate: so X509_STRICT is off, on every Python,
    and an anchor need not be a root.

    Args:
        anchors: The pinned CA certificates.
        identity: For client authentication (RFC 7030 3.3.2).

    Raises:
        ConfigurationError: An anchor is of a kind that TLS cannot use.
        KeyStoreError: The key cannot be loaded, or the certificate is not for it.
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
        _load(context, identity)
    return context


def _load(context: ssl.SSLContext, identity: ClientIdentity) -> None:
    try:
        # The callback is always given: without one OpenSSL asks on the terminal and waits.
        context.load_cert_chain(identity.chain_file, identity.key.path, password=identity.key.passphrase)
    except (ssl.SSLError, OSError) as error:
        raise KeyStoreError(
            f"The key of {identity.chain_file} cannot be used for TLS: {error.strerror}.",
            remedy="Check that the key file belongs to the certificate.",
        ) from error
