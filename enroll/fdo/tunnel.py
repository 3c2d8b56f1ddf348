"""The encrypted part of TO2: its keys and its messages: FDO 1.1, 3.6.4, 4.4 and 4.5.

AES-CBC and AES-CTR with a separate HMAC are off unless they are asked for: no two implementations agree on them. What
is written and read here is what go-fdo writes and reads.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol, TypeAlias

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode
from cryptography.hazmat.primitives.padding import PKCS7

from enroll.fdo import cbor
from enroll.fdo.cose import ALGORITHM
from enroll.fdo.fault import ErrorCode, Fault
from enroll.fdo.key_exchange import SharedSecret

ENCRYPT0_TAG, MAC0_TAG = 16, 17  # RFC 9052 2
IV_HEADER = 5  # RFC 9052 3.1

Random: TypeAlias = Callable[[int], bytes]


class CipherSuite(IntEnum):
    """The suites: FDO 1.1, 4.4."""

    A128GCM = 1
    A256GCM = 3
    AES_CCM_64_128_128 = 32
    AES_CCM_64_128_256 = 33
    AES128_CBC = -17760703
    AES128_CTR = -17760704
    AES256_CBC = -17760705
    AES256_CTR = -17760706


USUAL_SUITES = frozenset(
    {CipherSuite.A128GCM, CipherSuite.A256GCM, CipherSuite.AES_CCM_64_128_128, CipherSuite.AES_CCM_64_128_256}
)


class Tunnel(Protocol):
    """Both directions of a session."""

    def encrypt(self, plaintext: bytes) -> bytes:
        """The body of a message."""

    def decrypt(self, body: bytes) -> bytes:
        """What is in a body.

        Raises:
            Fault: It is not of this session, or of another suite.
        """


def open_tunnel(suite: CipherSuite, shared: SharedSecret, random: Random = secrets.token_bytes) -> Tunnel:
    """The tunnel of a session.

    Args:
        suite: As message 60 asked for.
        shared: What the key exchange agreed on.
        random: Makes initialization vectors.
    """
    if suite in _AUTHENTICATED:
        authenticated = _AUTHENTICATED[suite]
        key = _derive(shared, authenticated.key_size, hashes.SHA256())
        vectors = _InitializationVectors(authenticated.iv_size, random)
        return _AuthenticatedTunnel(suite, authenticated.cipher(key), vectors)
    composed = _COMPOSED[suite]
    keys = _derive(shared, composed.key_size + composed.mac_key_size, composed.hash)
    vectors = _InitializationVectors(_BLOCK, random)
    return _ComposedTunnel(composed, keys[: composed.key_size], keys[composed.key_size :], vectors)


def _derive(shared: SharedSecret, size: int, algorithm: hashes.HashAlgorithm) -> bytes:
    """SP 800-108 4.1 in counter mode, with the labels of FDO 1.1, 3.6.4."""
    derivation = KBKDFHMAC(
        algorithm=algorithm,
        mode=Mode.CounterMode,
        length=size,
        rlen=1,
        llen=2,
        location=CounterLocation.BeforeFixed,
        label=b"FIDO-KDF",
        context=b"AutomaticOnboardTunnel" + shared.context,
        fixed=None,
    )
    return derivation.derive(shared.secret)


@dataclass(frozen=True)
class _InitializationVectors:
    """Those of both directions, which have one key: none is used twice (SP 800-38D 8, SP 800-38A 6.5 and appendix C).

    That also tells a message that somebody between the two sends again: FDO does not number them.
    """

    size: int  # bytes
    random: Random
    sent: set[bytes] = field(default_factory=set)
    received: set[bytes] = field(default_factory=set)

    def new(self) -> bytes:
        """One to encrypt with."""
        made = self.random(self.size)
        if made in self.sent or made in self.received:
            raise Fault("An initialization vector was used before: the source of random fails.", ErrorCode.INTERNAL)
        self.sent.add(made)
        return made

    def read(self, item: cbor.Item) -> bytes:
        """That of a message; `accept` it once the message has proved to be authentic."""
        said = item.bytes(self.size, self.size)
        if said in self.received:
            raise Fault("The initialization vector of a message was used before.")
        return said

    def accept(self, vector: bytes) -> None:
        """It was that of an authentic message."""
        self.received.add(vector)


@dataclass(frozen=True)
class _Authenticated:
    cipher: Callable[[bytes], AESGCM | AESCCM]
    key_size: int  # bytes
    iv_size: int  # bytes


_AUTHENTICATED = {
    CipherSuite.A128GCM: _Authenticated(AESGCM, 16, 12),
    CipherSuite.A256GCM: _Authenticated(AESGCM, 32, 12),
    CipherSuite.AES_CCM_64_128_128: _Authenticated(AESCCM, 16, 7),
    CipherSuite.AES_CCM_64_128_256: _Authenticated(AESCCM, 32, 7),
}


@dataclass(frozen=True)
class _AuthenticatedTunnel:
    """COSE_Encrypt0: RFC 9052 5.2 and 5.3."""

    suite: CipherSuite
    cipher: AESGCM | AESCCM = field(repr=False)
    vectors: _InitializationVectors = field(repr=False)

    def encrypt(self, plaintext: bytes) -> bytes:
        protected, iv = _protected(self.suite), self.vectors.new()
        ciphertext = self.cipher.encrypt(iv, plaintext, _additional_data(protected))
        return cbor.encode(cbor.Tagged(ENCRYPT0_TAG, [protected, {IV_HEADER: iv}, ciphertext]))

    def decrypt(self, body: bytes) -> bytes:
        protected, unprotected, ciphertext = cbor.read(body).tagged(ENCRYPT0_TAG).array(3)
        _check_protected(protected, self.suite)
        iv = self.vectors.read(_headers(unprotected, IV_HEADER)[IV_HEADER])
        try:
            plaintext = self.cipher.decrypt(iv, ciphertext.bytes(), _additional_data(protected.bytes()))
        except InvalidTag as error:
            raise _undecryptable() from error
        self.vectors.accept(iv)
        return plaintext


@dataclass(frozen=True)
class _Composed:
    algorithm: int  # RFC 9459
    key_size: int  # bytes
    mac_algorithm: int  # RFC 9053 3.1
    mac_key_size: int  # bytes
    hash: hashes.HashAlgorithm
    is_chained: bool  # CBC, otherwise CTR


_COMPOSED = {
    CipherSuite.AES128_CBC: _Composed(-65531, 16, 5, 16, hashes.SHA256(), is_chained=True),
    CipherSuite.AES128_CTR: _Composed(-65534, 16, 5, 16, hashes.SHA256(), is_chained=False),
    CipherSuite.AES256_CBC: _Composed(-65529, 32, 6, 32, hashes.SHA384(), is_chained=True),
    CipherSuite.AES256_CTR: _Composed(-65532, 32, 6, 32, hashes.SHA384(), is_chained=False),
}
_BLOCK = 16  # bytes


@dataclass(frozen=True)
class _ComposedTunnel:
    """A COSE_Encrypt0 in a COSE_Mac0: encrypt, then authenticate."""

    suite: _Composed
    key: bytes = field(repr=False)
    mac_key: bytes = field(repr=False)
    vectors: _InitializationVectors = field(repr=False)

    def encrypt(self, plaintext: bytes) -> bytes:
        iv = self.vectors.new()
        encryptor = self._cipher(iv).encryptor()
        ciphertext = encryptor.update(self._padded(plaintext)) + encryptor.finalize()
        inner = cbor.encode([b"", {ALGORITHM: self.suite.algorithm, IV_HEADER: iv}, ciphertext])
        protected = _protected(self.suite.mac_algorithm)
        mac = self._mac(protected, inner).finalize()
        return cbor.encode(cbor.Tagged(MAC0_TAG, [protected, {}, inner, mac]))

    def decrypt(self, body: bytes) -> bytes:
        protected, unprotected, payload, mac = cbor.read(body).tagged(MAC0_TAG).array(4)
        _check_protected(protected, self.suite.mac_algorithm)
        _headers(unprotected)
        try:
            self._mac(protected.bytes(), payload.bytes()).verify(mac.bytes())
        except InvalidSignature as error:
            raise _undecryptable() from error
        empty, unprotected, ciphertext = payload.embedded().array(3)
        empty.bytes(0)
        headers = _headers(unprotected, ALGORITHM, IV_HEADER)
        if headers[ALGORITHM].integer() != self.suite.algorithm:
            raise _encrypted_otherwise()
        iv = self.vectors.read(headers[IV_HEADER])
        decryptor = self._cipher(iv).decryptor()
        try:
            plaintext = self._unpadded(decryptor.update(ciphertext.bytes()) + decryptor.finalize())
        except ValueError as error:
            raise _undecryptable() from error
        self.vectors.accept(iv)
        return plaintext

    def _cipher(self, iv: bytes) -> Cipher[modes.CBC] | Cipher[modes.CTR]:
        return Cipher(AES(self.key), modes.CBC(iv)) if self.suite.is_chained else Cipher(AES(self.key), modes.CTR(iv))

    def _padded(self, plaintext: bytes) -> bytes:
        padder = PKCS7(8 * _BLOCK).padder()
        return padder.update(plaintext) + padder.finalize() if self.suite.is_chained else plaintext

    def _unpadded(self, padded: bytes) -> bytes:
        unpadder = PKCS7(8 * _BLOCK).unpadder()
        return unpadder.update(padded) + unpadder.finalize() if self.suite.is_chained else padded

    def _mac(self, protected: bytes, payload: bytes) -> hmac.HMAC:
        """MAC_structure: RFC 9052 6.3."""
        mac = hmac.HMAC(self.mac_key, self.suite.hash)
        mac.update(cbor.encode(["MAC0", protected, b"", payload]))
        return mac


def _additional_data(protected: bytes) -> bytes:
    """Enc_structure: RFC 9052 5.3."""
    return cbor.encode(["Encrypt0", protected, b""])


def _protected(algorithm: int) -> bytes:
    return cbor.encode({ALGORITHM: algorithm})


def _check_protected(headers: cbor.Item, algorithm: int) -> None:
    if headers.bytes() != _protected(algorithm):
        raise _encrypted_otherwise()


def _headers(item: cbor.Item, *labels: int) -> Mapping[int | str, cbor.Item]:
    """Those with these labels, which are all that there may be."""
    headers = item.map()
    if set(headers) != set(labels):
        raise _encrypted_otherwise()
    return headers


def _encrypted_otherwise() -> Fault:
    return Fault("A message is encrypted in another way than was agreed on.")


def _undecryptable() -> Fault:
    return Fault("A message cannot be decrypted with the keys of this session.")
