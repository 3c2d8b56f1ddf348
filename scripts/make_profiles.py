"""Regenerate agent/dicom/profiles/*.json and the tables in docs/profiles.md from the module tables of the standard.

The list of PS3.15 C.2 names modules ("any attributes of the General Equipment module that are present"), and so does
the list of what creator-plus leaves out. scripts/module_tables.json says which attributes a module has. To take
over a later edition of the standard:

    pip install --no-deps --target "$PWD/tables" highdicom==0.28.2
    scripts/make-profiles "$PWD/tables/highdicom/_standard"

The numbers of attributes are compared with those of that edition: when the tables change, this fails loudly.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from scripts.module_tables import REDUCTION, ModuleTables, load_tables, reduced
from scripts.profile_coverage import DOCUMENT, document

PROFILES = Path(__file__).resolve().parent.parent / "agent/dicom/profiles"
COUNTS = (310, 13)  # tags and overlay elements of C.2
EXCLUDED_COUNT = 112  # tags of the modules in EXCLUDED_MODULES, Study Instance UID among them

# PS3.15 C.2, items a to c: SOP Class and Instance UID, creation date and time, Study and Series Instance UID.
UIDS_AND_CREATION = "00080012 00080013 00080016 00080018 0020000D 0020000E".split()  # noqa: SIM905 - a table
MANDATORY = "00080016 00080018 0020000D 0020000E".split()  # noqa: SIM905 - a table

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

# creator-plus. Why each of these may rightly change, and why others may not: docs/adr/0013-creator-plus.md.
# An attribute of several modules is listed under the first.
EXCLUDED_MODULES = {
    "visit-identification": "visit",
    "patient": "patient",
    "patient-study": "patient",
    "general-study": "study",
    "clinical-trial-subject": "clinical trial",
    "clinical-trial-study": "clinical trial",
    "clinical-trial-series": "clinical trial",
}
EXCLUDED_GROUPS = {"patient": ["0010"], "clinical trial": ["0012"], "study": ["0032"], "visit": ["0038"]}
EXCLUDED_ATTRIBUTES = {
    "coercion": (
        "00080015",  # Instance Coercion DateTime
        "0008103E",  # Series Description
        "0008103F",  # Series Description Code Sequence
        "00081050",  # Performing Physician's Name
        "00081052",  # Performing Physician Identification Sequence
        "00400275",  # Request Attributes Sequence
        "04000561",  # Original Attributes Sequence
        "04000600",  # Instance Origin Status
    ),
    "status": (
        "01000410",  # SOP Instance Status
        "01000420",  # SOP Authorization DateTime
        "01000424",  # SOP Authorization Comment
        "01000426",  # Authorization Equipment Certification Number
    ),
    "delivery": (
        "00080053",  # Query/Retrieve View
        "00080054",  # Retrieve AE Title
        "00080055",  # Station AE Title
        "00080056",  # Instance Availability
        "00081190",  # Retrieve URL
        "0040E010",  # Retrieve URI
        "0040E011",  # Retrieve Location UID
        "00880130",  # Storage Media File-set ID
        "00880140",  # Storage Media File-set UID
    ),
}
ALTHOUGH_EXCLUDED = (
    # Why, and from what, the instance was made.
    "0008001C",  # Synthetic Data
    "00082111",  # Derivation Description
    "00082112",  # Source Image Sequence
    "00089215",  # Derivation Code Sequence
    "00100200",  # Quality Control Subject
    "00189004",  # Content Qualification
    "0018A001",  # Contributing Equipment Sequence
    "00500004",  # Calibration Image
    # In group 0010, but of the General Series module: says what Image Orientation (Patient) means.
    "00102210",  # Anatomical Orientation Type
)


def profiles(tables: ModuleTables) -> dict[str, str]:
    """The content of each file."""
    contents = {
        "creator-rsa.json": _creator_rsa(tables),
        "creator-plus.json": _creator_plus(tables),
    }
    return {name: json.dumps(content, indent=1) + "\n" for name, content in contents.items()}


def _creator_rsa(tables: ModuleTables) -> Mapping[str, object]:
    attributes = tables.attributes(MODULES).union(UIDS_AND_CREATION)
    overlay = {tag for tag in attributes if tag.startswith("60xx")}
    fixed = attributes - overlay
    _check((len(fixed), len(overlay)), COUNTS)
    return {
        "name": "creator-rsa",
        "standard": "PS3.15 C.2 Creator RSA Digital Signature Profile",
        "edition": tables.edition,
        "generator": "scripts/make-profiles",
        "source": tables.source,
        "mandatory": MANDATORY,
        "tags": sorted(fixed.union(FORMER_ATTRIBUTES)),
        "repeating": {
            "overlay": {"groups": ["6000", "60FE"], "elements": sorted(tag[4:] for tag in overlay)},
            "curve": {"groups": ["5000", "501E"], "elements": CURVE_ELEMENTS},
        },
        "private_if_present": "00089123",
    }


def _creator_plus(tables: ModuleTables) -> Mapping[str, object]:
    reasons: dict[str, str] = {}
    for module, reason in EXCLUDED_MODULES.items():
        reasons = dict.fromkeys(tables.modules[module], reason) | reasons
    _check(len(reasons), EXCLUDED_COUNT)
    for reason, tags in EXCLUDED_ATTRIBUTES.items():
        reasons |= dict.fromkeys(tags, reason)
    return {
        "name": "creator-plus",
        "standard": "PS3.15 C.2, and everything else that may not rightly change after creation",
        "edition": tables.edition,
        "generator": "scripts/make-profiles",
        "source": tables.source,
        "although_excluded": ALTHOUGH_EXCLUDED,
        "excluded": {
            reason: {
                "groups": EXCLUDED_GROUPS.get(reason, []),
                "tags": sorted(tag for tag in reasons if reasons[tag] == reason),
            }
            for reason in sorted({*reasons.values(), *EXCLUDED_GROUPS})
        },
    }


def _check(found: object, expected: object) -> None:
    if found != expected:
        raise SystemExit(f"The tables changed: {found} instead of {expected}. Review them, then update the numbers.")


def main() -> None:
    """Write the profiles and the tables of the document, after a new reduction if a folder is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="?", help="the folder highdicom/_standard, for a new reduction")
    if folder := parser.parse_args().tables:
        REDUCTION.write_text(reduced(folder, {*MODULES, *EXCLUDED_MODULES}), encoding="ascii")
    tables = load_tables()
    for name, content in profiles(tables).items():
        (PROFILES / name).write_text(content, encoding="ascii")
    DOCUMENT.write_text(document(DOCUMENT.read_text(encoding="utf-8"), tables), encoding="utf-8")


if __name__ == "__main__":
    main()
