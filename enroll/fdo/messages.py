"""The messages, and what is in those of DI and TO1: FDO 1.1, 5 "Protocols". What signs them is elsewhere.

Each class reads itself from what was received and encodes what is sent; `read` raises `Fault` for anything that it does
not allow. A message of one direction is written and read here as well, because the servers for trying out speak to the
same device.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Self, TypeVar

from enroll.fdo import cbor
from enroll.fdo.fault import Fault
from enroll.fdo.public_key import KeyEncoding, KeyType, SignatureType

PROTOCOL_VERSION = 101
MESSAGE_LIMIT = 64 * 1024 - 1  # bytes of a body; a uint16 says how much the other side takes
NONCE_SIZE = 16  # bytes
GUID_SIZE = 16  # bytes
TEXT_LIMIT = 1024  # bytes of a name or an error text
CSR_LIMIT = 8 * 1024  # bytes
KEY_EXCHANGE_LIMIT = 1024  # bytes of xA and xB

UINT16 = 2**16 - 1
# Claims of an EAT: FDO 1.1, 3.3.6.
_EAT_NONCE, _EAT_UEID, _EAT_FDO = 10, 256, -257
_UEID_RANDOM = b"\x01"  # the type of a UEID that is a number of no further meaning


Number = TypeVar("Number", bound=IntEnum)


class MessageType(IntEnum):
    """The numbers of the messages."""

    DI_APP_START = 10
    DI_SET_CREDENTIALS = 11
    DI_SET_HMAC = 12
    DI_DONE = 13
    TO0_HELLO = 20
    TO0_HELLO_ACK = 21
    TO0_OWNER_SIGN = 22
    TO0_ACCEPT_OWNER = 23
    TO1_HELLO_RV = 30
    TO1_HELLO_RV_ACK = 31
    TO1_PROVE_TO_RV = 32
    TO1_RV_REDIRECT = 33
    TO2_HELLO_DEVICE = 60
    TO2_PROVE_OV_HDR = 61
    TO2_GET_OV_NEXT_ENTRY = 62
    TO2_OV_NEXT_ENTRY = 63
    TO2_PROVE_DEVICE = 64
    TO2_SETUP_DEVICE = 65
    TO2_DEVICE_SERVICE_INFO_READY = 66
    TO2_OWNER_SERVICE_INFO_READY = 67
    TO2_DEVICE_SERVICE_INFO = 68
    TO2_OWNER_SERVICE_INFO = 69
    TO2_DONE = 70
    TO2_DONE2 = 71
    ERROR = 255


@dataclass(frozen=True)
class ManufacturingInfo:
    """What a device tells its factory. Not part of the standard; the implementations agree on it.

    Args:
        kind: Of the key that manufacturer and owners are to have.
        encoding: How it is to be written.
        serial_number: Of the device.
        device_info: Its model, as the voucher will name it.
        csr: PKCS#10 of the device key.
    """

    kind: KeyType
    encoding: KeyEncoding
    serial_number: str
    device_info: str
    csr: bytes

    def encode(self) -> bytes:
        """Message 10."""
        inner: list[cbor.Encodable] = [self.kind, self.encoding, self.serial_number, self.device_info, self.csr]
        return cbor.encode([cbor.encode(inner)])

    @classmethod
    def read(cls, item: cbor.Item) -> Self:
        """Message 10; without any such information it is of no use here."""
        (wrapped,) = item.array(1)
        kind, encoding, serial_number, device_info, csr = wrapped.embedded().array(5)
        return cls(
            _member(KeyType, kind),
            _member(KeyEncoding, encoding),
            serial_number.text(TEXT_LIMIT),
            device_info.text(TEXT_LIMIT),
            csr.bytes(CSR_LIMIT),
        )


@dataclass(frozen=True)
class HelloRv:
    """Message 30: a device asks for its owner."""

    guid: bytes
    signature_type: SignatureType

    def encode(self) -> bytes:
        """As it is sent."""
        return cbor.encode([self.guid, signature_info(self.signature_type)])

    @classmethod
    def read(cls, item: cbor.Item) -> Self:
        """As it was received."""
        guid, info = item.array(2)
        return cls(read_guid(guid), read_signature_info(info))


@dataclass(frozen=True)
class HelloRvAck:
    """Message 31: what the device has to sign."""

    nonce: bytes
    signature_type: SignatureType

    def encode(self) -> bytes:
        """As it is sent."""
        return cbor.encode([self.nonce, signature_info(self.signature_type)])

    @classmethod
    def read(cls, item: cbor.Item) -> Self:
        """As it was received."""
        nonce, info = item.array(2)
        return cls(read_nonce(nonce), read_signature_info(info))


@dataclass(frozen=True)
class EntityAttestationToken:
    """The payload of 32 and 64: which device this is (RFC 9711, with the claims of FDO).

    Args:
        nonce: Of the other side.
        guid: Of the device.
        key_exchange: xB, in 64.
    """

    nonce: bytes
    guid: bytes
    key_exchange: bytes | None = None

    def encode(self) -> bytes:
        """As it is signed."""
        claims: dict[int, cbor.Encodable] = {_EAT_NONCE: self.nonce, _EAT_UEID: _UEID_RANDOM + self.guid}
        if self.key_exchange is not None:
            claims[_EAT_FDO] = [self.key_exchange]
        return cbor.encode(claims)

    @classmethod
    def read(cls, item: cbor.Item) -> Self:
        """As it was received."""
        claims = item.map()
        if not {_EAT_NONCE, _EAT_UEID} <= claims.keys() <= {_EAT_NONCE, _EAT_UEID, _EAT_FDO}:
            raise Fault("An entity attestation token has not the claims that it must have.")
        ueid = claims[_EAT_UEID].bytes(1 + GUID_SIZE, 1 + GUID_SIZE)
        if ueid[:1] != _UEID_RANDOM:
            raise Fault("The UEID of a device is not of the type random.")
        exchange = None
        if _EAT_FDO in claims:
            (parameter,) = claims[_EAT_FDO].array(1)
            exchange = parameter.bytes(KEY_EXCHANGE_LIMIT)
        return cls(read_nonce(claims[_EAT_NONCE]), ueid[1:], exchange)


@dataclass(frozen=True)
class ErrorMessage:
    """Message 255.

    Args:
        code: Of `fault.ErrorCode`, or any other number.
        previous: The message that it answers.
        text: For a person.
    """

    code: int
    previous: int
    text: str

    def encode(self) -> bytes:
        """As it is sent; without a time, and without a number to ask for."""
        return cbor.encode([self.code, self.previous, _shortened(self.text), 0, 0])

    @classmethod
    def read(cls, body: bytes) -> Self:
        """As it was received. Servers differ in the last two parts, and some send something else altogether."""
        try:
            code, previous, text, *_ = cbor.read(body).array(3, 4, 5)
            return cls(code.unsigned(UINT16), previous.unsigned(255), _shortened(text.text()))
        except Fault:
            return cls(0, 0, "")


def nonce_message(nonce: bytes) -> bytes:
    """Messages 21, 70 and 71: a nonce, and nothing else."""
    return cbor.encode([nonce])


def read_nonce_message(item: cbor.Item) -> bytes:
    """The nonce of 21, 70 or 71."""
    (nonce,) = item.array(1)
    return read_nonce(nonce)


def read_nonce(item: cbor.Item) -> bytes:
    """A nonce."""
    return item.bytes(NONCE_SIZE, NONCE_SIZE)


def read_guid(item: cbor.Item) -> bytes:
    """A GUID."""
    return item.bytes(GUID_SIZE, GUID_SIZE)


def signature_info(kind: SignatureType) -> list[cbor.Encodable]:
    """How the device signs (sigInfo)."""
    return [kind, b""]


def read_signature_info(item: cbor.Item) -> SignatureType:
    """The same, as it was received."""
    number, info = item.array(2)
    info.bytes(0)
    return _member(SignatureType, number)


def _shortened(text: str) -> str:
    return text.encode("utf-8")[:TEXT_LIMIT].decode("utf-8", "ignore")


def _member(kind: type[Number], item: cbor.Item) -> Number:
    if item.integer() not in list(kind):
        raise Fault(f"There is no {kind.__name__} {item.integer()}.")
    return kind(item.integer())
