"""Damaged answers of a CA end in an error of ours, never in one of a library and never in a certificate."""

from __future__ import annotations

import base64
import contextlib
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from enroll.certificates import PARSE_ERRORS
from enroll.errors import CertificateRefused, ProtocolViolation
from enroll.flows.base import Enrollment, Issued
from enroll.flows.est import Credentials, EstFlow
from enroll.flows.settings import EstSettings
from enroll.http import Answer, HttpsSession
from enroll.trust import check_issued
from tests.support.clocks import SteppedClock
from tests.support.pki import NOW, REQUEST, HospitalCa, new_key
from tests.support.scripted_server import certs_only

KEY = new_key()
CA = HospitalCa()
CERTIFICATE = CA.issue(KEY.public_key(), end=NOW + timedelta(days=1))
ENCODED = CERTIFICATE.public_bytes(serialization.Encoding.DER)
MESSAGE = certs_only(CERTIFICATE, CA.certificate)


class CannedSession:
    """Answers every request with the same body."""

    def __init__(self, body: bytes) -> None:
        self.body = body

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
    answer = EstFlow(
        EstSettings(url="https://est.example"),
        session,
        SteppedClock(),
        Credentials("a", b"b", Path("password")),
        (CA.certificate,),
    ).enroll(Enrollment(KEY, REQUEST))
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
