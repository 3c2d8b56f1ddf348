"""CBOR, COSE and the keys of a session a second time, on `cbor2` and `cryptography`: nothing of the product takes part.

`cbor2` reads much more than FDO allows. `deterministic_value` says what of it is left.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

# RFC 9053 2.1, RFC 8230 2 and RFC 8812 2: algorithm to hash, and bytes of r and of s.
_HASHES: Final[Mapping[int, type[hashes.SHA256 | hashes.SHA384]]] = {
    -7: hashes.SHA256,
    -35: hashes.SHA384,
    -37: hashes.SHA256,
    -38: hashes.SHA384,
    -257: hashes.SHA256,
    -258: hashes.SHA384,
}
_COORDINATE_BYTES: Final = {-7: 32, -35: 48}
_PSS: Final = (-37, -38)

# The tags of which `cbor2` makes something else: they are left as they are.
_TAGS: Final = (*range(6), 25, *range(28, 31), 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)


def write(value: object) -> bytes:
    """The shortest encoding; maps stay in their order."""
    return cbor2.dumps(value)


def write_canonical(value: object) -> bytes:
    """The encoding of RFC 7049 3.9, which sorts maps: shorter keys first, then by their bytes."""
    return cbor2.dumps(value, canonical=True)


def read(data: bytes) -> Any:
    """The value, with its tags.

    Raises:
        cbor2.CBORDecodeError: It is none.
    """
    return cbor2.loads(data, semantic_decoders={number: _left(number) for number in _TAGS})


def deterministic_value(data: bytes, depth_limit: int, parts_limit: int) -> tuple[Any] | None:
    """The value of what FDO allows: nothing that has another encoding, no floating point, nothing deep or large."""
    try:
        value = read(data)
        if write(value) != data:
            return None
    except cbor2.CBORError:
        return None
    parts = list(_parts(value, 0))
    fits = len(parts) <= parts_limit and all(depth <= depth_limit for _, depth in parts)
    return (_with_lists(value),) if fits and all(_is_allowed(part) for part, _ in parts) else None


def _left(number: int) -> Callable[[Any, bool], cbor2.CBORTag]:
    return lambda value, _: cbor2.CBORTag(number, value)


def _parts(value: Any, depth: int) -> Iterator[tuple[Any, int]]:
    yield value, depth
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _parts(key, depth + 1)
            yield from _parts(part, depth + 1)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _parts(part, depth + 1)
    elif isinstance(value, cbor2.CBORTag):
        yield from _parts(value.value, depth + 1)


def _with_lists(value: Any) -> Any:
    """The value without the tuples and frozen maps that `cbor2` makes below tags."""
    if isinstance(value, Mapping):
        return {key: _with_lists(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_with_lists(part) for part in value]
    return cbor2.CBORTag(value.tag, _with_lists(value.value)) if isinstance(value, cbor2.CBORTag) else value


def _is_allowed(part: Any) -> bool:
    if isinstance(part, Mapping):
        return all(isinstance(key, int | str) and not isinstance(key, bool) for key in part)
    return part is None or isinstance(part, bool | int | bytes | str | list | tuple | cbor2.CBORTag)


@dataclass(frozen=True)
class Signed:
    """What a COSE_Sign1 says."""

    algorithm: int
    unprotected: Mapping[Any, Any]
    payload: bytes


def sign1(key: PrivateKey, algorithm: int, payload: bytes, unprotected: Mapping[Any, Any]) -> bytes:
    """A COSE_Sign1 with its tag: RFC 9052 4.2 and 4.4."""
    protected = write({1: algorithm})
    signature = _sign(key, algorithm, write(["Signature1", protected, b"", payload]))
    return write(cbor2.CBORTag(18, [protected, unprotected, payload, signature]))


def verify1(key: PublicKey, data: bytes) -> Signed:
    """What is in a COSE_Sign1 with its tag.

    Raises:
        InvalidSignature: The key has not signed it.
    """
    tagged = read(data)
    assert tagged.tag == 18
    protected, unprotected, payload, signature = tagged.value
    algorithm = read(protected)[1]
    signed, digest = write(["Signature1", protected, b"", payload]), _HASHES[algorithm]()
    if isinstance(key, ec.EllipticCurvePublicKey):
        size = _COORDINATE_BYTES[algorithm]
        assert len(signature) == 2 * size
        r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(digest))
    else:
        key.verify(signature, signed, _padding(algorithm), digest)
    return Signed(algorithm, unprotected, payload)


def _sign(key: PrivateKey, algorithm: int, data: bytes) -> bytes:
    digest = _HASHES[algorithm]()
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, _padding(algorithm), digest)
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
    size = _COORDINATE_BYTES[algorithm]
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def _padding(algorithm: int) -> padding.AsymmetricPadding:
    digest = _HASHES[algorithm]()
    return padding.PSS(padding.MGF1(digest), digest.digest_size) if algorithm in _PSS else padding.PKCS1v15()


def derived(secret: bytes, context: bytes, size: int, digest: str = "sha256") -> bytes:
    """The counter mode of SP 800-108 4.1 by hand, with the label and the context of FDO."""
    fixed = b"FIDO-KDF\x00AutomaticOnboardTunnel" + context + (8 * size).to_bytes(2, "big")
    blocks = b""
    for number in count(1):
        if len(blocks) >= size:
            break
        blocks += hmac.digest(secret, bytes([number]) + fixed, digest)
    return blocks[:size]


def seal0(cipher: AESGCM | AESCCM, algorithm: int, iv: bytes, plaintext: bytes) -> bytes:
    """A COSE_Encrypt0 with its tag: RFC 9052 5.2 and 5.3."""
    protected = write({1: algorithm})
    ciphertext = cipher.encrypt(iv, plaintext, write(["Encrypt0", protected, b""]))
    return write(cbor2.CBORTag(16, [protected, {5: iv}, ciphertext]))


def open0(cipher: AESGCM | AESCCM, data: bytes) -> tuple[int, bytes]:
    """The algorithm and the plaintext of a COSE_Encrypt0.

    Raises:
        InvalidTag: It is not of this key.
    """
    tagged = read(data)
    assert tagged.tag == 16
    protected, unprotected, ciphertext = tagged.value
    plaintext = cipher.decrypt(unprotected[5], ciphertext, write(["Encrypt0", protected, b""]))
    return read(protected)[1], plaintext


def mac0(key: bytes, protected: bytes, payload: bytes, digest: str) -> bytes:
    """What authenticates a COSE_Mac0: RFC 9052 6.3."""
    return hmac.digest(key, write(["MAC0", protected, b"", payload]), digest)
