"""The first table of the format dicom-signing-policy/1: what an archive owner expects of its example.

The two cases of a national floor stand here as a rule of the local layer, which has no floors.
"""

from __future__ import annotations

from typing import Final

from agent.dicom.report import ContentClass, InstanceReport, Outcome
from agent.policy.judgement import Receipt
from tests.support.policies import (
    FOREIGN_CA,
    MAMMOGRAPH,
    US_OLD,
    VENDOR_WIDE_CA,
    Case,
    Signed,
    day,
    example,
    instance,
    with_authorities,
)

MAMMOGRAPHY: Final = """
[[rule]]
id = "mammo-mandate"
match.modality = ["MG"]
expect = "signed"
from = 2028-01-01
grace_days = 90
"""
FIRST_POLICY: Final = with_authorities(example()) + MAMMOGRAPHY


def received(on: str, report: InstanceReport, *, recorded: str = "", sources: bool | None = None) -> Case:
    """An instance that is judged on the day on which it is received."""
    receipt = Receipt(day(on), known_since=day(recorded) if recorded else None)
    return Case(report, receipt, day(on), sources)


def _content(kind: ContentClass, *signatures: Signed) -> InstanceReport:
    return instance(*signatures, content=[kind])


_DAY: Final = "2027-01-05"
_MD5: Final = instance(Signed(mac="MD5"))
_US: Final = instance(equipment=US_OLD)
_MG: Final = instance(equipment=MAMMOGRAPH)

# What is received, and the verdict with those that stand beside it.
FIRST_TABLE: Final[dict[str, tuple[Case, tuple[str, ...]]]] = {
    "signed by CT1": (received(_DAY, instance(Signed())), ("VALID_EXPECTED_SIGNER",)),
    "unsigned, before": (received("2026-11-25", instance()), ("UNSIGNED_NOT_YET_EXPECTED",)),
    "unsigned, in grace": (received("2026-12-05", instance()), ("UNSIGNED_IN_GRACE",)),
    "unsigned, after": (received(_DAY, instance()), ("UNSIGNED_VIOLATION",)),
    "another device's key": (received(_DAY, instance(Signed(serial="SN999"))), ("VALID_WRONG_SIGNER",)),
    "vendor-wide key": (received(_DAY, instance(Signed(ca=VENDOR_WIDE_CA, serial=""))), ("VALID_VENDOR_ONLY",)),
    "unknown CA": (received(_DAY, instance(Signed(ca=FOREIGN_CA))), ("VALID_UNKNOWN_SIGNER",)),
    "MAC wrong": (received(_DAY, instance(Signed(integrity=Outcome.FAILED))), ("BROKEN",)),
    "MD5, claimed 2003": (
        received(_DAY, instance(Signed(mac="MD5", claimed="2003-05-05"))),
        ("ANTIQUE_UNPROVEN",),
    ),
    "MD5, own record of 2005": (received(_DAY, _MD5, recorded="2005-05-05"), ("ANTIQUE_PROVEN",)),
    "MD5, received in 2005": (received("2005-05-05", _MD5), ("ANTIQUE_PROVEN",)),
    "MD5, certified in 2006": (
        received(_DAY, instance(Signed(mac="MD5", certified="2006-06-06"))),
        ("ANTIQUE_PROVEN",),
    ),
    "leaked key, received after": (received("2027-04-01", instance(Signed())), ("KEY_COMPROMISED",)),
    "leaked key, received before": (received("2027-02-01", instance(Signed())), ("VALID_EXPECTED_SIGNER",)),
    "leaked key, certified before": (
        received("2027-05-01", instance(Signed(certified="2027-02-01"))),
        ("VALID_EXPECTED_SIGNER",),
    ),
    "synthetic, unsigned": (
        received("2027-02-01", _content(ContentClass.SYNTHETIC)),
        ("UNSIGNED_VIOLATION", "SYNTHETIC_UNVERIFIED"),
    ),
    "derived, signed, sources not verified": (
        received("2027-02-01", _content(ContentClass.DERIVED, Signed()), sources=False),
        ("DERIVED_UNVERIFIED_SOURCE", "VALID_EXPECTED_SIGNER"),
    ),
    "derived, signed, sources verified": (
        received("2027-02-01", _content(ContentClass.DERIVED, Signed()), sources=True),
        ("DERIVED_VERIFIED_SOURCES", "VALID_EXPECTED_SIGNER"),
    ),
    "exempt": (received("2028-01-01", _US), ("UNSIGNED_EXEMPT",)),
    "the exemption has ended": (received("2030-01-01", _US), ("UNSIGNED_VIOLATION",)),
    "mammography under a mandate": (received("2028-06-01", _MG), ("UNSIGNED_VIOLATION",)),
    "mammography before the mandate": (received("2026-06-01", _MG), ("UNSIGNED_NOT_YET_EXPECTED",)),
}
