"""The operations that change the state of a scanner, each as a case for `fault_ports`: before, the operation, after.

After a fault nobody has put right anything: what `recover` finds is what the next run finds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enroll.certificates import pem
from enroll.clock import Clock
from enroll.clock_sense import ClockSense
from enroll.collector import collect
from enroll.config import EnrollSettings, StoreName
from enroll.device_state import DeviceEvent
from enroll.errors import DeviceDisabled
from enroll.flows.offline.desk import OfflineDesk
from enroll.identity import Generation, IdentityName
from enroll.journal import Journal, PendingRequest, Step
from enroll.keystore import name_in
from enroll.keystore.ledger import Ledger
from enroll.owner_release import OWNERS_IDENTITIES, OwnerRelease
from enroll.statefile import StateFiles
from tests.support.by_hand import ByHand
from tests.support.enrolling import CaFlow, Keyholder, Scanner, settings, with_memory_key
from tests.support.pki import HospitalCa
from tests.support.reliability.fault_ports import FaultPorts

CA = HospitalCa()
ANCHORS = (CA.certificate,)
DEVICE, SIGNING, DERIVATION = IdentityName.DEVICE, IdentityName.SIGNING, IdentityName.DERIVATION
_ISSUED = (Step.ISSUED, Step.VERIFIED)


@dataclass(frozen=True)
class Case:
    """One operation.

    Args:
        name: Which.
        prepare: Makes the folder of a scanner as it is before; what it returns, the others get.
        act: The operation, in the world of `ports`.
        recover: The same to its end, in a world without faults; fails where something was lost.
    """

    name: str
    prepare: Callable[[Path], Any]
    act: Callable[[Path, FaultPorts, Any], None]
    recover: Callable[[Path, Any], None]


def scanner_in(
    folder: Path, ports: FaultPorts | None = None, configured: Callable[[Path], EnrollSettings] = settings
) -> Scanner:
    """The scanner of a folder, in the world of `ports`."""
    scanner = Scanner(configured(folder), ANCHORS)
    return in_world(scanner, ports, scanner.clock) if ports else scanner


def in_world(scanner: Scanner, ports: FaultPorts, clock: Clock) -> Scanner:
    """The same scanner with ports that fail; its sense of time is that of every enroller."""
    scanner.clock = ClockSense.configured(ports.clock(clock), scanner.identities)
    scanner.stores = ports.key_stores(scanner.settings.keystore)
    return scanner


def under_way(journal: Journal) -> PendingRequest | None:
    """The request; after a fault it may be missing, and is never damaged."""
    return journal.read()


def assert_tidy(scanner: Scanner) -> None:
    """After the collector there are the keys in use, of the generations before and of requests; in the ledger, too."""
    identities, root = scanner.identities, scanner.identities.root
    with identities.kept_lock():
        assert collect(identities, scanner.stores) == ()
    needed: set[str] = set()
    for name in IdentityName:
        uris = {number: identities.key_uri(name, number) for number in reversed(identities.generations(name))}
        needed |= set([*dict.fromkeys(uris.values())][:2])
        # Where the one before could not be read at that moment, the one in use then was that before it.
        before = identities.number_before(name, max(uris)) if uris else 0
        needed |= {uri for number, uri in uris.items() if before and number >= before}
        journals = [identities.journal_by_hand(name, each) for each in identities.requests_by_hand(name)]
        for journal in (identities.journal(name), *journals):
            pending = journal.read()
            needed |= {pending.key_uri} if pending else set()
    kept = {uri for uri in needed if uri and not uri.startswith("memory:")}
    assert {uri for uri in scanner.stores.list() if _is_of_identity(name_in(uri))} == kept
    noted = Ledger(root, StateFiles()).names()
    assert {name for name in noted if _is_of_identity(name)} == {name_in(uri) for uri in kept}
    assert {name_in(uri) for uri in scanner.stores.list()} == {*noted}
    assert sum(name.startswith("acme-account-") for name in noted) <= 1
    half_written = [path for path in (root / "keys").glob(".*") if path.is_file()]
    assert not half_written


def _is_of_identity(name: str) -> bool:
    return name.partition("-")[0] in list(IdentityName)


# --- the one transaction


def _enrolled(scanner: Scanner, identity: IdentityName = SIGNING) -> tuple[Generation, CaFlow]:
    flow = CaFlow(CA, scanner.clock)
    generation = scanner.issue(flow, identity)
    assert isinstance(generation, Generation)
    return generation, flow


def generations(count: int) -> Callable[[Path], None]:
    """A scanner that has enrolled so often."""

    def prepare(folder: Path) -> None:
        scanner = scanner_in(folder)
        for _ in range(count):
            _enrolled(scanner)

    return prepare


def _issue(folder: Path, ports: FaultPorts, _: object) -> None:
    scanner = scanner_in(folder, ports)
    with ports.installed():
        scanner.issue(CaFlow(CA, scanner.clock))


def _issued(before: int) -> Callable[[Path, object], None]:
    def recover(folder: Path, _: object) -> None:
        scanner = scanner_in(folder)
        current = scanner.matching_pair()
        number = current.number if current else 0
        assert number in {before, before + 1}
        pending = under_way(scanner.identities.journal(SIGNING))
        if number == before or pending is not None:
            generation, flow = _enrolled(scanner)
            if pending and pending.step in _ISSUED:
                assert flow.asked == []  # what was issued is on disk, and is not asked for once more
            if pending and pending.key_uri:
                assert generation.key_uri == pending.key_uri
        assert scanner.matching_pair() is not None
        assert scanner.identities.journal(SIGNING).read() is None
        assert_tidy(scanner)

    return recover


# --- a key in the memory of the agent, which lives on


def _offer(folder: Path) -> Keyholder:
    keyholder = Keyholder(scanner_in(folder, configured=_in_memory))
    keyholder.offer()
    return keyholder


def _in_memory(folder: Path) -> EnrollSettings:
    return with_memory_key(settings(folder))


def _take_offer(folder: Path, ports: FaultPorts, _: object) -> None:
    scanner = scanner_in(folder, ports, _in_memory)
    with ports.installed():
        scanner.issue(CaFlow(CA, scanner.clock))


def _offer_taken(folder: Path, keyholder: Keyholder) -> None:
    scanner = scanner_in(folder, configured=_in_memory)
    keyholder.scanner = scanner
    pending = under_way(scanner.identities.journal(SIGNING))
    flow = CaFlow(CA, scanner.clock)
    scanner.issue(flow)
    if pending and pending.step in _ISSUED:
        assert flow.asked == []
    served = keyholder.matching_pair()
    assert served is not None
    assert served.number in {1, 2}  # number 1 may be written, and not have come into use
    assert scanner.identities.journal(SIGNING).read() is None
    assert_tidy(scanner)


# --- requests that a person carries


def _by_hand(folder: Path, ports: FaultPorts | None = None) -> ByHand:
    by_hand = ByHand(folder, CA)
    if ports:
        in_world(by_hand.scanner, ports, by_hand.scanner.clock)
        by_hand.desk = OfflineDesk(by_hand.scanner.context)
    return by_hand


def _export(folder: Path, ports: FaultPorts, _: object) -> None:
    by_hand = _by_hand(folder, ports)
    with ports.installed():
        by_hand.export()


def _exported(folder: Path, _: object) -> None:
    by_hand = _by_hand(folder)
    out = list(by_hand.out())
    request, file = by_hand.export(number=out[0] if out else "")
    assert list(by_hand.out()) == [request.number]
    assert_tidy(by_hand.scanner)
    (generation,) = by_hand.take_in(pem([by_hand.granted(file)]))
    assert by_hand.scanner.matching_pair() == generation
    assert_tidy(by_hand.scanner)


def _answered(folder: Path) -> tuple[str, bytes]:
    by_hand = _by_hand(folder)
    by_hand.take_in(pem([by_hand.granted(by_hand.export()[1])]))
    request, file = by_hand.export()
    return request.pending.key_uri, pem([by_hand.granted(file)])


def _import(folder: Path, ports: FaultPorts, answered: tuple[str, bytes]) -> None:
    by_hand = _by_hand(folder, ports)
    with ports.installed():
        by_hand.take_in(answered[1])


def _imported(folder: Path, answered: tuple[str, bytes]) -> None:
    by_hand = _by_hand(folder)
    assert by_hand.scanner.matching_pair() is not None
    if by_hand.out():
        by_hand.take_in(answered[1])
    current = by_hand.scanner.matching_pair()
    assert current is not None
    assert current.key_uri == answered[0]  # the answer that somebody carried is in use, or was put into use again
    assert by_hand.out() == {}
    by_hand.desk.requests.tidy()
    assert_tidy(by_hand.scanner)


def _to_cancel(folder: Path) -> str:
    return _by_hand(folder).export()[0].number


def _cancel(folder: Path, ports: FaultPorts, number: str) -> None:
    by_hand = _by_hand(folder, ports)
    with ports.installed():
        by_hand.desk.cancel(number)


def _cancelled(folder: Path, number: str) -> None:
    by_hand = _by_hand(folder)
    if by_hand.out():
        by_hand.desk.cancel(number)
    assert by_hand.out() == {}
    by_hand.desk.requests.tidy()
    assert_tidy(by_hand.scanner)
    assert by_hand.scanner.stores.list() == ()


# --- the owner


def _with_owner(folder: Path) -> None:
    """Some of everything that goes with its owner, and one key that nothing names any more."""
    scanner = scanner_in(folder)
    for identity in (DEVICE, SIGNING, SIGNING):
        _enrolled(scanner, identity)
    name = "derivation-0123456789abcdef"
    algorithm = scanner.settings.identity.device.key_algorithm
    uri = scanner.stores.generate(StoreName.SOFTWARE, name, algorithm)
    now = scanner.clock.now()
    scanner.identities.journal(DERIVATION).write(PendingRequest(Step.SENT, name, uri, "{}", now))
    scanner.stores.generate(StoreName.SOFTWARE, "signing-fedcba9876543210", algorithm)


def _release(folder: Path, ports: FaultPorts, _: object) -> None:
    scanner = scanner_in(folder, ports)
    with ports.installed():
        OwnerRelease(scanner.context).run()


def _released(folder: Path, _: object) -> None:
    scanner = scanner_in(folder)
    for name in (DEVICE, SIGNING):
        scanner.matching_pair(name)  # whatever is in use has its key
    assert OwnerRelease(scanner.context).run() == ()
    assert scanner.stores.list() == ()
    for name in OWNERS_IDENTITIES:
        assert scanner.identities.current(name) is None
        assert scanner.identities.generations(name) == ()
    assert_tidy(scanner)
    _enrolled(scanner, DEVICE)  # the next owner


def _disable(folder: Path, ports: FaultPorts, _: object) -> None:
    scanner = scanner_in(folder, ports)
    with ports.installed():
        scanner.identities.owner_file.disable(0, "a test", scanner.clock.now())


def _disabled(folder: Path, _: object) -> None:
    scanner = scanner_in(folder)
    scanner.identities.owner_file.disable(0, "a test", scanner.clock.now())
    try:
        scanner.identities.owner_file.check_allowed(DeviceEvent.ENROLL)
    except DeviceDisabled:
        return
    raise AssertionError("It is not disabled.")


def _to_enable(folder: Path) -> None:
    generations(1)(folder)
    scanner = scanner_in(folder)
    scanner.identities.owner_file.disable(0, "a test", scanner.clock.now())


def _enable(folder: Path, ports: FaultPorts, _: object) -> None:
    scanner = scanner_in(folder, ports)
    with ports.installed():
        scanner.identities.owner_file.enable(0, scanner.clock.now(), lambda _: True)


def _enabled(folder: Path, _: object) -> None:
    scanner = scanner_in(folder)
    scanner.identities.owner_file.enable(0, scanner.clock.now(), lambda _: True)
    _enrolled(scanner)
    assert_tidy(scanner)


IN_PROCESS = (
    Case("first enrollment", generations(0), _issue, _issued(0)),
    Case("renewal", generations(3), _issue, _issued(3)),
    Case("certificate for a key in memory", _offer, _take_offer, _offer_taken),
    Case("offline export", generations(0), _export, _exported),
    Case("offline import", _answered, _import, _imported),
    Case("offline cancel", _to_cancel, _cancel, _cancelled),
    Case("owner release", _with_owner, _release, _released),
    Case("owner disable", generations(1), _disable, _disabled),
    Case("owner enable", _to_enable, _enable, _enabled),
)
