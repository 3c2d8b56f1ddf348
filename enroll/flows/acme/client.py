"""Speaking to an ACME server: its directory, nonces, signed requests, and what it answers (RFC 8555 6 and 7.1.1).

The server names the addresses of everything but its directory. Only those on the directory's own host and port are
used: a CA has no need to send a scanner anywhere else, and what has taken over a CA might.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self
from urllib.parse import urlsplit

from enroll.clock import Clock
from enroll.errors import CA_OPERATOR, ConfigurationError, EnrollmentRefused, ProtocolViolation, ServerUnreachable
from enroll.flows.acme.jws import public_jwk, signed
from enroll.flows.acme.problem import BAD_NONCE, RATE_LIMITED, read_problem
from enroll.flows.base import LONGEST_WAIT, FlowContext
from enroll.foreign import printable
from enroll.http import Answer, HttpsSession
from enroll.http.retry_after import retry_after
from enroll.keystore.base import PrivateKey
from enroll.tls import client_context
from enroll.trust import read_anchors

NONCE_TRIES = 50
NONCE_SECONDS = 120.0  # for all tries of one request together
DOCUMENT_LIMIT = 64 * 1024  # bytes

_NONCE = re.compile(r"[A-Za-z0-9_-]{1,256}")  # RFC 8555 6.5.1: base64url, and anything else is ignored
_ADDRESS = re.compile(r"[!-~]{1,2048}")
_SHORTEST_WAIT = timedelta(minutes=1)
_DEFAULT_WAIT = timedelta(minutes=15)
_TOO_MANY_REQUESTS, _SERVER_ERRORS, _ERRORS = 429, 500, 400


@dataclass(frozen=True)
class Directory:
    """What the CA offers, and where (RFC 8555 7.1.1). Empty is what it does not offer, though some of it it should."""

    new_nonce: str
    new_account: str
    new_order: str
    revoke_certificate: str = ""
    key_change: str = ""
    renewal_info: str = ""
    terms_of_service: str = ""
    external_account_required: bool = False
    profiles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Signer:
    """Who signs a request (RFC 8555 6.2).

    Args:
        key: Of the account, or of the certificate that is to be revoked.
        account_url: Names the account; empty where the key itself has to be shown.
    """

    key: PrivateKey = field(repr=False)
    account_url: str = ""

    def protected(self) -> dict[str, Any]:
        """What the protected header says of it."""
        return {"kid": self.account_url} if self.account_url else {"jwk": public_jwk(self.key.public_key())}


@dataclass(frozen=True)
class Reply:
    """A successful answer.

    Args:
        status: HTTP status.
        location: The Location header, unchecked.
        retry_after: What the server wants to be left alone for.
        body: Unchecked.
        content_type: Without parameters.
    """

    status: int
    location: str
    retry_after: timedelta | None
    body: bytes = field(repr=False)
    content_type: str = ""

    def document(self) -> dict[str, Any]:
        """The JSON object in the body.

        Raises:
            ProtocolViolation: It is none.
        """
        value = _json(self.body)
        if not isinstance(value, dict):
            raise violation("an answer that is no JSON object")
        return value


class AcmeClient:
    """A connection to one ACME server, closed at the end of a `with` block; what it needs is fetched when it is needed.

    Args:
        directory_url: As configured.
        session: Pinned to the server.
        clock: For Retry-After, and for the time that one request may take.
    """

    def __init__(self, directory_url: str, session: HttpsSession, clock: Clock) -> None:
        self.directory_url = directory_url
        self._session = session
        self._clock = clock
        self._origin = _origin(directory_url)
        self._nonce = ""
        self._directory: Directory | None = None

    @classmethod
    def configured(cls, context: FlowContext) -> Self:
        """The configured server; nothing is sent yet.

        Raises:
            ConfigurationError: The configuration is incomplete.
        """
        settings = context.settings.acme
        if not settings.directory_url:
            raise ConfigurationError(
                "[acme] directory_url is not set.", remedy="Set the https address of the ACME directory."
            )
        anchors = read_anchors(settings.server_anchor_file or settings.anchor_file, context.files, "[acme]")
        session = HttpsSession(client_context(anchors), context.clock, settings.timeout)
        return cls(settings.directory_url, session, context.clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def directory(self) -> Directory:
        """What the CA offers.

        Raises:
            ServerUnreachable: No answer.
            ProtocolViolation: No directory of ACME.
        """
        if self._directory is None:
            self._directory = self._read_directory(self.get(self.directory_url).document())
        return self._directory

    def get(self, url: str) -> Reply:
        """Fetch what anybody may read: the directory, renewal information.

        Raises:
            AcmeProblem: The server refused.
            ServerUnreachable: No answer.
            ProtocolViolation: The answer breaks HTTP or a limit.
        """
        answer = self._session.get(url, {"Accept": "application/json"})
        self._take_nonce(answer)
        return self._reply(answer)

    def post(self, url: str, signer: Signer, payload: Mapping[str, Any] | None) -> Reply:
        """Send a signed request (RFC 8555 6.2), with a fresh nonce as often as the server refuses one (6.5).

        Args:
            url: Checked by `address`.
            signer: Signs it.
            payload: None for POST-as-GET (6.3).

        Raises:
            AcmeProblem: The server refused.
            ServerUnreachable: No answer, or all nonces were refused.
            ProtocolViolation: The answer breaks HTTP, ACME or a limit.
            KeyStoreError: The signer's key store refused.
        """
        body = b"" if payload is None else json.dumps(payload).encode("utf-8")
        headers = {
            "Content-Type": "application/jose+json",
            "Accept": "application/json, application/pem-certificate-chain",
        }
        end = self._clock.monotonic() + NONCE_SECONDS
        for _ in range(NONCE_TRIES):
            protected = {"nonce": self._fresh_nonce(), "url": url, **signer.protected()}
            answer = self._session.post(url, headers, json.dumps(signed(signer.key, protected, body)).encode("ascii"))
            self._take_nonce(answer)
            if not self._is_bad_nonce(answer):
                return self._reply(answer)
            if self._clock.monotonic() > end:
                break
        raise ServerUnreachable(
            f"The CA refuses its own nonces, {NONCE_TRIES} times or for {NONCE_SECONDS:.0f} seconds.",
            remedy="This is tried again by itself. Several servers behind one address may not know of each other.",
        )

    def address(self, url: object, what: str) -> str:
        """An address that the server names.

        Args:
            url: From its JSON or a Location header.
            what: Names it in the error.

        Raises:
            ProtocolViolation: No https address on the host and port of the directory.
        """
        if isinstance(url, str) and self.is_own(url):
            return url
        shown = printable(url) if isinstance(url, str) else "no text"
        raise violation(f"an address for {what} that is not on the host of its directory ({shown})")

    def is_own(self, url: str) -> bool:
        """Whether an address is one of this server."""
        return _ADDRESS.fullmatch(url) is not None and _origin(url) == self._origin

    def retry_at(self, wait: timedelta | None) -> datetime:
        """When to ask again, within sensible bounds."""
        return self._clock.now() + min(max(_DEFAULT_WAIT if wait is None else wait, _SHORTEST_WAIT), LONGEST_WAIT)

    def _own_or_none(self, url: object) -> str:
        return url if isinstance(url, str) and self.is_own(url) else ""

    def _fresh_nonce(self) -> str:
        if not self._nonce:
            answer = self._session.get(self.directory().new_nonce, {})  # RFC 8555 7.2
            self._take_nonce(answer)
            self._reply(answer)
        nonce, self._nonce = self._nonce, ""
        if not nonce:
            raise violation("no nonce where one was asked for")
        return nonce

    def _take_nonce(self, answer: Answer) -> None:
        nonce = answer.headers.get("replay-nonce", "")
        self._nonce = nonce if _NONCE.fullmatch(nonce) else ""

    def _is_bad_nonce(self, answer: Answer) -> bool:
        if answer.status < _ERRORS:
            return False
        return read_problem(_json_or_nothing(answer.body), answer.status).kind == BAD_NONCE

    def _reply(self, answer: Answer) -> Reply:
        wait = retry_after(answer.headers.get("retry-after", ""), self._clock.now())
        if answer.status < _ERRORS:
            return Reply(answer.status, answer.headers.get("location", ""), wait, answer.body, answer.content_type)
        problem = read_problem(_json_or_nothing(answer.body), answer.status)
        if problem.kind == RATE_LIMITED:
            problem.retry_at = self.retry_at(wait)
        elif answer.status == _TOO_MANY_REQUESTS or answer.status >= _SERVER_ERRORS:
            raise ServerUnreachable(
                f"The CA cannot answer now: {problem.reason}.", remedy="This is tried again by itself."
            ).left_alone_for(wait)
        raise problem

    def _read_directory(self, members: Mapping[str, Any]) -> Directory:
        meta = members.get("meta")
        about: Mapping[str, Any] = meta if isinstance(meta, dict) else {}
        terms, profiles = about.get("termsOfService"), about.get("profiles")
        return Directory(
            new_nonce=self.address(members.get("newNonce"), "newNonce"),
            new_account=self.address(members.get("newAccount"), "newAccount"),
            new_order=self.address(members.get("newOrder"), "newOrder"),
            revoke_certificate=self._own_or_none(members.get("revokeCert")),
            key_change=self._own_or_none(members.get("keyChange")),
            renewal_info=self._own_or_none(members.get("renewalInfo")),
            terms_of_service=printable(terms) if isinstance(terms, str) else "",
            external_account_required=about.get("externalAccountRequired") is True,
            profiles=tuple(map(printable, profiles)) if isinstance(profiles, dict) else (),
        )


def offered(url: str, what: str) -> str:
    """The address for something that not every CA offers.

    Raises:
        EnrollmentRefused: This one does not.
    """
    if not url:
        raise EnrollmentRefused(
            f"The CA offers no {what} over ACME.", remedy="Ask its operator for it.", who_must_act=CA_OPERATOR
        )
    return url


def text_member(document: Mapping[str, Any], name: str) -> str:
    """A text of a JSON object.

    Raises:
        ProtocolViolation: It is missing, or something else.
    """
    value = document.get(name)
    if not isinstance(value, str):
        raise violation(f"an answer without the text {name!r}")
    return value


def list_member(document: Mapping[str, Any], name: str, at_most: int) -> Sequence[Any]:
    """A list of a JSON object.

    Raises:
        ProtocolViolation: It is missing, something else, or too long.
    """
    value = document.get(name)
    if not isinstance(value, list) or len(value) > at_most:
        raise violation(f"an answer without the list {name!r}, or with more than {at_most} in it")
    return value


def violation(what: str) -> ProtocolViolation:
    """What to raise where the server does not keep to RFC 8555."""
    return ProtocolViolation(
        f"The CA sent {what}.", remedy="Check [acme] directory_url; otherwise ask the CA operator."
    )


def _origin(url: str) -> tuple[str, int] | None:
    """Host and port; None for what is no address of https."""
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError:
        return None
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc or parts.fragment:
        return None
    return parts.hostname.lower(), port


def _json(body: bytes) -> object:
    if len(body) > DOCUMENT_LIMIT:
        raise violation(f"more than {DOCUMENT_LIMIT} bytes of JSON")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise violation("an answer that is not JSON") from error


def _json_or_nothing(body: bytes) -> object:
    try:
        return _json(body)
    except ProtocolViolation:
        return None
