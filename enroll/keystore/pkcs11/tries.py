"""How often a PIN is sent to a token, which locks after a few wrong ones: often three, and some erase themselves then.

A PIN that a token has refused is not sent to it again. Some libraries do not say that it was the PIN, but that
something failed. So one that has not been accepted yet is sent twice at most, if nothing says that it was not looked
at; and not again if the token shows that it has counted a wrong one. Other programs have tries as well: where one is
left, none is made. A PIN that was accepted is sent whenever the token comes back.
"""

from __future__ import annotations

import contextlib
import hmac
import math
import secrets
import threading
from collections.abc import Callable
from pathlib import Path

import pkcs11
from pkcs11.constants import TokenFlag

from enroll.errors import PinRefused

UNCLEAR_TRIES = 2  # less than any token has; a library that was started anew needs the second one
ACCEPTED, REFUSED = math.inf, -math.inf  # tries that are left

_PIN_ERRORS = (
    pkcs11.PinExpired,
    pkcs11.PinIncorrect,
    pkcs11.PinInvalid,
    pkcs11.PinLenRange,
    pkcs11.UserPinNotInitialized,
)
# The PIN has not been compared with anything.
_NOT_LOOKED_AT = (
    pkcs11.DeviceRemoved,
    pkcs11.PinLocked,
    pkcs11.SessionClosed,
    pkcs11.SessionHandleInvalid,
    pkcs11.SlotIDInvalid,
    pkcs11.TokenNotPresent,
    pkcs11.TokenNotRecognised,
    pkcs11.UserAlreadyLoggedIn,
)
_COUNTED = TokenFlag.USER_PIN_COUNT_LOW | TokenFlag.USER_PIN_FINAL_TRY | TokenFlag.USER_PIN_LOCKED


class Tries:
    """What this process has sent to the tokens of a library."""

    def __init__(self) -> None:
        self._left: dict[bytes, float] = {}
        self._guard = threading.Lock()
        self._secret = secrets.token_bytes(32)  # no PIN is kept

    def log_in(self, token: pkcs11.Token, pin: str, log_in: Callable[[str], None], pin_file: Path | None) -> None:
        """Send a PIN, if that cannot lock the token.

        Args:
            token: With the flags that it has now.
            pin: The user PIN.
            log_in: Sends it.
            pin_file: Where it is from, for messages.

        Raises:
            PinRefused: Now, or it was before, or this could be the last try.
            pkcs11.PKCS11Error: Something else failed.
        """
        # Two tokens may have the same label, and the PIN be that of one of them.
        attempt = hmac.digest(self._secret, token.serial + b"\0" + pin.encode(), "sha256")
        with self._guard:
            left = self._left.setdefault(attempt, UNCLEAR_TRIES)
            if left == REFUSED:
                raise _refused(token, "as before", pin_file)
            if left < 1:
                raise _unclear(token)
            if token.flags & TokenFlag.USER_PIN_LOCKED:
                raise pkcs11.PinLocked
            if token.flags & TokenFlag.USER_PIN_FINAL_TRY and left < ACCEPTED:
                raise _last_try(token, pin_file)
            self._left[attempt] = left - 1
        try:
            log_in(pin)
        except _PIN_ERRORS as error:
            self._left[attempt] = REFUSED
            raise _refused(token, type(error).__name__, pin_file) from error
        except _NOT_LOOKED_AT:
            self._left[attempt] = left
            raise
        except pkcs11.PKCS11Error as error:
            if _has_counted(token):
                self._left[attempt] = REFUSED
                raise _refused(token, "a wrong one was counted", pin_file) from error
            raise
        self._left[attempt] = ACCEPTED


def _has_counted(token: pkcs11.Token) -> bool:
    """Whether the token shows a wrong PIN that it did not show before."""
    with contextlib.suppress(pkcs11.PKCS11Error):
        return bool(token.slot.get_token().flags & ~token.flags & _COUNTED)
    return False


def _refused(token: pkcs11.Token, reason: str, pin_file: Path | None) -> PinRefused:
    return PinRefused(
        f"The token {token.label} does not accept the PIN ({reason}).",
        remedy=f"Put the right PIN into {pin_file}. A refused PIN is not tried again, because tokens lock after a few.",
    )


def _unclear(token: pkcs11.Token) -> PinRefused:
    return PinRefused(
        f"The token {token.label} failed at every login; perhaps it counts wrong PINs, so there is no further one.",
        remedy="Log in by hand, for example by pkcs11-tool --login. If that works, restart scanseal. If its TPM was "
        "cleared or replaced, the keys are gone: set up the token again, and enroll again.",
    )


def _last_try(token: pkcs11.Token, pin_file: Path | None) -> PinRefused:
    return PinRefused(
        f"The token {token.label} locks after one more wrong PIN, so none was tried.",
        remedy=f"Log in once by hand with the PIN that is in {pin_file}, for example by pkcs11-tool --login. Then the "
        "token counts anew, and scanseal goes on by itself.",
    )
