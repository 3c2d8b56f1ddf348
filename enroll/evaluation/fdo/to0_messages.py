"""What is in the messages of TO0, between an owner and a rendezvous server: FDO 1.1, 5.3. NOT FOR PRODUCTION."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from enroll.fdo import cbor
from enroll.fdo.cose import Sign1
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.messages import read_nonce
from enroll.fdo.rendezvous import OwnerAddress, encode_owner_address
from enroll.fdo.voucher import Voucher

_LONGEST = 2**32 - 1  # seconds


@dataclass(frozen=True)
class OwnerSign:
    """Message 22.

    Args:
        voucher: Says who the owner is.
        wait_seconds: How long the owner wants to be known.
        nonce: Of message 21.
        signed_part: What the redirection has the hash of (to0d).
        redirect: The redirection, signed by the owner (to1d).
    """

    voucher: Voucher
    wait_seconds: int
    nonce: bytes
    signed_part: bytes
    redirect: Sign1

    @classmethod
    def read(cls, item: cbor.Item) -> Self:
        """As it was received; says nothing about signatures."""
        to0d, redirect = item.array(2)
        voucher, seconds, nonce = to0d.embedded().array(3)
        return cls(
            Voucher.read(voucher.raw),
            seconds.unsigned(_LONGEST),
            read_nonce(nonce),
            to0d.bytes(),
            Sign1.read(redirect),
        )


def to0d(voucher: Voucher, wait_seconds: int, nonce: bytes) -> bytes:
    """The part of message 22 that the redirection has the hash of."""
    return cbor.encode([cbor.Raw(voucher.raw), wait_seconds, nonce])


def redirection(addresses: Sequence[OwnerAddress], algorithm: HashAlgorithm, signed_part: bytes) -> bytes:
    """The payload of to1d."""
    encoded = [encode_owner_address(address) for address in addresses]
    return cbor.encode([encoded, cbor.Raw(Hash.of(algorithm, signed_part).raw)])


def seconds_message(seconds: int) -> bytes:
    """Message 23: how long the owner will be known."""
    return cbor.encode([seconds])


def read_seconds_message(item: cbor.Item) -> int:
    """The same, as it was received."""
    (seconds,) = item.array(1)
    return seconds.unsigned(_LONGEST)
