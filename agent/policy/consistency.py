"""What no entry shows alone: that no two of them contradict each other, and that something follows an exemption."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import combinations

from agent.policy.model import Anchor, AnchorKind, Entry, Expect, Match, MatchKey, Period
from agent.policy.toml_source import KeyPath, Source

_ONE_DAY = timedelta(days=1)


def check_anchors(anchors: Sequence[Anchor], places: Mapping[str, KeyPath], source: Source) -> None:
    """Refuse two anchors of one authority; for time stamps it may be named a second time.

    Args:
        anchors: All of them.
        places: Where each stands, by id.
        source: The text.

    Raises:
        PolicyError: There are such anchors; the message names the line of the second one.
    """
    known: dict[tuple[str, bool], Anchor] = {}
    for anchor in anchors:
        first = known.setdefault((anchor.sha256, anchor.kind is AnchorKind.TIME_STAMP_AUTHORITY), anchor)
        if first is not anchor:
            what = f"{first.id!r} and {anchor.id!r} name the same certificate, so that one of them would never count."
            raise source.error((*places[anchor.id], "sha256"), what, "Keep one of them.", "duplicate-anchor")


def check_entries(entries: Sequence[Entry], places: Mapping[str, KeyPath], source: Source) -> None:
    """Refuse entries that contradict each other and exemptions after which nothing applies.

    Args:
        entries: All devices and rules.
        places: Where each stands, by id.
        source: The text.

    Raises:
        PolicyError: There is such an entry; the message names its line.
    """
    for first, second in _candidates(entries):
        if _overlap(first.match, second.match) and _same_time(first.period, second.period):
            what = f"{first.id!r} and {second.id!r} speak of the same instances with the same weight."
            remedy = "Add a key to the one that shall have the say, or keep one of them."
            raise source.error(places[second.id], what, remedy, "ambiguous-entries")
    for entry in entries:
        if entry.expect is Expect.UNSIGNED and not any(_succeeds(other, entry) for other in entries):
            what = f"nothing applies when the exemption {entry.id!r} ends."
            remedy = "Add a rule with the same match, or a wider one, that applies from then on and longer."
            raise source.error(places[entry.id], what, remedy, "exemption-without-successor")


def _candidates(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Entry]]:
    """Pairs with the same keys that share a value of the key that tells most entries apart."""
    by_keys: defaultdict[tuple[MatchKey, ...], list[Entry]] = defaultdict(list)
    for entry in entries:
        by_keys[entry.match.keys].append(entry)
    for alike in by_keys.values():
        columns = zip(*(entry.match.values for entry in alike), strict=True)
        by_value: defaultdict[str, list[Entry]] = defaultdict(list)
        column = max(columns, key=lambda column: len(frozenset().union(*(values for _, values in column))), default=())
        for entry, (_, values) in zip(alike, column, strict=False):
            for value in values:
                by_value[value].append(entry)
        for sharing in by_value.values() if column else [alike]:
            yield from combinations(sharing, 2)


def _overlap(first: Match, second: Match) -> bool:
    """Whether one value of each key can fit both. Both have the same keys."""
    pairs = zip(first.values, second.values, strict=True)
    return all(not ours.isdisjoint(theirs) for (_, ours), (_, theirs) in pairs)


def _same_time(first: Period, second: Period) -> bool:
    return not any(
        earlier.last is not None and later.first is not None and earlier.last < later.first
        for earlier, later in ((first, second), (second, first))
    )


def _succeeds(other: Entry, exemption: Entry) -> bool:
    """Whether an entry applies to all instances of an exemption, without a gap, when that has ended."""
    end = exemption.period.last
    if other is exemption or end is None:
        return False
    if other.period.first is not None and other.period.first > end + _ONE_DAY:
        return False
    if other.period.last is not None and other.period.last <= end:
        return False
    values = dict(exemption.match.values)
    return all(key in values and values[key] <= wider for key, wider in other.match.values)
