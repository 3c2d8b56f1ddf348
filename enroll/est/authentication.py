"""Who this side is, in the words of HTTP (RFC 7030 3.2.3). A client certificate is part of the TLS connection instead.

A password is given away only where a server asks for it, and the server has been verified before: `HttpsSession` knows
no other. Each exchange answers at most one challenge. Of several ways the server offers, the one is taken that tells
it least: Digest with SHA-256, Digest with MD5, Basic. MD5 is what RFC 7616 leaves for old servers; inside TLS it still
keeps the password from the server's logs, which Basic does not.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote, urlsplit

CHALLENGES_LIMIT = 4096  # characters

# RFC 9110 11.6.1 and 5.6: a scheme, then parameters, each a token or a quoted text without control characters.
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"[\s,]*({_WORD})(?=[\s,]|\Z)")
_PARAMETER = re.compile(rf'[\s,]*({_WORD})[ \t]*=[ \t]*(?:({_WORD})|"((?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*)")')
_HASHES = {"SHA-256": "sha256", "MD5": "md5"}  # in the order of preference


@dataclass(frozen=True)
class Password:
    """User name and password of the first enrollment.

    Args:
        username: Without a colon.
        secret: The password.
        advice: What to do where it is refused.
    """

    username: str
    secret: bytes = field(repr=False)
    advice: str = ""

    @property
    def at_once(self) -> str:
        """Nothing: the server asks first."""
        return ""

    def answer(self, challenges: str, method: str, url: str) -> str:
        """The Authorization header for a challenge of the server; empty where none can be answered.

        Args:
            challenges: The WWW-Authenticate header.
            method: Of the request that was refused.
            url: Of it.
        """
        offered = list(_challenges(challenges[:CHALLENGES_LIMIT]))
        for algorithm in _HASHES:
            for challenge in offered:
                if challenge.is_digest(algorithm):
                    return self._digest(challenge, algorithm, method, url)
        if any(challenge.scheme == "basic" for challenge in offered):
            pair = self.username.encode() + b":" + self.secret
            return f"Basic {base64.b64encode(pair).decode('ascii')}"
        return ""

    def _digest(self, challenge: _Challenge, algorithm: str, method: str, url: str) -> str:
        """RFC 7616 3.4.1, qop=auth."""
        realm, nonce = challenge.parameters.get("realm", ""), challenge.parameters["nonce"]
        cnonce = secrets.token_hex(16)
        parts = urlsplit(url)
        uri = f"{parts.path}?{parts.query}" if parts.query else parts.path

        def hashed(*texts: bytes) -> str:
            # MD5 is for servers that know nothing else; see above.
            return hashlib.new(_HASHES[algorithm], b":".join(texts), usedforsecurity=False).hexdigest()

        # What came in a header was read as Latin-1, so these are the bytes of the server.
        a1 = hashed(self.username.encode(), realm.encode("latin-1"), self.secret)
        a2 = hashed(method.encode(), uri.encode())
        texts = (a1, nonce, "00000001", cnonce, "auth", a2)
        values = {
            "realm": _quoted(realm),
            "nonce": _quoted(nonce),
            "uri": _quoted(uri),
            "response": _quoted(hashed(*(text.encode("latin-1") for text in texts))),
            "algorithm": algorithm,
            "cnonce": _quoted(cnonce),
            "qop": "auth",
            "nc": "00000001",
        }
        if "opaque" in challenge.parameters:
            values["opaque"] = _quoted(challenge.parameters["opaque"])
        return "Digest " + ", ".join([_username(self.username), *(f"{name}={text}" for name, text in values.items())])


@dataclass(frozen=True)
class BearerToken:
    """A token that somebody else issued for this request (RFC 6750).

    Args:
        token: As it was issued.
        advice: What to do where it is refused.
    """

    token: str = field(repr=False)
    advice: str = ""

    @property
    def at_once(self) -> str:
        """The Authorization header (RFC 6750 2.1): no challenge would tell more."""
        return f"Bearer {self.token}"

    def answer(self, challenges: str, method: str, url: str) -> str:  # noqa: ARG002 - as `Password`
        """Nothing: it has been refused."""
        return ""


Authorization = Password | BearerToken


class _Challenge(NamedTuple):
    """One way that a server offers; names in lower case."""

    scheme: str
    parameters: Mapping[str, str]

    def is_digest(self, algorithm: str) -> bool:
        """Whether it is Digest with a nonce, qop=auth and this hash, which is MD5 where none is named."""
        if self.scheme != "digest" or not self.parameters.get("nonce"):
            return False
        ways = [way.strip().lower() for way in self.parameters.get("qop", "").split(",")]
        return "auth" in ways and self.parameters.get("algorithm", "MD5").upper() == algorithm


def _challenges(header: str) -> Iterator[_Challenge]:
    """The challenges of a WWW-Authenticate header (RFC 9110 11.6.1), until one that cannot be read."""
    position = 0
    while found := _SCHEME.match(header, position):
        scheme, position, parameters = found[1].lower(), found.end(), dict[str, str]()
        while parameter := _PARAMETER.match(header, position):
            text = parameter[2] if parameter[2] is not None else re.sub(r"\\(.)", r"\1", parameter[3])
            parameters.setdefault(parameter[1].lower(), text)
            position = parameter.end()
        yield _Challenge(scheme, parameters)


def _username(name: str) -> str:
    """RFC 7616 3.4: what a quoted text cannot hold goes in another form."""
    return f"username={_quoted(name)}" if name.isascii() else f"username*=UTF-8''{quote(name, safe='')}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
