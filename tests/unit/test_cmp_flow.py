"""How CMP goes on from message to message, and what this side signs with: RFC 9483 3.1, 4.1, 4.4."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from cryptography import x509

from enroll.certificates import pem, serial_text
from enroll.errors import (
    ConfigurationError,
    EnrollmentRefused,
    KeyStoreUnavailable,
    PinRefused,
    ProtocolViolation,
    ScansealError,
    ServerUnreachable,
    StateError,
)
from enroll.flows.base import Enrollment, Handle, Issued, Pending, Refused
from enroll.flows.cmp import PATIENCE, CmpFlow, syntax
from enroll.flows.cmp.connection import signer_of_requests
from enroll.flows.cmp.syntax import Body
from enroll.flows.settings import CmpFirstRequest, CmpSettings
from enroll.identity import IdentityName
from enroll.revocation.lists import Revocation
from enroll.revocation.record import RevocationRecord, RevocationRecords, RevocationState
from enroll.time_stamp_syntax import decoded, whole
from tests.support.clocks import SteppedClock
from tests.support.cmp_answers import (
    CA,
    CERTIFICATE,
    KEY,
    SERVER,
    Request,
    Script,
    ScriptedSession,
    assemble,
    confirm,
    error,
    flow,
    issue,
    reply,
    response,
    status,
    waiting,
)
from tests.support.cmp_scanner import deliver
from tests.support.enrolling import CaFlow, Scanner, settings, with_memory_key
from tests.support.pki import NOW, REQUEST, HospitalCa

VENDOR = HospitalCa("Vendor CA")
DEVICE, SIGNING, FACTORY = IdentityName.DEVICE, IdentityName.SIGNING, IdentityName.IDEVID


def says(body: Body, content: bytes) -> Script:
    return lambda request: SERVER.message(request, body, content)


WAITING = says(Body.IP, reply(response(None, status=status(3))))
IMPLICIT = [syntax.undecoded(syntax.IMPLICIT_CONFIRM)]


def enrollment(handle: Handle | None = None) -> Enrollment:
    return Enrollment(KEY, REQUEST, handle=handle or Handle())


def bodies(session: ScriptedSession) -> list[Body]:
    return [request.body for request in session.requests]


def out_of_reach(_: Request) -> bytes:
    raise ServerUnreachable("No answer.")


# --- from message to message


def test_a_transaction_that_waits_is_in_the_journal_before_the_poll() -> None:
    """So that a crash or an outage from here on costs no second request."""
    kept: list[str] = []
    handle = Handle(write=kept.append)

    with pytest.raises(ServerUnreachable):
        flow(ScriptedSession(WAITING, out_of_reach)).enroll(enrollment(handle))

    after_restart = ScriptedSession(issue)
    answer = flow(after_restart).enroll(enrollment(Handle(kept[-1])))
    assert isinstance(answer, Issued)
    assert bodies(after_restart) == [Body.POLLREQ]
    assert after_restart.requests[0].transaction_id.hex() == json.loads(kept[-1])["transaction"]


def test_nothing_is_kept_for_a_request_that_got_no_answer() -> None:
    """The CA may know of it or not; what it issued without being confirmed is not used (RFC 9483 4.1.1)."""
    kept: list[str] = []

    with pytest.raises(ServerUnreachable):
        flow(ScriptedSession(out_of_reach)).enroll(enrollment(Handle(write=kept.append)))

    assert kept == []


@pytest.mark.parametrize("failure", ["badRequest", "transactionIdInUse", ""])
def test_an_error_message_to_the_first_poll_of_a_run_begins_anew_with_the_same_key(failure: str) -> None:
    """CAs that have forgotten a transaction say so in different ways (RFC 9483 3.6.4)."""
    bits = {"badRequest": b"\x20", "transactionIdInUse": b"\x00\x00\x04", "": None}[failure]
    session = ScriptedSession(says(Body.ERROR, error(status(2, failures=bits))), issue)
    handle = Handle(_kept_while_waiting())

    assert isinstance(flow(session).enroll(enrollment(handle)), Issued)
    assert bodies(session) == [Body.POLLREQ, Body.IR]


def test_a_refusal_of_the_request_that_a_poll_brings_is_final() -> None:
    refusal = says(Body.IP, reply(response(None, status=status(2, "no", failures=b"\x20"))))
    session = ScriptedSession(refusal)

    assert isinstance(flow(session).enroll(enrollment(Handle(_kept_while_waiting()))), Refused)
    assert bodies(session) == [Body.POLLREQ]


def test_a_transaction_that_gets_no_answer_to_believe_is_given_up_after_three_days() -> None:
    """A CA that forgot it may not sign its errors; anybody could have sent them, so they count only for so long."""
    clock, handle = SteppedClock(), Handle(_kept_while_waiting())
    for days in (0, 1, 1):
        clock.advance(timedelta(days=days))
        session = ScriptedSession(_unsigned_error)
        with pytest.raises(ProtocolViolation, match="without a signature"):
            flow(session, clock).enroll(enrollment(handle))
        assert bodies(session) == [Body.POLLREQ]

    clock.advance(timedelta(days=1, minutes=1))
    session = ScriptedSession(_unsigned_error, issue)
    assert isinstance(flow(session, clock).enroll(enrollment(handle)), Issued)
    assert bodies(session) == [Body.POLLREQ, Body.IR]


def test_an_answer_to_believe_starts_the_three_days_anew() -> None:
    clock, handle = SteppedClock(), Handle(_kept_while_waiting())
    for script in (_unsigned_error, WAITING, _unsigned_error):
        clock.advance(timedelta(days=2))
        session = ScriptedSession(script)
        if script is WAITING:
            assert isinstance(flow(session, clock).enroll(enrollment(handle)), Pending)
        else:
            with pytest.raises(ProtocolViolation):
                flow(session, clock).enroll(enrollment(handle))


@pytest.mark.parametrize("junk", ["junk", "{}", "[]", '{"transaction": 1}', '{"transaction": "zz"}'])
def test_a_handle_that_is_not_ours_begins_anew(junk: str) -> None:
    session = ScriptedSession(issue)

    assert isinstance(flow(session).enroll(enrollment(Handle(junk))), Issued)
    assert bodies(session) == [Body.IR]


def test_a_late_answer_may_repeat_the_nonce_of_the_request() -> None:
    """Who polls for another knows no other nonce (RFC 9483 4.4)."""
    session = ScriptedSession(WAITING, lambda request: _late(session, request))

    assert isinstance(flow(session).enroll(enrollment()), Issued)


def test_other_answers_may_not() -> None:
    handle = Handle()
    session = ScriptedSession(
        issue, lambda request: SERVER.message(request, Body.PKICONF, b"\x05\x00", recip_nonce=_first_nonce(session))
    )
    asking = flow(session)
    asking.enroll(enrollment(handle))

    with pytest.raises(ScansealError, match="another message"):
        asking.confirm(handle, CERTIFICATE)


def test_one_run_has_little_patience() -> None:
    clock = SteppedClock()
    session = ScriptedSession(WAITING, says(Body.POLLREP, waiting(12)))

    answer = flow(session, clock).enroll(enrollment())

    assert isinstance(answer, Pending)
    assert timedelta(seconds=clock.elapsed) <= PATIENCE
    assert bodies(session) == [Body.IR, Body.POLLREQ, Body.POLLREQ, Body.POLLREQ]


def test_an_error_message_may_say_waiting() -> None:
    """RFC 9483 4.4."""
    session = ScriptedSession(says(Body.ERROR, error(status(3))), says(Body.POLLREP, waiting(1, -1)), issue)

    assert isinstance(flow(session).enroll(enrollment()), Issued)


@pytest.mark.parametrize("failures", [b"\x00\x00\x00\x80", b"\x00\x00\x00\x40"], ids=["unavailable", "failure"])
def test_a_ca_in_trouble_has_not_refused(failures: bytes) -> None:
    with pytest.raises(ServerUnreachable):
        flow(ScriptedSession(says(Body.ERROR, error(status(2, failures=failures))))).enroll(enrollment())


def test_a_refusal_ends_a_transaction_that_waited() -> None:
    handle = Handle()
    refusal = says(Body.IP, reply(response(None, status=status(2, "no", failures=b"\x20"))))

    answer = flow(ScriptedSession(WAITING, refusal)).enroll(enrollment(handle))

    assert isinstance(answer, Refused)
    assert handle.text == ""


def test_an_error_is_read_whatever_the_status_of_http() -> None:
    """RFC 9811 3.2."""
    session = ScriptedSession(says(Body.ERROR, error(status(2, "no"))), status=500)

    assert isinstance(flow(session).enroll(enrollment()), Refused)


@pytest.mark.parametrize(
    ("asks", "grants", "confirms"), [(True, True, False), (True, False, True), (False, True, True)]
)
def test_implicit_confirmation_is_used_if_asked_for_and_granted(*, asks: bool, grants: bool, confirms: bool) -> None:
    """RFC 9483 4.1.1."""
    handle = Handle()
    session = ScriptedSession(
        lambda request: SERVER.message(request, Body.IP, reply(response()), general_info=IMPLICIT if grants else None),
        confirm,
    )
    asking = flow(session, implicit_confirmation=asks)
    asking.enroll(enrollment(handle))

    asking.confirm(handle, CERTIFICATE)

    assert bodies(session) == [Body.IR, *([Body.CERTCONF] if confirms else [])]


def test_a_confirmation_that_is_refused_is_an_error() -> None:
    handle = Handle()
    asking = flow(ScriptedSession(issue, says(Body.ERROR, error(status(2, failures=b"\x20")))))
    asking.enroll(enrollment(handle))

    with pytest.raises(EnrollmentRefused, match="badRequest"):
        asking.confirm(handle, CERTIFICATE)


def test_where_nothing_was_issued_nothing_is_confirmed() -> None:
    session = ScriptedSession(confirm)

    flow(session).confirm(Handle(), None)

    assert session.requests == []


def test_the_certificates_of_the_ca_come_with_the_answer() -> None:
    intermediate = HospitalCa("Issuing CA", CA)
    certificate = intermediate.issue(KEY.public_key())
    content = reply(response(certificate), ca_pubs=[syntax.der_of(intermediate.certificate)])

    answer = flow(ScriptedSession(says(Body.IP, content))).enroll(enrollment())

    assert isinstance(answer, Issued)
    assert {certificate, intermediate.certificate} <= set(answer.certificates)


# --- what this side signs with


@pytest.fixture
def scanner(tmp_path: Path) -> Scanner:
    anchor_file = tmp_path / "cmp-anchor.pem"
    anchor_file.write_bytes(pem([CA.certificate]))
    cmp = CmpSettings(url="http://cmp.example/", anchor_file=anchor_file)
    delivered = Scanner(replace(settings(tmp_path), cmp=cmp), (CA.certificate,))
    deliver(delivered, VENDOR)
    return delivered


def enroll_device(scanner: Scanner, ca: HospitalCa = CA) -> x509.Certificate:
    scanner.issue(CaFlow(ca, scanner.clock), DEVICE)
    current = scanner.identities.current(DEVICE)
    assert current is not None
    return current.certificate


def signs(scanner: Scanner) -> IdentityName:
    return signer_of_requests(scanner.context, [CA.certificate]).identity


def test_a_scanner_as_delivered_signs_with_its_factory_identity(scanner: Scanner) -> None:
    assert signs(scanner) is FACTORY


def test_one_with_a_device_identity_of_this_ca_signs_with_that(scanner: Scanner) -> None:
    enroll_device(scanner)

    assert signs(scanner) is DEVICE


def test_after_the_device_identity_is_over_the_factory_identity_signs(scanner: Scanner) -> None:
    enroll_device(scanner)
    cast("SteppedClock", scanner.clock).advance(timedelta(days=400))

    assert signs(scanner) is FACTORY


def test_a_device_identity_whose_key_is_lost_does_not_sign(scanner: Scanner) -> None:
    enroll_device(scanner)
    current = scanner.identities.current(DEVICE)
    assert current is not None
    scanner.stores.destroy(current.key_uri)

    assert signs(scanner) is FACTORY


def test_a_device_identity_that_is_known_to_be_revoked_does_not_sign(scanner: Scanner) -> None:
    enroll_device(scanner)
    device = scanner.identities.current(DEVICE)
    assert device is not None
    revoked = RevocationRecord(
        device.number, serial_text(device.certificate), NOW, RevocationState.REVOKED, Revocation(NOW, "superseded")
    )
    RevocationRecords(scanner.identities).write(device, revoked)

    assert signs(scanner) is FACTORY


def test_a_device_identity_of_another_ca_does_not_sign(scanner: Scanner) -> None:
    other = HospitalCa("Another CA")
    enroll_device(scanner, other)

    assert signs(scanner) is FACTORY


@pytest.mark.parametrize("kind", [KeyStoreUnavailable, PinRefused])
def test_a_token_that_is_away_for_now_is_no_reason_to_take_another_identity(
    scanner: Scanner, monkeypatch: pytest.MonkeyPatch, kind: type[ScansealError]
) -> None:
    enroll_device(scanner)

    def load(_: str) -> None:
        raise kind("Away.")

    monkeypatch.setattr(scanner.stores, "load", load)

    with pytest.raises(kind):
        signs(scanner)


def test_a_scanner_without_any_identity_is_told_where_to_get_one(scanner: Scanner) -> None:
    scanner.identities.wipe(FACTORY)

    with pytest.raises(StateError, match="scanseal enroll vendor"):
        signs(scanner)


# --- what is said before anything is sent


def planned(scanner: Scanner, identity: IdentityName, renews: x509.Certificate | None = None) -> str:
    with CmpFlow.connect(identity, scanner.context) as connected:
        first, confirmation = connected.plan(REQUEST, renews)
    assert "certConf" in confirmation.what
    return f"{first.what}; {first.proof}"


def test_the_plan_names_the_body_and_who_signs(scanner: Scanner) -> None:
    first = planned(scanner, DEVICE)
    assert first.startswith("POST: ir, certificate request for signing: ")
    assert "; a signature of the identity idevid" in first
    renewal = planned(scanner, DEVICE, enroll_device(scanner))
    assert renewal.startswith("POST: kur, certificate request for signing: ")
    assert "; a signature of the identity device" in renewal
    assert planned(scanner, SIGNING).startswith("POST: cr, ")
    in_memory = scanner.restarted(identity=with_memory_key(scanner.settings).identity)
    assert planned(in_memory, SIGNING).startswith("POST: p10cr, ")
    by_choice = scanner.restarted(cmp=replace(scanner.settings.cmp, first_request=CmpFirstRequest.P10CR))
    assert planned(by_choice, SIGNING).startswith("POST: p10cr, ")


@pytest.mark.parametrize("missing", ["url", "anchor_file"])
def test_what_is_not_configured_is_named(scanner: Scanner, missing: str) -> None:
    empty = replace(scanner.settings.cmp, **{missing: "" if missing == "url" else None})  # type: ignore[arg-type]

    with pytest.raises(ConfigurationError, match=rf"\[cmp\] {missing} is not set"):
        CmpFlow.connect(DEVICE, scanner.restarted(cmp=empty).context)


def test_the_server_of_an_https_address_may_have_a_ca_of_its_own(scanner: Scanner, tmp_path: Path) -> None:
    """That CA vouches for the connection, and for nothing that comes over it."""
    of_server = tmp_path / "server-anchor.pem"
    of_server.write_bytes(pem([VENDOR.certificate]))
    changed = replace(scanner.settings.cmp, server_anchor_file=of_server)

    with CmpFlow.connect(DEVICE, scanner.restarted(cmp=changed).context) as connected:
        assert connected.anchors == (CA.certificate,)


def _kept_while_waiting() -> str:
    """What the journal holds of a transaction that waits."""
    handle = Handle()
    flow(ScriptedSession(WAITING)).enroll(enrollment(handle))
    return handle.text


def _unsigned_error(request: Request) -> bytes:
    message = decoded(syntax.PkiMessage, SERVER.message(request, Body.ERROR, error(status(2, "what?"))))
    return assemble(whole(message.header), whole(message.body), None, None)


def _first_nonce(session: ScriptedSession) -> bytes:
    return session.requests[0].sender_nonce


def _late(session: ScriptedSession, request: Request) -> bytes:
    return SERVER.message(request, Body.IP, reply(response()), recip_nonce=_first_nonce(session))
