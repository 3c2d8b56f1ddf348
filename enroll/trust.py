"""The one place where certificates are judged: what a CA issued, before anything is committed, and who signed an image.

| check       | what must hold                                                               | code                    |
|-------------|------------------------------------------------------------------------------|-------------------------|
| 1 size      | at most 10 certificates of at most 16 KiB each                               | certificate-too-large   |
| 2 key       | exactly one holds our public key; found by key, never by position            | certificate-wrong-key   |
| 3 new       | the serial number is positive, of at most 20 octets (RFC 5280 4.1.2.2)       | certificate-bad-serial  |
|             | and of no certificate of the same CA that this scanner ever had              | certificate-not-new     |
| 4 names     | common name, serial number and alternative names as asked; the owner may add | certificate-wrong-names |
|             | organization, unit, place and domain, nothing else. Of the units that tell   |                         |
|             | what is signed ("derivation", "synthesis") exactly the one asked for.        |                         |
|             | What a vendor made for all its devices names none of them                    |                         |
|             | Where the CA proves a name (ACME), common name and serial number may lack    |                         |
| 5 usage     | digitalSignature, and exactly the extended key usage asked for; for a host   | certificate-wrong-usage |
|             | name serverAuth beside it                                                    |                         |
| 6 no CA     | neither BasicConstraints nor keyUsage let it issue anything                  | certificate-is-ca       |
| 7 dates     | begins by now, a slow clock of ours forgiven; lasts at least a minute more.  | certificate-wrong-dates |
|             | Where it says when its key may sign, there is a minute of what was asked for |                         |
|             | in that, and it is not over                                                  |                         |
| 8 chain     | leads to a pinned anchor (RFC 5280 section 6)                                | certificate-untrusted   |
| 9 strength  | SHA-2; RSA of 2048 bits or an NIST curve of 256 bits and up, in every link   | certificate-weak        |

A certificate that cannot be read at all is `certificate-malformed`. The signer of an image has to pass 6 and 8 at
the time of the signature, and its usage must allow signing documents: other vendors have other names and usages.

A certificate that was refused is not remembered: its key is destroyed, and check 2 never lets it in again. The chain is
built by `enroll.chain`. Revocation is not looked at here; `enroll.revocation.watch` does that.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enroll import der
from enroll.certificates import (
    PARSE_ERRORS,
    alternative_names,
    name_text,
    private_key_usage_period,
    public_key_info,
)
from enroll.chain import build_chain, check_strength, refused
from enroll.csr import DOCUMENT_SIGNING, OWNERS_NAMES, RESERVED_UNITS, CertificateRequest, Usage
from enroll.errors import CertificateRefused, ConfigurationError, StateError
from enroll.keystore.base import PublicKey
from enroll.proves import Proves, proves
from enroll.statefile import StateFiles

CERTIFICATE_LIMIT = 16 * 1024  # bytes
CERTIFICATES_LIMIT = 10
CLOCK_SKEW = timedelta(minutes=5)
MINIMUM_LIFETIME = timedelta(minutes=1)

_SERIAL_BITS = 160
_DER_SEQUENCE = bytes((der.SEQUENCE,))  # PEM begins with text
_MAY_SIGN_DOCUMENTS = frozenset({DOCUMENT_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE})  # RFC 9336
_KEEP_SERIAL_NUMBER = (
    "It is not used. The CA leaves out the serial number, and its operator must let it in. AD CS: "
    "certutil -setreg CA\\SubjectTemplate +DeviceSerialNumber, then restart the service."
)
_UsagePeriod = tuple[datetime | None, datetime | None]  # see `private_key_usage_period`
Extension = TypeVar("Extension", bound=x509.ExtensionType)


@dataclass(frozen=True)
class VerifiedCertificate:
    """A certificate that passed every check, with the intermediates up to the anchor, and the anchor.

    The anchor is None where it is not known any more.
    """

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    anchor: x509.Certificate | None = None


@dataclass(frozen=True)
class _Content:
    """What a certificate says, parsed once."""

    subject: x509.Name
    issuer: x509.Name
    extensions: x509.Extensions
    alternative_names: tuple[x509.GeneralName, ...]
    usage_period: _UsagePeriod | None


def check_issued(  # noqa: PLR0913 - everything the checks are about
    certificates: Sequence[x509.Certificate],
    intermediates: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    *,
    public_key: PublicKey,
    request: CertificateRequest | None,
    now: datetime,
    seen: Iterable[x509.Certificate] = (),
    usage_period: _UsagePeriod | None = None,
) -> VerifiedCertificate:
    """Find the certificate that was asked for and decide whether it may be used.

    Args:
        certificates: What the server issued, in any order.
        intermediates: CA certificates that may help to reach an anchor; not trusted by themselves.
        anchors: The pinned CA certificates.
        public_key: Of the key the request was made for.
        request: What was asked for; None for a certificate of all devices of a vendor, which signs original images.
        now: The time of the decision.
        seen: Every certificate that this scanner has had.
        usage_period: When the key will sign, where that was asked for.

    Raises:
        CertificateRefused: One of the checks failed; `code` says which.
    """
    _check_size(certificates)
    _check_size(intermediates)
    certificate = _find(certificates, public_key)
    content = _parse(certificate)
    _check_new(content, certificate, seen)
    if request is not None:
        _check_names(content, request)
    elif proves(certificate) is Proves.DEVICE:
        raise refused("wrong-names", "The certificate names a device; one for all devices of a vendor names none.")
    _check_usage(content, request.usage if request else Usage.SIGNING, for_host=bool(request and request.host_name))
    _check_no_ca(content)
    _check_dates(certificate, now)
    _check_usage_period(content.usage_period or (None, None), usage_period or (None, None), now)
    # Check 7 forgave a certificate that begins in a moment; the chain is asked about that moment.
    moment = max(now, certificate.not_valid_before_utc)
    chain = verify_chain(certificate, (*certificates, *intermediates), anchors, moment)
    return VerifiedCertificate(certificate, chain[1:-1], chain[-1])


def verify_chain(
    certificate: x509.Certificate,
    intermediates: Iterable[x509.Certificate],
    anchors: Iterable[x509.Certificate],
    at: datetime,
) -> tuple[x509.Certificate, ...]:
    """The path from `certificate` to one of the anchors as it was valid at a time (checks 8 and 9).

    Signatures, dates, CA flags, path lengths, name constraints and unknown critical extensions are looked at; the
    names and the usage of `certificate` are not.

    Returns:
        The certificate first, the anchor last.

    Raises:
        CertificateRefused: There is no such path (`certificate-untrusted`), or it is weak (`certificate-weak`).
    """
    chain = build_chain(certificate, intermediates, anchors, at)
    for link in chain:
        check_strength(link, is_anchor=link is chain[-1])
    return chain


def verify_signer(
    certificate: x509.Certificate,
    intermediates: Iterable[x509.Certificate],
    anchors: Iterable[x509.Certificate],
    at: datetime,
) -> tuple[x509.Certificate, ...]:
    """The path from the certificate of an image's signer to one of the anchors, as it was valid at a time.

    Its strength is not judged: an old image may have been signed under what was strong then, see `weakness`.

    Returns:
        The certificate first, the anchor last.

    Raises:
        CertificateRefused: There is no such path, or the certificate is not one for signing documents.
    """
    chain = build_chain(certificate, intermediates, anchors, at)
    content = _parse(certificate)
    _check_no_ca(content)
    key_usage = _extension(content, x509.KeyUsage)
    if key_usage is not None and not key_usage.digital_signature:
        raise refused("wrong-usage", "keyUsage does not allow digital signatures.")
    # An authority can pass on no more than it has itself: what a CA for web servers issues signs no images. The anchor
    # is trusted as it is.
    for link in chain[:-1] or chain:
        extended = _extension(_parse(link), x509.ExtendedKeyUsage)
        if extended is not None and not _MAY_SIGN_DOCUMENTS & set(extended):
            what = f"extendedKeyUsage of {name_text(link.subject)!r} does not allow document signing."
            raise refused("wrong-usage", what)
    return chain


def weakness(chain: Sequence[x509.Certificate]) -> str:
    """Which certificate of a path is too weak to be trusted today, and why (check 9); empty if none is."""
    try:
        for link in chain:
            check_strength(link, is_anchor=link is chain[-1])
    except CertificateRefused as error:
        return error.what
    return ""


def names_kept(certificate: x509.Certificate, request: CertificateRequest) -> bool:
    """Whether a certificate has the names that would be asked for now, so that it can be renewed as it is."""
    try:
        _check_names(_parse(certificate), request)
    except CertificateRefused:
        return False
    return True


def read_anchors(path: Path | None, files: StateFiles, table: str) -> tuple[x509.Certificate, ...]:
    """The pinned CA certificates that are configured.

    Args:
        path: Of their file.
        files: Reads it.
        table: Where it is configured, as in "[est]".

    Raises:
        ConfigurationError: No file is configured, or it holds no certificate.
    """
    if path is None:
        raise ConfigurationError(
            f"{table} anchor_file is not set.", remedy="Name the file with the certificate of the CA."
        )
    return read_ca_certificates(path, files)


def read_ca_certificates(path: Path, files: StateFiles) -> tuple[x509.Certificate, ...]:
    """CA certificates that somebody put into a file: PEM, or one in DER.

    Raises:
        ConfigurationError: Not readable, or it holds none.
    """
    try:
        data = files.read(path, follow=True)
        if data.startswith(_DER_SEQUENCE):
            return (x509.load_der_x509_certificate(data),)
        return tuple(x509.load_pem_x509_certificates(data))
    except StateError as error:
        what = f"No CA certificate: {error.what}"
    except PARSE_ERRORS:
        what = f"{path} holds no certificate."
    raise ConfigurationError(what, remedy="Put the CA certificate there as PEM or DER, received on a trusted way.")


def _check_size(certificates: Sequence[x509.Certificate]) -> None:
    """Check 1."""
    if len(certificates) > CERTIFICATES_LIMIT:
        raise refused("too-large", f"The CA sent more than {CERTIFICATES_LIMIT} certificates.")
    if any(len(c.public_bytes(serialization.Encoding.DER)) > CERTIFICATE_LIMIT for c in certificates):
        raise refused("too-large", f"The CA sent a certificate of more than {CERTIFICATE_LIMIT} bytes.")


def _find(certificates: Iterable[x509.Certificate], public_key: PublicKey) -> x509.Certificate:
    """Check 2."""
    wanted = public_key_info(public_key)
    ours = {certificate for certificate in certificates if public_key_info_of(certificate) == wanted}
    if len(ours) != 1:
        count = "several certificates" if ours else "no certificate"
        raise refused("wrong-key", f"The CA sent {count} for the key that the request was made for.")
    return ours.pop()


def _check_new(content: _Content, certificate: x509.Certificate, seen: Iterable[x509.Certificate]) -> None:
    """Check 3: issuer and serial number are unique to a certificate (RFC 5280 4.1.2.2).

    The same certificate again is that of a commit which a crash cut short: it holds the key of this request.
    """
    number = _serial_number(certificate)
    if number <= 0 or number.bit_length() >= _SERIAL_BITS:  # the highest of 20 octets holds the sign
        raise refused("bad-serial", "The serial number is not a positive one of at most 20 octets.")
    others = (known for known in seen if known != certificate)
    if any((known.issuer, known.serial_number) == (content.issuer, number) for known in others):
        raise refused("not-new", "The CA sent a certificate with the serial number of one that this scanner has had.")


def _serial_number(certificate: x509.Certificate) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the numbers that are refused here
        return certificate.serial_number


def _check_names(content: _Content, request: CertificateRequest) -> None:
    """Check 4."""
    asked = Counter((attribute.oid, attribute.value) for attribute in request.subject)
    stated = Counter((a.oid, a.value) for a in content.subject if a.oid not in OWNERS_NAMES or _is_reserved(a))
    # A CA that proves the name it certifies leaves out what it has not proved; never what tells what is signed.
    may_lack = {NameOID.COMMON_NAME, NameOID.SERIAL_NUMBER} if request.proved_by_ca else set()
    lacking = {oid for oid, _ in asked - stated} - may_lack
    if stated - asked or lacking:
        what = f"The subject is {name_text(content.subject)!r}, not as asked: {name_text(request.subject)!r}."
        only_serial_number = lacking == {NameOID.SERIAL_NUMBER} and not stated - asked
        raise refused("wrong-names", what, _KEEP_SERIAL_NUMBER if only_serial_number else "")
    if content.alternative_names != request.alternative_names:
        asked_for = request.alternative_names_text or "none"
        raise refused("wrong-names", f"The subject alternative names are not as asked: {asked_for}.")


def _is_reserved(attribute: x509.NameAttribute[str | bytes]) -> bool:
    """Whether it tells what is signed. Who compares names ignores case and outer spaces (RFC 4518 2)."""
    unit = attribute.oid == NameOID.ORGANIZATIONAL_UNIT_NAME
    return unit and str(attribute.value).strip().casefold() in RESERVED_UNITS


def _check_usage(content: _Content, usage: Usage, *, for_host: bool) -> None:
    """Check 5: RFC 5280 4.2.1.3 and 4.2.1.12, RFC 9336 for document signing. CAs certify hosts as servers, too."""
    key_usage = _extension(content, x509.KeyUsage)
    if key_usage is None or not key_usage.digital_signature:
        raise refused("wrong-usage", "keyUsage does not allow digital signatures.")
    extended = _extension(content, x509.ExtendedKeyUsage)
    purposes = [] if extended is None else list(extended)
    if for_host and set(purposes) == {usage.extended_key_usage, ExtendedKeyUsageOID.SERVER_AUTH}:
        return
    if purposes != [usage.extended_key_usage]:
        named = ", ".join(purpose.dotted_string for purpose in purposes) or "missing"
        wanted = usage.extended_key_usage.dotted_string
        raise refused("wrong-usage", f"extendedKeyUsage is {named}; {wanted} alone was asked for.")


def _check_no_ca(content: _Content) -> None:
    """Check 6: RFC 5280 4.2.1.9."""
    constraints = _extension(content, x509.BasicConstraints)
    key_usage = _extension(content, x509.KeyUsage)
    if (constraints and constraints.ca) or (key_usage and (key_usage.key_cert_sign or key_usage.crl_sign)):
        raise refused("is-ca", "The certificate would allow the scanner to act as a CA.")


def _check_dates(certificate: x509.Certificate, now: datetime) -> None:
    """Check 7."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if begin > now + CLOCK_SKEW:
        raise refused("wrong-dates", f"The certificate begins at {begin}; here it is {now}. Is this clock right?")
    if end < now + MINIMUM_LIFETIME:
        raise refused("wrong-dates", f"The certificate ends at {end}; here it is {now}. Is this clock right?")


