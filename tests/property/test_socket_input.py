"""Whatever arrives, only the errors of the contract come out."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from agent.audit import AuditTrail, verify
from agent.daemon.head import parse_head
from agent.daemon.wire import DIGEST_SIZES, REQUEST_SIZE, HashName, Operation, Request, Role, WireError
from agent.errors import RequestRefused
from enroll.clock import SystemClock

TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+.^_`|~-", min_size=1)
VALUE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)


@given(st.binary(max_size=500))
@example(b"GET / HTTP/1.1\r\nContent-Length: " + "²".encode("latin-1"))
def test_a_head_is_parsed_or_refused(data: bytes) -> None:
    with contextlib.suppress(RequestRefused):
        head = parse_head(data)
        _ = head.content_length, head.expects_continue, head.closes


@given(st.dictionaries(TOKEN, VALUE, max_size=10))
def test_every_field_of_a_head_is_found(fields: dict[str, str]) -> None:
    """RFC 9110 5.1: names are compared without case."""
    lines = [f"{name}: {value}" for name, value in fields.items()]
    parsed = parse_head("\r\n".join(["GET / HTTP/1.1", *lines]).encode("ascii"))

    assert set(parsed.fields) == {name.lower() for name in fields}
    for name, value in fields.items():
        assert value in parsed.fields[name.lower()]


@given(st.binary(max_size=2 * REQUEST_SIZE) | st.binary(min_size=REQUEST_SIZE, max_size=REQUEST_SIZE))
def test_a_frame_is_decoded_or_refused(frame: bytes) -> None:
    with contextlib.suppress(WireError):
        Request.decode(frame)


@given(st.sampled_from(Role), st.sampled_from(HashName), st.binary(min_size=64, max_size=64), st.text())
def test_every_request_to_sign_arrives(role: Role, hash_name: HashName, digest: bytes, reference: str) -> None:
    sent = Request(
        Operation.SIGN, role=role, hash_name=hash_name, digest=digest[: DIGEST_SIZES[hash_name]], reference=reference
    )
    received = Request.decode(sent.encode())

    assert (received.role, received.hash_name, received.digest) == (role, hash_name, sent.digest)
    assert set(received.reference) <= set("0123456789.")


@given(st.lists(st.dictionaries(st.text(max_size=20), st.text(max_size=100) | st.integers(), max_size=5), max_size=5))
def test_every_line_of_a_trail_can_be_verified(lines: list[dict[str, str | int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "audit.jsonl"
        trail = AuditTrail(path, SystemClock())
        for fields in lines:
            trail.record("event", fields)
        trail.close()

        assert verify(path).records == len(lines)
