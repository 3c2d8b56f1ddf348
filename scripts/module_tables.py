"""The attributes of every module and the modules of every IOD (PS3.3), reduced to what profiles are made from.

highdicom derives the full tables from the text of the standard and publishes them under the MIT licence. Only facts are
taken over: the tags on the top level of each module, and the names of the modules of each IOD.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom._dicom_dict import RepeatersDictionary
from pydicom.datadict import tag_for_keyword

REDUCTION = Path(__file__).with_suffix(".json")
EDITION = "2026b"  # of the tables in highdicom 0.28.2, as stated by that project
VERSION = "highdicom 0.28.2"


@dataclass(frozen=True)
class ModuleTables:
    """The reduced tables.

    Args:
        edition: Of the standard.
        source: What the profiles name as theirs.
        modules: The tags of each module, as eight digits; those of repeating groups with "60xx" as the group.
        iods: The modules of each IOD.
    """

    edition: str
    source: str
    modules: dict[str, frozenset[str]]
    iods: dict[str, tuple[str, ...]]

    def attributes(self, modules: Collection[str]) -> set[str]:
        """All attributes of these modules; the tables leave some of the newest modules out."""
        return {tag for module in modules for tag in self.modules.get(module, ())}


def load_tables() -> ModuleTables:
    """The tables that are kept in the repository."""
    content = json.loads(REDUCTION.read_text(encoding="ascii"))
    return ModuleTables(
        edition=content["edition"],
        source=content["source"],
        modules={name: frozenset(tags.split()) for name, tags in content["modules"].items()},
        iods={name: tuple(modules.split()) for name, modules in content["iods"].items()},
    )


def reduced(folder: Path, also: Collection[str]) -> str:
    """The content of the reduction.

    Args:
        folder: highdicom/_standard.
        also: Modules that are wanted although no IOD has them.
    """
    full = (folder / "module_attribute_map.json").read_bytes()
    rows: dict[str, list[dict[str, Any]]] = json.loads(full)
    parts: dict[str, list[dict[str, str]]] = json.loads((folder / "iod_module_map.json").read_bytes())
    iods = {name: [part["key"] for part in iod] for name, iod in sorted(parts.items())}
    wanted = {module for modules in iods.values() for module in modules if module in rows}.union(also)
    content = {
        "standard": "PS3.3: attributes on the top level of each module, modules of each IOD",
        "edition": EDITION,
        "generator": "scripts/make-profiles",
        "source": f"{VERSION} module_attribute_map.json, SHA-256 {hashlib.sha256(full).hexdigest()}",
        "licence": f"Facts of the standard, collected by {VERSION} (MIT)",
        "modules": {module: " ".join(_tags(rows[module])) for module in sorted(wanted)},
        "iods": {name: " ".join(modules) for name, modules in iods.items()},
    }
    return json.dumps(content, indent=1) + "\n"


def _tags(rows: list[dict[str, Any]]) -> list[str]:
    return sorted({_tag(row["keyword"]) for row in rows if not row["path"]})


def _tag(keyword: str) -> str:
    """The tag of a keyword; tag_for_keyword() knows none of those in repeating groups."""
    if (tag := tag_for_keyword(keyword)) is not None:
        return f"{tag:08X}"
    for mask, entry in RepeatersDictionary.items():
        if entry[4] == keyword and mask.startswith("60xx"):
            return mask
    raise SystemExit(f"{keyword} is neither a tag nor an overlay attribute: extend this script.")
