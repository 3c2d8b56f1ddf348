"""Keys of the evaluation servers, in files that are not encrypted: they protect nothing of worth."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from enroll.keystore.base import KEY_PARSE_ERRORS, PrivateKey
from enroll.record import damaged
from enroll.statefile import StateFiles


def write_key(path: Path, key: PrivateKey, files: StateFiles) -> None:
    """Write a key (PKCS#8, PEM).

    Raises:
        StateError: It cannot be written.
    """
    unencrypted = serialization.NoEncryption()
    files.write(path, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unencrypted))


def read_key(path: Path, files: StateFiles) -> PrivateKey:
    """The key of a file.

    Raises:
        StateError: The file cannot be read, or is damaged.
    """
    data = files.read(path)
    try:
        key = serialization.load_pem_private_key(data, None)
    except KEY_PARSE_ERRORS as error:
        raise damaged(path) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise damaged(path)
    return key


def read_p256_key(path: Path, files: StateFiles) -> ec.EllipticCurvePrivateKey:
    """The same where only P-256 is right.

    Raises:
        StateError: The file cannot be read, or is damaged.
    """
    key = read_key(path, files)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise damaged(path)
    return key
