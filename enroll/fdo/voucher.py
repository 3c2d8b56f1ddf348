"""The ownership voucher: who made a device, and who has owned it since: FDO 1.1, 3.4 "Ownership Voucher".

    header     made by the factory: which device, its manufacturer's key; the device alone can make the HMAC over it
    entry 0    the manufacturer says who the first owner is
    entry 1    the first owner says who the second is
    ...

Each entry holds the hash of everything before it. Nothing is encoded again: hashes are over the bytes as they came.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enroll.certificates import public_key_info
from enroll.fdo import cbor
from enroll.fdo.cose import Sign1, sign1
from enroll.fdo.fault import ErrorCode, Fault
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.messages import PROTOCOL_VERSION, read_guid
from enroll.fdo.public_key import FdoPublicKey, KeyEncoding, key_types, read_chain
from enroll.keystore.base import PrivateKey, PublicKey

VOUCHER_LIMIT = 1 << 20  # bytes of CBOR
FILE_LIMIT = 2 << 20  # bytes of a file: PEM needs a third more, and has something around it
DEVICE_INFO_LIMIT = 1024  # bytes
ENTRIES_LIMIT = 255

_ARRAY_OF_5 = b"\x85"  # begins no text
_LABEL = "OWNERSHIP VOUCHER"
_ARMOUR = re.compile(rb"-----BEGIN OWNERSHIP VOUCHER-----([A-Za-z0-9+/=\s]*)-----END OWNERSHIP VOUCHER-----")
_LINE = 64  # characters: RFC 7468 2
_EMPTY_EXTRA = cbor.encode({})  # go-fdo writes it so; null means the same
_OTHER_KIND = "The next owner has to have a key of the same kind as the manufacturer."


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
        version, guid, rendezvous, device_info, manufacturer, chain_hash = item.array(6)
        _check_version(version)
        return cls(
            read_guid(guid),
            cbor.Raw(rendezvous.raw),
            device_info.text(DEVICE_INFO_LIMIT),
            FdoPublicKey.read(manufacturer),
            None if chain_hash.is_null else Hash.read_plain(chain_hash),
            item.raw,
        )

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
        chain_hash = None if certificate_chain_hash is None else cbor.Raw(certificate_chain_hash.raw)
        raw = cbor.encode([PROTOCOL_VERSION, guid, rendezvous, device_info, cbor.Raw(manufacturer.raw), chain_hash])
        return cls(guid, rendezvous, device_info, manufacturer, certificate_chain_hash, raw)

    def hash_of_device(self, algorithm: HashAlgorithm) -> Hash:
        """What each entry has of it: the hash over GUID and device info."""
        return Hash.of(algorithm, self.guid + self.device_info.encode("utf-8"))


@dataclass(frozen=True)
class VoucherEntry:
    """OVEntry: one owner says who the next one is.

    Args:
        previous: Hash over what is before it.
        device: Hash over GUID and device info.
        owner: The next owner.
        signed: What the owner before has signed.
    """

    previous: Hash
    device: Hash
    owner: FdoPublicKey
    signed: Sign1

    @classmethod
    def read(cls, item: cbor.Item) -> Self:
        """From what was received; says nothing about the signature.

        Raises:
            Fault: It is none.
        """
        signed = Sign1.read(item)
        previous, device, extra, owner = signed.payload.array(4)
        if not extra.is_null:
            extra.embedded().map()
        return cls(Hash.read_plain(previous), Hash.read_plain(device), FdoPublicKey.read(owner), signed)


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
        algorithm: Of the hashes in entries: as the first entry says; before it, as strong as the HMAC.
        last: What the next entry has the hash of.
        fingerprint: Of the voucher so far: SHA-256 over header and HMAC, 64 hexadecimal digits, and with each entry
            SHA-256 over the fingerprint before it and the entry.
    """

    header: VoucherHeader
    owners: tuple[FdoPublicKey, ...]
    algorithm: HashAlgorithm
    last: bytes
    fingerprint: str

    @classmethod
    def begin(cls, header: VoucherHeader, hmac: Hash) -> Self:
        """Before the first entry."""
        last = header.raw + hmac.raw
        return cls(header, (header.manufacturer,), hmac.plain_algorithm, last, hashlib.sha256(last).hexdigest())

    @property
    def owner(self) -> FdoPublicKey:
        """The last owner; the manufacturer where there is no entry."""
        return self.owners[-1]

    def extended(self, entry: VoucherEntry) -> Self:
        """With one more entry, after it has been verified (FDO 1.1, 3.4.6).

        Raises:
            Fault: It is not signed by the owner before, or not over what is before it.
        """
        number = len(self.owners) - 1
        _check_room(number)
        try:
            entry.signed.check(self.owner.key, self.owner.signature_type)
        except Fault as error:
            raise _broken(f"Entry {number} of the voucher is not signed by the owner before.") from error
        # Implementations disagree on the strength where device and owner differ in it (FDO 1.1, 3.3.1).
        algorithm = entry.previous.algorithm if number == 0 else self.algorithm
        if entry.previous != Hash.of(algorithm, self.last):
            raise _broken(f"Entry {number} of the voucher is not over what stands before it.")
        if entry.device != self.header.hash_of_device(algorithm):
            raise _broken(f"Entry {number} of the voucher is about another device.")
        if not _is_of_one_kind(entry.owner, self.header.manufacturer):
            raise _broken(f"Entry {number} of the voucher names a key of another kind than the manufacturer's.")
        raw = entry.signed.raw
        return replace(
            self,
            owners=(*self.owners, entry.owner),
            algorithm=algorithm,
            last=raw,
            fingerprint=hashlib.sha256(bytes.fromhex(self.fingerprint) + raw).hexdigest(),
        )


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
        """From CBOR, or from PEM ("OWNERSHIP VOUCHER"), with nothing that matters around it.

        Raises:
            Fault: It is none.
        """
        if len(data) > FILE_LIMIT:
            raise _broken(f"There are {len(data)} bytes; a voucher is looked for in at most {FILE_LIMIT}.")
        item = cbor.read(_without_armour(data), VOUCHER_LIMIT)
        version, header, hmac_item, chain, entries = item.array(5)
        _check_version(version)
        _check_room(len(entries.array()) - 1)
        hmac = Hash.read(hmac_item)
        if hmac.algorithm is hmac.plain_algorithm:
            raise _broken("What should be the HMAC of the device is a hash.")
        return cls(
            VoucherHeader.read(header.embedded()),
            hmac,
            () if chain.is_null else read_chain(chain),
            tuple(VoucherEntry.read(entry) for entry in entries.array()),
            item.raw,
        )

    @classmethod
    def make(
        cls,
        header: VoucherHeader,
        hmac: Hash,
        device_chain: Sequence[x509.Certificate],
        entries: Sequence[VoucherEntry] = (),
    ) -> Self:
        """A voucher; without an entry as the factory makes it."""
        certificates = [each.public_bytes(serialization.Encoding.DER) for each in device_chain]
        parts: list[cbor.Encodable] = [PROTOCOL_VERSION, header.raw, cbor.Raw(hmac.raw), certificates or None]
        raw = cbor.encode([*parts, [cbor.Raw(entry.signed.raw) for entry in entries]])
        return cls(header, hmac, tuple(device_chain), tuple(entries), raw)

    @property
    def pem(self) -> bytes:
        """As PEM (RFC 7468)."""
        text = base64.b64encode(self.raw).decode("ascii")
        lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
        return "\n".join([f"-----BEGIN {_LABEL}-----", *lines, f"-----END {_LABEL}-----", ""]).encode("ascii")

    def verify(self) -> OwnerChain:
        """Everything that can be verified without the device: the entries, and the hash over its certificates.

        Raises:
            Fault: The voucher does not hold.
        """
        chain = OwnerChain.begin(self.header, self.hmac)
        expected = self.header.certificate_chain_hash
        certificates = b"".join(each.public_bytes(serialization.Encoding.DER) for each in self.device_chain)
        if bool(expected) != bool(certificates) or (expected and not expected.is_of(certificates)):
            raise _broken("The certificates of the device are not those that the header of the voucher speaks of.")
        for entry in self.entries:
            chain = chain.extended(entry)
        return chain

    def name_owner(self, owner: PublicKey | Sequence[x509.Certificate]) -> FdoPublicKey:
        """The key of a next owner, written as that of the manufacturer is (FDO 1.1, 3.4).

        Args:
            owner: The key; or its certificate and those above it, which are needed where the manufacturer has them.

        Raises:
            Fault: It is of another kind, or there are no certificates.
        """
        manufacturer = self.header.manufacturer
        by_chain = manufacturer.encoding is KeyEncoding.X5CHAIN
        if by_chain and isinstance(owner, PublicKey):
            raise _broken("This voucher names owners by their certificates, and there is only a key.")
        key = owner if isinstance(owner, PublicKey) else FdoPublicKey.make(owner, KeyEncoding.X5CHAIN).key
        if manufacturer.kind not in key_types(key):
            raise _broken(_OTHER_KIND)
        named = FdoPublicKey.make(owner if by_chain else key, manufacturer.encoding, manufacturer.kind)
        if not _is_of_one_kind(named, manufacturer):
            raise _broken(_OTHER_KIND)
        return named

    def extend(self, owner_key: PrivateKey, next_owner: FdoPublicKey) -> Self:
        """With one more entry: the device is sold to `next_owner`.

        Args:
            owner_key: Of the last owner.
            next_owner: Whose key is of the same kind; see `name_owner`.

        Raises:
            Fault: The voucher does not hold or is full, this is not the key of its last owner, or `next_owner` is of
                another kind.
            KeyStoreError: The key cannot sign.
        """
        _check_room(len(self.entries))
        chain = self.verify()
        owner = chain.owner
        if public_key_info(owner_key.public_key()) != public_key_info(owner.key):
            raise _broken("This is not the key of the last owner of the voucher.")
        if not _is_of_one_kind(next_owner, self.header.manufacturer):
            raise _broken(_OTHER_KIND)
        payload = cbor.encode(
            [
                cbor.Raw(Hash.of(chain.algorithm, chain.last).raw),
                cbor.Raw(self.header.hash_of_device(chain.algorithm).raw),
                _EMPTY_EXTRA,
                cbor.Raw(next_owner.raw),
            ]
        )
        signed = sign1(owner_key, owner.signature_type, payload)
        entries = (*self.entries, VoucherEntry.read(cbor.read(signed)))
        voucher = self.make(self.header, self.hmac, self.device_chain, entries)
        voucher.verify()
        return voucher


