"""Damaged policies end in a policy or in an error of ours that names a line; never in one of a library."""

from __future__ import annotations

import random
from typing import Final

import pytest

from agent.errors import PolicyError
from agent.policy.model import Policy
from agent.policy.parse import parse_policy
from tests.support.policies import CT1_ENTRY, example, policy_text

POLICIES: Final = 20_000
SHARES: Final = 20  # so that several processes can share the work
SEEDS: Final = [example(), policy_text(CT1_ENTRY)]
WORDS: Final = sorted({word for seed in SEEDS for word in seed.split()} | {"floor = true", "[[rule]]", "[policy]"})
PIECES: Final = [
    *("[", "]", "[[", "]]", "{", "}", '"', "'", '"""', "'''", "=", ".", ",", "#", "\n", "\r\n", "\t", "\\", "\0"),
    *("\\u0000", "\\U0010FFFF", "\ud800", "\x85", "\u2028", "\N{RIGHT-TO-LEFT OVERRIDE}", "é", "\ufeff"),
    *("nan", "-inf", "1e999", "0x" + "f" * 5000, "9" * 5000, "-1", "true", "[" * 2000, "{a=" * 2000, "a." * 2000),
    *("0001-01-01", "9999-12-31", "2027-02-30", "2027-01-01T00:00:00", "00:00:00", "9999-12-31T23:59:59-23:59"),
]


def damaged(seed: str, chance: random.Random) -> str:
    """A policy with a few of its lines exchanged or its pieces replaced."""
    text = seed
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(text) + 1)
        match chance.randrange(5):
            case 0:
                text = text[:start] + chance.choice(PIECES) + text[start + chance.randrange(8) :]
            case 1:
                text = text.replace(chance.choice(WORDS), chance.choice([*WORDS, *PIECES]), 1)
            case 2:
                lines = text.split("\n")
                lines.insert(chance.randrange(len(lines)), lines.pop(chance.randrange(len(lines))))
                text = "\n".join(lines)
            case 3:
                lines = text.split("\n")
                lines.insert(chance.randrange(len(lines)), chance.choice(lines))
                text = "\n".join(lines)
            case _:
                text = text[:start] + text[start + chance.randrange(200) :]
    return text


def outcome(text: str) -> Policy | PolicyError:
    try:
        return parse_policy(text, "policy.toml")
    except PolicyError as error:
        return error


@pytest.mark.parametrize("share", range(SHARES))
def test_a_damaged_policy_is_a_policy_or_an_error_with_a_line(share: int) -> None:
    chance = random.Random(share)  # noqa: S311 - the same policies in every run
    refused = 0
    for _ in range(POLICIES // SHARES):
        text = damaged(chance.choice(SEEDS), chance)
        found = outcome(text)
        if isinstance(found, PolicyError):
            refused += 1
            assert 1 <= found.line <= text.count("\n") + 1
            assert f"line {found.line}: " in found.what
            assert len(str(found)) < 2000

    assert 0 < refused < POLICIES // SHARES
