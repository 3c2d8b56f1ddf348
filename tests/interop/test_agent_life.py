"""How the agent starts, goes on whatever happens, and ends; on real processes."""

from __future__ import annotations

import contextlib
import functools
import io
import operator
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.client import SigningClient
from agent.errors import AgentError, AgentRefused, AgentUnreachable
from enroll.algorithms import KeyAlgorithm
from enroll.identity import IdentityName
from tests.support.agent_process import (
    Scanner,
    needs_root_to_look_inside,
    new_scanner,
    running_agent,
    start,
    wait_until,
)
from tests.support.dicom_samples import ct_slice, small_instance
from tests.support.raw_http import Caller, request, sign_instance


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    with new_scanner(tmp_path) as scanner:
        yield scanner


@pytest.fixture
def enrolled(scanner: Scanner) -> Scanner:
    scanner.enroll()
    return scanner


def lives(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text("ascii")
    except FileNotFoundError:
        return False


def failed_start(scanner: Scanner, **tables: dict[str, object]) -> str:
    """What an agent that cannot start says."""
    log = scanner.directory / "failed.log"
    process = start(scanner.configure(**tables), log)
    assert process.wait(20) == 1
    return log.read_text("utf-8")


def sign(path: Path) -> int:
    """The generation that signs now."""
    with SigningClient(path) as client:
        return client.splice_instance(small_instance(), role="acquisition", profile="creator-rsa").key_generation


def test_without_an_identity_the_agent_answers_and_says_so(scanner: Scanner) -> None:
    with running_agent(scanner) as agent, SigningClient(agent.socket) as client:
        assert client.status()["state"] == "not-enrolled"
        with pytest.raises(AgentRefused) as refused:
            sign(agent.socket)
        assert (refused.value.status, refused.value.code) == (503, "not-enrolled")

        scanner.enroll()
        scanner.enroll(IdentityName.DEVICE, KeyAlgorithm.P_256)

        wait_until(lambda: client.status()["state"] == "ready", 5)
        assert sign(agent.socket) == 1
        assert b"BEGIN CERTIFICATE" in client.certificates("device")


def test_what_is_not_signed_is_counted(scanner: Scanner) -> None:
    """Acquisition goes on without signatures. A caller without the role has lost nothing."""
    with running_agent(scanner) as agent, SigningClient(agent.socket) as client:
        for _ in range(2):
            with pytest.raises(AgentRefused):
                client.splice_instance(small_instance(), role="acquisition", profile="creator-rsa")
            with pytest.raises(AgentRefused):
                client.sign_digest(bytes(32), algorithm="sha256", role="acquisition")
            with pytest.raises(AgentRefused, match="may not use the role"):
                client.sign_digest(bytes(32), algorithm="sha256", role="synthesis")
        before = client.status()
        scanner.enroll()
        wait_until(lambda: client.status()["state"] == "ready", 5)
        sign(agent.socket)
        after = client.status()

    assert before["unsigned"] == {"since_start": 4, "since_last_signature": 4}
    assert after["unsigned"] == {"since_start": 4, "since_last_signature": 0}
    assert before["first_signature_seconds"] is None
    assert after["first_signature_seconds"] > 0
    assert sum(line["count"] for line in scanner.audit("images-unsigned")) == 4
    assert {line["code"] for line in scanner.audit("images-unsigned")} == {"not-enrolled"}


def test_an_expired_certificate_signs_nothing(scanner: Scanner) -> None:
    scanner.authority.not_before, scanner.authority.not_after = (
        scanner.authority.not_before.replace(year=2020),
        scanner.authority.not_after.replace(year=2021),
    )
    scanner.enroll()
    with running_agent(scanner) as agent, SigningClient(agent.socket) as client:
        assert client.status()["state"] == "certificate-expired"
        with pytest.raises(AgentRefused) as refused:
            sign(agent.socket)
    assert (refused.value.status, refused.value.code) == (503, "certificate-expired")


def test_a_key_that_does_not_match_stops_the_start(scanner: Scanner) -> None:
    first, second = scanner.enroll(), scanner.enroll()
    scanner.commit(IdentityName.SIGNING, first.key_uri, second.key_uri)

    said = failed_start(scanner)

    assert said.splitlines()[-1].startswith("key-mismatch: ")
    assert "nroll again" in said
    assert not scanner.socket.exists()


def test_a_wrong_passphrase_stops_the_start_without_showing_it(enrolled: Scanner) -> None:
    enrolled.passphrase.write_text("wrong-passphrase-7314", "utf-8")

    said = failed_start(enrolled)

    assert "pin-refused: " in said
    assert "7314" not in said


def test_an_unknown_caller_in_the_configuration_stops_the_start(enrolled: Scanner) -> None:
    assert "no-such-user" in failed_start(enrolled, roles={"acquisition": ["user:no-such-user"]})


def test_renewal_while_images_are_signed_fails_no_request(enrolled: Scanner) -> None:
    """docs/architecture.md: a new generation is taken up between two requests."""
    image = ct_slice()
    generations: list[int] = []
    failures: list[AgentError] = []
    stop = threading.Event()

    def sign_on() -> None:
        with SigningClient(enrolled.socket) as client:
            while not stop.is_set():
                try:
                    splice = client.splice_instance(image, role="acquisition", profile="creator-rsa")
                    generations.append(splice.key_generation)
                except AgentError as error:
                    failures.append(error)

    with running_agent(enrolled):
        threads = [threading.Thread(target=sign_on) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: generations, 10)
            for _ in range(2):
                number = enrolled.enroll().number
                wait_until(functools.partial(operator.contains, generations, number), 10)
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    assert failures == []
    assert set(generations) == {1, 2, 3}
    assert [line["key_generation"] for line in enrolled.audit("identity-in-use")] == [2, 3]


def test_a_bad_new_generation_leaves_the_old_one_signing(enrolled: Scanner) -> None:
    with running_agent(enrolled) as agent, SigningClient(agent.socket) as client:
        current = enrolled.identities.current(IdentityName.SIGNING)
        assert current is not None
        other = enrolled.enroll(IdentityName.DEVICE)
        enrolled.commit(IdentityName.SIGNING, current.key_uri, other.key_uri)
        agent.process.send_signal(signal.SIGHUP)

        wait_until(lambda: client.status()["refused_generation"], 5)
        assert client.status()["refused_generation"]["code"] == "key-mismatch"
        assert sign(agent.socket) == 1


def test_a_killed_worker_is_replaced(enrolled: Scanner) -> None:
    with running_agent(enrolled) as agent:
        before = agent.workers()
        for worker in before:
            os.kill(worker, signal.SIGKILL)

        wait_until(lambda: len(set(agent.workers()) - set(before)) == 2, 5)

        assert sign(agent.socket) == 1
        assert not set(before) & set(agent.workers())


def test_the_death_of_a_worker_is_seen_by_its_callers_only(enrolled: Scanner) -> None:
    with running_agent(enrolled) as agent, contextlib.ExitStack() as stack:
        callers = [Caller(stack.enter_context(agent.connect())) for _ in range(6)]
        for caller in callers:
            assert caller.ask(request("GET", "/v1/status")).status == 200
        os.kill(agent.workers()[0], signal.SIGKILL)

        closed = 0
        for caller in callers:
            try:
                assert caller.ask(request("GET", "/v1/status")).status == 200
            except (AssertionError, BrokenPipeError):
                closed += 1
    assert closed == 3


def test_workers_end_with_the_keyholder(enrolled: Scanner) -> None:
    """Even if it is killed: their control channels close."""
    with running_agent(enrolled) as agent:
        workers = agent.workers()
        agent.process.kill()
        agent.process.wait()

        wait_until(lambda: not any(lives(worker) for worker in workers), 5)


def test_a_request_under_way_is_finished_before_the_end(enrolled: Scanner) -> None:
    image = ct_slice()
    data = sign_instance(image)
    with running_agent(enrolled) as agent, agent.connect() as connection:
        caller = Caller(connection)
        connection.sendall(data[:-1000])
        time.sleep(1.0)  # the worker has begun to read
        workers = agent.workers()
        agent.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not agent.socket.exists())
        connection.sendall(data[-1000:])
        reply = caller.reply()

        assert reply.status == 200
        assert caller.is_closed()
        assert agent.process.wait(10) == 0
        assert not any(lives(worker) for worker in workers)
    assert enrolled.audit("agent-stopped") == [{}]


