"""The ASN.1 of time stamps: RFC 3161, and what it takes from CMS (RFC 5652) and ESS (RFC 2634, RFC 5035).

`cryptography` reads and writes these declarations as strict DER (docs/adr/0014-time-stamps.md). What is not of time
stamps alone serves `enroll.signed_data`, CMP and SCEP, too. Names are those of the RFCs. What nobody looks at stays
undecoded.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier

from enroll import der

SIGNED_DATA = ObjectIdentifier("1.2.840.113549.1.7.2")
TST_INFO = ObjectIdentifier("1.2.840.113549.1.9.16.1.4")
CONTENT_TYPE = ObjectIdentifier("1.2.840.113549.1.9.3")
MESSAGE_DIGEST = ObjectIdentifier("1.2.840.113549.1.9.4")
SIGNING_CERTIFICATE = ObjectIdentifier("1.2.840.113549.1.9.16.2.12")
SIGNING_CERTIFICATE_V2 = ObjectIdentifier("1.2.840.113549.1.9.16.2.47")
SHA_256 = ObjectIdentifier("2.16.840.1.101.3.4.2.1")

NULL = asn1.Null()
SIGNED_ATTRIBUTES_TAG = b"\xa0"
SET_TAG = 0x31
Shape = TypeVar("Shape")


@asn1.sequence
class AlgorithmIdentifier:
    """RFC 5280 4.1.1.2, of an algorithm without parameters."""

    algorithm: ObjectIdentifier
    parameters: asn1.Null | None


@asn1.sequence
class MessageImprint:
    """RFC 3161 2.4.1."""

    hash_algorithm: AlgorithmIdentifier
    hashed_message: bytes


@asn1.sequence
class TimeStampReq:
    """RFC 3161 2.4.1, without extensions."""

    version: int
    message_imprint: MessageImprint
    req_policy: ObjectIdentifier | None
    nonce: int | None
    cert_req: Annotated[bool, asn1.Default(value=False)]


@asn1.sequence
class PkiStatusInfo:
    """RFC 3161 2.4.2."""

    status: int
    status_string: list[str] | None
    fail_info: asn1.BitString | None


@asn1.sequence
class TimeStampResp:
    """RFC 3161 2.4.2; the token undecoded."""

    status: PkiStatusInfo
    time_stamp_token: list[asn1.TLV] | None


@asn1.sequence
class Accuracy:
    """RFC 3161 2.4.2."""

    seconds: int | None
    millis: Annotated[int | None, asn1.Implicit(0)]
    micros: Annotated[int | None, asn1.Implicit(1)]


@asn1.sequence
class Extension:
    """RFC 5280 4.1."""

    extn_id: ObjectIdentifier
    critical: Annotated[bool, asn1.Default(value=False)]
    extn_value: bytes


@asn1.sequence
class TstInfo:
    """RFC 3161 2.4.2."""

    version: int
    policy: ObjectIdentifier
    message_imprint: MessageImprint
    serial_number: int
    gen_time: asn1.GeneralizedTime
    accuracy: Accuracy | None
    ordering: Annotated[bool, asn1.Default(value=False)]
    nonce: int | None
    # EXPLICIT, and so the same bytes as a list of one element.
    tsa: Annotated[list[asn1.TLV] | None, asn1.Implicit(0)]
    extensions: Annotated[list[Extension] | None, asn1.Implicit(1)]


@asn1.sequence
class IssuerAndSerialNumber:
    """RFC 5652 10.2.4."""

    issuer: asn1.TLV
    serial_number: int


@asn1.sequence
class SignerInfo:
    """RFC 5652 5.3. Signed attributes are mandatory for this type of content."""

    version: int
    sid: IssuerAndSerialNumber | Annotated[bytes, asn1.Implicit(0)]
    digest_algorithm: AlgorithmIdentifier
    signed_attrs: asn1.TLV
    signature_algorithm: asn1.TLV
    signature: bytes
    unsigned_attrs: Annotated[list[asn1.TLV] | None, asn1.Implicit(1)]


@asn1.sequence
class EncapsulatedContentInfo:
    """RFC 5652 5.2; the content is there."""

    e_content_type: ObjectIdentifier
    e_content: Annotated[bytes, asn1.Explicit(0)]


@asn1.sequence
class SignedData:
    """RFC 5652 5.1."""

    version: int
    digest_algorithms: asn1.SetOf[asn1.TLV]
    encap_content_info: EncapsulatedContentInfo
    # A SET OF; but some authorities do not sort it, and its order means nothing.
    certificates: Annotated[list[asn1.TLV] | None, asn1.Implicit(0)]
    crls: Annotated[list[asn1.TLV] | None, asn1.Implicit(1)]
    signer_infos: asn1.SetOf[SignerInfo]


@asn1.sequence
class ContentInfo:
    """RFC 5652 3, of SignedData."""

    content_type: ObjectIdentifier
    content: Annotated[SignedData, asn1.Explicit(0)]


@asn1.sequence
class Attribute:
    """RFC 5652 5.3."""

    attr_type: ObjectIdentifier
    attr_values: asn1.SetOf[asn1.TLV]


@asn1.sequence
class SignedAttributes:
    """The signed attributes, wrapped because a SET OF does not decode by itself."""

    attributes: asn1.SetOf[Attribute]


@asn1.sequence
class EssCertId:
    """RFC 2634 5.4.1: the hash is SHA-1."""

    cert_hash: bytes
    issuer_serial: list[asn1.TLV] | None


@asn1.sequence
class SigningCertificate:
    """RFC 2634 5.4."""

    certs: list[EssCertId]
    policies: list[asn1.TLV] | None


@asn1.sequence
class EssCertIdV2:
    """RFC 5035 4; the hash is SHA-256 where none is named."""

    hash_algorithm: AlgorithmIdentifier | None
    cert_hash: bytes
    issuer_serial: list[asn1.TLV] | None


@asn1.sequence
class SigningCertificateV2:
    """RFC 5035 3."""

    certs: list[EssCertIdV2]
    policies: list[asn1.TLV] | None


def decoded(shape: type[Shape], data: bytes) -> Shape:
    """The one DER value that `data` is.

    Raises:
        ValueError: It is not DER, not of this shape, or something follows it.
    """
    return asn1.decode_der(shape, data)


def encoded(value: object) -> bytes:
    """The DER of a value of one of the shapes."""
    return asn1.encode_der(value)


def whole(value: asn1.TLV) -> bytes:
    """The DER of an undecoded value, tag and length included."""
    return der.encode(value.tag_bytes[0], bytes(value.data))
