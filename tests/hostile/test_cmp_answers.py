"""What a CMP server, or whoever sits between, may send instead of an answer: nothing of it brings a certificate.

Each case is a lie with the clause that it breaks. All answers but the unsigned ones are signed properly by somebody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from enroll import der
from enroll.csr import DOCUMENT_SIGNING
from enroll.errors import CertificateRefused, EnrollmentError, ProtocolViolation, ServerUnreachable
from enroll.flows.base import LONGEST_WAIT, Enrollment, Handle, Issued, Pending, Refused
from enroll.flows.cmp import syntax
from enroll.flows.cmp.syntax import Body
from enroll.flows.cmp.transaction import MESSAGE_LIMIT
from enroll.time_stamp_syntax import decoded, encoded, whole
from enroll.trust import check_issued
from tests.support.byte_mutation import mutations
from tests.support.clocks import SteppedClock
from tests.support.cmp_answers import (
    CA,
    CERTIFICATE,
    ENROLLMENT,
    KEY,
    SERVER,
    VENDOR,
    Request,
    Script,
    ScriptedSession,
    Server,
    assemble,
    confirm,
    error,
    flow,
    issue,
    reply,
    response,
    server_certificate,
    status,
    waiting,
)
from tests.support.pki import CA_KEY_USAGE, NOW, REQUEST, HospitalCa, new_key

_FOREIGN = HospitalCa("Hospital CA")  # the same name, another key
_RSA_1024 = rsa.generate_private_key(65537, 1024)  # noqa: S505 - to be refused


def signed_with(**changes: Any) -> Script:
    """A right answer by a server with another certificate of the hospital's CA."""
    key = new_key()
    server = Server(key, server_certificate(key, **changes))
    return lambda request: server.message(request, Body.IP, reply(response()))


def by(server: Server) -> Script:
    return lambda request: server.message(request, Body.IP, reply(response()))


def below_web_ca(request: Request) -> bytes:
    """An authority passes on no more than it has itself."""
    authority, key = HospitalCa("Web CA", CA, extended_usage=(ExtendedKeyUsageOID.SERVER_AUTH,)), new_key()
    extra = [syntax.der_of(server_certificate(key, authority)), syntax.der_of(authority.certificate)]
    return Server(key, extra=extra).message(request, Body.IP, reply(response()))


def header(**changes: object) -> Script:
    return lambda request: SERVER.message(request, Body.IP, reply(response()), **changes)


def content(data: bytes, body: int = Body.IP) -> Script:
    return lambda request: SERVER.message(request, body, data)


def raw(data: bytes) -> Script:
    return lambda _: data


def changed(change: Callable[[syntax.PkiMessage], object]) -> Script:
    """A right answer whose outermost parts were changed afterwards."""

    def script(request: Request) -> bytes:
        message = decoded(syntax.PkiMessage, issue(request))
        change(message)
        return encoded(message)

    return script


def without_signature(message: syntax.PkiMessage) -> None:
    message.protection = None


def another_body(message: syntax.PkiMessage) -> None:
    other = CA.issue(KEY.public_key(), begin=NOW - timedelta(days=1))
    message.body = syntax.undecoded(der.encode(Body.IP.tag, reply(response(other))))


def unused_bits(message: syntax.PkiMessage) -> None:
    assert message.protection is not None
    message.protection = asn1.BitString(message.protection.as_bytes()[:-1] + b"\x00", 1)


def algorithm(dotted: str, parameters: bytes = b"") -> Script:
    value = der.encode(der.SEQUENCE, der.object_identifier(dotted) + parameters)
    return header(protection_alg=[syntax.undecoded(value)])


def pair(certificate: bytes, **changes: object) -> bytes:
    fields = {"private_key": None, "publication_info": None, **changes}
    value = syntax.CertifiedKeyPair(cert_or_enc_cert=syntax.undecoded(certificate), **fields)  # type: ignore[arg-type]
    return reply(response(certified_key_pair=value))


def unsigned_error(request: Request) -> bytes:
    message = decoded(syntax.PkiMessage, SERVER.message(request, Body.ERROR, error(status(2, "go away"))))
    return assemble(whole(message.header), whole(message.body), None, None)


def deep(levels: int) -> bytes:
    nested = b""
    for _ in range(levels):
        nested = der.encode(der.SEQUENCE, nested)
    return nested


