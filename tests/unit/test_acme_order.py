"""What an ACME server may answer to an order, and what is made of it (RFC 8555 7.4, 7.5 and 9.1)."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives import serialization

from enroll.certificates import pem
from enroll.errors import EnrollmentError, ProtocolViolation
from enroll.flows.acme.client import AcmeClient, Signer
from enroll.flows.acme.jws import key_authorization
from enroll.flows.acme.order import AUTHORIZATIONS_LIMIT, Identifier, OrderIsGone, Orders, Wanted
from enroll.flows.acme.problem import AcmeProblem
from enroll.flows.acme.progress import ANSWER_AGAIN_AFTER, Progress
from enroll.flows.base import Handle, Issued, Pending, Refused
from enroll.flows.settings import AcmeChallenge
from enroll.http import Answer, HttpsSession
from tests.support.acme.scripted import (
    BASE,
    DIRECTORY_URL,
    LEAF,
    NAME,
    ORDER,
    PROBLEM,
    TOKEN,
    NotedProver,
    ScriptedServer,
    answer,
    authorization,
    chain_answer,
    good,
    order,
    problem,
)
from tests.support.clocks import SteppedClock
from tests.support.pki import NOW, new_key

WANTED = Wanted(Identifier("dns", NAME), AcmeChallenge.HTTP)
SIGNER = Signer(new_key(), f"{BASE}/account")


def orders(server: ScriptedServer, clock: SteppedClock | None = None, patience: float = 60) -> Orders:
    clock = clock or SteppedClock()
    return Orders(AcmeClient(DIRECTORY_URL, cast("HttpsSession", server), clock), SIGNER, clock, patience)


def carried_out(
    server: ScriptedServer,
    prover: NotedProver | None = None,
    *,
    resumed: bool = False,
    patience: float = 60,
    handle: Handle | None = None,
) -> Issued | Pending | Refused:
    return orders(server, patience=patience).carry_out(
        handle or Handle(Progress(ORDER).text), WANTED, prover or NotedProver(), lambda: b"request", resumed=resumed
    )


def posts(server: ScriptedServer) -> list[str]:
    return [path for path, _ in server.asked if path not in {"/directory", "/newNonce"}]


# --- the way through


def test_an_order_goes_from_its_identifier_to_its_certificate() -> None:
    server, prover = good(), NotedProver()

    assert carried_out(server, prover) == Issued((LEAF,))

    shown = (NAME, TOKEN, key_authorization(TOKEN, SIGNER.key.public_key()))
    assert prover.presented == prover.cleaned_up == [shown]
    assert ("/challenge", {"shown": "yes"}) in server.asked
    assert ("/finalize", {"csr": "cmVxdWVzdA"}) in server.asked


@pytest.mark.parametrize(
    ("state", "steps"),
    [
        ("ready", ["/order", "/authorization", "/finalize", "/certificate"]),
        ("valid", ["/order", "/authorization", "/certificate"]),
    ],
)
def test_a_resumed_order_goes_on_from_its_state(state: str, steps: list[str]) -> None:
    server = good()
    server.answers["/order"] = lambda *_: answer(order(state, certificate=f"{BASE}/certificate"))

    assert carried_out(server, resumed=True) == Issued((LEAF,))

    assert posts(server) == steps


def test_a_challenge_that_is_being_looked_at_is_not_answered_again() -> None:
    """RFC 8555 7.1.6: its state is processing."""
    server = good()
    states = [authorization("pending", "processing"), authorization("valid")]
    server.answers["/authorization"] = lambda _, count: answer(states[count - 1])

    assert carried_out(server, resumed=True) == Issued((LEAF,))

    assert "/challenge" not in posts(server)


def test_an_answer_is_kept_and_given_once_in_an_hour() -> None:
    """RFC 8555 8.2: to respond again is to ask for another validation; a CA may leave the state pending meanwhile."""
    server, handle = good(), Handle(Progress(ORDER).text)
    server.answers["/order"] = lambda *_: answer(order("pending"))
    server.answers["/authorization"] = lambda *_: answer(authorization("pending"))

    for _ in range(3):
        carried_out(server, handle=handle, patience=5, resumed=True)

    assert posts(server).count("/challenge") == 1
    assert Progress.read(handle.text) == Progress(ORDER, "", NOW)


@pytest.mark.parametrize("age", [ANSWER_AGAIN_AFTER, -timedelta(seconds=1)], ids=["long ago", "in the future"])
def test_an_answer_that_led_to_nothing_is_given_again(age: timedelta) -> None:
    server, handle = good(), Handle(Progress(ORDER, "", NOW - age).text)

    assert carried_out(server, handle=handle, resumed=True) == Issued((LEAF,))

    assert "/challenge" in posts(server)
    assert Progress.read(handle.text).answered == NOW


def test_an_answer_that_the_ca_does_not_want_any_more_is_no_refusal() -> None:
    """It has come to its end between the look at the authorization and the answer."""
    server = good()
    server.answers["/challenge"] = lambda *_: problem("malformed")
    states = [authorization("pending"), authorization("valid", "valid")]
    server.answers["/authorization"] = lambda _, count: answer(states[min(count, 2) - 1])

    assert carried_out(server, resumed=True) == Issued((LEAF,))


@pytest.mark.parametrize("answered", [None, NOW])
@pytest.mark.parametrize("profile", ["", "device"])
def test_the_progress_of_an_order_is_read_as_it_was_written(profile: str, answered: datetime | None) -> None:
    assert Progress.read(Progress(ORDER, profile, answered).text) == Progress(ORDER, profile, answered)


@pytest.mark.parametrize("answered", ["", "yesterday", "2026-01-01T00:00:00", "1 2 3"])
def test_an_answer_given_at_no_known_time_is_as_good_as_none(answered: str) -> None:
    assert Progress.read(f"{ORDER} device {answered}") == Progress(ORDER, "device")


def test_the_order_says_what_it_wants() -> None:
    server = good()
    wanted = Wanted(Identifier("permanent-identifier", "CT-1"), AcmeChallenge.DEVICE_ATTEST, "device", "a.b")

    assert orders(server).new(wanted) == ORDER

    asked = {"identifiers": [{"type": "permanent-identifier", "value": "CT-1"}], "profile": "device", "replaces": "a.b"}
    assert server.asked[-1] == ("/newOrder", asked)


def test_where_the_ca_knows_nothing_of_what_is_replaced_the_order_says_nothing_of_it() -> None:
    """RFC 9773 5: alreadyReplaced."""
    server = good()
    placed = server.answers["/newOrder"]
    server.answers["/newOrder"] = lambda payload, count: (
        problem("alreadyReplaced", 409) if "replaces" in payload else placed(payload, count)
    )

    assert orders(server).new(Wanted(WANTED.identifier, WANTED.challenge, replaces="a.b")) == ORDER


# --- patience


def test_what_takes_longer_than_the_patience_waits_for_the_next_run() -> None:
    server, prover = good(), NotedProver()
    server.answers["/authorization"] = lambda *_: answer(authorization("pending"))

    waiting = carried_out(server, prover, patience=5)

    assert isinstance(waiting, Pending)
    assert "http-01" in waiting.reason
    assert prover.cleaned_up == []  # the CA may still look at it
    assert len(posts(server)) < 12


def test_a_server_is_not_asked_sooner_than_it_wants() -> None:
    """RFC 8555 7.5.1: Retry-After."""
    server = good()
    server.answers["/finalize"] = lambda *_: answer(order("processing"))
    server.answers["/order"] = lambda *_: answer(order("processing"), retry_after="3600")

    assert carried_out(server, resumed=True) == Pending(NOW + timedelta(hours=1), "the order is processing")

    assert posts(server).count("/order") == 2


# --- refusals


def test_a_failed_challenge_is_refused_with_its_reason() -> None:
    server = good()
    error = {"type": f"{PROBLEM}connection", "detail": "nobody there"}
    states = [authorization("pending"), authorization("invalid", "invalid", error=error)]
    server.answers["/authorization"] = lambda _, count: answer(states[count - 1])

    refused = carried_out(server)

    assert isinstance(refused, Refused)
    assert refused.reason == "connection: nobody there"
    assert refused.who_must_act == "hospital IT"


def test_a_failed_challenge_ends_an_authorization_that_goes_on_waiting() -> None:
    """step-ca leaves it pending."""
    server = good()
    error = {"type": f"{PROBLEM}badAttestationStatement", "detail": "not this device"}
    states = [authorization("pending"), authorization("pending", "invalid", error=error)]
    server.answers["/authorization"] = lambda _, count: answer(states[count - 1])

    refused = carried_out(server)

    assert isinstance(refused, Refused)
    assert refused.reason == "badAttestationStatement: not this device"


def test_what_the_ca_could_not_see_yet_is_the_reason_to_wait() -> None:
    server = good()
    error = {"type": f"{PROBLEM}connection", "detail": "nobody there"}
    server.answers["/authorization"] = lambda *_: answer(authorization("pending", "processing", error=error))

    waiting = carried_out(server, patience=5)

    assert isinstance(waiting, Pending)
    assert waiting.reason == "connection: nobody there"


def test_what_the_run_before_left_is_cleaned_up_once_the_ca_has_seen_it() -> None:
    server, prover = good(), NotedProver()
    server.answers["/authorization"] = lambda *_: answer(authorization("valid", "valid"))

    assert carried_out(server, prover, resumed=True) == Issued((LEAF,))

    assert prover.presented == []
    assert [token for _, token, _ in prover.cleaned_up] == [TOKEN]


@pytest.mark.parametrize("state", ["ready", "valid", "invalid"])
def test_that_is_so_as_well_where_the_order_went_on_meanwhile(state: str) -> None:
    server, prover = good(), NotedProver()
    server.answers["/order"] = lambda *_: answer(order(state, certificate=f"{BASE}/certificate"))
    server.answers["/authorization"] = lambda *_: answer(authorization("valid", "valid"))

    with contextlib.suppress(OrderIsGone):
        carried_out(server, prover, resumed=True)

    assert [token for _, token, _ in prover.cleaned_up] == [TOKEN]


def test_what_cannot_be_cleaned_up_keeps_no_certificate_back() -> None:
    server = good()
    server.answers["/order"] = lambda *_: answer(order("valid", certificate=f"{BASE}/certificate"))
    server.answers["/authorization"] = lambda *_: problem("malformed", 404)

    assert carried_out(server, resumed=True) == Issued((LEAF,))


@pytest.mark.parametrize("resumed", [False, True])
def test_what_a_refused_challenge_left_is_cleaned_up(resumed: bool) -> None:  # noqa: FBT001 - of the parameters
    server, prover = good(), NotedProver()
    server.answers["/authorization"] = lambda *_: answer(authorization("pending"))
    server.answers["/challenge"] = lambda *_: problem("malformed")

    with pytest.raises(AcmeProblem):
        carried_out(server, prover, resumed=resumed)

    assert prover.cleaned_up == prover.presented != []


def test_what_the_run_before_left_is_cleaned_up_where_the_ca_was_not_satisfied() -> None:
    server, prover = good(), NotedProver()
    server.answers["/authorization"] = lambda *_: answer(authorization("invalid", "invalid"))

    with pytest.raises(OrderIsGone):
        carried_out(server, prover, resumed=True)

    assert [token for _, token, _ in prover.cleaned_up] == [TOKEN]


def test_a_ca_that_cannot_answer_now_may_still_look() -> None:
    server, prover = good(), NotedProver()
    server.answers["/challenge"] = lambda *_: problem("rateLimited", 429)

    with pytest.raises(AcmeProblem):
        carried_out(server, prover)

    assert prover.cleaned_up == []


def test_an_order_that_becomes_invalid_is_refused_with_its_reason() -> None:
    server = good()
    error = {"type": f"{PROBLEM}badCSR", "detail": "too short a key"}
    server.answers["/finalize"] = lambda *_: answer(order("invalid", error=error))

    refused = carried_out(server)

    assert isinstance(refused, Refused)
    assert refused.reason == "badCSR: too short a key"


def test_a_ca_without_the_configured_challenge_is_told_apart() -> None:
    server = good()
    server.answers["/authorization"] = lambda *_: answer({**authorization("pending"), "challenges": []})

    refused = carried_out(server)

    assert isinstance(refused, Refused)
    assert "no http-01" in refused.reason
    assert "[acme] challenge" in refused.advice


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/order", answer(order("invalid"))),
        ("/order", problem("malformed", 404)),
        ("/order", problem("unauthorized", 403)),
        ("/order", answer(order("ready", identifiers=[{"type": "dns", "value": "other.example"}]))),
        ("/authorization", answer(authorization("expired"))),
    ],
)
def test_a_resumed_order_that_is_of_no_use_is_given_up(path: str, said: Answer) -> None:
    server = good()
    server.answers[path] = lambda *_: said

    with pytest.raises(OrderIsGone):
        carried_out(server, resumed=True)


# --- answers that break the protocol


def many() -> list[str]:
    return [f"{BASE}/authorization"] * (AUTHORIZATIONS_LIMIT + 1)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/order", {}),
        ("/order", order("done")),
        ("/order", {**order("pending"), "status": 5}),
        ("/order", order("pending", identifiers=[])),
        ("/order", order("pending", identifiers=[{"type": "dns", "value": "other.example"}])),
        ("/order", order("pending", identifiers=[{"type": "dns", "value": NAME}, {"type": "dns", "value": "b"}])),
        ("/order", order("pending", identifiers=["ct-1.example"])),
        ("/order", order("pending", authorizations=many())),
        ("/order", order("pending", authorizations="text")),
        ("/order", order("pending", authorizations=["https://evil.example/"])),
        ("/order", order("pending", authorizations=[5])),
        ("/order", order("ready", finalize="https://evil.example/")),
        ("/order", order("valid")),
        ("/order", order("valid", certificate="http://ca.example/certificate")),
        ("/authorization", {}),
        ("/authorization", {"status": "pending"}),
        ("/authorization", {**authorization("pending"), "identifier": {"type": "dns", "value": "other.example"}}),
        ("/authorization", {**authorization("pending"), "challenges": 5}),
        ("/authorization", authorization("pending", token="../../etc/passwd")),
        ("/authorization", authorization("pending", token="short")),
        ("/authorization", authorization("pending", token="x" * 21)),
        ("/authorization", authorization("pending", token=5)),
        ("/authorization", authorization("pending", token=f"{TOKEN}\n")),
        ("/authorization", authorization("pending", url="https://evil.example/")),
        ("/authorization", {**authorization("pending"), "status": []}),
    ],
)
def test_what_is_no_order_is_an_error_of_the_server_and_nothing_is_shown(path: str, said: dict[str, Any]) -> None:
    server, prover = good(), NotedProver()
    server.answers[path] = lambda *_: answer(said)

    with pytest.raises(EnrollmentError):
        carried_out(server, prover)

    assert prover.presented == []


PRIVATE_KEY = new_key().private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)


@pytest.mark.parametrize(
    "said",
    [
        chain_answer(content_type="application/pkix-cert"),
        chain_answer(content_type="text/html"),
        chain_answer(b""),
        chain_answer(b"no certificate"),
        chain_answer(pem([LEAF]) + PRIVATE_KEY),
        chain_answer(PRIVATE_KEY),
        chain_answer(b"a word before\n" + pem([LEAF])),
        chain_answer(pem([LEAF]) + b"a word after"),
        chain_answer(pem([LEAF] * 11)),
        chain_answer(pem([LEAF])[:-30]),
        chain_answer(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        chain_answer(b"-----BEGIN CERTIFICATE-----\n" + b"A" * 500_000 + b"\n-----END CERTIFICATE-----\n"),
    ],
)
def test_a_chain_holds_a_few_certificates_and_nothing_else(said: Answer) -> None:
    """RFC 8555 9.1: a server could slip in a private key that somebody takes for his own."""
    server = good()
    server.answers["/certificate"] = lambda *_: said

    with pytest.raises(ProtocolViolation):
        carried_out(server)
