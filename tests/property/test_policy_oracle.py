"""The evaluator of policies and a second, independent one say the same of thousands of instances.

The second one (tests/support/policy_oracle.py) has to pass the first table of the policy's rules itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from agent.dicom.report import IdentityLevel
from agent.policy.evaluate import evaluate
from agent.policy.judgement import Judgement
from agent.policy.parse import parse_policy
from tests.support.first_table import FIRST_POLICY, FIRST_TABLE
from tests.support.policies import CT1, MAMMOGRAPH, US_OLD, Case
from tests.support.policy_oracle import CONTENT_VERDICTS, VERDICTS, Opinion, PolicyOracle
from tests.support.random_policies import CaseMaker, PolicyMaker, as_toml, silent_outside_of

SEEDS: Final = range(11)
POLICIES_OF_A_SEED: Final = 100
INSTANCES_OF_A_POLICY: Final = 20


@pytest.mark.parametrize("name", list(FIRST_TABLE))
def test_the_second_evaluator_passes_the_first_table(name: str) -> None:
    case, (verdict, *beside) = FIRST_TABLE[name]
    opinion = PolicyOracle(FIRST_POLICY).judge(
        case.report, case.receipt, case.now, sources_verified=case.sources_verified
    )
    assert (opinion.verdict, opinion.beside) == (verdict, tuple(beside))
    if verdict == "UNSIGNED_VIOLATION":
        by_equipment = {CT1: ("ct1", "quarantine"), US_OLD: ("all-us", "flag"), MAMMOGRAPH: ("mammo-mandate", "flag")}
        rule, action = by_equipment[case.report.equipment]
        assert (set(opinion.rule_ids), opinion.action) == ({rule}, action)


def test_the_cases_reach_every_verdict() -> None:
    chance = random.Random(0)  # noqa: S311 - the same cases as below
    reached: set[str] = set()
    for _ in range(POLICIES_OF_A_SEED):
        tables = PolicyMaker(chance).make()
        oracle, _ = both(as_toml(tables))
        for number in range(INSTANCES_OF_A_POLICY):
            opinion = oracle(CaseMaker(chance, tables).make(signatures=min(number % 3, 1)))
            reached |= {opinion.verdict, *opinion.beside}
    assert reached == set(VERDICTS)


@pytest.mark.parametrize("seed", SEEDS)
def test_both_say_the_same_of_instances_with_one_signature_or_none(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - seeds are kept, so that a case can be made again
    for _ in range(POLICIES_OF_A_SEED):
        tables = PolicyMaker(chance).make()
        oracle, product = both(as_toml(tables))
        for number in range(INSTANCES_OF_A_POLICY):
            case = CaseMaker(chance, tables).make(signatures=min(number % 3, 1))
            opinion, judgement = oracle(case), product(case)
            assert as_said(judgement, opinion) == opinion, f"{case}\n{as_toml(tables)}"


@pytest.mark.parametrize("seed", [1, 2])
def test_both_find_the_same_in_each_of_two_signatures(seed: int) -> None:
    """Which of two signatures has the say is not compared, nor what follows from that for content and entries."""
    chance = random.Random(seed)  # noqa: S311 - seeds are kept, so that a case can be made again
    for _ in range(POLICIES_OF_A_SEED // 2):
        tables = PolicyMaker(chance).make()
        oracle, product = both(as_toml(tables))
        for _ in range(INSTANCES_OF_A_POLICY):
            case = CaseMaker(chance, tables).make(signatures=2, all_covered=True)
            opinion, judgement = oracle(case), product(case)
            found = {judgement.verdict.value, *judgement.beside}
            assert found - CONTENT_VERDICTS == {opinion.verdict, *opinion.beside} - CONTENT_VERDICTS, f"{case}"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_is_said_outside_of_the_signature_never_helps(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - seeds are kept, so that a case can be made again
    for _ in range(POLICIES_OF_A_SEED):
        tables = PolicyMaker(chance).make()
        _, product = both(as_toml(tables))
        for _ in range(INSTANCES_OF_A_POLICY):
            case = CaseMaker(chance, tables).make(signatures=1)
            covered = frozenset(case.report.signatures[0].coverage.covered)
            silent = product(replace(case, report=silent_outside_of(covered, case.report)))
            said = product(case)
            if silent.identity_level is IdentityLevel.NONE:
                continue  # no signature speaks, and everything is a claim
            strict = [(one.action.strictness, -one.verdict.rank) for one in (silent, said)]
            assert strict == sorted(strict), f"{case}\n{as_toml(tables)}"


def both(text: str) -> tuple[Callable[[Case], Opinion], Callable[[Case], Judgement]]:
    """Both evaluators for one policy."""
    oracle, loaded = PolicyOracle(text), parse_policy(text, "policy.toml")

    def opinion(case: Case) -> Opinion:
        return oracle.judge(case.report, case.receipt, case.now, sources_verified=case.sources_verified)

    def judgement(case: Case) -> Judgement:
        return evaluate(case.report, case.receipt, loaded, case.now, sources_verified=case.sources_verified)

    return opinion, judgement


def as_said(judgement: Judgement, opinion: Opinion) -> Opinion:
    """What the product says in the words of the second evaluator; it may name more entries that had a part in it."""
    return Opinion(
        verdict=judgement.verdict.value,
        action=judgement.action.value,
        exit_code=judgement.exit_code,
        beside=tuple(verdict.value for verdict in judgement.beside),
        rule_ids=frozenset(judgement.rule_ids) & opinion.rule_ids,
        stripped=judgement.stripped,
        policy_stale=judgement.policy_stale,
        non_profile=judgement.non_profile,
        not_clinical=judgement.not_clinical,
    )
