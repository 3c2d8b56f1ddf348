"""Certificates as they were asked for, and as no library would make them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from enroll import der
from enroll.keystore.base import PrivateKey, PublicKey
from tests.support.cmp_server import Asked
from tests.support.hostile_ca.misbehaviour import Issuing
from tests.support.pki import Content, HospitalCa

MARGIN = timedelta(minutes=5)
LIFETIME = timedelta(days=365)
VERSION, SERIAL, ALGORITHM, ISSUER, VALIDITY, SUBJECT, KEY, EXTENSIONS = range(8)  # RFC 5280 4.1: TBSCertificate


def asked_of(request: x509.CertificateSigningRequest) -> Asked:
    """What a PKCS#10 asks for."""
    key = request.public_key()
    assert isinstance(key, PublicKey)
    return Asked(key, request.subject, request.extensions)


def asked_content(asked: Asked, now: datetime) -> Content:
    """All that is asked for, as a certificate has it."""
    values = {type(extension.value): extension.value for extension in asked.extensions}
    names: Any = values.get(x509.SubjectAlternativeName, ())
    usage: Any = values.get(x509.ExtendedKeyUsage, ())
    asked_for = Content(subject=asked.subject, alternative_names=tuple(names), extended_usage=tuple(usage))
    return replace(asked_for, begin=now - MARGIN, end=now + LIFETIME)


def right(issuing: Issuing, issuer: HospitalCa | None = None, **changes: Any) -> x509.Certificate:
    """The certificate that is asked for, with changes."""
    return (issuer or issuing.ca).issue(issuing.asked.public_key, issuing.content, **changes)


def der_of(certificate: x509.Certificate) -> bytes:
    """A certificate in DER."""
    return certificate.public_bytes(serialization.Encoding.DER)


def armoured(label: str, content: bytes) -> bytes:
    """Anything as PEM."""
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label.encode(), base64.encodebytes(content), label.encode())


def children(encoded: bytes) -> list[bytes]:
    """The values in a constructed one."""
    rest, found = encoded[2 + (encoded[1] & 0x7F if encoded[1] & 0x80 else 0) :], []
    while rest:
        size = der.announced_length(rest)
        assert size is not None
        found.append(rest[:size])
        rest = rest[size:]
    return found


@dataclass(frozen=True)
class Algorithm:
    """How a certificate is signed: AlgorithmIdentifier, and the hash."""

    identifier: bytes
    digest: hashes.HashAlgorithm


ECDSA_WITH_SHA_256 = Algorithm(der.encode(der.SEQUENCE, der.object_identifier("1.2.840.10045.4.3.2")), hashes.SHA256())
ECDSA_WITH_SHA_1 = Algorithm(der.encode(der.SEQUENCE, der.object_identifier("1.2.840.10045.4.1")), hashes.SHA1())  # noqa: S303 - to be refused
MD5_WITH_RSA = Algorithm(
    der.encode(der.SEQUENCE, der.object_identifier("1.2.840.113549.1.1.4") + b"\x05\x00"),
    hashes.MD5(),  # noqa: S303 - to be refused
)


def resigned(
    certificate: x509.Certificate,
    key: PrivateKey,
    edit: Callable[[list[bytes]], None] = lambda _: None,
    algorithm: Algorithm = ECDSA_WITH_SHA_256,
) -> bytes:
    """A certificate whose parts were edited before its CA signed it."""
    tbs, _, _ = children(der_of(certificate))
    parts = children(tbs)
    parts[ALGORITHM] = algorithm.identifier
    edit(parts)
    content, digest = der.encode(der.SEQUENCE, b"".join(parts)), cast("Any", algorithm.digest)
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(content, padding.PKCS1v15(), digest)
    else:
        signature = key.sign(content, ec.ECDSA(digest))
    return der.encode(der.SEQUENCE, content + algorithm.identifier + der.encode(0x03, b"\0" + signature))


def certs_only(*certificates: bytes, content_type: str = "1.2.840.113549.1.7.2") -> bytes:
    """A certs-only message (RFC 5652 5.1) with anything for certificates."""
    empty_set = der.encode(0x31, b"")
    data = der.encode(der.SEQUENCE, der.object_identifier("1.2.840.113549.1.7.1"))
    bag = der.encode(0xA0, b"".join(sorted(certificates))) if certificates else b""  # X.690 11.6
    signed_data = der.encode(der.SEQUENCE, b"\x02\x01\x01" + empty_set + data + bag + empty_set)
    return der.encode(der.SEQUENCE, der.object_identifier(content_type) + der.encode(0xA0, signed_data))
