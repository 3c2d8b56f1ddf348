"""A second reader and verifier of ownership vouchers, which shares no code with the product.

It is written from FDO 1.1, 3.3 and 3.4 alone, on cbor2 and `cryptography`. `verified` says who owns the device, and
with which fingerprint, or that the voucher does not hold; it does not say why.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cbor2
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

HASHES = {-16: hashlib.sha256, -43: hashlib.sha384}
HMAC_SIZES = {5: 32, 6: 48}
CURVES: dict[int, tuple[type[ec.EllipticCurve], int, int]] = {10: (ec.SECP256R1, 1, 32), 11: (ec.SECP384R1, 2, 48)}
RSA_TYPES = (1, 5, 6)
Key = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


class DoesNotHoldError(Exception):
    """The voucher is none, or was changed."""


@dataclass(frozen=True)
class Owned:
    """What a voucher proves: the SHA-256 of the SubjectPublicKeyInfo of all owners, and its own fingerprint."""

    owners: tuple[str, ...]
    fingerprint: str


def verified(data: bytes) -> Owned:
    """Who owns the device.

    Raises:
        DoesNotHoldError: The voucher proves nothing.
    """
    try:
        return _verified(data)
    except _ANY as error:
        raise DoesNotHoldError(str(error)) from error


_ANY = (
    cbor2.CBORDecodeError,
    cbor2.CBOREncodeError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    RecursionError,
    binascii.Error,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    Warning,
)


def _need(holds: object) -> None:
    if not holds:
        raise DoesNotHoldError


def _read(data: bytes) -> Any:
    """One CBOR item that a deterministic encoder could have written: written again it is the same bytes."""
    value = cbor2.loads(data)
    _need(cbor2.dumps(value) == data)
    _need(_is_plain(value))
    return value


def _is_plain(value: Any) -> bool:
    """No floating point, no tag but that of a signature: FDO has none in what is read here."""
    if isinstance(value, Mapping):
        return all(type(key) in (int, str) and _is_plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, cbor2.CBORTag):
        return _is_plain(value.value)
    return value is None or type(value) in (int, bytes, str, bool)


def _array(value: Any, length: int) -> list[Any]:
    _need(type(value) in (list, tuple) and len(value) == length)
    return list(value)


def _bytes(value: Any, length: int | None = None) -> bytes:
    _need(type(value) is bytes and length in (None, len(value)))
    return bytes(value)


def _voucher(data: bytes) -> bytes:
    if data[:1] == b"\x85":
        return data
    found = re.findall(b"-----BEGIN OWNERSHIP VOUCHER-----([^-]*)-----END OWNERSHIP VOUCHER-----", data)
    _need(len(found) == 1)
    return base64.b64decode(re.sub(rb"\s", b"", found[0]), validate=True)


def _verified(data: bytes) -> Owned:
    version, header, hmac, chain, entries = _array(_read(_voucher(data)), 5)
    _need(type(version) is int and version == 101)
    algorithm, value = _array(hmac, 2)
    _need(len(_bytes(value)) == HMAC_SIZES[algorithm])
    version, guid, _, info, manufacturer, chain_hash = _array(_read(_bytes(header)), 6)
    _need(type(version) is int and version == 101)
    _need(type(info) is str and len(info.encode()) <= 1024)
    about = _bytes(guid, 16) + info.encode()
    _check_certificates(chain, chain_hash)
    first, kind = _key(manufacturer)
    keys = [first]
    _need(type(entries) in (list, tuple) and len(entries) <= 255)
    last = header + cbor2.dumps(hmac)
    fingerprint = hashlib.sha256(last).digest()
    strength = None
    for entry in entries:
        previous, device, following, following_kind = _entry(entry, keys[-1], kind)
        strength = strength or previous[0]
        _need(previous == [strength, HASHES[strength](last).digest()])
        _need(device == [strength, HASHES[strength](about).digest()])
        _need(following_kind == kind and following.key_size == first.key_size)
        keys.append(following)
        last = cbor2.dumps(entry)
        fingerprint = hashlib.sha256(fingerprint + last).digest()
    return Owned(tuple(_fingerprint(key) for key in keys), fingerprint.hex())


def _entry(entry: Any, signer: Key, kind: int) -> tuple[list[Any], list[Any], Key, int]:
    """What an entry says, and that the owner before has signed it."""
    _need(isinstance(entry, cbor2.CBORTag) and entry.tag == 18)
    protected, unprotected, payload, signature = _array(entry.value, 4)
    _need(isinstance(unprotected, Mapping))
    _check_signature(signer, kind, _bytes(protected), _bytes(payload), _bytes(signature))
    previous, device, extra, owner = _array(_read(_bytes(payload)), 4)
    _need(extra is None or isinstance(_read(_bytes(extra)), Mapping))
    following, following_kind = _key(owner)
    return _array(previous, 2), _array(device, 2), following, following_kind


def _check_signature(key: Key, kind: int, protected: bytes, payload: bytes, signature: bytes) -> None:
    headers = _read(protected)
    _need(isinstance(headers, Mapping) and list(headers) == [1])
    signed = cbor2.dumps(["Signature1", protected, b"", payload])
    if isinstance(key, ec.EllipticCurvePublicKey):
        size = CURVES[kind][2]
        _need(headers[1] == {32: -7, 48: -35}[size] and len(signature) == 2 * size)
        r, s = (int.from_bytes(part, "big") for part in (signature[:size], signature[size:]))
        key.verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(_hash_of(size == 48)))
        return
    strong = key.key_size == 3072
    if kind == 6:
        _need(headers[1] == (-38 if strong else -37))
        how: padding.AsymmetricPadding = padding.PSS(padding.MGF1(_hash_of(strong)), _hash_of(strong).digest_size)
    else:
        _need(headers[1] == (-258 if strong else -257))
        how = padding.PKCS1v15()
    key.verify(signature, signed, how, _hash_of(strong))


def _hash_of(strong: bool) -> hashes.HashAlgorithm:  # noqa: FBT001 - there are two
    return hashes.SHA384() if strong else hashes.SHA256()


def _key(value: Any) -> tuple[Key, int]:
    kind, encoding, body = _array(value, 3)
    _need(type(kind) is int and type(encoding) is int)
    key: Any
    if encoding == 1:
        key = serialization.load_der_public_key(_bytes(body))
        _need(_info(key) == body)
    elif encoding == 2:
        key = _certificates(body)[0].public_key()
    else:
        _need(encoding == 3 and kind in CURVES and isinstance(body, Mapping))
        curve, number, size = CURVES[kind]
        _need(body.get(1, 2) == 2 and body[-1] == number)
        x, y = (int.from_bytes(_bytes(body[name], size), "big") for name in (-2, -3))
        key = ec.EllipticCurvePublicNumbers(x, y, curve()).public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        _need(kind in CURVES and isinstance(key.curve, CURVES[kind][0]))
    else:
        _need(isinstance(key, rsa.RSAPublicKey) and kind in RSA_TYPES)
        _need(key.key_size in (2048, 3072) and key.public_numbers().e == 65537)
        _need(kind != 1 or key.key_size == 2048)
    return key, kind


def _certificates(value: Any) -> Sequence[x509.Certificate]:
    _need(type(value) in (list, tuple) and 1 <= len(value) <= 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        certificates = [x509.load_der_x509_certificate(_bytes(each)) for each in value]
    _need([each.public_bytes(serialization.Encoding.DER) for each in certificates] == list(value))
    return certificates


def _check_certificates(chain: Any, expected: Any) -> None:
    if chain is None:
        _need(expected is None)
        return
    _certificates(chain)
    algorithm, value = _array(expected, 2)
    _need(HASHES[algorithm](b"".join(chain)).digest() == value)


def _info(key: Any) -> bytes:
    return bytes(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def _fingerprint(key: Key) -> str:
    return hashlib.sha256(_info(key)).hexdigest()
