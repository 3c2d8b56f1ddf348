"""What may happen to a signed image, as a table; `tests/interop/test_survival.py` shows that each row is so.

docs/survival.md is this table for people. To write it anew: `python -m tests.support.survival`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from tests.support.dcmsign import CREATOR, Exit
from tests.support.survival_changes import (
    OF_ARCHIVE,
    OF_PERSON_AND_STUDY,
    Change,
    by,
    edited,
    item_signed_by_dcmsign,
    nothing,
    pixel_changed,
    rewritten,
    signed_again,
    signed_again_and_that_removed,
    signed_by_dcmsign,
    through_implicit_vr,
    transferred,
    with_new_values,
    with_old_values,
)

DOCUMENT: Final = Path(__file__).parents[2] / "docs/survival.md"


class Outcome(StrEnum):
    """What becomes of a signature."""

    HOLDS = "holds"
    ADDED = "holds, addition reported"
    RESTORED = "holds, once decompressed"
    VR_RESTORED = "holds, under the VR of before"
    BREAKS = "**breaks**"
    NOT_CHECKABLE = "**not checkable** any more"
    REFUSED = "**refused**, nothing is said of it"


HOLDS, ADDED, RESTORED, VR_RESTORED, BREAKS, NOT_CHECKABLE, REFUSED = Outcome
NATIVE: Final = ("slice", "frames", "scanner")


@dataclass(frozen=True)
class Row:
    """Something that happens to signed images.

    Attributes:
        what: For the owner of an archive.
        tool: What does it.
        change: What it does to the signed file.
        creator_rsa: What becomes of a signature under that profile.
        creator_plus: The same.
        images: The images that it is done to.
        before: What is done before they are signed.
        unseen: Whether dcmsign does not notice what scanseal reports.
        decoder: The module that scanseal needs to see what becomes of it.
    """

    what: str
    tool: str
    change: Change
    creator_rsa: Outcome
    creator_plus: Outcome
    images: tuple[str, ...] = ("slice",)
    before: Callable[[bytes], bytes] = nothing
    unseen: bool = False
    decoder: str = ""

    def outcome(self, profile: str) -> Outcome:
        """What becomes of a signature under a profile."""
        return {"creator-rsa": self.creator_rsa, "creator-plus": self.creator_plus}[profile]

    def exits(self, profile: str) -> tuple[Exit, Exit | None]:
        """What dcmsign ends with when any signature is required and, where that holds, a creator signature."""
        match self.outcome(profile):
            case Outcome.HOLDS | Outcome.REFUSED:
                return Exit.OK, Exit.OK
            case Outcome.ADDED:
                return Exit.OK, Exit.OK if self.unseen else Exit.POLICY_NOT_MET
            case Outcome.VR_RESTORED if self.unseen:
                return Exit.OK, Exit.OK
            case _:
                return Exit.VERIFICATION_FAILED, None


@dataclass(frozen=True)
class Section:
    """Rows of one kind."""

    title: str
    about: str
    rows: tuple[Row, ...]


# --- the rows ---


def _stored() -> Iterator[Row]:
    for what, tool, change in (
        ("Implicit VR little endian", "`dcmconv +ti`", by("dcmconv", "+ti")),
        ("Explicit VR big endian (retired)", "`dcmconv +tb`", by("dcmconv", "+tb")),
        ("Deflated", "`dcmconv +td`", by("dcmconv", "+td")),
        ("Implicit VR, and back", "`dcmconv +ti`, `dcmconv +te`", by("dcmconv", "+ti", then=("dcmconv", "+te"))),
        ("Group lengths written", "`dcmconv +g`", by("dcmconv", "+g")),
        ("Sequences and items of undefined length", "`dcmconv -e`", by("dcmconv", "-e")),
        ("File and items padded", "`dcmconv +p 1024 64`", by("dcmconv", "+p", "1024", "64")),
        ("Read and written", "pydicom", rewritten()),
        ("Read, every value set to itself, and written", "pydicom", rewritten(touched=True)),
    ):
        yield Row(what, tool, change, HOLDS, HOLDS, NATIVE)
    implicit, back = by("dcmconv", "+ti"), by("dcmconv", "+ti", then=("dcmconv", "+te"))
    for what, images, creator_rsa in (
        ("pixels or overlays stored as bytes (OB)", ("bytes", "overlay", "bytes and overlay"), VR_RESTORED),
        ("a lookup table stored as numbers (US)", ("table",), HOLDS),
    ):
        yield Row(f"Implicit VR, of {what}", "`dcmconv +ti`", implicit, creator_rsa, VR_RESTORED, images)
        yield Row("The same, and back", "`dcmconv +ti`, `dcmconv +te`", back, creator_rsa, VR_RESTORED, images)
    what = "Implicit VR, of a waveform stored as bytes (OB)"
    yield Row(what, "`dcmconv +ti`", implicit, VR_RESTORED, VR_RESTORED, ("waveform",), unseen=True)
    yield Row("The same, and back", "`dcmconv +ti`, `dcmconv +te`", back, HOLDS, HOLDS, ("waveform",))
    what = "Implicit VR, and back, of a lookup table of signed pixels: DCMTK loses the sign"
    yield Row(what, "`dcmconv +ti`, `dcmconv +te`", back, HOLDS, BREAKS, ("signed table",))
    for unknown_to_it, image, unknown, creator_rsa, creator_plus in (
        ("private elements", "private", (), VR_RESTORED, VR_RESTORED),
        ("Software Versions (0018,1020)", "slice", (0x00181020,), BREAKS, BREAKS),
        ("Pixel Spacing (0028,0030)", "slice", (0x00280030,), HOLDS, BREAKS),
    ):
        what = f"Implicit VR, and back by a program that does not know {unknown_to_it} and writes UN"
        change, tool = through_implicit_vr(*unknown), "`dcmconv +ti`, `dcmconv +te` with `DCMDICTPATH`"
        yield Row(what, tool, change, creator_rsa, creator_plus, (image,))
    deflate = by("dcmconv", "+td")
    yield Row("Deflated, all of it black: to a thousandth", "`dcmconv +td`", deflate, HOLDS, HOLDS, ("black",))
    what = "Deflated, to more than 32 MiB, or from more than 256 MiB"
    yield Row(what, "`dcmconv +td`", deflate, REFUSED, REFUSED, ("noise", "large"))
    utf8 = "Text converted to UTF-8, with another Specific Character Set (0008,0005)"
    yield Row(utf8, "`dcmconv +U8`", by("dcmconv", "+U8"), HOLDS, BREAKS, ("slice", "scanner"))


def _sent() -> Iterator[Row]:
    for what, options, change in (
        ("Explicit VR", "", transferred()),
        ("Explicit VR, written as received", " +B", transferred((), ("+B",))),
        ("Implicit VR only", " +xi", transferred(("-xi",), ("+xi",))),
    ):
        yield Row(what, f"`storescu`, `storescp{options}`", change, HOLDS, HOLDS, NATIVE)
    change = transferred(("-xr",), ("+xr",))
    yield Row(
        "Signed while compressed, sent so", "`storescu -xr`, `storescp +xr`", change, HOLDS, HOLDS, ("compressed",)
    )


def _compressed() -> Iterator[Row]:
    any_image = (*NATIVE, "colour")
    originals = ("slice", "frames")
    for name, program, decoder in (("RLE", "rle", ""), ("JPEG-LS, lossless", "jpls", "jpeg_ls")):
        compress, decompress = f"dcmc{program}", f"dcmd{program}"
        change = by(compress)
        yield Row(name, f"`{compress}`", change, RESTORED, RESTORED, (*originals, "colour"), decoder=decoder)
        back, tool = by(compress, then=(decompress,)), f"`{compress}`, `{decompress}`"
        yield Row(f"{name}, and back", tool, back, HOLDS, HOLDS, any_image)
    jpeg, back, tool = by("dcmcjpeg"), by("dcmcjpeg", then=("dcmdjpeg",)), "`dcmcjpeg`, `dcmdjpeg`"
    what = "JPEG, lossless: DCMTK adds Derivation Description (0008,2111)"
    yield Row(what, "`dcmcjpeg`", jpeg, RESTORED, RESTORED, originals)
    yield Row("The same, and back", tool, back, HOLDS, ADDED, NATIVE, unseen=True)
    what = "JPEG, lossless, of a derived image: DCMTK changes Derivation Description"
    yield Row(what, "`dcmcjpeg`", jpeg, RESTORED, NOT_CHECKABLE, ("colour",))
    yield Row("The same, and back", tool, back, HOLDS, BREAKS, ("colour",))
    lossy = by("dcmcjpeg", "+ee", then=("dcmdjpeg",))
    yield Row("JPEG, lossy, and back", "`dcmcjpeg +ee`, `dcmdjpeg`", lossy, BREAKS, BREAKS)
    what = "Signed while compressed, then decompressed"
    yield Row(what, "`dcmdrle`", by("dcmdrle"), NOT_CHECKABLE, NOT_CHECKABLE, ("compressed",))


def _changed() -> Iterator[Row]:
    name = edited("-m", "PatientName=Roe^Richard", "-m", "PatientID=67890")
    yield Row("Patient's Name and Patient ID", "`dcmodify -m`", name, HOLDS, HOLDS, ("slice", "scanner"))
    yield Row(
        f"All of patient, study, visit and clinical trial but what C.2 demands: {len(OF_PERSON_AND_STUDY)} attributes",
        "`dcmodify -i`",
        with_new_values(OF_PERSON_AND_STUDY),
        HOLDS,
        HOLDS,
        before=with_old_values(OF_PERSON_AND_STUDY),
    )
    yield Row(
        f"All that an archive notes down: coercion, delivery, status, {len(OF_ARCHIVE)} attributes",
        "`dcmodify -i`",
        with_new_values(OF_ARCHIVE),
        HOLDS,
        HOLDS,
        before=with_old_values(OF_ARCHIVE),
    )
    for what, options, creator_rsa in (
        ("Pixel Spacing (0028,0030)", ("-m", r"PixelSpacing=0.7\0.7"), HOLDS),
        ("Image Orientation (0020,0037)", ("-m", r"ImageOrientationPatient=-1\0\0\0\1\0"), HOLDS),
        ("Modality (0008,0060)", ("-m", "Modality=MR"), HOLDS),
        ("Specific Character Set (0008,0005)", ("-m", "SpecificCharacterSet=ISO_IR 192"), HOLDS),
        ("Institution Name (0008,0080)", ("-m", "InstitutionName=Other"), BREAKS),
        ("Device Serial Number (0018,1000)", ("-m", "DeviceSerialNumber=SN0002"), BREAKS),
        ("Image Type (0008,0008)", ("-m", r"ImageType=ORIGINAL\PRIMARY\LOCALIZER"), BREAKS),
        ("Rescale Slope (0028,1053)", ("-m", "RescaleSlope=2"), BREAKS),
        ("Study Instance UID, as when studies are merged", ("-gst",), BREAKS),
        ("Series Instance UID", ("-gse",), BREAKS),
        ("SOP Instance UID", ("-gin",), BREAKS),
    ):
        tool = f"`dcmodify {options[0]}`"
        yield Row(what, tool, edited(*options), creator_rsa, BREAKS)
    yield Row("One bit of one pixel", "one byte of the file", pixel_changed, BREAKS, BREAKS)


def _added_or_removed() -> Iterator[Row]:
    of_person = with_new_values(OF_PERSON_AND_STUDY)
    yield Row("Added: all of patient, study, visit and clinical trial", "`dcmodify -i`", of_person, HOLDS, HOLDS)
    of_archive = with_new_values(OF_ARCHIVE)
    yield Row("Added: Original Attributes Sequence and the like", "`dcmodify -i`", of_archive, HOLDS, HOLDS)
    private = edited("-i", "(0009,0010)=GEMS_IDEN_01", "-i", "(0009,1001)=noted")
    yield Row("Added: private elements", "`dcmodify -i`", private, HOLDS, HOLDS)
    body_part = edited("-i", "BodyPartExamined=HEAD")
    yield Row("Added: Body Part Examined (0018,0015)", "`dcmodify -i`", body_part, HOLDS, ADDED, unseen=True)
    device_uid = edited("-i", "DeviceUID=2.25.77")
    yield Row("Added: Device UID (0018,1002), which C.2 demands", "`dcmodify -i`", device_uid, ADDED, ADDED)
    overlay = edited("-i", "(6002,0010)=4", "-i", "(6002,0011)=4", "-i", r"(6002,3000)=1\2")
    yield Row("Added: an overlay in group 6002", "`dcmodify -i`", overlay, ADDED, ADDED, unseen=True)
    yield Row("Removed: Patient ID", "`dcmodify -e`", edited("-e", "PatientID"), HOLDS, HOLDS, ("slice", "scanner"))
    yield Row("Removed: all private elements", "`dcmodify -ep`", edited("-ep"), HOLDS, HOLDS, ("scanner",))
    yield Row("Removed: Pixel Spacing", "`dcmodify -e`", edited("-e", "PixelSpacing"), HOLDS, BREAKS)
    yield Row("Removed: Manufacturer", "`dcmodify -e`", edited("-e", "Manufacturer"), BREAKS, BREAKS)


def _signed_again() -> Iterator[Row]:
    yield Row("A second signature of ours", "scanseal", signed_again, HOLDS, HOLDS, NATIVE)
    creator = signed_by_dcmsign(*CREATOR)
    yield Row("A Creator signature of another maker", "`dcmsign +s +pc`", creator, HOLDS, HOLDS, NATIVE)
    everything = signed_by_dcmsign()
    yield Row("A signature over everything", "`dcmsign +s`", everything, HOLDS, HOLDS, NATIVE)
    nested = item_signed_by_dcmsign("ReferencedImageSequence[0]")
    yield Row("A signature inside a signed sequence", "`dcmsign +si`", nested, HOLDS, HOLDS)
    removed = signed_again_and_that_removed
    yield Row("A second signature, removed again", "`dcmsign +s`, `dcmsign +r`", removed, HOLDS, HOLDS, NATIVE)


SECTIONS: Final = (
    Section(
        "Stored in another way",
        "The signature covers values, not how a file writes them down. An archive may choose any form without loss. "
        "The VR is covered as well, and implicit VR does not keep it: where the standard leaves a choice, scanseal "
        "tries the other one; `dcmsign` does so for waveforms only. Old programs write UN where they do not know an "
        "attribute: many viewers then ignore it, so for an attribute of the standard that counts as a change.",
        tuple(_stored()),
    ),
    Section(
        "Sent and received",
        "C-STORE, also where the receiver takes another transfer syntax.",
        tuple(_sent()),
    ),
    Section(
        "Compressed",
        "The bytes of compressed pixels are other bytes. A signature over native pixels is therefore checked on the "
        "decompressed image, and holds if nothing was lost; scanseal decompresses a copy for that, `dcmsign` does not. "
        "A signature over compressed pixels is gone with them. So sign before any compression, or in the form that is "
        "archived. "
        "`dcmcjpeg` writes into Derivation Description even when nothing is lost; `creator-plus` covers that "
        "attribute, because it says how a derived image was made.",
        tuple(_compressed()),
    ),
    Section(
        "Attributes changed",
        "Patient and study data may be corrected. What makes the image what it is may not: `creator-rsa`, the minimum "
        "of PS3.15 C.2, leaves more of that open than one would expect.",
        tuple(_changed()),
    ),
    Section(
        "Attributes added or removed",
        "An addition cannot break a signature. Where the profile would have covered it, the verifier says that it is "
        "there and not covered. `dcmsign` notices fewer of them.",
        tuple(_added_or_removed()),
    ),
    Section(
        "Signed again",
        "Signatures stand beside each other, and inside each other.",
        tuple(_signed_again()),
    ),
)


# --- the document ---

INTRODUCTION: Final = """\
# What may happen to a signed image

