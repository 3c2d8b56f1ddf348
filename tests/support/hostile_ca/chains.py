"""Certificates whose path leads nowhere, or over somebody who may not issue."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.x509.oid import ObjectIdentifier

from enroll.csr import DIGITAL_SIGNATURE
from enroll.errors import OPERATOR, CertificateRefused
from enroll.flows.settings import FlowName
from tests.support.hostile_ca.certificates import judged
from tests.support.hostile_ca.certifying import ECDSA_WITH_SHA_1, MD5_WITH_RSA, der_of, resigned, right
from tests.support.hostile_ca.misbehaviour import Expected, Issue, Issuing, Layer
from tests.support.pki import CA_KEY_USAGE, HospitalCa, certify, name, new_key

_FOREIGN = HospitalCa("Hospital CA")  # the same name, another key


def _foreign(issuing: Issuing) -> list[bytes]:
    return [der_of(right(issuing, _FOREIGN)), der_of(_FOREIGN.certificate)]


def _under(**changes: Any) -> Issue:
    """A certificate under an intermediate CA that may not issue it."""

    def issue(issuing: Issuing) -> list[bytes]:
        changed: dict[str, Any] = {k: issuing.now + v if isinstance(v, timedelta) else v for k, v in changes.items()}
        between = HospitalCa("Imaging CA", issuing.ca, **changed)
        return [der_of(right(issuing, between)), der_of(between.certificate)]

    return issue


@cache
def _weak_ca(ca: HospitalCa) -> HospitalCa:
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - to be refused
    return HospitalCa("Old CA", ca, weak)


@cache
def _rsa_ca(ca: HospitalCa) -> HospitalCa:
    return HospitalCa("Imaging CA", ca, rsa.generate_private_key(65537, 2048))


def _sha_1(issuing: Issuing) -> list[bytes]:
    return [resigned(right(issuing), issuing.ca.key, algorithm=ECDSA_WITH_SHA_1)]


def _md5(issuing: Issuing) -> list[bytes]:
    between = _rsa_ca(issuing.ca)
    return [resigned(right(issuing, between), between.key, algorithm=MD5_WITH_RSA), der_of(between.certificate)]


def _by_weak_ca(issuing: Issuing) -> list[bytes]:
    between = _weak_ca(issuing.ca)
    return [der_of(right(issuing, between)), der_of(between.certificate)]


def _by_ed25519(issuing: Issuing) -> list[bytes]:
    key: Any = ed25519.Ed25519PrivateKey.generate()
    between = HospitalCa("Imaging CA", issuing.ca, new_key())
    usage = replace(issuing.content, alternative_names=(), ca=True, usage=CA_KEY_USAGE, extended_usage=())
    authority = certify(replace(usage, subject=between.name), key.public_key(), issuing.ca.name, issuing.ca.key)
    no_digest: Any = None  # the algorithm has its own
    content = replace(issuing.content, digest=no_digest)
    return [der_of(certify(content, issuing.asked.public_key, between.name, key)), der_of(authority)]


def _by_another_scanner(issuing: Issuing) -> list[bytes]:
    key = new_key()
    scanner = issuing.ca.issue(key.public_key(), issuing.content)
    forged = certify(issuing.content, issuing.asked.public_key, scanner.subject, key)
    return [der_of(forged), der_of(scanner)]


def _without_intermediate(issuing: Issuing) -> list[bytes]:
    return [der_of(right(issuing, HospitalCa("Imaging CA", issuing.ca)))]


def _deeper_than_allowed(issuing: Issuing) -> list[bytes]:
    first = HospitalCa("Imaging CA", issuing.ca, path_length=0)
    second = HospitalCa("Imaging CA 2", first)
    return [der_of(right(issuing, second)), der_of(second.certificate), der_of(first.certificate)]


def _name_constrained(issuing: Issuing) -> list[bytes]:
    between = HospitalCa("Imaging CA", issuing.ca)
    permitted = [x509.DirectoryName(name(COMMON_NAME="somebody else"))]
    builder = (
        x509.CertificateBuilder(issuing.ca.name, between.name, between.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(issuing.content.begin)
        .not_valid_after(issuing.content.end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(CA_KEY_USAGE, critical=True)
        .add_extension(x509.NameConstraints(permitted, None), critical=True)
    )
    authority = builder.sign(issuing.ca.key, hashes.SHA256())
    return [der_of(right(issuing, between)), der_of(authority)]


def _circle(issuing: Issuing) -> list[bytes]:
    one, other = HospitalCa("Imaging CA"), HospitalCa("Imaging CA 2")
    crossed = [
        HospitalCa(ca.certificate.subject.rfc4514_string()[3:], by, ca.key) for ca, by in ((one, other), (other, one))
    ]
    return [der_of(right(issuing, one)), *(der_of(ca.certificate) for ca in crossed)]


def _broken_signature(issuing: Issuing) -> list[bytes]:
    broken = bytearray(der_of(right(issuing)))
    broken[-1] ^= 1
    return [bytes(broken)]


_CRITICAL = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.32473.9"), b"\x05\x00")
_INCOMPLETE = {FlowName.OFFLINE: Expected(CertificateRefused, "offline-chain-incomplete", OPERATOR)}


def _strange(issuing: Issuing) -> list[bytes]:
    return [der_of(right(issuing, critical_extension=_CRITICAL))]


LAYER = Layer(
    "Chains that lead nowhere",
    (
        judged(
            "foreign-chain",
            "RFC 5280 6.1",
            "A CA of the same name with another key issues, and sends its root along.",
            "untrusted",
            _foreign,
        ),
        judged(
            "broken-signature", "RFC 5280 6.1.3", "One bit of the signature is wrong.", "untrusted", _broken_signature
        ),
        judged(
            "intermediate-expired",
            "RFC 5280 6.1.3",
            "It issues under a CA certificate that is over.",
            "untrusted",
            _under(end=timedelta(days=-1)),
        ),
        judged(
            "intermediate-not-begun",
            "RFC 5280 6.1.3",
            "It issues under a CA certificate that is not valid yet.",
            "untrusted",
            _under(begin=timedelta(days=1)),
        ),
        judged(
            "intermediate-missing",
            "RFC 7030 4.2.3",
            "It issues under an intermediate CA that it does not send.",
            "untrusted",
            _without_intermediate,
            otherwise=_INCOMPLETE,
        ),
        judged("circle", "RFC 5280 6.1", "Two CAs certify each other and lead nowhere.", "untrusted", _circle),
        judged(
            "issuer-is-no-ca",
            "RFC 5280 4.2.1.9",
            "It issues under a certificate without the CA flag.",
            "untrusted",
            _under(ca=False),
        ),
        judged(
            "issued-by-a-scanner",
            "RFC 5280 4.2.1.9",
            "Another scanner of the hospital issues.",
            "untrusted",
            _by_another_scanner,
        ),
        judged(
            "path-too-long",
            "RFC 5280 4.2.1.9",
            "It issues one level deeper than its CA certificate allows.",
            "untrusted",
            _deeper_than_allowed,
        ),
        judged(
            "issuer-may-not-issue",
            "RFC 5280 4.2.1.3",
            "The key of the intermediate CA may not sign certificates.",
            "untrusted",
            _under(usage=DIGITAL_SIGNATURE),
        ),
        judged(
            "name-constrained-ca",
            "RFC 5280 4.2.1.10",
            "It issues under a CA that is constrained to other names.",
            "untrusted",
            _name_constrained,
        ),
        judged(
            "unknown-critical-extension",
            "RFC 5280 4.2",
            "It adds a critical extension that nobody knows.",
            "untrusted",
            _strange,
        ),
        judged(
            "weak-key-in-the-chain",
            "RFC 9325 4.5",
            "It issues under a CA with an RSA key of 1024 bits.",
            "weak",
            _by_weak_ca,
        ),
        judged("sha-1-signature", "RFC 9155 1", "It signs with SHA-1.", "weak", _sha_1),
        judged("md5-signature", "RFC 6151 2", "It signs with MD5.", "weak", _md5),
        judged(
            "unknown-kind-of-key", "RFC 9325 4.5", "It issues under a CA with a key on Ed25519.", "weak", _by_ed25519
        ),
    ),
)
