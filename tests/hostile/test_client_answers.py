"""An agent that answers nonsense: the client says so, and never hangs, crashes or writes beyond what it was told."""

from __future__ import annotations

import io
import json
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.client import SigningClient, apply_splice
from agent.dicom.splice import Edit
from agent.errors import AgentAnswerInvalid, AgentError, AgentRefused, AgentUnreachable


@contextmanager
def agent_that_answers(*answers: bytes, closed: threading.Event | None = None) -> Iterator[Path]:
    """Takes one connection for each answer, reads a little, answers, closes, and says so."""
    with tempfile.TemporaryDirectory(prefix="scanseal-") as directory, socket.socket(socket.AF_UNIX) as listener:
        path = Path(directory) / "sign.sock"
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(answer)
                if closed is not None:
                    closed.set()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path


def http(body: bytes, status: int = 200, length: int | None = None, fields: str = "") -> bytes:
    head = f"HTTP/1.1 {status} Something\r\n{fields}Content-Length: {len(body) if length is None else length}\r\n\r\n"
    return head.encode("latin-1") + body


def splice(*edits: dict[str, object]) -> bytes:
    members = {
        "edits": edits,
        "signature_uid": "2.25.1",
        "sop_instance_uid": "2.25.2",
        "key_generation": 1,
        "warnings": [],
    }
    return http(json.dumps(members).encode("ascii"))


CALLS: list[Callable[[SigningClient], object]] = [
    lambda client: client.status(),
    lambda client: client.certificates(),
    lambda client: client.sign_digest(bytes(32), algorithm="sha256", role="acquisition"),
    lambda client: client.splice_instance(b"image", role="acquisition", profile="creator-rsa"),
    lambda client: client.sign_instance(b"image", io.BytesIO(), role="acquisition", profile="creator-rsa"),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "answer",
    [
        b"\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"X" * 100_000,
        http(b"", 503),
        http(b"not JSON", 503),
        http(b"[]", 503),
        http(b'{"detail": 1, "remedy": "", "code": ""}', 503),
        http(b"[" * 100_000, 503),
        http(b"{}", 503, length=100),
        http(b"{}" * 100, 503, length=5),
        http(b"", 503, length=10**17),
    ],
)
def test_what_is_not_the_protocol_is_named(answer: bytes, call: Callable[[SigningClient], object]) -> None:
    with (
        agent_that_answers(answer) as path,
        SigningClient(path, timeout=5) as client,
        pytest.raises(AgentAnswerInvalid) as invalid,
    ):
        call(client)
    assert invalid.value.remedy


@pytest.mark.parametrize(
    "answer",
    [
        http(b"{}"),
        http(b"[]"),
        splice({"offset": -1, "remove": 0, "insert": ""}),
        splice({"offset": True, "remove": 0, "insert": ""}),
        splice({"offset": 0, "remove": 0, "insert": "###"}),
        splice({"offset": 0, "remove": 0}),
        http(b'{"edits": 5, "signature_uid": "", "sop_instance_uid": "", "key_generation": 1, "warnings": []}'),
        http(b'{"edits": [5], "signature_uid": "", "sop_instance_uid": "", "key_generation": 1, "warnings": []}'),
        http(b'{"edits": [], "signature_uid": 5, "sop_instance_uid": "", "key_generation": 1, "warnings": []}'),
        http(b'{"edits": [], "signature_uid": "", "sop_instance_uid": "", "key_generation": 1, "warnings": 5}'),
        http(b'{"edits": [], "signature_uid": "", "sop_instance_uid": "", "key_generation": 1, "warnings": [5]}'),
    ],
)
def test_a_splice_that_is_none_is_named(answer: bytes) -> None:
    with agent_that_answers(answer) as path, SigningClient(path) as client, pytest.raises(AgentAnswerInvalid):
        client.splice_instance(b"image", role="acquisition", profile="creator-rsa")


def test_a_refusal_keeps_its_code() -> None:
    problem = {"detail": "No.", "remedy": "Ask.", "code": "role-not-allowed"}
    with (
        agent_that_answers(http(json.dumps(problem).encode("ascii"), 403)) as path,
        SigningClient(path) as client,
        pytest.raises(AgentRefused, match=r"No\. Ask\.") as refused,
    ):
        client.status()
    assert (refused.value.status, refused.value.code) == (403, "role-not-allowed")


def test_an_agent_that_closes_without_an_answer_is_unreachable() -> None:
    with agent_that_answers(b"") as path, SigningClient(path) as client, pytest.raises(AgentUnreachable):
        client.status()


def test_a_connection_that_was_idle_for_too_long_is_made_anew() -> None:
    closed = threading.Event()
    answers = http(b"{}"), http(b'{"state": "ready"}')
    with agent_that_answers(*answers, closed=closed) as path, SigningClient(path) as client:
        assert client.status() == {}
        assert closed.wait(10)
        assert client.status() == {"state": "ready"}


def test_an_agent_that_says_nothing_is_given_up() -> None:
    with tempfile.TemporaryDirectory(prefix="scanseal-") as directory, socket.socket(socket.AF_UNIX) as listener:
        path = Path(directory) / "sign.sock"
        listener.bind(str(path))
        listener.listen()
        with SigningClient(path, timeout=1) as client, pytest.raises(AgentUnreachable, match="1 second"):
            client.status()


def test_after_a_broken_answer_the_next_call_starts_afresh() -> None:
    with agent_that_answers(http(b"{}" * 100, length=5), http(b"{}")) as path, SigningClient(path) as client:
        with pytest.raises(AgentError):
            client.status()
        assert client.status() == {}


@pytest.mark.parametrize(
    "edits",
    [
        (Edit(6, 0, b"x"),),
        (Edit(3, 3, b"x"),),
        (Edit(3, 0, b"x"), Edit(2, 0, b"y")),
        (Edit(1, 3, b"x"), Edit(2, 0, b"y")),
        (Edit(0, -1, b"x"),),
        (Edit(-1, 1, b"x"),),
    ],
)
def test_edits_that_do_not_fit_the_instance_write_nothing(edits: tuple[Edit, ...]) -> None:
    target = io.BytesIO()

    with pytest.raises(AgentAnswerInvalid):
        apply_splice(b"image", edits, target)
    assert target.getvalue() == b""


def test_a_splice_is_applied_to_bytes_and_to_files_alike(tmp_path: Path) -> None:
    edits = (Edit(0, 0, b"<"), Edit(2, 1, b"A"), Edit(5, 0, b">"))
    (tmp_path / "image").write_bytes(b"image")
    from_bytes, from_file = io.BytesIO(), io.BytesIO()

    apply_splice(b"image", edits, from_bytes)
    with (tmp_path / "image").open("rb") as image:
        apply_splice(image, edits, from_file)

    assert from_bytes.getvalue() == from_file.getvalue() == b"<imAge>"