_PLAIN = der.encode(0xA0, syntax.der_of(CERTIFICATE))
_SECRET = [syntax.undecoded(der.encode(der.SEQUENCE, b""))]
_NO_SIGNING = x509.KeyUsage(*(False, False, True, *[False] * 6))

VIOLATIONS: dict[str, Script] = {
    # Protection: RFC 9483 3.2, 3.5; RFC 9810 5.1.3
    "no-signature": changed(without_signature),
    "unsigned-error": unsigned_error,
    "signature-of-another-body": changed(another_body),
    "signature-with-unused-bits": changed(unused_bits),
    "signature-by-another-key": by(Server(new_key(), SERVER.certificate or server_certificate(new_key()))),
    "signer-of-another-ca": by(Server(key := new_key(), server_certificate(key, VENDOR))),
    "signer-of-a-namesake-of-the-ca": by(Server(key := new_key(), server_certificate(key, _FOREIGN))),
    "signer-is-another-scanner": signed_with(extended_usage=(ExtendedKeyUsageOID.CLIENT_AUTH,)),
    "signer-signs-documents": signed_with(extended_usage=(DOCUMENT_SIGNING,)),
    "signer-is-a-web-server": signed_with(extended_usage=(ExtendedKeyUsageOID.SERVER_AUTH,)),
    "signer-may-not-sign": signed_with(usage=_NO_SIGNING),
    "signer-is-for-nothing-in-particular": signed_with(usage=None, extended_usage=()),
    "signer-is-a-device-without-a-purpose": signed_with(extended_usage=()),
    "signer-is-for-any-purpose": signed_with(extended_usage=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)),
    "signer-only-makes-keys": signed_with(extended_usage=(ObjectIdentifier("1.3.6.1.5.5.7.3.32"),)),
    "signer-of-a-ca-for-web-servers": below_web_ca,
    "signer-is-over": signed_with(end=NOW - timedelta(minutes=1)),
    "signer-is-not-yet": signed_with(begin=NOW + timedelta(days=1)),
    "signer-is-weak": by(Server(_RSA_1024, server_certificate(_RSA_1024))),
    "signer-has-a-strange-critical-extension": signed_with(
        critical_extension=x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.32473.9"), b"\x05\x00")
    ),
    "signer-is-the-ca-that-may-not": by(Server(CA.key, CA.certificate)),
    "signer-is-missing": by(replace(SERVER, extra=[])),
    "signer-is-garbage": by(replace(SERVER, extra=[der.encode(der.SEQUENCE, b"\x05\x00")])),
    "eleven-certificates": by(replace(SERVER, extra=[syntax.der_of(CERTIFICATE)] * 11)),
    "certificate-of-20-kb": by(replace(SERVER, extra=[der.encode(der.SEQUENCE, b"\x05\x00" * 10_000)])),
    "password-based-mac": algorithm("1.2.840.113533.7.66.13", der.encode(der.SEQUENCE, b"")),
    "sha-1": algorithm("1.2.840.10045.4.1"),
    "another-hash-than-it-says": by(replace(SERVER, digest=hashes.SHA384())),
    "rsa-by-a-key-on-a-curve": algorithm("1.2.840.113549.1.1.11", b"\x05\x00"),
    "no-algorithm": header(protection_alg=None),
    # Header: RFC 9483 3.1, 3.5
    "another-transaction": header(transaction_id=b"T" * 16),
    "no-transaction": header(transaction_id=None),
    "another-nonce": header(recip_nonce=b"N" * 16),
    "no-nonce": header(recip_nonce=None),
    "nonce-of-65-bytes": header(sender_nonce=b"S" * 65),
    "version-1": header(pvno=1),
    "version-4": header(pvno=4),
    # Body: RFC 9483 4.1.1
    "answer-to-cr": content(reply(response()), Body.CP),
    "answer-to-kur": content(reply(response()), Body.KUP),
    "a-request": content(reply(response()), Body.IR),
    "confirmation-of-nothing": content(b"\x05\x00", Body.PKICONF),
    "revocation": content(reply(response()), Body.RP),
    "body-of-no-kind": content(b"\x05\x00", 30),
    "poll-answer-to-a-request": content(waiting(1), Body.POLLREP),
    "two-certificates": content(reply(response(), response())),
    "no-response": content(reply()),
    "another-request": content(reply(response(cert_req_id=7))),
    "accepted-without-certificate": content(reply(response(None))),
    "encrypted-certificate": content(pair(der.encode(0xA1, encoded(status(0))))),
    "private-key": content(pair(_PLAIN, private_key=_SECRET)),
    "certificate-is-garbage": content(pair(der.encode(0xA0, der.encode(der.SEQUENCE, b"\x05\x00")))),
    "certificate-and-more": content(pair(der.encode(0xA0, syntax.der_of(CERTIFICATE) + b"\x05\x00"))),
    "certificate-is-empty": content(pair(der.encode(0xA0, b""))),
    "eleven-ca-certificates": content(reply(response(), ca_pubs=[syntax.der_of(CA.certificate)] * 11)),
    "ca-certificate-is-garbage": content(reply(response(), ca_pubs=[b"\x05\x00"])),
    "null": content(b"\x05\x00"),
    "error-that-is-none": content(b"\x05\x00", Body.ERROR),
    "poll-answer-that-is-none": content(b"\x05\x00", Body.POLLREP),
    # DER
    "nothing": raw(b""),
    "html": raw(b"<html>404</html>"),
    "endless": raw(b"\x30\x80" + b"\x30\x80" * 1000),
    "deep": raw(deep(2000)),
    "too-long": raw(der.encode(der.SEQUENCE, b"\x05\x00" * MESSAGE_LIMIT)),
    "too-short": lambda request: issue(request)[:-1],
    "trailing-byte": lambda request: issue(request) + b"\x00",
}


