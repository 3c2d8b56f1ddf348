"""EST: its three questions, and what may stand where certificates should be."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from enroll import der
from enroll.clock import SystemClock
from enroll.errors import (
    HOSPITAL_IT,
    CertificateRefused,
    EnrollmentRefused,
    ProtocolViolation,
    ServerUnreachable,
)
from enroll.flows.base import Pending
from enroll.flows.settings import FlowName
from tests.support.hostile_ca.certifying import armoured, certs_only, children, der_of
from tests.support.hostile_ca.misbehaviour import (
    Change,
    Conduct,
    Expected,
    Issuing,
    Layer,
    Misbehaviour,
    Said,
    Step,
    Turn,
)
from tests.support.hostile_ca.right_est import bag, message
from tests.support.pki import HospitalCa, new_key

_VIOLATION = Expected(ProtocolViolation, "protocol-violation")
_UNREACHABLE = Expected(ServerUnreachable, "server-unreachable", HOSPITAL_IT)
_UNTRUSTED = Expected(CertificateRefused, "certificate-untrusted")
_REFUSED = Expected(EnrollmentRefused, "enrollment-refused")
_WAITS = Expected(Pending)
_ATTRIBUTES = "application/csrattrs"
_FOREIGN = HospitalCa("Hospital CA")  # the same name, another key


def _case(
    title: str, clause: str, what: str, conduct: Conduct | Change, expected: Expected = _VIOLATION
) -> Misbehaviour:
    """One entry; a change is one of the answer with the certificate."""
    done = conduct if isinstance(conduct, Conduct) else Conduct({Step.ISSUING: conduct})
    return Misbehaviour(title, clause, what, expected, done, (FlowName.EST,))


def _der(turn: Turn) -> bytes:
    return base64.b64decode(turn.said.body)


def _instead(content: bytes) -> Change:
    return lambda _: message(content)


def _indefinite_inside(data: bytes) -> bytes:
    kind, explicit = children(data)
    return der.encode(der.SEQUENCE, kind + b"\xa0\x80" + children(explicit)[0] + b"\0\0")


def _rolled_over(forge: Callable[[HospitalCa, HospitalCa], Sequence[bytes]]) -> Conduct:
    """A foreign CA that issues, and poses as the new key of the hospital's."""

    def offer(turn: Turn) -> Said:
        return bag(der_of(turn.ca.certificate), der_of(_FOREIGN.certificate), *forge(turn.ca, _FOREIGN))

    def issue(issuing: Issuing) -> list[bytes]:
        return [der_of(_FOREIGN.issue(issuing.asked.public_key, issuing.content))]

    return Conduct({Step.CA_CERTIFICATES: offer}, issue)


def _link_by_the_new_key(old: HospitalCa, new: HospitalCa) -> list[bytes]:
    return [der_of(HospitalCa("Hospital CA", new, old.key).certificate)]


def _link_of_a_server(old: HospitalCa, new: HospitalCa) -> list[bytes]:
    now = SystemClock().now()
    day = timedelta(days=1)
    return [der_of(old.issue(new.key.public_key(), subject=old.name, begin=now - day, end=now + day))]


def _link_of_another_key(old: HospitalCa, _: HospitalCa) -> list[bytes]:
    return [der_of(HospitalCa("Hospital CA", old, new_key()).certificate)]


def _crowd_of_cas(turn: Turn) -> Said:
    return bag(*(der_of(HospitalCa(f"CA {number}").certificate) for number in range(40)), der_of(turn.ca.certificate))


def _offers(said: Said) -> Conduct:
    return Conduct({Step.CA_CERTIFICATES: lambda _: said})


def _wants(content: bytes, content_type: str = _ATTRIBUTES) -> Conduct:
    return Conduct({Step.ATTRIBUTES: lambda _: message(content, content_type)})


def _says(status: str, text: bytes = b"", *headers: str) -> Change:
    return lambda _: Said(text, status, headers=headers)


