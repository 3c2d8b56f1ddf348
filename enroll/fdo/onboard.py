"""From a credential to a session with the owner: which server is asked when: FDO 1.1, 3.7 and 5.4.

The directives of RVInfo are followed in their order. Nothing here sleeps: where a directive says to wait, the moment
and the place to go on are kept (`fdo/attempt.json`), and the next run goes on there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from enroll.clock import Clock
from enroll.errors import EnrollmentError
from enroll.fdo.credential import DeviceCredential
from enroll.fdo.rendezvous import Directive, OwnerAddress
from enroll.fdo.to2 import Session
from enroll.fdo.transport import Channel
from enroll.statefile import StateFiles

LAST_DELAY = 120  # seconds after the last directive, where it says nothing
JITTER = 0.25  # of a delay, in both directions


@dataclass(frozen=True)
class Attempt:
    """Where the next run goes on.

    Args:
        credential: Number of the credential among the candidates.
        directive: Number of the directive.
        not_before: When.
        reason: What went wrong, for people.
    """

    credential: int
    directive: int
    not_before: datetime
    reason: str


class NoOwnerYet(EnrollmentError):
    """No owner could be reached by any directive now; the next run goes on at `until`.

    Args:
        until: When.
        unknown: Whether every server that was reached said that it does not know the device.
    """

    code = "owner-not-reached"

    def __init__(self, what: str, until: datetime, *, unknown: bool) -> None:
        super().__init__(what, remedy="The owner has to register the device's voucher (TO0), or the network is down.")
        self.until = until
        self.unknown = unknown


@dataclass(frozen=True)
class OwnerSearch:
    """Follows the directives.

    Args:
        directory: `fdo` below the state directory.
        files: Reads and writes.
        clock: The time.
        connect: Makes the channel to an address.
        jitter: A number from -1 to 1.
    """

    directory: Path
    files: StateFiles
    clock: Clock
    connect: Callable[[Directive | OwnerAddress, str], Channel]
    jitter: Callable[[], float]

    def open(
        self,
        candidates: Sequence[DeviceCredential],
        begin: Callable[[Channel, DeviceCredential, bytes | None], Session],
    ) -> Session:
        """A session with the owner, by the first credential and directive that leads to one.

        Args:
            candidates: The credentials, the more probable first.
            begin: Begins TO2 at an owner.

        Raises:
            NoOwnerYet: None could be reached.
            ScansealError: An owner was reached, and TO2 failed.
        """
        raise NotImplementedError
