"""What an ACME server may say to us, and what it may not (RFC 8555 6 and 7.1.1)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest

from enroll.errors import EnrollmentError, EnrollmentRefused, ProtocolViolation, ServerUnreachable
from enroll.flows.acme.client import DOCUMENT_LIMIT, NONCE_TRIES, AcmeClient, Signer, offered
from enroll.flows.acme.problem import AcmeProblem, read_problem
from enroll.flows.base import LONGEST_WAIT
from enroll.http import Answer, HttpsSession
from tests.support.acme.scripted import BASE, DIRECTORY, DIRECTORY_URL, PROBLEM, ScriptedServer, answer, problem
from tests.support.clocks import SteppedClock
from tests.support.pki import NOW, new_key

SIGNER = Signer(new_key(), f"{BASE}/account")
WORK = f"{BASE}/work"


def client(server: ScriptedServer, clock: SteppedClock | None = None) -> AcmeClient:
    return AcmeClient(DIRECTORY_URL, cast("HttpsSession", server), clock or SteppedClock())


def answering(work: Callable[[Any, int], Answer]) -> ScriptedServer:
    return ScriptedServer(answers={"/work": work})


# --- addresses


@pytest.mark.parametrize(
    "url",
    [
        "http://ca.example/work",
        "https://other.example/work",
        "https://ca.example:8443/work",
        "https://ca.example.evil.example/work",
        "https://ca.example@evil.example/work",
        "https://user:password@ca.example/work",
        "https://ca.example/work\r\nHost: evil.example",
        "https://ca.example/wo rk",
        "https://ca.example/work#part",
        "https://[::1/work",
        "https://ca.example:99999/work",
        "//ca.example/work",
        "/work",
        "",
        None,
        17,
        ["https://ca.example/work"],
        f"https://ca.example/{'x' * 3000}",
    ],
)
def test_an_address_is_on_the_host_of_the_directory(url: object) -> None:
    with pytest.raises(ProtocolViolation, match="not on the host of its directory"):
        client(ScriptedServer()).address(url, "the order")


@pytest.mark.parametrize("url", ["https://ca.example/work", "https://CA.example:443/work?a=b"])
def test_the_same_host_may_be_written_in_other_ways(url: str) -> None:
    assert client(ScriptedServer()).address(url, "the order") == url


@pytest.mark.parametrize("missing", ["newNonce", "newAccount", "newOrder"])
@pytest.mark.parametrize("instead", [{}, None, 5, "https://evil.example/"])
def test_a_directory_without_an_address_that_every_order_needs_is_none(missing: str, instead: object) -> None:
    """RFC 8555 7.1.1."""
    said = {name: url for name, url in DIRECTORY.items() if name != missing}

    with pytest.raises(ProtocolViolation):
        client(ScriptedServer(said if instead == {} else {**said, missing: instead})).directory()


@pytest.mark.parametrize("missing", ["revokeCert", "keyChange", "renewalInfo"])
@pytest.mark.parametrize("instead", [None, 5, "https://evil.example/"])
def test_a_ca_that_does_not_offer_the_rest_still_issues(missing: str, instead: object) -> None:
    """There are servers whose revokeCert is null."""
    found = client(ScriptedServer({**DIRECTORY, missing: instead})).directory()

    assert "" in (found.revoke_certificate, found.key_change, found.renewal_info)
    assert found.new_order == DIRECTORY["newOrder"]


def test_what_a_ca_does_not_offer_it_cannot_be_asked_for() -> None:
    with pytest.raises(EnrollmentRefused, match="no revocation") as raised:
        offered("", "revocation")

    assert raised.value.who_must_act == "CA operator"
    assert offered(f"{BASE}/revoke", "revocation") == f"{BASE}/revoke"


def test_what_is_not_known_in_a_directory_is_ignored() -> None:
    """RFC 8555 7.1.1: servers put random members there, so that clients learn to."""
    members = {**DIRECTORY, "aGVsbG8": "https://elsewhere.example/why", "meta": {"website": 5, "profiles": ["x"]}}

    assert client(ScriptedServer(members)).directory().profiles == ()


# --- nonces: RFC 8555 6.5


@pytest.mark.parametrize("nonce", ["a b", "a=", "a+b", "é", "x" * 300, ""])
def test_a_nonce_that_is_none_is_ignored_and_another_one_fetched(nonce: str) -> None:
    """6.5.1."""
    server = answering(lambda *_: answer({}, nonce=nonce))
    asking = client(server)
    asking.post(WORK, SIGNER, {})
    asking.post(WORK, SIGNER, {})

    assert [path for path, _ in server.asked].count("/newNonce") == 2


def test_a_refused_nonce_is_followed_by_another_one() -> None:
    server = answering(lambda _, count: problem("badNonce") if count < 5 else answer({"done": True}))

    assert client(server).post(WORK, SIGNER, {}).document() == {"done": True}
    assert [path for path, _ in server.asked].count("/work") == 5


def test_a_server_that_refuses_every_nonce_is_left_alone_after_a_while() -> None:
    server = answering(lambda *_: problem("badNonce"))

    with pytest.raises(ServerUnreachable, match="refuses its own nonces"):
        client(server).post(WORK, SIGNER, {})

    assert [path for path, _ in server.asked].count("/work") == NONCE_TRIES


def test_so_is_one_that_takes_its_time_for_it() -> None:
    clock = SteppedClock()

    def slow(*_: object) -> Answer:
        clock.advance(timedelta(seconds=30))
        return problem("badNonce")

    server = answering(slow)
    with pytest.raises(ServerUnreachable):
        client(server, clock).post(WORK, SIGNER, {})

    assert [path for path, _ in server.asked].count("/work") < 10


def test_a_server_without_nonces_is_none() -> None:
    server = ScriptedServer(answers={"/newNonce": lambda *_: answer(nonce="")})

    with pytest.raises(ProtocolViolation, match="no nonce"):
        client(server).post(WORK, SIGNER, {})


# --- what cannot be read


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe",
        b"[" * 30000,
        b'{"a":' * 10000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": "' + b"x" * DOCUMENT_LIMIT + b'"}',
    ],
)
def test_an_answer_that_is_no_json_object_is_an_error_of_the_server(body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        client(answering(lambda *_: answer(body=body))).post(WORK, SIGNER, {}).document()
    with pytest.raises(EnrollmentError):
        client(answering(lambda *_: answer(status=400, body=body))).post(WORK, SIGNER, {})


# --- problems: RFC 8555 6.7


def test_a_problem_says_who_must_act() -> None:
    with pytest.raises(AcmeProblem, match="rejectedIdentifier: not here") as raised:
        client(answering(lambda *_: problem("rejectedIdentifier", detail="not here"))).post(WORK, SIGNER, {})

    assert raised.value.who_must_act == "CA operator"
    assert raised.value.refused.advice


@pytest.mark.parametrize(
    "document", [None, [], {"type": 5, "detail": []}, {"subproblems": [1, {"detail": {}}]}, {"type": "about:blank"}]
)
def test_a_problem_that_says_nothing_is_one_all_the_same(document: object) -> None:
    found = read_problem(document, 403)

    assert found.reason
    assert found.who_must_act == "CA operator"


def test_where_a_person_has_to_act_it_is_said_where() -> None:
    """RFC 8555 7.3.3: `instance` is the page that tells what to agree to."""
    document = {"type": f"{PROBLEM}userActionRequired", "detail": "new terms", "instance": "https://ca.example/agree"}

    found = read_problem(document, 403)

    assert found.reason == "userActionRequired: new terms; https://ca.example/agree"
    assert found.who_must_act == "hospital IT"


def test_what_a_problem_says_is_one_short_line() -> None:
    """Foreign text."""
    found = read_problem({"type": "x" * 10000, "detail": "first\r\nsecond\x1b[31m" + "y" * 10000}, 400)

    assert len(found.reason) < 600
    assert found.reason.isprintable()


@pytest.mark.parametrize(("header", "wait"), [("120", 120), ("0", 60), ("999999999", 86400), ("soon", 900), ("", 900)])
def test_too_many_requests_are_tried_again_when_the_server_wants(header: str, wait: int) -> None:
    """6.6: Retry-After, within bounds."""
    server = answering(lambda *_: problem("rateLimited", 429, retry_after=header))

    with pytest.raises(AcmeProblem) as raised:
        client(server).post(WORK, SIGNER, {})

    assert raised.value.retry_at == NOW + timedelta(seconds=wait)


def test_a_date_is_a_time_to_wait_for_as_well() -> None:
    """RFC 9110 10.2.3."""
    server = answering(lambda *_: answer({}, retry_after="Sun, 22 Nov 2026 13:00:00 GMT"))

    assert client(server).post(WORK, SIGNER, {}).retry_after == timedelta(hours=1)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_that_cannot_answer_is_asked_again_later(status: int) -> None:
    with pytest.raises(ServerUnreachable):
        client(answering(lambda *_: problem("serverInternal", status))).post(WORK, SIGNER, {})


def test_no_answer_makes_us_wait_longer_than_a_day() -> None:
    assert client(ScriptedServer()).retry_at(timedelta(days=400)) == NOW + LONGEST_WAIT
