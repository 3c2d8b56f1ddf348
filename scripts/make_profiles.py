"""Regenerate agent/dicom/profiles/creator-rsa.json from the module tables of the standard.

The list of PS3.15 C.2 names modules ("any attributes of the General Equipment module that are present"). The tables
that say which attributes a module has come from highdicom, which derives them from PS3.3:

    pip install --no-deps --target "$PWD/tables" highdicom==0.28.2
    scripts/make-profiles "$PWD/tables/highdicom/_standard"

The numbers of attributes are compared with those of that edition: when the tables change, this fails loudly.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from pydicom._dicom_dict import RepeatersDictionary
from pydicom.datadict import tag_for_keyword

EDITION = "2026b"  # of the module tables in highdicom 0.28.2, as stated by that project
COUNTS = (323, 310, 13)  # keywords, tags and overlay elements of that edition
PROFILE = Path(__file__).resolve().parent.parent / "agent/dicom/profiles/creator-rsa.json"

# PS3.15 C.2, items a to c: named one by one.
UIDS_AND_CREATION = (
    "SOPClassUID",
    "SOPInstanceUID",
    "InstanceCreationDate",
    "InstanceCreationTime",
    "StudyInstanceUID",
    "SeriesInstanceUID",
)

# PS3.15 C.2, item d: modules whose attributes are signed where present, in the order of the text. "Implant Template" is
# named there too, but no current edition of PS3.3 has a module of that name: see FORMER_ATTRIBUTES.
MODULES = (
    "general-equipment",
    "overlay-plane",
    "graphic-annotation",
    "general-image",
    "image-pixel",
    "sr-document-general",
    "sr-document-content",
    "waveform",
    "waveform-annotation",
    "multi-frame-functional-groups",
    "enhanced-mr-image",
    "mr-spectroscopy",
    "raw-data",
    "enhanced-ct-image",
    "enhanced-xa-xrf-image",
    "segmentation-image",
    "encapsulated-document",
    "x-ray-3d-image",
    "enhanced-pet-image",
    "enhanced-us-image",
    "surface-segmentation",
    "surface-mesh",
    "structured-display",
    "structured-display-annotation",
    "structured-display-image-box",
    "implant-assembly-template",
    "implant-template-group",
    "point-cloud",
    "enhanced-mammography-image",
    "tractography-results",
    "volumetric-graphic-annotation",
)

# Attributes of the named modules in edition 2019c that have left them since. A verifier that still works by that
# edition (DCMTK's does) demands them, and signing more than C.2 asks for is always conformant.
FORMER_ATTRIBUTES = """
    00080022 00080032 00083010 00200052 00201002 00221095 00221097 00480102
    00686210 00686221 00686222 00686223 00686224 00686225 00686230 00686260
    00686265 006862A0 006862A5 006863A0 006863A4 006863A8 006863AC
""".split()  # noqa: SIM905 - a table

# The retired Curve module (PS3.3-2004 C.10.2), still named by C.2: elements of the even groups 5000 to 501E.
CURVE_ELEMENTS = "0005 0010 0022 0030 0040 0103 0104 0105 0106 0110 0112 0114 2500 2600 3000".split()  # noqa: SIM905 - a table


def profile(tables: Path) -> str:
    """The content of the file.

    Args:
        tables: module_attribute_map.json of highdicom.
    """
    data = tables.read_bytes()
    modules = json.loads(data)
    keywords = set(UIDS_AND_CREATION)
    for module in MODULES:
        keywords |= {row["keyword"] for row in modules[module] if not row["path"]}
    tags = {keyword: tag for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None}
    overlay = {_overlay_element(keyword) for keyword in keywords - tags.keys()}
    fixed = {f"{tag:08X}" for tag in tags.values()}
    counts = (len(keywords), len(fixed), len(overlay))
    if counts != COUNTS:
        raise SystemExit(f"The tables changed: {counts} instead of {COUNTS}. Review them, then update COUNTS.")
    content = {
        "name": "creator-rsa",
        "standard": "PS3.15 C.2 Creator RSA Digital Signature Profile",
        "edition": EDITION,
        "generator": "scripts/make-profiles",
        "source": f"highdicom 0.28.2 module_attribute_map.json, SHA-256 {hashlib.sha256(data).hexdigest()}",
        "mandatory": ["00080016", "00080018", "0020000D", "0020000E"],
        "tags": sorted(fixed | set(FORMER_ATTRIBUTES)),
        "repeating": {
            "overlay": {"groups": ["6000", "60FE"], "elements": sorted(overlay)},
            "curve": {"groups": ["5000", "501E"], "elements": CURVE_ELEMENTS},
        },
        "private_if_present": "00089123",
    }
    return json.dumps(content, indent=1) + "\n"


def _overlay_element(keyword: str) -> str:
    """The element number of a repeating-group keyword; tag_for_keyword() knows none of these."""
    for mask, entry in RepeatersDictionary.items():
        if entry[4] == keyword and mask.startswith("60xx"):
            return mask[4:]
    raise SystemExit(f"{keyword} is neither a tag nor an overlay attribute: extend this script.")


def main() -> None:
    """Write the profile from the folder that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, help="the folder highdicom/_standard")
    PROFILE.write_text(profile(parser.parse_args().tables / "module_attribute_map.json"), encoding="ascii")


if __name__ == "__main__":
    main()
