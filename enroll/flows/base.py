"""What every way to a certificate has in common: one question, three answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from cryptography import x509

from enroll.clock import Clock
from enroll.config import EnrollSettings
from enroll.csr import CertificateRequest
from enroll.errors import ProtocolViolation
from enroll.identity import Generation, IdentityStore
from enroll.keystore import KeyStores
from enroll.keystore.base import PrivateKey, Protection, PublicKey
from enroll.statefile import StateFiles

HANDLE_LIMIT = 4 * 1024  # characters
LONGEST_WAIT = timedelta(days=1)  # whatever a server says: a request is repeated at least this often


@dataclass(frozen=True)
class Issued:
    """The server answered with certificates: unordered and unchecked.

    `enroll.trust` finds the one for our key and decides whether it may be used.
    """

    certificates: tuple[x509.Certificate, ...]


@dataclass(frozen=True)
class Pending:
    """The request waits for somebody; the same request is repeated at `until`."""

    until: datetime
    reason: str = ""


@dataclass(frozen=True)
class Refused:
    """The server understood and said no.

    `who_must_act` is a role: "CA operator", "hospital IT", "vendor service"; `advice` is what to do, where that
    is known.
    """

    reason: str
    who_must_act: str
    advice: str = ""


class Handle:
    """What a flow needs to go on with a request after a crash: a text of its own, which the journal keeps.

    An order, a transaction. A flow that would ask for the same thing twice without it keeps it before it goes on.

    Args:
        text: As it was kept; empty for a new request.
        write: Makes a new text durable.
    """

    def __init__(self, text: str = "", write: Callable[[str], None] = lambda _: None) -> None:
        self.text = text
        self._write = write

    def keep(self, text: str) -> None:
        """Make `text` durable: ASCII of at most `HANDLE_LIMIT` characters.

        Raises:
            ProtocolViolation: It is longer, or not ASCII; what is in it comes from the server.
            StateError: The disk refused.
        """
        if len(text) > HANDLE_LIMIT or not text.isascii():
            raise ProtocolViolation(
                "What the server wants to be told again is too long, or not ASCII.",
                remedy="Check the address; otherwise ask the operator of the server.",
            )
        self._write(text)
        self.text = text


@dataclass(frozen=True)
class Enrollment:
    """One request for one key.

    Args:
        key: The new key; never leaves its store.
        request: What is asked for.
        renews: The certificate being renewed, where there is one.
        protection: Where the key lives; without better knowledge the least.
        key_uri: The name of the key in its store.
        handle: Of the flow.
    """

    key: PrivateKey = field(repr=False)
    request: CertificateRequest
    renews: x509.Certificate | None = None
    protection: Protection = Protection.SOFTWARE
    key_uri: str = ""
    handle: Handle = field(default_factory=Handle, compare=False, repr=False)

    @property
    def public_key(self) -> PublicKey:
        """What is to be certified."""
        return self.key.public_key()


@dataclass(frozen=True)
class OfferedEnrollment:
    """One request for a key that is out of reach: whoever holds it has signed the request, which is sent as it is.

    Args:
        signed: The request (PKCS#10).
        request: What it asks for.
        public_key: What is to be certified.
        protection: Where the key lives.
        handle: Of the flow.
    """

    signed: x509.CertificateSigningRequest
    request: CertificateRequest
    public_key: PublicKey
    protection: Protection
    handle: Handle = field(default_factory=Handle, compare=False, repr=False)


@dataclass(frozen=True)
class PlannedExchange:
    """What would be sent, for `scanseal enroll --dry-run`.

    Args:
        to: Address, or the place where a file appears.
        what: The message, in the words of its protocol.
        proof: What this side proves itself with.
    """

    to: str
    what: str
    proof: str


@dataclass(frozen=True)
class FlowContext:
    """What a flow works with: the parts of a running enroller.

    Args:
        settings: Of this scanner.
        stores: Where keys are made.
        identities: Where new generations go.
        clock: The time.
        files: Reads and writes.
        at_once: Whether a person asks, who does not wait for a moment that was named before.
    """

    settings: EnrollSettings
    stores: KeyStores
    identities: IdentityStore
    clock: Clock
    files: StateFiles
    at_once: bool = False


@dataclass(frozen=True)
class Revoked:
    """A certificate that was given up.

    Args:
        generation: Whose.
        was_already: Whether the CA had revoked it before, for a reason that it does not say.
    """

    generation: Generation
    was_already: bool = False


class Flow(Protocol):
    """One way to get a certificate. Flows are context managers; they release their connection at the end."""

    name: str

    @property
    def anchors(self) -> tuple[x509.Certificate, ...]:
        """The CA certificates that what this flow brings must lead to."""

    def asks_for(self, request: CertificateRequest) -> CertificateRequest:
        """The request as this flow makes it, such as with the identifier of an order; usually as it is."""

    def plan(self, request: CertificateRequest, renews: x509.Certificate | None) -> tuple[PlannedExchange, ...]:
        """What `enroll` would send, in this order, as far as that can be told without the network.

        Args:
            request: As `asks_for` made it.
            renews: The certificate being renewed, where there is one.
        """

    def enroll(self, enrollment: Enrollment | OfferedEnrollment) -> Issued | Pending | Refused:
        """Ask once, or go on with what the handle speaks of.

        Raises:
            EnrollmentError: No usable answer; the caller may try again later.
        """

    def anchors_and_intermediates(self) -> tuple[x509.Certificate, ...]:
        """CA certificates that the server offers; trusted only as far as they lead to the pinned anchor."""

    def confirm(self, handle: Handle, certificate: x509.Certificate | None) -> bool:
        """Tell the CA what became of what it issued, where the protocol wants that (RFC 9810 5.3.18).

        Args:
            handle: Of the request.
            certificate: The one that is used; None where all were refused.

        Returns:
            Whether there was anything to tell, so that the CA has answered.

        Raises:
            EnrollmentRefused: The CA does not accept the confirmation; there is nothing more to tell it.
            EnrollmentError: No proper answer; the caller confirms again later.
        """


class NothingToConfirm:
    """Of the protocols in which nobody waits to hear what became of a certificate."""

    def confirm(self, handle: Handle, certificate: x509.Certificate | None) -> bool:  # noqa: ARG002 - see `Flow`
        """Nothing is told."""
        return False
