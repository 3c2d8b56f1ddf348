"""The two items of a digital signature (PS3.3 C.12.1.1.3): what to check, and the check value."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from operator import lt

from agent.dicom.elements import (
    CODE_MEANING,
    CODE_VALUE,
    CODING_SCHEME_DESIGNATOR,
    EXPLICIT_LITTLE_ENDIAN,
    ITEM,
    SEQUENCE_DELIMITATION,
    SWAPPED_WIDTHS,
    Encoding,
    swap,
)
from agent.dicom.purposes import CODING_SCHEME, PURPOSES
from agent.dicom.signable import is_signable

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
CERTIFIED_TIMESTAMP_TYPE = 0x04000305
CERTIFIED_TIMESTAMP = 0x04000310
DIGITAL_SIGNATURE_PURPOSE_CODE_SEQUENCE = 0x04000401

ITEM_VRS = {
    MAC_ID_NUMBER: b"US",
    MAC_CALCULATION_TRANSFER_SYNTAX_UID: b"UI",
    MAC_ALGORITHM: b"CS",
    DATA_ELEMENTS_SIGNED: b"AT",
    DIGITAL_SIGNATURE_UID: b"UI",
    DIGITAL_SIGNATURE_DATETIME: b"DT",
    CERTIFICATE_TYPE: b"CS",
    CERTIFICATE_OF_SIGNER: b"OB",
    SIGNATURE: b"OB",
    CERTIFIED_TIMESTAMP_TYPE: b"CS",
    CERTIFIED_TIMESTAMP: b"OB",
    DIGITAL_SIGNATURE_PURPOSE_CODE_SEQUENCE: b"SQ",
}
_VRS = {**ITEM_VRS, CODE_VALUE: b"SH", CODING_SCHEME_DESIGNATOR: b"SH", CODE_MEANING: b"LO"}


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

    @cached_property
    def signed_set(self) -> frozenset[int]:
        """Data Elements Signed, without the order."""
        return frozenset(self.signed_tags)

    @cached_property
    def in_order(self) -> bool:
        """Whether Data Elements Signed is in the order of a data set, each tag once."""
        return all(map(lt, self.signed_tags, self.signed_tags[1:]))

    @cached_property
    def never_signed(self) -> tuple[int, ...]:
        """The listed tags that no signature can cover, whatever their VR (PS3.3 C.12.1.1.3.1.1)."""
        return tuple(tag for tag in self.signed_tags if not is_signable(tag))

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
        purpose: A code of CID 7007, or empty.
    """

    mac_id: int
    uid: str
    signed_at: datetime
    purpose: str = ""

    def _signed_fields(self) -> dict[int, bytes]:
        return {
            MAC_ID_NUMBER: struct.pack("<H", self.mac_id),
            DIGITAL_SIGNATURE_UID: _padded(self.uid, b"\0"),
            # In UTC and with the offset: DCMTK compares it with the certificate's validity as if it were UTC.
            DIGITAL_SIGNATURE_DATETIME: _padded(f"{self.signed_at.astimezone(UTC):%Y%m%d%H%M%S.%f}+0000", b" "),
            CERTIFICATE_TYPE: _padded("X509_1993_SIG", b" "),
        }

    def _purpose_code(self) -> dict[int, bytes]:
        return {
            CODE_VALUE: _padded(self.purpose, b" "),
            CODING_SCHEME_DESIGNATOR: _padded(CODING_SCHEME, b" "),
            CODE_MEANING: _padded(PURPOSES[self.purpose], b" "),
        }

    def mac_bytes(self) -> bytes:
        """What the MAC covers of the item (PS3.3 C.12.1.1.3.1.1); of a sequence, everything but the lengths."""
        fields = _encoded_elements(self._signed_fields(), EXPLICIT_LITTLE_ENDIAN)
        if not self.purpose:
            return fields
        return b"".join(
            (
                fields,
                EXPLICIT_LITTLE_ENDIAN.header(DIGITAL_SIGNATURE_PURPOSE_CODE_SEQUENCE, b"SQ", 0)[:8],
                EXPLICIT_LITTLE_ENDIAN.item_header(ITEM, 0)[:4],
                _encoded_elements(self._purpose_code(), EXPLICIT_LITTLE_ENDIAN),
                EXPLICIT_LITTLE_ENDIAN.item_header(SEQUENCE_DELIMITATION, 0)[:4],
            )
        )

    def encoded(self, signature: bytes, certificate: bytes, encoding: Encoding) -> bytes:
        """The whole item, header included.

        Args:
            signature: The signature of the MAC.
            certificate: The signer's certificate, DER.
            encoding: Of the instance.
        """
        fields = self._signed_fields()
        fields |= {CERTIFICATE_OF_SIGNER: _padded(certificate, b"\0"), SIGNATURE: _padded(signature, b"\0")}
        if self.purpose:
            fields[DIGITAL_SIGNATURE_PURPOSE_CODE_SEQUENCE] = _encoded_item(self._purpose_code(), encoding)
        return _encoded_item(fields, encoding)


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
