"""Damaged answers of a CA end in an error of ours, never in one of a library and never in a certificate."""

from __future__ import annotations

import base64
import contextlib
import warnings
from datetime import timedelta
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from enroll.certificates import PARSE_ERRORS
from enroll.csr import build
from enroll.errors import CertificateRefused, ProtocolViolation
from enroll.est import attributes
from enroll.est.authentication import Password
from enroll.est.client import EstClient, address
from enroll.flows.base import Enrollment, Issued
from enroll.http import Answer, HttpsSession
from enroll.trust import check_issued
from tests.support.clocks import SteppedClock
from tests.support.csr_attributes import (
    EC_PUBLIC_KEY,
    EMAIL_ADDRESS,
    ORGANIZATION,
    P_384,
    UNIT,
    csr_attributes,
    oid,
    template,
    text,
)
from tests.support.pki import NOW, REQUEST, HospitalCa, new_key
from tests.support.scripted_server import certs_only

KEY = new_key()
CA = HospitalCa()
WANTED = csr_attributes(
    EMAIL_ADDRESS, (ORGANIZATION, text("Hospital")), template(((UNIT, text("Radiology")),), (EC_PUBLIC_KEY, oid(P_384)))
)
CERTIFICATE = CA.issue(KEY.public_key(), end=NOW + timedelta(days=1))
ENCODED = CERTIFICATE.public_bytes(serialization.Encoding.DER)
MESSAGE = certs_only(CERTIFICATE, CA.certificate)


class CannedSession:
    """Answers every request with the same body."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def get(self, *_: Any) -> Answer:
        return Answer(204, {}, b"")

    def post(self, *_: Any) -> Answer:
        return Answer(200, {"content-type": "application/pkcs7-mime"}, self.body)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The data with a few pieces replaced, which may be shorter or longer."""
    damage = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(damage)))
        damage[start : start + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(damage)


def ask(body: bytes) -> Issued:
    session = cast("HttpsSession", CannedSession(body))
    answer = EstClient(address("https://est.example", ""), session, SteppedClock()).enroll(Enrollment(KEY, REQUEST))
    assert isinstance(answer, Issued)
    return answer


def use(certificates: tuple[x509.Certificate, ...]) -> None:
    """Judge them; the signature of the CA leaves one certificate that may pass: the one that was issued."""
    anchors = [CA.certificate]
    try:
        verified = check_issued(certificates, [], anchors, public_key=KEY.public_key(), request=REQUEST, now=NOW)
    except CertificateRefused:
        return
    assert verified.certificate == CERTIFICATE


@given(damaged(MESSAGE))
def test_a_damaged_message(message: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        use(ask(base64.encodebytes(message)).certificates)


@given(st.one_of(st.binary(max_size=200), damaged(base64.encodebytes(MESSAGE))))
def test_a_damaged_body(body: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        use(ask(body).certificates)


@given(damaged(ENCODED))
def test_a_damaged_certificate(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            certificate = x509.load_der_x509_certificate(data)
        except (*PARSE_ERRORS, Warning):  # the warning is of what RFC 5280 forbids and old CAs did
            return
    use((certificate,))


@given(damaged(WANTED))
def test_a_damaged_list_of_wanted_attributes(data: bytes) -> None:
    """RFC 9908: whatever it says, a request can be made with it."""
    try:
        wanted = attributes.read(base64.encodebytes(data))
    except ProtocolViolation:
        return
    request = build(KEY, REQUEST, owners_names=wanted.owners_names)
    assert request.is_signature_valid
    assert tuple(request.subject)[: len(wanted.owners_names)] == wanted.owners_names
    assert all(text.isprintable() for text in (*wanted.ignored, wanted.unmet(KEY.public_key())))


@given(st.text(max_size=300), st.text(st.characters(codec="latin-1"), max_size=300))
def test_a_strange_challenge(challenge: str, tail: str) -> None:
    """RFC 9110 11.6.1: the answer, if there is one, is one header field and does not hold the password."""
    for header in (challenge, f'Digest realm="a", qop="auth", nonce={tail}', f"Basic {tail}, Digest {tail}"):
        answered = Password("scanner", b"pass-4711").answer(header, "POST", "https://est.example/est")
        assert "\r" not in answered
        assert "\n" not in answered
        assert "pass-4711" not in answered
