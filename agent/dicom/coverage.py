"""What a signature covers of what is there, and exactly what it does not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from agent.dicom.data_set import DataSet
from agent.dicom.elements import ALL_PIXEL_DATA, tag_name, tag_names
from agent.dicom.profile import Profile
from agent.dicom.report import Coverage, Finding, Outcome
from agent.dicom.signable import is_signable

_FIRST_OVERLAY_GROUP, _LAST_OVERLAY_GROUP = 0x6000, 0x60FF


def coverage_of(
    profile: Profile, present: tuple[int, ...], unsignable: frozenset[int], signed_tags: tuple[int, ...]
) -> Coverage:
    """Compare what is there with what is signed.

    Args:
        profile: What a signature is expected to cover.
        present: The tags of the data set, in order.
        unsignable: Those that are, or hold, an element of unknown VR.
        signed_tags: Data Elements Signed.
    """
    signed = frozenset(signed_tags)
    here = [tag for tag in present if is_signable(tag)]
    missing = tuple(tag for tag in filter(profile.selection().selects, here) if tag not in signed)
    left = signed.union(missing, unsignable)
    return Coverage(
        findings=(*_unnamed(signed, profile), *_findings(missing, unsignable)),
        covered=signed_tags,
        missing=missing,
        excluded=tuple(tag for tag in here if tag not in left),
        unsignable=tuple(tag for tag in here if tag in unsignable),
    )


def nested_coverage_of(item: DataSet, signed_tags: Sequence[int]) -> Coverage:
    """The same for the signature of a sequence item, of which no profile demands anything."""
    signed = frozenset(signed_tags)
    unsignable = item.survey.unsignable
    return Coverage(
        covered=tuple(signed_tags),
        excluded=tuple(tag for tag in item if tag not in signed and tag not in unsignable and is_signable(tag)),
        unsignable=tuple(tag for tag in item if tag in unsignable and is_signable(tag)),
    )


def _unnamed(signed: frozenset[int], profile: Profile) -> Iterator[Finding]:
    if absent := sorted(profile.mandatory - signed):
        names = ", ".join(map(tag_name, absent))
        what = f"The signature does not cover {names}: it may have been made for something else."
        yield Finding("instance-not-named", what, Outcome.FLAGGED)


def _findings(missing: Sequence[int], unsignable: Collection[int]) -> Iterator[Finding]:
    hidden = [tag for tag in missing if tag in unsignable]
    pixels = [tag for tag in missing if tag in ALL_PIXEL_DATA]
    overlays = [tag for tag in missing if _FIRST_OVERLAY_GROUP <= tag >> 16 <= _LAST_OVERLAY_GROUP]
    others = [tag for tag in missing if tag not in {*hidden, *pixels, *overlays}]
    if pixels:
        yield _not_covered("pixel-data-not-covered", pixels, "anybody may have exchanged the image")
    if overlays:
        yield _not_covered("overlay-not-covered", overlays, "anybody may have added graphics")
    if others:
        yield _not_covered("element-not-covered", others, "anybody may have added or changed them since")
    if hidden:
        yield _not_covered("element-unsignable", hidden, "no signature can, because of their unknown VR (UN)")


def _not_covered(code: str, tags: Sequence[int], meaning: str) -> Finding:
    return Finding(code, f"Not covered, {meaning}: {tag_names(tags)}.", Outcome.FLAGGED)
