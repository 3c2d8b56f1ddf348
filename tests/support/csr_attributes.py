"""What an EST server wants in a request (csrattrs), encoded by a library that shares no code with the product."""

from __future__ import annotations

from typing import Any

from pyasn1.codec.der.encoder import encode
from pyasn1.type import char, univ
from pyasn1_alt_modules import rfc5280, rfc7030, rfc9908

CHALLENGE_PASSWORD = "1.2.840.113549.1.9.7"
EMAIL_ADDRESS = "1.2.840.113549.1.9.1"
EXTENSION_REQUEST = "1.2.840.113549.1.9.14"
TEMPLATE = "1.2.840.113549.1.9.16.2.61"
EXTENSION_TEMPLATE = "1.2.840.113549.1.9.16.2.62"
EC_PUBLIC_KEY, RSA_ENCRYPTION = "1.2.840.10045.2.1", "1.2.840.113549.1.1.1"
P_256, P_384 = "1.2.840.10045.3.1.7", "1.3.132.0.34"
ORGANIZATION, UNIT, COUNTRY, COMMON_NAME = "2.5.4.10", "2.5.4.11", "2.5.4.6", "2.5.4.3"
DOMAIN = "0.9.2342.19200300.100.1.25"
EXTENDED_KEY_USAGE, CERTIFICATE_POLICIES = "2.5.29.37", "2.5.29.32"

Named = tuple[str, Any]  # an OID; its value as a pyasn1 object or DER, or None


def text(value: str) -> univ.Any:
    return univ.Any(encode(char.UTF8String(value)))


def oid(value: str) -> univ.Any:
    return univ.Any(encode(univ.ObjectIdentifier(value)))


def integer(value: int) -> univ.Any:
    return univ.Any(encode(univ.Integer(value)))


def attribute(named: Named) -> Any:
    """One with a value."""
    made = rfc5280.Attribute()
    made["type"] = univ.ObjectIdentifier(named[0])
    made["values"][0] = named[1]
    return made


def csr_attributes(*wanted: str | Named) -> bytes:
    """CsrAttrs (RFC 7030 4.5.2): bare OIDs, and attributes with a value."""
    made = rfc7030.CsrAttrs()
    made.clear()
    for number, one in enumerate(wanted):
        choice = rfc7030.AttrOrOID()
        if isinstance(one, str):
            choice["oid"] = univ.ObjectIdentifier(one)
        else:
            choice["attribute"]["attrType"] = univ.ObjectIdentifier(one[0])
            choice["attribute"]["attrValues"][0] = one[1]
        made[number] = choice
    return bytes(encode(made))


def extensions(*wanted: Named) -> univ.Any:
    """Extensions (RFC 5280 4.1); without a value ExtensionReqTemplate (RFC 9908 3.4)."""
    made = univ.SequenceOf(componentType=rfc9908.ExtensionTemplate())
    for number, (identifier, value) in enumerate(wanted):
        made[number]["extnID"] = univ.ObjectIdentifier(identifier)
        if value is not None:
            made[number]["extnValue"] = univ.OctetString(value)
    return univ.Any(encode(made))


ANY_USAGE: Named = (EXTENSION_TEMPLATE, extensions((EXTENDED_KEY_USAGE, None)))


def template(
    subject: tuple[Named, ...] = (), key: tuple[str, Any] | None = None, attributes: tuple[Named, ...] = (ANY_USAGE,)
) -> Named:
    """CertificationRequestInfoTemplate (RFC 9908 3.4)."""
    made = rfc9908.CertificationRequestInfoTemplate()
    made["version"] = 0
    for number, (identifier, value) in enumerate(subject):
        single = made["subject"]["rdnSequence"][number][0]
        single["type"] = univ.ObjectIdentifier(identifier)
        if value is not None:
            single["value"] = value
    if key is not None:
        made["subjectPKInfo"]["algorithm"]["algorithm"] = univ.ObjectIdentifier(key[0])
        if isinstance(key[1], bytes):
            made["subjectPKInfo"]["subjectPublicKey"] = univ.BitString.fromOctetString(key[1])
        else:
            made["subjectPKInfo"]["algorithm"]["parameters"] = key[1]
    for number, named in enumerate(attributes):
        made["attributes"][number] = attribute(named)
    return TEMPLATE, univ.Any(encode(made))
