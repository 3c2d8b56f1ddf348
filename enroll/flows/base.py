"""What every way to a certificate has in common: one question, three answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from cryptography import x509

from enroll.csr import CertificateRequest
from enroll.keystore.base import PrivateKey, Protection, PublicKey

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


@dataclass(frozen=True)
class Enrollment:
    """One request for one key.

    Args:
        key: The new key; never leaves its store.
        request: What is asked for.
        renews: The certificate being renewed, where there is one.
        protection: Where the key lives; without better knowledge the least.
    """

    key: PrivateKey = field(repr=False)
    request: CertificateRequest
    renews: x509.Certificate | None = None
    protection: Protection = Protection.SOFTWARE

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
    """

    signed: x509.CertificateSigningRequest
    request: CertificateRequest
    public_key: PublicKey
    protection: Protection


class Flow(Protocol):
    """One way to get a certificate."""

    name: str

    def enroll(self, enrollment: Enrollment | OfferedEnrollment) -> Issued | Pending | Refused:
        """Ask once.

        Raises:
            EnrollmentError: No usable answer; the caller may try again later.
        """

    def anchors_and_intermediates(self) -> tuple[x509.Certificate, ...]:
        """CA certificates that the server offers; trusted only as far as they lead to the pinned anchor."""
