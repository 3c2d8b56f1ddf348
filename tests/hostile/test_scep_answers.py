"""What a SCEP server, or whoever sits between, may send: nothing of it brings a certificate that is not the right one.

Each case is a lie with the clause that it breaks. What the server says of itself comes unauthenticated (RFC 8894 7.5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from enroll import der
from enroll.csr import DOCUMENT_SIGNING
from enroll.errors import CertificateRefused, EnrollmentError, ProtocolViolation, ServerUnreachable
from enroll.flows.base import Issued, Refused
from enroll.flows.scep import MESSAGE_LIMIT, syntax
from enroll.flows.scep.syntax import MessageType, PkiStatus
from enroll.http import Answer
from enroll.time_stamp_syntax import CONTENT_TYPE, MESSAGE_DIGEST, decoded, encoded, whole
from enroll.trust import check_issued
from tests.support.byte_mutation import mutations
from tests.support.pki import CA_KEY_USAGE, NOW, REQUEST, HospitalCa, new_key
from tests.support.scep_answers import (
    CA,
    CERTIFICATE,
    KEY,
    SERVER,
    SHA_1,
    Request,
    Script,
    ScriptedSession,
    Server,
    ca_answer,
    enrollment,
    envelope,
    flow,
    issue,
    ra_certificate,
    refuse,
    sealed,
)

_OTHER_KEY = rsa.generate_private_key(65537, 2048)
_FOREIGN = HospitalCa("Hospital CA", key=_OTHER_KEY)  # the same name, another key
_MD5 = ObjectIdentifier("1.2.840.113549.2.5")
_DER = serialization.Encoding.DER


def attributes(changes: dict[ObjectIdentifier, bytes | None], status: str = PkiStatus.SUCCESS) -> Script:
    return lambda request: SERVER.message(request, status, envelope(request, CERTIFICATE), changes)


def content(make: Callable[[Request], bytes | None], server: Server = SERVER) -> Script:
    return lambda request: server.message(request, PkiStatus.SUCCESS, make(request), {})


def by(server: Server) -> Script:
    return content(lambda request: envelope(request, CERTIFICATE), server)


def raw(data: bytes) -> Script:
    return lambda _: data


def changed(change: Callable[[syntax.SignedData], object]) -> Script:
    """A right answer whose parts were changed afterwards."""

    def script(request: Request) -> bytes:
        message = decoded(syntax.ContentInfo, issue(request))
        change(message.content)
        return encoded(message)

    return script


def unsigned(request: Request) -> bytes:
    return SERVER.assembled([], envelope(request, CERTIFICATE))


def signed_twice(request: Request) -> bytes:
    (info,) = decoded(syntax.ContentInfo, issue(request)).content.signer_infos.as_list()
    return SERVER.assembled([info, info], envelope(request, CERTIFICATE))


def twice_the_nonce(request: Request) -> bytes:
    """A right answer to another message, with our nonce in a second attribute."""
    answer = issue(request)
    (info,) = decoded(syntax.ContentInfo, answer).content.signer_infos.as_list()
    other = syntax.signed_attributes({syntax.RECIPIENT_NONCE: syntax.octet_string(b"\0" * 16)})
    parts = [*_values_in(whole(info.signed_attrs)), *_values_in(other)]
    attributes = der.encode(syntax.SET, b"".join(sorted(parts)))
    return SERVER.signed(attributes, decoded(syntax.ContentInfo, answer).content.encap_content_info.e_content)


def _values_in(data: bytes) -> list[bytes]:
    values, rest = [], bytes(syntax.undecoded(data).data)
    while length := der.announced_length(rest):
        values.append(rest[:length])
        rest = rest[length:]
    return values


def another_content(data: syntax.SignedData) -> None:
    data.encap_content_info.e_content = b"\x30\x00"


def another_type(data: syntax.SignedData) -> None:
    data.encap_content_info.e_content_type = ObjectIdentifier("1.2.840.113549.1.7.3")


def deep(levels: int) -> bytes:
    nested = b""
    for _ in range(levels):
        nested = der.encode(der.SEQUENCE, nested)
    return nested


def beside(*values: bytes) -> Script:
    return by(replace(SERVER, beside=values))


_SCANNER = CA.issue(_OTHER_KEY.public_key())
VIOLATIONS: dict[str, Script] = {
    # Signature: RFC 8894 3.1, RFC 5652 5.4
    "unsigned": unsigned,
    "two-signatures": signed_twice,
    "signature-by-another-key": by(replace(SERVER, key=_OTHER_KEY)),
    "signer-is-another-scanner": by(Server(_OTHER_KEY, _SCANNER)),
    "signer-is-the-requester": by(Server(KEY, CERTIFICATE)),
    "signer-is-a-namesake-of-the-ca": by(Server(_OTHER_KEY, _FOREIGN.certificate)),
    "signer-is-an-ra-that-was-not-shown": by(Server(_OTHER_KEY, ra_certificate(_OTHER_KEY))),
    "md5": by(replace(SERVER, digest=(_MD5, hashes.MD5()))),  # noqa: S303 - to be refused
    "sha-224": by(replace(SERVER, digest=(ObjectIdentifier("2.16.840.1.101.3.4.2.4"), hashes.SHA224()))),
    "another-hash-than-it-says": by(replace(SERVER, digest=(SHA_1, hashes.SHA256()))),
    "another-content": changed(another_content),
    "another-content-type": changed(another_type),
    "digest-of-something-else": attributes({MESSAGE_DIGEST: syntax.octet_string(b"D" * 32)}),
    "no-digest": attributes({MESSAGE_DIGEST: None}),
    "no-content-type": attributes({CONTENT_TYPE: None}),
    "no-attributes": lambda request: SERVER.signed(b"\x31\x00", envelope(request, CERTIFICATE)),
    "an-attribute-twice": twice_the_nonce,
    # Attributes: RFC 8894 3.2.1
    "another-transaction": attributes({syntax.TRANSACTION_ID: syntax.printable_string("T" * 32)}),
    "transaction-of-another-type": attributes({syntax.TRANSACTION_ID: syntax.octet_string(b"T")}),
    "no-transaction": attributes({syntax.TRANSACTION_ID: None}),
    "another-nonce": attributes({syntax.RECIPIENT_NONCE: syntax.octet_string(b"N" * 16)}),
    "empty-nonce": attributes({syntax.RECIPIENT_NONCE: syntax.octet_string(b"")}),
    "no-nonce": attributes({syntax.RECIPIENT_NONCE: None}),
    "a-request": attributes({syntax.MESSAGE_TYPE: syntax.printable_string(MessageType.PKCS_REQ)}),
    "message-of-no-type": attributes({syntax.MESSAGE_TYPE: None}),
    "status-1": attributes({syntax.PKI_STATUS: syntax.printable_string("1")}),
    "status-of-another-type": attributes({syntax.PKI_STATUS: der.encode(der.UTF8_STRING, b"0")}),
    "no-status": attributes({syntax.PKI_STATUS: None}),
    "refused-for-no-reason": attributes({}, PkiStatus.FAILURE),
    "refused-for-an-unknown-reason": refuse("5"),
    "refused-for-the-reason-nothing": refuse(""),
    # Content: RFC 8894 3.3.2
    "nothing-inside": content(lambda _: None),
    "empty-inside": content(lambda _: b""),
    "garbage-inside": content(lambda _: b"\x30\x80\x00\x00"),
    "sealed-garbage": content(lambda request: sealed(request, b"\x30\x03garbage")),
    "sealed-nothing": content(lambda request: sealed(request, b"")),
    "sealed-indefinite-length": content(lambda request: sealed(request, b"\x30\x80" * 100)),
    "eleven-sealed-certificates": content(
        lambda request: envelope(request, *(CA.issue(KEY.public_key()) for _ in range(11)))
    ),
    "eleven-certificates-beside": beside(*[CERTIFICATE.public_bytes(_DER)] * 11),
    "garbage-beside": beside(der.encode(der.SEQUENCE, b"\x05\x00")),
    "20-kb-beside": beside(der.encode(der.SEQUENCE, b"\x05\x00" * 10_000)),
    # DER
    "nothing": raw(b""),
    "html": raw(b"<html>404</html>"),
    "endless": raw(b"\x30\x80" + b"\x30\x80" * 1000),
    "deep": raw(deep(2000)),
    "too-long": raw(der.encode(der.SEQUENCE, b"\x05\x00" * MESSAGE_LIMIT)),
    "too-short": lambda request: issue(request)[:-1],
    "trailing-byte": lambda request: issue(request) + b"\x00",
}


def judged(answer: object) -> bool:
    """Whether what came would be used."""
    if not isinstance(answer, Issued):
        return False
    anchors = [CA.certificate]
    try:
        check_issued(answer.certificates, [], anchors, public_key=KEY.public_key(), request=REQUEST, now=NOW)
    except CertificateRefused:
        return False
    return True


def accepted(script: Script, folder: Path, **session: Any) -> bool:
    return judged(flow(ScriptedSession(script, **session), folder).enroll(enrollment()))


def test_the_right_answer_is_accepted(tmp_path: Path) -> None:
    assert accepted(issue, tmp_path)


def test_sha_1_is_taken_for_the_signature_on_an_answer_only(tmp_path: Path) -> None:
    """Debian's scepserver has no other. The certificate inside needs SHA-2."""
    sha_1 = replace(SERVER, digest=(SHA_1, hashes.SHA1()))  # noqa: S303

    assert accepted(by(sha_1), tmp_path)


