"""`scanseal status` repeats what a running agent says of itself (docs/socket-protocol.md), and what to do about it."""

from __future__ import annotations

from typing import Any

import pytest

from agent.cli import running

READY: dict[str, Any] = {
    "state": "ready",
    "roles": {"acquisition": "ready", "derivation": "not-enrolled", "synthesis": "not-enrolled"},
    "identities": {
        "signing": {"generation": 3, "protection": "hardware", "signs_until": "2031-01-01T00:00:00+00:00"},
        "derivation": None,
        "synthesis": None,
        "device": {"generation": 1, "protection": "hardware", "signs_until": None},
    },
    "refused_generation": None,
    "unsigned": {"since_start": 0, "since_last_signature": 0},
    "first_signature_seconds": 1.234,
    "memory_locked": True,
}
STATES = (
    "awaiting-certificate",
    "key-expired",
    "key-store-unavailable",
    "key-damaged",
    "certificate-expired",
    "certificate-not-yet-valid",
    "certificate-revoked",
    "signing-failed",
)


def with_role(state: str) -> dict[str, Any]:
    return {**READY, "roles": {**READY["roles"], "acquisition": state}}


def said(status: dict[str, Any]) -> str:
    return " ".join(f"{each['what']} {each['remedy']}" for each in running.warnings(status))


def test_an_agent_that_signs_is_not_warned_about() -> None:
    assert running.signs(READY)
    assert running.warnings(READY) == []
    assert running.text(READY) == "ready: acquisition ready, first signature 1.2 s after the start"


@pytest.mark.parametrize("state", STATES)
def test_a_role_that_cannot_sign_is_named_with_what_to_do(state: str) -> None:
    status = with_role(state)

    assert not running.signs(status)
    assert f"acquisition {state}" in running.text(status)
    (warning,) = running.warnings(status)
    assert "acquisition" in warning["what"]
    assert warning["remedy"]


def test_a_role_in_a_state_of_a_later_release_is_not_hidden() -> None:
    assert not running.signs(with_role("on-holiday"))
    assert "on-holiday" in said(with_role("on-holiday"))


def test_images_without_a_signature_are_counted() -> None:
    assert "12 images or digests" in said({**READY, "unsigned": {"since_start": 12, "since_last_signature": 0}})
    assert "the last 5" in said({**READY, "unsigned": {"since_start": 12, "since_last_signature": 5}})


def test_memory_that_may_be_swapped_is_a_warning() -> None:
    assert "LimitMEMLOCK" in said({**READY, "memory_locked": False})


def test_a_generation_that_was_refused_is_a_warning() -> None:
    refused = {"identity": "signing", "code": "key-damaged", "detail": "The file is damaged."}

    assert "signing" in said({**READY, "refused_generation": refused})
    assert "The file is damaged." in said({**READY, "refused_generation": refused})
    assert running.signs({**READY, "refused_generation": refused})


def test_where_the_key_is_the_agent_knows_for_what_it_uses() -> None:
    assert running.key_in_use(READY, "signing", 3) == {
        "protection": "hardware",
        "signs_until": "2031-01-01T00:00:00+00:00",
    }
    assert running.key_in_use(READY, "signing", 4) is None  # it has not taken it up
    assert running.key_in_use(READY, "device", 1) is None  # it does not use it
    assert running.key_in_use(READY, "derivation", 1) is None


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"state": 1, "roles": 1, "identities": 1, "unsigned": 1, "refused_generation": 1, "memory_locked": 1},
        {"roles": {"acquisition": {}}, "identities": {"signing": 1}, "unsigned": {"since_start": "x"}},
        {"identities": {"signing": {"generation": 3, "protection": 1, "signs_until": 1}}},
        {"error": 1, "first_signature_seconds": "soon", "unsigned": {"since_start": True}},
        {"state": "a\x1b[2J", "roles": {"acquisition\n": "b\x1b[2J"}, "refused_generation": {"detail": "c\x1b[2J"}},
    ],
)
def test_nothing_that_an_agent_answers_breaks_the_status(status: dict[str, Any]) -> None:
    shown = f"{running.text(status)} {said(status)}"

    assert not running.signs(status)
    assert shown.isprintable()
    assert running.key_in_use(status, "signing", 3) is None
