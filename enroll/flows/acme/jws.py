"""JSON Web Signature as ACME uses it: flattened, one signature (RFC 7515, RFC 7518; RFC 8555 6.2)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from enroll.errors import UnsupportedKey
from enroll.keystore.base import PrivateKey, PublicKey

_CURVES: dict[str, tuple[str, str, hashes.HashAlgorithm]] = {  # RFC 7518 3.1 and 6.2.1.1
    "secp256r1": ("P-256", "ES256", hashes.SHA256()),
    "secp384r1": ("P-384", "ES384", hashes.SHA384()),
}
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")


def base64url(data: bytes) -> str:
    """Without padding (RFC 7515 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes:
    """The octets of base64url without padding.

    Raises:
        ValueError: It is something else.
    """
    if not _BASE64URL.fullmatch(text):
        raise ValueError("not base64url")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def public_jwk(key: PublicKey) -> dict[str, str]:
    """A public key as JWK, with the members that RFC 7638 3.2 demands and no others.

    Raises:
        UnsupportedKey: On a curve that ACME servers do not take.
    """
    numbers = key.public_numbers()
    if isinstance(numbers, rsa.RSAPublicNumbers):
        return {"e": _number(numbers.e), "kty": "RSA", "n": _number(numbers.n)}
    curve, _, _ = _curve(numbers.curve)
    size = (numbers.curve.key_size + 7) // 8
    return {"crv": curve, "kty": "EC", "x": _number(numbers.x, size), "y": _number(numbers.y, size)}


def thumbprint(key: PublicKey) -> str:
    """SHA-256 over the canonical JWK (RFC 7638 3), in base64url."""
    return base64url(hashlib.sha256(_json(public_jwk(key), sort=True)).digest())


def key_authorization(token: str, key: PublicKey) -> str:
    """What answers a challenge (RFC 8555 8.1)."""
    return f"{token}.{thumbprint(key)}"


def signed(key: PrivateKey, protected: Mapping[str, Any], payload: bytes) -> dict[str, str]:
    """A flattened JWS (RFC 7515 7.2.2).

    Args:
        key: Signs, and decides `alg`.
        protected: The protected header without `alg`.
        payload: As it is; empty for POST-as-GET.

    Raises:
        KeyStoreError: The key's store refused to sign, or there is no `alg` for such a key.
    """
    header = base64url(_json({"alg": _algorithm(key), **protected}))
    body = base64url(payload)
    return {
        "protected": header,
        "payload": body,
        "signature": base64url(_signature(key, f"{header}.{body}".encode("ascii"))),
    }


def authenticated(secret: bytes, protected: Mapping[str, Any], payload: bytes) -> dict[str, str]:
    """The same with HMAC-SHA256 instead of a signature: an external account binding (RFC 8555 7.3.4)."""
    header = base64url(_json({"alg": "HS256", **protected}))
    body = base64url(payload)
    code = hmac.digest(secret, f"{header}.{body}".encode("ascii"), "sha256")
    return {"protected": header, "payload": body, "signature": base64url(code)}


def _algorithm(key: PrivateKey) -> str:
    return "RS256" if isinstance(key, rsa.RSAPrivateKey) else _curve(key.curve)[1]


def _signature(key: PrivateKey, data: bytes) -> bytes:
    """RFC 7518 3.3 and 3.4: ECDSA as r and s, each as long as the curve."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    _, _, digest = _curve(key.curve)
    size = (key.curve.key_size + 7) // 8
    return b"".join(part.to_bytes(size, "big") for part in decode_dss_signature(key.sign(data, ec.ECDSA(digest))))


def _curve(curve: ec.EllipticCurve) -> tuple[str, str, hashes.HashAlgorithm]:
    if curve.name not in _CURVES:
        raise UnsupportedKey("ACME has no signature for this kind of key.", remedy="Use p-256, p-384 or RSA.")
    return _CURVES[curve.name]


def _number(value: int, size: int | None = None) -> str:
    return base64url(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def _json(value: Mapping[str, Any], *, sort: bool = False) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=sort).encode("utf-8")