def _check_version(item: cbor.Item) -> None:
    if item.unsigned() != PROTOCOL_VERSION:
        raise _broken(f"This is of FDO version {item.unsigned()}; {PROTOCOL_VERSION} is known here.")


def _check_room(entries: int) -> None:
    """Whether there may be one more entry than these. A device counts them in a byte: FDO 1.1, 5.5.4."""
    if entries >= ENTRIES_LIMIT:
        raise _broken(f"A voucher has at most {ENTRIES_LIMIT} entries.")


def _is_of_one_kind(one: FdoPublicKey, other: FdoPublicKey) -> bool:
    """FDO 1.1, 3.4: all keys of a voucher have the type and the size of the manufacturer's."""
    return (one.kind, one.key.key_size) == (other.kind, other.key.key_size)


def _without_armour(data: bytes) -> bytes:
    if data.startswith(_ARRAY_OF_5):
        return data
    found = _ARMOUR.findall(data)
    if len(found) != 1:
        raise _broken(f"The file does not hold exactly one {_LABEL} in PEM.")
    try:
        return base64.b64decode(b"".join(found[0].split()), validate=True)
    except binascii.Error as error:
        raise _broken("The voucher is not proper PEM.") from error


def _broken(what: str) -> Fault:
    return Fault(what, ErrorCode.INVALID_VOUCHER)
