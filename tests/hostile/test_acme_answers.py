"""An ACME server that answers whatever it likes: an error of ours or a decision, in few requests; never a crash."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest

from enroll.errors import EnrollmentError
from enroll.flows.acme.client import AcmeClient, Signer
from enroll.flows.acme.order import Identifier, OrderIsGone, Orders, Wanted
from enroll.flows.acme.progress import Progress
from enroll.flows.acme.renewal_info import LONGEST_PAUSE, ask, certificate_id
from enroll.flows.base import LONGEST_WAIT, Handle, Issued, Pending, Refused
from enroll.flows.settings import AcmeChallenge
from enroll.http import Answer, HttpsSession
from tests.support.acme.scripted import (
    BASE,
    DIRECTORY,
    DIRECTORY_URL,
    NAME,
    NotedProver,
    ScriptedServer,
    certificate_named,
    good,
)
from tests.support.clocks import SteppedClock
from tests.support.pki import NOW, new_key

TRIALS = 10_000
CERTIFICATE = certificate_named()
REQUESTS = 400  # at most, in one run
SIGNER = Signer(new_key(), f"{BASE}/account")
WANTED = Wanted(Identifier("dns", NAME), AcmeChallenge.HTTP, replaces="a.b")
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    10**400,
    1.5,
    "",
    "pending",
    "valid",
    "invalid",
    "\x00",
    "é" * 500,
    [],
    {},
    [[]],
    {"a": {}},
]
STATUSES = [200, 201, 202, 204, 400, 401, 403, 404, 409, 429, 500, 503]
HEADERS = ["replay-nonce", "location", "retry-after", "content-type"]
TEXTS = ["", "x", "a b", "-1", "9" * 400, "Sun, 99 Nov 2026", "https://evil.example/", f"{BASE}/order", "\x00", "é"]


class Mutating(ScriptedServer):
    """Changes some of its answers."""

    def __init__(self, chance: random.Random, server: ScriptedServer) -> None:
        super().__init__(server.directory, server.answers)
        self.chance = chance

    def _answer(self, url: str, payload: Any) -> Answer:
        assert url.startswith(f"{BASE}/"), f"it was lured to {url}"
        assert len(self.asked) < REQUESTS
        said = super()._answer(url, payload)
        return said if self.chance.random() < 0.8 else self._changed(said)

    def _changed(self, said: Answer) -> Answer:
        change: Callable[[Answer], Answer] = self.chance.choice([self._value, self._bytes, self._status, self._header])
        return change(said)

    def _value(self, said: Answer) -> Answer:
        try:
            document = json.loads(said.body)
        except ValueError:
            return self._bytes(said)
        place = document
        while isinstance(place, dict | list) and place:
            key = self.chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], dict | list) or self.chance.random() < 0.5:
                place[key] = self.chance.choice(VALUES)
                break
            place = place[key]
        return replace(said, body=json.dumps(document).encode("utf-8"))

    def _bytes(self, said: Answer) -> Answer:
        body = bytearray(said.body or b"{}")
        for _ in range(self.chance.randint(1, 8)):
            body[self.chance.randrange(len(body))] = self.chance.randrange(256)
        return replace(said, body=bytes(body[: self.chance.choice([len(body), len(body) // 2])]))

    def _status(self, said: Answer) -> Answer:
        return replace(said, status=self.chance.choice(STATUSES))

    def _header(self, said: Answer) -> Answer:
        return replace(said, headers={**said.headers, self.chance.choice(HEADERS): self.chance.choice(TEXTS)})


def client(server: ScriptedServer, clock: SteppedClock) -> AcmeClient:
    return AcmeClient(DIRECTORY_URL, cast("HttpsSession", server), clock)


def chances(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - the same changes each time


def outcome(seed: int) -> Issued | Pending | Refused | None:
    clock = SteppedClock()
    chance = chances(seed)
    server = good()
    # The first looks at order and authorization find them under way, the later ones done.
    for path in ("/order", "/authorization"):
        answers = server.answers[path]
        server.answers[path] = lambda payload, count, answers=answers: answers(payload, min(count, 2))  # type: ignore[misc]
    orders = Orders(client(Mutating(chance, server), clock), SIGNER, clock, patience=60)
    try:
        url = orders.new(WANTED)
        handle, resumed = Handle(Progress(url).text), bool(chance.getrandbits(1))
        return orders.carry_out(handle, WANTED, NotedProver(), lambda: b"request", resumed=resumed)
    except (EnrollmentError, OrderIsGone):
        return None


@pytest.mark.parametrize("part", range(10))
def test_changed_answers_end_in_a_decision_or_an_error_of_ours(part: int) -> None:
    outcomes = [outcome(seed) for seed in range(part * TRIALS // 10, (part + 1) * TRIALS // 10)]

    for decided in outcomes:
        if isinstance(decided, Issued):
            assert decided.certificates  # `enroll.trust` judges them
        if isinstance(decided, Pending):
            assert NOW < decided.until <= NOW + LONGEST_WAIT + timedelta(minutes=5)
        if isinstance(decided, Refused):
            assert decided.reason.isprintable()
            assert decided.who_must_act
    assert any(isinstance(decided, Issued) for decided in outcomes)
    assert any(decided is None for decided in outcomes)


def test_changed_renewal_information_never_keeps_a_scanner_from_renewing() -> None:
    """RFC 9773: whatever it says, the CA is asked again within a day."""
    window = {"suggestedWindow": {"start": "2026-12-22T12:00:00Z", "end": "2026-12-24T12:00:00Z"}}
    path = f"/renewals/{certificate_id(CERTIFICATE)}"
    for seed in range(2000):
        clock = SteppedClock()
        directory = {**DIRECTORY, "renewalInfo": f"{BASE}/renewals"}
        server = Mutating(chances(seed), ScriptedServer(directory))
        server.answers = {path: lambda *_: Answer(200, {}, json.dumps(window).encode())}

        said = ask(client(server, clock), CERTIFICATE, None, clock, lambda: 0.5)

        assert NOW < said.ask_again_at <= NOW + LONGEST_PAUSE
