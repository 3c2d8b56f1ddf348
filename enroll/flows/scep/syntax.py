"""The ASN.1 of SCEP: pkiMessage of RFC 8894 3, which is CMS SignedData (RFC 5652 5) with signed attributes of its own.

Strict DER, by `cryptography`, as in `enroll.time_stamp_syntax`. What that has is taken from there; SignedData is
declared anew, because an answer that brings no certificate has no content.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier

from enroll import der
from enroll.time_stamp_syntax import AlgorithmIdentifier, Attribute, SignerInfo

DATA = ObjectIdentifier("1.2.840.113549.1.7.1")
TRANSACTION_ID = ObjectIdentifier("2.16.840.1.113733.1.9.7")
MESSAGE_TYPE = ObjectIdentifier("2.16.840.1.113733.1.9.2")
PKI_STATUS = ObjectIdentifier("2.16.840.1.113733.1.9.3")
FAIL_INFO = ObjectIdentifier("2.16.840.1.113733.1.9.4")
SENDER_NONCE = ObjectIdentifier("2.16.840.1.113733.1.9.5")
RECIPIENT_NONCE = ObjectIdentifier("2.16.840.1.113733.1.9.6")
FAIL_INFO_TEXT = ObjectIdentifier("1.3.6.1.5.5.7.24.1")

PRINTABLE_STRING = 0x13
SET = 0x31
SIGNED_ATTRIBUTES = 0xA0  # [0] IMPLICIT, RFC 5652 5.3; what is signed has the tag of a SET instead (5.4)


class MessageType(StrEnum):
    """RFC 8894 3.2.1.2: the kinds of message that are sent or understood."""

    CERT_REP = "3"
    RENEWAL_REQ = "17"
    PKCS_REQ = "19"
    CERT_POLL = "20"


class PkiStatus(StrEnum):
    """RFC 8894 3.2.1.3."""

    SUCCESS = "0"
    FAILURE = "2"
    PENDING = "3"


FAILURES = {  # failInfo, RFC 8894 3.2.1.4
    "0": "badAlg",
    "1": "badMessageCheck",
    "2": "badRequest",
    "3": "badTime",
    "4": "badCertId",
}


@asn1.sequence
class EncapsulatedContentInfo:
    """RFC 5652 5.2."""

    e_content_type: ObjectIdentifier
    e_content: Annotated[bytes | None, asn1.Explicit(0)]


@asn1.sequence
class SignedData:
    """RFC 5652 5.1."""

    version: int
    digest_algorithms: asn1.SetOf[AlgorithmIdentifier]
    encap_content_info: EncapsulatedContentInfo
    # A SET OF; but some servers do not sort it, and its order means nothing.
    certificates: Annotated[list[asn1.TLV] | None, asn1.Implicit(0)]
    crls: Annotated[list[asn1.TLV] | None, asn1.Implicit(1)]
    signer_infos: asn1.SetOf[SignerInfo]


@asn1.sequence
class ContentInfo:
    """RFC 5652 3, of SignedData."""

    content_type: ObjectIdentifier
    content: Annotated[SignedData, asn1.Explicit(0)]


@asn1.sequence
class IssuerAndSubject:
    """RFC 8894 3.3.3: what CertPoll asks about."""

    issuer: asn1.TLV
    subject: asn1.TLV


def printable_string(text: str) -> bytes:
    """A PrintableString (X.690 8.23) of digits and letters."""
    return der.encode(PRINTABLE_STRING, text.encode("ascii"))


def octet_string(data: bytes) -> bytes:
    """An OCTET STRING."""
    return der.encode(der.OCTET_STRING, data)


def signed_attributes(values: Mapping[ObjectIdentifier, bytes]) -> bytes:
    """Signed attributes of one value each, as they are signed: a SET OF in DER (RFC 5652 5.4)."""
    attributes = [Attribute(attr_type=kind, attr_values=asn1.SetOf([undecoded(v)])) for kind, v in values.items()]
    return der.encode(SET, b"".join(sorted(asn1.encode_der(attribute) for attribute in attributes)))


def undecoded(data: bytes) -> asn1.TLV:
    """The one DER value that `data` is.

    Raises:
        ValueError: It is not one.
    """
    return asn1.decode_der(asn1.TLV, data)
