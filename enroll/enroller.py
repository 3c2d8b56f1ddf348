"""The enroller: everything that gets certificates for one scanner, put together. Which flow brings what.

    with Enroller.configured(settings, clock, files) as enroller:
        enroller.enroll(IdentityName.DEVICE, FlowName.EST)

A renewal goes the way that the certificate in use came. So there is no setting that says which flow is used: it is the
one that was asked for last.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from threading import Event
from typing import Self

from enroll.clock import Clock
from enroll.clock_sense import ClockSense
from enroll.collector import Leftover, collect
from enroll.config import EnrollSettings
from enroll.device_state import DeviceEvent
from enroll.errors import (
    ConfigurationError,
    EnrollerBusy,
    EnrollmentError,
    ServerUnreachable,
    StateDamaged,
    StateError,
    StateUnreadable,
)
from enroll.failure import Failures
from enroll.fdo.hand_over import renewal_flow, with_hand_over
from enroll.flows.base import Flow, FlowContext, Pending, PlannedExchange
from enroll.flows.settings import FlowName
from enroll.generation_use import read_newest
from enroll.identity import VENDORS_IDENTITIES, Generation, IdentityName, IdentityStore
from enroll.issue import NotAsked, issue, made_by_agent, planned, waiting_offer
from enroll.keystore import KeyStores
from enroll.renewal.silence import Purpose, Silences
from enroll.statefile import StateFiles
from enroll.suggestion import suggested_renewal
from enroll.wanted import Wish

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Enroller:
    """The enroller of one scanner; closes its key stores at the end of a `with` block."""

    context: FlowContext

    @classmethod
    def configured(cls, settings: EnrollSettings, clock: Clock, files: StateFiles, *, at_once: bool = False) -> Self:
        """By the settings, and by what the owner has said of renewal; opens nothing yet.

        Args:
            settings: Of this scanner.
            clock: The clocks of the machine; decisions take what `enroll.clock_sense` makes of them.
            files: Reads and writes.
            at_once: See `FlowContext`.
        """
        settings = with_hand_over(settings, files)
        stores = KeyStores(settings.keystore, settings.state_directory, files)
        identities = IdentityStore(settings.state_directory, files)
        return cls(FlowContext(settings, stores, identities, ClockSense.configured(clock, identities), files, at_once))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.stores.close()

    def enroll(self, identity: IdentityName, flow_name: FlowName) -> Generation | Pending | NotAsked:
        """Get a new key and certificate, or go on with a request that is under way; see `enroll.issue.issue`.

        Raises:
            ScansealError: No certificate; what is in use stays in use.
        """
        _check_brings(flow_name, identity)
        context = self.context
        settings, identities, clock = context.settings, context.identities, context.clock
        if made_by_agent(identity, settings) and waiting_offer(identity, identities, clock) is None:
            return NotAsked()  # before a token is opened for the connection
        with (
            Failures(identities).noted(identity, flow_name, clock) as attempt,
            self._silence_noted(flow_name) as asked,
            self._connect(identity, flow_name) as flow,
        ):
            attempt.is_answered = False
            answer = issue(
                identity,
                settings,
                stores=context.stores,
                identities=identities,
                flow=flow,
                clock=clock,
                at_once=context.at_once,
                answered=asked.set,
            )
            attempt.is_answered = isinstance(answer, Generation) or asked.is_set()
            return answer

    def collect(self) -> tuple[Leftover, ...]:
        """Bring commands that were cut off to their end, and destroy keys that nothing needs any more.

        See `enroll.collector.collect`.

        Raises:
            StateError: The state directory belongs to another user, or the owner is giving the scanner up.
        """
        try:
            with self.context.identities.kept_lock():
                self._settle()
                return (*self._tidied(), *collect(self.context.identities, self.context.stores))
        except EnrollerBusy:
            return ()  # whoever is at work does it

    def _settle(self) -> None:
        """Write down what is in use, where a command of whichever way was cut off before it could."""
        identities = self.context.identities
        for name in IdentityName:
            try:
                current = identities.readable(name)
                newest = read_newest(identities.directory(name), self.context.files).number
                if current is not None and current.number > newest:
                    identities.settle(current)
            except StateUnreadable:
                raise
            except StateError as error:  # whoever renews says so
                _LOG.warning("Which generation of %s is in use is not written down: %s", name, error.what)

    def _tidied(self) -> tuple[Leftover, ...]:
        """End requests that are carried by hand and damaged or expired: they keep all keys of their identity."""
        try:
            if any(self.context.identities.requests_by_hand(name) for name in IdentityName):
                from enroll.flows.offline.requests import Requests  # noqa: PLC0415 - seldom needed

                Requests(self.context).tidy()
        except StateUnreadable:
            raise
        except StateError as error:
            _LOG.warning("Requests that are carried by hand stay for now: %s", error.what)
            return (Leftover("", error),)
        return ()

    def plan(self, identity: IdentityName, flow_name: FlowName) -> tuple[PlannedExchange, ...]:
        """What `enroll` would send to whom; nothing is sent and no key is made.

        Raises:
            ScansealError: The configuration or a key does not allow it.
        """
        _check_brings(flow_name, identity)
        with self._connect(identity, flow_name) as flow:
            return planned(identity, self.context.settings, identities=self.context.identities, flow=flow)

    def suggested_renewal(self, generation: Generation) -> datetime | None:
        """The moment that the CA suggests for the renewal, which is asked where it is time to; None without one."""
        if generation.flow == FlowName.ACME:
            from enroll.flows.acme.renewal_info import refresh  # noqa: PLC0415

            refresh(generation, self.context)
        return suggested_renewal(generation, self.context.identities, self.context.files)

    @contextmanager
    def _silence_noted(self, flow_name: FlowName) -> Iterator[Event]:
        """Keep that the server gives no answer, for all identities that it is asked for; and forget it when it does.

        What it hands out is set by whoever has had an answer: a run that asks nobody proves nothing.
        """
        context, url = self.context, address_of(flow_name, self.context.settings)
        silences, answered = Silences(context.settings.state_directory, context.files), Event()
        try:
            yield answered
        except ServerUnreachable as error:
            if url:
                silences.note(url, Purpose.ENROLLMENT, context.clock.now(), error.retry_after)
            raise
        except EnrollmentError:
            silences.forget(url, Purpose.ENROLLMENT)
            raise
        if answered.is_set():
            silences.forget(url, Purpose.ENROLLMENT)

    def _connect(self, identity: IdentityName, flow_name: FlowName) -> AbstractContextManager[Flow]:
        # A process loads the flow that it uses and no other.
        match flow_name:
            case FlowName.EST:
                from enroll.flows.est import EstFlow  # noqa: PLC0415

                return EstFlow.connect(identity, self.context)
            case FlowName.ACME:
                from enroll.flows.acme import AcmeFlow  # noqa: PLC0415

                return AcmeFlow.connect(identity, self.context)
            case FlowName.VENDOR:
                from enroll.flows.vendor import VendorFlow  # noqa: PLC0415

                return VendorFlow.connect(identity, self.context)
            case FlowName.FDO:
                from enroll.flows.fdo import FdoFlow  # noqa: PLC0415

                return FdoFlow.connect(identity, self.context)
            case FlowName.CMP:
                from enroll.flows.cmp import CmpFlow  # noqa: PLC0415

                return CmpFlow.connect(identity, self.context)
            case FlowName.SCEP:
                from enroll.flows.scep import ScepFlow  # noqa: PLC0415

                return ScepFlow.connect(identity, self.context)
            case _:
                raise ConfigurationError(
                    f"A certificate that came by {flow_name} is not renewed over the network.",
                    remedy=f"Run: scanseal enroll {flow_name}",
                )


@contextmanager
def asked_for(names: Sequence[IdentityName], flow: FlowName, identities: IdentityStore, clock: Clock) -> Iterator[None]:
    """Keep what somebody asks for, so that `scanseal renew` goes on where it does not come at once.

    After a ConfigurationError all is as before: somebody has to correct something, and to run the command again.

    Raises:
        DeviceDisabled: The owner has disabled the scanner.
        StateError: It cannot be kept; or the owner is giving the scanner up, which a wish would outlive; or nobody
            knows whether it is disabled.
    """
    identities.files.check_owner(identities.root)
    identities.owner_file.check_allowed(DeviceEvent.ENROLL)
    before = {name: identities.wanted(name).known() for name in names if identities.readable(name) is None}
    for name, wish in before.items():
        identities.wanted(name).write(replace(wish, flow=flow) if wish else Wish(flow, clock.now()))
    try:
        yield
    except ConfigurationError:
        for name, wish in before.items():
            identities.wanted(name).write(wish if identities.readable(name) is None else None)
        raise


def address_of(flow_name: FlowName, settings: EnrollSettings) -> str:
    """The address of the server that a flow asks; empty where there is none, or not one only."""
    addresses = {
        FlowName.EST: settings.est.url,
        FlowName.ACME: settings.acme.directory_url,
        FlowName.CMP: settings.cmp.url,
        FlowName.SCEP: settings.scep.url,
        FlowName.VENDOR: settings.vendor.url,
    }
    return addresses.get(flow_name, "")


def flow_of(identity: IdentityName, settings: EnrollSettings, identities: IdentityStore) -> FlowName:
    """The way that a renewal goes: of the certificate in use, of the request under way, or that was asked for.

    Where there is neither, that of the device identity, which authenticates the others. FIDO Device Onboard brings the
    first certificate of the device identity and no other: from then on the renewal goes as `enroll.fdo.hand_over` says.

    Raises:
        ConfigurationError: Not one that is known here; or nobody says how what came by FDO is renewed.
        StateUnreadable: Not for the user who runs this.
        StateError: What the owner said of renewal is damaged.
    """
    current = identities.readable(identity)
    if current is not None and current.flow not in list(FlowName):
        raise ConfigurationError(
            f"The certificate of the identity {identity} came by {current.flow}, which is not known here.",
            remedy="Install the version that it came with or a later one, or enroll once on another way.",
        )
    if current is not None and current.flow == FlowName.FDO:
        return _way_after_onboarding(settings, identities)
    flow = current.flow if current else _under_way(identity, identities) or _wanted(identity, identities)
    is_first = identity is IdentityName.DEVICE
    if flow in list(FlowName) and (is_first or flow != FlowName.FDO):
        return FlowName(flow)
    return FlowName.EST if is_first else flow_of(IdentityName.DEVICE, settings, identities)


def _way_after_onboarding(settings: EnrollSettings, identities: IdentityStore) -> FlowName:
    flow = renewal_flow(settings, identities.files)
    if flow is None:
        raise ConfigurationError(
            "The certificate of the device identity came by FIDO Device Onboard, which renews nothing; and neither "
            "the owner nor the configuration says how it is renewed.",
            remedy='Set [fdo] renewal to "est", "acme" or "cmp", and the address in the table of that name.',
            code="renewal-not-configured",
        )
    return flow


def _under_way(identity: IdentityName, identities: IdentityStore) -> str:
    """The way of a request under way. One that is damaged goes none: the transaction forgets it."""
    try:
        pending = identities.journal(identity).read()
    except StateDamaged:
        return ""
    return pending.flow if pending else ""


def _wanted(identity: IdentityName, identities: IdentityStore) -> str:
    wish = identities.wanted(identity).known()
    return wish.flow if wish else ""


def _check_brings(flow_name: FlowName, identity: IdentityName) -> None:
    if (flow_name is FlowName.VENDOR) != (identity in VENDORS_IDENTITIES):
        raise ConfigurationError(
            f"The identity {identity} does not come by {flow_name}.",
            remedy="The vendor's identities are idevid and vendor; all others are the owner's.",
        )
