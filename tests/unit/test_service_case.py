"""A service case: the nonce survives being read over the telephone, and is shown until a ticket has come for it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from enroll.errors import ConfigurationError, StateError
from enroll.identity import IdentityName
from enroll.statefile import StateFiles
from enroll.vendor.case import ServiceCase, new_nonce, normalized, shown
from enroll.vendor.ticket import sign_ticket
from tests.support.records import rewrite
from tests.unit.test_service_ticket import KEY, TICKET

ALPHABET = "123456789ABCDEFGHJKMNPQRSTVWXYZ"


@pytest.fixture
def case(tmp_path: Path) -> ServiceCase:
    return ServiceCase(tmp_path, StateFiles())


def test_a_nonce_is_never_the_same_and_has_no_letters_that_look_alike() -> None:
    nonces = {new_nonce() for _ in range(1000)}

    assert len(nonces) == 1000
    assert set("".join(nonces)) <= set(ALPHABET)


def test_hyphens_spaces_and_case_mean_nothing() -> None:
    nonce = new_nonce()

    assert shown(nonce).count("-") == 3
    for typed in (nonce, shown(nonce), shown(nonce).lower(), f"  {shown(nonce).replace('-', ' ')}\n"):
        assert normalized(typed) == nonce


def test_every_wrong_character_is_found() -> None:
    nonce = new_nonce()
    wrong = {
        nonce[:place] + other + nonce[place + 1 :]
        for place in range(len(nonce))
        for other in ALPHABET
        if other != nonce[place]
    }

    assert len(wrong) == 16 * 30
    for typed in wrong:
        with pytest.raises(ConfigurationError):
            normalized(typed)


def test_any_two_characters_that_were_swapped_are_found() -> None:
    nonce = new_nonce()
    for first in range(15):
        for second in range(first + 1, 15):
            swapped = list(nonce)
            swapped[first], swapped[second] = nonce[second], nonce[first]
            if swapped != list(nonce):
                with pytest.raises(ConfigurationError):
                    normalized("".join(swapped))


@pytest.mark.parametrize("typed", ["", "A", "0" * 16, "I" * 16, "A" * 17, "A" * 1_000_000, "\u0661" * 16, "\0" * 16])
def test_what_is_no_nonce_is_refused_and_not_repeated(typed: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        normalized(typed)

    assert not typed or typed not in str(refused.value) or len(typed) == 1


def test_the_same_nonce_is_shown_until_its_ticket_has_come(case: ServiceCase) -> None:
    nonce = case.nonce()
    assert case.nonce() == nonce

    case.accept(sign_ticket(TICKET, KEY), TICKET)
    assert case.nonce() != nonce


def test_the_nonce_of_a_ticket_that_has_come_is_not_shown_again_whatever_was_cut_off(
    case: ServiceCase, tmp_path: Path
) -> None:
    """The scanner was switched off when the ticket was on the disk and its nonce was still there."""
    nonce = case.nonce()
    shown_before = (tmp_path / "vendor" / "nonce.json").read_bytes()
    ticket = replace(TICKET, nonce=nonce)
    case.accept(sign_ticket(ticket, KEY), ticket)
    (tmp_path / "vendor" / "nonce.json").write_bytes(shown_before)

    assert case.nonce() != nonce


def test_a_new_nonce_is_shown_to_who_wants_one(case: ServiceCase) -> None:
    assert case.nonce() != case.nonce(anew=True)


def test_a_nonce_that_cannot_be_read_is_replaced(case: ServiceCase, tmp_path: Path) -> None:
    case.nonce()
    rewrite(tmp_path / "vendor" / "nonce.json", nonce="A" * 16)

    assert normalized(case.nonce()) == case.nonce()


def test_the_ticket_is_kept_for_its_owner_alone_and_checked_again_when_it_is_read(
    case: ServiceCase, tmp_path: Path
) -> None:
    assert case.ticket() is None
    text = sign_ticket(TICKET, KEY)
    case.accept(text, TICKET)

    kept = case.ticket()
    assert kept is not None
    assert (kept.text, kept.ticket, kept.before) == (text, TICKET, {IdentityName.IDEVID: 0, IdentityName.VENDOR: 0})
    assert text not in repr(kept)
    file = tmp_path / "vendor" / "ticket.json"
    assert file.stat().st_mode & 0o777 == 0o600

    for changes in ({"ticket": "x"}, {"idevid": "-1"}, {"vendor": "\u0661"}):
        case.accept(text, TICKET)
        rewrite(file, **changes)
        assert case.ticket() is None  # another one is the way out


def test_a_command_of_another_user_writes_nothing_that_the_service_could_not_read(
    case: ServiceCase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)

    for act in (case.nonce, lambda: case.accept("", TICKET)):
        with pytest.raises(StateError) as refused:
            act()
        assert refused.value.code == "state-of-another-user"
    assert not (tmp_path / "vendor").exists()