@dataclass
class _Replay:
    """Records the first answer, and gives it to every request."""

    first: bytes = b""

    def __call__(self, request: Request) -> bytes:
        self.first = self.first or issue(request)
        return self.first


def accepted(script: Script) -> bool:
    """Whether an answer brings a certificate that would be used."""
    answer = flow(ScriptedSession(script)).enroll(ENROLLMENT)
    return isinstance(answer, Issued) and judged(answer)


def judged(answer: Issued) -> bool:
    try:
        check_issued(answer.certificates, [], [CA.certificate], public_key=KEY.public_key(), request=REQUEST, now=NOW)
    except CertificateRefused:
        return False
    return True


def test_the_right_answer_is_accepted() -> None:
    assert accepted(issue)


def test_every_lie_has_a_name_of_its_own_and_there_are_many() -> None:
    assert len(VIOLATIONS) >= 50


@pytest.mark.parametrize("lie", VIOLATIONS)
def test_a_lie_is_a_violation_and_brings_nothing(lie: str) -> None:
    with pytest.raises((ProtocolViolation, ServerUnreachable)) as refused:
        accepted(VIOLATIONS[lie])

    assert refused.value.remedy
    assert len(refused.value.what) < 1000


# --- who may answer for the CA: RFC 9810 4.5


def test_the_ca_itself_may_though_its_certificate_did_not_come_with_the_answer() -> None:
    """RFC 9483 3.3: self-signed certificates are better left out of extraCerts."""
    usage = x509.KeyUsage(*(True, False, False, False, False, True, True, False, False))
    authority = HospitalCa("Signing CA", usage=usage)
    certificate = authority.issue(KEY.public_key())
    for extra in ([], [syntax.der_of(certificate)]):
        server = Server(authority.key, authority.certificate, extra)
        session = ScriptedSession(
            lambda request, server=server: server.message(request, Body.IP, reply(response(certificate)))  # type: ignore[misc]
        )
        assert isinstance(flow(session, anchors=(authority.certificate,)).enroll(ENROLLMENT), Issued)


def test_a_server_with_two_certificates_for_its_key_answers_with_the_one_that_may() -> None:
    key = new_key()
    over, good = server_certificate(key, end=NOW - timedelta(minutes=1)), server_certificate(key)

    assert accepted(by(Server(key, good, [syntax.der_of(over), syntax.der_of(good)])))


def test_a_server_that_is_named_in_the_configuration_may_answer_without_a_purpose() -> None:
    key = new_key()
    server = Server(key, server_certificate(key, extended_usage=()))

    for named, brings in (("CN=CMP server", True), ("CN=CMP server 2", False)):
        session = ScriptedSession(by(server))
        asking = flow(session, answered_by=named)
        if brings:
            assert isinstance(asking.enroll(ENROLLMENT), Issued)
        else:
            with pytest.raises(ProtocolViolation, match="answered_by"):
                asking.enroll(ENROLLMENT)


def test_an_answer_is_good_for_one_request() -> None:
    replay = _Replay()
    assert accepted(replay)

    with pytest.raises(ProtocolViolation, match="another message"):
        accepted(replay)


