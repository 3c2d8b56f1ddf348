"""A private key that says to be of another kind: what one changed byte makes of a key of 32 bytes."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import x25519

X25519, X448 = bytes.fromhex("06032b656e"), bytes.fromhex("06032b656f")  # RFC 8410 3
AES_256_CBC = bytes.fromhex("060960864801650304012a0410")  # with the head of its vector


def mislabelled_key() -> bytes:
    """An X25519 key under the name of X448, whose keys have 56 bytes; PEM, not encrypted (RFC 8410 7)."""
    pkcs8 = x25519.X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert pkcs8.count(X25519) == 1
    body = base64.encodebytes(pkcs8.replace(X25519, X448))
    return b"-----BEGIN PRIVATE KEY-----\n" + body + b"-----END PRIVATE KEY-----\n"


def mislabelled(encrypted: bytes) -> bytes:
    """The same of an encrypted X25519 key (PEM): the vector of CBC changes any bit of the first block (SP 800-38A 6.2).

    The object identifier ends with the twelfth byte of PKCS#8.
    """
    first, *lines, last = encrypted.splitlines()
    pkcs8 = base64.b64decode(b"".join(lines))
    assert pkcs8.count(AES_256_CBC) == 1
    place = pkcs8.index(AES_256_CBC) + len(AES_256_CBC) + 11
    changed = pkcs8[:place] + bytes([pkcs8[place] ^ 1]) + pkcs8[place + 1 :]
    return b"\n".join((first, base64.encodebytes(changed).strip(), last, b""))
