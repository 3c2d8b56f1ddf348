"""Signers who may not sign, or who are somebody else: certificates, their CAs, and the device that the image names."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.x509.oid import ExtendedKeyUsageOID

from enroll.csr import hardware_module_name
from enroll.der import object_identifier
from tests.support.attacks.editing import Change, in_signature, one_after_the_other, rewritten, with_nodes, with_value
from tests.support.attacks.registry import Attack, Dcmsign
from tests.support.attacks.resigning import Who, resigned, stamped
from tests.support.attacks.signers import (
    LONG_AGO,
    MODEL,
    OWNER,
    SERIAL,
    Signer,
    foreign_ca,
    hospital_ca,
    revoked_scanner,
    rsa_key,
    scanner,
    signer,
    weak_ca,
)
from tests.support.pki import CA_KEY_USAGE, NOW, HospitalCa, name
from tests.support.raw_dicom import Node

ACCEPTS = Dcmsign.ACCEPTS
UNTRUSTED = ("chain: certificate-untrusted",)
WRONG_USAGE = ("chain: certificate-wrong-usage",)
WEAK: Final = ("chain: chain-weak",)
CERTIFICATE: Final = 0x04000115
_WITH_SHA256: Final = object_identifier("1.2.840.113549.1.1.11")  # RFC 4055 5
_WITH_SHA1: Final = object_identifier("1.2.840.113549.1.1.5")


@cache
def key_usage(**changes: bool) -> x509.KeyUsage:
    """The extension keyUsage with these bits."""
    nothing = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**{**nothing, **changes})


def _odd(**certificate: Any) -> Who:
    """The scanner with an odd certificate."""
    return lambda: signer(key=rsa_key(SERIAL, 3072), **certificate)


def _below(ca: HospitalCa) -> Signer:
    """The scanner with a certificate of that CA."""
    return signer(issuer=ca, key=rsa_key(SERIAL, 3072))


def _under_sha1() -> Signer:
    """The scanner with a certificate that the CA of the hospital signed with SHA-1, which no library does any more."""
    honest = scanner()
    body = honest.certificate.tbs_certificate_bytes.replace(_WITH_SHA256, _WITH_SHA1)
    value = rsa_key("CA").sign(body, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - an antique signature
    encoded = honest.certificate_der.replace(_WITH_SHA256, _WITH_SHA1)
    return Signer(honest.key, x509.load_der_x509_certificate(encoded[: -len(value)] + value))


@cache
def _namesake() -> HospitalCa:
    return HospitalCa(f"{OWNER} CA")


@cache
def _scanner_as_ca() -> HospitalCa:
    """Another scanner of the hospital that issues a certificate with its own key."""
    other = signer("CT-000777")
    issuer = HospitalCa("unused", key=rsa_key("CT-000777"))
    issuer.name = other.certificate.subject
    return issuer


@cache
def _intermediate() -> HospitalCa:
    """A CA below that of the hospital which nobody gave to the verifier."""
    return HospitalCa("Unknown intermediate CA", parent=hospital_ca())


def _self_signed() -> Signer:
    key = rsa_key(SERIAL, 3072)
    own = HospitalCa("unused", key=key)
    own.name = scanner().certificate.subject
    return _below(own)


def _the_ca() -> Signer:
    return Signer(rsa_key("CA"), hospital_ca().certificate)


def _exchanged(by: Who) -> Change:
    """Another certificate in the signature item; it is not part of the MAC."""

    def of_file(data: bytes) -> bytes:
        encoded = by().certificate_der
        return in_signature(with_value(CERTIFICATE, encoded + b"\0" * (len(encoded) % 2)))(data)

    return of_file


def _renamed(data: bytes) -> bytes:
    """The serial number in the certificate overwritten."""
    return data.replace(SERIAL.encode("ascii") + b"0", b"CT-000999" + b"0")


def _subject(**attributes: str) -> x509.Name:
    return name(
        **{"ORGANIZATION_NAME": OWNER, "COMMON_NAME": f"{MODEL} {SERIAL}", "SERIAL_NUMBER": SERIAL, **attributes}
    )


_FOREIGN: Final = (
    Attack(
        "signed-under-a-foreign-ca",
        "Somebody signs a changed image with a certificate of a CA that nobody here trusts.",
        resigned(lambda: _below(foreign_ca()), change=with_nodes(Node(0x7FE00010, "OW", bytes(32)))),
        UNTRUSTED,
    ),
    Attack(
        "signed-under-a-ca-of-the-same-name",
        "The same with a CA that calls itself as that of the hospital.",
        resigned(lambda: _below(_namesake())),
        UNTRUSTED,
    ),
    Attack(
        "self-signed",
        "The same with a certificate that the scanner is said to have issued to itself.",
        resigned(_self_signed),
        UNTRUSTED,
    ),
    Attack(
        "signed-under-an-unknown-intermediate",
        "The certificate comes from a CA below that of the hospital, and nobody has the certificate of that CA.",
        resigned(lambda: _below(_intermediate())),
        UNTRUSTED,
    ),
    Attack(
        "scanner-plays-ca",
        "Another scanner of the hospital issues a certificate with its own key, as if it were a CA.",
        resigned(lambda: _below(_scanner_as_ca())),
        UNTRUSTED,
    ),
    Attack(
        "signed-by-the-ca",
        "The CA of the hospital itself signs an image.",
        resigned(_the_ca),
        ("chain: certificate-is-ca",),
        ACCEPTS,
    ),
    Attack(
        "signed-with-a-ca-certificate",
        "The certificate of the scanner would let it issue certificates.",
        resigned(_odd(ca=True, usage=CA_KEY_USAGE)),
        ("chain: certificate-is-ca",),
        ACCEPTS,
    ),
    Attack(
        "certificate-exchanged-for-a-foreign-one",
        "The certificate in the file is exchanged for one of a foreign CA with the same key.",
        _exchanged(lambda: _below(foreign_ca())),
        UNTRUSTED,
    ),
    Attack(
        "certificate-edited",
        "The serial number in the certificate is overwritten.",
        _renamed,
        UNTRUSTED,
    ),
)

_NOT_GOOD_ANY_MORE: Final = (
    Attack(
        "certificate-expired",
        "The certificate has expired, and nothing proves that the signature was made before: a key that was thrown "
        "away can sign for ever, with any date.",
        resigned(_odd(end=NOW - timedelta(days=10))),
        ("time: certificate-expired",),
    ),
    Attack(
        "certificate-not-yet-valid",
        "The certificate begins next year.",
        resigned(_odd(begin=NOW + timedelta(days=365))),
        (*UNTRUSTED, "time: time-outside-certificate"),
    ),
    Attack(
        "certificate-revoked",
        "The hospital has revoked the certificate; nothing proves that the signature is older.",
        resigned(revoked_scanner),
        ("chain: certificate-revoked",),
    ),
    Attack(
        "certificate-of-a-sold-scanner-backdated",
        "The same, and the time of signing is set back to before the revocation.",
        resigned(revoked_scanner, at=NOW - timedelta(days=1_000)),
        ("chain: certificate-revoked",),
    ),
    Attack(
        "certificate-revoked-and-dropped-from-the-list",
        "The key was stolen and its certificate revoked; since that has expired, the revocation list, which has to "
        "keep only what expired later (RFC 5280 3.3), names it no more. A time stamp proves a time before the expiry.",
        one_after_the_other(
            resigned(_odd(end=LONG_AGO - timedelta(days=30)), at=LONG_AGO - timedelta(days=60)),
            stamped(LONG_AGO - timedelta(days=60)),
        ),
        ("chain: revocation-unknown",),
        ACCEPTS,
    ),
    Attack(
        "certificate-for-encryption",
        "The key was certified for encryption and not for signatures.",
        resigned(_odd(usage=key_usage(key_encipherment=True))),
        WRONG_USAGE,
        ACCEPTS,
    ),
    Attack(
        "certificate-of-a-web-server",
        "A web server of the hospital signs.",
        resigned(_odd(extended_usage=(ExtendedKeyUsageOID.SERVER_AUTH,))),
        WRONG_USAGE,
        ACCEPTS,
    ),
    Attack(
        "certificate-of-the-network-access",
        "The key with which the scanner logs into the network signs.",
        resigned(_odd(extended_usage=(ExtendedKeyUsageOID.CLIENT_AUTH,))),
        WRONG_USAGE,
        ACCEPTS,
    ),
    Attack(
        "certificate-with-an-unknown-condition",
        "The certificate holds a critical extension that nobody knows: a condition that cannot be checked.",
        resigned(
            _odd(critical_extension=x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.32473.9"), b"\5\0"))
        ),
        UNTRUSTED,
    ),
)

_WEAK: Final = (
    Attack(
        "intermediate-of-rsa-1024",
        "The certificate comes from a CA below that of the hospital whose key is so short that it can be calculated: "
        "whoever did so names himself as any scanner.",
        resigned(lambda: _below(weak_ca())),
        WEAK,
        ACCEPTS,
    ),
    Attack(
        "certificate-signed-with-sha-1",
        "The certificate is signed with SHA-1: it may be one that the CA issued to somebody else, with the names "
        "exchanged for those of a scanner.",
        resigned(_under_sha1),
        WEAK,
        ACCEPTS,
    ),
)

MISMATCH = ("identity: identity-mismatch",)
FUNCTION = ("identity: function-mismatch",)
_SOMEBODY_ELSE: Final = (
    Attack(
        "signed-by-another-scanner",
        "Another scanner of the hospital signs an image of this one: a good certificate that names another device.",
        resigned(lambda: signer("CT-000777")),
        MISMATCH,
        ACCEPTS,
    ),
    Attack(
        "certificate-exchanged-for-another-scanner",
        "The certificate is exchanged for one of another scanner that shares the key.",
        _exchanged(lambda: signer("CT-000777", key=rsa_key(SERIAL, 3072))),
        MISMATCH,
        ACCEPTS,
    ),
    Attack(
        "certificate-of-another-key",
        "The certificate is exchanged for one of another scanner with a key of its own.",
        _exchanged(lambda: signer("CT-000777", key=rsa_key("CT-000777", 3072))),
        ("integrity: signature-wrong",),
    ),
    Attack(
        "image-claims-another-scanner",
        "The serial number in the image is changed to that of another scanner.",
        rewritten(with_value(0x00181000, b"CT-000777 ")),
        ("integrity: signature-wrong", *MISMATCH),
    ),
    Attack(
        "image-silent-about-the-scanner",
        "A scanner signs an image that does not say which device made it.",
        resigned(scanner, change=lambda nodes: tuple(node for node in nodes if node.tag != 0x00181000)),
        ("identity: identity-silent",),
        ACCEPTS,
    ),
    Attack(
        "certificate-without-names",
        "The certificate names no device; anybody whom the CA knows could have signed.",
        resigned(_odd(subject=name(COMMON_NAME="signer"))),
        ("identity: identity-silent",),
        ACCEPTS,
    ),
    Attack(
        "certificate-of-two-scanners",
        "The certificate names two serial numbers, to fit the images of both.",
        resigned(
            _odd(
                subject=x509.Name(
                    [*_subject(), *name(SERIAL_NUMBER="CT-000777")],
                )
            )
        ),
        ("identity: identity-ambiguous",),
        ACCEPTS,
    ),
    Attack(
        "hardware-name-of-another-scanner",
        "The subject of the certificate names this scanner, and its hardware name (RFC 4108) another one.",
        resigned(_odd(alternative_names=(hardware_module_name("1.3.6.1.4.1.32473.1.2", "CT-000777"),))),
        MISMATCH,
        ACCEPTS,
    ),
    Attack(
        "certificate-of-another-model",
        "The certificate names another model than the image.",
        resigned(_odd(subject=_subject(COMMON_NAME=f"Example MR {SERIAL}"))),
        ("identity: identity-differs",),
        ACCEPTS,
    ),
    Attack(
        "certificate-of-another-owner",
        "The certificate names another hospital than the image.",
        resigned(_odd(subject=_subject(ORGANIZATION_NAME="Other Hospital"))),
        ("identity: identity-differs",),
        ACCEPTS,
    ),
    Attack(
        "synthesis-key-signs-an-original",
        "The key that signs artificial images signs one that says it is an original and not artificial.",
        resigned(_odd(subject=_subject(ORGANIZATIONAL_UNIT_NAME="synthesis"))),
        FUNCTION,
        ACCEPTS,
    ),
    Attack(
        "derivation-key-signs-an-original",
        "The key that signs processed images signs one that says it is an original.",
        resigned(_odd(subject=_subject(ORGANIZATIONAL_UNIT_NAME="derivation"))),
        FUNCTION,
        ACCEPTS,
    ),
)

ATTACKS: Final = (*_FOREIGN, *_NOT_GOOD_ANY_MORE, *_WEAK, *_SOMEBODY_ELSE)
