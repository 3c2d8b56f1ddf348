"""Keys that are the same in every run, so that what is signed with them is too. They protect nothing."""

from __future__ import annotations

import hashlib
import math
from functools import cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

_EXPONENT: Final = 65537
_PRIME_BYTES: Final = 128
# How far the first usable prime lies behind the number that a name stands for.
_OFFSETS: Final = {"signer p": 1342, "signer q": 62, "authority p": 390, "authority q": 70}


@cache
def fixed_rsa_key(name: str) -> rsa.RSAPrivateKey:
    """An RSA key of 2048 bits: that of the "signer" or that of the "authority"."""
    p, q = (_prime(f"{name} {which}") for which in "pq")
    d = pow(_EXPONENT, -1, math.lcm(p - 1, q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=rsa.rsa_crt_dmp1(d, p),
        dmq1=rsa.rsa_crt_dmq1(d, q),
        iqmp=rsa.rsa_crt_iqmp(p, q),
        public_numbers=rsa.RSAPublicNumbers(_EXPONENT, p * q),
    )
    return numbers.private_key()


@cache
def fixed_ec_key() -> ec.EllipticCurvePrivateKey:
    """A key on P-256."""
    return ec.derive_private_key(int.from_bytes(hashlib.sha256(b"signer").digest()), ec.SECP256R1())


def _prime(name: str) -> int:
    number = int.from_bytes(hashlib.shake_256(name.encode("ascii")).digest(_PRIME_BYTES))
    return (number | 3 << (8 * _PRIME_BYTES - 2) | 1) + _OFFSETS[name]
