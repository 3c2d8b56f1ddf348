"""The ownership voucher: who made a device, and who has owned it since: FDO 1.1, 3.4 "Ownership Voucher".

    header     made by the factory: which device, its manufacturer's key; the device alone can make the HMAC over it
    entry 0    the manufacturer says who the first owner is
    entry 1    the first owner says who the second is
    ...

Each entry holds the hash of everything before it. Nothing is encoded again: hashes are over the bytes as they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from cryptography import x509

from enroll.fdo import cbor
from enroll.fdo.cose import Sign1
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.public_key import FdoPublicKey
from enroll.keystore.base import PrivateKey

VOUCHER_LIMIT = 1 << 20  # bytes of a file
DEVICE_INFO_LIMIT = 1024  # bytes


@dataclass(frozen=True)
class VoucherHeader:
    """OVHeader.

    Args:
        guid: Of the device.
        rendezvous: RVInfo.
        device_info: Model of the device, in the words of its manufacturer.
        manufacturer: The key that signs entry 0. After a change of owner it is Owner2Key of that owner.
        certificate_chain_hash: Over the certificates of the device key; None where there are none.
        raw: All of its bytes.
    """

    guid: bytes
    rendezvous: cbor.Raw
    device_info: str
    manufacturer: FdoPublicKey
    certificate_chain_hash: Hash | None
    raw: bytes

    @classmethod
    def read(cls, item: cbor.Item) -> Self:
        """From what was received.

        Raises:
            Fault: It is none of this version.
        """
        raise NotImplementedError

    @classmethod
    def make(
        cls,
        guid: bytes,
        rendezvous: cbor.Raw,
        device_info: str,
        manufacturer: FdoPublicKey,
        certificate_chain_hash: Hash | None,
    ) -> Self:
        """A new one."""
        raise NotImplementedError


@dataclass(frozen=True)
class VoucherEntry:
    """OVEntry: one owner says who the next one is.

    Args:
        previous: Hash over what is before it.
        header: Hash over GUID and device info.
        owner: The next owner.
        signed: What the owner before has signed.
    """

    previous: Hash
    header: Hash
    owner: FdoPublicKey
    signed: Sign1

    @classmethod
    def read(cls, item: cbor.Item) -> Self:
        """From what was received; says nothing about the signature.

        Raises:
            Fault: It is none.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class OwnerChain:
    """A header with its HMAC, and the owners that have been verified so far.

        chain = OwnerChain.begin(header, hmac)
        for entry in entries:
            chain = chain.extended(entry)
        chain.owner

    Args:
        header: Of the voucher.
        owners: All keys from the manufacturer's to the last owner's.
        last: The bytes that the next entry has the hash of.
        digest: SHA-256 over header, HMAC and all entries so far: the fingerprint of the voucher.
        algorithm: Of the hashes in entries, which is that of the HMAC.
    """

    header: VoucherHeader
    owners: tuple[FdoPublicKey, ...]
    last: bytes
    content: bytes
    algorithm: HashAlgorithm

    @classmethod
    def begin(cls, header: VoucherHeader, hmac: Hash) -> Self:
        """Before the first entry."""
        raise NotImplementedError

    @property
    def owner(self) -> FdoPublicKey:
        """The last owner; the manufacturer where there is no entry."""
        return self.owners[-1]

    @property
    def fingerprint(self) -> str:
        """Of the voucher so far: SHA-256 over header, HMAC and entries, 64 hexadecimal digits."""
        raise NotImplementedError

    def extended(self, entry: VoucherEntry) -> Self:
        """With one more entry, after it has been verified (FDO 1.1, 3.4.6).

        Raises:
            Fault: It is not signed by the owner before, or not over what is before it.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Voucher:
    """A whole voucher, as its owner has it in a file.

    Args:
        header: Made by the factory.
        hmac: Of the device.
        device_chain: Certificates of the device key; empty where there are none.
        entries: One for each owner.
        raw: All of its bytes.
    """

    header: VoucherHeader
    hmac: Hash
    device_chain: tuple[x509.Certificate, ...]
    entries: tuple[VoucherEntry, ...]
    raw: bytes

    @classmethod
    def read(cls, data: bytes) -> Self:
        """From CBOR, or from PEM ("OWNERSHIP VOUCHER").

        Raises:
            Fault: It is none.
        """
        raise NotImplementedError

    @classmethod
    def make(cls, header: VoucherHeader, hmac: Hash, device_chain: Sequence[x509.Certificate]) -> Self:
        """A voucher without an entry, as the factory makes it."""
        raise NotImplementedError

    @property
    def pem(self) -> bytes:
        """As PEM."""
        raise NotImplementedError

    def verify(self) -> OwnerChain:
        """Everything that can be verified without the device: entries, and the hash over the device's certificates.

        Raises:
            Fault: The voucher does not hold.
        """
        raise NotImplementedError

    def extend(self, owner_key: PrivateKey, next_owner: FdoPublicKey) -> Self:
        """With one more entry: the device is sold to `next_owner`.

        Args:
            owner_key: Of the last owner.
            next_owner: Whose key is of the same kind.

        Raises:
            Fault: The voucher does not hold, or this is not the key of its last owner.
        """
        raise NotImplementedError
