"""Whatever a CA does: no wrong certificate is accepted, and what is in use stays in use. See docs/hostile-ca.md.

Each run is a scanner with an identity, which renews it at the stub by the whole enroller, over real connections.
"""

from __future__ import annotations

import base64
import logging
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from cryptography import x509

from agent.cli import enrollment_state
from enroll.csr import CertificateRequest, Usage, build
from enroll.errors import CertificateRefused, ProtocolViolation, ScansealError
from enroll.est.client import EstClient
from enroll.failure import Failures
from enroll.flows.base import LONGEST_WAIT, Issued, Pending
from enroll.flows.offline.requests import Requests
from enroll.flows.settings import FlowName
from enroll.http import Answer, HttpsSession
from enroll.trust import check_issued
from tests.support.certificate_mutation import der_changed
from tests.support.clocks import SteppedClock
from tests.support.hostile_ca.catalogue import LAYERS, MISBEHAVIOURS
from tests.support.hostile_ca.certifying import certs_only, der_of
from tests.support.hostile_ca.misbehaviour import ALL, Expected, Misbehaviour
from tests.support.hostile_ca.scanner import DEVICE, Customer
from tests.support.hostile_ca.server import HostileCa
from tests.support.pki import DEVICE as MACHINE
from tests.support.pki import NOW, Content, HospitalCa, new_key
from tests.support.reliability.measured import measured
from tests.support.scripted_server import CERTS_ONLY

SECONDS = 4.0  # of one run; an exchange may take one second
MEMORY = 32 << 20  # bytes; the largest answer is one MiB, and some runs are offered a hundred
TEXT = 1200  # characters of what is said to a person
RUNS = [
    pytest.param(misbehaviour, flow, id=f"{misbehaviour.name}-{flow}")
    for misbehaviour in MISBEHAVIOURS
    for flow in misbehaviour.flows
]
OF_NO_REQUEST = {"offline-answer-malformed", "offline-answer-unknown", "offline-answer-answered"}
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Site:
    """The stub, and a scanner of each kind that has its identity from it."""

    stub: HostileCa
    customers: dict[FlowName, Customer]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("hostile-ca")
    with HostileCa(HospitalCa(), folder) as stub:
        customers = {}
        for flow in ALL:
            (folder / flow).mkdir()
            customers[flow] = Customer(folder / flow, flow, stub).enrolled()
        yield Site(stub, customers)


def ended(customer: Customer) -> ScansealError | Pending:
    """What a renewal ends with; nothing may be issued."""
    try:
        answer = customer.renew()
    except ScansealError as error:
        return error
    assert isinstance(answer, Pending), "a certificate was accepted"
    return answer


def memory(field: str) -> int:
    """Bytes."""
    line = next(line for line in STATUS.read_text("ascii").splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) << 10


def check_error(error: ScansealError, expected: Expected) -> None:
    assert (type(error), error.code, error.who_must_act) == (expected.error, expected.code, expected.who_must_act)
    for text in (error.what, error.remedy, error.what_next):
        assert text
        assert text.isprintable()
        assert len(text) < TEXT


def check_remembered(customer: Customer, outcome: ScansealError | Pending) -> None:
    """`scanseal status` shows it later; but a file that is no answer to any request says nothing of an identity."""
    context = customer.scanner.context
    kept = Failures(context.identities).last(DEVICE)
    shown = enrollment_state.record(DEVICE, context.identities.current(DEVICE), context)
    lines = "\n".join(enrollment_state.lines(shown))
    if isinstance(outcome, Pending) or outcome.code in OF_NO_REQUEST:
        assert kept is None
        assert "under way" in lines
        return
    assert kept is not None
    assert (kept.code, kept.who_must_act, kept.next) == (outcome.code, outcome.who_must_act, outcome.what_next)
    assert kept.flow == customer.flow
    assert shown["last_failure"]["code"] == outcome.code
    for told in (kept.what, outcome.who_must_act, outcome.what_next):
        assert told in lines


def check_keys(customer: Customer) -> None:
    """Every key belongs to the generation in use, to a request under way, or to the account."""
    scanner = customer.scanner
    identities = scanner.identities
    waiting = [request.pending for request in Requests(scanner.context).of(DEVICE)]
    known = {pending.key_uri for pending in (identities.journal(DEVICE).read(), *waiting) if pending}
    known |= {current.key_uri for name in type(DEVICE) if (current := identities.current(name))}
    assert {uri for uri in scanner.stores.list() if "acme-account" not in uri} <= known


