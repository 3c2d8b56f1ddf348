"""ACME: orders, challenges, chains and problems."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from enroll.errors import (
    HOSPITAL_IT,
    EnrollmentRefused,
)
from enroll.flows.base import Pending
from tests.support.hostile_ca.acme import case, instead, other_challenge, refuses, with_members
from tests.support.hostile_ca.certifying import armoured
from tests.support.hostile_ca.misbehaviour import Change, Expected, Layer, Said, Step, Turn
from tests.support.hostile_ca.right_acme import CHAIN, IDENTIFIER, problem

_REFUSED = Expected(EnrollmentRefused, "enrollment-refused")
_WAITS = Expected(Pending)


def _changing_order(turn: Turn) -> Said:
    other = {"type": "dns", "value": "pacs.hospital.example"}
    return with_members(identifiers=[other])(turn) if turn.count > 1 else turn.said  # type: ignore[return-value]


def _always(state: str) -> dict[Step, Change]:
    """An order that never gets beyond a state, whatever is sent."""
    return {Step.ORDER: with_members(status=state), Step.FINALIZE: with_members(status=state)}


def _bad_csr_for_ever(turn: Turn) -> Said:
    return replace(problem("orderNotReady"), headers=turn.said.headers)


def _chain(body: Callable[[bytes], bytes], content_type: str = CHAIN) -> dict[Step, Change]:
    return {Step.ISSUING: lambda turn: replace(turn.said, body=body(turn.said.body), content_type=content_type)}


def _deep(levels: int) -> bytes:
    return b'{"type":' + b"[" * levels + b"]" * levels + b"}"


_CONTROL = "\x1b[2J\r\nenrolled\x00\u202e" * 20
_ORDERS = (
    case(
        "order-for-another",
        "RFC 8555 7.4",
        "The order is about another host.",
        {Step.ORDER: with_members(identifiers=[{"type": "dns", "value": "pacs.hospital.example"}])},
    ),
    case(
        "order-for-two",
        "RFC 8555 7.4",
        "The order names another host beside the one asked for.",
        {Step.ORDER: with_members(identifiers=[IDENTIFIER, {"type": "dns", "value": "x"}])},
    ),
    case("order-for-nobody", "RFC 8555 7.1.3", "The order names nobody.", {Step.ORDER: with_members(identifiers=[])}),
    case(
        "order-changes",
        "RFC 8555 7.1.3",
        "The order is about another host when it is looked at again.",
        {Step.ORDER: _changing_order},
    ),
    case(
        "order-in-no-state",
        "RFC 8555 7.1.6",
        "The order is in a state that does not exist.",
        {Step.ORDER: with_members(status="done\x1b[2J")},
    ),
    case(
        "order-with-a-thousand-proofs",
        "RFC 8555 7.1.3",
        "The order wants 1,000 proofs.",
        {Step.ORDER: with_members(authorizations=["https://127.0.0.1/a"] * 1000)},
    ),
    case(
        "order-stays-pending",
        "RFC 8555 7.1.6",
        "All is proved, and the order stays as it is.",
        _always("pending"),
        _WAITS,
    ),
    case(
        "order-ready-again", "RFC 8555 7.4", "After the request it wants the request again.", _always("ready"), _WAITS
    ),
    case(
        "order-never-issued",
        "RFC 8555 7.4",
        "It issues, and issues, and never has issued.",
        _always("processing"),
        _WAITS,
    ),
    case(
        "order-finalized-for-ever",
        "RFC 8555 7.4",
        "It is never ready for the request that it wants.",
        {Step.FINALIZE: _bad_csr_for_ever},
        _REFUSED,
    ),
    case(
        "wait-for-31-years-for-the-order",
        "RFC 8555 7.4",
        "It wants to be asked again in 31 years.",
        {
            **_always("processing"),
            Step.ORDER: lambda turn: replace(
                turn.said,
                headers=(*turn.said.headers, "Retry-After: 999999999"),
                body=turn.said.body.replace(b'"valid"', b'"processing"'),
            ),
        },
        _WAITS,
    ),
)
_CHALLENGES = (
    case(
        "authorization-for-another",
        "RFC 8555 7.5",
        "The authorization is about another host.",
        {Step.AUTHORIZATION: with_members(identifier={"type": "dns", "value": "pacs.hospital.example"})},
    ),
    case(
        "challenge-with-path",
        "RFC 8555 8.3",
        "The token of the challenge leads to another file of the web server.",
        other_challenge(token="../../../../etc/cron.d/evil"),
    ),
    case(
        "challenge-with-short-token",
        "RFC 8555 8",
        "The token of the challenge can be guessed.",
        other_challenge(token="abc"),
    ),
    case(
        "challenge-with-command",
        "RFC 8555 8",
        "The token of the challenge is a command of the shell.",
        other_challenge(token="$(touch /tmp/evil);aaaaaaaaaa"),
    ),
    case(
        "challenge-never-looked-at",
        "RFC 8555 7.5.1",
        "It never looks at the answer of the challenge.",
        {Step.AUTHORIZATION: lambda turn: replace(turn.said, body=turn.said.body.replace(b'"valid"', b'"pending"'))},
        _WAITS,
    ),
    case(
        "challenge-of-another-kind",
        "RFC 8555 7.1.4",
        "It offers a challenge that is not configured.",
        other_challenge(type="tls-alpn-01"),
        replace(_REFUSED, who_must_act=HOSPITAL_IT),
    ),
    case(
        "five-hundred-challenges",
        "RFC 8555 7.1.4",
        "It offers 500 challenges.",
        {
            Step.AUTHORIZATION: lambda turn: replace(
                turn.said,
                body=json.dumps(
                    {
                        **(values := json.loads(turn.said.body)),
                        "challenges": [{"type": "x"}] * 500 + values["challenges"],
                    }
                ).encode(),
            )
        },
    ),
)
_CHAINS = (
    case(
        "chain-with-private-key",
        "RFC 8555 9.1",
        "A private key stands in the chain.",
        _chain(lambda right: right + armoured("PRIVATE KEY", bytes(64))),
    ),
    case(
        "chain-with-text",
        "RFC 8555 9.1",
        "Text stands between the certificates.",
        _chain(lambda right: b"subject=CN=anybody\n" + right),
    ),
    case("chain-in-der", "RFC 8555 9.1", "The chain is not in PEM.", _chain(lambda _: bytes(range(256)))),
    case("chain-empty", "RFC 8555 9.1", "The chain has no certificate.", _chain(lambda _: b"\n")),
    case(
        "chain-broken",
        "RFC 7468 3",
        "The base64 in the chain breaks off.",
        _chain(lambda right: right.replace(b"=", b"").replace(b"A", b"=", 1)),
    ),
    case("chain-of-900-kb", "RFC 8555 7.4.2", "The chain has 900 KB.", _chain(lambda right: right + b"\n" * 900_000)),
    case(
        "chain-of-dashes",
        "RFC 7468 3",
        "The chain begins certificates and never ends them.",
        _chain(lambda _: b"-----BEGIN CERTIFICATE-----A" * 10 + b"A" * 200_000),
    ),
    case(
        "chain-of-another-type",
        "RFC 8555 9.1",
        "It names another media type.",
        _chain(lambda right: right, "text/html"),
    ),
)
_PROBLEMS = (
    case(
        "problem-with-control-characters",
        "RFC 9457 3.1.4",
        "The reason of its refusal clears the screen and adds a line.",
        {Step.NEW_ORDER: refuses("rejectedIdentifier", _CONTROL)},
        _REFUSED,
    ),
    case(
        "problem-of-a-megabyte",
        "RFC 9457 3",
        "The reason of its refusal has a megabyte.",
        {Step.NEW_ORDER: refuses("malformed", "x" * 1_000_000)},
        _REFUSED,
    ),
    case(
        "problem-nested-deeply",
        "RFC 8259 9",
        "The problem is nested 30,000 times.",
        {Step.NEW_ORDER: lambda turn: replace(turn.said, status="400 Bad Request", body=_deep(30_000))},
        _REFUSED,
    ),
    case("json-nested-deeply", "RFC 8259 9", "The order is nested 30,000 times.", {Step.ORDER: instead(_deep(30_000))}),
    case(
        "number-of-60,000-digits",
        "RFC 8259 6",
        "A number in the order has 60,000 digits.",
        {Step.ORDER: instead(b'{"status": ' + b"9" * 60_000 + b"}")},
    ),
    case(
        "json-in-utf-16",
        "RFC 8259 8.1",
        "The order is no UTF-8.",
        {Step.ORDER: instead(b'{"status": "\xff\xfe\xd8"}')},
    ),
    case("json-that-is-a-list", "RFC 8555 7.1.3", "The order is a list.", {Step.ORDER: instead(b"[1, 2, 3]")}),
    case(
        "forgets-the-account-for-ever",
        "RFC 8555 7.3",
        "It has forgotten the account, whenever it is used.",
        {Step.NEW_ORDER: refuses("accountDoesNotExist")},
        _REFUSED,
    ),
    case(
        "account-revoked",
        "RFC 8555 7.3.6",
        "It says that the account was given up.",
        {Step.NEW_ORDER: refuses("accountDoesNotExist"), Step.ACCOUNT: with_members(status="revoked\x1b[2J")},
        _REFUSED,
    ),
    case(
        "too-many-requests-for-ever",
        "RFC 8555 6.6",
        "It wants to be left alone for 31 years.",
        {Step.NEW_ORDER: refuses("rateLimited", "no", "429 Too Many Requests", "Retry-After: 999999999")},
        _WAITS,
    ),
)
LAYER = Layer("ACME: orders, challenges, chains and problems", (*_ORDERS, *_CHALLENGES, *_CHAINS, *_PROBLEMS))
