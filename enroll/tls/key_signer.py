"""Any key for OpenSSL's TLS: its signatures are made by our key object.

The package sslcontext adds a provider to the OpenSSL that Python's `ssl` uses. The provider is written in Python, has
the public key of the certificate, and calls a signer for the private operation.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import sslcontext
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from enroll.errors import KeyStoreError, KeyStoreUnavailable, UnsupportedKey
from enroll.keystore.base import PrivateKey

_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


class KeySigner:
    """A key as sslcontext wants it.

    Args:
        key: The key; stays in its store.
    """

    def __init__(self, key: PrivateKey) -> None:
        self._key = key
        self._failure: KeyStoreError | None = None

    def sign(
        self,
        digest: bytes,
        *,
        hash: str,  # noqa: A002 - the name in the interface
        padding: sslcontext.Padding | None = None,
        salt_length: int | None = None,
    ) -> bytes:
        """The signature over a digest; see `sslcontext.Signer`.

        Raises:
            UnsupportedKey: Another hash than SHA-256, SHA-384 and SHA-512.
            KeyStoreError: The store cannot sign. OpenSSL cannot carry this error on; `take_failure` has it.
        """
        try:
            return self._sign(digest, hash, padding, salt_length)
        except KeyStoreError as error:
            self._failure = error
            raise

    def take_failure(self) -> KeyStoreError | None:
        """Why there was no signature since the last time."""
        failure, self._failure = self._failure, None
        return failure

    def _sign(self, digest: bytes, hash_: str, padding: sslcontext.Padding | None, salt_length: int | None) -> bytes:
        if hash_ not in _HASHES:
            raise UnsupportedKey("The server wants a signature over a hash that is not used.", remedy="Use SHA-256.")
        hashed_with = _HASHES[hash_]
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(digest, ec.ECDSA(Prehashed(hashed_with)))
        if padding is sslcontext.Padding.PSS:
            salt = hashed_with.digest_size if salt_length is None else salt_length
            return self._key.sign(digest, PSS(MGF1(hashed_with), salt), Prehashed(hashed_with))
        return self._key.sign(digest, PKCS1v15(), Prehashed(hashed_with))


def check() -> str:
    """Find out whether a key can be loaded in this way, with one that is made for it.

    Returns:
        The name and version of the package.

    Raises:
        KeyStoreUnavailable: It does not get on with this Python and its OpenSSL.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    moment = datetime(2000, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    builder = builder.public_key(key.public_key()).not_valid_before(moment).not_valid_after(moment)
    try:
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), [builder.sign(key, hashes.SHA256())], key)
    except sslcontext.SSLContextError as error:
        raise KeyStoreUnavailable(
            f"sslcontext {sslcontext.__version__} does not work with this Python: {error}.",
            remedy="Use a Python that loads OpenSSL 3 as a library, such as that of the distribution.",
        ) from error
    return f"sslcontext {sslcontext.__version__}"


def load(context: ssl.SSLContext, chain: Sequence[x509.Certificate], key: PrivateKey) -> KeySigner:
    """Have a context authenticate with a key.

    Args:
        context: Not in use yet.
        chain: The certificate of the key, then its intermediates.
        key: Signs once for each handshake.

    Returns:
        What knows why the key did not sign.

    Raises:
        KeyStoreError: OpenSSL does not take the certificate.
    """
    # It would show a traceback of what the signer raises, and that is raised again after the handshake.
    logging.getLogger(sslcontext.__name__).setLevel(logging.ERROR)
    try:
        return _load(context, chain, key)
    except sslcontext.SSLContextError as error:
        raise KeyStoreError(f"TLS cannot use the key: {error}.", remedy="Enroll again.") from error


def _load(context: ssl.SSLContext, chain: Sequence[x509.Certificate], key: PrivateKey) -> KeySigner:
    signer = KeySigner(key)
    certificate, *issuers = (one.public_bytes(serialization.Encoding.DER) for one in chain)
    sslcontext.load_identity(context, sslcontext.Identity(certificate, signer, tuple(issuers)))
    return signer
