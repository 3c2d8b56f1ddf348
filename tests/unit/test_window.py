"""An instance is signed the same however it arrives, and can be given back whole."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.sign import SignaturePlan, digest_instance
from agent.dicom.window import Window
from agent.errors import DicomError
from tests.support.dicom_samples import corpus, ct_slice, enhanced_multiframe, sample

if TYPE_CHECKING:
    from typing_extensions import Buffer

PLAN = SignaturePlan(load_profile(ProfileName.CREATOR_RSA), "sha256", "2.25.1", datetime(2026, 11, 22, tzinfo=UTC))


def arriving(data: bytes, step: int) -> Callable[[memoryview], int]:
    """A source that gives at most `step` bytes at a time."""
    rest = memoryview(data)

    def read_into(target: memoryview) -> int:
        nonlocal rest
        count = min(step, len(target), len(rest))
        target[:count] = rest[:count]
        rest = rest[count:]
        return count

    return read_into


class PartialSpool(io.FileIO):
    """Takes only a part of what it is given, as a raw file may."""

    def write(self, data: Buffer) -> int:
        return super().write(memoryview(data)[:1000])


def spool() -> io.FileIO:
    return PartialSpool(os.memfd_create("spool"), "r+b")


@pytest.mark.parametrize("size", [132, 200, 1000, 4096, 5000])
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_the_digest_does_not_depend_on_buffer_or_pieces(size: int, step: int) -> None:
    data = enhanced_multiframe(3) if step > 1 else ct_slice(16, 16)
    whole = digest_instance(Window.over(data), PLAN)
    pieces = digest_instance(Window(arriving(data, step), bytearray(size), keep=False), PLAN)
    assert pieces.digest == whole.digest
    assert pieces.edits(b"s", b"c") == whole.edits(b"s", b"c")


@pytest.mark.parametrize("name", [str(entry) for entry in corpus() if entry.path.stat().st_size < 50_000])
def test_the_outcome_for_the_corpus_does_not_depend_on_the_buffer(name: str) -> None:
    data = sample(name).path.read_bytes()

    def outcome(window: Window) -> tuple[bytes | str, object]:
        try:
            instance = digest_instance(window, PLAN)
        except DicomError as error:
            return error.code, None
        return instance.digest, instance.edits(b"s", b"c")

    expected = outcome(Window.over(data))
    assert outcome(Window(arriving(data, 999), bytearray(70_000), spool)) == expected


def test_what_left_the_buffer_comes_back_from_the_spool() -> None:
    data = ct_slice(128, 128)
    window = Window(arriving(data, 3000), bytearray(5000), spool)
    digest_instance(window, PLAN)
    assert b"".join(window.pieces(0, len(data))) == data
    assert b"".join(window.pieces(4999, 5002)) == data[4999:5002]
    window.close()


def test_what_was_not_kept_is_not_made_up() -> None:
    data = ct_slice(128, 128)
    window = Window(arriving(data, 3000), bytearray(5000))
    digest_instance(window, PLAN)
    with pytest.raises(DicomError) as refused:
        b"".join(window.pieces(0, len(data)))
    assert refused.value.code == "instance-not-kept"
