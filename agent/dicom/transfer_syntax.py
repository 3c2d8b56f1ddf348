"""The start of a DICOM file (PS3.10 7.1): preamble, file meta information, and the transfer syntax it names."""

from __future__ import annotations

from dataclasses import dataclass

from agent.dicom.elements import (
    EXPLICIT_BIG_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    Encoding,
    tag_name,
)
from agent.dicom.headers import HeaderReader, Limits, Scope, malformed
from agent.dicom.window import Window
from agent.errors import DicomError

PREAMBLE_SIZE = 128
PREFIX = b"DICM"
GROUP_LENGTH = 0x00020000
MEDIA_STORAGE_SOP_CLASS_UID = 0x00020002
MEDIA_STORAGE_SOP_INSTANCE_UID = 0x00020003
TRANSFER_SYNTAX_UID = 0x00020010
_UIDS = (MEDIA_STORAGE_SOP_CLASS_UID, MEDIA_STORAGE_SOP_INSTANCE_UID, TRANSFER_SYNTAX_UID)
_VRS = {GROUP_LENGTH: b"UL", **dict.fromkeys(_UIDS, b"UI")}
FILE_META_LIMIT = 64 * 1024  # bytes
MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
# The MAC of a native data set is the same under each of these: the bytes are explicit VR little endian, not deflated.
MAC_NATIVE_SYNTAXES = frozenset((EXPLICIT_VR_LITTLE_ENDIAN, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN))

# PS3.5 Annex A.4, PS3.6 Table A-1. Not here, and refused: the JPIP syntaxes, because the pixels are elsewhere, and
# private ones, because nobody else could check the signature.
_STANDARD = "1.2.840.10008.1.2."
_ENCAPSULATED_ENDINGS = (
    *("1.98", "5", "8.1"),  # encapsulated uncompressed, RLE, deflated image frames
    *(f"4.{number}" for number in (*range(50, 67), 70, 80, 81, *range(90, 94))),  # JPEG, JPEG-LS, JPEG 2000
    *(f"4.{number}{part}" for number in range(100, 107) for part in ("", ".1")),  # MPEG2, MPEG-4
    *(f"4.{number}" for number in (107, 108, 110, 111, 112, 201, 202, 203)),  # HEVC, JPEG XL, HTJ2K
)
ENCAPSULATED = frozenset(_STANDARD + ending for ending in _ENCAPSULATED_ENDINGS)


@dataclass(frozen=True)
class FileMeta:
    """What the file meta information says. No signature covers it.

    Args:
        syntax: How the data set behind it is stored.
        sop_class_uid: Media Storage SOP Class UID (0002,0002); empty where it is missing.
        sop_instance_uid: Media Storage SOP Instance UID (0002,0003); empty where it is missing.
    """

    syntax: TransferSyntax
    sop_class_uid: str
    sop_instance_uid: str

    @property
    def is_directory(self) -> bool:
        """Whether it is a DICOMDIR, whose data set names neither (PS3.3 F.3.2.2)."""
        return self.sop_class_uid == MEDIA_STORAGE_DIRECTORY


@dataclass(frozen=True)
class TransferSyntax:
    """How the data set behind the file meta information is stored.

    Args:
        uid: Its UID.
        encoding: The layout of data elements.
        deflated: Whether the data set is compressed as a whole (PS3.5 A.5).
    """

    uid: str
    encoding: Encoding
    deflated: bool = False

    @property
    def encapsulated(self) -> bool:
        """Whether Pixel Data is stored in fragments (PS3.5 A.4)."""
        return self.uid in ENCAPSULATED

    @property
    def for_mac(self) -> str:
        """The MAC Calculation Transfer Syntax UID (0400,0010): explicit VR little endian in any case."""
        return self.uid if self.encoding is EXPLICIT_LITTLE_ENDIAN else EXPLICIT_VR_LITTLE_ENDIAN


_NATIVE = {
    syntax.uid: syntax
    for syntax in (
        TransferSyntax("1.2.840.10008.1.2", IMPLICIT_LITTLE_ENDIAN),
        TransferSyntax(EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_LITTLE_ENDIAN),
        TransferSyntax(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_LITTLE_ENDIAN, deflated=True),
        TransferSyntax("1.2.840.10008.1.2.2", EXPLICIT_BIG_ENDIAN),
    )
}


def transfer_syntax(uid: str) -> TransferSyntax:
    """The transfer syntax of that UID.

    Raises:
        DicomError: Not one that can be signed.
    """
    if uid in ENCAPSULATED:
        return TransferSyntax(uid, EXPLICIT_LITTLE_ENDIAN)
    if uid not in _NATIVE:
        raise DicomError(
            f"The transfer syntax {uid[:64]!r} is not supported.",
            remedy="Store the instance in a standard transfer syntax that holds its own pixel data.",
            code="transfer-syntax-unsupported",
        )
    return _NATIVE[uid]


def read_file_meta(window: Window, limits: Limits) -> FileMeta:
    """Consume the preamble and the file meta information.

    Raises:
        DicomError: Not a DICOM file, or no usable transfer syntax.
    """
    _read_prefix(window)
    headers = HeaderReader(window, limits, encapsulated=False)
    scope = Scope(EXPLICIT_LITTLE_ENDIAN)
    start = window.offset
    uids: dict[int, str] = {}
    announced: int | None = None
    last = -1
    while not window.at_end():
        window.need(4)
        position = window.position
        if bytes(window.view[position : position + 2]) != b"\x02\x00":
            break
        header = headers.element(scope)
        if header.tag <= last or window.offset - start > FILE_META_LIMIT:
            raise malformed(f"{tag_name(header.tag)} has no place in the file meta information.", "meta-malformed")
        if header.vr != _VRS.get(header.tag, header.vr):
            raise malformed(f"{tag_name(header.tag)} has the VR {header.vr.decode()}.", "meta-malformed")
        last = header.tag
        if header.tag in _UIDS:
            uids[header.tag] = headers.value_ahead(header).rstrip(b"\0 ").decode("ascii", "replace")
        if header.tag == GROUP_LENGTH:
            announced = window.offset + header.size + header.length
            announced += int.from_bytes(headers.value_ahead(header), "little")
        window.skip(header.size + header.length)
    if announced not in (None, window.offset):
        # A reader that goes by the group length would begin the data set elsewhere.
        raise malformed("The group length (0002,0000) is not that of the file meta information.", "meta-malformed")
    if TRANSFER_SYNTAX_UID not in uids:
        raise DicomError(
            "The file meta information names no transfer syntax.",
            remedy="Write Transfer Syntax UID (0002,0010) into the file.",
            code="transfer-syntax-missing",
        )
    return FileMeta(
        transfer_syntax(uids[TRANSFER_SYNTAX_UID]),
        uids.get(MEDIA_STORAGE_SOP_CLASS_UID, ""),
        uids.get(MEDIA_STORAGE_SOP_INSTANCE_UID, ""),
    )


def _read_prefix(window: Window) -> None:
    try:
        window.need(PREAMBLE_SIZE + len(PREFIX))
    except DicomError:
        prefix = b""
    else:
        prefix = window.take(PREAMBLE_SIZE + len(PREFIX))[PREAMBLE_SIZE:]
    if prefix != PREFIX:
        raise DicomError(
            "This is not a DICOM file: there is no DICM after a 128-byte preamble.",
            remedy="Only DICOM files with preamble and file meta information (PS3.10 7.1) can be signed and verified.",
            code="not-dicom",
        )
