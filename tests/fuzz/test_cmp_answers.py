"""Damaged answers of a CMP server end in an error of ours, never in one of a library or in another certificate."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from enroll.errors import CertificateRefused, EnrollmentError
from enroll.flows.base import Enrollment, Handle, Issued
from enroll.flows.cmp.syntax import Body
from enroll.trust import check_issued
from tests.support.cmp_answers import (
    CA,
    CERTIFICATE,
    KEY,
    SERVER,
    Request,
    Script,
    ScriptedSession,
    error,
    flow,
    issue,
    reply,
    response,
    status,
    waiting,
)
from tests.support.pki import NOW, REQUEST

CONTENTS = {
    Body.IP: reply(response()),
    Body.POLLREP: waiting(1),
    Body.ERROR: error(status(2, "no", failures=b"\x20"), "details"),
}


@st.composite
def damage(draw: st.DrawFn) -> list[tuple[float, int, bytes]]:
    """Where a few pieces are replaced, how much, and by what."""
    return [
        (draw(st.floats(0, 1)), draw(st.integers(0, 8)), draw(st.binary(max_size=8)))
        for _ in range(draw(st.integers(1, 4)))
    ]


def damaged(data: bytes, pieces: list[tuple[float, int, bytes]]) -> bytes:
    result = bytearray(data)
    for place, length, piece in pieces:
        start = int(place * len(result))
        result[start : start + length] = piece
    return bytes(result)


def ask(*scripts: Script) -> None:
    """One run; whatever comes of it, no certificate but the one that was issued is used."""
    with contextlib.suppress(EnrollmentError):
        answer = flow(ScriptedSession(*scripts)).enroll(Enrollment(KEY, REQUEST, handle=Handle()))
        if isinstance(answer, Issued):
            with contextlib.suppress(CertificateRefused):
                anchors = [CA.certificate]
                public_key = KEY.public_key()
                verified = check_issued(
                    answer.certificates, [], anchors, public_key=public_key, request=REQUEST, now=NOW
                )
                assert verified.certificate == CERTIFICATE


@given(damage())
def test_a_damaged_message(pieces: list[tuple[float, int, bytes]]) -> None:
    ask(lambda request: damaged(issue(request), pieces))


@given(st.binary(max_size=300))
def test_anything_else(data: bytes) -> None:
    ask(lambda _: data)


@given(st.sampled_from(sorted(CONTENTS)), damage())
def test_damaged_content_under_a_right_signature(body: Body, pieces: list[tuple[float, int, bytes]]) -> None:
    def script(request: Request) -> bytes:
        return SERVER.message(request, body, damaged(CONTENTS[body], pieces))

    def wait(request: Request) -> bytes:
        return SERVER.message(request, Body.IP, reply(response(None, status=status(3))))

    ask(script)
    ask(wait, script)
