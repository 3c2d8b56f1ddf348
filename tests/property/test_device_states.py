"""R15: whatever happens, in whatever order, a scanner signs only when its owner lets it, and forgets no disabling.

The pieces are those of the product: the identity directory with its transaction, the record of the owner, the release,
and the keyholder with its service. Only the keys come from a pool, because making them takes their time, and nothing
has to reach the disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.x509 import load_der_x509_certificate
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agent.audit import AuditTrail, verify
from agent.daemon.peer import Caller
from agent.daemon.service import SigningService
from agent.daemon.signer import Identities
from agent.daemon.tally import SigningTally
from agent.daemon.wire import Operation, Request, Role, Signature, decode_signature
from agent.errors import SigningError
from enroll.algorithms import KeyAlgorithm
from enroll.certificates import check_pair
from enroll.config import StoreName
from enroll.device_facts import device_facts
from enroll.device_state import DeviceEvent, DeviceState, may_become, standing
from enroll.errors import KeyNotFound, ScansealError, StateDamaged
from enroll.generation import Generation
from enroll.identity import IdentityName
from enroll.keystore import KeyStores
from enroll.keystore.base import KeyStore, Protection
from enroll.keystore.memory import MemoryKeyStore
from enroll.owner_release import OwnerRelease
from tests.support.clocks import SteppedClock
from tests.support.enrolling import CaFlow, Scanner
from tests.support.enrolling import settings as scanner_settings
from tests.support.pki import HospitalCa
from tests.support.reliability.measured import measured

EXAMPLES, STEPS = 235, 50
TOTAL = 10_000  # steps, at least
IN_MEMORY = Path("/dev/shm")

CA = HospitalCa()
IN_USE = (IdentityName.DEVICE, IdentityName.SIGNING)
NAMES = st.sampled_from(IN_USE)
ROLES = frozenset(Role)
CALLER = Caller(uid=1001, groups=(1001,), pid=4711)
SIGN = Request(Operation.SIGN, digest=bytes(range(32)))
JUMPS = st.sampled_from(
    [timedelta(seconds=1), timedelta(hours=5), timedelta(days=3), timedelta(days=400), timedelta(days=9000)]
)
COUNTED: Counter[str] = Counter()


@cache
def pool() -> tuple[rsa.RSAPrivateKey, ...]:
    """As many keys that sign as one example may need; the next example takes them again."""
    return tuple(rsa.generate_private_key(65537, 2048) for _ in range(STEPS))


class PooledKeys(MemoryKeyStore):
    """A token of the scanner: it outlives every process, and holds what it was given."""

    scheme = StoreName.SOFTWARE.value

    def __init__(self) -> None:
        super().__init__()
        self._unused: Iterator[rsa.RSAPrivateKey] = iter(pool())

    def generate(self, name: str, algorithm: KeyAlgorithm) -> str:
        is_signing = algorithm is KeyAlgorithm.RSA_2048
        return self._keep(name, next(self._unused)) if is_signing else super().generate(name, algorithm)

    def protection(self, uri: str) -> Protection:
        super().protection(uri)
        return Protection.SOFTWARE

    def close(self) -> None:
        """A process has ended."""


class PooledStores(KeyStores):
    """The key stores of one process."""

    def __init__(self, scanner: Scanner, token: PooledKeys) -> None:
        super().__init__(scanner.settings.keystore, scanner.settings.state_directory, scanner.files)
        self._token = token

    def _store(self, store: StoreName, token: str = "") -> KeyStore:
        return self._token if store is StoreName.SOFTWARE else super()._store(store, token)


def new_scanner(folder: Path, clock: SteppedClock, token: PooledKeys) -> Scanner:
    plain = scanner_settings(folder)
    signing = replace(plain.identity.signing, key_algorithm=KeyAlgorithm.RSA_2048)
    identity = replace(plain.identity, signing=signing)
    scanner = Scanner(replace(plain, identity=identity), (CA.certificate,), clock)
    scanner.stores = PooledStores(scanner, token)
    return scanner


class ScannerLife(RuleBasedStateMachine):
    """One scanner, and beside it what its owner has said: `disabled`, and whether the record of that is `lost`."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="scanseal-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        self.clock, self.true_time = SteppedClock(), SteppedClock()
        self.token = PooledKeys()
        self.scanner = new_scanner(self.folder, self.clock, self.token)
        self.disabled = self.lost = False
        self.harmed: dict[Path, bytes] = {}
        self.state = self.state_now()
        self.start()

    # --- the processes

    def start(self) -> None:
        audit = self.scanner.settings.state_directory / "audit" / "audit.jsonl"
        audit.parent.mkdir(parents=True, exist_ok=True)
        self.audit = AuditTrail(audit, self.clock)
        self.service: SigningService | None = None
        stores = PooledStores(self.scanner, self.token)
        try:
            self.identities = Identities(self.scanner.identities, stores, self.audit, self.clock)
        except StateDamaged:  # the agent says so and ends; a person has to look
            COUNTED["agent did not start"] += 1
            return
        tally = SigningTally(self.audit, self.clock, 0.0)
        self.service = SigningService(self.identities, self.audit, self.clock, tally, dict)

    def teardown(self) -> None:
        self.audit.close()
        verify(self.scanner.settings.state_directory / "audit" / "audit.jsonl")
        shutil.rmtree(self.folder)

    # --- what happens

    @initialize(enrolled=st.sampled_from([True, True, True, False]))
    def begin(self, *, enrolled: bool) -> None:
        for name in IN_USE if enrolled else ():
            self.enroll(name)

    @rule(name=NAMES)
    def enroll(self, name: IdentityName) -> None:
        """A person, over whatever is damaged or lost."""
        before = self.generation(name)
        with self.event(DeviceEvent.ENROLL):
            self.issue(name)
        if self.generation(name) != before:
            self.harmed = {path: data for path, data in self.harmed.items() if path == self.record}

    @rule(name=NAMES)
    def renew(self, name: IdentityName) -> None:
        """The timer: never over damage, never what nobody has."""
        with self.event(DeviceEvent.RENEW):
            if self.scanner.identities.current(name) is not None:
                self.issue(name)

    @rule()
    def disable(self) -> None:
        with self.event(DeviceEvent.DISABLE):
            self.scanner.identities.owner_file.disable(0, "", self.clock.now())
        self.disabled, self.lost = True, False
        self.harmed.pop(self.record, None)

    @rule()
    def enable(self) -> None:
        with self.event(DeviceEvent.ENABLE):
            self.scanner.identities.owner_file.enable(0, self.clock.now(), lambda _: False)
            assert not self.lost, "a record that is lost was taken for one that allows everything"
            self.disabled = False

    @rule()
    def reset(self) -> None:
        with self.event(DeviceEvent.RESET):
            self.scanner.identities.owner_file.enable(0, self.clock.now(), lambda _: False, reset=True)
        self.disabled = self.lost = False
        self.harmed.pop(self.record, None)

    @precondition(lambda self: self.record.exists() or self.lost)
    @rule(often=st.integers(0, 3))
    def release(self, often: int) -> None:
        if often:
            return  # it ends everything, so it must not happen all the time
        with self.event(DeviceEvent.RELEASE):
            OwnerRelease(self.scanner.context).run()
        self.disabled = self.lost = False
        self.harmed.clear()

    @rule(name=NAMES)
    def lose_key(self, name: IdentityName) -> None:
        with self.event(DeviceEvent.LOSE_KEY):
            current = self.scanner.identities.current(name)
            if current is not None:
                self.token.destroy(current.key_uri)

    @precondition(lambda self: not self.lost and self.record.exists() and self.has_been_enrolled())
    @rule(harm=st.sampled_from(["removed", "cut", "flipped"]))
    def lose_record(self, harm: str) -> None:
        kept = self.record.read_bytes()
        with self.event(DeviceEvent.LOSE_RECORD):
            if harm == "removed":
                self.record.unlink()
            elif harm == "cut":
                self.record.write_bytes(kept[: len(kept) // 2])
            else:
                self.record.write_bytes(kept.replace(b'"disabled": "yes"', b'"disabled": "no"').replace(b"own", b"Own"))
        self.harmed[self.record] = kept
        self.lost = True

    @rule(name=NAMES)
    def lose_certificate(self, name: IdentityName) -> None:
        pointer = self.scanner.identities.directory(name) / "current" / "certificate.pem"
        if not pointer.exists() or pointer.resolve() in self.harmed:
            return
        path = pointer.resolve()
        kept = path.read_bytes()
        with self.event(DeviceEvent.LOSE_CERTIFICATE):
            path.write_bytes(kept[: len(kept) // 2])
        self.harmed[path] = kept

    @rule()
    def restore(self) -> None:
        """A backup of what was damaged; not of an older state."""
        for path, kept in self.harmed.items():
            path.write_bytes(kept)
        self.harmed.clear()
        self.lost = False
        self.state = self.state_now()

    @rule(jump=JUMPS, back=st.booleans())
    def set_clock(self, jump: timedelta, *, back: bool) -> None:
        with self.event(DeviceEvent.RESTART), contextlib.suppress(OverflowError):
            self.clock.moment += -jump if back else jump

    @rule(hours=st.integers(1, 100))
    def let_time_pass(self, hours: int) -> None:
        with self.event(DeviceEvent.RESTART):
            for clock in (self.clock, self.true_time):
                clock.advance(timedelta(hours=hours))

    @rule()
    def set_clock_right(self) -> None:
        self.clock.moment = self.true_time.moment

    @rule()
    def restart(self) -> None:
        with self.event(DeviceEvent.RESTART):
            self.audit.close()
            self.scanner = new_scanner(self.folder, self.clock, self.token)
            self.start()

    # --- what always holds

    @invariant()
    def signs_only_when_the_owner_lets_it(self) -> None:
        COUNTED["steps"] += 1
        if self.service is None:
            return
        try:
            made = decode_signature(self.service.reply(SIGN.encode(), CALLER, ROLES))
        except SigningError as error:
            refused = error.code
        else:
            refused = ""
            verify_signature(made)
        COUNTED[f"refused: {refused}" if refused else "signed"] += 1
        if self.disabled or self.lost:
            assert refused == ("device-needs-service" if self.lost else "device-disabled")
        self.identities.refresh()  # the next second; what happens before it has to hold already

    @invariant()
    def has_one_matching_pair_or_a_state_with_a_name(self) -> None:
        state = self.state
        COUNTED[f"state: {state}"] += 1
        assert (state is DeviceState.DISABLED) == (self.disabled and not self.lost)
        assert state is DeviceState.NEEDS_SERVICE or not self.lost
        if state is not DeviceState.OWNED:
            return
        for name in IN_USE:
            if (current := self.found[name]) is not None:
                check_pair(self.scanner.stores.load(current.key_uri), current.certificate)

    # --- helpers

    @property
    def record(self) -> Path:
        return self.scanner.settings.state_directory / "owner.json"

    @contextlib.contextmanager
    def event(self, event: DeviceEvent) -> Iterator[None]:
        """What happens leads where the table says; what is refused leads nowhere."""
        before = self.state
        try:
            yield
        except ScansealError as refused:
            COUNTED[f"{event} refused: {type(refused).__name__}"] += 1
        self.state = self.state_now()
        assert self.state in may_become(before, event), f"{before} -> {event} -> {self.state}"

    def issue(self, name: IdentityName) -> None:
        self.scanner.issue(CaFlow(CA, self.true_time), name)

    def generation(self, name: IdentityName) -> int | None:
        current = self.scanner.identities.readable(name)
        return current.number if current else None

    def has_been_enrolled(self) -> bool:
        return any((self.scanner.identities.directory(name) / "generations").exists() for name in IN_USE)

    def state_now(self) -> DeviceState:
        identities = self.scanner.identities
        self.found = {name: identities.readable(name) for name in IN_USE}
        lost = [name for name, current in self.found.items() if current and self.is_lost(current)]
        return standing(device_facts(identities, lost)).state

    def is_lost(self, current: Generation) -> bool:
        try:
            self.scanner.stores.load(current.key_uri)
        except KeyNotFound:
            return True
        return False


def verify_signature(made: Signature) -> None:
    public = load_der_x509_certificate(made.certificate).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    public.verify(made.value, SIGN.digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))


def test_no_order_of_events_makes_a_scanner_sign_against_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)  # thousands of lines that nobody reads
    COUNTED.clear()
    began = time.process_time()

    run_state_machine_as_test(
        ScannerLife,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )

    spent = time.process_time() - began
    states = [state for state in DeviceState if COUNTED[f"state: {state}"]]
    assert COUNTED["steps"] >= TOTAL
    assert COUNTED["signed"] >= TOTAL / 50
    assert states == list(DeviceState)
    measured(
        "R15",
        "any order of events",
        steps=COUNTED["steps"],
        signed=COUNTED["signed"],
        against_the_owner=0,
        states=len(states),
        cpu_seconds=spent,
    )
