"""A service case with the vendor: the nonce that this device shows on its screen, and the ticket that came for it.

    vendor/nonce.json     shown, and no ticket has come for it yet
    vendor/ticket.json    the ticket that is used, whichever came last; and the generations that were there before it

A person reads the nonce from a screen to the vendor's service desk, so it has sixteen characters of an alphabet without
0, O, I, L and U, in groups of four. The last one checks the others: 31 is a prime, so a weighted sum finds every wrong
character and every two that were swapped.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from enroll.errors import ConfigurationError, EnrollmentRefused, StateDamaged
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.record import damaged, read_record, write_record
from enroll.statefile import StateFiles
from enroll.vendor.ticket import IDENTITIES, ServiceTicket, read_ticket

_LOG = logging.getLogger(__name__)

_ALPHABET = "123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PLACES = 15  # 74 bits, then the check character
_GROUP = 4
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True)
class KeptTicket:
    """A ticket that was accepted.

    Args:
        text: As the service wants to see it.
        ticket: What it says.
        before: The number of the last generation of each identity when it came. Clocks are set; numbers only grow.
    """

    text: str = field(repr=False)
    ticket: ServiceTicket
    before: Mapping[IdentityName, int]

    def is_older_than(self, generation: Generation) -> bool:
        """Whether a generation came after this ticket, which has done its work then, or is not wanted any more."""
        return generation.number > self.before[generation.identity]


class ServiceCase:
    """What is kept of the service case.

    Args:
        state_directory: Of the scanner.
        files: Reads and writes below it.
    """

    def __init__(self, state_directory: Path, files: StateFiles) -> None:
        self._directory = state_directory / "vendor"
        self._identities = IdentityStore(state_directory, files)
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
            self._make_directory()
            write_record(self._nonce_file, {"nonce": kept}, self._files)
        return kept

    def accept(self, text: str, ticket: ServiceTicket) -> KeptTicket:
        """Keep a ticket that was checked. The nonce is not shown again.

        Raises:
            StateError: It cannot be kept.
        """
        before = {name: max(self._identities.generations(name), default=0) for name in sorted(IDENTITIES)}
        self._make_directory()
        numbers = {str(name): str(number) for name, number in before.items()}
        write_record(self._ticket_file, {"ticket": text, **numbers}, self._files)
        self._files.remove(self._nonce_file)
        return KeptTicket(text, ticket, before)

    def ticket(self) -> KeptTicket | None:
        """The ticket that was accepted last; None where none was, or it is damaged: another one is the way out.

        Raises:
            StateUnreadable: Not for the user who runs this.
        """
        if not self._files.exists(self._ticket_file):
            return None
        try:
            values = read_record(self._ticket_file, ("ticket", *IDENTITIES), self._files)
            if not all(_NUMBER.fullmatch(values[name]) for name in IDENTITIES):
                raise damaged(self._ticket_file)
            before = {name: int(values[name]) for name in IDENTITIES}
            return KeptTicket(values["ticket"], read_ticket(values["ticket"]), before)
        except (StateDamaged, EnrollmentRefused) as error:
            _LOG.warning("The service ticket that was accepted cannot be read: %s", error.what)
            return None

    def _shown(self) -> str | None:
        if not self._files.exists(self._nonce_file):
            return None
        try:
            nonce = normalized(read_record(self._nonce_file, ("nonce",), self._files)["nonce"])
        except (StateDamaged, ConfigurationError):
            return None  # nothing depends on it: another one is as good
        kept = self.ticket()
        # One that is still there with its ticket was to be removed when the machine stopped.
        return None if kept is not None and kept.ticket.nonce == nonce else nonce

    def _make_directory(self) -> None:
        self._files.check_owner(self._identities.root)  # else the service could not read what root has written
        self._files.make_directory(self._directory)

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
