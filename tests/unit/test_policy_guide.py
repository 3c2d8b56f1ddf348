"""The guide for archive owners says what the program does, and the published schema what the loader takes."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator

from agent.errors import PolicyError
from agent.policy.algorithms import BUILT_IN_RULES, KNOWN_NAMES
from agent.policy.model import AlgorithmUse
from agent.policy.parse import KEYS, parse_policy
from agent.policy.verdicts import EXIT_CODES, Mode, Verdict, default_action
from tests.support.policies import (
    CT1,
    GUIDE,
    MAMMOGRAPH,
    ROOT,
    US_OLD,
    Signed,
    as_json,
    example,
    instance,
    judge,
    with_authorities,
)

TEXT: Final = GUIDE.read_text("utf-8")
SCHEMA: Final[dict[str, Any]] = json.loads((ROOT / "docs/policy.schema.json").read_text("utf-8"))
VALIDATOR: Final = Draft202012Validator(SCHEMA)


def rows(*header: str) -> list[list[str]]:
    """The cells of the table with this header."""
    lines = TEXT.split("\n")
    start = next(index for index, line in enumerate(lines) if line.startswith("| " + " | ".join(header) + " |"))
    table: list[list[str]] = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return table


# ---------------------------------------------------------------------------------------------- the example

SCANNERS: Final = {"CT1": CT1, "US_OLD": US_OLD, "OLDPACS": MAMMOGRAPH, "no scanner that is named": MAMMOGRAPH}


def test_the_example_is_a_policy() -> None:
    policy = parse_policy(example(), "policy.toml")

    assert (policy.id, policy.serial, len(policy.entries)) == ("st-elsewhere", 41, 5)


@pytest.mark.parametrize("row", rows("instance", "verdict", "action"), ids=lambda row: row[0])
def test_the_example_means_what_the_guide_says(row: list[str]) -> None:
    said, verdict, action = row
    scanner = next(name for name in SCANNERS if name in said)
    others = "another device" in said
    signatures = [Signed(serial="SN999" if others else "SN123")] if "signed by" in said else []
    received = said.rpartition(" ")[2]

    judgement = judge(
        parse_policy(with_authorities(example()), "policy.toml"),
        instance(*signatures, equipment=SCANNERS[scanner]),
        received,
        sending_ae="OLDPACS" if scanner == "OLDPACS" else "",
    )

    assert (judgement.verdict, judgement.action) == (verdict, action)


# ---------------------------------------------------------------------------------------------- the tables


@pytest.mark.parametrize("table", [name for name in KEYS if name != "on"])
def test_every_key_is_explained(table: str) -> None:
    explained = {key for line in TEXT.split("\n") if line.startswith("| `") for key in re.findall(r"`(\w+)`", line)}
    tables = {"", "policy", "anchor", "device", "rule", "algorithm", "compromise", "migration"}

    assert set(KEYS[table]) - (tables if not table else set()) <= explained


def test_the_table_of_verdicts_is_the_one_of_the_program() -> None:
    said = {row[0]: (row[2:5], int(row[5])) for row in rows("verdict", "meaning", "report", "warn", "enforce", "exit")}

    assert list(said) == list(Verdict)
    assert said == {v: ([default_action(v, mode) for mode in Mode], EXIT_CODES[v]) for v in Verdict}


def test_the_table_of_algorithms_is_the_one_of_the_program() -> None:
    said = [
        (row[0], frozenset(row[1].split(", ")), row[2].partition(",")[0], row[3].partition(" ")[0])
        for row in rows("use", "names", "verify", "proof_before")
    ]

    assert said == [(rule.use, rule.names, rule.status, str(rule.proof_before or "")) for rule in BUILT_IN_RULES]


def test_the_built_in_rules_speak_of_every_algorithm_of_signatures_once() -> None:
    for use in (AlgorithmUse.MAC, AlgorithmUse.KEY):
        names = [name for rule in BUILT_IN_RULES if rule.use is use for name in rule.names]
        assert sorted(names) == sorted(KNOWN_NAMES[use])
        assert all(f'"{name}"' in TEXT for name in names)


# ---------------------------------------------------------------------------------------------- the schema


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_the_example_fits_the_schema() -> None:
    assert [error.message for error in VALIDATOR.iter_errors(as_json(tomllib.loads(example())))] == []


@pytest.mark.parametrize("table", KEYS)
def test_the_schema_has_the_keys_of_the_loader(table: str) -> None:
    if table == "received":
        described = SCHEMA["$defs"]["migration"]["properties"]["received"]
    else:
        described = SCHEMA["$defs"][table] if table else SCHEMA

    assert set(described["properties"]) == set(KEYS[table])
    assert described["additionalProperties"] is False


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("grace_days = 14", "grace_dayz = 14"),
        ('expect = "any"', 'expect = "none"'),
        ('mode = "warn"', 'mode = "Warn"'),
        ('match.modality = ["US"]', 'match.modality = ["us"]'),
        ('match.model = "CT-9000"', 'match.software_version = "1\\\\2"'),
        ('match.model = "CT-9000"', 'match.device_uid = "urn:oid:2.25.1"'),
        ("serial = 41", "serial = -1"),
        ('timezone = "+01:00"', 'timezone = "CET"'),
        ('identifies = "vendor"', 'identifies = "device"'),
        ('match.manufacturer = "ACME"', 'match.manufacturers = "ACME"'),
        ('match.manufacturer = "ACME"', ""),
        ('match.sending_ae = "OLDPACS"', 'match.ae = "OLDPACS"'),
        ("received.until = 2027-04-30", ""),
        ('reason = "no vendor update; replacement planned"', ""),
        ("until = 2029-06-30", ""),
        ('on.VALID_PARTIAL_COVERAGE = "quarantine"', 'on.BROKEN = "accept"'),
        ('kind = "sold"', 'kind = "lost"'),
        ("proof_before = 2017-02-23", ""),
        ("1" * 64, "1" * 63),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(old: str, new: str) -> None:
    text = example()
    assert old in text
    changed = text.replace(old, new, 1)

    assert list(VALIDATOR.iter_errors(as_json(tomllib.loads(changed)))) != []
    with pytest.raises(PolicyError):
        parse_policy(changed, "policy.toml")
