"""The two items of a digital signature as they are found in an instance (PS3.3 C.12.1.1.3), read strictly."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from itertools import islice

from agent.dicom.data_set import DataSet
from agent.dicom.elements import (
    CODE_MEANING,
    CODE_VALUE,
    CODING_SCHEME_DESIGNATOR,
    DATA_SET_TRAILING_PADDING,
    Encoding,
    tag_name,
)
from agent.dicom.headers import DEFAULT_LIMITS, malformed
from agent.dicom.signature_items import (
    CERTIFICATE_OF_SIGNER,
    CERTIFICATE_TYPE,
    CERTIFIED_TIMESTAMP,
    CERTIFIED_TIMESTAMP_TYPE,
    DATA_ELEMENTS_SIGNED,
    DIGITAL_SIGNATURE_DATETIME,
    DIGITAL_SIGNATURE_PURPOSE_CODE_SEQUENCE,
    DIGITAL_SIGNATURE_UID,
    ITEM_VRS,
    MAC_ALGORITHM,
    MAC_CALCULATION_TRANSFER_SYNTAX_UID,
    MAC_ID_NUMBER,
    SIGNATURE,
    MacParameters,
)
from agent.dicom.stream import Hash

MOST_PURPOSES = 18  # CID 7007 has as many

_MAC_PARAMETERS_TAGS = frozenset(
    (MAC_ID_NUMBER, MAC_CALCULATION_TRANSFER_SYNTAX_UID, MAC_ALGORITHM, DATA_ELEMENTS_SIGNED)
)
# PS3.3 C.12.1.1.3.1.1: everything in the item is part of the MAC, except these.
_NOT_IN_MAC = frozenset((CERTIFICATE_OF_SIGNER, SIGNATURE, CERTIFIED_TIMESTAMP_TYPE, CERTIFIED_TIMESTAMP))
_IN_MAC = frozenset(
    (
        MAC_ID_NUMBER,
        DIGITAL_SIGNATURE_UID,
        DIGITAL_SIGNATURE_DATETIME,
        CERTIFICATE_TYPE,
        DIGITAL_SIGNATURE_PURPOSE_CODE_SEQUENCE,
    )
)


@dataclass(frozen=True)
class DigitalSignature:
    """An item of the Digital Signatures Sequence (FFFA,FFFA).

    Args:
        mac_id: MAC ID Number.
        uid: Digital Signature UID.
        signed_at: Digital Signature DateTime as written.
        certificate_type: Certificate Type.
        certificate: Certificate of Signer, with its padding.
        signature: The signature, with its padding.
        time_stamp_type: Certified Timestamp Type; empty where there is none.
        time_stamp: Certified Timestamp, with its padding; empty where there is none.
        purposes: Digital Signature Purpose codes, as "14^ASTM-sigpurpose^Source Signature".
    """

    mac_id: int
    uid: str
    signed_at: str
    certificate_type: str
    certificate: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    time_stamp_type: str
    time_stamp: bytes = field(repr=False)
    purposes: tuple[str, ...]
    _item: DataSet = field(repr=False)

    @classmethod
    def read(cls, item: bytes, encoding: Encoding) -> DigitalSignature:
        """Read an item.

        Args:
            item: Its content.
            encoding: Of the instance.

        Raises:
            DicomError: Not such an item. Foreign elements are refused: content that was moved from the data set into
                the item would not change the MAC.
        """
        found = _checked(item, encoding, _IN_MAC | _NOT_IN_MAC)
        return cls(
            mac_id=_mac_id(found),
            uid=_text(found, DIGITAL_SIGNATURE_UID),
            signed_at=_text(found, DIGITAL_SIGNATURE_DATETIME),
            certificate_type=_text(found, CERTIFICATE_TYPE),
            certificate=_value(found, CERTIFICATE_OF_SIGNER),
            signature=_value(found, SIGNATURE),
            time_stamp_type=found.text(CERTIFIED_TIMESTAMP_TYPE),
            time_stamp=found.value(CERTIFIED_TIMESTAMP),
            purposes=_purposes(found),
            _item=found,
        )

    def cover(self, state: Hash) -> None:
        """Hash what the MAC covers of the item (PS3.3 C.12.1.1.3.1.1).

        Args:
            state: The hash of the covered elements of the data set.
        """
        self._item.cover(_IN_MAC, state)


def mac_parameters_of(item: bytes, encoding: Encoding) -> MacParameters:
    """Read an item of the MAC Parameters Sequence (4FFE,0001).

    Args:
        item: Its content.
        encoding: Of the instance.

    Raises:
        DicomError: Not such an item.
    """
    found = _checked(item, encoding, _MAC_PARAMETERS_TAGS)
    tags = found.value(DATA_ELEMENTS_SIGNED)
    if len(tags) % 4:
        raise malformed(f"{tag_name(DATA_ELEMENTS_SIGNED)} holds no whole number of tags.", "signature-malformed")
    halves = struct.unpack(f"{encoding.order}{len(tags) // 2}H", tags)
    return MacParameters(
        mac_id=_mac_id(found),
        transfer_syntax=_text(found, MAC_CALCULATION_TRANSFER_SYNTAX_UID),
        algorithm=_text(found, MAC_ALGORITHM),
        signed_tags=tuple(group << 16 | element for group, element in zip(halves[::2], halves[1::2], strict=True)),
    )


def _checked(item: bytes, encoding: Encoding, allowed: frozenset[int]) -> DataSet:
    found = DataSet(item, 0, len(item), encoding, DEFAULT_LIMITS)
    # Group lengths and padding, which some writers add, are never part of a MAC.
    if foreign := [tag for tag in found if tag not in allowed and tag & 0xFFFF and tag != DATA_SET_TRAILING_PADDING]:
        raise malformed(f"{tag_name(foreign[0])} has no place in a signature item.", "signature-foreign-element")
    outline = found.survey.outline
    if outline.signatures or outline.mac_parameters or outline.nested_signatures or found.survey.unsignable:
        raise malformed("A signature item holds what no signature covers.", "signature-foreign-element")
    for tag in allowed.intersection(found):
        if found.vr(tag) != ITEM_VRS[tag]:
            raise malformed(f"{tag_name(tag)} in a signature item has the wrong VR.", "signature-malformed")
    return found


def _value(item: DataSet, tag: int) -> bytes:
    value = item.value(tag)
    if not value:
        raise malformed(f"A signature item has no {tag_name(tag)}, or an empty one.", "signature-malformed")
    return value


def _text(item: DataSet, tag: int) -> str:
    _value(item, tag)
    return item.text(tag)


def _mac_id(item: DataSet) -> int:
    number = item.number(MAC_ID_NUMBER)
    if number is None or len(item.value(MAC_ID_NUMBER)) != 2:
        raise malformed("MAC ID Number (0400,0005) is not one number.", "signature-malformed")
    return number


def _purposes(item: DataSet) -> tuple[str, ...]:
    codes = tuple(islice(item.items(DIGITAL_SIGNATURE_PURPOSE_CODE_SEQUENCE), MOST_PURPOSES + 1))
    if len(codes) > MOST_PURPOSES:
        raise malformed(f"A signature has more than {MOST_PURPOSES} purposes.", "signature-malformed")
    return tuple(map(_purpose, codes))


def _purpose(code: DataSet) -> str:
    return "^".join(code.text(tag) for tag in (CODE_VALUE, CODING_SCHEME_DESIGNATOR, CODE_MEANING))


def der_value(stored: bytes) -> bytes | None:
    """The one DER value that is stored as OB, without its padding; None if it is cut off or something follows it."""
    if len(stored) < 2:
        return None
    size = stored[1] & 0x7F if stored[1] >= 0x80 else 0  # X.690 8.1.3
    if size > 4 or len(stored) < 2 + size:
        return None
    return unpadded(stored, 2 + size + (int.from_bytes(stored[2 : 2 + size]) if size else stored[1]))


def unpadded(stored: bytes, length: int) -> bytes | None:
    """A value of odd length is padded with one byte 00 (PS3.5 6.2, OB); None where anything else follows it."""
    return stored[:length] if len(stored) >= length and stored[length:] in (b"", b"\0") else None
