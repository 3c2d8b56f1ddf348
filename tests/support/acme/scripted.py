"""An ACME server of a few lines, whose answers a test writes: for what real servers never say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from enroll.certificates import pem
from enroll.flows.acme.jws import from_base64url
from enroll.http import Answer
from tests.support.pki import NOW, HospitalCa, name, new_key

BASE = "https://ca.example"
DIRECTORY_URL = f"{BASE}/directory"
DIRECTORY = {name: f"{BASE}/{name}" for name in ("newNonce", "newAccount", "newOrder", "revokeCert", "keyChange")}
PROBLEM = "urn:ietf:params:acme:error:"
ORDER = f"{BASE}/order"
NAME = "ct-1.example"
TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
KEY_IDENTIFIER = bytes.fromhex("69885b6b87464041e1b37b847ba0ae2cde01c8d4")
SERIAL_NUMBER = 0x87654321
LIFETIME = timedelta(days=90)
LEAF = HospitalCa().issue(new_key().public_key())


@dataclass
class ScriptedServer:
    """Stands where the session with the server would be.

    Args:
        directory: What the directory holds.
        answers: Answers by path; each gets the payload of the request and the number of the request for that path.
        asked: Path and payload of every request.
    """

    directory: Mapping[str, Any] = field(default_factory=lambda: dict(DIRECTORY))
    answers: dict[str, Callable[[Any, int], Answer]] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    nonces: int = 0

    def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """As `HttpsSession.get`."""
        return self._answer(url, None)

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """As `HttpsSession.post`; what is signed is read and not verified."""
        payload = from_base64url(json.loads(body)["payload"])
        return self._answer(url, json.loads(payload) if payload else None)

    def close(self) -> None:
        """As `HttpsSession.close`."""

    def _answer(self, url: str, payload: Any) -> Answer:
        path = url.removeprefix(BASE)
        self.asked.append((path, payload))
        if path in self.answers:
            return self.answers[path](payload, [asked for asked, _ in self.asked].count(path))
        if path == "/newNonce":
            return answer(status=204, nonce="fresh")
        return answer(self.directory) if path == "/directory" else problem("malformed", 404, f"no {path}")


def answer(
    document: object = None, status: int = 200, nonce: str = "next", body: bytes | None = None, **headers: str
) -> Answer:
    """What the server says."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = b"" if document is None else json.dumps(document).encode("utf-8")
    return Answer(
        status, {"replay-nonce": nonce, "content-type": "application/json", **named}, content if body is None else body
    )


def problem(kind: str, status: int = 400, detail: str = "no", **headers: str) -> Answer:
    """A problem document (RFC 8555 6.7)."""
    return answer({"type": f"{PROBLEM}{kind}", "detail": detail}, status, "next", None, **headers)


def order(status: str, **members: Any) -> dict[str, Any]:
    return {
        "status": status,
        "identifiers": [{"type": "dns", "value": NAME}],
        "authorizations": [f"{BASE}/authorization"],
        "finalize": f"{BASE}/finalize",
        **members,
    }


def authorization(status: str, challenge: str = "pending", **members: Any) -> dict[str, Any]:
    one = {"type": "http-01", "status": challenge, "url": f"{BASE}/challenge", "token": TOKEN, **members}
    other = {"type": "made-up-01", "status": "pending", "url": f"{BASE}/other"}
    return {"status": status, "identifier": {"type": "dns", "value": NAME}, "challenges": [other, one]}


def chain_answer(body: bytes | None = None, content_type: str = "application/pem-certificate-chain") -> Answer:
    return answer(body=pem([LEAF]) if body is None else body, content_type=content_type)


def good() -> ScriptedServer:
    """Everything as it should be; tests replace a part."""
    valid = order("valid", certificate=f"{BASE}/certificate")
    return ScriptedServer(
        answers={
            "/newOrder": lambda *_: answer(order("pending"), 201, location=ORDER),
            "/order": lambda _, count: answer([order("pending"), order("ready")][count - 1]),
            "/authorization": lambda _, count: answer(authorization("pending" if count == 1 else "valid")),
            "/challenge": lambda *_: answer({}),
            "/finalize": lambda *_: answer(valid),
            "/certificate": lambda *_: chain_answer(),
        }
    )


@dataclass
class NotedProver:
    """Notes what it was asked to show."""

    presented: list[tuple[str, str, str]] = field(default_factory=list)
    cleaned_up: list[tuple[str, str, str]] = field(default_factory=list)

    def present(self, identifier: str, token: str, key_authorization: str) -> dict[str, str]:
        self.presented.append((identifier, token, key_authorization))
        return {"shown": "yes"}

    def clean_up(self, identifier: str, token: str, key_authorization: str) -> None:
        self.cleaned_up.append((identifier, token, key_authorization))


def certificate_named(key_identifier: bytes | None = KEY_IDENTIFIER) -> x509.Certificate:
    """With the names of the example in RFC 9773 4.1."""
    key = new_key()
    builder = (
        x509.CertificateBuilder(name(COMMON_NAME="CA"), name(COMMON_NAME="CT"), key.public_key(), SERIAL_NUMBER)
        .not_valid_before(NOW)
        .not_valid_after(NOW + LIFETIME)
    )
    if key_identifier is not None:
        identifier = x509.AuthorityKeyIdentifier(key_identifier, None, None)
        builder = builder.add_extension(identifier, critical=False)
    return builder.sign(key, hashes.SHA256())
