"""No token is locked by us, however little its library says of a wrong PIN (`enroll.keystore.pkcs11.tries`).

PKCS#11 v2.40: C_Login (5.6), and the flags of CK_TOKEN_INFO (3.2), which a token may leave out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from enroll.errors import PinRefused

pkcs11 = pytest.importorskip("pkcs11", reason="python-pkcs11 is missing: pip install '.[pkcs11]'")
from pkcs11.constants import TokenFlag  # noqa: E402 - an optional extra

from enroll.keystore.pkcs11.tries import Tries  # noqa: E402 - needs it

LOW, FINAL, LOCKED = TokenFlag.USER_PIN_COUNT_LOW, TokenFlag.USER_PIN_FINAL_TRY, TokenFlag.USER_PIN_LOCKED
RIGHT, WRONG, FILE = "right-4711", "wrong-4711", Path("/run/pin")
UNCLEAR = (pkcs11.GeneralError, pkcs11.FunctionFailed, pkcs11.DeviceError, pkcs11.PKCS11Error)


@dataclass
class Card:
    """A token that locks after three wrong PINs, as cards do.

    Args:
        shows: The flags that it has.
        says: What its library says of a wrong PIN.
        fails: What it says of every PIN, without looking at it.
    """

    shows: TokenFlag = LOW | FINAL | LOCKED
    says: type[Exception] = pkcs11.PinIncorrect
    fails: type[Exception] | None = None
    serial: bytes = b"0001"
    wrong: int = 0
    sent: list[str] = field(default_factory=list)

    @property
    def flags(self) -> TokenFlag:
        """All that it could say now."""
        now = (TokenFlag(0), LOW, LOW | FINAL, LOCKED)[self.wrong]
        return now & self.shows

    def log_in(self, pin: str) -> None:
        """C_Login."""
        self.sent.append(pin)
        if self.fails is not None:
            raise self.fails
        if self.wrong == 3:
            raise pkcs11.PinLocked
        if pin != RIGHT:
            self.wrong += 1
            raise self.says
        self.wrong = 0


@dataclass(frozen=True)
class Seen:
    """The token as it was when it was found: python-pkcs11 reads the flags once."""

    card: Card
    flags: TokenFlag
    serial: bytes
    label: str = "scanseal"

    @property
    def slot(self) -> Any:
        """Where it is asked for anew."""
        return self

    def get_token(self) -> Any:
        """C_GetTokenInfo."""
        return Seen(self.card, self.card.flags, self.serial)


def attempt(tries: Tries, card: Card, pin: str) -> type[BaseException] | None:
    """One try to log in, and its error."""
    seen: Any = Seen(card, card.flags, card.serial)
    try:
        tries.log_in(seen, pin, card.log_in, FILE)
    except (PinRefused, pkcs11.PKCS11Error) as error:
        return type(error)
    return None


@pytest.mark.parametrize("says", [pkcs11.PinIncorrect, pkcs11.PinLenRange, *UNCLEAR])
@pytest.mark.parametrize("shows", [LOW | FINAL | LOCKED, FINAL | LOCKED, LOCKED, TokenFlag(0)])
def test_a_wrong_pin_never_locks_a_token(says: type[Exception], shows: TokenFlag) -> None:
    tries, card = Tries(), Card(shows, says)

    errors = [attempt(tries, card, WRONG) for _ in range(20)]

    assert card.wrong < 3
    assert errors[-1] is PinRefused
    assert attempt(tries, card, RIGHT) is None or FINAL in card.flags


def test_a_refused_pin_is_sent_once_to_each_token() -> None:
    """The PIN of one token with this label may be wrong for another one, which takes its place."""
    tries, card, other = Tries(), Card(), Card(serial=b"0002")

    for _ in range(5):
        assert attempt(tries, card, WRONG) is PinRefused
        assert attempt(tries, other, WRONG) is PinRefused

    assert (card.sent, other.sent) == ([WRONG], [WRONG])


@pytest.mark.parametrize("says", UNCLEAR)
def test_what_the_token_has_counted_is_not_sent_again_whatever_the_library_says(says: type[Exception]) -> None:
    tries, card = Tries(), Card(says=says)

    assert [attempt(tries, card, WRONG) for _ in range(5)] == [PinRefused] * 5

    assert card.sent == [WRONG]


def test_the_last_try_is_left_to_a_human() -> None:
    """Two other programs had the wrong PIN; whether ours is right, nobody knows."""
    tries, card = Tries(), Card(wrong=2)

    assert [attempt(tries, card, RIGHT) for _ in range(5)] == [PinRefused] * 5
    assert card.sent == []

    card.log_in(RIGHT)
    assert attempt(tries, card, RIGHT) is None


@pytest.mark.parametrize("fails", UNCLEAR)
def test_a_pin_that_was_accepted_is_sent_until_the_token_is_back(fails: type[Exception]) -> None:
    tries, card = Tries(), Card(shows=TokenFlag(0))
    assert attempt(tries, card, RIGHT) is None

    card.fails = fails
    assert {attempt(tries, card, RIGHT) for _ in range(20)} == {fails}

    card.fails = None
    assert attempt(tries, card, RIGHT) is None


@pytest.mark.parametrize("fails", [pkcs11.TokenNotPresent, pkcs11.DeviceRemoved, pkcs11.SlotIDInvalid])
def test_a_pin_that_was_not_looked_at_is_sent_when_the_token_is_there(fails: type[Exception]) -> None:
    tries, card = Tries(), Card(fails=fails)
    assert {attempt(tries, card, RIGHT) for _ in range(20)} == {fails}

    card.fails = None
    assert attempt(tries, card, RIGHT) is None


def test_a_locked_token_gets_no_pin() -> None:
    tries, card = Tries(), Card(wrong=3)

    assert {attempt(tries, card, RIGHT) for _ in range(5)} == {pkcs11.PinLocked}
    assert card.sent == []

    card.wrong = 0  # the security officer has unlocked it
    assert attempt(tries, card, RIGHT) is None


def test_no_pin_is_kept() -> None:
    tries, card = Tries(), Card()
    attempt(tries, card, WRONG)
    attempt(tries, card, RIGHT)

    kept = repr(vars(tries))

    assert RIGHT not in kept
    assert WRONG not in kept
