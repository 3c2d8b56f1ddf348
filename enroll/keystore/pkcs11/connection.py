"""A token that is logged in to, and its sessions.

Threads: python-pkcs11 initialises the library without locking and releases the interpreter lock around its calls, so
two threads crash inside most libraries. p11-kit-proxy brings its own locking, so with it several sessions sign at the
same time; any other library is called under one lock.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pkcs11
from pkcs11 import ObjectClass
from pkcs11.constants import SlotFlag
from pkcs11.types import Slot

from enroll.config import Pkcs11StoreSettings
from enroll.errors import KeyStoreUnavailable
from enroll.keystore.pkcs11 import objects
from enroll.keystore.tokenuri import TokenUri

SESSION_WAIT = 30  # seconds that a signature waits for a free session

# The state of a PKCS#11 library belongs to the process, and so does the lock around it.
LIBRARY = threading.RLock()

_PROXY = "PKCS#11 Kit Proxy Module"


class SigningSession:
    """A session and the keys it has used."""

    def __init__(self, handle: pkcs11.Session) -> None:
        self.handle = handle
        self.keys: dict[TokenUri, pkcs11.Object] = {}

    def private_key(self, uri: TokenUri) -> pkcs11.Object:
        """The key that `uri` names; searched for once.

        Raises:
            KeyNotFound: No such key.
        """
        if uri not in self.keys:
            self.keys[uri] = objects.find(self.handle, ObjectClass.PRIVATE_KEY, uri)
        return self.keys[uri]


class Connection:
    """One login and the sessions that sign. Made while nobody else is inside the library.

    Args:
        settings: `[keystore.pkcs11]`.
        pin: The user PIN; sent once and not kept.

    Raises:
        KeyStoreUnavailable: There is not exactly one such token.
        pkcs11.PKCS11Error: The library, the token or the PIN.
    """

    def __init__(self, settings: Pkcs11StoreSettings, pin: str) -> None:
        # python-pkcs11 keeps one object for each path, and a library must not be initialised twice.
        library = pkcs11.lib(os.path.realpath(settings.module))
        threads_are_safe = library.library_description.strip() == _PROXY
        self.lock: AbstractContextManager[object] = contextlib.nullcontext() if threads_are_safe else LIBRARY
        self._token = _find_token(library.get_slots(token_present=True), settings.token)
        self.is_hardware = bool(self._token.slot.flags & SlotFlag.HW_SLOT)
        self._closed = False
        self._sessions: list[SigningSession] = []
        self._idle: queue.SimpleQueue[SigningSession] = queue.SimpleQueue()
        self._login = self._log_in(pin)
        try:
            for _ in range(settings.sessions if threads_are_safe else 1):
                self._sessions.append(SigningSession(self._token.open()))
                self._idle.put(self._sessions[-1])
        except pkcs11.PKCS11Error:
            self.close()
            raise

    @contextmanager
    def signing(self) -> Iterator[SigningSession]:
        """A session of the pool."""
        try:
            session = self._idle.get(timeout=SESSION_WAIT)
        except queue.Empty as error:
            raise KeyStoreUnavailable(
                f"The token has been busy for {SESSION_WAIT} seconds.", remedy="Raise [keystore.pkcs11] sessions."
            ) from error
        try:
            yield session
        finally:
            self._idle.put(session)
            if self._closed:
                self._close_idle()

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
            session.keys.clear()

    def close(self) -> None:
        """Log out. A session that is signing right now is closed when it comes back."""
        self._closed = True
        with self.lock:
            if self._login is not None:
                _close(self._login)
            self._close_idle()

    def _log_in(self, pin: str) -> pkcs11.Session | None:
        # Its own session: python-pkcs11 logs out, for all sessions, when the one that logged in is closed.
        try:
            return self._token.open(user_pin=pin)
        except pkcs11.UserAlreadyLoggedIn:
            return None  # by another store of this process, which will log out as well

    def _close_idle(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                _close(self._idle.get_nowait().handle)


def _find_token(slots: Iterable[Slot], label: str) -> pkcs11.Token:
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


def _close(session: pkcs11.Session) -> None:
    # A session of a lost token is gone already.
    with contextlib.suppress(pkcs11.PKCS11Error):
        session.close()
