"""SCEP: who signed an answer, what it answers, and what is encrypted in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ObjectIdentifier

from enroll import der
from enroll.errors import HOSPITAL_IT, CertificateRefused, EnrollmentRefused, ProtocolViolation
from enroll.flows.base import Pending
from enroll.flows.scep import syntax
from enroll.flows.scep.syntax import MessageType, PkiStatus
from enroll.flows.settings import FlowName
from enroll.time_stamp_syntax import MESSAGE_DIGEST, decoded, encoded
from tests.support.hostile_ca.misbehaviour import Change, Conduct, Expected, Layer, Misbehaviour, Said, Step, Turn
from tests.support.hostile_ca.right_scep import (
    authorities,
    certificate_of_server,
    message_in,
    right_content,
    said,
    server_of,
)
from tests.support.pki import HospitalCa
from tests.support.scep_answers import Server, sealed

_VIOLATION = Expected(ProtocolViolation, "protocol-violation")
_REFUSED = Expected(EnrollmentRefused, "enrollment-refused")
_UNTRUSTED = Expected(CertificateRefused, "scep-authority-untrusted")
_WAITS = Expected(Pending)
_OTHER_KEY = rsa.generate_private_key(65537, 2048)
_FOREIGN = HospitalCa("Hospital CA", key=_OTHER_KEY)  # the same name, another key


def _case(
    title: str, clause: str, what: str, change: Change | Conduct, expected: Expected = _VIOLATION
) -> Misbehaviour:
    """One entry; a change is one of the answer with the certificate."""
    conduct = change if isinstance(change, Conduct) else Conduct({Step.ISSUING: change})
    return Misbehaviour(f"scep-{title}", clause, what, expected, conduct, (FlowName.SCEP,))


def _attributes(changes: dict[ObjectIdentifier, bytes | None], status: str = PkiStatus.SUCCESS) -> Change:
    """Other signed attributes, properly signed."""

    def change(turn: Turn) -> Said:
        content = right_content(turn) if status == PkiStatus.SUCCESS else None
        return said(server_of(turn.ca).message(message_in(turn.request, turn.ca), status, content, changes))

    return change


def _by(server: Callable[[HospitalCa], Server]) -> Change:
    """Signed by somebody else."""

    def change(turn: Turn) -> Said:
        received = message_in(turn.request, turn.ca)
        return said(server(turn.ca).message(received, PkiStatus.SUCCESS, right_content(turn), {}))

    return change


def _content(make: Callable[[Any], bytes | None]) -> Change:
    """Something else inside, properly signed."""

    def change(turn: Turn) -> Said:
        received = message_in(turn.request, turn.ca)
        return said(server_of(turn.ca).message(received, PkiStatus.SUCCESS, make(received), {}))

    return change


def _unsigned(turn: Turn) -> Said:
    return said(server_of(turn.ca).assembled([], right_content(turn)))


def _other_content(turn: Turn) -> Said:
    message = decoded(syntax.ContentInfo, turn.said.body)
    message.content.encap_content_info.e_content = sealed(message_in(turn.request, turn.ca), b"\x05\x00")
    return said(encoded(message))


def _scanner(ca: HospitalCa) -> Server:
    return Server(_OTHER_KEY, ca.issue(_OTHER_KEY.public_key()))


def _foreign_authority(turn: Turn) -> Said:
    return authorities(certificate_of_server(_OTHER_KEY, _FOREIGN), _FOREIGN.certificate)


def _scanner_as_authority(turn: Turn) -> Said:
    return authorities(_scanner(turn.ca).certificate, turn.ca.certificate)


_CONTROL = der.encode(der.UTF8_STRING, ("\x1b[2J\r\nenrolled\x00" * 500).encode())
LAYER = Layer(
    "SCEP",
    (
        _case("unsigned", "RFC 8894 3.1", "The answer is not signed.", _unsigned),
        _case(
            "signed-by-another-key",
            "RFC 5652 5.4",
            "The signature is of another key than it says.",
            _by(lambda ca: replace(server_of(ca), key=_OTHER_KEY)),
        ),
        _case(
            "signed-by-a-scanner", "RFC 8894 3.1", "Another scanner of the hospital signs for the CA.", _by(_scanner)
        ),
        _case(
            "signed-by-a-foreign-ca",
            "RFC 8894 3.1",
            "A foreign CA of the same name signs.",
            _by(lambda _: Server(_OTHER_KEY, _FOREIGN.certificate)),
        ),
        _case("content-exchanged", "RFC 5652 5.4", "The content was exchanged after it was signed.", _other_content),
        _case(
            "digest-of-another",
            "RFC 5652 11.2",
            "It signs the digest of something else.",
            _attributes({MESSAGE_DIGEST: syntax.octet_string(b"D" * 32)}),
        ),
        _case(
            "another-transaction",
            "RFC 8894 3.2.1.1",
            "The answer belongs to another transaction.",
            _attributes({syntax.TRANSACTION_ID: syntax.printable_string("T" * 32)}),
        ),
        _case(
            "another-nonce",
            "RFC 8894 3.2.1.5",
            "The answer repeats another nonce.",
            _attributes({syntax.RECIPIENT_NONCE: syntax.octet_string(b"N" * 16)}),
        ),
        _case(
            "no-nonce", "RFC 8894 3.2.1.5", "The answer repeats no nonce.", _attributes({syntax.RECIPIENT_NONCE: None})
        ),
        _case(
            "answer-is-a-request",
            "RFC 8894 3.2.1.2",
            "It answers with a request.",
            _attributes({syntax.MESSAGE_TYPE: syntax.printable_string(MessageType.PKCS_REQ)}),
        ),
        _case(
            "status-that-is-none",
            "RFC 8894 3.2.1.3",
            "The status is none that SCEP knows.",
            _attributes({syntax.PKI_STATUS: syntax.printable_string("1")}),
        ),
        _case("nothing-inside", "RFC 8894 3.3.2", "It grants, and sends nothing.", _content(lambda _: None)),
        _case(
            "garbage-inside",
            "RFC 8894 3.3.2",
            "What is encrypted is garbage.",
            _content(lambda received: sealed(received, b"\x30\x03garbage")),
        ),
        _case(
            "not-encrypted", "RFC 8894 3.2", "The content is not encrypted.", _content(lambda _: b"\x30\x80\x00\x00")
        ),
        _case(
            "ber-inside",
            "X.690 10.1",
            "Indefinite lengths are nested within what is encrypted.",
            _content(lambda received: sealed(received, b"\x30\x80" * 100)),
        ),
        _case(
            "message-and-more",
            "X.690 10.1",
            "A byte stands behind the message.",
            lambda turn: said(turn.said.body + b"\0"),
        ),
        _case(
            "message-cut-off",
            "X.690 8.1.3",
            "The last byte of the message is missing.",
            lambda turn: said(turn.said.body[:-1]),
        ),
        _case(
            "message-nested-deeply",
            "X.690 8.1.3",
            "Values are nested 40,000 times.",
            lambda _: said(b"\x30\x84\x00\x03\xff\xff" * 40_000),
        ),
        _case(
            "refusal-with-control-characters",
            "RFC 8894 3.2.1.4",
            "The reason of its refusal clears the screen.",
            _attributes(
                {syntax.FAIL_INFO: syntax.printable_string("2"), syntax.FAIL_INFO_TEXT: _CONTROL}, PkiStatus.FAILURE
            ),
            replace(_REFUSED, who_must_act=HOSPITAL_IT),
        ),
        _case("waits", "RFC 8894 3.3.2.3", "It never decides.", _attributes({}, PkiStatus.PENDING), _WAITS),
        _case(
            "foreign-authority",
            "RFC 8894 2.2",
            "It shows an authority of a foreign CA to encrypt the password for.",
            Conduct({Step.AUTHORITIES: _foreign_authority}),
            _UNTRUSTED,
        ),
        _case(
            "scanner-as-authority",
            "RFC 8894 2.2",
            "It shows another scanner to encrypt the password for.",
            Conduct({Step.AUTHORITIES: _scanner_as_authority}),
            _UNTRUSTED,
        ),
        _case(
            "weak-algorithms-only",
            "RFC 8894 3.5.2",
            "It says that it can do nothing better than DES and MD5.",
            Conduct({Step.CAPABILITIES: lambda _: Said(b"DES\nMD5\n")}),
            replace(_VIOLATION, code="scep-capabilities"),
        ),
    ),
)
