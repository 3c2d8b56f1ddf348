"""Everything that takes a time and decides something, at every time that a clock may show (reliability R5).

The list of it is made from the source: whatever is public and has a parameter or field that is a time to decide by
stands in one of the two tables here, or a test fails. An answer or a typed error is right, and nothing else is; what
the right answer is, is said by the tests of each.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from functools import cached_property
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from agent import checks, enrollment_checks
from agent.cli.onboarding_state import record as onboarding_record
from agent.daemon.active_key import ALWAYS, ActiveKey, Period
from agent.daemon.memory_identity import KeyMaker
from agent.daemon.wire import HashName
from enroll.algorithms import KeyAlgorithm
from enroll.anchors import KeptAnchors
from enroll.chain import build_chain
from enroll.clock import Clock
from enroll.clock_sense import ClockSense
from enroll.config import SigningIdentitySettings, StoreName
from enroll.enroller import Enroller
from enroll.errors import ScansealError
from enroll.est.client import read_ca_certificates
from enroll.failure import Failures
from enroll.flows.acme.progress import Progress
from enroll.flows.scep.requester import first_requester
from enroll.flows.settings import FlowName
from enroll.http import Answer
from enroll.http.retry_after import retry_after
from enroll.identity import IdentityName
from enroll.issue import waiting_offer
from enroll.keystore import KeyStores
from enroll.leftover_files import remove_leftover_files
from enroll.renewal.alarms import alarm, raise_alarm
from enroll.renewal.decision import Facts, Life, decide
from enroll.renewal.silence import Purpose, Silences
from enroll.renewal.window import MaintenanceWindow
from enroll.revocation.lists import Statement, is_current, revocation_of
from enroll.revocation.record import RevocationRecord
from enroll.revocation.watch import list_statement, watch_revocations
from enroll.statefile import StateFiles
from enroll.trust import check_issued, verify_chain, verify_signer
from enroll.vendor.ticket import ServiceTicket
from tests.support.clocks import SteppedClock
from tests.support.enrolling import CaFlow, Keyholder, Scanner, settings
from tests.support.pki import DEVICE, NOW, HospitalCa
from tests.support.reliability.measured import measured
from tests.support.revocation import revocation_list

ROOT = Path(__file__).parents[2]
DAY = timedelta(days=1)
SIGNING = IdentityName.SIGNING

WALLS = {
    "1970": datetime(1970, 1, 1, tzinfo=UTC),
    "2038-01-19": datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC),
    "2038-01-19 and a second": datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
    "2050": datetime(2050, 1, 1, tzinfo=UTC),
    "the last that Linux lets a clock be set to": datetime(2232, 4, 11, tzinfo=UTC),  # TIME_SETTOD_SEC_MAX
    "a second before": NOW - timedelta(seconds=1),
    "a second after": NOW + timedelta(seconds=1),
    "an hour before": NOW - timedelta(hours=1),
    "an hour after": NOW + timedelta(hours=1),
    "400 days before": NOW - 400 * DAY,
    "400 days after": NOW + 400 * DAY,
    "ten years before": NOW - 3653 * DAY,
    "ten years after": NOW + 3653 * DAY,
}


@dataclass
class World:
    """A scanner that enrolled at NOW, and what others have issued."""

    folder: Path
    ca: HospitalCa = field(default_factory=lambda: HospitalCa("Hospital", end=datetime(9999, 1, 1, tzinfo=UTC)))
    clock: SteppedClock = field(default_factory=SteppedClock)

    def __post_init__(self) -> None:
        self.scanner = Scanner(settings(self.folder), (self.ca.certificate,), self.clock)
        self.flow = CaFlow(self.ca, self.clock)
        self.scanner.issue(self.flow)
        current = self.scanner.identities.current(SIGNING)
        assert current is not None
        self.generation = current

    @cached_property
    def certificate(self) -> x509.Certificate:
        return self.generation.certificate

    @cached_property
    def active(self) -> ActiveKey:
        stores = self.scanner.stores
        uri = stores.generate(StoreName.SOFTWARE, "rsa", KeyAlgorithm.RSA_2048)
        key = stores.load(uri)
        certificate = self.ca.issue(key.public_key())
        generation = replace(self.generation, certificate=certificate, key_uri=uri)
        return ActiveKey.load(generation, stores, ALWAYS)

    @cached_property
    def revocations(self) -> x509.CertificateRevocationList:
        return revocation_list(self.ca.name, self.ca.key, NOW, {self.certificate.serial_number: NOW - DAY})


def _issued(world: World, now: datetime) -> object:
    key = world.scanner.stores.load(world.generation.key_uri).public_key()
    return check_issued(
        (world.certificate,), (), (world.ca.certificate,), public_key=key, request=world.flow.asked[0].request, now=now
    )


def _record(now: datetime) -> RevocationRecord:
    return RevocationRecord(1, "01", now).after(Statement(NOW - DAY, NOW + DAY), "a list", NOW)


def _ticket() -> ServiceTicket:
    return ServiceTicket("i", "a", "s", "n", "t", NOW, NOW, NOW + DAY, frozenset({IdentityName.IDEVID}), "", "")


def _issue(world: World, clock: SteppedClock) -> object:
    scanner = Scanner(world.scanner.settings, (world.ca.certificate,), clock)
    return scanner.issue(CaFlow(world.ca, clock))


def _offer_waits(world: World, clock: Clock) -> object:
    Keyholder(world.scanner).offer()
    return waiting_offer(SIGNING, world.scanner.identities, clock)


def _held_key(world: World, clock: Clock) -> object:
    wanted = SigningIdentitySettings(key_store=StoreName.MEMORY, key_algorithm=KeyAlgorithm.P_256)
    stores = KeyStores(world.scanner.settings.keystore, world.folder, StateFiles())
    held = KeyMaker(SIGNING, wanted, DEVICE, stores, SteppedClock()).make()
    return held.age(clock), held.has_ended(clock), KeyMaker(SIGNING, wanted, DEVICE, stores, clock).make()


def _noted(world: World, clock: Clock) -> object:
    with Failures(world.scanner.identities).noted(SIGNING, FlowName.EST, clock):
        raise ScansealError("Nothing.", remedy="None.")


def _sense(clock: Clock) -> ClockSense:
    return ClockSense.of(clock)


# Each is called with the world, and with a clock that shows the time; most take just the time.
DECISIONS: dict[str, Callable[[World, SteppedClock], object]] = {
    "agent/checks.py:certificate": lambda w, c: checks.certificate(SIGNING, w.certificate, c.now(), NOW),
    "agent/checks.py:clock": lambda _, c: checks.clock(_sense(c).sense()),
    "agent/cli/onboarding_state.py:record": lambda w, c: onboarding_record(w.scanner.settings, StateFiles(), c),
    "agent/daemon/active_key.py:ActiveKey.judged_at": lambda w, c: w.active.judged_at(_sense(c).sense()),
    "agent/daemon/active_key.py:ActiveKey.refusal": lambda w, c: w.active.refusal(c.now()),
    "agent/daemon/active_key.py:ActiveKey.sign": lambda w, c: w.active.sign(bytes(32), HashName.SHA256, c.now()),
    "agent/daemon/active_key.py:Period.covers": lambda _, c: Period(NOW, NOW + DAY).within(ALWAYS).covers(c.now()),
    "agent/daemon/memory_identity.py:HeldKey.age": _held_key,
    "agent/daemon/memory_identity.py:HeldKey.has_ended": _held_key,
    "agent/daemon/memory_identity.py:KeyMaker": _held_key,
    "agent/enrollment_checks.py:anchors": lambda w, c: enrollment_checks.anchors(
        enrollment_checks.Way(FlowName.EST, "https://ca", None), (w.ca.certificate,), c.now()
    ),
    "agent/enrollment_checks.py:revocation": lambda _, c: enrollment_checks.revocation(
        SIGNING, _record(NOW), published=True, now=c.now(), patience=DAY
    ),
    "enroll/anchors.py:KeptAnchors.roll_over": lambda w, c: KeptAnchors(w.folder / "anchors", StateFiles()).roll_over(
        "est", (w.ca.certificate,), (w.ca.certificate, w.certificate), c.now()
    ),
    "enroll/chain.py:build_chain": lambda w, c: build_chain(w.certificate, (), (w.ca.certificate,), c.now()),
    "enroll/enroller.py:Enroller.configured": lambda w, c: Enroller.configured(
        w.scanner.settings, c, StateFiles()
    ).enroll(SIGNING, FlowName.EST),
    "enroll/est/client.py:read_ca_certificates": lambda _, c: read_ca_certificates(
        Answer(503, {"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, b""), c.now()
    ),
    "enroll/failure.py:Failures.noted": _noted,
    "enroll/flows/acme/progress.py:Progress.is_answered": lambda _, c: Progress("u", "", NOW).is_answered(c.now()),
    "enroll/flows/scep/requester.py:first_requester": lambda w, c: first_requester(w.ca.key, w.ca.name, c.now()),
    "enroll/http/retry_after.py:retry_after": lambda _, c: [
        retry_after(text, c.now()) for text in ("999999999", "Fri, 31 Dec 1999 23:59:59 GMT", "soon", "")
    ],
    "enroll/issue.py:issue": _issue,
    "enroll/issue.py:waiting_offer": _offer_waits,
    "enroll/leftover_files.py:remove_leftover_files": lambda w, c: remove_leftover_files(
        w.folder, StateFiles(), c.now()
    ),
    "enroll/offer.py:Offer.is_over": lambda w, c: Keyholder(w.scanner).offer().is_over(w.certificate, c.now()),
    "enroll/renewal/alarms.py:alarm": lambda w, c: alarm(w.generation, c.now()),
    "enroll/renewal/alarms.py:raise_alarm": lambda w, c: raise_alarm(
        w.generation, c.now(), w.scanner.identities, "No."
    ),
    "enroll/renewal/decision.py:Facts": lambda _, c: [
        decide(Facts(c.now(), ("s", "signing"), life, failures=3, failed_at=NOW, window=window, doubted=doubted))
        for life in (None, Life(NOW + DAY, NOW, NOW + 3 * DAY))
        for window in (None, MaintenanceWindow(time(22), time(5), UTC))
        for doubted in (False, True)
    ],
    "enroll/renewal/silence.py:Silences.note": lambda w, c: Silences(w.folder, StateFiles()).note(
        "https://ca", Purpose.ENROLLMENT, c.now(), DAY
    ),
    "enroll/renewal/window.py:MaintenanceWindow.opens": lambda _, c: MaintenanceWindow(time(22), time(5), UTC).opens(
        NOW, c.now(), 0.5
    ),
    "enroll/revocation/lists.py:is_current": lambda w, c: is_current(w.revocations, c.now()),
    "enroll/revocation/lists.py:revocation_of": lambda w, c: revocation_of(
        (w.certificate, w.ca.certificate), (w.revocations,), c.now()
    ),
    "enroll/revocation/record.py:RevocationRecord.after": lambda _, c: _record(NOW).after(
        Statement(c.now(), c.now()), "a list", c.now()
    ),
    "enroll/revocation/record.py:RevocationRecord.standing": lambda _, c: _record(NOW).standing(c.now(), DAY),
    "enroll/revocation/watch.py:list_statement": lambda w, c: list_statement(
        w.revocations.public_bytes(Encoding.DER), w.certificate, w.ca.certificate, c.now()
    ),
    "enroll/revocation/watch.py:watch_revocations": lambda w, c: watch_revocations(
        w.scanner.settings, c, w.scanner.identities
    ),
    "enroll/trust.py:check_issued": lambda w, c: _issued(w, c.now()),
    "enroll/trust.py:verify_chain": lambda w, c: verify_chain(w.certificate, (), (w.ca.certificate,), c.now()),
    "enroll/trust.py:verify_signer": lambda w, c: verify_signer(w.certificate, (), (w.ca.certificate,), c.now()),
    "enroll/vendor/ticket.py:ServiceTicket.check": lambda _, c: _ticket().check("s", "n", IdentityName.IDEVID, c.now()),
}

_ONLY_MONOTONIC = "measures how long something takes, by the clock that nobody can set"
_ONLY_HANDS_ON = "hands it on to what stands in the table: "
_ONLY_WRITES = "writes down when something happened"

NO_DECISIONS: dict[str, str] = {
    "agent/audit.py:AuditTrail.__init__": _ONLY_WRITES,
    "agent/cli/checking.py:findings": _ONLY_HANDS_ON + "agent.checks",
    "agent/cli/checking_ways.py:enrollment": _ONLY_HANDS_ON + "enrollment_checks.anchors",
    "agent/cli/deciding.py:Decision": _ONLY_WRITES,
    "agent/cli/deciding.py:believe": "tests/unit/test_clock_sense.py, which is all about it",
    "agent/cli/enrolling.py:attest_again": _ONLY_HANDS_ON + "verify_chain",
    "agent/cli/enrolling.py:enroll_by": _ONLY_WRITES,
    "agent/cli/fdo/voucher/reading.py:owner_record": "for the factory and for owners: where the certificates end",
    "agent/cli/fdo/voucher/reading.py:proved_by": "for the factory and for owners: verify_chain",
    "agent/cli/noting.py:note": _ONLY_WRITES,
    "agent/cli/renewing.py:Renewals": _ONLY_HANDS_ON + "decision.Facts",
    "agent/cli/signing_rate.py:measure": _ONLY_MONOTONIC,
    "agent/daemon/__init__.py:run": _ONLY_HANDS_ON + "all of the keyholder; tests/interop/test_start_dates.py",
    "agent/daemon/api.py:Api.__init__": "writes the time of a signature into the image, whatever the clock shows",
    "agent/daemon/clock_watch.py:ClockWatch.__init__": "tests/unit/test_clock_watch.py",
    "agent/daemon/compose.py:run_keyholder": "as agent/daemon/__init__.py:run",
    "agent/daemon/connection.py:Connection.__init__": _ONLY_MONOTONIC,
    "agent/daemon/demands.py:Demands.met_by": _ONLY_MONOTONIC,
    "agent/daemon/keyholder.py:Parts": _ONLY_MONOTONIC,
    "agent/daemon/renewal.py:Renewal.__init__": _ONLY_MONOTONIC,
    "agent/daemon/self_benchmark.py:measure": _ONLY_MONOTONIC,
    "agent/daemon/service.py:SigningService.__init__": "tests/unit/test_clock_watch.py",
    "agent/daemon/signer.py:Identities.__init__": "tests/unit/test_clock_watch.py",
    "agent/daemon/tally.py:SigningTally.__init__": _ONLY_MONOTONIC,
    "agent/daemon/worker.py:Worker.__init__": _ONLY_MONOTONIC,
    "agent/daemon/workers.py:Workers.__init__": _ONLY_MONOTONIC,
    "enroll/attestation/attest.py:Attestation": _ONLY_HANDS_ON + "verify_chain",
    "enroll/attestation/attest.py:Attestation.configured": _ONLY_HANDS_ON + "verify_chain",
    "enroll/attestation/client.py:AttestationClient.connect": _ONLY_MONOTONIC,
    "enroll/attestation/verify.py:verify_ak_certificate": _ONLY_HANDS_ON + "verify_chain",
    "enroll/attestation/verify.py:verify_evidence": _ONLY_HANDS_ON + "verify_chain",
    "enroll/attestation/verify.py:verify_identity_evidence": _ONLY_HANDS_ON + "verify_chain",
    "enroll/clock_record.py:Reading.of": "tests/unit/test_clock_sense.py",
    "enroll/clock_sense.py:ClockSense.__init__": "tests/unit/test_clock_sense.py",
    "enroll/clock_sense.py:ClockSense.configured": "tests/unit/test_clock_sense.py",
    "enroll/clock_sense.py:ClockSense.of": "tests/unit/test_clock_sense.py",
    "enroll/clock_sense.py:TimeSense": "tests/unit/test_clock_sense.py",
    "enroll/enroller.py:asked_for": _ONLY_WRITES,
    "enroll/est/client.py:EstClient": _ONLY_HANDS_ON + "read_ca_certificates, retry_after",
    "enroll/fdo/onboard.py:OwnerSearch": "tests/unit/test_fdo_onboard.py: no pause counts that no directive can name",
    "enroll/fdo/owner_policy.py:OwnerPolicy": _ONLY_HANDS_ON + "verify_chain, at the begin of what is not valid yet",
    "enroll/fdo/to2.py:Terms": _ONLY_MONOTONIC,
    "enroll/fdo/transport.py:HttpChannel.__init__": _ONLY_MONOTONIC,
    "enroll/flows/acme/client.py:AcmeClient.__init__": _ONLY_MONOTONIC,
    "enroll/flows/acme/order.py:Orders": _ONLY_HANDS_ON + "Progress.is_answered",
    "enroll/flows/acme/pauses.py:Pauses.__init__": _ONLY_MONOTONIC,
    "enroll/flows/acme/renewal_info.py:ask": "tests/unit/test_acme_renewal_info.py: no pause counts that is too long",
    "enroll/flows/base.py:FlowContext": _ONLY_HANDS_ON + "each flow, which hands it on to verify_chain and issue",
    "enroll/flows/cmp/protection.py:verify": _ONLY_HANDS_ON + "verify_chain",
    "enroll/flows/cmp/transaction.py:Channel": _ONLY_HANDS_ON + "cmp/protection.py:verify, and the time of a message",
    "enroll/flows/scep/authority.py:read_authority": _ONLY_HANDS_ON + "verify_chain",
    "enroll/flows/vendor.py:VendorFlow": _ONLY_HANDS_ON + "ServiceTicket.check",
    "enroll/http/__init__.py:HttpsSession.__init__": _ONLY_MONOTONIC,
    "enroll/http/__init__.py:get_unverified": _ONLY_MONOTONIC,
    "enroll/http/connections.py:Deadline.__init__": _ONLY_MONOTONIC,
    "enroll/identity.py:IdentityStore.commit": _ONLY_WRITES,
    "enroll/offline_request.py:check_proof": "of the machine of a CA: verify_chain, and the age of a request",
    "enroll/owner_file.py:OwnerFile.disable": _ONLY_WRITES,
    "enroll/owner_file.py:OwnerFile.enable": _ONLY_WRITES,
    "enroll/owner_file.py:OwnerFile.release": _ONLY_WRITES,
    "enroll/owner_file.py:OwnerFile.take_over": _ONLY_WRITES,
    "enroll/revocation/ocsp.py:statement": "compares as lists.is_current does; tests/unit/test_revocation.py",
    "enroll/revocation/record.py:RevocationRecord.without_answer": _ONLY_WRITES,
    "enroll/revocation/turns.py:Turns": "tests/unit/test_revocation_pauses.py",
    "enroll/time_stamp_authority.py:TimeStampAuthority.__init__": _ONLY_MONOTONIC,
}
ELSEWHERE = {  # folder: why nothing in it decides anything for a scanner
    "agent/dicom/": "verifies, on the machine of an archive, and compares times only",
    "agent/policy/": "the same",
    "enroll/evaluation/": "servers to try out, never for production",
}


def public_ones() -> Iterator[str]:
    for package in ("agent", "enroll"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(tuple(ELSEWHERE)):
                yield from (f"{name}:{found}" for found in _taking_a_time(ast.parse(path.read_bytes()).body, ""))


def _taking_a_time(body: list[ast.stmt], owner: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            fields = {ast.unparse(each.target) for each in node.body if isinstance(each, ast.AnnAssign)}
            if fields & {"now", "clock"}:
                yield node.name
            yield from _taking_a_time(node.body, f"{node.name}.")
        if isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__init__"):
            arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            if {each.arg for each in arguments} & {"now", "clock", "at", "sense"} or node.name == "covers":
                yield f"{owner}{node.name}"


def test_whatever_takes_a_time_is_in_one_of_the_tables() -> None:
    assert sorted(public_ones()) == sorted([*DECISIONS, *NO_DECISIONS])
    measured("R5", "what decides by a time, asked at start dates and after jumps", decisions=len(DECISIONS), times=26)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("decision", sorted(DECISIONS))
def test_a_decision_ends_in_an_answer_or_a_typed_error(world: World, decision: str) -> None:
    """At every time, by a clock that always stood there and by one that was set to it."""
    asked = 0
    for wall in WALLS.values():
        set_to = SteppedClock(NOW)
        _sense(set_to).sense()
        set_to.moment = wall
        for clock in (SteppedClock(wall), set_to):
            with contextlib.suppress(ScansealError):
                DECISIONS[decision](world, clock)
            asked += 1
    assert asked == 2 * len(WALLS)
