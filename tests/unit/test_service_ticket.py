"""The service ticket (RFC 7519): read strictly, good for one device, one nonce and a short time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from enroll.errors import EnrollmentRefused
from enroll.identity import IdentityName
from enroll.vendor.ticket import LONGEST_LIFETIME, TICKET_LIMIT, ServiceTicket, read_ticket, sign_ticket, verify_ticket
from tests.support.pki import NOW

KEY = ec.generate_private_key(ec.SECP256R1())
NONCE = "H2Q7H76H427B76ZZ"
TICKET = ServiceTicket(
    issuer="the vendor",
    audience="its service",
    serial_number="CT-000123",
    nonce=NONCE,
    identifier="0001",
    issued_at=NOW,
    not_before=NOW,
    expires_at=NOW + timedelta(hours=24),
    identities=frozenset({IdentityName.IDEVID}),
    organization="St Elsewhere",
)
CLAIMS: dict[str, Any] = {
    "iss": "the vendor",
    "aud": "its service",
    "sub": "CT-000123",
    "nonce": NONCE,
    "jti": "0001",
    "iat": int(NOW.timestamp()),
    "nbf": int(NOW.timestamp()),
    "exp": int(NOW.timestamp()) + 86400,
    "identities": ["idevid"],
}
HEADER = {"alg": "ES256", "typ": "scanseal-ticket+jwt"}
SECRET_OF_CONFUSION = KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def es256(signed: bytes) -> bytes:
    """RFC 7518 3.4, by an encoder of the test's own."""
    halves = decode_dss_signature(KEY.sign(signed, ec.ECDSA(hashes.SHA256())))
    return b"".join(half.to_bytes(32, "big") for half in halves)


def ticket(header: object = HEADER, claims: object = CLAIMS, sign: Callable[[bytes], bytes] = es256) -> str:
    parts = (part if isinstance(part, str) else json.dumps(part) for part in (header, claims))
    signed = ".".join(base64url(part.encode()) for part in parts)
    return f"{signed}.{base64url(sign(signed.encode('ascii')))}"


def changed(**claims: object) -> dict[str, object]:
    return {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}