def _check_usage_period(granted: _UsagePeriod, asked: _UsagePeriod, now: datetime) -> None:
    """Check 7 for the key: RFC 3280 4.2.1.4. It signs in what was asked for and granted; none may be granted at all."""
    begin = max((moment for moment in (granted[0], asked[0]) if moment), default=now)
    end = min((moment for moment in (granted[1], asked[1]) if moment), default=None)
    if end is not None and end - max(now, begin) < MINIMUM_LIFETIME:
        raise refused("wrong-dates", f"The key may not sign before {begin} and not after {end}; here it is {now}.")


def _parse(certificate: x509.Certificate) -> _Content:
    try:
        if len(certificate.extensions) and certificate.version is not x509.Version.v3:
            raise refused("malformed", "The certificate has extensions and is not of version 3 (RFC 5280 4.1.2.1).")
        names, period = alternative_names(certificate), private_key_usage_period(certificate)
        return _Content(certificate.subject, certificate.issuer, certificate.extensions, names, period)
    except PARSE_ERRORS as error:
        raise refused("malformed", "The certificate cannot be read.") from error


def _extension(content: _Content, kind: type[Extension]) -> Extension | None:
    try:
        return content.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def public_key_info_of(certificate: x509.Certificate) -> bytes | None:
    """The key of a certificate, to be compared; None where it is of a kind that we never make."""
    try:
        return public_key_info(certificate.public_key())
    except PARSE_ERRORS:
        return None
