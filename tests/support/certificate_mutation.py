"""Damages certificates and time stamp tokens: their bytes, and what their CA would have vouched for."""

from __future__ import annotations

import random
from functools import cache
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier

from enroll.csr import hardware_module_name
from enroll.der import SEQUENCE, encode
from tests.support.fixed_keys import fixed_rsa_key
from tests.support.pki import NOW, name
from tests.support.signed_seeds import SIGNED_AT, authority

_CONSTRUCTED: Final = 0x20
_SHA_256_WITH_RSA: Final = bytes.fromhex("300d06092a864886f70d01010b0500")
TAGS: Final = (0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0C, 0x13, 0x16, 0x17, 0x18, 0x1E, 0x30, 0x31, 0x80, 0xA0, 0xA3)
CONTENTS: Final = (
    b"",
    b"\0",
    b"\xff" * 3,
    b"\xff\xfe\xd8\0",
    b"\xc3\x28",
    b"urn:oid:2.25.1234",
    b"https://id.gs1.org/01/1",
)


def certificate_changed(stored: bytes, chance: random.Random) -> bytes:
    """Another value for what is stored in (0400,0115) or (0400,0310)."""
    match chance.randrange(5):
        case 0:
            return chance.choice(odd_certificates())
        case 1:
            at = chance.randrange(len(stored) + 1)
            return stored[:at] + chance.choice((b"", chance.randbytes(2), stored[at : at + 9] * 2)) + stored[at + 1 :]
        case 2:
            return der_changed(stored, chance)
        case _:
            return issued_again(chance.choice((stored, *odd_certificates())), chance)


@cache
def odd_certificates() -> tuple[bytes, ...]:
    """Certificates of the signer's key by its CA, with what certificates may hold and seldom do."""
    key, ca = fixed_rsa_key("signer").public_key(), authority()
    weird_names: tuple[x509.GeneralName, ...] = (
        x509.UniformResourceIdentifier("urn:oid:2.25.1234"),
        x509.UniformResourceIdentifier("https://id.gs1.org/01/00844588003288/21/CT-000123"),
        x509.DirectoryName(name(ORGANIZATION_NAME="Hospital")),
        x509.RegisteredID(ObjectIdentifier("1.2.3")),
        hardware_module_name("1.2.3.4", "CT-000123"),
    )
    contents: tuple[dict[str, Any], ...] = (
        {"alternative_names": weird_names},
        {"subject": x509.Name([]), "alternative_names": ()},
        {"subject": name(ORGANIZATION_NAME="Maker", ORGANIZATIONAL_UNIT_NAME="derivation")},
        {"subject": name(COMMON_NAME="\u202e\x1b[2J,+\\", SERIAL_NUMBER="x" * 64)},
        {"usage": None, "extended_usage": ()},
        {"ca": True, "path_length": 0},
        {"serial": 99},
        {"end": SIGNED_AT},
        {"digest": hashes.SHA384()},
        {"critical_extension": x509.UnrecognizedExtension(ObjectIdentifier("1.2.3"), b"")},
    )
    certificates = [ca.issue(key, **{"serial": 5, "begin": SIGNED_AT, **content}) for content in contents]
    certificates.append(ca.issue(rsa.RSAPublicNumbers(65537, (1 << 1023) + 1).public_key(), serial=5))
    certificates.append(ca.certificate)
    other_key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    builder = x509.CertificateBuilder(ca.name, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other")]), other_key)
    dated = builder.serial_number(6).not_valid_before(SIGNED_AT).not_valid_after(NOW)
    certificates.append(dated.sign(fixed_rsa_key("authority"), hashes.SHA256()))
    return tuple(certificate.public_bytes(serialization.Encoding.DER) for certificate in certificates)


def issued_again(stored: bytes, chance: random.Random) -> bytes:
    """A certificate with changed content, over which the CA has put its signature."""
    outer = _children(stored)
    if not outer or not outer[0]:
        return stored
    content = der_changed(outer[0], chance)
    signature = fixed_rsa_key("authority").sign(content, padding.PKCS1v15(), hashes.SHA256())
    return encode(SEQUENCE, content + _SHA_256_WITH_RSA + encode(0x03, b"\0" + signature))


def der_changed(encoded: bytes, chance: random.Random) -> bytes:
    """The same DER with one value in it changed, and all lengths around it right."""
    children = _children(encoded) if encoded[:1] and encoded[0] & _CONSTRUCTED else []
    if children and chance.random() < 0.9:
        at = chance.randrange(len(children))
        children[at] = der_changed(children[at], chance)
        return encode(encoded[0], b"".join(children))
    if len(encoded) < 2:
        return encode(chance.choice(TAGS), b"")
    tag, content = encoded[0], _content(encoded)
    at = chance.randrange(len(content) + 1)
    choices = (
        encode(chance.choice(TAGS), content),
        encode(tag, chance.choice(CONTENTS)),
        encode(tag, content[:at] + chance.randbytes(1) + content[at + 1 :]),
        encode(tag, content + chance.randbytes(chance.choice((1, 4, 60)))),
        encoded * 2,
        b"",
    )
    return chance.choice(choices)


def _content(encoded: bytes) -> bytes:
    return encoded[2 + (encoded[1] & 0x7F if encoded[1] & 0x80 else 0) :]


def _children(encoded: bytes) -> list[bytes]:
    """The values in a constructed one, as far as they are complete."""
    rest, found = _content(encoded) if len(encoded) > 1 else b"", []
    while len(rest) > 1:
        octets = rest[1] & 0x7F if rest[1] & 0x80 else 0
        size = 2 + octets + (int.from_bytes(rest[2 : 2 + octets]) if octets else rest[1])
        found.append(rest[:size])
        rest = rest[size:]
    return found
