"""R15: whatever happens, in whatever order, a scanner signs only when its owner lets it, and forgets no disabling.

The pieces are those of the product: the identity directory with its transaction, what `scanseal owner disable`,
`enable` and `release` do, and the keyholder with its service. Only the keys come from a pool, because making them takes
their time, and nothing has to reach the disk.

The oracle is the table of the states (ADR 37): each of them refuses what it refuses, with its error, and nothing else
because of the state; and what it does leads where the table says. What may be done at all in which state is written out
once more in `tests/unit/test_device_state.py`.
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
from datetime import timedelta
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

from agent.audit import AuditTrail, only_writer, verify
from agent.cli import releasing
from agent.cli.deciding import Decision
from agent.daemon.peer import Caller
from agent.daemon.service import SigningService
from agent.daemon.signer import Identities
from agent.daemon.tally import SigningTally
from agent.daemon.wire import Operation, Request, Role, Signature, decode_signature
from agent.errors import SigningError
from enroll.certificates import check_pair
from enroll.device_facts import device_facts
from enroll.device_state import (
    TRANSITIONS,
    DeviceEvent,
    DeviceState,
    Situation,
    may_become,
    refusal,
    situation_of,
    standing,
)
from enroll.errors import KeyNotFound, ScansealError, StateDamaged
from enroll.generation import Generation
from enroll.identity import IdentityName
from tests.support.clocks import SteppedClock
from tests.support.enrolling import CaFlow
from tests.support.pki import HospitalCa
from tests.support.reliability.measured import measured
from tests.support.reliability.pooled_keys import PooledKeys, PooledStores, new_scanner, pool

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
DONE_BY_SOMEBODY = frozenset(event for event in DeviceEvent if event in TRANSITIONS[Situation.OWNED]) - {
    DeviceEvent.LOSE_KEY,
    DeviceEvent.LOSE_RECORD,
    DeviceEvent.LOSE_CERTIFICATE,
}
OF_THE_STATE = frozenset({"device-disabled", "device-needs-service", "release-under-way"})  # codes of errors


class ScannerLife(RuleBasedStateMachine):
    """One scanner, and beside it what its owner has said: `disabled`, and whether the record of that is `lost`."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="scanseal-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        self.clock, self.true_time = SteppedClock(), SteppedClock()
        self.token = PooledKeys(pool(STEPS))
        self.scanner = new_scanner(self.folder, CA, self.clock, self.token)
        self.disabled = self.lost = False
        self.harmed: dict[Path, bytes] = {}
        self.state = self.state_now()
        self.start()

    # --- the processes

    def start(self) -> None:
        state = self.scanner.settings.state_directory
        (state / "audit").mkdir(parents=True, exist_ok=True)
        self.agent = contextlib.ExitStack()
        self.agent.enter_context(only_writer(state, self.scanner.files))
        self.audit = AuditTrail(state / "audit" / "audit.jsonl", self.clock)
        self.agent.callback(self.audit.close)
        self.service: SigningService | None = None
        stores = PooledStores(self.scanner, self.token)
        try:
            self.identities = Identities(self.scanner.identities, stores, self.audit, self.clock)
        except StateDamaged:  # the agent says so and ends; a person has to look
            COUNTED["agent did not start"] += 1
            self.agent.close()
            return
        tally = SigningTally(self.audit, self.clock, 0.0)
        self.service = SigningService(self.identities, self.audit, self.clock, tally, dict)

    def teardown(self) -> None:
        self.agent.close()
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
        if self.generation(name) is None:
            return
        with self.event(DeviceEvent.RENEW):
            self.issue(name)

    @rule()
    def disable(self) -> None:
        with self.event(DeviceEvent.DISABLE):
            self.decision.disable("")
        self.disabled, self.lost = True, False
        self.harmed.pop(self.record, None)

    @rule()
    def enable(self) -> None:
        with self.event(DeviceEvent.ENABLE):
            self.decision.enable(reset=False)
            assert not self.lost, "a record that is lost was taken for one that allows everything"
            self.disabled = False

    @rule()
    def reset(self) -> None:
        with self.event(DeviceEvent.RESET):
            self.decision.enable(reset=True)
        self.disabled = self.lost = False
        self.harmed.pop(self.record, None)

    @precondition(lambda self: self.record.exists() or self.lost)
    @rule(often=st.integers(0, 3))
    def release(self, often: int) -> None:
        if often:
            return  # it ends everything, so it must not happen all the time
        with self.event(DeviceEvent.RELEASE):
            releasing.release(self.scanner.context)
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
            self.agent.close()
            self.scanner = new_scanner(self.folder, CA, self.clock, self.token)
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
        said = refusal(self.facts, DeviceEvent.SIGN)
        assert refused == said.code if said else refused not in OF_THE_STATE
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
        """What happens leads where the table says; what it refuses is refused with its reason, and leads nowhere."""
        before, said = situation_of(self.facts), refusal(self.facts, event) if event in DONE_BY_SOMEBODY else None
        code = ""
        try:
            yield
        except ScansealError as refused:
            COUNTED[f"{event} refused: {type(refused).__name__}"] += 1
            code = refused.code
        assert code == said.code if said else code not in OF_THE_STATE, f"{before} -> {event}: {code}"
        self.state = self.state_now()
        after = situation_of(self.facts)
        assert after in ({before} if said else may_become(before, event)), f"{before} -> {event} -> {after}"
        COUNTED["refused by the table"] += said is not None

    @property
    def decision(self) -> Decision:
        return Decision(self.scanner.settings.state_directory, self.scanner.files, self.clock)

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
        self.facts = device_facts(identities, lost)
        return standing(self.facts).state

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
    assert COUNTED["refused by the table"] >= TOTAL / 50
    measured(
        "R15",
        "any order of events",
        steps=COUNTED["steps"],
        signed=COUNTED["signed"],
        against_the_owner=0,
        states=len(states),
        cpu_seconds=spent,
    )
