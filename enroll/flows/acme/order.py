"""An order: from the identifier to the certificate (RFC 8555 7.4 and 7.5).

    pending     the CA wants to see proof for the authorizations   -> answer the challenge
    ready       it has seen it                                     -> finalize, with the request (PKCS#10)
    processing  it issues
    valid       it has issued                                      -> fetch the certificate
    invalid     it gave up

The address of an order is kept before anything is done with it. The next run looks at the order's state and goes on
from there, so a kill anywhere repeats at most a step that the CA takes twice: answering a challenge, and finalizing
with the same key.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enroll.certificates import PARSE_ERRORS
from enroll.clock import Clock
from enroll.errors import CA_OPERATOR, HOSPITAL_IT, EnrollmentError
from enroll.flows.acme.challenge import Prover
from enroll.flows.acme.client import AcmeClient, Reply, Signer, list_member, text_member, violation
from enroll.flows.acme.jws import base64url, key_authorization
from enroll.flows.acme.pauses import Pauses
from enroll.flows.acme.problem import AcmeProblem, read_problem
from enroll.flows.acme.progress import Progress
from enroll.flows.base import Handle, Issued, Pending, Refused
from enroll.flows.settings import AcmeChallenge
from enroll.foreign import printable
from enroll.trust import CERTIFICATE_LIMIT, CERTIFICATES_LIMIT

AUTHORIZATIONS_LIMIT = 4  # an order of ours has one identifier
CHALLENGES_LIMIT = 32

_LOG = logging.getLogger(__name__)
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22,256}")  # RFC 8555 8: base64url, at least 128 bits
# RFC 8555 9.1: certificates and nothing else; a key that a server slips in must not go unnoticed.
_CHAIN = re.compile(rb"(?:\s*-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----)+\s*")
_STATES = frozenset({"pending", "ready", "processing", "valid", "invalid"})


@dataclass(frozen=True)
class Identifier:
    """What an order is about (RFC 8555 9.7.7)."""

    kind: str
    value: str


@dataclass(frozen=True)
class Wanted:
    """What an order is made of.

    Args:
        identifier: What the certificate is to name.
        challenge: How that is proved.
        profile: Which profile of the CA; empty for its default.
        replaces: What is being renewed, in the words of RFC 9773 4.1; empty where the CA does not want to know.
    """

    identifier: Identifier
    challenge: AcmeChallenge
    profile: str = ""
    replaces: str = ""


class OrderIsGone(Exception):
    """The kept order is of no use any more; a new one has to be made."""


@dataclass(frozen=True)
class Orders:
    """The orders of one account.

    Args:
        client: The server.
        signer: The account.
        clock: Measures the patience.
        patience: Seconds that one run waits for the CA.
    """

    client: AcmeClient
    signer: Signer
    clock: Clock
    patience: float

    def new(self, wanted: Wanted) -> str:
        """Place an order.

        Returns:
            Its address, to be kept before anything else.

        Raises:
            AcmeProblem: The CA refused.
            EnrollmentError: No usable answer.
        """
        identifier = {"type": wanted.identifier.kind, "value": wanted.identifier.value}
        payload: dict[str, Any] = {"identifiers": [identifier]}
        if wanted.profile:
            payload["profile"] = wanted.profile
        if wanted.replaces:
            payload["replaces"] = wanted.replaces
        url = self.client.directory().new_order
        try:
            reply = self.client.post(url, self.signer, payload)
        except AcmeProblem as problem:
            if not wanted.replaces or problem.retry_at is not None:
                raise
            # RFC 9773 5: the CA may not know the certificate, or an order that was lost has replaced it already.
            del payload["replaces"]
            reply = self.client.post(url, self.signer, payload)
        return self.client.address(reply.location, "the order")

    def carry_out(
        self, handle: Handle, wanted: Wanted, prover: Prover, request: Callable[[], bytes], *, resumed: bool
    ) -> Issued | Pending | Refused:
        """Take an order as far as it goes within the patience.

        Args:
            handle: Its `Progress`; says more of it afterwards.
            wanted: What it was placed for.
            prover: Answers the challenge.
            request: Makes the request (DER); called when the CA is ready for it.
            resumed: Whether an earlier run placed it.

        Raises:
            OrderIsGone: A resumed order is unknown, invalid or about something else.
            AcmeProblem: The CA refused.
            EnrollmentError: No usable answer.
        """
        end = self.clock.monotonic() + self.patience
        work = _Order(self, handle, wanted, prover, resumed, end)
        order = work.look()
        if resumed and order.state != "pending":
            work.tidy_up(order)
        if order.state == "pending":
            for address in order.authorizations:
                answer = work.authorize(address)
                if answer is not None:
                    return answer
            order = work.look_until({"ready", "processing", "valid", "invalid"})
        if order.state == "ready":
            order = work.finalize(order, request())
        if order.state == "processing":
            order = work.look_until({"valid", "invalid"})
        return work.outcome(order)


@dataclass(frozen=True)
class _Reading:
    """An order as the CA describes it."""

    state: str
    authorizations: tuple[str, ...]
    finalize: str
    certificate: str
    problem: AcmeProblem
    retry_after: timedelta | None


@dataclass(frozen=True)
class _Challenge:
    """The challenge that is answered."""

    token: str
    state: str
    url: str
    problem: AcmeProblem | None


@dataclass(frozen=True)
class _Authorization:
    """An authorization as the CA describes it, with the challenge that is answered, where it is offered."""

    state: str
    challenge: _Challenge | None
    offered: str
    retry_after: timedelta | None

    @property
    def waits(self) -> bool:
        """Whether it may still become valid. Some CAs let it wait although the challenge has failed."""
        return self.state == "pending" and (self.challenge is None or self.challenge.state != "invalid")

    @property
    def refused(self) -> Refused:
        """Why it did not become valid."""
        if self.challenge is not None and self.challenge.problem is not None:
            return self.challenge.problem.refused
        return Refused(f"the authorization is {printable(self.state)}", CA_OPERATOR, "See the log of the CA.")

    def reason(self, challenge: AcmeChallenge) -> str:
        """Why it waits."""
        if self.challenge is not None and self.challenge.problem is not None:
            return self.challenge.problem.reason
        return f"the CA has not looked at the answer of {challenge} yet"


@dataclass(frozen=True)
class _Order:
    orders: Orders
    handle: Handle
    wanted: Wanted
    prover: Prover
    resumed: bool
    end: float

    @property
    def client(self) -> AcmeClient:
        return self.orders.client

    def look(self) -> _Reading:
        try:
            return self._read(self._fetch(Progress.read(self.handle.text).url))
        except AcmeProblem as problem:
            if self.resumed and problem.retry_at is None:
                raise OrderIsGone(str(problem)) from problem
            raise

    def look_until(self, states: set[str]) -> _Reading:
        """Look again and again until the order is in one of these states, or the patience is over."""
        pauses = Pauses(self.orders.clock, self.end)
        while (order := self.look()).state not in states and pauses.wait(order.retry_after):
            pass
        return order

    def authorize(self, url: str) -> Pending | Refused | None:
        """Prove one authorization (RFC 8555 7.5); None where it is valid."""
        url = self.client.address(url, "the authorization")
        found = self._authorization(self._fetch(url))
        if found.waits and found.challenge is not None:
            return self._answer(url, found.challenge)
        if self.resumed and found.challenge is not None:
            self.prover.clean_up(*self._shown(found.challenge))  # the run before did not come to it
        if found.state == "valid":
            return None
        if found.waits:
            what = f"the CA offers {found.offered} and no {self.wanted.challenge}"
            return Refused(what, HOSPITAL_IT, "Have it allowed there, or choose another [acme] challenge.")
        if self.resumed:
            raise OrderIsGone(found.refused.reason)
        return found.refused

    def tidy_up(self, order: _Reading) -> None:
        """Take away what the run before showed: it may have ended before the CA had looked."""
        for url in order.authorizations:
            try:
                found = self._authorization(self._fetch(self.client.address(url, "the authorization")))
            except (EnrollmentError, OrderIsGone) as error:
                _LOG.warning("What was shown for an order may stay where it is: %s", error)
                continue
            if found.challenge is not None:
                self.prover.clean_up(*self._shown(found.challenge))

    def _answer(self, url: str, challenge: _Challenge) -> Pending | Refused | None:
        """Show what is wanted, and wait until the CA has looked."""
        shown = self._shown(challenge)
        payload = self.prover.present(*shown)
        try:
            self._respond(url, challenge, payload)
            pauses = Pauses(self.orders.clock, self.end)
            while (found := self._authorization(self._fetch(url))).waits:
                if not pauses.wait(found.retry_after):
                    # What was presented stays: the CA may still look at it.
                    return Pending(self.client.retry_at(found.retry_after), found.reason(self.wanted.challenge))
        except AcmeProblem as problem:
            if problem.retry_at is None:
                self.prover.clean_up(*shown)
            raise
        self.prover.clean_up(*shown)
        return None if found.state == "valid" else found.refused

    def _respond(self, url: str, challenge: _Challenge, payload: Mapping[str, Any]) -> None:
        """Have the CA look at what is shown (RFC 8555 7.5.1), unless it is at it."""
        progress, now = Progress.read(self.handle.text), self.orders.clock.now()
        if challenge.state != "pending" or progress.is_answered(now):
            return
        try:
            self.client.post(challenge.url, self.orders.signer, payload)
        except AcmeProblem as problem:
            if not self.resumed or problem.retry_at is not None:
                raise
            # The run before may have responded, and the CA may have come to its end since it was asked.
            found = self._authorization(self._fetch(url)).challenge
            if found is None or found.state == "pending":
                raise
        self.handle.text = replace(progress, answered=now).text

    def _shown(self, challenge: _Challenge) -> tuple[str, str, str]:
        value = key_authorization(challenge.token, self.orders.signer.key.public_key())
        return self.wanted.identifier.value, challenge.token, value

    def _authorization(self, reply: Reply) -> _Authorization:
        document = reply.document()
        state = text_member(document, "status")
        self._check_identifier(document.get("identifier"))
        challenges = [c for c in list_member(document, "challenges", CHALLENGES_LIMIT) if isinstance(c, Mapping)]
        ours = [self._challenge(c) for c in challenges if c.get("type") == self.wanted.challenge.value]
        offered = printable(", ".join(str(c.get("type")) for c in challenges))
        return _Authorization(state, ours[0] if ours else None, offered, reply.retry_after)

    def _challenge(self, challenge: Mapping[str, Any]) -> _Challenge:
        token, error = text_member(challenge, "token"), challenge.get("error")
        if not _TOKEN.fullmatch(token):
            raise violation("a challenge whose token is not base64url of at least 128 bits")
        url = self.client.address(challenge.get("url"), "the challenge")
        return _Challenge(token, text_member(challenge, "status"), url, read_problem(error, 0) if error else None)

    def finalize(self, order: _Reading, request: bytes) -> _Reading:
        """Send the request (RFC 8555 7.4)."""
        address = self.client.address(order.finalize, "finalize")
        return self._read(self.client.post(address, self.orders.signer, {"csr": base64url(request)}))

    def outcome(self, order: _Reading) -> Issued | Pending | Refused:
        if order.state == "valid":
            address = self.client.address(order.certificate, "the certificate")
            return Issued(chain(self._fetch(address)))
        if order.state == "invalid":
            if self.resumed:
                raise OrderIsGone(order.problem.reason)
            return order.problem.refused
        return Pending(self.client.retry_at(order.retry_after), f"the order is {order.state}")

    def _read(self, reply: Reply) -> _Reading:
        document = reply.document()
        state = text_member(document, "status")
        if state not in _STATES:
            raise violation(f"an order in the state {printable(state)!r}")
        identifiers = list_member(document, "identifiers", AUTHORIZATIONS_LIMIT)
        if len(identifiers) != 1:
            raise violation(f"an order with {len(identifiers)} identifiers instead of one")
        self._check_identifier(identifiers[0])
        certificate = document.get("certificate", "")
        return _Reading(
            state,
            tuple(list_member(document, "authorizations", AUTHORIZATIONS_LIMIT)),
            text_member(document, "finalize"),
            certificate if isinstance(certificate, str) else "",
            read_problem(document.get("error"), reply.status),
            reply.retry_after,
        )

    def _check_identifier(self, identifier: object) -> None:
        stated = (identifier.get("type"), identifier.get("value")) if isinstance(identifier, Mapping) else None
        if stated == (self.wanted.identifier.kind, self.wanted.identifier.value):
            return
        if self.resumed:
            raise OrderIsGone("the order is about something else")
        raise violation("an order about something else than what was asked for")

    def _fetch(self, url: str) -> Reply:
        return self.client.post(url, self.orders.signer, None)


def chain(reply: Reply) -> tuple[x509.Certificate, ...]:
    """The certificates of an answer (RFC 8555 9.1), bounded; alternatives in Link headers are left alone.

    Raises:
        ProtocolViolation: Anything else is in it.
    """
    body = reply.body
    if reply.content_type != "application/pem-certificate-chain":
        raise violation(f"an answer of type {printable(reply.content_type)!r} instead of a certificate chain")
    if body.count(b"-----BEGIN") > CERTIFICATES_LIMIT or len(body) > CERTIFICATES_LIMIT * 2 * CERTIFICATE_LIMIT:
        raise violation(f"more than {CERTIFICATES_LIMIT} certificates, or far too long ones")
    if not _CHAIN.fullmatch(body):
        raise violation("a certificate chain with something else in it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about serial numbers of old CAs; `enroll.trust` judges what is used
            return tuple(x509.load_pem_x509_certificates(body))
    except PARSE_ERRORS as error:
        raise violation("a certificate chain that cannot be read") from error


def encoded(request: x509.CertificateSigningRequest) -> bytes:
    """A request as `finalize` takes it."""
    return request.public_bytes(serialization.Encoding.DER)