For owners of archives: what a signature survives, what breaks it, and what to ask of a system that stores or forwards
signed images. Every line below is carried out by a test with the tool that is named in it, and judged twice: by
scanseal and by `dcmsign`, the other free implementation of DICOM signatures. The tools are those of DCMTK 3.6.7
(Debian 12) and pydicom 3.0.2.

In short:

- Correct patient and study data as you like. Do not touch what the scanner said of itself and of the image.
- Store and send in any uncompressed form, or compress without loss.
- Ask that text is not converted to another character set, that Study Instance UIDs stay when studies are merged, and
  that Institution Name is not rewritten.
- A signature adds at most 3 KB to a file.

`dcmsign` ends with 0 where it accepts a signature and with 101 where it does not; 102 means that the signature is
intact, but no longer taken for a Creator signature. Two values are for `creator-rsa` and `creator-plus`.
"""


def document() -> str:
    """The content of docs/survival.md."""
    return INTRODUCTION + "".join(map(_section_text, SECTIONS)) + _CLOSING


_CLOSING: Final = """
This page is written by `python -m tests.support.survival`; `tests/interop/test_survival.py` is its proof.
"""


def _section_text(section: Section) -> str:
    lines = [
        f"\n## {section.title}\n\n{textwrap.fill(section.about, 120)}\n",
        "| what | done by | creator-rsa | creator-plus | dcmsign |",
        "|---|---|---|---|---|",
        *(
            f"| {row.what} | {row.tool} | {row.creator_rsa} | {row.creator_plus} | {_dcmsign_text(row)} |"
            for row in section.rows
        ),
    ]
    return "\n".join(lines) + "\n"


def _dcmsign_text(row: Row) -> str:
    exits = [row.exits(profile) for profile in ("creator-rsa", "creator-plus")]
    codes = [str(int(any_signature) or int(creator or 0)) for any_signature, creator in exits]
    return " / ".join(dict.fromkeys(codes)) if codes[0] == codes[1] else " / ".join(codes)


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
