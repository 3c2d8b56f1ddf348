"""The tables of docs/profiles.md: what of each IOD of the standard the two profiles cover."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pydicom.datadict import dictionary_description

from agent.dicom.profile import Profile, ProfileName, load_profile
from scripts.module_tables import ModuleTables

DOCUMENT = Path(__file__).resolve().parent.parent / "docs/profiles.md"

# About the patient, the study and the trial, not about the image: left out of what is called technical here.
OTHER_MODULES = {
    "patient",
    "patient-study",
    "general-study",
    "clinical-trial-subject",
    "clinical-trial-study",
    "clinical-trial-series",
}
NEVER_SIGNED = {"4FFE0001", "FFFAFFFA", "FFFCFFFC"}  # PS3.3 C.12.1.1.3.1.1
REASONS = ("patient", "study", "visit", "clinical trial", "coercion", "status", "delivery")
# Outside C.2 and telling, in the order of the table.
TELLING = """
    00080060 00200032 00200037 00280030 00180050 00181164 00281050 00200060 00180015 00185100 00080068 00080005 00080201
    7FE00008 7FE00009 00540016 3004000E 30060020 30060039 300A00B0 0008001C 00082111 00089215 0018A001 00500004
""".split()  # noqa: SIM905 - a table


@dataclass(frozen=True)
class Coverage:
    """What of one IOD is covered.

    Args:
        iod: Its name.
        attributes: All it has on its top level that can be signed.
        technical: Those which are not about patient, study or trial.
        creator_rsa: Technical attributes that creator-rsa covers.
        creator_plus: Technical attributes that creator-plus covers.
        reasons: Why creator-plus leaves attributes out, technical or not.
        signable: Whether the IOD has the UIDs without which there is no Creator signature.
    """

    iod: str
    attributes: int
    technical: frozenset[str]
    creator_rsa: frozenset[str]
    creator_plus: frozenset[str]
    reasons: Counter[str]
    signable: bool

    def share(self, covered: frozenset[str]) -> float:
        """How much of the technical attributes that is, in percent."""
        return 100 * len(covered) / len(self.technical)


def coverages(tables: ModuleTables) -> list[Coverage]:
    """What the two profiles cover of each IOD."""
    creator_rsa, creator_plus = load_profile(ProfileName.CREATOR_RSA), load_profile(ProfileName.CREATOR_PLUS)
    return [
        _coverage(iod, tables.iods[iod], tables, creator_rsa=creator_rsa, creator_plus=creator_plus)
        for iod in sorted(tables.iods)
    ]


def _coverage(
    iod: str, modules: Sequence[str], tables: ModuleTables, *, creator_rsa: Profile, creator_plus: Profile
) -> Coverage:
    attributes = tables.attributes(modules) - NEVER_SIGNED
    technical = tables.attributes([module for module in modules if module not in OTHER_MODULES]) - NEVER_SIGNED
    return Coverage(
        iod=iod,
        attributes=len(attributes),
        technical=frozenset(technical),
        creator_rsa=frozenset(tag for tag in technical if not creator_rsa.reason(_number(tag))),
        creator_plus=frozenset(tag for tag in technical if not creator_plus.reason(_number(tag))),
        reasons=Counter(reason for tag in attributes if (reason := creator_plus.reason(_number(tag)))),
        signable={f"{tag:08X}" for tag in creator_rsa.mandatory} <= attributes,
    )


def _number(tag: str) -> int:
    return int(tag.replace("xx", "00"), 16)


def _name(tag: str) -> str:
    return f"{dictionary_description(_number(tag))} ({tag[:4]},{tag[4:]})"


def document(text: str, tables: ModuleTables) -> str:
    """The document with its tables made anew, each between its two markers."""
    found = coverages(tables)
    for name, table in (
        ("summary", _summary(found, tables.edition)),
        ("gap", _gap(found)),
        ("outside", _outside(found)),
        ("iods", _iods(found)),
    ):
        pattern = rf"(<!-- {name}: written by scripts/make-profiles -->\n).*?(<!-- end of {name} -->)"
        text, count = re.subn(pattern, rf"\g<1>\n{table}\n\g<2>", text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"{DOCUMENT} has no place for the table {name}.")
    return text


def _table(head: str, rows: Iterable[Sequence[object]]) -> str:
    columns = head.count("|") - 1
    lines = [head, "|" + "---|" * columns, *("| " + " | ".join(map(str, row)) + " |" for row in rows)]
    return "\n".join(lines) + "\n"


def _summary(found: Sequence[Coverage], edition: str) -> str:
    signable = [one for one in found if one.signable]
    technical, creator_rsa, creator_plus = _everything(found)
    rows = [
        ("edition of the standard", edition, edition),
        (f"median of all {len(found)} IODs", *_figures(found, median)),
        (f"median of the {len(signable)} IODs that can be signed", *_figures(signable, median)),
        ("least of those", *_figures(signable, min)),
        ("most of those", *_figures(signable, max)),
        (f"of the {len(technical)} different technical attributes of all IODs", len(creator_rsa), len(creator_plus)),
    ]
    return _table("| technical attributes covered | creator-rsa | creator-plus |", rows)


def _everything(found: Sequence[Coverage]) -> tuple[set[str], set[str], set[str]]:
    """The technical attributes of all IODs together: all, those of creator-rsa, those of creator-plus."""
    return (
        {tag for one in found for tag in one.technical},
        {tag for one in found for tag in one.creator_rsa},
        {tag for one in found for tag in one.creator_plus},
    )


def _figures(found: Sequence[Coverage], figure: Callable[[list[float]], float]) -> tuple[str, str]:
    return (
        f"{figure([one.share(one.creator_rsa) for one in found]):.0f} %",
        f"{figure([one.share(one.creator_plus) for one in found]):.0f} %",
    )


def _gap(found: Sequence[Coverage]) -> str:
    _, creator_rsa, creator_plus = _everything(found)
    gap = creator_plus - creator_rsa
    beyond = [len(one.creator_plus - one.creator_rsa) for one in found if one.signable]
    sentence = (
        f"{len(gap)} technical attributes of the standard are covered by creator-plus and not by C.2.\n"
        f"Every IOD that can be signed has at least {min(beyond)} of them, half have {median(beyond):.0f} or more.\n"
        "Some that matter:\n\n"
    )
    rows = [(_name(tag), sum(tag in one.technical for one in found)) for tag in TELLING]
    if unknown := [tag for tag in TELLING if tag not in gap]:
        raise SystemExit(f"No gap of C.2 any more: {unknown}.")
    return sentence + _table("| attribute | in so many IODs |", rows)


def _outside(found: Sequence[Coverage]) -> str:
    creator_plus = load_profile(ProfileName.CREATOR_PLUS)
    counts = Counter(tag for one in found for tag in one.technical - one.creator_plus)
    rows = [
        (_name(tag), creator_plus.reason(_number(tag)), counts[tag])
        for tag in sorted(counts, key=lambda tag: (-counts[tag], tag))
    ]
    return _table("| technical attribute outside creator-plus | reason | in so many IODs |", rows)


def _iods(found: Sequence[Coverage]) -> str:
    rows = [
        (
            one.iod if one.signable else f"{one.iod} \\*",
            one.attributes,
            len(one.technical),
            f"{len(one.creator_rsa)} ({one.share(one.creator_rsa):.0f} %)",
            f"{len(one.creator_plus)} ({one.share(one.creator_plus):.0f} %)",
            *(one.reasons[reason] for reason in REASONS),
        )
        for one in found
    ]
    head = "| IOD | attributes | technical | creator-rsa | creator-plus | " + " | ".join(REASONS) + " |"
    return _table(head, rows)