RIGHT = ticket()
HOSTILE = {
    "alg none": ticket({**HEADER, "alg": "none"}),
    "alg none, without a signature": ticket({**HEADER, "alg": "none"}, sign=lambda _: b""),
    "HS256 with the public key as its secret": ticket(
        {**HEADER, "alg": "HS256"}, sign=lambda signed: hmac.digest(SECRET_OF_CONFUSION, signed, hashlib.sha256)
    ),
    "a critical header": ticket({**HEADER, "crit": ["b64"], "b64": False}),
    "a key in the header": ticket({**HEADER, "jwk": {}}),
    "another type": ticket({**HEADER, "typ": "JWT"}),
    "no type": ticket({"alg": "ES256"}),
    "1 MB": ticket(claims=changed(filler="a" * 1_000_000)),
    "deep JSON": ticket(claims="[" * 2500),
    "a deep claim": ticket(claims='{"sub": ' + "[" * 2500),
    "a claim twice": ticket(claims=json.dumps(CLAIMS)[:-1] + ', "sub": "CT-000999"}'),
    "no JSON": ticket(claims="{"),
    "a list": ticket(claims=[CLAIMS]),
    "UTF-16": ticket(claims="\ufeff{}"),
    "NaN": ticket(claims=changed(exp=float("nan"))),
    "a time that is a fraction": ticket(claims=changed(exp=CLAIMS["exp"] + 0.5)),
    "a time that is a text": ticket(claims=changed(exp=str(CLAIMS["exp"]))),
    "a time that is true": ticket(claims=changed(nbf=True)),
    "a time beyond all calendars": ticket(claims=changed(exp=10**18)),
    "a time of 5000 digits": ticket(
        claims=json.dumps(CLAIMS).replace(f'"exp": {CLAIMS["exp"]}', '"exp": 1' + "0" * 2000)
    ),
    "no end": ticket(claims=changed(exp=None)),
    "it ends before it begins": ticket(claims=changed(exp=CLAIMS["iat"] - 1)),
    "it began a year ago": ticket(claims=changed(nbf=CLAIMS["nbf"] - 365 * 86400)),
    "it lives for a year": ticket(claims=changed(exp=CLAIMS["iat"] + 365 * 86400)),
    "no device": ticket(claims=changed(sub=None)),
    "a device with a line end": ticket(claims=changed(sub="CT\n1")),
    "half a surrogate": ticket(claims=changed(sub="\ud800")),
    "no identity": ticket(claims=changed(identities=[])),
    "an identity of the owner": ticket(claims=changed(identities=["idevid", "signing"])),
    "identities in an object": ticket(claims=changed(identities={"idevid": 1})),
    "an endless organization": ticket(claims=changed(organization="x" * 65)),
    "a byte too much in the signature": ticket(sign=lambda signed: es256(signed) + b"\0"),
    "two parts": ticket().rpartition(".")[0],
    "four parts": ticket() + ".e30",
    "padding": ticket().replace(".", "=.", 1),
    "white space": ticket() + "\n",
    "another form of the same base64": f"{RIGHT[:-1]}{chr(ord(RIGHT[-1]) + 1)}",
    "nothing": "",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_ticket_is_refused_with_a_reason_by_both_sides(text: str) -> None:
    for reader in (read_ticket, lambda hostile: verify_ticket(hostile, KEY.public_key())):
        with pytest.raises(EnrollmentRefused) as refused:
            reader(text)
        assert refused.value.code == "ticket-malformed"
        assert refused.value.who_must_act == "vendor service"
        assert NONCE not in str(refused.value)


def test_a_ticket_says_what_was_put_into_it() -> None:
    text = sign_ticket(TICKET, KEY)

    assert len(text) < TICKET_LIMIT / 4
    assert read_ticket(text) == verify_ticket(text, KEY.public_key()) == TICKET


def test_the_ticket_of_another_implementation_is_read_and_what_is_unknown_in_it_is_ignored() -> None:
    """RFC 7519 4: claims that are not understood are ignored."""
    read = verify_ticket(ticket(claims=changed(organization="St Elsewhere", note="hello")), KEY.public_key())

    assert read == TICKET


def test_the_signature_counts_for_the_service() -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    forged = ticket(claims=changed(sub="CT-000999")).rpartition(".")[0] + "." + ticket().rpartition(".")[2]

    for text, key in (
        (ticket(), other),
        (forged, KEY.public_key()),
        (ticket(sign=lambda _: bytes(64)), KEY.public_key()),
    ):
        with pytest.raises(EnrollmentRefused) as refused:
            verify_ticket(text, key)
        assert refused.value.code == "ticket-signature-wrong"


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"now": TICKET.expires_at}, "ticket-expired"),
        ({"now": NOW - timedelta(minutes=6)}, "ticket-not-yet-valid"),
        ({"serial_number": "CT-000999"}, "ticket-other-device"),
        ({"nonce": "H2Q7H76H427B76ZY"}, "ticket-other-nonce"),
        ({"identity": IdentityName.VENDOR}, "ticket-other-identity"),
    ],
)
def test_it_is_for_one_device_one_nonce_a_time_and_its_identities(asked: dict[str, Any], code: str) -> None:
    right: dict[str, Any] = {"serial_number": "CT-000123", "nonce": NONCE, "identity": IdentityName.IDEVID, "now": NOW}
    TICKET.check(**right)

    with pytest.raises(EnrollmentRefused) as refused:
        TICKET.check(**right | asked)
    assert refused.value.code == code
    assert refused.value.remedy
    assert NONCE not in str(refused.value)


def test_a_clock_that_is_slow_by_a_little_is_forgiven() -> None:
    TICKET.check("CT-000123", NONCE, IdentityName.IDEVID, NOW - timedelta(minutes=4))


def test_the_longest_ticket_lives_thirty_days() -> None:
    longest = int(LONGEST_LIFETIME.total_seconds())
    read_ticket(ticket(claims=changed(exp=CLAIMS["iat"] + longest)))

    with pytest.raises(EnrollmentRefused):
        read_ticket(ticket(claims=changed(exp=CLAIMS["iat"] + longest + 1)))


def test_the_nonce_and_the_ticket_are_in_no_repr() -> None:
    assert NONCE not in repr(TICKET)
