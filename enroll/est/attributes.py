"""What an EST server wants to find in a request: csrattrs (RFC 7030 4.5.2, RFC 8951 4, RFC 9908).

There are two forms, and where both come the template counts (RFC 9908 4). Only the link is wanted wherever it is
listed: it is no part of the content, and a server that needs it lists it (RFC 8951 4).

    CsrAttrs ::= SEQUENCE OF CHOICE { OBJECT IDENTIFIER, Attribute }
    Attribute 1.2.840.113549.1.9.16.2.61 { CertificationRequestInfoTemplate }

| asked for                                          | what becomes of it                                              |
|----------------------------------------------------|-----------------------------------------------------------------|
| challengePassword                                  | the request is linked to the TLS connection (RFC 7030 3.5)      |
| O, OU, C, ST, L, DC with a value                   | stands before the names of the device                           |
| an OU that tells what is signed                    | ignored: the device says that itself                            |
| a kind of key                                      | compared with ours and logged: the key is there already         |
| names of the device, key usage, alternative names  | stand in every request, as `enroll.csr` makes them              |
| everything else                                    | ignored and logged: it cannot be supplied                       |
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import AttributeOID, ExtensionOID, NameOID, ObjectIdentifier, PublicKeyAlgorithmOID

from enroll import der
from enroll.certificates import PARSE_ERRORS, decode_base64
from enroll.csr import OWNERS_NAMES, RESERVED_UNITS, UNSTRUCTURED_NAME, Usage
from enroll.errors import ProtocolViolation
from enroll.foreign import printable
from enroll.keystore.keys import CURVES

SIZE_LIMIT = 64 * 1024  # bytes of a body
OWNERS_NAMES_LIMIT = 16
NAME_LIMIT = 128  # characters; the widest of the upper bounds in RFC 5280 appendix A.1
RSA_LIMIT = 1 << 16  # bits; whatever is wanted, no key here is as long

CONTENT_TYPE = "application/csrattrs"
REQUEST_TEMPLATE = ObjectIdentifier("1.2.840.113549.1.9.16.2.61")  # RFC 9908 3.4
EXTENSION_TEMPLATE = ObjectIdentifier("1.2.840.113549.1.9.16.2.62")
EXTENSION_REQUEST = ObjectIdentifier("1.2.840.113549.1.9.14")  # RFC 2985 5.4.2
_CHALLENGE_PASSWORD = AttributeOID.CHALLENGE_PASSWORD
_ELLIPTIC, _RSA = PublicKeyAlgorithmOID.EC_PUBLIC_KEY, PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5
_IN_EVERY_REQUEST = frozenset(
    {
        NameOID.COMMON_NAME,
        NameOID.SERIAL_NUMBER,
        UNSTRUCTURED_NAME,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
_OUR_NAMES = {curve.name: str(algorithm) for algorithm, curve in CURVES.items()}
_NAMES = {  # of what servers like to list
    "1.2.840.113549.1.9.1": "emailAddress",
    "1.2.840.113549.1.9.16.2.37": "a key made by the CA (serverkeygen, RFC 7030 4.4.1.1)",
    "1.2.840.113549.1.9.16.2.54": "a key made by the CA (serverkeygen, RFC 7030 4.4.1.2)",
}
_STRINGS = {0x0C: "utf-8", 0x13: "ascii", 0x16: "ascii"}  # UTF8String, PrintableString, IA5String
_SET, _INTEGER, _BIT_STRING, _KEY, _ATTRIBUTES = 0x31, 0x02, 0x03, 0xA0, 0xA1
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class WantedKey:
    """A kind of key that a CA wants.

    Args:
        algorithm: ecPublicKey, rsaEncryption or another.
        curve: Of an elliptic curve; None for any.
        bits: Of an RSA key; None for any.
    """

    algorithm: ObjectIdentifier
    curve: ObjectIdentifier | None = None
    bits: int | None = None

    def __str__(self) -> str:
        if self.algorithm == _RSA:
            return f"rsa-{self.bits}" if self.bits else "rsa"
        if self.algorithm == _ELLIPTIC:
            name = _curve_name(self.curve) if self.curve else "an elliptic curve"
            return _OUR_NAMES.get(name, name)
        return f"algorithm {self.algorithm.dotted_string}"

    def is_met_by(self, key: CertificatePublicKeyTypes) -> bool:
        """Whether a key is of this kind; a longer RSA key is."""
        if isinstance(key, rsa.RSAPublicKey):
            return self.algorithm == _RSA and key.key_size >= (self.bits or 0)
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return False
        return self.algorithm == _ELLIPTIC and (self.curve is None or _curve_name(self.curve) == key.curve.name)


@dataclass(frozen=True)
class WantedAttributes:
    """What is wanted, as far as it means something to this side.

    Args:
        linked: Whether the request has to be linked to the TLS connection.
        owners_names: For the subject, in this order.
        keys: Any of these kinds of key; empty where any will do.
        ignored: What cannot be supplied, for the log.
    """

    linked: bool = False
    owners_names: tuple[x509.NameAttribute[str], ...] = ()
    keys: tuple[WantedKey, ...] = ()
    ignored: tuple[str, ...] = ()

    def unmet(self, key: CertificatePublicKeyTypes) -> str:
        """The kinds of key that are wanted, where `key` is none of them; otherwise empty."""
        is_met = not self.keys or any(wanted.is_met_by(key) for wanted in self.keys)
        return "" if is_met else printable(", ".join(map(str, self.keys)))

    def log_unmet(self, key: CertificatePublicKeyTypes, usage: Usage) -> str:
        """Say in the log what a request for `key` will not have of it.

        Returns:
            What to advise where the CA refuses that request; empty where the key is of a kind that it wants.
        """
        if self.ignored:
            _LOG.info("Not in the request, though the CA wants it: %s", printable(", ".join(self.ignored)))
        unmet = self.unmet(key)
        if not unmet:
            return ""
        _LOG.warning("The CA wants another kind of key: %s", unmet)
        return f"The CA wants keys of this kind: {unmet}. Compare [identity.{usage}] key_algorithm."


@dataclass(frozen=True)
class _Named:
    """One thing that is asked for: an attribute, or an extension."""

    oid: ObjectIdentifier
    values: tuple[asn1.TLV, ...] = ()


def read(body: bytes) -> WantedAttributes:
    """What the body of a csrattrs answer wants; an empty one wants nothing (RFC 8951 4).

    Raises:
        ProtocolViolation: It is no CsrAttrs in DER and base64, or too long.
    """
    if not body.strip():
        return WantedAttributes()
    if len(body) > SIZE_LIMIT:
        raise _violation(f"more than {SIZE_LIMIT} bytes")
    try:
        listed = [_attribute(item) for item in _elements(decode_base64(body), der.SEQUENCE)]
        template = next((named for named in listed if named.oid == REQUEST_TEMPLATE and named.values), None)
        if template is None:
            return _wanted(_expanded(listed), [_key(named) for named in listed if named.oid in (_ELLIPTIC, _RSA)])
        wanted = _of_template(template.values[0])
        return replace(wanted, linked=wanted.linked or any(named.oid == _CHALLENGE_PASSWORD for named in listed))
    except PARSE_ERRORS as error:
        raise _violation("something else") from error


def _of_template(template: asn1.TLV) -> WantedAttributes:
    """CertificationRequestInfoTemplate: version, subject, [0] key, [1] attributes; all but the first may be missing."""
    _, *parts = _elements(_whole(template), der.SEQUENCE)
    subject: list[_Named] = []
    keys: list[WantedKey] = []
    attributes: list[_Named] = []
    for part in parts:
        tag = part.tag_bytes[0]
        if tag == der.SEQUENCE:
            names = (name for relative in _elements(_whole(part), tag) for name in _elements(_whole(relative), _SET))
            subject = [_extension_or_name(name) for name in names]
        elif tag == _KEY:
            keys = [_key_of_template(part)]
        elif tag == _ATTRIBUTES:
            attributes = [_attribute(attribute) for attribute in _elements(_whole(part), tag)]
    return _wanted([*subject, *_expanded(attributes)], keys)


def _expanded(listed: Iterable[_Named]) -> Iterator[_Named]:
    """Attributes, and in the place of a request for extensions those extensions."""
    for named in listed:
        if named.oid in (EXTENSION_REQUEST, EXTENSION_TEMPLATE):
            for extensions in named.values:
                if extensions.tag_bytes[0] == der.SEQUENCE:
                    yield from map(_extension_or_name, _elements(_whole(extensions), der.SEQUENCE))
                else:
                    yield _Named(named.oid)  # the example of RFC 7030 has something else there
        elif named.oid not in (_ELLIPTIC, _RSA):
            yield named


def _wanted(listed: Iterable[_Named], keys: list[WantedKey]) -> WantedAttributes:
    linked = False
    names: list[x509.NameAttribute[str]] = []
    ignored: list[str] = []
    for named in listed:
        name = _owners_name(named)
        if named.oid == _CHALLENGE_PASSWORD:
            linked = True
        elif name is not None and len(names) < OWNERS_NAMES_LIMIT:
            names.append(name)
        elif named.oid not in _IN_EVERY_REQUEST:
            ignored.append(_NAMES.get(named.oid.dotted_string, named.oid.dotted_string))
    return WantedAttributes(linked, tuple(dict.fromkeys(names)), tuple(keys), tuple(dict.fromkeys(ignored)))


def _owners_name(named: _Named) -> x509.NameAttribute[str] | None:
    """A name of the owner that the server fixes, if it is one that this device may carry."""
    if named.oid not in OWNERS_NAMES or len(named.values) != 1:
        return None
    encoding = _STRINGS.get(named.values[0].tag_bytes[0])
    if encoding is None:
        return None
    try:
        text = bytes(named.values[0].data).decode(encoding)
        name = x509.NameAttribute(named.oid, text)
    except ValueError:
        return None
    return name if text.isprintable() and 0 < len(text) <= NAME_LIMIT and _may_stand(named.oid, text) else None


def _may_stand(oid: ObjectIdentifier, text: str) -> bool:
    """What `NameAttribute` lets pass, though a request with it could not be encoded, or would say what is signed."""
    match oid:
        case NameOID.ORGANIZATIONAL_UNIT_NAME:
            return text.strip().casefold() not in RESERVED_UNITS
        case NameOID.COUNTRY_NAME:  # two letters as PrintableString (RFC 5280 appendix A.1)
            return text.isascii() and text.isalpha()
        case NameOID.DOMAIN_COMPONENT:  # an IA5String (RFC 4519 2.4)
            return text.isascii()
        case _:
            return True


def _attribute(item: asn1.TLV) -> _Named:
    """AttrOrOID."""
    if item.tag_bytes[0] == der.OBJECT_IDENTIFIER:
        return _Named(item.parse(ObjectIdentifier))
    oid, values = _elements(_whole(item), der.SEQUENCE)
    return _Named(oid.parse(ObjectIdentifier), tuple(_elements(_whole(values), _SET)))


def _extension_or_name(item: asn1.TLV) -> _Named:
    """An extension, or one attribute of a name: an OID first, and a value that a template may leave out."""
    oid, *values = _elements(_whole(item), der.SEQUENCE)
    return _Named(oid.parse(ObjectIdentifier), tuple(values))


def _key(named: _Named) -> WantedKey:
    """RFC 7030 4.5.2: the algorithm as an attribute, with the curve or the length as its value."""
    value = named.values[0] if named.values else None
    if value is not None and value.tag_bytes[0] == der.OBJECT_IDENTIFIER:
        return WantedKey(named.oid, curve=value.parse(ObjectIdentifier))
    if value is not None and value.tag_bytes[0] == _INTEGER:
        bits = value.parse(int)
        if not 0 < bits <= RSA_LIMIT:
            raise ValueError("no length of a key")
        return WantedKey(named.oid, bits=bits)
    return WantedKey(named.oid)


def _key_of_template(key: asn1.TLV) -> WantedKey:
    """SubjectPublicKeyInfoTemplate: an RSA key in it is a specimen, which has the length that is wanted."""
    algorithm, *specimen = _elements(_whole(key), _KEY)
    oid, *parameters = _elements(_whole(algorithm), der.SEQUENCE)
    wanted = _key(_Named(oid.parse(ObjectIdentifier), tuple(parameters)))
    if wanted.algorithm != _RSA or not specimen or specimen[0].tag_bytes[0] != _BIT_STRING:
        return wanted
    modulus, *_ = _elements(bytes(specimen[0].data)[1:], der.SEQUENCE)
    return WantedKey(_RSA, bits=modulus.parse(int).bit_length())


def _curve_name(oid: ObjectIdentifier) -> str:
    try:
        return ec.get_curve_for_oid(oid)().name
    except LookupError:
        return f"curve {oid.dotted_string}"


@asn1.sequence
class _Elements:
    """Wrapped, because a SEQUENCE OF does not decode by itself."""

    elements: list[asn1.TLV]


def _elements(value: bytes, tag: int) -> list[asn1.TLV]:
    """What is in a constructed value. A SET OF need not be sorted: some servers do not, and its order means nothing."""
    if value[:1] != bytes([tag]):
        raise ValueError("another tag than expected")
    return asn1.decode_der(_Elements, der.encode(der.SEQUENCE, bytes([der.SEQUENCE]) + value[1:])).elements


def _whole(value: asn1.TLV) -> bytes:
    return der.encode(value.tag_bytes[0], bytes(value.data))


def _violation(what: str) -> ProtocolViolation:
    return ProtocolViolation(
        f"The CA sent {what} as the list of wanted attributes (csrattrs).",
        remedy="The CA's operator has to correct it; RFC 9908 says how it has to look.",
    )