@pytest.mark.parametrize(
    "certificate",
    [
        CA.issue(new_key().public_key()),
        VENDOR.issue(KEY.public_key()),
        CA.issue(KEY.public_key(), ca=True, usage=CA_KEY_USAGE),
        CA.issue(KEY.public_key(), end=NOW - timedelta(minutes=1)),
    ],
    ids=["of another key", "of another CA", "of a CA", "that is over"],
)
def test_a_certificate_is_judged_whoever_signed_the_answer(certificate: x509.Certificate) -> None:
    assert not accepted(content(reply(response(certificate))))


@pytest.mark.parametrize("check_after", [0, 1, 10**30, -(10**30), -1])
def test_a_server_that_never_decides_ends_the_run(check_after: int) -> None:
    """The wait is bounded, whatever it says, and so is the number of messages."""
    clock = SteppedClock()
    session = ScriptedSession(
        content(reply(response(None, status=status(3)))), content(waiting(check_after), Body.POLLREP)
    )

    answer = flow(session, clock).enroll(Enrollment(KEY, REQUEST, handle=Handle()))

    assert isinstance(answer, Pending)
    assert clock.now() < answer.until <= clock.now() + LONGEST_WAIT
    assert len(session.requests) < 50


def test_a_server_that_only_says_waiting_ends_the_run() -> None:
    session = ScriptedSession(content(reply(response(None, status=status(3)))))

    assert isinstance(flow(session).enroll(Enrollment(KEY, REQUEST, handle=Handle())), Pending)
    assert len(session.requests) == 2


def test_what_a_server_says_is_bounded_and_printable() -> None:
    told = status(2, *["\x1b[2J\n" + "x" * 10_000] * 5, failures=b"\xff\xff" + b"\x00" * 10_000)

    answer = flow(ScriptedSession(content(error(told, "y" * 10_000), Body.ERROR))).enroll(ENROLLMENT)

    assert isinstance(answer, Refused)
    assert len(answer.reason) < 1000
    assert answer.reason.isprintable()


def test_a_proxy_that_answers_in_place_of_the_server() -> None:
    session = ScriptedSession(raw(b"<html>"), status=502, content_type="text/html")
    with pytest.raises(ServerUnreachable, match="502"):
        flow(session).enroll(ENROLLMENT)

    session = ScriptedSession(raw(b"<html>"), status=404, content_type="text/html")
    with pytest.raises(ProtocolViolation, match="404"):
        flow(session).enroll(ENROLLMENT)


@pytest.mark.parametrize("lie", ["no-signature", "another-nonce", "signer-of-another-ca", "another-transaction"])
def test_a_confirmation_is_not_believed_either(lie: str) -> None:
    handle = Handle()
    session = ScriptedSession(issue, VIOLATIONS[lie])
    asking = flow(session)
    asking.enroll(Enrollment(KEY, REQUEST, handle=handle))

    with pytest.raises(EnrollmentError):
        asking.confirm(handle, CERTIFICATE)


def test_the_right_confirmation_is() -> None:
    handle = Handle()
    session = ScriptedSession(issue, confirm)
    asking = flow(session)
    asking.enroll(Enrollment(KEY, REQUEST, handle=handle))

    asking.confirm(handle, CERTIFICATE)

    assert [request.body for request in session.requests] == [Body.IR, Body.CERTCONF]


def test_mutated_answers_bring_no_other_certificate() -> None:
    """2,000 of them; only errors of ours come out."""
    brought = 0
    for mutate in mutations(2000, seed=9483):
        session = ScriptedSession(lambda request, mutate=mutate: mutate(issue(request)))  # type: ignore[misc]
        try:
            answer = flow(session).enroll(ENROLLMENT)
        except EnrollmentError:
            continue
        assert isinstance(answer, Issued)
        assert answer.certificates[0] == CERTIFICATE  # the damage was behind what is signed
        brought += 1
    assert brought < 20


def test_mutated_content_under_a_right_signature_brings_nothing_else() -> None:
    """A CA that signs anything: only errors of ours come out, and what comes is judged."""
    for mutate in mutations(2000, seed=9483):
        try:
            answer = flow(ScriptedSession(content(mutate(reply(response()))))).enroll(ENROLLMENT)
        except EnrollmentError:
            continue
        if isinstance(answer, Issued) and judged(answer):
            assert answer.certificates[0] == CERTIFICATE
