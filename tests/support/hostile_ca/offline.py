"""The file that is said to be the answer of a CA."""

from __future__ import annotations

from collections.abc import Callable

from enroll import der
from enroll.certificates import pem
from enroll.errors import OPERATOR, CertificateRefused, ProtocolViolation
from enroll.flows.settings import FlowName
from tests.support.hostile_ca.certifying import armoured, certs_only
from tests.support.hostile_ca.misbehaviour import Conduct, Expected, Layer, Misbehaviour, Said, Step
from tests.support.pki import HospitalCa, new_key

_MALFORMED = Expected(ProtocolViolation, "offline-answer-malformed")
_UNKNOWN = Expected(CertificateRefused, "offline-answer-unknown", OPERATOR)


def _case(
    title: str, clause: str, what: str, change: Callable[[bytes], bytes], expected: Expected = _MALFORMED
) -> Misbehaviour:
    """One entry; `change` makes the file of the right one, a message in DER."""
    conduct = Conduct({Step.IMPORT: lambda turn: Said(change(turn.said.body))})
    return Misbehaviour(title, clause, what, expected, conduct, (FlowName.OFFLINE,))


def _for_another(_: bytes) -> bytes:
    return pem([HospitalCa().issue(new_key().public_key())])


LAYER = Layer(
    "Files that are brought",
    (
        _case(
            "file-for-another-scanner",
            "RFC 5280 4.1.2.7",
            "The file is the answer to another scanner.",
            _for_another,
            _UNKNOWN,
        ),
        _case("file-empty", "RFC 5652 3", "The file is empty.", lambda _: b""),
        _case("file-of-a-megabyte", "RFC 5652 3", "The file has a megabyte.", lambda _: bytes(1 << 20)),
        _case(
            "file-with-more-behind",
            "X.690 10.1",
            "Something stands behind the message.",
            lambda right: right + b"\x30\x00",
        ),
        _case("file-cut-off", "X.690 8.1.3", "The end of the file is missing.", lambda right: right[:-9]),
        _case(
            "file-in-ber",
            "X.690 10.1",
            "The length of the message is indefinite, as BER allows.",
            lambda right: b"\x30\x80" + right[4:] + b"\0\0",
        ),
        _case(
            "file-nested-deeply",
            "X.690 8.1.3",
            "Values are nested 80,000 times.",
            lambda _: b"\x30\x84\x00\x07\xff\xff" * 80_000,
        ),
        _case(
            "file-with-private-key",
            "RFC 7468 10",
            "A private key stands beside the certificate.",
            lambda right: armoured("PKCS7", right) + armoured("PRIVATE KEY", bytes(64)),
        ),
        _case(
            "file-with-request",
            "RFC 7468 7",
            "It gives the request back.",
            lambda _: armoured("CERTIFICATE REQUEST", bytes(64)),
        ),
        _case(
            "file-of-beginnings",
            "RFC 7468 3",
            "The file begins certificates and never ends them.",
            lambda _: b"-----BEGIN CERTIFICATE-----\n" * 10_000,
        ),
        _case(
            "file-of-a-thousand-certificates",
            "RFC 5652 5.1",
            "The file holds 1,000 certificates.",
            lambda _: armoured("PKCS7", certs_only(*[der.encode(der.SEQUENCE, b"\x05\x00")] * 1000)),
        ),
        _case(
            "file-in-utf-16",
            "RFC 7468 2",
            "Half a character of UTF-16 ends the file.",
            lambda _: b"\xff\xfe" + b"\xd8" * 999,
        ),
        _case("file-is-a-program", "RFC 5652 3", "The file is a program.", lambda _: b"MZ\x90\x00" + bytes(60_000)),
    ),
)
