"""OCSP responses as nobody should send them, and some as they should be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from enroll.keystore.base import PrivateKey

DER = serialization.Encoding.DER


@dataclass(frozen=True)
class Response:
    """What an OCSP response says.

    Args:
        certificate: About this one.
        issuer: Its issuer, as CertID names it.
        signer: Who signs, and whose name the response has.
        key: Of the signer.
        revoked_at: None for "good".
        reason: Of the revocation.
        begins: thisUpdate, from now.
        ends: nextUpdate, from now; None for none.
        unknown: Whether it says that the responder does not know.
        nonce: Of the request.
        enclosed: Certificates beside the signer's.
        digest: Of the signature.
        by_name: Whether the signer is named, or given by the hash of its key.
    """

    certificate: x509.Certificate
    issuer: x509.Certificate
    signer: x509.Certificate
    key: PrivateKey
    revoked_at: datetime | None = None
    reason: x509.ReasonFlags | None = None
    begins: timedelta = timedelta(minutes=-1)
    ends: timedelta | None = timedelta(hours=1)
    unknown: bool = False
    nonce: bytes = b""
    enclosed: tuple[x509.Certificate, ...] = ()
    digest: hashes.HashAlgorithm | None = None
    by_name: bool = False
    certificate_hash: hashes.HashAlgorithm | None = None

    def but(self, **changes: Any) -> Response:
        """The same with changes."""
        return replace(self, **changes)

    @property
    def der(self) -> bytes:
        """The response."""
        now = datetime.now(UTC)
        status = ocsp.OCSPCertStatus.REVOKED if self.revoked_at else ocsp.OCSPCertStatus.GOOD
        encoding = ocsp.OCSPResponderEncoding.NAME if self.by_name else ocsp.OCSPResponderEncoding.HASH
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                self.certificate,
                self.issuer,
                self.certificate_hash or hashes.SHA1(),  # noqa: S303 - RFC 5019 2.1.1
                ocsp.OCSPCertStatus.UNKNOWN if self.unknown else status,
                now + self.begins,
                None if self.ends is None else now + self.ends,
                self.revoked_at,
                self.reason,
            )
            .responder_id(encoding, self.signer)
        )
        if enclosed := (*self.enclosed, *([self.signer] if self.signer != self.issuer else [])):
            builder = builder.certificates(list(enclosed))
        if self.nonce:
            builder = builder.add_extension(x509.OCSPNonce(self.nonce), critical=False)
        return builder.sign(self.key, self.digest or hashes.SHA256()).public_bytes(DER)