@pytest.mark.parametrize("lie", VIOLATIONS)
def test_a_lie_is_a_violation_and_brings_nothing(lie: str, tmp_path: Path) -> None:
    with pytest.raises(ProtocolViolation) as refused:
        accepted(VIOLATIONS[lie], tmp_path)

    assert refused.value.remedy
    assert len(refused.value.what) < 1000


def test_an_answer_is_good_for_one_request(tmp_path: Path) -> None:
    recorded: list[bytes] = []

    def replay(request: Request) -> bytes:
        recorded.append(issue(request))
        return recorded[0]

    assert accepted(replay, tmp_path)
    with pytest.raises(ProtocolViolation, match="another transaction"):
        accepted(replay, tmp_path)


def test_an_answer_to_an_earlier_message_of_the_transaction_is_none(tmp_path: Path) -> None:
    def earlier(request: Request) -> bytes:
        return issue(replace(request, nonce=syntax.octet_string(b"E" * 16)))

    with pytest.raises(ProtocolViolation, match="recipientNonce"):
        accepted(earlier, tmp_path)


@pytest.mark.parametrize(
    "certificate",
    [
        CA.issue(new_key().public_key()),
        _FOREIGN.issue(KEY.public_key()),
        CA.issue(KEY.public_key(), ca=True, usage=CA_KEY_USAGE),
        CA.issue(KEY.public_key(), end=NOW - timedelta(minutes=1)),
    ],
    ids=["of another key", "of another CA", "of a CA", "that is over"],
)
def test_a_certificate_is_judged_whoever_signed_the_answer(certificate: x509.Certificate, tmp_path: Path) -> None:
    assert not accepted(content(lambda request: envelope(request, certificate)), tmp_path)
    assert not accepted(
        content(lambda _: b"\x30\x00", replace(SERVER, beside=[certificate.public_bytes(_DER)])), tmp_path
    )


