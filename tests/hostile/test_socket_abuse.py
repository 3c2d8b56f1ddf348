"""Callers that mean harm or are broken: none of them hurts the next one."""

from __future__ import annotations

import array
import contextlib
import json
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.client import SigningClient
from agent.errors import AgentError
from tests.support.agent_process import (
    Agent,
    Scanner,
    needs_root_to_look_inside,
    running_agent,
    wait_until,
)
from tests.support.dicom_samples import ct_slice, deflate_bomb, nested_sequences, small_instance
from tests.support.raw_http import VERSION, Caller, request, sign_instance

LIMITS = {
    "connections": 12,
    "connections_per_user": 10,
    "head_seconds": 1,
    "body_seconds": 1,
    "idle_seconds": 3,
    "instance_bytes": 8 << 20,
}
STATUS = request("GET", "/v1/status")


@pytest.fixture(scope="module")
def shared_agent(scanner: Scanner) -> Iterator[Agent]:
    with running_agent(scanner, limits=LIMITS) as agent:
        yield agent


@pytest.fixture
def agent(shared_agent: Agent) -> Iterator[Agent]:
    """An agent that must be as well after the test as before: same processes, no connection left, and it signs."""
    processes = [shared_agent.process.pid, *shared_agent.workers()]
    yield shared_agent
    with SigningClient(shared_agent.socket) as client:
        wait_until(lambda: connections(client) == 1, 10)
        assert client.splice_instance(small_instance(), role="acquisition", profile="creator-rsa").edits
    assert [shared_agent.process.pid, *shared_agent.workers()] == processes


def connections(client: SigningClient) -> int:
    """How many connections there are; none can be counted while there are too many."""
    try:
        return int(client.status()["connections"])
    except AgentError:
        return 0


@pytest.fixture
def caller(agent: Agent) -> Iterator[Caller]:
    with agent.connect() as connection:
        yield Caller(connection)


def seconds_since(begun: float) -> float:
    return time.monotonic() - begun


def drip(connection: socket.socket, data: bytes, pause: float = 0.1) -> None:
    """Send a byte now and then until the agent has had enough."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(pause)


def test_a_head_that_drips_is_cut_off(caller: Caller) -> None:
    begun = time.monotonic()
    dripping = threading.Thread(target=drip, args=(caller.connection, STATUS[:-2] + b"X: y\r\n" * 100))
    dripping.start()

    assert caller.reply().problem == (408, "request-timeout")
    assert seconds_since(begun) < 4
    assert caller.is_closed()
    dripping.join()


def test_a_head_that_stops_is_cut_off(caller: Caller) -> None:
    assert caller.ask(STATUS[:20]).problem == (408, "request-timeout")


def test_a_body_that_drips_is_cut_off(caller: Caller) -> None:
    begun = time.monotonic()
    image = small_instance()
    caller.connection.sendall(sign_instance(b"", length=len(image)))
    dripping = threading.Thread(target=drip, args=(caller.connection, image[:60]))
    dripping.start()

    assert caller.reply().problem == (408, "request-timeout")
    assert seconds_since(begun) < 5
    dripping.join()


def test_an_idle_connection_is_closed(caller: Caller) -> None:
    begun = time.monotonic()

    assert caller.is_closed()
    assert 2 < seconds_since(begun) < 6


@pytest.mark.parametrize("size", [16 * 1024, 1 << 20])
def test_a_head_that_never_ends_is_cut_off(caller: Caller, size: int) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        caller.connection.sendall(b"GET /v1/status HTTP/1.1\r\n" + b"X: y\r\n" * (size // 6 + 1))

    assert caller.reply().problem == (431, "head-too-large")


@pytest.mark.parametrize("length", [(8 << 20) + 1, 4 << 30, 10**18 - 1])
def test_a_body_that_is_too_large_is_refused_before_it_is_sent(caller: Caller, length: int) -> None:
    begun = time.monotonic()

    assert caller.ask(sign_instance(b"", length=length)).problem == (413, "body-too-large")
    assert seconds_since(begun) < 1


def test_a_refusal_can_be_read_by_a_caller_that_is_still_sending(agent: Agent) -> None:
    """RFC 9112 9.6: closing with unread bytes would tear the answer out of the caller's hands."""
    with agent.connect() as connection:
        caller = Caller(connection)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(sign_instance(bytes(32 << 20)))

        assert caller.reply().problem == (413, "body-too-large")


def test_a_body_that_ends_early_is_named(caller: Caller) -> None:
    caller.connection.sendall(sign_instance(b"", length=100_000) + ct_slice()[:50_000])
    caller.connection.shutdown(socket.SHUT_WR)

    assert caller.reply().problem == (400, "body-truncated")


@pytest.mark.parametrize("sent", [0, 1, 60, 200, 5000, 100_000])
def test_a_caller_that_leaves_is_forgotten(agent: Agent, sent: int) -> None:
    for _ in range(5):
        with agent.connect() as connection:
            connection.sendall(sign_instance(ct_slice())[:sent])


def test_a_caller_that_leaves_during_the_answer_is_forgotten(agent: Agent) -> None:
    data = sign_instance(ct_slice())
    for _ in range(5):
        with agent.connect() as connection:
            connection.sendall(data)
            connection.recv(10)


