"""Certificates that are none, or that no library would make; too many of them, and too large ones."""

from __future__ import annotations

from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ObjectIdentifier

from enroll import der
from enroll.errors import CertificateRefused, ProtocolViolation
from enroll.flows.settings import FlowName
from tests.support.hostile_ca.certifying import EXTENSIONS, SERIAL, VALIDITY, VERSION, children, der_of, resigned, right
from tests.support.hostile_ca.misbehaviour import ALL, Conduct, Expected, Issue, Issuing, Layer, Misbehaviour
from tests.support.pki import HospitalCa

_LENIENT = (
    FlowName.EST,
    FlowName.ACME,
    FlowName.SCEP,
    FlowName.OFFLINE,
)  # leave all about serial numbers to `enroll.trust`
_VIOLATION = Expected(ProtocolViolation, "protocol-violation")
_FILE = Expected(ProtocolViolation, "offline-answer-malformed")


def _case(title: str, clause: str, what: str, issue: Issue, check: str = "", *flows: FlowName) -> Misbehaviour:
    """One entry; `flows` can read it, and a check of `enroll.trust` refuses it then."""
    refused = Expected(CertificateRefused, f"certificate-{check}")
    otherwise = {FlowName.OFFLINE: _FILE, **dict.fromkeys(flows, refused)}
    return Misbehaviour(title, clause, what, _VIOLATION, Conduct(issue=issue), ALL, otherwise)


def _edited(edit: Callable[[list[bytes]], None]) -> Issue:
    return lambda issuing: [resigned(right(issuing), issuing.ca.key, edit)]


def _many_names(issuing: Issuing) -> list[bytes]:
    names = [x509.DNSName(f"a{number}.example") for number in range(10_000)]
    return [der_of(issuing.ca.issue(issuing.asked.public_key, issuing.content, alternative_names=names))]


def _crowd(issuing: Issuing) -> list[bytes]:
    return [der_of(right(issuing)), *(der_of(HospitalCa(f"CA {number}").certificate) for number in range(12))]


def _fat(issuing: Issuing) -> list[bytes]:
    content = b"\x04\x83\x01\x00\x00" + bytes(1 << 16)
    fat = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.32473.9"), content)
    builder = (
        x509.CertificateBuilder(issuing.ca.name, issuing.content.subject, issuing.asked.public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(issuing.content.begin)
        .not_valid_after(issuing.content.end)
        .add_extension(fat, critical=False)
    )
    return [der_of(builder.sign(issuing.ca.key, hashes.SHA256()))]


def _duplicate_extension(parts: list[bytes]) -> None:
    (listed,) = children(parts[EXTENSIONS])
    extensions = children(listed)
    parts[EXTENSIONS] = der.encode(0xA3, der.encode(der.SEQUENCE, b"".join([*extensions, extensions[-1]])))


def _without_serial(parts: list[bytes]) -> None:
    del parts[SERIAL]


def _serial(number: bytes) -> Callable[[list[bytes]], None]:
    def edit(parts: list[bytes]) -> None:
        parts[SERIAL] = der.encode(0x02, number)

    return edit


def _first_version(parts: list[bytes]) -> None:
    del parts[VERSION]


def _no_date(parts: list[bytes]) -> None:
    begin, _ = children(parts[VALIDITY])
    parts[VALIDITY] = der.encode(der.SEQUENCE, begin + der.encode(0x17, b"991399256199Z"))


def _long_length(parts: list[bytes]) -> None:
    serial = parts[SERIAL]
    parts[SERIAL] = bytes([serial[0], 0x81, serial[1]]) + serial[2:]


def _unreadable_names(parts: list[bytes]) -> None:
    names = der.object_identifier("2.5.29.17") + der.encode(der.OCTET_STRING, b"\x30\x03\x87\x01\x7f")
    parts[EXTENSIONS] = der.encode(0xA3, der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, names)))


def _trailing_data(issuing: Issuing) -> list[bytes]:
    tbs, *rest = children(der_of(right(issuing)))
    return [der.encode(der.SEQUENCE, b"".join([tbs, *rest, b"\x04\x04evil"]))]


def _indefinite_length(issuing: Issuing) -> list[bytes]:
    return [b"\x30\x80" + b"".join(children(der_of(right(issuing)))) + b"\0\0"]


def _cut_off(issuing: Issuing) -> list[bytes]:
    return [der_of(right(issuing))[:-1]]


def _another_value(_: Issuing) -> list[bytes]:
    return [der.encode(der.SEQUENCE, b"\x02\x01\x05")]


LAYER = Layer(
    "Certificates that are none",
    (
        _case(
            "ten-thousand-names",
            "RFC 5280 4.2.1.6",
            "It issues a certificate with 10,000 names.",
            _many_names,
            "too-large",
            FlowName.ACME,
        ),
        _case(
            "certificate-of-64-kib",
            "RFC 5280 4.2",
            "It issues a certificate with an extension of 64 KiB.",
            _fat,
            "too-large",
            FlowName.ACME,
        ),
        _case("thirteen-certificates", "RFC 7030 4.2.3", "It sends a dozen CAs that nobody asked for.", _crowd),
        _case(
            "duplicate-extension",
            "RFC 5280 4.2",
            "An extension is there twice.",
            _edited(_duplicate_extension),
            "malformed",
            *ALL,
        ),
        _case(
            "unreadable-names",
            "RFC 5280 4.2.1.6",
            "An address in the names has one byte.",
            _edited(_unreadable_names),
            "malformed",
            *ALL,
        ),
        _case("no-serial-number", "RFC 5280 4.1.2.2", "It leaves out the serial number.", _edited(_without_serial)),
        _case(
            "negative-serial-number",
            "RFC 5280 4.1.2.2",
            "The serial number is negative.",
            _edited(_serial(b"\x80\x01")),
            "bad-serial",
            *_LENIENT,
        ),
        _case(
            "serial-number-zero",
            "RFC 5280 4.1.2.2",
            "The serial number is 0.",
            _edited(_serial(b"\0")),
            "bad-serial",
            *_LENIENT,
        ),
        _case(
            "serial-number-of-21-octets",
            "RFC 5280 4.1.2.2",
            "The serial number has 21 octets.",
            _edited(_serial(b"\x01" * 21)),
            "bad-serial",
            *ALL,
        ),
        _case(
            "version-1-with-extensions",
            "RFC 5280 4.1.2.1",
            "It says version 1 and has extensions.",
            _edited(_first_version),
            "malformed",
            *ALL,
        ),
        _case("impossible-date", "RFC 5280 4.1.2.5.1", "It ends in the 13th month.", _edited(_no_date)),
        _case(
            "length-in-ber", "X.690 10.1", "A length in it is longer than needed, as BER allows.", _edited(_long_length)
        ),
        _case("indefinite-length", "X.690 10.1", "Its length is indefinite, as BER allows.", _indefinite_length),
        _case("data-behind-the-signature", "RFC 5280 4.1", "A fourth value stands in the certificate.", _trailing_data),
        _case("certificate-cut-off", "X.690 8.1.3", "The last byte of the certificate is missing.", _cut_off),
        _case(
            "another-value", "RFC 7030 4.2.3", "It sends another value where the certificate should be.", _another_value
        ),
    ),
)
