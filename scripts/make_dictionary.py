"""Regenerate agent/dicom/dictionary.json, the VRs that implicit VR data sets leave out (PS3.6), from pydicom."""

from __future__ import annotations

import json
from pathlib import Path

import pydicom
from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary

DICTIONARY = Path(__file__).resolve().parent.parent / "agent/dicom/dictionary.json"

# "xs" is settled by Pixel Representation in the data set. The rest is fixed for implicit VR: OW for pixels, overlays,
# waveforms and look-up tables (PS3.5 A.1), OB for the curve and audio data of former editions (PS3.5-2004 A.1).
SETTLED = {"US or SS": "xs", "OB or OW": "OW", "US or OW": "OW", "US or SS or OW": "OW"}
OTHER_BYTE = {0x50003000, 0x5000200C}


def dictionary() -> str:
    """The content of the file."""
    tags = {tag: _settled(tag, entry[0]) for tag, entry in DicomDictionary.items() if entry[0] != "NONE"}
    for mask, entry in RepeatersDictionary.items():
        if mask.startswith(("50xx", "60xx")):
            tag = int(mask.replace("xx", "00"), 16)
            tags[tag] = _settled(tag, entry[0])
    table: dict[str, list[str]] = {}
    for tag, vr in sorted(tags.items()):
        table.setdefault(vr, []).append(f"{tag:08X}")
    content = {
        "standard": "PS3.6 Data Dictionary",
        "generator": "scripts/make-dictionary",
        "source": f"pydicom {pydicom.__version__}",
        "tags": {vr: " ".join(table[vr]) for vr in sorted(table)},
    }
    return json.dumps(content, indent=1) + "\n"


def _settled(tag: int, vr: str) -> str:
    return "OB" if tag in OTHER_BYTE else SETTLED.get(vr, vr)


if __name__ == "__main__":
    DICTIONARY.write_text(dictionary(), encoding="ascii")