def test_an_idle_connection_does_not_hold_up_the_end(enrolled: Scanner) -> None:
    with running_agent(enrolled) as agent, agent.connect() as connection:
        caller = Caller(connection)
        assert caller.ask(request("GET", "/v1/status")).status == 200
        begun = time.monotonic()

        assert agent.stop() == 0
        assert time.monotonic() - begun < 3
        assert caller.is_closed()


def test_two_agents_cannot_work_in_one_state_directory(enrolled: Scanner) -> None:
    with running_agent(enrolled) as agent:
        said = failed_start(enrolled, socket={"path": str(enrolled.socket.with_name("other.sock"))})

        assert said.startswith("already-running: ")
        assert sign(agent.socket) == 1


def test_after_a_crash_the_agent_starts_again(enrolled: Scanner) -> None:
    """The socket file is still there, the lock is not, the last audit line may be torn."""
    with running_agent(enrolled) as agent:
        sign(agent.socket)
        agent.process.kill()
        agent.process.wait()
    assert enrolled.socket.exists()
    with enrolled.audit_file.open("ab") as file:
        file.write(b'{"sequence":')

    with running_agent(enrolled) as agent:
        assert sign(agent.socket) == 1
    assert "torn-line" in enrolled.audit_file.read_text("ascii")


def test_an_inherited_socket_is_served(enrolled: Scanner) -> None:
    """sd_listen_fds(3): the socket is descriptor 3, and stays when the agent ends."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(enrolled.socket))
        listener.listen()
        with notifications(enrolled) as (name, messages):
            process = start_with_descriptor_3(enrolled, listener, name)
            try:
                assert messages.recv(100) == b"READY=1"
                assert sign(enrolled.socket) == 1
                process.send_signal(signal.SIGTERM)
                assert messages.recv(100) == b"STOPPING=1"
                assert process.wait(10) == 0
            finally:
                process.kill()
                process.wait()
        assert enrolled.socket.exists()


@contextlib.contextmanager
def notifications(scanner: Scanner) -> Iterator[tuple[str, socket.socket]]:
    """The notification socket of a service manager."""
    name = str(scanner.socket.with_name("notify.sock"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as messages:
        messages.bind(name)
        messages.settimeout(20)
        yield name, messages


def start_with_descriptor_3(scanner: Scanner, listener: socket.socket, notify: str) -> subprocess.Popen[bytes]:
    # LISTEN_PID is the number of the process itself, which only a program that becomes it can know.
    program = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); "
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', NOTIFY_SOCKET=sys.argv[2]); "
        "os.execv(sys.executable, [sys.executable, '-m', 'agent.cli.main', 'agent', '--config', sys.argv[3]])"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, str(listener.fileno()), notify, str(scanner.configure())],
        pass_fds=(listener.fileno(),),
        stdin=subprocess.DEVNULL,
    )


@needs_root_to_look_inside
def test_a_worker_gets_nothing_but_its_control_channel(enrolled: Scanner) -> None:
    with running_agent(enrolled, workers={"count": 1}) as agent:
        (worker,) = agent.workers()

        # Besides the standard streams: the control channel, and the event descriptor it made itself.
        wait_until(lambda: kinds_of_descriptors(worker) == ["anon_inode", "socket"])
        environment = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")

    assert {entry.partition(b"=")[0] for entry in environment if entry} == {b"PYTHONPATH", b"MALLOC_ARENA_MAX"}


def kinds_of_descriptors(pid: int) -> list[str]:
    """What the descriptors of a process lead to, without the standard streams."""
    found = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed in between
            found.append((int(descriptor.name), str(descriptor.readlink()).partition(":[")[0]))
    return sorted(kind for number, kind in found if number > 2)


@needs_root_to_look_inside
def test_a_worker_maps_no_code_that_handles_keys(enrolled: Scanner) -> None:
    with running_agent(enrolled) as agent:
        sign(agent.socket)
        maps = [Path(f"/proc/{worker}/maps").read_text("utf-8") for worker in agent.workers()]

    for text in maps:
        assert "cryptography" not in text
        assert "pkcs11" not in text
        assert "_ssl" not in text


def limits_of(pid: int) -> str:
    """The resource limits of a process."""
    return Path(f"/proc/{pid}/limits").read_text("ascii")


def test_processes_protect_themselves(enrolled: Scanner) -> None:
    """prctl(2), getrlimit(2)."""
    with running_agent(enrolled) as agent:
        processes = [agent.process.pid, *agent.workers()]
        address_space = f"Max address space         {1 << 30}           {1 << 30}"
        wait_until(lambda: all(address_space in limits_of(worker) for worker in agent.workers()))
        limits = [limits_of(pid) for pid in processes]
        status = [Path(f"/proc/{pid}/status").read_text("ascii") for pid in processes]
        owner = Path(f"/proc/{agent.process.pid}/mem").stat().st_uid

    for text in limits:
        assert "Max core file size        0                    0" in text
    for text in status:
        assert "NoNewPrivs:\t1" in text
    assert owner == 0  # not dumpable: /proc belongs to root


def test_nobody_answers_after_the_end(enrolled: Scanner) -> None:
    with running_agent(enrolled) as agent:
        assert agent.stop() == 0
        with pytest.raises(AgentUnreachable), SigningClient(agent.socket) as client:
            client.status()


def test_a_client_connects_again_when_the_agent_was_restarted(enrolled: Scanner) -> None:
    with SigningClient(enrolled.socket) as client:
        for _ in range(2):
            with running_agent(enrolled):
                client.sign_instance(small_instance(), io.BytesIO(), role="acquisition", profile="creator-rsa")
