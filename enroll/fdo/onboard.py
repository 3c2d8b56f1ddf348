"""From a credential to its owner: which server is asked when: FDO 1.1, 3.7 and 5.4.

The directives of RVInfo are followed in their order. Nothing here sleeps: where a directive says to wait, the moment
and the place to go on are kept, and the next run goes on there.

    fdo/attempt.json     the moment, and the place
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from enroll.clock import Clock
from enroll.errors import (
    HOSPITAL_IT,
    EnrollmentError,
    ProtocolViolation,
    ServerUnreachable,
    StateError,
    StateUnreadable,
)
from enroll.fdo import cbor
from enroll.fdo.cose import Sign1
from enroll.fdo.credential import DeviceCredential
from enroll.fdo.fault import ErrorCode
from enroll.fdo.rendezvous import (
    LONGEST_DELAY,
    Directive,
    OwnerAddress,
    RendezvousProtocol,
    TransportProtocol,
    read_directives,
    read_redirect,
)
from enroll.fdo.transport import Channel, ErrorReceived, Pins
from enroll.record import read_record, read_time, write_record
from enroll.statefile import StateFiles

LAST_DELAY = 120  # seconds after the last directive, where it says nothing
JITTER = 0.25  # of a delay, in both directions
PATIENCE = 600.0  # seconds of one run; then the next one goes on

_LONGEST = int(LONGEST_DELAY * (1 + JITTER))  # seconds
_SCHEMES = {
    RendezvousProtocol.REST: ("https", "http"),
    RendezvousProtocol.HTTP: ("http",),
    RendezvousProtocol.HTTPS: ("https",),
}
_AT_THIS_ADDRESS = (ServerUnreachable, ErrorReceived, ProtocolViolation)  # another one may do better
_FIELDS = ("devices", "place", "not_before", "reason")
_LOG = logging.getLogger(__name__)

Result = TypeVar("Result")
Connect = Callable[[str, Pins], Channel]
FindOwner = Callable[[Channel, DeviceCredential], Sign1]
TryOwner = Callable[[Channel, DeviceCredential, Sign1 | None], Result]


class NoOwnerYet(EnrollmentError):
    """No owner could be reached by any directive now; the next run goes on at `until`.

    Args:
        what: What happened last.
        until: When.
        unknown: Whether all servers were asked, and each that answered does not know the device.
    """

    code = "owner-not-reached"
    who_must_act = HOSPITAL_IT

    def __init__(self, what: str, until: datetime, *, unknown: bool = False) -> None:
        super().__init__(
            what, remedy="The owner has to register the voucher at the rendezvous server; or the network is down."
        )
        self.until = until
        self.unknown = unknown


@dataclass(frozen=True)
class Attempt:
    """Where the next run goes on.

    Args:
        place: Number of the directive, over all credentials.
        not_before: When.
        reason: What went wrong, for people.
    """

    place: int
    not_before: datetime
    reason: str


@dataclass(frozen=True)
class OwnerSearch:
    """Follows the directives.

    Args:
        directory: `fdo` below the state directory.
        files: Reads and writes.
        clock: The time.
        connect: Makes the channel to an address.
        find_owner: TO1.
        jitter: A number from -1 to 1.
    """

    directory: Path
    files: StateFiles
    clock: Clock
    connect: Connect
    find_owner: FindOwner
    jitter: Callable[[], float]

    def run(self, candidates: Sequence[DeviceCredential], try_owner: TryOwner[Result]) -> Result:
        """What comes of the first owner that can be reached, by the first credential and directive that leads to one.

        Args:
            candidates: The credentials, the more probable first.
            try_owner: TO2 at an owner. The channel is closed afterwards.

        Raises:
            NoOwnerYet: None could be reached.
            EnrollmentError: The last owner that answered did not keep to the protocol.
            ScansealError: What `try_owner` raises beside that.
        """
        places = [
            (credential, directive)
            for credential in candidates
            for directive in read_directives(cbor.read(credential.rendezvous.encoded))
        ]
        attempt = self._kept(candidates)
        now = self.clock.now()
        if attempt and now < attempt.not_before <= now + timedelta(seconds=_LONGEST):
            raise NoOwnerYet(attempt.reason, attempt.not_before)
        first = attempt.place if attempt and attempt.place < len(places) else 0
        end = self.clock.monotonic() + PATIENCE
        failures: list[EnrollmentError] = []
        for place in range(first, len(places)):
            if self.clock.monotonic() > end:
                raise self._later(candidates, place, 0, failures)
            credential, directive = places[place]
            for channel, redirect in self._owners(credential, directive, failures):
                try:
                    result = try_owner(channel, credential, redirect)
                except _AT_THIS_ADDRESS as error:
                    _LOG.info("An owner could not be used: %s", error.what)
                    failures.append(error)
                else:
                    self.files.remove(self._record)
                    return result
            if directive.delay and place + 1 < len(places):
                raise self._later(candidates, place + 1, directive.delay, failures)
        last = places[-1][1].delay if places else None
        raise self._later(candidates, 0, LAST_DELAY if last is None else last, failures, whole=first == 0)

    @property
    def _record(self) -> Path:
        return self.directory / "attempt.json"

    def _owners(
        self, credential: DeviceCredential, directive: Directive, failures: list[EnrollmentError]
    ) -> Iterator[tuple[Channel, Sign1 | None]]:
        """Channels to owners, with the redirection that led there; what fails before is added to `failures`."""
        pins = Pins(directive.server_certificate, directive.ca_certificate)
        for url in _addresses(directive):
            channel = self.connect(url, pins)
            try:
                if directive.bypass:
                    yield channel, None
                    continue
                redirect = self.find_owner(channel, credential)
            except EnrollmentError as error:
                _LOG.info("A rendezvous server could not be used: %s", error.what)
                failures.append(error)
                continue
            finally:
                channel.close()
            for owner_url in _owner_addresses(read_redirect(redirect)):
                owner = self.connect(owner_url, Pins())
                try:
                    yield owner, redirect
                finally:
                    owner.close()

    def _later(
        self,
        candidates: Sequence[DeviceCredential],
        place: int,
        delay: int,
        failures: Sequence[EnrollmentError],
        *,
        whole: bool = False,
    ) -> EnrollmentError:
        """What to raise; the next run goes on at `place`."""
        seconds = delay * (1 + JITTER * self.jitter())
        until = self.clock.now() + timedelta(seconds=seconds)
        reason = failures[-1].what if failures else "The voucher names no server that this scanner could ask."
        self._keep(candidates, Attempt(place, until, reason))
        worst = next((error for error in reversed(failures) if not _is_absence(error)), None)
        if worst is not None:
            return worst
        unknown = whole and any(_is_unknown(error) for error in failures)
        return NoOwnerYet(reason, until, unknown=unknown)

    def _kept(self, candidates: Sequence[DeviceCredential]) -> Attempt | None:
        """From the run before; None where it was about other credentials, or is damaged."""
        try:
            if not self.files.exists(self._record):
                return None
            values = read_record(self._record, _FIELDS, self.files)
            place, not_before = values["place"], read_time(values["not_before"], self._record)
        except StateUnreadable:
            raise
        except StateError as error:
            _LOG.warning("The search for the owner begins anew: %s", error.what)
            return None
        if values["devices"] != _devices(candidates) or not place.isdecimal():
            return None
        return Attempt(int(place), not_before, values["reason"])

    def _keep(self, candidates: Sequence[DeviceCredential], attempt: Attempt) -> None:
        self.files.make_directory(self.directory)
        values = {
            "devices": _devices(candidates),
            "place": str(attempt.place),
            "not_before": attempt.not_before.isoformat(),
            "reason": attempt.reason,
        }
        write_record(self._record, values, self.files)


def _devices(candidates: Sequence[DeviceCredential]) -> str:
    return " ".join(credential.guid.hex() for credential in candidates)


def _addresses(directive: Directive) -> Iterator[str]:
    for host in directive.hosts:
        for scheme in _SCHEMES[directive.protocol]:
            yield _url(scheme, host, directive.port)


def _owner_addresses(addresses: Sequence[OwnerAddress]) -> Iterator[str]:
    for address in addresses:
        scheme = "https" if address.protocol is TransportProtocol.HTTPS else "http"
        for host in (address.dns, address.ip):
            if host is not None:
                yield _url(scheme, str(host), address.port)


def _url(scheme: str, host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" if port is None else f"{scheme}://{shown}:{port}"


def _is_unknown(error: EnrollmentError) -> bool:
    return isinstance(error, ErrorReceived) and error.said.code == ErrorCode.NOT_FOUND


def _is_absence(error: EnrollmentError) -> bool:
    """Whether somebody is not there, or not yet: time may help."""
    return isinstance(error, ServerUnreachable) or _is_unknown(error)
