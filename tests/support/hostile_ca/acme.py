"""ACME: the addresses that it names, and its nonces."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from enroll.errors import (
    HOSPITAL_IT,
    ProtocolViolation,
    ServerUnreachable,
)
from enroll.flows.settings import FlowName
from tests.support.hostile_ca.misbehaviour import Change, Conduct, Expected, Layer, Misbehaviour, Said, Step, Turn
from tests.support.hostile_ca.right_acme import problem

VIOLATION = Expected(ProtocolViolation, "protocol-violation")
_UNREACHABLE = Expected(ServerUnreachable, "server-unreachable", HOSPITAL_IT)
EVIL = "https://evil.example/acme/1"


def case(
    title: str,
    clause: str,
    what: str,
    changes: dict[Step, Change],
    expected: Expected = VIOLATION,
) -> Misbehaviour:
    """One entry."""
    return Misbehaviour(title, clause, what, expected, Conduct(changes), (FlowName.ACME,))


def with_members(**members: Any) -> Change:
    """Other members of the JSON object."""

    def change(turn: Turn) -> Said:
        values = {**json.loads(turn.said.body), **members}
        return replace(turn.said, body=json.dumps({k: v for k, v in values.items() if v is not None}).encode())

    return change


def at_place(place: str) -> Change:
    """Another Location."""

    def change(turn: Turn) -> Said:
        others = tuple(header for header in turn.said.headers if not header.startswith("Location"))
        return replace(turn.said, headers=(*others, f"Location: {place}"))

    return change


def _nonce(value: str | None) -> Change:
    """Another nonce."""

    def change(turn: Turn) -> Said:
        others = tuple(header for header in turn.said.headers if not header.startswith("Replay-Nonce"))
        return replace(turn.said, headers=(*others, *([] if value is None else [f"Replay-Nonce: {value}"])))

    return change


def instead(body: bytes) -> Change:
    return lambda turn: replace(turn.said, body=body)


def refuses(kind: str, detail: str = "no", status: str = "400 Bad Request", *headers: str) -> Change:
    """A problem, with a nonce as it should be."""
    return lambda turn: replace(problem(kind, detail, status), headers=(*turn.said.headers, *headers))


def _same_nonce(*steps: Step) -> dict[Step, Change]:
    """A nonce that was used, from everywhere, and not accepted again."""
    return {**dict.fromkeys(Step, _nonce("used")), **dict.fromkeys(steps, _used)}


def _used(turn: Turn) -> Said:
    return replace(problem("badNonce"), headers=("Replay-Nonce: used",))


def _challenge(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    """Another challenge."""

    def changed(turn: Turn) -> Said:
        values = json.loads(turn.said.body)
        values["challenges"] = [change(one) for one in values["challenges"]]
        return replace(turn.said, body=json.dumps(values).encode())

    return changed


def other_challenge(**members: Any) -> dict[Step, Change]:
    return {Step.AUTHORIZATION: _challenge(lambda challenge: {**challenge, **members})}


def _twice(turn: Turn) -> Said:
    return replace(turn.said, body=turn.said.body[:-1] + b', "finalize": "' + EVIL.encode() + b'"}')


_ADDRESSES = (
    case(
        "directory-elsewhere",
        "RFC 8555 7.1.1",
        "The directory names addresses on another host.",
        {Step.DIRECTORY: with_members(newOrder=EVIL)},
    ),
    case(
        "directory-without-tls",
        "RFC 8555 6.1",
        "The directory names addresses without TLS.",
        {Step.DIRECTORY: with_members(newNonce="http://127.0.0.1:1/nonce")},
    ),
    case(
        "directory-incomplete",
        "RFC 8555 7.1.1",
        "The directory has no newAccount.",
        {Step.DIRECTORY: with_members(newAccount=None)},
    ),
    case("directory-garbage", "RFC 8555 7.1.1", "The directory is no JSON.", {Step.DIRECTORY: instead(b"garbage")}),
    case(
        "directory-of-a-megabyte",
        "RFC 8555 7.1.1",
        "The directory has a megabyte.",
        {Step.DIRECTORY: with_members(meta={"website": "x" * 1_000_000})},
    ),
    case(
        "directory-redirects",
        "RFC 9110 15.4",
        "The directory is said to be at another host.",
        {Step.DIRECTORY: lambda _: Said(status="302 Found", headers=(f"Location: {EVIL}",))},
    ),
    case(
        "account-elsewhere",
        "RFC 8555 7.3",
        "The account is on another host.",
        {Step.NEW_ORDER: refuses("accountDoesNotExist"), Step.ACCOUNT: at_place(EVIL)},
    ),
    case("order-elsewhere", "RFC 8555 7.4", "The order is on another host.", {Step.NEW_ORDER: at_place(EVIL)}),
    case("order-without-address", "RFC 8555 7.4", "The order has no address.", {Step.NEW_ORDER: at_place("")}),
    case(
        "order-with-user-and-password",
        "RFC 9110 4.2.4",
        "The address of the order poses as one of the CA by a user name.",
        {Step.NEW_ORDER: at_place("https://127.0.0.1@evil.example/")},
    ),
    case(
        "authorization-elsewhere",
        "RFC 8555 7.1.3",
        "The authorization is on another host.",
        {Step.ORDER: with_members(authorizations=[EVIL])},
    ),
    case(
        "authorization-with-line-break",
        "RFC 9110 5.5",
        "The address of the authorization holds a header of its own.",
        {Step.ORDER: with_members(authorizations=["https://127.0.0.1/\r\nX-Evil: yes"])},
    ),
    case("challenge-elsewhere", "RFC 8555 7.1.5", "The challenge is on another host.", other_challenge(url=EVIL)),
    case(
        "finalize-elsewhere",
        "RFC 8555 7.4",
        "The request is to be sent to another host.",
        {Step.ORDER: with_members(finalize=EVIL)},
    ),
    case("finalize-twice", "RFC 8259 4", "The order names two addresses for the request.", {Step.ORDER: _twice}),
    case(
        "certificate-elsewhere",
        "RFC 8555 7.4.2",
        "The certificate is on another host.",
        {Step.FINALIZE: with_members(certificate=EVIL)},
    ),
    case(
        "certificate-without-address",
        "RFC 8555 7.1.3",
        "It has issued and does not say where.",
        {Step.FINALIZE: with_members(certificate=None)},
    ),
)
_NONCES = (
    case(
        "nonce-replayed",
        "RFC 8555 6.5",
        "It hands out one nonce again and again, and takes it once.",
        _same_nonce(Step.NEW_ORDER),
        _UNREACHABLE,
    ),
    case("nonce-missing", "RFC 8555 7.2", "It gives no nonce to who asks for one.", dict.fromkeys(Step, _nonce(None))),
    case(
        "nonce-with-header",
        "RFC 9110 5.5",
        "The nonce holds a header of its own.",
        dict.fromkeys(Step, _nonce("n1\\r\\nX-Evil: yes")),
    ),
    case("nonce-of-20-kb", "RFC 8555 6.5.1", "The nonce has 20 KB.", dict.fromkeys(Step, _nonce("n" * 20_000))),
    case(
        "nonce-always-bad",
        "RFC 8555 6.5",
        "It refuses every nonce that it has given.",
        {Step.NEW_ORDER: refuses("badNonce")},
        _UNREACHABLE,
    ),
)
LAYER = Layer("ACME: addresses and nonces", (*_ADDRESSES, *_NONCES))