IMPOSTORS = {
    "another-scanner": _SCANNER,
    "a-web-server": CA.issue(_OTHER_KEY.public_key(), extended_usage=(ExtendedKeyUsageOID.SERVER_AUTH,)),
    "a-signer-of-documents": CA.issue(_OTHER_KEY.public_key(), extended_usage=(DOCUMENT_SIGNING,)),
    "no-purpose-at-all": CA.issue(_OTHER_KEY.public_key(), extended_usage=()),
    "any-purpose": CA.issue(_OTHER_KEY.public_key(), extended_usage=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)),
    "an-ra-of-another-ca": ra_certificate(_OTHER_KEY, _FOREIGN),
    "an-ra-that-is-over": ra_certificate(_OTHER_KEY, end=NOW - timedelta(minutes=1)),
    "a-namesake-of-the-ca": _FOREIGN.certificate,
}


@pytest.mark.parametrize("impostor", IMPOSTORS)
@pytest.mark.parametrize("with_the_ca", [True, False])
def test_nobody_else_is_shown_the_challenge_password(impostor: str, tmp_path: Path, *, with_the_ca: bool) -> None:
    """GetCACert is not authenticated; all of these but the last lead to the anchor, or look like it."""
    shown = [IMPOSTORS[impostor], *([CA.certificate] if with_the_ca else [])]
    session = ScriptedSession(by(Server(_OTHER_KEY, IMPOSTORS[impostor])), certificates=shown)

    with pytest.raises((CertificateRefused, ProtocolViolation)):
        flow(session, tmp_path).enroll(enrollment())

    assert all(request.content for request in session.requests)  # the CA itself could open it
    assert bool(session.requests) is with_the_ca


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, {"content-type": "application/x-x509-ca-cert"}, b""),
        Answer(200, {"content-type": "application/x-x509-ca-cert"}, b"\x30\x03\x02\x01\x00"),
        Answer(200, {"content-type": "application/x-x509-ca-ra-cert"}, b"\x30\x80" * 1000),
        Answer(200, {"content-type": "application/x-x509-ca-ra-cert"}, CA.certificate.public_bytes(_DER)),
        Answer(200, {"content-type": "text/html"}, b"<html>"),
        Answer(200, {}, CA.certificate.public_bytes(_DER)),
        Answer(404, {"content-type": "application/x-x509-ca-cert"}, CA.certificate.public_bytes(_DER)),
        ca_answer(*(CA.issue(new_key().public_key()) for _ in range(11))),
    ],
    ids=["empty", "no certificate", "endless", "another type", "html", "untyped", "404", "eleven"],
)
def test_no_certificates_no_request(answer: Answer, tmp_path: Path) -> None:
    session = ScriptedSession(issue)
    session.gets["GetCACert"] = answer

    with pytest.raises(ProtocolViolation):
        flow(session, tmp_path).enroll(enrollment())

    assert session.requests == []


