"""What is in the messages of TO2: FDO 1.1, 5.5 and 5.6; see `messages`. What signs or encrypts them is elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from enroll.fdo import cbor
from enroll.fdo.hashes import Hash
from enroll.fdo.messages import (
    KEY_EXCHANGE_LIMIT,
    TEXT_LIMIT,
    UINT16,
    read_guid,
    read_nonce,
    read_signature_info,
    signature_info,
)
from enroll.fdo.public_key import FdoPublicKey, SignatureType
from enroll.fdo.voucher import ENTRIES_LIMIT

DEFAULT_SERVICE_INFO_SIZE = 1300  # bytes; what null means in 66 and 67
LEAST_SERVICE_INFO_SIZE = 256  # bytes
SERVICE_INFO_KEY_LIMIT = 128  # bytes of a key of service info, so that an answer to it fits into the smallest message
# Headers of 61 and 64 beside the signed payload: FDO 1.1, 5.5.
NONCE_HEADER, OWNER_KEY_HEADER = 256, 257
SETUP_NONCE_HEADER = -259


@dataclass(frozen=True)
class HelloDevice:
    """Message 60: a device begins with an owner."""

    max_message_size: int
    guid: bytes
    nonce: bytes
    key_exchange: str
    cipher: int
    signature_type: SignatureType

    def encode(self) -> bytes:
        """As it is sent."""
        info = signature_info(self.signature_type)
        return cbor.encode([self.max_message_size, self.guid, self.nonce, self.key_exchange, self.cipher, info])

    @classmethod
    def read(cls, item: cbor.Item) -> Self:
        """As it was received."""
        size, guid, nonce, key_exchange, cipher, info = item.array(6)
        return cls(
            size.unsigned(UINT16),
            read_guid(guid),
            read_nonce(nonce),
            key_exchange.text(TEXT_LIMIT),
            cipher.integer(),
            read_signature_info(info),
        )


@dataclass(frozen=True)
class ProveOvHdr:
    """The payload of 61: an owner shows its voucher.

    Args:
        header: The OVHeader, encoded.
        entries: How many there are.
        hmac: Of the device, over the header.
        nonce: NonceTO2ProveOV, as the device sent it.
        signature_type: As the device sent it.
        key_exchange: xA.
        hello_device_hash: Over message 60.
        max_message_size: What the owner takes.
    """

    header: bytes
    entries: int
    hmac: Hash
    nonce: bytes
    signature_type: SignatureType
    key_exchange: bytes
    hello_device_hash: Hash
    max_message_size: int

    def encode(self) -> bytes:
        """As it is signed."""
        return cbor.encode(
            [
                self.header,
                self.entries,
                cbor.Raw(self.hmac.raw),
                self.nonce,
                signature_info(self.signature_type),
                self.key_exchange,
                cbor.Raw(self.hello_device_hash.raw),
                self.max_message_size,
            ]
        )

    @classmethod
    def read(cls, item: cbor.Item) -> Self:
        """As it was received."""
        header, entries, hmac, nonce, info, key_exchange, hello, size = item.array(8)
        return cls(
            header.bytes(),
            entries.unsigned(ENTRIES_LIMIT),
            Hash.read(hmac),
            read_nonce(nonce),
            read_signature_info(info),
            key_exchange.bytes(KEY_EXCHANGE_LIMIT),
            Hash.read(hello),
            size.unsigned(UINT16),
        )


@dataclass(frozen=True)
class SetupDevice:
    """The payload of 65: what the device is to be from now on.

    Args:
        rendezvous: RVInfo.
        guid: The next GUID.
        nonce: NonceTO2SetupDv, as the device sent it.
        owner_key: Owner2Key.
    """

    rendezvous: cbor.Raw
    guid: bytes
    nonce: bytes
    owner_key: FdoPublicKey

    def encode(self) -> bytes:
        """As it is signed."""
        return cbor.encode([self.rendezvous, self.guid, self.nonce, cbor.Raw(self.owner_key.raw)])

    @classmethod
    def read(cls, item: cbor.Item) -> Self:
        """As it was received; `rendezvous` is not looked into."""
        rendezvous, guid, nonce, owner_key = item.array(4)
        return cls(cbor.Raw(rendezvous.raw), read_guid(guid), read_nonce(nonce), FdoPublicKey.read(owner_key))


@dataclass(frozen=True)
class DeviceServiceInfoReady:
    """Message 66.

    Args:
        hmac: Over the next OVHeader; None where the credential is used again.
        max_size: Bytes of service info that the device takes; None means `DEFAULT_SERVICE_INFO_SIZE`.
    """

    hmac: Hash | None
    max_size: int | None

    def encode(self) -> bytes:
        """As it is sent."""
        return cbor.encode([None if self.hmac is None else cbor.Raw(self.hmac.raw), self.max_size])

    @classmethod
    def read(cls, item: cbor.Item) -> Self:
        """As it was received."""
        hmac, size = item.array(2)
        return cls(None if hmac.is_null else Hash.read(hmac), _read_size(size))


@dataclass(frozen=True)
class OwnerServiceInfoReady:
    """Message 67: what the owner takes; None means `DEFAULT_SERVICE_INFO_SIZE`."""

    max_size: int | None

    def encode(self) -> bytes:
        """As it is sent."""
        return cbor.encode([self.max_size])

    @classmethod
    def read(cls, item: cbor.Item) -> Self:
        """As it was received; one implementation sends an empty array for null."""
        parts = item.array(0, 1)
        return cls(_read_size(parts[0]) if parts else None)


@dataclass(frozen=True)
class ServiceInfo:
    """Some service info: a key such as "devmod:active", and a piece of the CBOR that it has for a value."""

    key: str
    value: bytes


@dataclass(frozen=True)
class DeviceServiceInfo:
    """Message 68."""

    is_more: bool
    info: tuple[ServiceInfo, ...]

    def encode(self) -> bytes:
        """As it is sent."""
        return cbor.encode([self.is_more, _service_info(self.info)])

    @classmethod
    def read(cls, item: cbor.Item) -> Self:
        """As it was received."""
        is_more, info = item.array(2)
        return cls(is_more.boolean(), _read_service_info(info))


@dataclass(frozen=True)
class OwnerServiceInfo:
    """Message 69."""

    is_more: bool
    is_done: bool
    info: tuple[ServiceInfo, ...]

    def encode(self) -> bytes:
        """As it is sent."""
        return cbor.encode([self.is_more, self.is_done, _service_info(self.info)])

    @classmethod
    def read(cls, item: cbor.Item) -> Self:
        """As it was received."""
        is_more, is_done, info = item.array(3)
        return cls(is_more.boolean(), is_done.boolean(), _read_service_info(info))


def _read_size(item: cbor.Item) -> int | None:
    return None if item.is_null else item.unsigned(UINT16)


def _service_info(info: Sequence[ServiceInfo]) -> list[list[str | bytes]]:
    return [[each.key, each.value] for each in info]


def _read_service_info(item: cbor.Item) -> tuple[ServiceInfo, ...]:
    pairs = (part.array(2) for part in item.array())
    return tuple(ServiceInfo(key.text(SERVICE_INFO_KEY_LIMIT), value.bytes()) for key, value in pairs)
