"""Certificates as they were asked for, and as no library would make them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from enroll import der
from enroll.keystore.base import PublicKey
from tests.support.cmp_server import Asked
from tests.support.hostile_ca.misbehaviour import Issuing
from tests.support.pki import Content, HospitalCa, new_key

ECDSA_SHA_256 = der.encode(der.SEQUENCE, der.object_identifier("1.2.840.10045.4.3.2"))
VERSION, SERIAL, ALGORITHM, ISSUER, VALIDITY, SUBJECT, KEY, EXTENSIONS = range(8)  # TBSCertificate, RFC 5280 4.1


def asked_of(request: x509.CertificateSigningRequest) -> Asked:
    """What a PKCS#10 asks for."""
    key = request.public_key()
    assert isinstance(key, PublicKey)
    return Asked(key, request.subject, request.extensions)


def asked_content(asked: Asked, now: datetime) -> Content:
    """All that is asked for, in a certificate."""
    values = {type(extension.value): extension.value for extension in asked.extensions}
    names: Any = values.get(x509.SubjectAlternativeName, ())
    usage: Any = values.get(x509.ExtendedKeyUsage, ())
    asked_for = Content(subject=asked.subject, alternative_names=tuple(names), extended_usage=tuple(usage))
    return replace(asked_for, begin=now - MARGIN, end=now + LIFETIME)


def der_of(certificate: x509.Certificate) -> bytes:
    """A certificate in DER."""
    return certificate.public_bytes(serialization.Encoding.DER)


def children(encoded: bytes) -> list[bytes]:
    """The values in a constructed one."""
    rest, found = encoded[2 + (encoded[1] & 0x7F if encoded[1] & 0x80 else 0) :], []
    while rest:
        size = der.announced_length(rest)
        assert size is not None
        found.append(rest[:size])
        rest = rest[size:]
    return found


def resigned(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, edit: Callable[[list[bytes]], None]) -> bytes:
    """A certificate whose parts were edited before its CA signed it."""
    tbs, algorithm, _ = children(der_of(certificate))
    parts = children(tbs)
    edit(parts)
    content = der.encode(der.SEQUENCE, b"".join(parts))
    signature = key.sign(content, ec.ECDSA(hashes.SHA256()))
    return der.encode(der.SEQUENCE, content + algorithm + der.encode(0x03, b"\0" + signature))
