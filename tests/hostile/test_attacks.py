"""The catalogue of attacks: each is noticed, none is accepted, and no honest file raises anything."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from agent.dicom.elements import tag_name
from agent.errors import DicomError
from agent.policy.evaluate import evaluate
from agent.policy.judgement import Receipt
from agent.policy.verdicts import Action, Verdict
from tests.support.attacks.catalogue import ATTACKS, DOCUMENT, document, honest_files
from tests.support.attacks.flips import PROTECTED, Part, flips
from tests.support.attacks.limits import LIMITS
from tests.support.attacks.registry import Attack, Limit, found, report_on
from tests.support.pki import NOW

GOOD = frozenset((Verdict.VALID, Verdict.VALID_EXPECTED_SIGNER, Verdict.DERIVED_VERIFIED_SOURCES))


def by_name(entry: Attack | Limit) -> str:
    return entry.name


@pytest.mark.parametrize(
    ("honest", "known"), honest_files().items(), ids=[honest.__name__ for honest in honest_files()]
)
def test_an_honest_file_raises_nothing(honest: Callable[[], bytes], known: tuple[str, ...]) -> None:
    """But for what a signature under the minimum of C.2 leaves open."""
    assert found(honest()) == known


@pytest.mark.parametrize("attack", ATTACKS, ids=by_name)
def test_an_attack_is_noticed(attack: Attack) -> None:
    attacked = attack.file()
    assert attacked != attack.honest()
    assert set(found(attacked)) >= set(attack.findings) > set()


@pytest.mark.parametrize("attack", ATTACKS, ids=by_name)
def test_no_attacked_file_is_accepted_as_valid(attack: Attack) -> None:
    """By the built-in rules, without a policy.

    They accept, marked, a kind of key that PS3.15 C.1 does not name, and another way of writing model or owner beside
    the right serial number: docs/adr/0018.
    """
    try:
        report = report_on(attack.file())
    except DicomError:
        return
    judgement = evaluate(report, Receipt(NOW), None, NOW)
    is_good = judgement.verdict in GOOD and judgement.action is Action.ACCEPT
    assert not is_good or judgement.non_profile or attack.findings == ("identity: identity-differs",)


@pytest.mark.parametrize("limit", LIMITS, ids=by_name)
def test_what_no_signature_shows_is_known(limit: Limit) -> None:
    changed = limit.file()
    assert changed != limit.honest()
    assert found(changed) == ()
    (signature, *_) = report_on(changed).signatures
    assert limit.listed is None or limit.listed in signature.coverage.excluded, tag_name(limit.listed)


def test_every_entry_has_a_name_of_its_own() -> None:
    names = [attack.name for attack in ATTACKS] + [limit.name for limit in LIMITS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)
    assert len(ATTACKS) >= 60


def test_the_document_shows_the_catalogue() -> None:
    """To write it anew: python -m tests.support.attacks.catalogue."""
    assert DOCUMENT.read_text("utf-8") == document()


@pytest.mark.parametrize("part", PROTECTED)
def test_no_changed_bit_of_what_is_signed_is_missed(part: Part) -> None:
    assert [flip for flip in flips(part) if not flip.findings] == []


def test_no_changed_bit_of_a_value_that_is_not_covered_raises_anything() -> None:
    assert [flip for flip in flips(Part.UNCOVERED_VALUE) if flip.findings] == []


@pytest.mark.parametrize("part", [Part.PREAMBLE, Part.META, Part.UNCOVERED_HEADER, Part.PADDING])
def test_no_changed_bit_outside_of_what_is_signed_is_taken_for_a_broken_signature(part: Part) -> None:
    assert [flip for flip in flips(part) if "integrity: signature-wrong" in flip.findings] == []
