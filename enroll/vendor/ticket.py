"""The service ticket: the vendor's word that this device may have certificates, once and for a short time.

A JSON Web Token (RFC 7519) in the compact form (RFC 7515 7.1), signed with ES256 and nothing else:

    header   {"alg": "ES256", "typ": "scanseal-ticket+jwt"}
    payload  iss, aud     who made the ticket, and whose provisioning service takes it
             sub          serial number of the device
             nonce        what the device showed on its screen (`enroll.vendor.case`)
             jti          of the ticket: each of its identities is issued once
             iat nbf exp  seconds since 1970; it lives 30 days at most, from the earlier of the first two
             identities   "idevid", "vendor", or both
             organization, unit     of the customer, for the certificate that signs; may be missing

The device reads it for early and friendly errors: it has no key to verify it with, and needs none. What decides is the
service: it verifies the signature, and that the request is signed with the nonce inside by the key that is certified.
So a ticket that was stolen on its way is of no use on another device.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from enroll.errors import VENDOR_SERVICE, EnrollmentRefused
from enroll.identity import IdentityName
from enroll.trust import CLOCK_SKEW

TICKET_LIMIT = 4096  # characters
LONGEST_LIFETIME = timedelta(days=30)
IDENTITIES = frozenset({IdentityName.IDEVID, IdentityName.VENDOR})

_HEADER = {"alg": "ES256", "typ": "scanseal-ticket+jwt"}
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}", re.ASCII)
_TEXT_SIZES = range(1, 256)  # characters
_CUSTOMER_SIZES = range(65)  # ub-organization-name of RFC 5280 appendix A.1
_LATEST = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
_COORDINATE = 32  # bytes of each half of a signature (RFC 7518 3.4)


@dataclass(frozen=True)
class ServiceTicket:
    """What a ticket says.

    Args:
        issuer: Who made it.
        audience: Whose service takes it.
        serial_number: Of the device.
        nonce: As the device showed it.
        identifier: Of the ticket; no other has it.
        issued_at: When it was made.
        not_before: When it begins.
        expires_at: When it ends.
        identities: What the device may have.
        organization: Of the customer; empty for none.
        unit: A unit of that; empty for none.
    """

    issuer: str
    audience: str
    serial_number: str
    nonce: str = field(repr=False)
    identifier: str
    issued_at: datetime
    not_before: datetime
    expires_at: datetime
    identities: frozenset[IdentityName]
    organization: str = ""
    unit: str = ""

    def check(self, serial_number: str, nonce: str, identity: IdentityName, now: datetime) -> None:
        """Whether it is for this request.

        Args:
            serial_number: Of the device that asks.
            nonce: Of the device that asks.
            identity: What it asks for.
            now: The time.

        Raises:
            EnrollmentRefused: It is not; `code` says why.
        """
        if now >= self.expires_at:
            raise _refused("expired", f"The ticket expired on {self.expires_at:%Y-%m-%d %H:%M} UTC.")
        if now < self.not_before - CLOCK_SKEW:
            raise _refused("not-yet-valid", f"The ticket begins on {self.not_before:%Y-%m-%d %H:%M} UTC.")
        if serial_number != self.serial_number:
            raise _refused("other-device", f"The ticket is for the device {self.serial_number}.")
        if nonce != self.nonce:
            raise _refused("other-nonce", "The ticket is for another nonce than the one that this device shows.")
        if identity not in self.identities:
            raise _refused("other-identity", f"The ticket is not for the identity {identity}.")


def read_ticket(text: str) -> ServiceTicket:
    """What a ticket says. Its signature is not looked at.

    Raises:
        EnrollmentRefused: It is none, or larger, longer-lived or otherwise than allowed (`ticket-malformed`).
    """
    if len(text) > TICKET_LIMIT or not _COMPACT.fullmatch(text):
        raise _malformed(f"it is no compact JWS of at most {TICKET_LIMIT} characters")
    header, payload, signature = text.split(".")
    _decoded(signature)
    if _members(header) != _HEADER:
        raise _malformed("its header is not that of a service ticket signed with ES256")
    claims = _members(payload)
    lifetime = _time(claims, "exp") - min(_time(claims, "iat"), _time(claims, "nbf"))
    if not timedelta() < lifetime <= LONGEST_LIFETIME:
        raise _malformed(f"it lives longer than {LONGEST_LIFETIME.days} days, or not at all")
    return ServiceTicket(
        issuer=_text(claims, "iss"),
        audience=_text(claims, "aud"),
        serial_number=_text(claims, "sub"),
        nonce=_text(claims, "nonce"),
        identifier=_text(claims, "jti"),
        issued_at=_time(claims, "iat"),
        not_before=_time(claims, "nbf"),
        expires_at=_time(claims, "exp"),
        identities=_identities(claims),
        organization=_text({"organization": "", **claims}, "organization", _CUSTOMER_SIZES),
        unit=_text({"unit": "", **claims}, "unit", _CUSTOMER_SIZES),
    )


def verify_ticket(text: str, key: ec.EllipticCurvePublicKey) -> ServiceTicket:
    """What a ticket says, after its signature has been verified.

    Args:
        text: The ticket.
        key: P-256, of whoever makes tickets.

    Raises:
        EnrollmentRefused: It is none, or was made by somebody else.
    """
    ticket = read_ticket(text)
    signed, _, encoded = text.rpartition(".")
    signature = _decoded(encoded)
    halves = signature[:_COORDINATE], signature[_COORDINATE:]
    try:
        in_der = encode_dss_signature(*(int.from_bytes(half, "big") for half in halves))
        key.verify(in_der, signed.encode("ascii"), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise _refused("signature-wrong", "The ticket was not made by the vendor's service.") from error
    return ticket


def sign_ticket(ticket: ServiceTicket, key: ec.EllipticCurvePrivateKey) -> str:
    """Make a ticket; the vendor's side.

    Args:
        ticket: What it says.
        key: P-256.
    """
    claims = {
        "iss": ticket.issuer,
        "aud": ticket.audience,
        "sub": ticket.serial_number,
        "nonce": ticket.nonce,
        "jti": ticket.identifier,
        "iat": int(ticket.issued_at.timestamp()),
        "nbf": int(ticket.not_before.timestamp()),
        "exp": int(ticket.expires_at.timestamp()),
        "identities": sorted(ticket.identities),
        "organization": ticket.organization,
        "unit": ticket.unit,
    }
    signed = f"{_encoded(_HEADER)}.{_encoded({name: value for name, value in claims.items() if value})}"
    halves = decode_dss_signature(key.sign(signed.encode("ascii"), ec.ECDSA(hashes.SHA256())))
    signature = b"".join(half.to_bytes(_COORDINATE, "big") for half in halves)
    return f"{signed}.{_base64url(signature)}"


def _members(part: str) -> dict[str, Any]:
    """The object in one part. RFC 7515 4 and RFC 7519 4: a name that is there twice is refused."""
    try:
        text = _decoded(part).decode("utf-8")
        value = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _malformed("it holds no proper JSON") from error
    if not isinstance(value, dict):
        raise _malformed("it holds no JSON object")
    return value


def _without_duplicates(members: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(members)
    if len(names) != len(members):
        raise ValueError("a name twice")
    return names


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are no JSON (RFC 8259 6)


def _text(claims: Mapping[str, Any], name: str, sizes: range = _TEXT_SIZES) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or len(value) not in sizes or not value.isprintable():
        raise _malformed(f"its claim {name} is missing, or no short text")
    return value


def _time(claims: Mapping[str, Any], name: str) -> datetime:
    value = claims.get(name)
    if type(value) is not int or not 0 < value < _LATEST:
        raise _malformed(f"its claim {name} is missing, or no time in whole seconds")
    return datetime.fromtimestamp(value, UTC)


def _identities(claims: Mapping[str, Any]) -> frozenset[IdentityName]:
    value = claims.get("identities")
    if not isinstance(value, list) or not value or any(name not in list(IDENTITIES) for name in value):
        raise _malformed(f"its claim identities is missing, or names others than {', '.join(sorted(IDENTITIES))}")
    return frozenset(map(IdentityName, value))


def _decoded(part: str) -> bytes:
    """base64url without padding, each value in its one form (RFC 7515 2)."""
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError as error:
        raise _malformed("it is not base64url") from error
    if _base64url(data) != part:
        raise _malformed("it is not base64url in its one form")
    return data


def _encoded(members: Mapping[str, Any]) -> str:
    return _base64url(json.dumps(members, separators=(",", ":")).encode("ascii"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _malformed(why: str) -> EnrollmentRefused:
    return _refused("malformed", f"This is no service ticket: {why}.")


def _refused(why: str, what: str) -> EnrollmentRefused:
    return EnrollmentRefused(
        what,
        remedy="Ask for a new ticket: scanseal enroll vendor request",
        who_must_act=VENDOR_SERVICE,
        what_next="Nothing was changed.",
        code=f"ticket-{why}",
    )
