"""What an EST client does with a request: csrattrs, 202, keys that are out of reach (RFC 7030 4.2, 4.5, 3.5)."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

import pytest
from cryptography import x509
from cryptography.x509.oid import AttributeOID, NameOID

from enroll.certificates import decode_base64
from enroll.csr import build
from enroll.errors import ServerUnreachable
from enroll.est.authentication import BearerToken
from enroll.est.client import EstClient, address
from enroll.flows.base import HANDLE_LIMIT, Enrollment, Handle, Issued, OfferedEnrollment, Pending, Refused
from enroll.http import Answer, HttpsSession
from enroll.keystore.base import Protection
from tests.support.clocks import SteppedClock
from tests.support.csr_attributes import CHALLENGE_PASSWORD, ORGANIZATION, Named, csr_attributes, text
from tests.support.pki import REQUEST, HospitalCa, new_key
from tests.support.scripted_server import certs_only

CA = HospitalCa()
KEY = new_key()
WAIT = Answer(202, {"retry-after": "600"}, b"")
TLS_UNIQUE = b"tls-unique.."


@dataclass
class Session:
    """A server that wants some attributes, and the bodies and headers of what was sent to it."""

    wanted: tuple[str | Named, ...] = ()
    answer: Answer | None = None
    sent: list[x509.CertificateSigningRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def get(self, url: str, headers: dict[str, str]) -> Answer:
        self.headers.append(headers)
        body = base64.encodebytes(csr_attributes(*self.wanted))
        return Answer(200, {"content-type": "application/csrattrs"}, body)

    def post(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        self.headers.append(headers)
        self.sent.append(x509.load_der_x509_csr(decode_base64(body)))
        issued = base64.encodebytes(certs_only(CA.issue(KEY.public_key())))
        return self.answer or Answer(200, {"content-type": "application/pkcs7-mime"}, issued)

    def post_linked(self, url: str, headers: dict[str, str], make_body: object) -> Answer:
        assert callable(make_body)
        return self.post(url, headers, make_body(TLS_UNIQUE))


def client(session: Session, authorization: BearerToken | None = None) -> EstClient:
    spoken: HttpsSession = session  # type: ignore[assignment]
    return EstClient(address("https://est.example/", ""), spoken, SteppedClock(), authorization)


def offered() -> OfferedEnrollment:
    return OfferedEnrollment(build(KEY, REQUEST), REQUEST, KEY.public_key(), Protection.MEMORY)


def test_the_address_has_the_label_where_there_is_one() -> None:
    """RFC 7030 3.2.2."""
    assert address("https://est.example/", "") == "https://est.example/.well-known/est"
    assert address("https://est.example", "imaging") == "https://est.example/.well-known/est/imaging"


def test_the_owners_names_stand_in_a_first_request_and_not_in_a_renewal() -> None:
    """RFC 7030 4.2.2: a renewal repeats the subject to the letter."""
    session = Session((((ORGANIZATION, text("Hospital"))),))
    certificate = CA.issue(KEY.public_key())

    assert isinstance(client(session).enroll(Enrollment(KEY, REQUEST)), Issued)
    client(session).enroll(Enrollment(KEY, REQUEST), certificate)

    first, renewal = session.sent
    assert [name.value for name in first.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == ["Hospital"]
    assert renewal.subject == certificate.subject


def test_a_linked_request_holds_tls_unique_in_base64() -> None:
    """RFC 7030 3.5."""
    session = Session((CHALLENGE_PASSWORD,))

    client(session).enroll(Enrollment(KEY, REQUEST))

    (sent,) = session.sent
    password = sent.attributes.get_attribute_for_oid(AttributeOID.CHALLENGE_PASSWORD)
    assert password.value == base64.b64encode(TLS_UNIQUE)
    assert sent.is_signature_valid


def test_a_key_out_of_reach_cannot_be_linked_and_nothing_is_sent() -> None:
    session = Session((CHALLENGE_PASSWORD,))

    answer = client(session).enroll(offered())

    assert isinstance(answer, Refused)
    assert "key_store" in answer.advice
    assert session.sent == []


def test_what_was_signed_by_somebody_else_is_sent_as_it_is() -> None:
    session, asked = Session((((ORGANIZATION, text("Hospital"))),)), offered()

    client(session).enroll(asked)

    assert session.sent == [asked.signed]


def test_a_request_that_waits_is_repeated_to_the_letter() -> None:
    """RFC 7030 4.2.3: also by another process, which has nothing but the handle."""
    session = Session(answer=WAIT)
    handle = Handle()

    assert isinstance(client(session).enroll(Enrollment(KEY, REQUEST, handle=handle)), Pending)
    client(session).enroll(Enrollment(KEY, REQUEST, handle=Handle(handle.text)))

    first, second = session.sent
    assert first == second
    assert len(handle.text) <= HANDLE_LIMIT


@pytest.mark.parametrize("damaged", ["", "garbage", "MAA="])
def test_a_handle_that_says_nothing_is_replaced(damaged: str) -> None:
    session, handle = Session(), Handle(damaged)

    client(session).enroll(Enrollment(KEY, REQUEST, handle=handle))

    assert x509.load_der_x509_csr(base64.b64decode(handle.text)) == session.sent[0]


def test_another_request_than_before_is_made_anew() -> None:
    """Such as where the CA wants other names by now."""
    session, handle = Session(answer=WAIT), Handle()
    client(session).enroll(Enrollment(KEY, REQUEST, handle=handle))
    session.wanted = ((ORGANIZATION, text("Hospital")),)

    client(session).enroll(Enrollment(KEY, REQUEST, handle=handle))

    first, second = session.sent
    assert first.subject != second.subject


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_server_that_cannot_answer_now_has_not_refused(status: int) -> None:
    """RFC 9110 15.5.9, 15.6.4, RFC 6585 4: the request goes on with its key."""
    with pytest.raises(ServerUnreachable):
        client(Session(answer=Answer(status, {}, b""))).enroll(Enrollment(KEY, REQUEST))


def test_a_challenge_that_nothing_here_answers_is_told() -> None:
    """RFC 9110 11.6.1: the CA asks for a password, and none is configured."""
    session = Session(answer=Answer(401, {"www-authenticate": 'Basic realm="est"'}, b""))

    answer = client(session).enroll(Enrollment(KEY, REQUEST))

    assert isinstance(answer, Refused)
    assert 'Basic realm="est"' in answer.advice


def test_a_token_goes_along_with_the_request_and_with_nothing_else() -> None:
    """RFC 6750 2.1; csrattrs is for everybody (RFC 7030 4.5.2)."""
    session = Session()

    client(session, BearerToken("a.b.c")).enroll(Enrollment(KEY, REQUEST))

    assert [headers.get("Authorization") for headers in session.headers] == [None, "Bearer a.b.c"]


def test_a_refused_token_is_not_sent_again() -> None:
    session = Session(answer=Answer(401, {"www-authenticate": "Bearer"}, b""))

    answer = client(session, BearerToken("a.b.c", "Get another ticket.")).enroll(Enrollment(KEY, REQUEST))

    assert isinstance(answer, Refused)
    assert answer.advice == "Get another ticket."
    assert len(session.sent) == 1
