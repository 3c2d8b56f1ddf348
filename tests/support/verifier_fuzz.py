"""Gives mutants to the verifier and says what it must not do with them.

What must hold of every mutant: it is refused with an error of ours, or there is a report, a judgement, a text and a
JSON document; it takes bounded time; and what is called intact is what was signed, by the second encoder of the tests.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from agent.cli.verification_text import text_of
from agent.dicom.headers import DEFAULT_LIMITS
from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.report import InstanceReport, SignatureReport
from agent.dicom.signer_chain import TrustMaterial
from agent.dicom.stored_instance import StoredInstance
from agent.dicom.verify import Verification, Verifier
from agent.policy.evaluate import evaluate
from agent.policy.judgement import Receipt
from agent.verification_document import document_of
from enroll.errors import ScansealError
from tests.support.dicom_tree import (
    DIGITAL_SIGNATURES,
    MAC_PARAMETERS,
    Element,
    Elements,
    find,
    parse,
    tag_bytes,
    value,
)
from tests.support.mac_oracle import is_signable, mac_stream, signature_of
from tests.support.mutation import Mutator
from tests.support.pki import NOW
from tests.support.signed_seeds import authority, revocations, seeds

DIAGNOSIS_WORK = 1 << 27  # bytes
COMPARED_ONE_OF = 4  # reported mutants; the second reader takes its time
_STEP = re.compile(r"\(([0-9A-F]{4}),([0-9A-F]{4})\)\[(\d+)\]")


@dataclass
class Tally:
    """What became of the mutants.

    Args:
        refused: How many were refused while they were read, by code.
        not_judged: The same while they were judged.
        reported: How many got a report.
        intact: How many signatures in them were called intact.
        compared: How many of these were compared with what was signed.
        slowest: Seconds that the slowest took.
        slowest_number: Which one that was.
        failures: What must not happen, with the numbers of the mutants.
    """

    refused: Counter[str] = field(default_factory=Counter)
    not_judged: Counter[str] = field(default_factory=Counter)
    reported: int = 0
    intact: int = 0
    compared: int = 0
    slowest: float = 0
    slowest_number: int = -1
    failures: dict[str, list[int]] = field(default_factory=dict)


def fuzz(count: int, seed: int, *, diagnose: bool = False) -> Tally:
    """Try that many mutants."""
    mutator, fuzzer, tally = Mutator(seeds(), seed), VerifierFuzzer(diagnose=diagnose), Tally()
    for number in range(count):
        mutant = mutator.mutant(number)
        begin = time.perf_counter()
        try:
            fuzzer.examine(mutant, tally)
        except Exception:  # noqa: BLE001 - whatever it is, it must not come out
            tally.failures.setdefault(traceback.format_exc(limit=-3), []).append(number)
        seconds = time.perf_counter() - begin
        if seconds > tally.slowest:
            tally.slowest, tally.slowest_number = seconds, number
    return tally


class VerifierFuzzer:
    """The verifier with all that a recipient may give it.

    Args:
        diagnose: Whether it is looked for reasons.
    """

    def __init__(self, *, diagnose: bool) -> None:
        ca = authority().certificate
        trust = TrustMaterial(anchors=(ca,), time_stamp_anchors=(ca,), revocation_lists=(revocations(),))
        work = DIAGNOSIS_WORK if diagnose else 0
        profile = load_profile(ProfileName.CREATOR_PLUS)
        self._verifier = Verifier(Verification(profile, NOW, trust, diagnosis_work=work))

    def examine(self, mutant: bytes, tally: Tally) -> None:
        """Verify one mutant; an exception is a failure."""
        try:
            instance = StoredInstance.read(mutant, DEFAULT_LIMITS)
        except ScansealError as error:
            check_error(error)
            tally.refused[error.code] += 1
            return
        try:
            report = self._verifier.report_on(instance)
        except ScansealError as error:
            check_error(error)
            tally.not_judged[error.code] += 1
            return
        tally.reported += 1
        check_answers(report)
        tally.intact += sum(found.intact is True for found in (*report.signatures, *report.nested))
        if tally.reported % COMPARED_ONE_OF == 1:
            elements = parse(mutant).elements
            check_what_is_there(instance, elements)
            tally.compared += check_what_is_intact(elements, report)


def check_error(error: ScansealError) -> None:
    """An error says what happened and has a code (enroll.errors)."""
    assert error.what.isprintable(), error
    assert re.fullmatch(r"[a-z0-9-]+", error.code), error


def check_answers(report: InstanceReport) -> None:
    """Judgement, text and document can be made, and do no harm to a terminal."""
    judgement = evaluate(report, Receipt(NOW), None, NOW)
    text = text_of(Path("instance.dcm"), report, judgement, None)
    assert all(line.isprintable() for line in text.split("\n")), repr(text)
    text.encode("utf-8")
    json.dumps(document_of(report, judgement, None)).encode("utf-8")


def check_what_is_there(instance: StoredInstance, elements: Elements) -> None:
    """The second reader sees the same elements."""
    tags = [element.tag for element in elements if element.tag not in {MAC_PARAMETERS, DIGITAL_SIGNATURES}]
    assert instance.data_set.tags == tags, "two readers see different elements"


def check_what_is_intact(elements: Elements, report: InstanceReport) -> int:
    """What is called intact holds exactly what was signed; returns how many signatures are."""
    reports = (*report.signatures, *report.nested)
    called = [found for found in reports if found.intact and found.diagnosis is None]
    for place in {found.location for found in called}:
        here = at_place(elements, place)
        for item, found in zip(
            items_of(here, DIGITAL_SIGNATURES), (found for found in reports if found.location == place), strict=True
        ):
            if found in called:
                check_signed(here, item, found)
    return len(called)


def check_signed(elements: Elements, item: Elements, found: SignatureReport) -> None:
    """The stream is one that was signed, and made of the same elements."""
    mac_id, tags = value(item, 0x04000005), found.coverage.covered
    listed = b"".join(map(tag_bytes, tags))
    assert any(
        (mac_id, listed) == (first_value(each, 0x04000005), first_value(each, 0x04000020))
        for each in items_of(elements, MAC_PARAMETERS)
    ), "covered is not what the MAC parameters list"
    stream = stream_of(elements, tags, item)
    assert stream in signed_contents(), "called intact, and never signed"
    if content_of(elements, tags) not in signed_contents()[stream]:
        codes = [finding.code for finding in found.coverage.findings]
        assert "fragment-boundary-not-covered" in codes, "called intact, with other elements than were signed"


def items_of(elements: Elements, tag: int) -> tuple[Elements, ...]:
    """The items of a sequence; none where it is not there."""
    sequence = find(elements, tag)
    return (sequence and sequence.items) or ()


def first_value(elements: Elements, tag: int) -> bytes:
    """The value of an element; empty where it is not there."""
    element = find(elements, tag)
    return element.value if element else b""


def stream_of(elements: Elements, tags: Sequence[int], item: Elements) -> str:
    """A digest of what the MAC covers; group lengths and padding are no part of it, wherever they stand."""
    own = tuple(element for element in item if element.tag & 0xFFFF and element.tag != 0xFFFCFFFC)
    return hashlib.sha256(mac_stream(elements, set(tags), own)).hexdigest()


@cache
def signed_contents() -> dict[str, set[str]]:
    """The contents that were signed, by the digest of the stream."""
    known: dict[str, set[str]] = {}
    for seed in seeds():
        for elements in data_sets_in(parse(seed.data).elements):
            for item in items_of(elements, DIGITAL_SIGNATURES):
                tags = signature_of(elements, item).tags
                known.setdefault(stream_of(elements, tags, item), set()).add(content_of(elements, tags))
    return known


def data_sets_in(elements: Elements) -> Iterator[Elements]:
    """The data set and all items in it."""
    yield elements
    for element in elements:
        for item in element.items or ():
            yield from data_sets_in(item)


def content_of(elements: Elements, tags: Sequence[int]) -> str:
    """A digest of the elements themselves: two contents may have one stream."""
    covered = [plain(element) for element in elements if element.tag in set(tags)]
    return hashlib.sha256(repr(covered).encode("utf-8")).hexdigest()


def plain(element: Element) -> tuple[object, ...]:
    """What an element says, without where it stands."""
    items = element.items and [[plain(inner) for inner in item if is_signable(inner)] for item in element.items]
    return element.tag, element.vr, element.value, items, element.fragments


def at_place(elements: Elements, place: str) -> Elements:
    """The item at a location such as (0040,A730)[0]."""
    for group, element, number in _STEP.findall(place):
        elements = items_of(elements, int(group + element, 16))[int(number)]
    return elements
