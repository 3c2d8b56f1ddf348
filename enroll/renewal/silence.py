"""Servers that give no answer: since when, how often they were asked, and when they are asked again.

    servers/<hash>.json

A server that is gone, or says that it cannot answer now, is the same for all identities: it is asked by the first of
them, and by the others when it has answered. It is there from the first failure on, and gone with the next answer.

The way to certificates and what says which are revoked are told apart: one may be there without the other. While a
server issues nothing and is asked for it again and again, it is seldom asked about revocation: it has its share of
questions already. By the name of the host, since the one way may be https://ca and the other http://ca. Nor is any
other server that gives no answer either meanwhile: it may be the network. `enroll.revocation.turns` says when.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from enroll.errors import StateDamaged, StateError, StateTooNew
from enroll.record import damaged, read_record, read_time, write_record
from enroll.renewal.ladder import next_attempt
from enroll.statefile import GROUP_DIRECTORY, StateFiles

LONGEST_PAUSE = timedelta(days=1)  # whatever a server wants
_MOST_FAILURES = 999_999_999
_COUNT = re.compile(r"[1-9][0-9]{0,8}")
_FIELDS = ("server", "purpose", "failures", "since", "at", "not_before")
_MODE = 0o640
_PORTS = {"http": "80", "https": "443"}  # RFC 9110 4.2
_LOG = logging.getLogger(__name__)


class Purpose(StrEnum):
    """What a server is asked for."""

    ENROLLMENT = "enrollment"
    REVOCATION = "revocation"


@dataclass(frozen=True)
class Silence:
    """A server that gave no answer.

    Args:
        server: Host and port, that of the scheme too.
        purpose: What it was asked for.
        failures: How often in a row.
        since: When it gave none for the first time.
        at: When it was asked last.
        not_before: When it wants to be asked again at the earliest (RFC 9110 10.2.3); None where it did not say.
    """

    server: str
    purpose: Purpose
    failures: int
    since: datetime
    at: datetime
    not_before: datetime | None = None

    def ask_again_at(self, end: datetime | None, *names: str) -> datetime:
        """When it is asked again; see `enroll.renewal.ladder.next_attempt`, whose `names` these are."""
        return max(next_attempt(self.at, self.failures, end, *names), self.left_alone_until)

    @property
    def left_alone_until(self) -> datetime:
        """Until when it wants not to be asked, a day at most; when it was asked last where it did not say."""
        return self.at if self.not_before is None else min(self.not_before, self.at + LONGEST_PAUSE)


class Silences:
    """What is kept of servers that give no answer. What is damaged counts as nothing: they are asked.

    Args:
        state_directory: Of this scanner.
        files: Reads and writes there.
    """

    def __init__(self, state_directory: Path, files: StateFiles) -> None:
        self._root = state_directory
        self._files = files

    def of(self, url: str, purpose: Purpose) -> Silence | None:
        """What is kept of the server of an address; None where it answers, or was never asked.

        Raises:
            StateError: It cannot be read, and is not damaged.
        """
        server = _server(url)
        path = self._path(server, purpose)
        try:
            silence = self._read(path) if self._files.exists(path) else None
        except StateDamaged as error:
            _LOG.warning("Whether %s gives no answer is forgotten: %s", server, error.what)
            return None
        return silence if silence is not None and (silence.server, silence.purpose) == (server, purpose) else None

    def newest(self, purpose: Purpose, host_of: str = "") -> Silence | None:
        """The newest of what is kept, of any host.

        Args:
            purpose: What it was asked for.
            host_of: An address, where only its host counts, at whichever port.

        Raises:
            StateError: It cannot be read, and is not damaged.
        """
        host = _host(_server(host_of)) if host_of else ""
        found = [silence for silence in self._every(purpose) if host in ("", _host(silence.server))]
        return max(found, key=lambda silence: silence.at, default=None)

    def note(self, url: str, purpose: Purpose, now: datetime, retry_after: timedelta | None = None) -> None:
        """Keep that a server gave no answer.

        Args:
            url: An address of it.
            purpose: What it was asked for.
            now: The time.
            retry_after: How long it wants to be left alone, where it says that.
        """
        with _only_logged():
            before = self.of(url, purpose)
            server = _server(url)
            values = {
                "server": server,
                "purpose": str(purpose),
                "failures": str(min(before.failures + 1, _MOST_FAILURES) if before else 1),
                "since": (before.since if before else now).isoformat(),
                "at": now.isoformat(),
                "not_before": (now + min(retry_after, LONGEST_PAUSE)).isoformat() if retry_after else "",
            }
            self._files.check_owner(self._root)
            self._files.make_directory(self._directory, GROUP_DIRECTORY)
            write_record(self._path(server, purpose), values, self._files, _MODE)

    def forget(self, url: str, purpose: Purpose) -> None:
        """A server has answered."""
        with _only_logged():
            self.of(url, purpose)  # that of a newer scanseal is left as it is
            self._files.remove(self._path(_server(url), purpose))

    @property
    def _directory(self) -> Path:
        return self._root / "servers"

    def _every(self, purpose: Purpose) -> Iterator[Silence]:
        for name in self._files.names(self._directory):
            path = self._directory / name
            try:
                silence = self._read(path)
            except (StateDamaged, StateTooNew):
                continue  # whoever asks that server says so
            if silence.purpose is purpose and path == self._path(silence.server, purpose):
                yield silence

    def _path(self, server: str, purpose: Purpose) -> Path:
        return self._directory / f"{hashlib.sha256(f'{purpose} {server}'.encode()).hexdigest()[:32]}.json"

    def _read(self, path: Path) -> Silence:
        values = read_record(path, _FIELDS, self._files)
        if values["purpose"] not in list(Purpose) or not _COUNT.fullmatch(values["failures"]):
            raise damaged(path)
        not_before = values["not_before"]
        return Silence(
            server=values["server"],
            purpose=Purpose(values["purpose"]),
            failures=int(values["failures"]),
            since=read_time(values["since"], path),
            at=read_time(values["at"], path),
            not_before=read_time(not_before, path) if not_before else None,
        )


def _server(url: str) -> str:
    parts = urlsplit(url)
    server = parts.netloc.rpartition("@")[2].lower()
    host = _host(server)
    named = server.removeprefix(host).removeprefix(":")
    return f"{host}:{named or _PORTS.get(parts.scheme, '')}"


def _host(server: str) -> str:
    """An IPv6 address with its brackets (RFC 3986 3.2.2)."""
    address, bracket, _ = server.partition("]")
    return address + bracket if bracket else server.partition(":")[0]


@contextmanager
def _only_logged() -> Iterator[None]:
    try:
        yield
    except StateError as error:
        _LOG.warning("Which server gives no answer cannot be kept: %s", error)
