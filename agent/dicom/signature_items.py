"""The two items of a digital signature (PS3.3 C.12.1.1.3): what to check, and the check value."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from agent.dicom.elements import EXPLICIT_LITTLE_ENDIAN, ITEM, SWAPPED_WIDTHS, Encoding, swap, tag_name
from agent.dicom.headers import DEFAULT_LIMITS, malformed
from agent.dicom.reader import Scanner
from agent.dicom.stream import Hash, MacStream
from agent.dicom.window import Window

MOST_SIGNATURES = 20  # in one instance; each one costs a verifier a walk through all of it

MAC_ID_NUMBER = 0x04000005
MAC_CALCULATION_TRANSFER_SYNTAX_UID = 0x04000010
MAC_ALGORITHM = 0x04000015
DATA_ELEMENTS_SIGNED = 0x04000020
DIGITAL_SIGNATURE_UID = 0x04000100
DIGITAL_SIGNATURE_DATETIME = 0x04000105
CERTIFICATE_TYPE = 0x04000110
CERTIFICATE_OF_SIGNER = 0x04000115
SIGNATURE = 0x04000120

_VRS = {
    MAC_ID_NUMBER: b"US",
    MAC_CALCULATION_TRANSFER_SYNTAX_UID: b"UI",
    MAC_ALGORITHM: b"CS",
    DATA_ELEMENTS_SIGNED: b"AT",
    DIGITAL_SIGNATURE_UID: b"UI",
    DIGITAL_SIGNATURE_DATETIME: b"DT",
    CERTIFICATE_TYPE: b"CS",
    CERTIFICATE_OF_SIGNER: b"OB",
    SIGNATURE: b"OB",
}
# PS3.3 C.12.1.1.3.1.1: everything in the item is part of the MAC, except these.
_NOT_IN_MAC = frozenset((CERTIFICATE_OF_SIGNER, SIGNATURE, 0x04000305, 0x04000310))
_SEQUENCES = frozenset((0x04000401,))  # Digital Signature Purpose Code Sequence
_MAC_PARAMETERS_TAGS = frozenset(
    (MAC_ID_NUMBER, MAC_CALCULATION_TRANSFER_SYNTAX_UID, MAC_ALGORITHM, DATA_ELEMENTS_SIGNED)
)
_DIGITAL_SIGNATURE_TAGS = (
    frozenset((MAC_ID_NUMBER, DIGITAL_SIGNATURE_UID, DIGITAL_SIGNATURE_DATETIME, CERTIFICATE_TYPE))
    | _NOT_IN_MAC
    | _SEQUENCES
)


@dataclass(frozen=True)
class MacParameters:
    """An item of the MAC Parameters Sequence (4FFE,0001).

    Args:
        mac_id: MAC ID Number; joins the two items.
        transfer_syntax: MAC Calculation Transfer Syntax UID.
        algorithm: MAC Algorithm, such as SHA256.
        signed_tags: Data Elements Signed, in order.
    """

    mac_id: int
    transfer_syntax: str
    algorithm: str
    signed_tags: tuple[int, ...]

    def encoded(self, encoding: Encoding) -> bytes:
        """The item, header included."""
        tags = b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in self.signed_tags)
        return _encoded_item(
            {
                MAC_ID_NUMBER: struct.pack("<H", self.mac_id),
                MAC_CALCULATION_TRANSFER_SYNTAX_UID: _padded(self.transfer_syntax, b"\0"),
                MAC_ALGORITHM: _padded(self.algorithm, b" "),
                DATA_ELEMENTS_SIGNED: tags,
            },
            encoding,
        )


@dataclass(frozen=True)
class NewSignature:
    """The part of an item of the Digital Signatures Sequence (FFFA,FFFA) that is known before it is signed.

    Args:
        mac_id: MAC ID Number.
        uid: Digital Signature UID.
        signed_at: Digital Signature DateTime.
    """

    mac_id: int
    uid: str
    signed_at: datetime

    def _signed_fields(self) -> dict[int, bytes]:
        return {
            MAC_ID_NUMBER: struct.pack("<H", self.mac_id),
            DIGITAL_SIGNATURE_UID: _padded(self.uid, b"\0"),
            # In UTC and with the offset: DCMTK compares it with the certificate's validity as if it were UTC.
            DIGITAL_SIGNATURE_DATETIME: _padded(f"{self.signed_at.astimezone(UTC):%Y%m%d%H%M%S.%f}+0000", b" "),
            CERTIFICATE_TYPE: _padded("X509_1993_SIG", b" "),
        }

    def mac_bytes(self) -> bytes:
        """What the MAC covers of the item (PS3.3 C.12.1.1.3.1.1)."""
        return _encoded_elements(self._signed_fields(), EXPLICIT_LITTLE_ENDIAN)

    def encoded(self, signature: bytes, certificate: bytes, encoding: Encoding) -> bytes:
        """The whole item, header included.

        Args:
            signature: The signature of the MAC.
            certificate: The signer's certificate, DER.
            encoding: Of the instance.
        """
        return _encoded_item(
            self._signed_fields()
            | {CERTIFICATE_OF_SIGNER: _padded(certificate, b"\0"), SIGNATURE: _padded(signature, b"\0")},
            encoding,
        )


@dataclass(frozen=True)
class DigitalSignature:
    """An item of the Digital Signatures Sequence as it was found.

    Args:
        mac_id: MAC ID Number.
        uid: Digital Signature UID.
        signed_at: Digital Signature DateTime as written.
        certificate: Certificate of Signer, with its padding.
        signature: The signature, with its padding.
    """

    mac_id: int
    uid: str
    signed_at: str
    certificate: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def read_mac_parameters(item: bytes, encoding: Encoding) -> MacParameters:
    """Read an item of the MAC Parameters Sequence.

    Raises:
        DicomError: Not such an item.
    """
    values = _read_item(item, encoding, _MAC_PARAMETERS_TAGS, hashlib.sha256())
    tags = _value(values, DATA_ELEMENTS_SIGNED)
    if len(tags) % 4:
        raise malformed(f"{tag_name(DATA_ELEMENTS_SIGNED)} holds no whole number of tags.", "signature-malformed")
    halves = struct.unpack(f"{encoding.order}{len(tags) // 2}H", tags)
    return MacParameters(
        mac_id=_mac_id(values, encoding),
        transfer_syntax=_text(values, MAC_CALCULATION_TRANSFER_SYNTAX_UID),
        algorithm=_text(values, MAC_ALGORITHM),
        signed_tags=tuple(group << 16 | element for group, element in zip(halves[::2], halves[1::2], strict=True)),
    )


def read_digital_signature(item: bytes, encoding: Encoding, state: Hash) -> DigitalSignature:
    """Read an item of the Digital Signatures Sequence, and hash what the MAC covers of it.

    Args:
        item: The content of the item.
        encoding: Of the instance.
        state: The hash of the covered elements of the data set.

    Raises:
        DicomError: Not such an item. Foreign elements are refused: content that was moved from the data set into the
            item would not change the MAC.
    """
    values = _read_item(item, encoding, _DIGITAL_SIGNATURE_TAGS, state)
    return DigitalSignature(
        mac_id=_mac_id(values, encoding),
        uid=_text(values, DIGITAL_SIGNATURE_UID),
        signed_at=_text(values, DIGITAL_SIGNATURE_DATETIME),
        certificate=_value(values, CERTIFICATE_OF_SIGNER),
        signature=_value(values, SIGNATURE),
    )


def _read_item(item: bytes, encoding: Encoding, allowed: frozenset[int], state: Hash) -> dict[int, bytes]:
    window = Window.over(item)
    mac = MacStream(window, state)
    seen: list[int] = []

    def covers(tag: int) -> bool:
        seen.append(tag)
        return tag not in _NOT_IN_MAC

    scanner = Scanner(
        window,
        encoding,
        encapsulated=False,
        mac=mac,
        covers=covers,
        limits=DEFAULT_LIMITS,
        capture=allowed - _SEQUENCES,
    )
    outline = scanner.walk()
    mac.flush()
    if foreign := set(seen) - allowed:
        raise malformed(f"{tag_name(min(foreign))} has no place in a signature item.", "signature-malformed")
    return outline.values


def _value(values: Mapping[int, bytes], tag: int) -> bytes:
    if not values.get(tag):
        raise malformed(f"A signature item has no {tag_name(tag)}, or an empty one.", "signature-malformed")
    return values[tag]


def _text(values: Mapping[int, bytes], tag: int) -> str:
    text = _value(values, tag).rstrip(b"\0 ").decode("ascii", "replace")
    # It ends up in reports and on terminals.
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _mac_id(values: Mapping[int, bytes], encoding: Encoding) -> int:
    value = _value(values, MAC_ID_NUMBER)
    if len(value) != 2:
        raise malformed("MAC ID Number (0400,0005) is not one number.", "signature-malformed")
    return int.from_bytes(value, "little" if encoding.little_endian else "big")


def _padded(value: str | bytes, padding: bytes) -> bytes:
    data = value.encode("ascii") if isinstance(value, str) else value
    return data + padding * (len(data) % 2)


def _encoded_elements(values: Mapping[int, bytes], encoding: Encoding) -> bytes:
    parts = []
    for tag, value in sorted(values.items()):
        vr = _VRS[tag]
        width = SWAPPED_WIDTHS.get(vr, 1)
        stored = value if encoding.little_endian or width == 1 else swap(value, width)
        parts += [encoding.header(tag, vr, len(value)), stored]
    return b"".join(parts)


def _encoded_item(values: Mapping[int, bytes], encoding: Encoding) -> bytes:
    elements = _encoded_elements(values, encoding)
    return encoding.item_header(ITEM, len(elements)) + elements
