"""Certificates that must not be used, though the CA is the right one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from enroll import der
from enroll.csr import DOCUMENT_SIGNING
from enroll.errors import OPERATOR, CertificateRefused
from enroll.flows.settings import FlowName
from tests.support.hostile_ca.certifying import VALIDITY, children, der_of, resigned, right
from tests.support.hostile_ca.misbehaviour import ALL, NOTHING, Conduct, Expected, Issue, Issuing, Layer, Misbehaviour
from tests.support.pki import ENCIPHERS, new_key

# By hand, an answer to no request of this scanner changes nothing: whoever brought it looks for the right one.
_OF_NOBODY = {FlowName.OFFLINE: Expected(CertificateRefused, "offline-answer-unknown", OPERATOR)}
_ANSWERED = {FlowName.OFFLINE: Expected(CertificateRefused, "offline-answer-answered", OPERATOR)}


def judged(
    title: str,
    clause: str,
    what: str,
    check: str,
    issue: Issue,
    *,
    otherwise: Mapping[FlowName, Expected] = NOTHING,
) -> Misbehaviour:
    """One entry; `check` of `enroll.trust` finds it."""
    expected = Expected(CertificateRefused, f"certificate-{check}")
    return Misbehaviour(title, clause, what, expected, Conduct(issue=issue), ALL, otherwise)


def _with(**changes: Any) -> Issue:
    """A certificate with other content."""
    return lambda issuing: [der_of(right(issuing, **changes)), der_of(issuing.ca.certificate)]


def _dated(**changes: timedelta) -> Issue:
    """A certificate with other dates, from now on."""
    return lambda issuing: _with(**{date: issuing.now + change for date, change in changes.items()})(issuing)


def _wrong_key(issuing: Issuing) -> list[bytes]:
    return [der_of(issuing.ca.issue(new_key().public_key(), issuing.content))]


def _only_itself(issuing: Issuing) -> list[bytes]:
    return [der_of(issuing.ca.certificate)]


def _two(issuing: Issuing) -> list[bytes]:
    return [der_of(right(issuing)), der_of(right(issuing))]


def _in_use_again(issuing: Issuing) -> list[bytes]:
    assert issuing.in_use is not None
    return [der_of(issuing.in_use)]


def _same_serial(issuing: Issuing) -> list[bytes]:
    assert issuing.in_use is not None
    return [der_of(right(issuing, serial=issuing.in_use.serial_number))]


def _additional_name(issuing: Issuing) -> list[bytes]:
    names = (*issuing.content.alternative_names, x509.DNSName("pacs.hospital.example"))
    return [der_of(right(issuing, alternative_names=names))]


def _other_subject(*attributes: tuple[ObjectIdentifier, str], keep: bool = True) -> Issue:
    """A subject with other attributes beside those that are asked for, or instead of them."""

    def issue(issuing: Issuing) -> list[bytes]:
        asked = list(issuing.content.subject) if keep else []
        return [der_of(right(issuing, subject=x509.Name([*asked, *(x509.NameAttribute(*one) for one in attributes)])))]

    return issue


def _signs_documents_too(issuing: Issuing) -> list[bytes]:
    usage = [*issuing.content.extended_usage, DOCUMENT_SIGNING]
    return [der_of(right(issuing, extended_usage=usage))]


def _end_before_beginning(issuing: Issuing) -> list[bytes]:
    def edit(parts: list[bytes]) -> None:
        parts[VALIDITY] = der.encode(der.SEQUENCE, b"".join(reversed(children(parts[VALIDITY]))))

    return [resigned(right(issuing), issuing.ca.key, edit)]


_SIGNS_AND_ISSUES = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_DAY = timedelta(days=1)
_OTHER_SCANNER = ((NameOID.COMMON_NAME, "Example CT CT-000124"), (NameOID.SERIAL_NUMBER, "CT-000124"))
_LOOK_ALIKE = ((NameOID.COMMON_NAME, "\u0421\u0422-000123"),)
_ENDLESS = "\x1b[2J\r\nok"
_KEYS = (
    judged("wrong-key", "RFC 7030 4.2.3", "It certifies another key.", "wrong-key", _wrong_key, otherwise=_OF_NOBODY),
    judged(
        "two-for-the-key",
        "RFC 7030 4.2.3",
        "It issues two for the key, so that one may stay unnoticed.",
        "wrong-key",
        _two,
    ),
    judged(
        "only-itself",
        "RFC 7030 4.2.3",
        "It sends its own certificate and none for the scanner.",
        "wrong-key",
        _only_itself,
        otherwise=_OF_NOBODY,
    ),
    judged(
        "already-seen",
        "RFC 7030 4.2.2",
        "It sends the certificate in use once more.",
        "wrong-key",
        _in_use_again,
        otherwise=_ANSWERED,
    ),
    judged(
        "same-serial-as-in-use",
        "RFC 5280 4.1.2.2",
        "It gives the number of the certificate in use to another one.",
        "not-new",
        _same_serial,
    ),
)
_NAMES = (
    judged(
        "wrong-names",
        "RFC 5280 4.1.2.6",
        "It names another scanner.",
        "wrong-names",
        _other_subject(*_OTHER_SCANNER, keep=False),
    ),
    judged(
        "no-subject",
        "RFC 5280 4.1.2.6",
        "It names nobody.",
        "wrong-names",
        _with(subject=x509.Name([]), alternative_names=()),
    ),
    judged(
        "look-alike-name",
        "RFC 5280 4.1.2.6",
        "It names somebody whose letters only look the same.",
        "wrong-names",
        _other_subject(*_LOOK_ALIKE, keep=False),
    ),
    judged(
        "second-common-name",
        "RFC 5280 4.1.2.6",
        "It adds a common name to the one asked for.",
        "wrong-names",
        _other_subject((NameOID.COMMON_NAME, "CT-000124")),
    ),
    judged(
        "control-characters-in-name",
        "RFC 5280 4.1.2.6",
        "It adds a title with control characters and a line break.",
        "wrong-names",
        _other_subject((NameOID.TITLE, _ENDLESS)),
    ),
    judged(
        "says-what-is-signed",
        "RFC 5280 4.1.2.6",
        "It adds the unit that marks derived images.",
        "wrong-names",
        _other_subject((NameOID.ORGANIZATIONAL_UNIT_NAME, " Derivation")),
    ),
    judged(
        "additional-name",
        "RFC 5280 4.2.1.6",
        "It adds the host name of another system.",
        "wrong-names",
        _additional_name,
    ),
    judged(
        "names-missing",
        "RFC 5280 4.2.1.6",
        "It leaves out the alternative names.",
        "wrong-names",
        _with(alternative_names=()),
    ),
)
_DATES = (
    judged(
        "past-dates", "RFC 5280 4.1.2.5", "The certificate is over.", "wrong-dates", _dated(begin=-2 * _DAY, end=-_DAY)
    ),
    judged(
        "future-dates",
        "RFC 5280 4.1.2.5",
        "The certificate begins tomorrow.",
        "wrong-dates",
        _dated(begin=_DAY, end=2 * _DAY),
    ),
    judged(
        "over-at-once",
        "RFC 5280 4.1.2.5",
        "The certificate ends in half a minute.",
        "wrong-dates",
        _dated(end=timedelta(seconds=30)),
    ),
    judged(
        "end-before-beginning",
        "RFC 5280 4.1.2.5",
        "The certificate ends before it begins.",
        "wrong-dates",
        _end_before_beginning,
    ),
)
_POWERS = (
    judged(
        "ca-certificate",
        "RFC 5280 4.2.1.9",
        "It makes the scanner a CA.",
        "is-ca",
        _with(ca=True, usage=_SIGNS_AND_ISSUES),
    ),
    judged(
        "ca-by-key-usage",
        "RFC 5280 4.2.1.3",
        "It lets the key sign certificates, without the CA flag.",
        "is-ca",
        _with(ca=None, usage=_SIGNS_AND_ISSUES),
    ),
    judged(
        "no-key-usage", "RFC 5280 4.2.1.3", "It does not say what the key is for.", "wrong-usage", _with(usage=None)
    ),
    judged("key-encipherment", "RFC 5280 4.2.1.3", "The key may not sign.", "wrong-usage", _with(usage=ENCIPHERS)),
    judged(
        "wrong-usage",
        "RFC 5280 4.2.1.12",
        "The certificate is for signing code.",
        "wrong-usage",
        _with(extended_usage=[ExtendedKeyUsageOID.CODE_SIGNING]),
    ),
    judged(
        "any-usage",
        "RFC 5280 4.2.1.12",
        "The certificate is for everything.",
        "wrong-usage",
        _with(extended_usage=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
    ),
    judged(
        "no-extended-usage",
        "RFC 5280 4.2.1.12",
        "It leaves out what the certificate is for.",
        "wrong-usage",
        _with(extended_usage=()),
    ),
    judged(
        "additional-usage",
        "RFC 9336 3",
        "The device certificate may sign documents, too.",
        "wrong-usage",
        _signs_documents_too,
    ),
)
LAYER = Layer("Certificates that must not be used", (*_KEYS, *_NAMES, *_DATES, *_POWERS))
