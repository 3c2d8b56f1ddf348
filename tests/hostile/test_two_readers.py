"""What another reader would see as another instance is refused, signed or not."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.verify import Verification, verify_instance
from agent.errors import DicomError
from tests.support.product_signing import sign_without_key
from tests.support.raw_dicom import Node, Writer, instance, with_meta

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
LOOKS_LIKE_LT = 0x544C  # the letters L and T as the low half of a length
SIGNED = Node(0x7FE00010, "OW", bytes(64))
SHOWN = Node(0x7FE00010, "OW", b"\xff" * 64)


def file_of(body: bytes, transfer_syntax: str) -> bytes:
    return with_meta(body, transfer_syntax, sop_class="1.2.840.10008.5.1.4.1.1.7", sop_instance="2.25.2")


def swallowed(forged: bytes, real: bytes) -> bytes:
    """A value that a reader in explicit VR takes for a data set, which hides the real one in a private element."""
    padding = LOOKS_LIKE_LT - len(forged) - 16
    private = struct.pack("<HH2sHI", 0x7FE1, 0x0010, b"OB", 0, padding + len(real))
    return forged + private + bytes(padding + 4)


def implicit_that_looks_explicit() -> bytes:
    real = Writer(IMPLICIT).data_set((*instance(), SIGNED))
    forged = Writer(EXPLICIT).data_set((*instance(), SHOWN))
    return file_of(struct.pack("<HHI", 0x0008, 0x0005, LOOKS_LIKE_LT) + swallowed(forged, real) + real, IMPLICIT)


def unknown_sequence_that_looks_explicit() -> bytes:
    real = Writer(EXPLICIT).data_set((*instance(), SIGNED))
    ends = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    forged = ends + Writer(EXPLICIT).data_set((*instance(), SHOWN))
    unknown = struct.pack("<HH2sHI", 0x0008, 0x0001, b"UN", 0, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + struct.pack("<HHI", 0x0009, 0x1001, LOOKS_LIKE_LT)
    return file_of(unknown + item + swallowed(forged, ends + real) + ends + real, EXPLICIT)


def wrong_group_length() -> bytes:
    data = bytearray(file_of(Writer(EXPLICIT).data_set((*instance(), SIGNED)), EXPLICIT))
    at = data.index(b"\x02\x00\x00\x00UL") + 8
    data[at : at + 4] = struct.pack("<I", 28)
    return bytes(data)


def transfer_syntax_of_another_vr() -> bytes:
    data = file_of(Writer(EXPLICIT).data_set((*instance(), SIGNED)), EXPLICIT)
    return data.replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x10\x00SH")


@pytest.mark.parametrize(
    ("build", "code"),
    [
        (implicit_that_looks_explicit, "vr-ambiguous"),
        (unknown_sequence_that_looks_explicit, "vr-ambiguous"),
        (wrong_group_length, "meta-malformed"),
        (transfer_syntax_of_another_vr, "meta-malformed"),
    ],
)
def test_an_instance_that_two_readers_see_differently_is_refused(build: Callable[[], bytes], code: str) -> None:
    data = build()
    with pytest.raises(DicomError) as refused:
        sign_without_key(data)
    assert refused.value.code == code
    with pytest.raises(DicomError) as refused:
        verify_instance(data, Verification(load_profile(ProfileName.CREATOR_RSA), datetime.now(UTC)))
    assert refused.value.code == code
