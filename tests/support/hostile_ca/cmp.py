"""CMP: who signed an answer, what it answers, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from enroll import der
from enroll.clock import SystemClock
from enroll.csr import DOCUMENT_SIGNING
from enroll.errors import HOSPITAL_IT, EnrollmentRefused, ProtocolViolation, ServerUnreachable
from enroll.flows.base import Pending
from enroll.flows.cmp import syntax
from enroll.flows.cmp.syntax import Body
from enroll.flows.settings import FlowName
from enroll.time_stamp_syntax import decoded, encoded
from tests.support.cmp_answers import Server, error, reply, response, status, waiting
from tests.support.hostile_ca.misbehaviour import Change, Conduct, Expected, Layer, Misbehaviour, Said, Step, Turn
from tests.support.hostile_ca.right_cmp import certificate_of_server, said, server_of, signed_anew, with_content
from tests.support.pki import ENCIPHERS, HospitalCa, new_key

_VIOLATION = Expected(ProtocolViolation, "protocol-violation")
_UNREACHABLE = Expected(ServerUnreachable, "server-unreachable", HOSPITAL_IT)
_REFUSED = Expected(EnrollmentRefused, "enrollment-refused")
_WAITS = Expected(Pending)
_FOREIGN = HospitalCa("Hospital CA")  # the same name, another key
_DAY = timedelta(days=1)


def _case(
    title: str, clause: str, what: str, change: Change | Conduct, expected: Expected = _VIOLATION
) -> Misbehaviour:
    """One entry; a change is one of the answer with the certificate."""
    conduct = change if isinstance(change, Conduct) else Conduct({Step.ISSUING: change})
    return Misbehaviour(title, clause, what, expected, conduct, (FlowName.CMP,))


def _header(**changes: Any) -> Change:
    """Another header, properly signed."""
    return lambda turn: signed_anew(turn, **changes)


def _as(body: Body) -> Change:
    """The same content as another kind of answer."""
    return lambda turn: signed_anew(turn, body=body)


def _content(data: bytes, body: Body = Body.KUP) -> Change:
    return lambda turn: with_content(turn, data, body)


def _edited(edit: Callable[[syntax.PkiMessage], None]) -> Change:
    """The right answer, changed after it was signed."""

    def change(turn: Turn) -> Said:
        message = decoded(syntax.PkiMessage, turn.said.body)
        edit(message)
        return said(encoded(message))

    return change


def _signed_by(issuer: HospitalCa | None = None, **changes: Any) -> Change:
    """Signed by somebody with another certificate."""

    def change(turn: Turn) -> Said:
        key = new_key()
        now = SystemClock().now()
        dated = {name: now + value if isinstance(value, timedelta) else value for name, value in changes.items()}
        return signed_anew(turn, Server(key, certificate_of_server(key, issuer or turn.ca, **dated)))

    return change


def _by_another_key(turn: Turn) -> Said:
    return signed_anew(turn, Server(new_key(), server_of(turn.ca).certificate))


def _by_weak_key(turn: Turn) -> Said:
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - to be refused
    return signed_anew(turn, Server(weak, certificate_of_server(weak, turn.ca)))


def _without_signature(message: syntax.PkiMessage) -> None:
    message.protection = None


def _with_unused_bits(message: syntax.PkiMessage) -> None:
    assert message.protection is not None
    message.protection = asn1.BitString(message.protection.as_bytes()[:-1] + b"\x00", 1)


def _other_body(message: syntax.PkiMessage) -> None:
    message.body = syntax.undecoded(der.encode(Body.KUP.tag, reply(response())))


def _algorithm(dotted: str) -> Change:
    value = der.encode(der.SEQUENCE, der.object_identifier(dotted))
    return _header(protection_alg=[syntax.undecoded(value)])


def _signer_chain(*extra: bytes) -> Change:
    return lambda turn: signed_anew(turn, replace(server_of(turn.ca), extra=extra))


def _pair(turn: Turn) -> syntax.CertifiedKeyPair:
    message = decoded(syntax.PkiMessage, turn.said.body)
    answer = decoded(syntax.CertRepMessage, bytes(message.body.data))
    pair = answer.response[0].certified_key_pair
    assert pair is not None
    return pair


def _paired(change: Callable[[syntax.CertifiedKeyPair], None]) -> Change:
    """Another pair of certificate and key in the answer."""

    def changed(turn: Turn) -> Said:
        pair = _pair(turn)
        change(pair)
        return with_content(turn, reply(response(None, certified_key_pair=pair)))

    return changed


def _with_private_key(pair: syntax.CertifiedKeyPair) -> None:
    pair.private_key = [syntax.undecoded(der.encode(der.SEQUENCE, b""))]


def _encrypted(pair: syntax.CertifiedKeyPair) -> None:
    pair.cert_or_enc_cert = syntax.undecoded(der.encode(0xA1, encoded(status(0))))


def _for_another_request(turn: Turn) -> Said:
    return with_content(turn, reply(response(None, certified_key_pair=_pair(turn), cert_req_id=7)))


def _two_answers(turn: Turn) -> Said:
    one = response(None, certified_key_pair=_pair(turn))
    return with_content(turn, reply(one, one))


def _bare_error(turn: Turn) -> Said:
    message = decoded(syntax.PkiMessage, with_content(turn, error(status(2, "go away")), Body.ERROR).body)
    message.protection = message.extra_certs = None
    return said(encoded(message))


def _cut_off(turn: Turn) -> Said:
    return said(turn.said.body[:-1])


def _trailing(turn: Turn) -> Said:
    return said(turn.said.body + b"\0")


def _waits_for(seconds: int) -> Conduct:
    first = _content(reply(response(None, status=status(3))))
    return Conduct({Step.ISSUING: first, Step.POLL: _content(waiting(seconds), Body.POLLREP)})


class _Replay:
    """The answer to the first request of all, to every request."""

    def __init__(self) -> None:
        self._first: Said | None = None

    def __call__(self, turn: Turn) -> Said:
        if self._first is None:
            self._first = signed_anew(turn, transaction_id=b"T" * 16, recip_nonce=b"N" * 16)
        return self._first


_CRITICAL = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.32473.9"), b"\x05\x00")
_CONTROL = "\x1b[2J\r\nenrolled\x00" * 20
_SIGNERS = (
    _case("unsigned", "RFC 9483 3.2", "The answer is not signed.", _edited(_without_signature)),
    _case(
        "unsigned-error",
        "RFC 9483 3.6.4",
        "An error message is not signed, so that anybody may have sent it.",
        _bare_error,
    ),
    _case(
        "signature-of-another-body", "RFC 9810 5.1.3.3", "The signature is over another answer.", _edited(_other_body)
    ),
    _case("signature-with-unused-bits", "X.690 11.2", "The signature ends within a byte.", _edited(_with_unused_bits)),
    _case(
        "signed-by-another-key",
        "RFC 9810 5.1.3.3",
        "The signature is of another key than the certificate beside it.",
        _by_another_key,
    ),
    _case(
        "signed-by-a-foreign-ca",
        "RFC 9483 3.5",
        "A server of a foreign CA of the same name signs.",
        _signed_by(_FOREIGN),
    ),
    _case(
        "signed-by-a-scanner",
        "RFC 9810 4.5",
        "Another scanner of the hospital signs for the CA.",
        _signed_by(extended_usage=(ExtendedKeyUsageOID.CLIENT_AUTH,)),
    ),
    _case(
        "signed-by-a-document-signer",
        "RFC 9810 4.5",
        "Whoever signs images signs for the CA.",
        _signed_by(extended_usage=(DOCUMENT_SIGNING,)),
    ),
    _case(
        "signer-may-not-sign",
        "RFC 9483 3.2",
        "The certificate of the signer does not allow signatures.",
        _signed_by(usage=ENCIPHERS),
    ),
    _case(
        "signer-is-over",
        "RFC 5280 6.1.3",
        "The certificate of the signer is over.",
        _signed_by(begin=-2 * _DAY, end=-_DAY),
    ),
    _case(
        "signer-has-not-begun",
        "RFC 5280 6.1.3",
        "The certificate of the signer begins tomorrow.",
        _signed_by(begin=_DAY, end=2 * _DAY),
    ),
    _case(
        "signer-with-critical-extension",
        "RFC 5280 4.2",
        "The certificate of the signer has a critical extension that nobody knows.",
        _signed_by(critical_extension=_CRITICAL),
    ),
    _case("signer-with-rsa-1024", "RFC 9481 3.1", "The key of the signer is an RSA key of 1024 bits.", _by_weak_key),
    _case(
        "signer-missing",
        "RFC 9483 3.3",
        "It does not send the certificate of the signer.",
        lambda turn: signed_anew(turn, replace(server_of(turn.ca), extra=[])),
    ),
    _case(
        "signer-garbage",
        "RFC 9483 3.3",
        "Garbage stands where the certificate of the signer should be.",
        _signer_chain(der.encode(der.SEQUENCE, b"\x05\x00")),
    ),
    _case(
        "twenty-signers",
        "RFC 9483 3.3",
        "It sends 20 certificates for the signature.",
        lambda turn: signed_anew(turn, replace(server_of(turn.ca), extra=[syntax.der_of(turn.ca.certificate)] * 20)),
    ),
    _case(
        "shared-secret",
        "RFC 9810 5.1.3.1",
        "It says that a shared secret protects the answer.",
        _algorithm("1.2.840.113533.7.66.13"),
    ),
    _case("signed-with-sha-1", "RFC 9481 3.2", "It signs with SHA-1.", _algorithm("1.2.840.10045.4.1")),
    _case("signed-with-nothing", "RFC 9810 5.1.3", "It does not say how it signed.", _header(protection_alg=None)),
)
_HEADERS = (
    _case("old-reply", "RFC 9483 3.5", "It gives an answer to an older request once more.", _Replay()),
    _case(
        "another-transaction",
        "RFC 9483 3.5",
        "The answer belongs to another transaction.",
        _header(transaction_id=b"T" * 16),
    ),
    _case("no-transaction", "RFC 9483 3.1", "The answer belongs to no transaction.", _header(transaction_id=None)),
    _case("another-nonce", "RFC 9483 3.5", "The answer repeats another nonce.", _header(recip_nonce=b"N" * 16)),
    _case("no-nonce", "RFC 9483 3.1", "The answer repeats no nonce.", _header(recip_nonce=None)),
    _case("nonce-of-60-kb", "RFC 9810 5.1.1", "Its own nonce has 60 KB.", _header(sender_nonce=b"S" * 60_000)),
    _case("version-1", "RFC 9810 5.1.1", "It speaks the first version of CMP.", _header(pvno=1)),
    _case("version-99", "RFC 9810 5.1.1", "It speaks a version of CMP that does not exist.", _header(pvno=99)),
)
_BODIES = (
    _case(
        "answer-to-a-first-request", "RFC 9483 4.1.3", "It answers a first request, which was not made.", _as(Body.IP)
    ),
    _case("answer-is-a-request", "RFC 9483 4.1.3", "It answers with a request.", _as(Body.KUR)),
    _case(
        "confirmed-unasked",
        "RFC 9483 4.1.1",
        "It confirms before anything was issued.",
        _content(b"\x05\x00", Body.PKICONF),
    ),
    _case("two-answers", "RFC 9483 4.1.1", "It answers twice in one message.", _two_answers),
    _case("no-answer-inside", "RFC 9483 4.1.1", "The message holds no answer.", _content(reply())),
    _case("another-request", "RFC 9483 4.1.1", "The answer is to another request.", _for_another_request),
    _case(
        "granted-without-certificate",
        "RFC 9810 5.3.4",
        "It grants, and sends no certificate.",
        _content(reply(response(None))),
    ),
    _case(
        "encrypted-certificate",
        "RFC 9483 4.1.1",
        "The certificate is encrypted, though the key can only sign.",
        _paired(_encrypted),
    ),
    _case(
        "private-key", "RFC 9483 4.1.6", "It sends a private key that it has made itself.", _paired(_with_private_key)
    ),
    _case(
        "error-that-is-none", "RFC 9810 5.3.21", "The error message cannot be read.", _content(b"\x05\x00", Body.ERROR)
    ),
    _case("message-cut-off", "X.690 8.1.3", "The last byte of the message is missing.", _cut_off),
    _case("message-and-more", "X.690 10.1", "A byte stands behind the message.", _trailing),
    _case(
        "message-in-ber",
        "RFC 9810 5",
        "The length of the message is indefinite, as BER allows.",
        lambda turn: said(b"\x30\x80" + turn.said.body[4:] + b"\0\0"),
    ),
    _case(
        "message-nested-deeply",
        "X.690 8.1.3",
        "Values are nested 40,000 times.",
        lambda _: said(b"\x30\x84\x00\x03\xff\xff" * 40_000),
    ),
    _case(
        "message-of-900-kb",
        "RFC 9811 3.1",
        "The message has 900 KB.",
        lambda _: said(der.encode(der.SEQUENCE, bytes(900_000))),
    ),
    _case(
        "message-as-a-web-page",
        "RFC 9811 3.3",
        "It names another media type.",
        lambda turn: replace(turn.said, content_type="text/html"),
    ),
    _case(
        "error-with-control-characters",
        "RFC 9810 5.3.21",
        "The reason of its refusal clears the screen and adds a line.",
        _content(error(status(2, _CONTROL, failures=b"\x20" + bytes(60_000)), _CONTROL), Body.ERROR),
        _REFUSED,
    ),
)
_LATER = (
    _case("never-decides", "RFC 9483 4.4", "It wants to be asked again at once, for ever.", _waits_for(-1), _WAITS),
    _case("decides-in-31-years", "RFC 9483 4.4", "It wants to be asked again in 31 years.", _waits_for(10**30), _WAITS),
    _case(
        "confirmation-hangs-up",
        "RFC 9483 4.1.1",
        "It never answers the confirmation.",
        Conduct({Step.CONFIRMATION: lambda _: iter([b""])}),
        _UNREACHABLE,
    ),
    _case(
        "confirmation-unsigned",
        "RFC 9483 3.2",
        "Its word that the certificate may be used is not signed.",
        Conduct({Step.CONFIRMATION: _edited(_without_signature)}),
    ),
    _case(
        "confirmation-of-another",
        "RFC 9483 3.5",
        "Its word that the certificate may be used is of another transaction.",
        Conduct({Step.CONFIRMATION: _header(transaction_id=b"T" * 16)}),
    ),
    _case(
        "confirmation-garbage",
        "RFC 9810 5.3.16",
        "Its word that the certificate may be used is garbage.",
        Conduct({Step.CONFIRMATION: lambda _: said(bytes(100))}),
    ),
)
LAYER = Layer("CMP", (*_SIGNERS, *_HEADERS, *_BODIES, *_LATER))
