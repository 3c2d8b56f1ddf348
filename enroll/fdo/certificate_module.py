"""The device's side of fdo.csr: a certificate from the owner's CA, in words of EST (fdo-sim, fdo.csr).

    cacerts-req 281     ->   cacerts-res        the CA certificates, PKCS#7
    csrattrs-req 0      ->   csrattrs-res       what a request should hold (RFC 7030 4.5.2)
    simpleenroll-req    ->   simpleenroll-res   PKCS#10; one certificate
    active false

Keys are made here and nowhere else: serverkeygen is never asked for, and refused where it is answered unasked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cryptography import x509

from enroll.fdo import cbor
from enroll.fdo.service_info import Statement

NAME = "fdo.csr"


@dataclass
class CertificateModule:
    """One enrollment.

    Args:
        make_request: Makes the PKCS#10 request (DER) with what the CA wants in it (DER of CsrAttrs, or empty).
        renews: Whether the certificate in use came from this owner, so that simplereenroll is asked for.
    """

    make_request: Callable[[bytes], bytes] = field(repr=False)
    renews: bool = False

    name = NAME

    @property
    def is_complete(self) -> bool:
        """Whether there is a certificate."""
        raise NotImplementedError

    @property
    def ca_certificates(self) -> tuple[x509.Certificate, ...]:
        """What cacerts-res brought; unverified."""
        raise NotImplementedError

    @property
    def certificate(self) -> x509.Certificate | None:
        """What was issued; unverified."""
        raise NotImplementedError

    def begin(self) -> Sequence[Statement]:
        """See `DeviceModule`."""
        raise NotImplementedError

    def receive(self, name: str, value: cbor.Item) -> Sequence[Statement]:
        """See `DeviceModule`.

        Raises:
            EnrollmentRefused: The CA said no (error 1 to 5).
            Fault: Not what was asked for.
        """
        raise NotImplementedError
