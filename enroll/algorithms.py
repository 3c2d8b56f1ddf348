"""Names of the algorithms in use. Imports nothing, so that settings can be read without loading any cryptography."""

from __future__ import annotations

from enum import StrEnum


class KeyAlgorithm(StrEnum):
    """The kinds of key that are made. Image signatures need RSA (PS3.15 C.2)."""

    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    P_256 = "p-256"
    P_384 = "p-384"


class HmacAlgorithm(StrEnum):
    """The kinds of secret that are made for message authentication (RFC 2104)."""

    SHA256 = "hmac-sha256"
    SHA384 = "hmac-sha384"