@pytest.mark.parametrize(("misbehaviour", "flow"), RUNS)
def test_a_misbehaviour_brings_nothing_and_says_so(
    misbehaviour: Misbehaviour,
    flow: FlowName,
    site: Site,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    customer = site.customers[flow].copied(tmp_path / "scanner")
    before = customer.scanner.matching_pair(DEVICE)
    expected = misbehaviour.expected_of(flow)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    resident, begun = memory("VmRSS"), time.monotonic()

    with site.stub.behaving(misbehaviour.conduct), caplog.at_level(logging.WARNING):
        outcome = ended(customer)

    assert time.monotonic() - begun < SECONDS
    assert memory("VmHWM") - resident < MEMORY
    if isinstance(outcome, Pending):
        assert expected.error is Pending
        assert outcome.until <= customer.scanner.clock.now() + LONGEST_WAIT
        assert outcome.reason.isprintable()
    else:
        check_error(outcome, expected)
    assert customer.scanner.matching_pair(DEVICE) == before
    check_keys(customer)
    check_remembered(customer, outcome)
    assert all(record.getMessage().isprintable() for record in caplog.records)
    shutil.rmtree(customer.folder)


@pytest.mark.parametrize("flow", ALL)
def test_the_stub_without_a_misbehaviour_is_a_ca_like_any_other(flow: FlowName, site: Site, tmp_path: Path) -> None:
    """What the others are refused for is what they do, and nothing else."""
    customer = site.customers[flow].copied(tmp_path / "scanner")

    customer.renew()

    renewed = customer.scanner.matching_pair(DEVICE)
    assert renewed is not None
    assert renewed.number == 2


def test_every_misbehaviour_has_a_name_of_its_own_and_a_clause_and_there_are_many() -> None:
    names = [misbehaviour.name for misbehaviour in MISBEHAVIOURS]
    assert len(names) == len(set(names)) >= 60
    assert all(misbehaviour.clause.startswith(("RFC ", "X.690 ")) for misbehaviour in MISBEHAVIOURS)
    assert all(layer.misbehaviours for layer in LAYERS)
    measured("R11", "ways in which a CA misbehaves, each a test", ways=len(names), runs=len(RUNS))


# --- 10,000 damaged messages

CA = HospitalCa()
STRANGER = HospitalCa("Hospital CA")
KEY = new_key()
REQUEST = CertificateRequest.for_device(MACHINE, Usage.DEVICE)
RIGHT = Content.asked(REQUEST, NOW)
CSR = build(KEY, REQUEST)
WRONG = (
    CA.issue(new_key().public_key(), RIGHT),
    STRANGER.issue(KEY.public_key(), RIGHT),
    CA.issue(KEY.public_key(), RIGHT, ca=True),
    CA.issue(KEY.public_key(), RIGHT, alternative_names=()),
    CA.issue(KEY.public_key(), RIGHT, end=NOW - timedelta(minutes=1)),
    CA.issue(KEY.public_key(), RIGHT, extended_usage=()),
)


class Delivery:
    """Stands where the session would be, and brings a body."""

    body = b""

    def post(self, _url: str, _headers: object, _body: bytes) -> Answer:
        return Answer(200, {"content-type": CERTS_ONLY}, base64.encodebytes(self.body))


def damaged(message: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.6:
        return der_changed(message, chance)
    mutant = bytearray(message)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(mutant))
        mutant[place : place + chance.choice((0, 1, 1, 40))] = chance.randbytes(chance.choice((0, 1, 1, 40)))
    return bytes(mutant)


def accepted(certificate: x509.Certificate, count: int) -> tuple[list[x509.Certificate], int]:
    """What is accepted of damaged messages with a certificate, and how many could be read."""
    chance = random.Random(7030)  # noqa: S311 - the same in every run
    delivery = Delivery()
    client = EstClient("https://ca.example", cast("HttpsSession", delivery), SteppedClock())
    message = certs_only(der_of(certificate), der_of(CA.certificate))
    found, read = [], 0
    for _ in range(count):
        delivery.body = damaged(message, chance)
        try:
            issued = client.simple_enroll(CSR)
            assert isinstance(issued, Issued)
            read += 1
            verified = check_issued(
                issued.certificates, (), (CA.certificate,), public_key=KEY.public_key(), request=REQUEST, now=NOW
            )
        except (ProtocolViolation, CertificateRefused):
            continue
        found.append(verified.certificate)
    return found, read


def test_of_ten_thousand_damaged_messages_none_is_accepted() -> None:
    """RFC 7030 4.2.3: the certificate in them was wrong, and damage never makes it right."""
    begun, read, each = time.process_time(), 0, 10_000 // len(WRONG) + 1
    for wrong in WRONG:
        found, readable = accepted(wrong, each)
        assert found == []
        read += readable

    assert read > 500  # the damage is not always found by the first reader
    measured("R11", "damaged messages of a CA", messages=each * len(WRONG), readable=read, accepted=0)
    assert time.process_time() - begun < 20 * SECONDS


def test_of_a_damaged_message_only_the_certificate_that_was_issued_is_accepted() -> None:
    """What lies around it in a message is not signed, and decides nothing."""
    right = CA.issue(KEY.public_key(), RIGHT)

    found, _ = accepted(right, 2_000)

    assert set(found) == {right}
