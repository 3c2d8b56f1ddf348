"""From a credential to its owner: which server is asked when: FDO 1.1, 3.7 and 5.4.

The directives of RVInfo are followed in their order, and begun again after the last. Nothing here sleeps: where a
directive says to wait, the moment and the place to go on are kept, and the next run goes on there.

    fdo/attempt.json     the moment, and the place
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from enroll.clock import Clock
from enroll.errors import HOSPITAL_IT, EnrollmentError, ProtocolViolation, ServerUnreachable, StateDamaged
from enroll.fdo import cbor
from enroll.fdo.cose import Sign1
from enroll.fdo.credential import DeviceCredential
from enroll.fdo.fault import ErrorCode
from enroll.fdo.owner_policy import ApprovalAwaited, OwnerRefused
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
from enroll.statefile import GROUP_DIRECTORY, StateFiles

LAST_DELAY = 120  # seconds after the last directive, where it says nothing
JITTER = 0.25  # of a delay, in both directions
PATIENCE = 600.0  # seconds of one run; then the next one goes on

_LONGEST = int(LONGEST_DELAY * (1 + JITTER))  # seconds
_SCHEMES = {
    RendezvousProtocol.REST: ("https", "http"),
    RendezvousProtocol.HTTP: ("http",),
    RendezvousProtocol.HTTPS: ("https",),
}
# Another one may do better; who had the scanner before must not keep it from its owner by being the first to answer.
_AT_THIS_ADDRESS = (ServerUnreachable, ErrorReceived, ProtocolViolation, OwnerRefused, ApprovalAwaited)
_FIELDS = ("devices", "place", "not_before", "reason", "unknown")
_PLACE = re.compile(r"[0-9]{1,4}")
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
        unknown: Whether all directives were followed to the end, and somebody answered: the device is not known there.
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
        unknown: Whether a server has said since the first directive that it does not know the device.
    """

    place: int
    not_before: datetime
    reason: str
    unknown: bool


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
        at_once: Whether not to wait for the moment that is kept; the search goes on at its place all the same.
    """

    directory: Path
    files: StateFiles
    clock: Clock
    connect: Connect
    find_owner: FindOwner
    jitter: Callable[[], float]
    at_once: bool = False

    def run(self, candidates: Sequence[DeviceCredential], try_owner: TryOwner[Result]) -> Result:
        """What comes of the first owner that can be reached, by the first credential and directive that leads to one.

        Args:
            candidates: The credentials, the more probable first.
            try_owner: TO2 at an owner. The channel is closed afterwards.

        Raises:
            NoOwnerYet: None could be reached.
            ApprovalAwaited: Somebody has to approve one, and no other one could be used.
            EnrollmentError: The last owner that answered did not keep to the protocol.
            ScansealError: What `try_owner` raises beside that.
        """
        places = [
            (credential, directive)
            for credential in candidates
            for directive in read_directives(cbor.read(credential.rendezvous.encoded))
        ]
        attempt = self._kept(candidates)
        if attempt and not self.at_once and self._is_early(attempt):
            raise NoOwnerYet(attempt.reason, attempt.not_before)
        first = attempt.place if attempt and attempt.place < len(places) else 0
        unknown = attempt is not None and first > 0 and attempt.unknown
        end = self.clock.monotonic() + PATIENCE
        failures: list[EnrollmentError] = []
        for place, (credential, directive) in enumerate(places[first:], first):
            if self.clock.monotonic() > end:
                raise self._later(candidates, place, 0, failures, unknown=unknown)
            with closing(self._owners(credential, directive, failures)) as owners:
                for channel, redirect in owners:
                    try:
                        result = try_owner(channel, credential, redirect)
                    except _AT_THIS_ADDRESS as error:
                        _LOG.info("An owner could not be used: %s", error.what)
                        failures.append(error)
                    else:
                        self.files.remove(self._record)
                        return result
                    if self.clock.monotonic() > end:
                        break
            is_last = place + 1 == len(places) or places[place + 1][0] is not credential
            # An owner that waits for approval is there: its directive has not failed, and delays nobody else.
            if directive.delay and not is_last and not _awaited(failures):
                raise self._later(candidates, place + 1, directive.delay, failures, unknown=unknown)
        last = places[-1][1].delay if places else None
        raise self._later(candidates, 0, LAST_DELAY if last is None else last, failures, unknown=unknown)

    def _kept(self, candidates: Sequence[DeviceCredential]) -> Attempt | None:
        """Where the run before has ended; None where it was about other credentials, or what is kept is damaged.

        Raises:
            StateUnreadable: Not for the user who runs this.
        """
        try:
            if not self.files.exists(self._record):
                return None
            values = read_record(self._record, _FIELDS, self.files)
            place, not_before = values["place"], read_time(values["not_before"], self._record)
        except StateDamaged as error:
            _LOG.warning("The search for the owner begins anew: %s", error.what)
            return None
        if values["devices"] != _devices(candidates) or not _PLACE.fullmatch(place):
            return None
        return Attempt(int(place), not_before, values["reason"], values["unknown"] == "yes")

    def _is_early(self, attempt: Attempt) -> bool:
        """Whether the next run has to wait. A moment that no directive can have named is that of a wrong clock."""
        now = self.clock.now()
        return now < attempt.not_before <= now + timedelta(seconds=_LONGEST)

    @property
    def _record(self) -> Path:
        return self.directory / "attempt.json"

    def _owners(
        self, credential: DeviceCredential, directive: Directive, failures: list[EnrollmentError]
    ) -> Generator[tuple[Channel, Sign1 | None]]:
        """Channels to owners, with the redirection that led there; what fails before is added to `failures`."""
        pins = Pins(directive.server_certificate, directive.ca_certificate)
        for url in urls(directive):
            asked = "The owner" if directive.bypass else "A rendezvous server"
            _LOG.info("%s is asked: %s", asked, url)
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
            addresses = list(_owner_addresses(read_redirect(redirect)))
            if not addresses:
                failures.append(_no_address(channel.where))
            for owner_url in addresses:
                _LOG.info("The owner is asked: %s", owner_url)
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
        unknown: bool,
    ) -> EnrollmentError:
        """What to raise; the next run goes on at `place`: at once, where that is up to a person."""
        awaited = _awaited(failures)
        if awaited is not None:
            self._keep(candidates, Attempt(place, self.clock.now(), awaited.what, unknown=False))
            return awaited
        seconds = delay * (1 + JITTER * self.jitter())
        until = self.clock.now() + timedelta(seconds=seconds)
        worst = next((error for error in reversed(failures) if not _is_absence(error)), None)
        said = worst or next(reversed(failures), None)
        reason = said.what if said else "The voucher says to wait, or names no server that could be asked."
        unknown = unknown or any(_is_unknown(error) for error in failures)
        self._keep(candidates, Attempt(place, until, reason, unknown))
        return worst or NoOwnerYet(reason, until, unknown=unknown and place == 0)

    def _keep(self, candidates: Sequence[DeviceCredential], attempt: Attempt) -> None:
        self.files.make_directory(self.directory, GROUP_DIRECTORY)
        values = {
            "devices": _devices(candidates),
            "place": str(attempt.place),
            "not_before": attempt.not_before.isoformat(),
            "reason": attempt.reason,
            "unknown": "yes" if attempt.unknown else "no",
        }
        write_record(self._record, values, self.files)


def urls(directive: Directive) -> Iterator[str]:
    """The addresses that a directive names, in the order in which they are asked."""
    is_pinned = directive.server_certificate is not None or directive.ca_certificate is not None
    is_rest = directive.protocol is RendezvousProtocol.REST
    # Without TLS there would be nothing to compare a pin with, and whoever blocks https would get round it.
    schemes = ("https",) if is_rest and is_pinned else _SCHEMES[directive.protocol]
    for host in directive.hosts:
        for scheme in schemes:
            yield _url(scheme, host, directive.port)


def _devices(candidates: Sequence[DeviceCredential]) -> str:
    return " ".join(credential.guid.hex() for credential in candidates)


def _owner_addresses(addresses: Sequence[OwnerAddress]) -> Iterator[str]:
    for address in addresses:
        scheme = "https" if address.protocol is TransportProtocol.HTTPS else "http"
        for host in (address.dns, address.ip):
            if host is not None:
                yield _url(scheme, str(host), address.port)


def _url(scheme: str, host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" if port is None else f"{scheme}://{shown}:{port}"


def _no_address(where: str) -> ProtocolViolation:
    return ProtocolViolation(
        f"{where} names no address of the owner that this scanner could use: HTTP or HTTPS.",
        remedy="The owner has to register another address there (TO0).",
    )


def _is_unknown(error: EnrollmentError) -> bool:
    return isinstance(error, ErrorReceived) and error.said.code == ErrorCode.NOT_FOUND


def _awaited(failures: Sequence[EnrollmentError]) -> ApprovalAwaited | None:
    return next((error for error in reversed(failures) if isinstance(error, ApprovalAwaited)), None)


def _is_absence(error: EnrollmentError) -> bool:
    """Whether somebody is not there, or not yet: time may help."""
    return isinstance(error, ServerUnreachable) or _is_unknown(error)