def _multipart(turn: Turn) -> Said:
    parts = b"--x\r\nContent-Type: application/pkcs8\r\n\r\nMIIB\r\n--x\r\n\r\n" + turn.said.body + b"--x--\r\n"
    return Said(parts, content_type="multipart/mixed; boundary=x")


_BODIES = (
    _case("trailing-data", "X.690 10.1", "A byte stands behind the message.", lambda turn: message(_der(turn) + b"\0")),
    _case(
        "second-message-behind",
        "RFC 5652 3",
        "A second message stands behind the first.",
        lambda turn: message(_der(turn) * 2),
    ),
    _case("cut-off", "X.690 8.1.3", "The last byte is missing.", lambda turn: message(_der(turn)[:-1])),
    _case(
        "ber-outside",
        "RFC 8951 3.1",
        "The length of the message is indefinite, as BER allows.",
        lambda turn: message(b"\x30\x80" + b"".join(children(_der(turn))) + b"\0\0"),
    ),
    _case(
        "ber-inside",
        "RFC 8951 3.1",
        "A length inside the message is indefinite, as BER allows.",
        lambda turn: message(_indefinite_inside(_der(turn))),
    ),
    _case(
        "ber-nested-100,000-times",
        "X.690 8.1.3.6",
        "Indefinite lengths are nested 100,000 times.",
        _instead(b"\x30\x80" * 100_000),
    ),
    _case(
        "der-nested-deeply",
        "X.690 8.1.3",
        "Values are nested 60,000 times.",
        _instead(b"\x30\x84\x00\x0f\xff\xff" * 60_000),
    ),
    _case(
        "length-of-2-to-the-1000",
        "X.690 8.1.3.5",
        "The message announces more bytes than there are atoms.",
        _instead(b"\x30\xfe" + b"\xff" * 126),
    ),
    _case(
        "no-base64", "RFC 8951 3.1", "The message is not in base64.", lambda turn: replace(turn.said, body=_der(turn))
    ),
    _case(
        "base64-and-more",
        "RFC 8951 3.1",
        "Characters that are no base64 stand in the message.",
        lambda turn: replace(turn.said, body=turn.said.body[:40] + b"\0<script>" + turn.said.body[40:]),
    ),
    _case("empty-bag", "RFC 7030 4.2.3", "The message holds no certificate.", _instead(certs_only())),
    _case(
        "another-content-type",
        "RFC 5652 3",
        "The message says that it is encrypted data.",
        lambda _: message(certs_only(content_type="1.2.840.113549.1.7.6")),
    ),
    _case(
        "another-media-type",
        "RFC 7030 4.2.3",
        "It names a single certificate and sends a message.",
        lambda turn: replace(turn.said, content_type="application/pkix-cert"),
    ),
    _case("key-made-by-the-ca", "RFC 7030 4.4.2", "It sends a private key that it has made itself.", _multipart),
    _case(
        "private-key-in-pem",
        "RFC 7030 4.2.3",
        "A private key stands where the message should be.",
        lambda _: Said(armoured("PRIVATE KEY", bytes(64)), content_type="application/pkcs7-mime"),
    ),
)
_CA_CERTIFICATES = (
    _case(
        "roll-over-without-proof",
        "RFC 7030 4.1.3",
        "It offers a new root that the old one has not signed, and issues with it.",
        _rolled_over(lambda *_: []),
        _UNTRUSTED,
    ),
    _case(
        "roll-over-by-the-new-key",
        "RFC 9810 4.4",
        "The new key vouches for the old one, and not the other way round.",
        _rolled_over(_link_by_the_new_key),
        _UNTRUSTED,
    ),
    _case(
        "roll-over-by-a-leaf",
        "RFC 5280 4.2.1.9",
        "The proof of the new root is a certificate that is no CA.",
        _rolled_over(_link_of_a_server),
        _UNTRUSTED,
    ),
    _case(
        "roll-over-of-another-key",
        "RFC 9810 4.4",
        "The proof is for another key than that of the new root.",
        _rolled_over(_link_of_another_key),
        _UNTRUSTED,
    ),
    _case("forty-roots", "RFC 7030 4.1.3", "It offers 40 roots.", Conduct({Step.CA_CERTIFICATES: _crowd_of_cas})),
    _case(
        "cacerts-garbage",
        "RFC 7030 4.1.3",
        "Its CA certificates are garbage.",
        _offers(Said(b"garbage", content_type="application/pkcs7-mime")),
    ),
    _case("cacerts-empty", "RFC 7030 4.1.3", "It offers no CA certificate.", _offers(message(certs_only()))),
    _case(
        "cacerts-web-page",
        "RFC 7030 4.1.3",
        "It shows a web page instead of CA certificates.",
        _offers(Said(b"<html>", content_type="text/html")),
    ),
)
_WANTED = (
    _case("csrattrs-garbage", "RFC 8951 4", "What it wants in a request is garbage.", _wants(b"garbage")),
    _case(
        "csrattrs-web-page",
        "RFC 7030 4.5.2",
        "It shows a web page instead of what it wants.",
        Conduct({Step.ATTRIBUTES: lambda _: Said(b"<html>", content_type="text/html")}),
    ),
    _case("csrattrs-ber", "RFC 8951 4", "What it wants has an indefinite length.", _wants(b"\x30\x80\0\0")),
    _case(
        "csrattrs-nested-deeply",
        "RFC 8951 4",
        "What it wants is nested 20,000 times.",
        _wants(b"\x30\x82\xff\xff" * 12_000),
    ),
    _case(
        "csrattrs-of-100-kb",
        "RFC 8951 4",
        "It wants 30,000 things.",
        _wants(der.encode(der.SEQUENCE, der.object_identifier("1.2.3") * 30_000)),
    ),
    _case(
        "csrattrs-redirect",
        "RFC 7030 3.2.1",
        "It sends the scanner to another host for what it wants.",
        Conduct({Step.ATTRIBUTES: lambda _: Said(status="302 Found", headers=("Location: https://evil.example/",))}),
    ),
)
_ANSWERS = (
    _case(
        "asks-for-the-password-for-ever",
        "RFC 9110 11.6.1",
        "It asks for the password again and again.",
        _says("401 Unauthorized", b"", 'WWW-Authenticate: Basic realm="est"'),
        replace(_REFUSED, who_must_act=HOSPITAL_IT),
    ),
    _case(
        "asks-in-a-thousand-ways",
        "RFC 9110 11.6.1",
        "It offers 1,000 ways to say the password.",
        _says("401 Unauthorized", b"", "WWW-Authenticate: " + ", ".join(["Digest"] * 1000)),
        replace(_REFUSED, who_must_act=HOSPITAL_IT),
    ),
    _case(
        "refusal-with-control-characters",
        "RFC 7030 4.2.3",
        "The reason of its refusal clears the screen and adds a line.",
        _says("400 Bad Request", b"\x1b[2J\r\n\0enrolled\x07" * 9),
        _REFUSED,
    ),
    _case(
        "refusal-of-500-kb",
        "RFC 7030 4.2.3",
        "The reason of its refusal has 500 KB.",
        _says("403 Forbidden", b"no " * 170_000),
        _REFUSED,
    ),
    _case(
        "wait-for-31-years",
        "RFC 7030 4.2.3",
        "It wants to be asked again in 31 years.",
        _says("202 Accepted", b"", "Retry-After: 999999999"),
        _WAITS,
    ),
    _case(
        "wait-till-yesterday",
        "RFC 9110 10.2.3",
        "It wants to be asked again in 1994.",
        _says("202 Accepted", b"", "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT"),
        _WAITS,
    ),
    _case(
        "wait-for-no-number",
        "RFC 9110 10.2.3",
        "When it wants to be asked again is no time.",
        _says("202 Accepted", b"", "Retry-After: " + "9" * 5000),
        _WAITS,
    ),
)
LAYER = Layer("EST", (*_BODIES, *_CA_CERTIFICATES, *_WANTED, *_ANSWERS))
