"""A key that signs images, with its certificate: when it may sign, and how. Runs in the keyholder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from agent.daemon.wire import HashName
from agent.errors import CertificateNotUsable, SigningError
from enroll.certificates import PARSE_ERRORS, check_pair, private_key_usage_period
from enroll.clock_sense import TimeSense
from enroll.errors import (
    CA_OPERATOR,
    KeyDamaged,
    KeyNotFound,
    KeyStoreError,
    KeyStoreUnavailable,
    StateError,
    UnsupportedKey,
)
from enroll.flows.settings import FlowName
from enroll.identity import Generation, IdentityName
from enroll.keystore import KeyStores
from enroll.keystore.base import Protection
from enroll.proves import Proves, proves
from enroll.revocation.lists import Revocation

_LAST_SECOND = timedelta(seconds=1)  # GeneralizedTime has whole seconds, and the last one counts

HASHES: Mapping[HashName, Prehashed] = {
    HashName.SHA256: Prehashed(hashes.SHA256()),
    HashName.SHA384: Prehashed(hashes.SHA384()),
    HashName.SHA512: Prehashed(hashes.SHA512()),
}


@dataclass(frozen=True)
class Period:
    """A stretch of time.

    Args:
        begin: Its first moment.
        end: The first moment after it.
    """

    begin: datetime
    end: datetime

    def covers(self, moment: datetime) -> bool:
        """Whether a moment lies in it."""
        return self.begin <= moment < self.end

    def within(self, other: Period) -> Period:
        """What both have in common."""
        return Period(max(self.begin, other.begin), min(self.end, other.end))


ALWAYS = Period(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


@dataclass(frozen=True)
class ActiveKey:
    """A generation of an identity that signs, whose key is loaded and belongs to its certificate.

    Args:
        generation: Which.
        key: The key.
        certificate: DER.
        protection: Where the key really lives, as its store says now.
        usage: When the key may sign; the certificate's validity lies on top of it.
        signatures_per_second: What its token was measured to make; None where it was not measured.
        revocation: Of its certificate, where the CA has revoked it.
    """

    generation: Generation
    key: rsa.RSAPrivateKey = field(repr=False)
    certificate: bytes = field(repr=False)
    protection: Protection
    usage: Period
    signatures_per_second: float | None = None
    revocation: Revocation | None = None

    @classmethod
    def load(cls, generation: Generation, stores: KeyStores, usage: Period = ALWAYS) -> ActiveKey:
        """Load the key and check that it fits.

        Args:
            generation: Which.
            stores: Where its key is.
            usage: When the key may sign, whatever the certificate grants; what that grants narrows it.

        Raises:
            KeyStoreError: It cannot be loaded, is not RSA, or belongs to another certificate.
            StateError: The certificate cannot be read.
        """
        key = stores.load(generation.key_uri)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise UnsupportedKey(
                f"The key of the identity {generation.identity} is not an RSA key.",
                remedy="Image signatures need RSA (PS3.15 C.2): "
                f"set identity.{generation.identity}.key_algorithm and enroll again.",
            )
        certificate = generation.certificate
        check_pair(key, certificate)
        return cls(
            generation=generation,
            key=key,
            certificate=certificate.public_bytes(serialization.Encoding.DER),
            protection=stores.protection(generation.key_uri),
            usage=_granted(certificate).within(usage),
        )

    @cached_property
    def proves(self) -> Proves:
        """Whom its certificate speaks for."""
        return proves(self.generation.certificate)

    @property
    def signs_until(self) -> datetime:
        """When it stops to sign, by the key's period or by the certificate's validity."""
        return min(self.usage.end, self.generation.certificate.not_valid_after_utc)

    def judged_at(self, sense: TimeSense) -> datetime:
        """The moment at which to ask whether it may sign: nothing ends by a clock that is not believed."""
        certificate = self.generation.certificate
        begin = max(certificate.not_valid_before_utc, self.usage.begin)
        return sense.within(begin, self.signs_until)

    def refusal(self, now: datetime) -> CertificateNotUsable | None:
        """Why nothing can be signed at `now`, or nothing."""
        if self.revocation is not None:
            return _revoked(self.revocation, self.generation)
        certificate = self.generation.certificate
        begin = max(certificate.not_valid_before_utc, self.usage.begin)
        if now < begin:
            return CertificateNotUsable(
                f"The certificate is valid from {begin:%Y-%m-%d %H:%M} UTC on.",
                remedy="Check the clock of this machine.",
                code="certificate-not-yet-valid",
            )
        if now > certificate.not_valid_after_utc:
            return CertificateNotUsable(
                f"The certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC.",
                remedy="Run `scanseal renew`, and check the clock of this machine.",
            )
        if now >= self.usage.end:
            return key_expired(self.usage.end)
        return None

    def sign(self, digest: bytes, hash_name: HashName, now: datetime) -> bytes:
        """RSASSA-PKCS1-v1_5 over a digest (PS3.15 C.1).

        Raises:
            CertificateNotUsable: Not within the validity of the certificate or the usage period of the key, or revoked.
            SigningError: The key store failed.
        """
        if (refusal := self.refusal(now)) is not None:
            raise refusal
        try:
            return self.key.sign(digest, padding.PKCS1v15(), HASHES[hash_name])
        except KeyStoreError as error:
            raise signing_error(error, self.generation.identity, self.generation.flow) from error


def key_expired(end: datetime) -> CertificateNotUsable:
    """What to raise for a key whose time to sign is over (RFC 3280 4.2.1.4), while its certificate goes on."""
    return CertificateNotUsable(
        f"The key may not sign any more since {end:%Y-%m-%d %H:%M} UTC; what it has signed stays valid.",
        remedy="Run `scanseal renew`, and check the clock of this machine.",
        code="key-expired",
    )


def _revoked(revocation: Revocation, generation: Generation) -> CertificateNotUsable:
    reason = revocation.reason or "no reason is given"
    if revocation.is_final:
        command = enrolling(generation.identity, generation.flow)
        remedy = f"Find out why. Then run `{command}` for a new certificate; no restart is needed."
    else:
        remedy = "Ask the CA's operator: it is on hold. When that is over, signing goes on by itself."
    return CertificateNotUsable(
        f"The CA has revoked the certificate on {revocation.at:%Y-%m-%d %H:%M} UTC ({reason}).",
        remedy=remedy,
        code="certificate-revoked",
        who_must_act=CA_OPERATOR,
    )


def signing_error(error: KeyStoreError, name: IdentityName, way: str = "") -> SigningError:
    """A failure of the key store as a caller of the socket is told."""
    if isinstance(error, KeyDamaged | KeyNotFound):
        remedy = f"Run: {enrolling(name, way)}, and have the CA revoke the old certificate."
        return SigningError(error.what, remedy=remedy, code=KeyDamaged.code)
    code = error.code if isinstance(error, KeyStoreUnavailable) else None
    return SigningError(error.what, remedy=error.remedy, code=code)


def enrolling(name: IdentityName, way: str = "") -> str:
    """The command that gets an identity a new key and certificate; without `way` one that says which there are."""
    if name is IdentityName.VENDOR:
        return "scanseal enroll vendor"  # which says that there are two ways
    # Without the option the device identity and the one for originals are enrolled: the first step in any case.
    first = name in (IdentityName.DEVICE, IdentityName.SIGNING) or way == FlowName.FDO
    if first:
        return f"scanseal enroll {way}".rstrip()
    return f"scanseal enroll {way or 'WAY'} --identity {name}"


def _granted(certificate: x509.Certificate) -> Period:
    """When the key may sign according to its certificate."""
    try:
        first, last = private_key_usage_period(certificate) or (None, None)
    except PARSE_ERRORS as error:
        raise StateError("The extensions of the certificate cannot be read.", remedy="Enroll again.") from error
    if last is None or last > ALWAYS.end - _LAST_SECOND:  # RFC 5280 4.1.2.5: the last second there is stands for none
        return Period(first or ALWAYS.begin, ALWAYS.end)
    return Period(first or ALWAYS.begin, last + _LAST_SECOND)
