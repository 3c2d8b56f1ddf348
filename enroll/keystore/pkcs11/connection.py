"""A token that is logged in to, and its sessions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from weakref import WeakKeyDictionary

import pkcs11
from pkcs11.constants import SlotFlag
from pkcs11.types import Slot

from enroll.errors import KeyStoreUnavailable
from enroll.keystore.pkcs11 import objects
from enroll.keystore.pkcs11.known import KnownObject
from enroll.keystore.pkcs11.library import Library, Line

# What tokens made of software, and the TPMs of virtual machines, say of themselves: SoftHSM, the soft token of
# openCryptoki, swtpm, virtual smart cards. The native TPM store knows who makes chips and believes nobody else; there
# is no such list of those who make tokens.
_SIMULATED = ("soft", "sw   tpm", "simulat", "emulat", "virtual", "vtpm")
_MAKERS_OF_SIMULATED_TPMS = ("amzn", "goog", "msft", "vmw")


class SigningSession:
    """A session and the keys and secrets it has used."""

    def __init__(self, handle: pkcs11.Session) -> None:
        self.handle = handle
        # As long as somebody has it loaded: the agent takes up one generation after the other, and forgets them.
        self._found: WeakKeyDictionary[KnownObject, pkcs11.Object] = WeakKeyDictionary()

    def find(self, wanted: KnownObject) -> pkcs11.Object:
        """The key or secret; searched for once, and then proven to be the same as ever.

        Raises:
            KeyNotFound: No such object.
            KeyMismatch: There is another one in its place.
        """
        found = self._found.get(wanted)
        if found is None:
            found = objects.find(self.handle, wanted.uri)
            wanted.prove(found)
            self._found[wanted] = found
        return found

    def forget(self) -> None:
        """Search for everything anew."""
        self._found.clear()


def find_token(slots: Iterable[Slot], label: str) -> pkcs11.Token:
    """The token with this label.

    Raises:
        KeyStoreUnavailable: There is not exactly one.
    """
    tokens = []
    for slot in slots:
        # p11-kit-proxy shows the slots of every library; a broken neighbour is not our concern.
        with contextlib.suppress(pkcs11.PKCS11Error):
            tokens.append(slot.get_token())
    tokens = [token for token in tokens if token.label == label]
    if len(tokens) != 1:
        raise KeyStoreUnavailable(
            f"There are {len(tokens)} tokens with the label {label}.",
            remedy="[keystore.pkcs11] token names the one to use; connect it, set it up, or give each its own label.",
        )
    return tokens[0]


def is_simulated(token: pkcs11.Token) -> bool:
    """Whether a token says that it is made of software, or is the TPM of a virtual machine."""
    slot = token.slot
    said = f"{token.model} {token.manufacturer_id} {slot.manufacturer_id} {slot.slot_description}".lower()
    makers = {token.manufacturer_id.strip().lower(), slot.manufacturer_id.strip().lower()}
    return any(word in said for word in _SIMULATED) or not makers.isdisjoint(_MAKERS_OF_SIMULATED_TPMS)


class Connection:
    """The sessions of a token, which sign after the login. Made, used and closed inside the library.

    Args:
        its_library: Through which the token is reached.
        token: Where the keys are.
        sessions: How many signatures at the same time, if the library is made for that.

    Raises:
        pkcs11.PKCS11Error: The library or the token.
    """

    def __init__(self, its_library: Library, token: pkcs11.Token, sessions: int) -> None:
        self.library = its_library
        self._start = its_library.starts
        self._token = token
        self.is_hardware = bool(token.slot.flags & SlotFlag.HW_SLOT) and not is_simulated(token)
        self.is_in_doubt = False  # whether it is the token that it is held to be
        self._given_up = False
        self._login: pkcs11.Session | None = None
        self._sessions: list[SigningSession] = []
        self._idle: list[SigningSession] = []
        self._line = Line()
        try:
            for _ in range(sessions if its_library.threads_are_safe else 1):
                self._sessions.append(SigningSession(token.open()))
        except pkcs11.PKCS11Error:
            self.close()
            raise
        self._idle.extend(self._sessions)

    @property
    def is_open(self) -> bool:
        """Whether it may be used. After the library was restarted the sessions may be those of others."""
        return not self._given_up and self._start == self.library.starts

    def log_in(self, pin: str) -> None:
        """Send the PIN, for all sessions; it is not kept.

        Raises:
            pkcs11.PKCS11Error: The token, or the PIN.
        """
        # Its own session: python-pkcs11 logs out, for all sessions, when the one that logged in is closed.
        self._login = self._token.open(user_pin=pin)

    @contextmanager
    def signing(self) -> Iterator[SigningSession]:
        """A session of the pool.

        Raises:
            KeyStoreUnavailable: The others sign for too long.
            pkcs11.SessionClosed: The connection was given up meanwhile.
        """
        taken: list[SigningSession] = []
        self._line.take(partial(self._take, taken))
        if not taken:
            raise pkcs11.SessionClosed
        try:
            yield taken[0]
        finally:
            self._line.give(partial(self._idle.append, taken[0]))

    @contextmanager
    def writing(self) -> Iterator[pkcs11.Session]:
        """A session of its own that may make and remove keys."""
        session = self._token.open(rw=True)
        try:
            yield session
        finally:
            _close(session)

    def forget_keys(self) -> None:
        """Search for every key anew."""
        for session in self._sessions:
            session.forget()

    def give_up(self) -> None:
        """Take no more callers, and send away those who wait."""
        self._line.give(self._end)

    def close(self) -> None:
        """Log out; alone in the library, because whoever signs right now would be told that there is no such key."""
        self.give_up()
        if self._start == self.library.starts:
            for session in (self._login, *(session.handle for session in self._sessions)):
                if session is not None:
                    _close(session)

    def _take(self, taken: list[SigningSession]) -> bool:
        if self._idle and not self._given_up:
            taken.append(self._idle.pop())
        return bool(taken) or self._given_up

    def _end(self) -> None:
        self._given_up = True


def _close(session: pkcs11.Session) -> None:
    # A session of a lost token is gone already.
    with contextlib.suppress(pkcs11.PKCS11Error):
        session.close()
