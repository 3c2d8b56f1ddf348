"""Paths of certificates: from a certificate to an anchor by OpenSSL, and how strong each link is.

OpenSSL and not `cryptography.x509.verification`, which demands the profile of the web: hospital CAs have roots without
keyUsage and leaves without DNS names. For the same reason X509_STRICT stays off. An anchor need not be a root: a
hospital may pin its issuing CA alone. OpenSSL does not look for a second way where the first one fails, so it is given
one anchor at a time, and no certificate that leads astray: one that is self-signed or has signed nothing of the path.
`enroll.trust` says what else is asked of a certificate, and numbers the checks.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import crypto

from enroll.certificates import PARSE_ERRORS, name_text
from enroll.errors import CertificateRefused

STRONG_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)

_RSA_BITS = 2048
_CURVE_BITS = 256


def build_chain(
    certificate: x509.Certificate,
    intermediates: Iterable[x509.Certificate],
    anchors: Iterable[x509.Certificate],
    at: datetime,
    revocation_list: x509.CertificateRevocationList | None = None,
) -> tuple[x509.Certificate, ...]:
    """The path from `certificate` to one of the anchors, as it was valid at a time (check 8).

    Args:
        certificate: At its beginning.
        intermediates: May help; not trusted.
        anchors: Trusted.
        at: The moment.
        revocation_list: Where it is given, it has to be a whole and current one that does not name `certificate`.

    Returns:
        The certificate first, the anchor last.

    Raises:
        CertificateRefused: There is no such path.
    """
    links = (certificate, *intermediates)
    helpers = [helper for helper in links[1:] if not _signed(helper, helper) and _may_help(helper, links)]
    # Those that have signed something come first, because what is wrong with them is what is wrong.
    by_use = sorted(anchors, key=lambda anchor: not any(_signed(anchor, link) for link in (certificate, *helpers)))
    failures: list[Exception] = []
    for anchor in by_use:
        try:
            return _path(certificate, helpers, anchor, at, revocation_list)
        except (crypto.X509StoreContextError, crypto.Error) as error:
            failures.append(error)
    raise CertificateRefused(
        f"The certificate does not lead to a trusted anchor: {failures[0] if failures else 'there is none'}.",
        remedy="Compare the anchor file with the CA that issued the certificate.",
        code="certificate-untrusted",
    ) from next(iter(failures), None)


def _path(
    certificate: x509.Certificate,
    helpers: Iterable[x509.Certificate],
    anchor: x509.Certificate,
    at: datetime,
    revocation_list: x509.CertificateRevocationList | None,
) -> tuple[x509.Certificate, ...]:
    """OpenSSL's answer for one anchor. Of several with one name it would look at the first alone."""
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(anchor))
    flags = crypto.X509StoreFlags.PARTIAL_CHAIN
    if revocation_list is not None:
        store.add_crl(revocation_list)
        flags |= crypto.X509StoreFlags.CRL_CHECK
    store.set_flags(flags)
    store.set_time(at.astimezone(UTC))
    untrusted = [crypto.X509.from_cryptography(helper) for helper in helpers]
    context = crypto.X509StoreContext(store, crypto.X509.from_cryptography(certificate), untrusted)
    return tuple(link.to_cryptography() for link in context.get_verified_chain())


def _may_help(helper: x509.Certificate, links: Iterable[x509.Certificate]) -> bool:
    """Whether it is not only named like an issuer, as the other key of a CA is that has changed it (RFC 7030 4.1.3)."""
    signed = {_signed(helper, link) for link in links if link != helper}
    return True in signed or False not in signed


def _signed(issuer: x509.Certificate, certificate: x509.Certificate) -> bool | None:
    """Whether one certificate has signed another; None where that names another issuer, or nobody can tell."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return False
    except PARSE_ERRORS:
        return None
    return True


def check_strength(link: x509.Certificate, *, is_anchor: bool) -> None:
    """Check 9. An anchor is trusted as it is, so the signature on it says nothing; its key does.

    Raises:
        CertificateRefused: Too weak, or of an unknown kind.
    """
    try:
        key, hash_algorithm, _ = link.public_key(), link.signature_hash_algorithm, link.subject
    except PARSE_ERRORS as error:
        raise refused("weak", "The chain holds an unknown kind of key or signature.") from error
    strong_key = (isinstance(key, rsa.RSAPublicKey) and key.key_size >= _RSA_BITS) or (
        isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size >= _CURVE_BITS
    )
    if not strong_key:
        raise refused("weak", f"The key of {name_text(link.subject)!r} is too weak or of an unknown kind.")
    if not is_anchor and not isinstance(hash_algorithm, STRONG_HASHES):
        raise refused("weak", f"{name_text(link.subject)!r} is not signed with SHA-256, SHA-384 or SHA-512.")


def refused(check: str, what: str, remedy: str = "") -> CertificateRefused:
    """What to raise for a certificate that fails a check of `enroll.trust`; a remedy where the usual one is wrong."""
    return CertificateRefused(
        what,
        remedy=remedy or "It is not used. The CA's operator must correct the profile or template of this device.",
        code=f"certificate-{check}",
    )
