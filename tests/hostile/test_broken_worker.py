"""A worker that has been broken into: what it can do is bound to the callers it was given."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.audit import AuditTrail
from agent.daemon.channels import SigningChannels
from agent.daemon.peer import Caller
from agent.daemon.service import SigningService
from agent.daemon.signer import Identities
from agent.daemon.tally import SigningTally
from agent.daemon.wire import (
    REPLY_LIMIT,
    REQUEST_SIZE,
    HashName,
    Operation,
    Request,
    Role,
    Signature,
    decode_answer,
    decode_signature,
)
from agent.errors import SigningError
from enroll.clock import SystemClock
from enroll.identity import IdentityName
from tests.support.agent_process import Scanner, new_scanner, wait_until

WORKER = 4711
CALLER = Caller(pid=77, uid=1001, groups=(1001,))
SIGN = Request(Operation.SIGN, role=Role.ACQUISITION, hash_name=HashName.SHA256, digest=bytes(range(32)))


@dataclass
class Keyholder:
    """The keyholder's side, without its processes."""

    channels: SigningChannels
    scanner: Scanner
    callers: list[socket.socket] = field(default_factory=list)

    def channel(self, *roles: Role) -> socket.socket:
        """The worker's end of a new channel, for a caller of its own."""
        caller, connection = socket.socketpair()
        self.callers.append(caller)
        with connection:
            channel = self.channels.open(connection, CALLER, frozenset(roles), worker=WORKER)
        channel.settimeout(10)
        return channel


@pytest.fixture
def keyholder(tmp_path: Path) -> Iterator[Keyholder]:
    clock = SystemClock()
    with new_scanner(tmp_path) as scanner:
        scanner.enroll()
        scanner.enroll(IdentityName.DERIVATION)
        scanner.audit_file.parent.mkdir()
        audit = AuditTrail(scanner.audit_file, clock)
        identities = Identities(scanner.identities, scanner.keys, audit, clock)
        tally = SigningTally(audit, clock, clock.monotonic())
        channels = SigningChannels(SigningService(identities, audit, clock, tally, dict).reply, audit, threads=2)
        keyholder = Keyholder(channels, scanner)
        yield keyholder
        channels.close()
        for caller in keyholder.callers:
            caller.close()
        audit.close()


def ask(channel: socket.socket, frame: bytes) -> bytes:
    channel.send(frame)
    return channel.recv(1 << 16)


def signature(channel: socket.socket) -> Signature:
    return decode_signature(ask(channel, SIGN.encode()))


@pytest.mark.parametrize(
    "frame",
    [
        b"x",
        b"\0" * REQUEST_SIZE,
        SIGN.encode() + b"\0",
        SIGN.encode()[:-1],
        b"\xff" * 60_000,
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["one byte", "zeros", "too long", "too short", "far too long", "HTTP"],
)
def test_a_frame_that_is_none_closes_the_channel_and_is_audited(keyholder: Keyholder, frame: bytes) -> None:
    with keyholder.channel(Role.ACQUISITION) as bad, keyholder.channel(Role.ACQUISITION) as good:
        assert signature(bad).generation == 1
        assert ask(bad, frame) == b""

        assert signature(good).generation == 1
    (violation,) = keyholder.scanner.audit("channel-violation")
    assert (violation["uid"], violation["worker"]) == (1001, 4711)


def test_a_worker_cannot_use_a_role_its_caller_has_not(keyholder: Keyholder) -> None:
    with keyholder.channel(Role.DERIVATION) as channel:
        with pytest.raises(SigningError) as refused:
            signature(channel)
        assert refused.value.code == "role-not-allowed"
        with pytest.raises(SigningError):
            decode_answer(ask(channel, Request(Operation.AUTHORIZE, role=Role.SYNTHESIS).encode()))
        assert decode_answer(ask(channel, Request(Operation.AUTHORIZE, role=Role.DERIVATION).encode())) == b""
    assert keyholder.scanner.audit("signature") == []


def test_a_role_without_an_identity_gets_no_signature_by_another_key(keyholder: Keyholder) -> None:
    with keyholder.channel(Role.SYNTHESIS) as channel:
        for operation in (Operation.AUTHORIZE, Operation.SIGN):
            with pytest.raises(SigningError) as refused:
                decode_answer(
                    ask(channel, dataclasses.replace(SIGN, operation=operation, role=Role.SYNTHESIS).encode())
                )
            assert refused.value.code == "not-enrolled"
            assert "--identity synthesis" in refused.value.remedy
    assert keyholder.scanner.audit("signature") == []


def test_repeated_refusals_do_not_fill_the_audit_trail(keyholder: Keyholder) -> None:
    with keyholder.channel() as channel:
        for _ in range(200):
            assert ask(channel, SIGN.encode())[:1] == b"\1"

    assert len(keyholder.scanner.audit("role-refused")) <= 3


def test_a_worker_that_reads_no_replies_blocks_nobody(keyholder: Keyholder) -> None:
    with keyholder.channel(Role.ACQUISITION) as bad, keyholder.channel(Role.ACQUISITION) as good:
        bad.settimeout(0)
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while True:
                bad.send(Request(Operation.CERTIFICATES).encode())

        assert signature(good).generation == 1


def test_a_channel_that_the_worker_closes_is_forgotten(keyholder: Keyholder) -> None:
    with keyholder.channel(Role.ACQUISITION) as channel:
        assert len(keyholder.channels.open_channels()) == 1
        channel.send(SIGN.encode())

    wait_until(lambda: not keyholder.channels.open_channels(), 5)


def test_nobody_signs_in_the_name_of_a_caller_who_has_left(keyholder: Keyholder) -> None:
    with keyholder.channel(Role.ACQUISITION) as channel:
        assert signature(channel).value
        keyholder.callers[-1].close()
        assert ask(channel, SIGN.encode()) == b""
    assert len(keyholder.scanner.audit("signature")) == 1


def test_a_channel_is_of_no_use_once_its_worker_has_ended(keyholder: Keyholder) -> None:
    with keyholder.channel(Role.ACQUISITION) as channel:
        keyholder.channels.keep_only_of({WORKER})
        assert signature(channel).value
        keyholder.channels.keep_only_of({WORKER + 1})
        wait_until(lambda: not keyholder.channels.open_channels())
        with pytest.raises(BrokenPipeError):
            channel.send(SIGN.encode())


def test_the_largest_accepted_chain_passes_whole(keyholder: Keyholder) -> None:
    """Ten certificates of 16 KiB each (`enroll.trust`) are about 220 KiB of PEM."""
    chain = b"x" * (220 * 1024)
    with keyholder.channel(Role.ACQUISITION) as channel:
        (ours,) = keyholder.channels.open_channels()
        ours.end.send(chain)
        assert channel.recv(REPLY_LIMIT) == chain
