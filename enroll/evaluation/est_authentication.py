"""How the evaluation EST server tells who asks by HTTP (RFC 7030 3.2.3). NOT FOR PRODUCTION."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from http import HTTPStatus

from enroll.clock import Clock
from enroll.evaluation.https_server import REALM, Rejection

NONCE_LIFETIME = timedelta(minutes=5)
NONCES_LIMIT = 64  # at the same time; the oldest gives way

_PARAMETER = re.compile(r'([A-Za-z0-9*-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')
_ESCAPED = re.compile(r"\\(.)")
_NEEDED = frozenset({"username", "realm", "nonce", "uri", "response", "qop", "nc", "cnonce"})
_COUNT = re.compile(r"[0-9a-f]{8}")


class Authentication(StrEnum):
    """What simpleenroll wants to see; simplereenroll always wants the certificate that is renewed."""

    NONE = "none"
    BASIC = "basic"  # the password, or a device's certificate
    DIGEST = "digest"  # the same, only that the password does not travel
    CERTIFICATE = "certificate"
    CERTIFICATE_AND_BASIC = "certificate-and-basic"


class DigestAlgorithm(StrEnum):
    """The hash of Digest authentication (RFC 7616 6.1)."""

    SHA_256 = "SHA-256"
    MD5 = "MD5"

    def hash(self, *texts: str) -> str:
        """The hash of texts with colons between them, in hexadecimal."""
        name = self.replace("-", "").lower()
        return hashlib.new(name, ":".join(texts).encode("utf-8"), usedforsecurity=False).hexdigest()


class DigestAccess:
    """HTTP Digest access authentication with qop=auth (RFC 7616), for one user.

    Args:
        username: The user.
        password: The password.
        algorithms: What is offered, the preferred one first.
        clock: For the age of nonces.
    """

    def __init__(self, username: str, password: bytes, algorithms: Sequence[DigestAlgorithm], clock: Clock) -> None:
        self._username = username
        self._password = password.decode("utf-8")
        self._algorithms = algorithms
        self._clock = clock
        self._guard = threading.Lock()
        self._nonces: dict[str, tuple[datetime, int]] = {}  # until when it may be used, and how often it was

    def challenges(self, *, stale: bool = False) -> list[str]:
        """What a client needs to answer, once for each algorithm (RFC 7616 3.3).

        Args:
            stale: Whether only the nonce was wrong.
        """
        nonce, now = secrets.token_urlsafe(24), self._clock.now()
        with self._guard:
            fresh = [(name, known) for name, known in self._nonces.items() if known[0] > now]
            self._nonces = dict(fresh[1 - NONCES_LIMIT :])
            self._nonces[nonce] = now + NONCE_LIFETIME, 0
        return [
            f'Digest realm="{REALM}", qop="auth", algorithm={algorithm}, nonce="{nonce}"'
            + (", stale=true" if stale else "")
            for algorithm in self._algorithms
        ]

    def check(self, header: str, method: str, target: str) -> None:
        """Whether the user sent this request.

        Args:
            header: The value of Authorization; empty where there is none.
            method: Of the request.
            target: Its path, as it stands in the request line.

        Raises:
            Rejection: The proof is missing or wrong, or was used before.
        """
        scheme, _, rest = header.partition(" ")
        given = {m[1].lower(): _ESCAPED.sub(r"\1", m[2]) if m[3] is None else m[3] for m in _PARAMETER.finditer(rest)}
        if scheme.lower() != "digest" or not given.keys() >= _NEEDED or not self._is_right(given, method, target):
            raise Rejection(HTTPStatus.UNAUTHORIZED, "User name or password is wrong.", self.challenges())
        if not self._use(given["nonce"], int(given["nc"], 16)):
            raise Rejection(HTTPStatus.UNAUTHORIZED, "The nonce was used up.", self.challenges(stale=True))

    def _is_right(self, given: dict[str, str], method: str, target: str) -> bool:
        """RFC 7616 3.4.1."""
        algorithm = given.get("algorithm", DigestAlgorithm.MD5)
        if algorithm not in self._algorithms or given["qop"] != "auth" or not _COUNT.fullmatch(given["nc"]):
            return False
        if (given["username"], given["realm"], given["uri"]) != (self._username, REALM, target):
            return False
        hashed = DigestAlgorithm(algorithm).hash
        user, request = hashed(self._username, REALM, self._password), hashed(method, target)
        expected = hashed(user, given["nonce"], given["nc"], given["cnonce"], "auth", request)
        return hmac.compare_digest(expected.encode(), given["response"].encode("utf-8", "replace"))

    def _use(self, nonce: str, count: int) -> bool:
        """Whether a nonce is known and has not been counted as far before."""
        with self._guard:
            until, used = self._nonces.get(nonce, (self._clock.now(), 0))
            if until <= self._clock.now() or count <= used:
                return False
            self._nonces[nonce] = until, count
            return True