def test_a_caller_that_does_not_read_is_given_up(agent: Agent) -> None:
    """The answer does not fit the socket's buffers."""
    image = ct_slice(1400, 1400)
    with agent.connect() as connection, SigningClient(agent.socket) as other:
        connection.sendall(sign_instance(image))
        wait_until(lambda: other.status()["connections"] == 1, 10)


def test_more_connections_than_a_user_may_have_are_refused(agent: Agent) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            assert Caller(stack.enter_context(agent.connect())).ask(STATUS).status == 200

        refused = Caller(stack.enter_context(agent.connect())).reply()
        assert refused.problem == (429, "too-many-connections")
        assert refused.fields["retry-after"] == "1"
    wait_until(lambda: answers(agent), 5)


def answers(agent: Agent) -> bool:
    """Whether there is room again; a refusal may come before the request is sent, and tear the connection down."""
    try:
        with agent.connect() as connection:
            return Caller(connection).ask(STATUS).status == 200
    except (BrokenPipeError, AssertionError, ConnectionResetError):
        return False


def test_five_hundred_connections_leave_the_agent_well(agent: Agent) -> None:
    statuses: list[int] = []
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            connection = stack.enter_context(agent.connect())
            with contextlib.suppress(BrokenPipeError, AssertionError, ConnectionResetError):
                statuses.append(Caller(connection).ask(STATUS).status)

    assert statuses.count(200) == 10
    assert set(statuses) == {200, 429}


def test_a_good_caller_is_served_while_others_are_bad(agent: Agent) -> None:
    latencies: list[float] = []
    with contextlib.ExitStack() as stack, SigningClient(agent.socket) as client:
        bad = [stack.enter_context(agent.connect()) for _ in range(8)]
        for number, connection in enumerate(bad):
            connection.sendall((STATUS[:10], sign_instance(b"", length=1000), b"\0" * 100, b"")[number % 4])
        for _ in range(50):
            begun = time.monotonic()
            client.splice_instance(small_instance(), role="acquisition", profile="creator-rsa")
            latencies.append(seconds_since(begun))

    assert sorted(latencies)[48] < 0.5


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"9" * 60_000,
        b'{"role":"acquisition","role":"acquisition"}',
        b"NaN",
        b'"' + b"\\ud800" * 1000 + b'"',
        b'{"role": "acquisition", "algorithm": "sha256", "digest": "' + b"\\u0000" * 5000 + b'"}',
        json.dumps({"role": {}, "algorithm": [[]], "digest": None}).encode("ascii"),
    ],
)
def test_json_that_is_a_trap_is_refused(caller: Caller, body: bytes) -> None:
    assert caller.ask(request("POST", "/v1/sign/digest", body)).problem == (400, "parameter-invalid")
    assert caller.ask(STATUS).status == 200


@pytest.mark.parametrize(
    "image",
    [nested_sequences(10_000, undefined_length=True), deflate_bomb(500), b"\0" * 128 + b"DICM" + b"\xff" * 1000],
    ids=["10,000 sequences", "deflate bomb", "noise"],
)
def test_an_image_that_is_a_trap_is_refused(caller: Caller, image: bytes) -> None:
    assert caller.ask(sign_instance(image)).status == 422


def test_noise_gets_a_problem_or_nothing(agent: Agent) -> None:
    noise = random.Random(2)  # noqa: S311 - the same noise each time
    for _ in range(200):
        size = noise.choice((1, 10, 100, 1000))
        data = noise.choice((b"", b"GET ", b"POST /v1/sign/digest HTTP/1.1\r\n", STATUS[:-2])) + noise.randbytes(size)
        with agent.connect() as connection:
            connection.sendall(data + b"\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            caller = Caller(connection)
            if not caller.is_closed():
                assert caller.reply().status in (400, 404, 405, 505)


def test_control_characters_do_not_reach_the_answer(caller: Caller) -> None:
    """Or an answer could be split (CWE-113)."""
    reply = caller.ask(request("GET", "/v1/status?a%0d%0aSet-Cookie:x=1"))

    assert reply.problem == (400, "parameter-invalid")
    assert "set-cookie" not in reply.fields


@needs_root_to_look_inside
def test_descriptors_that_are_passed_are_dropped(agent: Agent) -> None:
    """unix(7), SCM_RIGHTS: nobody asked for them."""
    before = [len(list(Path(f"/proc/{worker}/fd").iterdir())) for worker in agent.workers()]
    with agent.connect() as connection, open(os.devnull, "rb") as file:  # noqa: PTH123 - any descriptor will do
        descriptors = array.array("i", [file.fileno()] * 200)
        connection.sendmsg([STATUS], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        assert Caller(connection).reply().status == 200
        during = [len(list(Path(f"/proc/{worker}/fd").iterdir())) for worker in agent.workers()]

    assert sum(during) <= sum(before) + 2


def test_reset_is_not_an_error_of_the_agent(agent: Agent) -> None:
    """A caller may close with bytes unread, which resets the connection."""
    with agent.connect() as connection:
        connection.sendall(STATUS)
        time.sleep(0.1)
    assert "Traceback" not in agent.log.read_text("utf-8")


def test_a_version_header_from_a_browser_needs_a_preflight(caller: Caller) -> None:
    """A simple request of a web page (fetch standard) has no such header, and OPTIONS is not answered."""
    preflight = request("OPTIONS", "/v1/sign/digest", headers={**VERSION, "Origin": "http://evil.example"})

    assert caller.ask(preflight).problem == (405, "method-not-allowed")
