"""HTTP Digest at the evaluation EST server (RFC 7616): each answer counts once, for a while, for one request."""

from __future__ import annotations

import hashlib
import re

import pytest

from enroll.evaluation.ca import USERNAME
from enroll.evaluation.est_authentication import (
    NONCE_LIFETIME,
    NONCES_LIMIT,
    DigestAccess,
    DigestAlgorithm,
)
from enroll.evaluation.https_server import Rejection
from tests.support.clocks import SteppedClock

TARGET = "/.well-known/est/simpleenroll"


class Digest:
    """A second reading of RFC 7616 3.4.1."""

    def __init__(self, challenge: str) -> None:
        self.challenge = challenge
        self.values = dict(re.findall(r'(\w+)="?([^",]*)"?', challenge.removeprefix("Digest ")))
        self.hash = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}[self.values["algorithm"]]

    def answer(self, password: bytes, **changes: str) -> str:
        given = {name: self.values[name] for name in ("realm", "nonce", "algorithm", "qop")}
        given |= {"username": USERNAME, "uri": TARGET, "nc": "00000001", "cnonce": "c-nonce"} | changes
        user = self.hash(f"{given['username']}:{given['realm']}:".encode() + password).hexdigest()
        request = self.hash(f"POST:{given['uri']}".encode()).hexdigest()
        text = ":".join((user, given["nonce"], given["nc"], given["cnonce"], given["qop"], request))
        given |= {"response": self.hash(text.encode()).hexdigest()} | {
            k: v for k, v in changes.items() if k == "response"
        }
        bare = ("algorithm", "qop", "nc")
        return "Digest " + ", ".join(f"{k}={v}" if k in bare else f'{k}="{v}"' for k, v in given.items())


def access(clock: SteppedClock, *algorithms: DigestAlgorithm) -> DigestAccess:
    return DigestAccess(USERNAME, b"secret", algorithms or (DigestAlgorithm.SHA_256,), clock)


def check(access: DigestAccess, header: str) -> None:
    access.check(header, "POST", TARGET)


@pytest.mark.parametrize("algorithm", list(DigestAlgorithm))
def test_digest_takes_each_count_of_a_nonce_once(algorithm: DigestAlgorithm) -> None:
    asked = access(SteppedClock(), algorithm)
    digest = Digest(asked.challenges()[0])

    for count in ("00000001", "00000002", "0000000a"):
        check(asked, digest.answer(b"secret", nc=count))
    for count in ("00000002", "0000000a"):
        with pytest.raises(Rejection, match="used up") as refused:
            check(asked, digest.answer(b"secret", nc=count))
        assert "stale=true" in refused.value.challenges[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"username": "other"},
        {"realm": "other"},
        {"uri": TARGET + "/x"},
        {"qop": "auth-int"},
        {"nc": "1"},
        {"nc": "0000000G"},
        {"algorithm": "MD5"},
        {"algorithm": "SHA-512-256"},
        {"response": "0" * 64},
        {"response": ""},
    ],
)
def test_a_wrong_answer_is_refused(changes: dict[str, str]) -> None:
    asked = access(SteppedClock())
    answer = Digest(asked.challenges()[0]).answer(b"secret", **changes)

    with pytest.raises(Rejection, match="wrong") as refused:
        check(asked, answer)

    assert "stale" not in refused.value.challenges[0]


@pytest.mark.parametrize("header", ["", "Digest", "Basic c2Nhbm5lcjpzZWNyZXQ=", "Digest a=b, \xff", 'Digest nonce="'])
def test_what_is_no_answer_is_refused(header: str) -> None:
    with pytest.raises(Rejection):
        check(access(SteppedClock()), header)


def test_a_wrong_password_is_refused() -> None:
    asked = access(SteppedClock())

    with pytest.raises(Rejection, match="wrong"):
        check(asked, Digest(asked.challenges()[0]).answer(b"guess"))


def test_a_nonce_lives_for_some_minutes() -> None:
    clock = SteppedClock()
    asked = access(clock)
    digest = Digest(asked.challenges()[0])
    clock.advance(NONCE_LIFETIME)

    with pytest.raises(Rejection, match="used up"):
        check(asked, digest.answer(b"secret"))


def test_the_number_of_nonces_is_bounded_and_the_newest_count() -> None:
    asked = access(SteppedClock())
    first, *others = (Digest(asked.challenges()[0]) for _ in range(NONCES_LIMIT + 1))

    check(asked, others[0].answer(b"secret"))
    check(asked, others[-1].answer(b"secret"))
    with pytest.raises(Rejection, match="used up"):
        check(asked, first.answer(b"secret"))


def test_a_client_takes_the_algorithm_that_it_knows() -> None:
    """RFC 7616 3.7: one challenge for each, the preferred one first; they have one nonce."""
    asked = access(SteppedClock(), DigestAlgorithm.SHA_256, DigestAlgorithm.MD5)
    challenges = [Digest(challenge) for challenge in asked.challenges()]

    assert [challenge.values["algorithm"] for challenge in challenges] == ["SHA-256", "MD5"]
    for count, challenge in enumerate(challenges, 1):
        check(asked, challenge.answer(b"secret", nc=f"{count:08x}"))