@pytest.mark.parametrize(
    "capabilities",
    [
        "",
        "POSTPKIOperation\nSHA-1\nDES3\n",
        "SHA-256\nAES",
        "AES" * 100_000,
        "\x00\xff",
    ],
)
def test_a_server_that_offers_too_little_gets_nothing(capabilities: str, tmp_path: Path) -> None:
    """Whoever sits between may strike out what is strong (RFC 8894 7.5); MD5, DES and triple DES are never sent."""
    session = ScriptedSession(issue, capabilities=capabilities)

    with pytest.raises(ProtocolViolation, match="does not offer") as refused:
        flow(session, tmp_path).enroll(enrollment())

    assert refused.value.what.isprintable()
    assert len(refused.value.what) < 1000
    assert session.requests == []


def test_what_a_server_says_is_bounded_and_printable(tmp_path: Path) -> None:
    answer = flow(ScriptedSession(refuse("2", "\x1b[2J\n" + "x" * 10_000)), tmp_path).enroll(enrollment())

    assert isinstance(answer, Refused)
    assert answer.reason.startswith("badRequest: ")
    assert answer.reason.isprintable()
    assert len(answer.reason) < 1000


def test_a_proxy_that_answers_in_place_of_the_server(tmp_path: Path) -> None:
    with pytest.raises(ServerUnreachable, match="502"):
        accepted(raw(b"<html>"), tmp_path, status=502)
    with pytest.raises(ProtocolViolation, match="404"):
        accepted(raw(b"<html>"), tmp_path, status=404)
    with pytest.raises(ProtocolViolation, match="media type"):
        accepted(issue, tmp_path, media_type="text/html")


def brought(script: Script, folder: Path) -> list[x509.Certificate]:
    """What an answer brings that would be used; only errors of ours come out."""
    try:
        answer = flow(ScriptedSession(script), folder).enroll(enrollment())
    except EnrollmentError:
        return []
    return [each for each in answer.certificates if judged(Issued((each,)))] if isinstance(answer, Issued) else []


@pytest.mark.parametrize(
    "make",
    [
        lambda mutate: lambda request: mutate(issue(request)),
        lambda mutate: content(lambda request: mutate(envelope(request, CERTIFICATE))),
        lambda mutate: content(lambda request: sealed(request, mutate(_certificates()))),
        lambda mutate: beside(der.encode(der.SEQUENCE, mutate(_content_of(CERTIFICATE)))),
    ],
    ids=["the answer", "the envelope under a right signature", "what is sealed", "what lies beside"],
)
def test_mutated_answers_bring_no_other_certificate(
    make: Callable[[Callable[[bytes], bytes]], Script], tmp_path: Path
) -> None:
    """500 of each."""
    for mutate in mutations(500, seed=8894):
        assert set(brought(make(mutate), tmp_path)) <= {CERTIFICATE}


def _content_of(certificate: x509.Certificate) -> bytes:
    """Without tag and length, which have to be right for it to be a part of anything."""
    return bytes(syntax.undecoded(certificate.public_bytes(_DER)).data)


def _certificates() -> bytes:
    return pkcs7.serialize_certificates([CERTIFICATE], _DER)
