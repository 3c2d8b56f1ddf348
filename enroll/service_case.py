"""A service case with the vendor: the nonce that this device shows on its screen, and the ticket that came for it.

    vendor/nonce.json     shown, and no ticket has come for it yet
    vendor/ticket.json    the ticket that is used; whichever came last

A person reads the nonce from a screen to the vendor's service desk, so it has sixteen characters of an alphabet without
0, O, I, L and U, in groups of four. The last one checks the others: 31 is a prime, so a weighted sum finds every wrong
character and every two that were swapped.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from enroll.errors import ConfigurationError, EnrollmentRefused, StateError, StateUnreadable
from enroll.identity import Generation
from enroll.proves import Proves, proves
from enroll.record import read_record, read_time, write_record
from enroll.service_ticket import ServiceTicket, read_ticket
from enroll.statefile import StateFiles

_LOG = logging.getLogger(__name__)

_ALPHABET = "123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PLACES = 15  # 74 bits, then the check character
_GROUP = 4


@dataclass(frozen=True)
class KeptTicket:
    """A ticket that was accepted.

    Args:
        text: As the service wants to see it.
        ticket: What it says.
        accepted_at: When it came.
    """

    text: str = field(repr=False)
    ticket: ServiceTicket
    accepted_at: datetime

    def has_brought(self, generation: Generation) -> bool:
        """Whether a generation came by this ticket; one that was imported did not."""
        return generation.committed_at >= self.accepted_at and proves(generation.certificate) is Proves.DEVICE


class ServiceCase:
    """What is kept of the service case.

    Args:
        state_directory: Of the scanner.
        files: Reads and writes below it.
    """

    def __init__(self, state_directory: Path, files: StateFiles) -> None:
        self._directory = state_directory / "vendor"
        self._files = files

    def nonce(self, *, anew: bool = False) -> str:
        """The nonce to show; the same one until a ticket has come for it.

        Args:
            anew: Whether to forget the one that was shown.

        Raises:
            StateError: It cannot be kept.
        """
        kept = None if anew else self._shown()
        if kept is None:
            kept = new_nonce()
            self._files.make_directory(self._directory)
            write_record(self._nonce_file, {"nonce": kept}, self._files)
        return kept

    def accept(self, text: str, ticket: ServiceTicket, now: datetime) -> KeptTicket:
        """Keep a ticket that was checked. The nonce is not shown again.

        Raises:
            StateError: It cannot be kept.
        """
        self._files.make_directory(self._directory)
        write_record(self._ticket_file, {"ticket": text, "accepted_at": now.isoformat()}, self._files)
        self._files.remove(self._nonce_file)
        return KeptTicket(text, ticket, now)

    def ticket(self) -> KeptTicket | None:
        """The ticket that was accepted last; None where none was, or it is damaged: another one is the way out.

        Raises:
            StateUnreadable: Not for the user who runs this.
        """
        if not self._files.exists(self._ticket_file):
            return None
        try:
            values = read_record(self._ticket_file, ("ticket", "accepted_at"), self._files)
            accepted_at = read_time(values["accepted_at"], self._ticket_file)
            return KeptTicket(values["ticket"], read_ticket(values["ticket"]), accepted_at)
        except StateUnreadable:
            raise
        except (StateError, EnrollmentRefused) as error:
            _LOG.warning("The service ticket that was accepted cannot be read: %s", error.what)
            return None

    def _shown(self) -> str | None:
        if not self._files.exists(self._nonce_file):
            return None
        try:
            return normalized(read_record(self._nonce_file, ("nonce",), self._files)["nonce"])
        except (StateError, ConfigurationError):
            return None  # nothing depends on it: another one is as good

    @property
    def _nonce_file(self) -> Path:
        return self._directory / "nonce.json"

    @property
    def _ticket_file(self) -> Path:
        return self._directory / "ticket.json"


def new_nonce() -> str:
    """A nonce that was never used."""
    characters = [secrets.choice(_ALPHABET) for _ in range(_PLACES)]
    return "".join([*characters, _check_character(characters)])


def shown(nonce: str) -> str:
    """A nonce as it stands on a screen: 7K3M-9QTX-..."""
    return "-".join(nonce[start : start + _GROUP] for start in range(0, len(nonce), _GROUP))


def normalized(typed: str) -> str:
    """A nonce as somebody typed it: hyphens, spaces and case mean nothing.

    Raises:
        ConfigurationError: It is none; a wrong or swapped character is always found.
    """
    characters = "".join(typed[:64].split()).replace("-", "").upper()
    wrong = len(characters) != _PLACES + 1 or not set(characters) <= set(_ALPHABET)
    if wrong or _check_character(characters[:_PLACES]) != characters[_PLACES]:
        raise ConfigurationError(
            "This is not a nonce of a device.", remedy="Compare it with the screen; 0, O, I, L and U are never in it."
        )
    return characters


def _check_character(characters: Iterable[str]) -> str:
    weighted = (place * _ALPHABET.index(character) for place, character in enumerate(characters, start=1))
    return _ALPHABET[sum(weighted) % len(_ALPHABET)]
