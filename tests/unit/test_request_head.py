"""RFC 9112 to the letter, and nothing else."""

from __future__ import annotations

import pytest

from agent.daemon.head import parse_head
from agent.errors import RequestRefused


def head(*lines: str) -> bytes:
    return "\r\n".join(("GET /v1/status HTTP/1.1", *lines)).encode("latin-1")


def test_a_head_is_method_path_query_and_fields() -> None:
    parsed = parse_head(b"POST /v1/sign/instance?role=acquisition&profile=x HTTP/1.1\r\nHost: a\r\nACCEPT:\t*/* \r\nX:")

    assert (parsed.method, parsed.path, parsed.query) == ("POST", "/v1/sign/instance", "role=acquisition&profile=x")
    assert parsed.fields == {"host": "a", "accept": "*/*", "x": ""}


def test_the_values_of_a_repeated_field_are_joined() -> None:
    """RFC 9110 5.3."""
    assert parse_head(head("Accept: a/b", "accept: c/d")).fields["accept"] == "a/b, c/d"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET /v1/status",
        b"GET  /v1/status HTTP/1.1",
        b"GET /v1/ status HTTP/1.1",
        b"get /v1/status HTTP/1.1",
        b"GET http://scanseal/v1/status HTTP/1.1",
        b"GET * HTTP/1.1",
        b"GET /v1/status HTTP/1.1 ",
        b"GET /v1/status\x00 HTTP/1.1",
        b"GET /v1/stat\xfcs HTTP/1.1",
        head("Folded: a", " b"),
        head("Space : a"),
        head(" Leading: a"),
        head("No colon"),
        head(": no name"),
        head("Control: a\x00b"),
        head("Bare: a\nInjected: b"),
        head("Bare: a\rInjected: b"),
        head(""),
    ],
)
def test_anything_else_is_malformed(data: bytes) -> None:
    """RFC 9112 2.2, 3, 5.1, 5.2."""
    with pytest.raises(RequestRefused) as refused:
        parse_head(data)
    assert refused.value.code == "request-malformed"


@pytest.mark.parametrize("version", ["0.9", "1.0", "2.0"])
def test_other_versions_are_named(version: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        parse_head(f"GET / HTTP/{version}".encode("ascii"))
    assert refused.value.code == "version-unsupported"


def test_the_length_is_one_number_or_not_there() -> None:
    assert parse_head(head("Content-Length: 0")).content_length == 0
    assert parse_head(head("Content-Length: 123456789012")).content_length == 123456789012
    assert parse_head(head()).content_length is None


@pytest.mark.parametrize("value", ["", "-1", "+1", "1.0", "0x10", "1 2", "1, 1", "1_000", "\xb2", "9" * 19])
def test_a_length_that_is_no_number_is_malformed(value: str) -> None:
    """RFC 9110 8.6; RFC 9112 6.3: two lengths are the beginning of request smuggling."""
    with pytest.raises(RequestRefused) as refused:
        _ = parse_head(head(f"Content-Length: {value}")).content_length
    assert refused.value.code == "request-malformed"


def test_two_lengths_are_malformed_even_if_they_agree() -> None:
    with pytest.raises(RequestRefused):
        _ = parse_head(head("Content-Length: 5", "Content-Length: 5")).content_length


def test_chunks_are_answered_with_what_to_do_instead() -> None:
    with pytest.raises(RequestRefused, match="Content-Length") as refused:
        _ = parse_head(head("Transfer-Encoding: chunked", "Content-Length: 5")).content_length
    assert refused.value.code == "length-required"


def test_only_100_continue_can_be_expected() -> None:
    """RFC 9110 10.1.1."""
    assert parse_head(head("Expect: 100-Continue")).expects_continue
    assert not parse_head(head()).expects_continue
    with pytest.raises(RequestRefused) as refused:
        _ = parse_head(head("Expect: 200-ok")).expects_continue
    assert refused.value.code == "expectation-failed"


@pytest.mark.parametrize(("value", "closes"), [("close", True), ("keep-alive, Close", True), ("keep-alive", False)])
def test_the_caller_may_ask_for_the_connection_to_close(value: str, *, closes: bool) -> None:
    """RFC 9112 9.6."""
    assert parse_head(head(f"Connection: {value}")).closes is closes
