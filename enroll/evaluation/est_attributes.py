"""What the evaluation EST server asks requests to hold (RFC 7030 4.5.2, RFC 8951 4, RFC 9908). NOT FOR PRODUCTION.

    CsrAttrs ::= SEQUENCE OF CHOICE { OBJECT IDENTIFIER, Attribute }

It asks for nothing that a scanner would not send anyway, or that the CA would copy.
"""

from __future__ import annotations

from enum import StrEnum

from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID, ObjectIdentifier

from enroll import der
from enroll.csr import DIGITAL_SIGNATURE

CHALLENGE_PASSWORD = ObjectIdentifier("1.2.840.113549.1.9.7")
EXTENSION_REQUEST = ObjectIdentifier("1.2.840.113549.1.9.14")
EXTENSION_REQUEST_TEMPLATE = ObjectIdentifier("1.2.840.113549.1.9.16.2.62")  # RFC 9908 3.4
REQUEST_INFO_TEMPLATE = ObjectIdentifier("1.2.840.113549.1.9.16.2.61")  # RFC 9908 3.4
EC_PUBLIC_KEY = ObjectIdentifier("1.2.840.10045.2.1")
P_256 = ObjectIdentifier("1.2.840.10045.3.1.7")
ECDSA_WITH_SHA256 = ObjectIdentifier("1.2.840.10045.4.3.2")

_BOOLEAN_TRUE = bytes((0x01, 0x01, 0xFF))
_EMPTY_TEXT = bytes((0x0C, 0x00))
_VERSION_1 = bytes((0x02, 0x01, 0x00))
_SET = 0x31
_CONTEXT = 0xA0  # constructed [0], [1], ...


class CsrAttributes(StrEnum):
    """In which form it asks."""

    NONE = "none"
    IDENTIFIERS = "identifiers"  # bare object identifiers
    ATTRIBUTES = "attributes"  # with values: kind of key, extensions
    TEMPLATE = "template"  # RFC 9908 3.4


def csr_attributes(form: CsrAttributes, *, linked: bool) -> bytes:
    """CsrAttrs in DER; empty where nothing is asked for.

    Args:
        form: How.
        linked: Whether requests have to hold tls-unique as challengePassword (RFC 7030 3.5).
    """
    linking = [identifier(CHALLENGE_PASSWORD)] if linked else []
    asked = [*linking, *_asked(form, linked=linked)]
    return sequence(*asked) if asked else b""


def _asked(form: CsrAttributes, *, linked: bool) -> list[bytes]:
    match form:
        case CsrAttributes.NONE:
            return []
        case CsrAttributes.IDENTIFIERS:
            return [identifier(oid) for oid in (NameOID.EMAIL_ADDRESS, NameOID.SERIAL_NUMBER, ECDSA_WITH_SHA256)]
        case CsrAttributes.ATTRIBUTES:
            return [attribute(EC_PUBLIC_KEY, identifier(P_256)), extension_request()]
        case CsrAttributes.TEMPLATE:
            return [template(linked=linked)]


def extension_request() -> bytes:
    """Exactly one value, of type Extensions (RFC 9908 3.2): keyUsage with its value."""
    return attribute(EXTENSION_REQUEST, sequence(_extension(ExtensionOID.KEY_USAGE, DIGITAL_SIGNATURE)))


def template(*, linked: bool) -> bytes:
    """CertificationRequestInfoTemplate: a P-256 key, the names and usage of the device; the values are its own.

    Args:
        linked: As above. Who reads the template looks nowhere else, who does not know it finds the bare identifier.
    """
    subject = sequence(*(encoded_set(sequence(identifier(o))) for o in (NameOID.COMMON_NAME, NameOID.SERIAL_NUMBER)))
    key = sequence(identifier(EC_PUBLIC_KEY), identifier(P_256))
    extensions = sequence(
        _extension(ExtensionOID.KEY_USAGE, DIGITAL_SIGNATURE),
        _extension(ExtensionOID.EXTENDED_KEY_USAGE),
        _extension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME),
    )
    attributes = attribute(EXTENSION_REQUEST_TEMPLATE, extensions)
    if linked:
        attributes = attribute(CHALLENGE_PASSWORD, _EMPTY_TEXT) + attributes
    content = _VERSION_1 + subject + der.encode(_CONTEXT, key) + der.encode(_CONTEXT | 1, attributes)
    return attribute(REQUEST_INFO_TEMPLATE, der.encode(der.SEQUENCE, content))


def attribute(kind: ObjectIdentifier, value: bytes) -> bytes:
    """Attribute ::= SEQUENCE { type, values SET }, with one value."""
    return sequence(identifier(kind), encoded_set(value))


def identifier(oid: ObjectIdentifier) -> bytes:
    """An OBJECT IDENTIFIER."""
    return der.object_identifier(oid.dotted_string)


def sequence(*values: bytes) -> bytes:
    """A SEQUENCE of encoded values."""
    return der.encode(der.SEQUENCE, b"".join(values))


def encoded_set(value: bytes) -> bytes:
    """A SET of one encoded value."""
    return der.encode(_SET, value)


def _extension(kind: ObjectIdentifier, value: x509.KeyUsage | None = None) -> bytes:
    """Extension, critical; without a value that of RFC 9908's template, which is not."""
    if value is None:
        return sequence(identifier(kind))
    return sequence(identifier(kind), _BOOLEAN_TRUE, der.encode(der.OCTET_STRING, value.public_bytes()))
