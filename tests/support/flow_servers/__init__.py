"""For each flow a real server, with a scanner configured for it: what tests/contract/test_flow.py runs against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from enroll.flows.settings import FlowName
from enroll.identity import IdentityName
from tests.support.enrolling import Scanner


@dataclass(frozen=True)
class FlowServer:
    """A server that runs, and a scanner that has what it takes to enroll there.

    Args:
        scanner: Configured; what the flow needs before (a factory identity, an account) is there.
        flow: The way.
        identity: What can be enrolled right away.
        stop: The server goes away.
        refuse: From now on the server says no to this scanner.
        wait: From now on requests have to wait; None where this server cannot do that.
        go_on: What waits is decided now, in the scanner's favour.
        searches: Whether a server that is gone is only one of those that are asked: the next run searches on.
        issued: How many certificates it has issued; None where it cannot tell.
        gives_again: Whether a certificate that it has issued can be fetched as often as one likes.
    """

    scanner: Scanner
    flow: FlowName
    identity: IdentityName
    stop: Callable[[], None]
    refuse: Callable[[], None]
    wait: Callable[[], None] | None = None
    go_on: Callable[[], None] | None = None
    searches: bool = False
    issued: Callable[[], int] | None = None
    gives_again: bool = False
