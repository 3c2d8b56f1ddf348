"""More cases for `fault_ports`: what is looked at, and kept, beside the transaction: revocations, the clock, the keys.

A server gives every revocation list; it runs within the block that `revocation_cases` is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enroll.clock_record import read_seen
from enroll.clock_sense import ClockSense
from enroll.collector import collect
from enroll.config import StoreName
from enroll.errors import CertificateRevoked
from enroll.keystore import name_in
from enroll.keystore.ledger import Ledger, Place
from enroll.revocation.record import RevocationRecord, RevocationRecords, RevocationState
from enroll.revocation.watch import watch_revocations
from enroll.statefile import StateFiles
from tests.support.enrolling import Scanner
from tests.support.reliability.fault_cases import (
    CA,
    DEVICE,
    SIGNING,
    Case,
    assert_tidy,
    generations,
    in_world,
    scanner_in,
)
from tests.support.reliability.fault_ports import FaultPorts
from tests.support.revocation import revocation_list
from tests.support.revoking_ca import Answering, web_server

HOUR = timedelta(hours=1)
STOLEN, HOLD = x509.ReasonFlags.key_compromise, x509.ReasonFlags.certificate_hold


# --- what a CA has revoked


@dataclass(frozen=True)
class Watching:
    """A scanner whose CA publishes lists at a server.

    Args:
        server: It.
        known: Why the certificate was revoked when the scanner asked before; "good" where it was not, "" where it has
            not asked.
        said: The same of the list that is there now.
    """

    server: Answering
    known: x509.ReasonFlags | str
    said: x509.ReasonFlags | str

    def case(self, name: str) -> Case:
        """Ask, with a fault; then once more, by the timer."""
        return Case(name, self.prepare, self.ask, self.recover)

    def prepare(self, folder: Path) -> None:
        """One generation, and what was known of it."""
        generations(1)(folder)
        if self.known:
            self.publish(folder, self.known)
            self.watch(scanner_in(folder))
        self.publish(folder, self.said, HOUR)

    def publish(self, folder: Path, said: x509.ReasonFlags | str, later: timedelta = timedelta()) -> None:
        """The server gives this list from now on."""
        scanner = scanner_in(folder)
        current, now = scanner.identities.current(SIGNING), scanner.clock.now() + later
        assert current is not None
        is_revoked = isinstance(said, x509.ReasonFlags)
        revoked = {current.certificate.serial_number: now - HOUR} if is_revoked else {}
        reason = said if isinstance(said, x509.ReasonFlags) else None
        made = revocation_list(CA.name, CA.key, now, revoked, reason)
        self.server.body = made.public_bytes(serialization.Encoding.DER)

    def watch(self, scanner: Scanner, *, patient: bool = False) -> RevocationRecord | None:
        """Ask as `scanseal renew` does; what is known then."""
        asked = replace(scanner.settings.revocation, crl_url=self.server.url)
        settings = replace(scanner.settings, revocation=asked)
        return watch_revocations(settings, scanner.clock, scanner.identities, patient=patient).get(SIGNING)

    def ask(self, folder: Path, ports: FaultPorts, _: object) -> None:
        """The question that meets the fault. What is told as known is on the disk."""
        scanner = scanner_in(folder, ports)
        with ports.installed():
            told = self.watch(scanner)
        if told is not None:
            assert known_of(folder) == told

    def recover(self, folder: Path, _: object) -> None:
        """What was revoked stays so meanwhile; and the next run of the timer knows what the CA says."""
        before = known_of(folder)
        if isinstance(self.known, x509.ReasonFlags):
            assert before is not None
            assert before.state is RevocationState.REVOKED or self.said == "good"
        scanner = scanner_in(folder)
        scanner.clock = later(scanner, 2 * HOUR)
        self.watch(scanner, patient=True)
        after = known_of(folder)
        assert after is not None
        stays = STOLEN in (self.known, self.said)
        assert after.state is (RevocationState.REVOKED if stays else RevocationState.GOOD)
        assert refuses_to_renew(scanner) is stays


def known_of(folder: Path) -> RevocationRecord | None:
    """What the next process reads of the signing identity."""
    scanner = scanner_in(folder)
    current = scanner.identities.current(SIGNING)
    assert current is not None
    return RevocationRecords(scanner.identities).of(current)


def refuses_to_renew(scanner: Scanner) -> bool:
    """Whether a person has to look into it first."""
    try:
        RevocationRecords(scanner.identities).calls_for_renewal(SIGNING)
    except CertificateRevoked:
        return True
    return False


def later(scanner: Scanner, by: timedelta) -> ClockSense:
    """The sense of time of a process that begins later."""
    scanner.clock.sleep(by.total_seconds())
    return ClockSense.configured(scanner.clock, scanner.identities)


@contextmanager
def revocation_cases() -> Iterator[tuple[Case, ...]]:
    """One after the other: they have one server."""
    with web_server() as server:
        yield (
            Watching(server, "", STOLEN).case("a first look learns a revocation"),
            Watching(server, "good", STOLEN).case("a look learns a revocation"),
            Watching(server, HOLD, STOLEN).case("a look learns that a hold is for good"),
            Watching(server, STOLEN, "good").case("a look hears that a revocation is forgotten"),
            Watching(server, HOLD, "good").case("a look learns that a hold is lifted"),
        )


# --- the clock


def _seen_before(folder: Path) -> list[bool]:
    """A scanner in use, whose clock was looked at; what is returned takes note of a command that has done its work."""
    generations(1)(folder)
    scanner = scanner_in(folder)
    ClockSense.configured(scanner.clock, scanner.identities).keep(at_once=True)
    return []


def _an_hour_later(folder: Path, ports: FaultPorts) -> ClockSense:
    scanner = scanner_in(folder)
    scanner.clock.sleep(HOUR.total_seconds())
    sense = in_world(scanner, ports, scanner.clock).clock
    assert isinstance(sense, ClockSense)
    return sense


def _keep_clock(folder: Path, ports: FaultPorts, _: object) -> None:
    sense = _an_hour_later(folder, ports)
    with ports.installed():
        sense.keep(at_once=True)


def _clock_kept(folder: Path, _: object) -> None:
    """The record is whole, nothing in it went back, and the next process knows what time it is."""
    scanner = scanner_in(folder)
    begin, root = scanner.clock.now(), scanner.identities.root
    seen = read_seen(root, StateFiles())
    assert seen is not None
    assert min(seen.believed, seen.estimate) >= begin
    sense = later(scanner, 2 * HOUR)
    assert sense.now() == begin + 2 * HOUR
    assert sense.sense().doubt is None
    sense.keep(at_once=True)
    kept = read_seen(root, StateFiles())
    assert kept is not None
    assert kept.believed == begin + 2 * HOUR


def _confirm(folder: Path, ports: FaultPorts, done: list[bool]) -> None:
    sense = _an_hour_later(folder, ports)
    done.clear()
    with ports.installed():
        sense.confirm_by_person("an engineer")
    done.append(True)


def _confirmed(folder: Path, done: list[bool]) -> None:
    """What a person was told is done is on the disk, with the name for the audit trail; else it is done again."""
    scanner = scanner_in(folder)
    root = scanner.identities.root
    seen = read_seen(root, StateFiles())
    assert seen is not None
    assert seen.confirmed_by == "an engineer" or not done
    sense = later(scanner, 2 * HOUR)
    sense.confirm_by_person("an engineer")
    assert sense.now() == scanner.clock.now()
    seen = read_seen(root, StateFiles())
    assert seen is not None
    assert seen.confirmed_by == "an engineer"


# --- keys that nothing needs, and what is written down of keys


def _with_leftovers(folder: Path) -> None:
    """Four generations, and keys of requests that are gone."""
    generations(4)(folder)
    scanner = scanner_in(folder)
    algorithm = scanner.settings.identity.device.key_algorithm
    for name in ("signing-0123456789abcdef", "device-0123456789abcdef", "acme-account-0123456789abcdef"):
        scanner.stores.generate(StoreName.SOFTWARE, name, algorithm)
    Ledger(scanner.identities.root, StateFiles()).note("signing-fedcba9876543210", Place(StoreName.SOFTWARE))


def _collect(folder: Path, ports: FaultPorts, _: object) -> None:
    scanner = scanner_in(folder, ports)
    with ports.installed(), scanner.identities.kept_lock():
        collect(scanner.identities, scanner.stores)


def _collected(folder: Path, _: object) -> None:
    scanner = scanner_in(folder)
    assert scanner.matching_pair() is not None
    assert_tidy(scanner)
    assert not [uri for uri in scanner.stores.list() if name_in(uri).startswith("acme-account-")]


def _make_and_destroy(folder: Path, ports: FaultPorts, _: object) -> None:
    scanner = scanner_in(folder, ports)
    algorithm = scanner.settings.identity.device.key_algorithm
    with ports.installed():
        uri = scanner.stores.generate(StoreName.SOFTWARE, "device-0123456789abcdef", algorithm)
        scanner.stores.destroy(uri)


def _no_key_without_a_note(folder: Path, _: object) -> None:
    scanner = scanner_in(folder)
    noted = Ledger(scanner.identities.root, StateFiles()).names()
    assert {name_in(uri) for uri in scanner.stores.list()} <= {*noted}
    assert_tidy(scanner)
    left = Ledger(scanner.identities.root, StateFiles()).names()
    assert not [name for name in left if name.startswith(DEVICE)]


WATCHES = (
    Case("clock record", _seen_before, _keep_clock, _clock_kept),
    Case("clock confirmed by a person", _seen_before, _confirm, _confirmed),
    Case("collector", _with_leftovers, _collect, _collected),
    Case("key made and destroyed", generations(1), _make_and_destroy, _no_key_without_a_note),
)
