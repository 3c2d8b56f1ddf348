"""Hashes and HMACs with their algorithm: FDO 1.1, 3.3.1 "Hash / HMAC"."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from cryptography.hazmat.primitives import hashes

from enroll.fdo import cbor
from enroll.fdo.fault import Fault


class HashAlgorithm(IntEnum):
    """The algorithms, with their COSE numbers (RFC 9054 2, RFC 9053 3.1)."""

    SHA256 = -16
    SHA384 = -43
    HMAC_SHA256 = 5
    HMAC_SHA384 = 6


_FUNCTIONS: dict[HashAlgorithm, hashes.HashAlgorithm] = {
    HashAlgorithm.SHA256: hashes.SHA256(),
    HashAlgorithm.SHA384: hashes.SHA384(),
}
_LENGTHS = {
    HashAlgorithm.SHA256: 32,
    HashAlgorithm.SHA384: 48,
    HashAlgorithm.HMAC_SHA256: 32,
    HashAlgorithm.HMAC_SHA384: 48,
}
_HASH_OF_HMAC = {
    HashAlgorithm.HMAC_SHA256: HashAlgorithm.SHA256,
    HashAlgorithm.HMAC_SHA384: HashAlgorithm.SHA384,
}


@dataclass(frozen=True)
class Hash:
    """A hash or an HMAC.

    Args:
        algorithm: How it was made.
        value: It.
    """

    algorithm: HashAlgorithm
    value: bytes

    @classmethod
    def read(cls, item: cbor.Item) -> Self:
        """From what was received; of a known algorithm and of its length.

        Raises:
            Fault: It is none.
        """
        number, value = item.array(2)
        if number.integer() not in list(HashAlgorithm):
            raise Fault(f"There is no hash algorithm {number.integer()}.")
        algorithm = HashAlgorithm(number.integer())
        return cls(algorithm, value.bytes(_LENGTHS[algorithm], _LENGTHS[algorithm]))

    @classmethod
    def read_plain(cls, item: cbor.Item) -> Self:
        """The same, where no HMAC may stand: only the device could verify it.

        Raises:
            Fault: It is none.
        """
        found = cls.read(item)
        if found.algorithm not in _FUNCTIONS:
            raise Fault("There is an HMAC where a hash is expected.")
        return found

    @classmethod
    def of(cls, algorithm: HashAlgorithm, data: bytes) -> Self:
        """The hash of `data`; not for HMACs."""
        digest = hashes.Hash(_FUNCTIONS[algorithm])
        digest.update(data)
        return cls(algorithm, digest.finalize())

    @property
    def raw(self) -> bytes:
        """Its encoding, of which there is one."""
        return cbor.encode([self.algorithm, self.value])

    @property
    def plain_algorithm(self) -> HashAlgorithm:
        """The hash of the same strength, where this is an HMAC."""
        return _HASH_OF_HMAC.get(self.algorithm, self.algorithm)

    def is_of(self, data: bytes) -> bool:
        """Whether it is the hash of `data`; an HMAC is that of nothing."""
        return self.algorithm in _FUNCTIONS and hmac.compare_digest(Hash.of(self.algorithm, data).value, self.value)
