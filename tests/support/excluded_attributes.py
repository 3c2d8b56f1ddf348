"""What creator-plus leaves out and what it takes in all the same, typed in from the modules of PS3.3 and from ADR 13.

A check value for the list the product generates, and a slow and literal reading of the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from tests.support.creator_attributes import CREATOR_VERSION_UID, is_creator_attribute

_PATIENT: Final = """
0008: 1120
0010: 0010 0020 0021 0022 0024 0026 0027 0030 0032 0033 0034 0035 0040 0200 0212 0213 0216 0218 0219 0221 1001 1002
0010: 1100 2161 2201 2202 2292 2293 2294 2297 2298 2299 4000
0012: 0062 0063 0064
"""
_GENERAL_STUDY: Final = """
0008: 0020 0030 0050 0051 0090 0096 009C 009D 1030 1032 1048 1049 1060 1062 1110
0020: 0010
0032: 1033 1034
0040: 1012
"""
_PATIENT_STUDY: Final = """
0008: 1080 1084
0010: 1010 1020 1021 1022 1023 1024 1030 2000 2110 2180 21A0 21B0 21C0 21D0 2203
0032: 1066 1067
0038: 0010 0014 0060 0062 0064 0500
"""
_CLINICAL_TRIAL: Final = """
0012: 0010 0020 0021 0022 0023 0030 0031 0032 0040 0041 0042 0043 0081 0082
0012: 0050 0051 0052 0053 0054 0055 0083
0012: 0060 0071 0072 0073
"""
_VISIT: Final = """
0008: 0080 0081 0082 1040 1041
"""
_COERCION_PRONE: Final = """
0008: 0015 0054 103E
0040: 0275
0400: 0561 0600
"""
_DECIDED: Final = """
0008: 0053 0055 0056 103F 1050 1052 1190
0040: E010 E011
0088: 0130 0140
0100: 0410 0420 0424 0426
"""
_ALTHOUGH_EXCLUDED: Final = """
0008: 001C 2111 2112 9215
0010: 0200 2210
0018: 9004 A001
0050: 0004
"""


def _tags(table: str) -> frozenset[int]:
    rows = (line.split(": ") for line in table.strip().splitlines())
    return frozenset(int(group, 16) << 16 | int(element, 16) for group, row in rows for element in row.split())


STUDY_INSTANCE_UID: Final = 0x0020000D
OF_MODULES: Final = frozenset[int]().union(
    *map(_tags, (_PATIENT, _GENERAL_STUDY, _PATIENT_STUDY, _CLINICAL_TRIAL, _VISIT))
)
COERCION_PRONE: Final = _tags(_COERCION_PRONE)
DECIDED: Final = _tags(_DECIDED)
ALTHOUGH_EXCLUDED: Final = _tags(_ALTHOUGH_EXCLUDED)
GROUPS: Final = (0x0010, 0x0012, 0x0032, 0x0038)
_CURVE_ELEMENTS: Final = (
    *(0x0005, 0x0010, 0x0022, 0x0030, 0x0040, 0x0103, 0x0104, 0x0105, 0x0106, 0x0110, 0x0112, 0x0114),
    *(0x2500, 0x2600, 0x3000),
)


def is_demanded_by_c_2(tag: int) -> bool:
    """C.2 and the Curve module, which is retired but still named there."""
    group, element = divmod(tag, 0x10000)
    curve = group in range(0x5000, 0x5020, 2) and element in _CURVE_ELEMENTS
    return curve or is_creator_attribute(tag)


def covered_by_creator_plus(tags: Iterable[int], *, private_elements: bool) -> Iterator[int]:
    """The rules one by one, as docs/profiles.md has them.

    Args:
        tags: Of the signable elements of a data set, in order.
        private_elements: The switch.
    """
    raw_data = False
    for tag in tags:
        group = tag >> 16
        if is_demanded_by_c_2(tag) or tag in ALTHOUGH_EXCLUDED:
            raw_data = raw_data or tag == CREATOR_VERSION_UID
            yield tag
        elif group % 2:
            if private_elements or raw_data:
                yield tag
        elif group not in GROUPS and tag not in OF_MODULES | COERCION_PRONE | DECIDED:
            yield tag
