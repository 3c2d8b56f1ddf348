"""The ASN.1 of CMP: RFC 9810 appendix A, and what it takes from CRMF (RFC 4211).

Strict DER, by `cryptography`, as in `enroll.time_stamp_syntax`. Names are those of the RFCs. What nobody looks at stays
undecoded; a field that is EXPLICIT, or whose content is not decoded at once, is a list of one element: the same bytes.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, TypeAlias

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import ObjectIdentifier

from enroll import der
from enroll.time_stamp_syntax import AlgorithmIdentifier, Extension, PkiStatusInfo

OLD_CERTIFICATE_ID = ObjectIdentifier("1.3.6.1.5.5.7.5.1.5")  # RFC 4211 6.5
Undecoded: TypeAlias = asn1.TLV
# InfoTypeAndValue { id-it-implicitConfirm, NULL }: RFC 9810 5.1.1.1
IMPLICIT_CONFIRM = der.encode(der.SEQUENCE, der.object_identifier("1.3.6.1.5.5.7.4.13") + b"\x05\x00")

_EXPLICIT = 0xA0  # the tag [0] EXPLICIT
_DIRECTORY_NAME = 0xA4  # RFC 5280 4.2.1.6: GeneralName of the choice directoryName


class Body(IntEnum):
    """The kinds of message that are sent or understood: PKIBody of RFC 9810 5.1.2."""

    IR = 0
    IP = 1
    CR = 2
    CP = 3
    P10CR = 4
    KUR = 7
    KUP = 8
    RR = 11
    RP = 12
    PKICONF = 19
    ERROR = 23
    CERTCONF = 24
    POLLREQ = 25
    POLLREP = 26

    @property
    def tag(self) -> int:
        """Of the body in a message."""
        return _EXPLICIT | self


@asn1.sequence
class PkiMessage:
    """RFC 9810 5.1."""

    header: Undecoded
    body: Undecoded
    protection: Annotated[asn1.BitString | None, asn1.Explicit(0)]
    extra_certs: Annotated[list[Undecoded] | None, asn1.Explicit(1)]


@asn1.sequence
class PkiHeader:
    """RFC 9810 5.1.1."""

    pvno: int
    sender: Undecoded
    recipient: Undecoded
    message_time: Annotated[list[Undecoded] | None, asn1.Implicit(0)]
    protection_alg: Annotated[list[Undecoded] | None, asn1.Implicit(1)]
    sender_kid: Annotated[bytes | None, asn1.Explicit(2)]
    recip_kid: Annotated[bytes | None, asn1.Explicit(3)]
    transaction_id: Annotated[bytes | None, asn1.Explicit(4)]
    sender_nonce: Annotated[bytes | None, asn1.Explicit(5)]
    recip_nonce: Annotated[bytes | None, asn1.Explicit(6)]
    free_text: Annotated[list[Undecoded] | None, asn1.Implicit(7)]
    general_info: Annotated[list[Undecoded] | None, asn1.Explicit(8)]


@asn1.sequence
class SubjectPublicKeyInfo:
    """RFC 5280 4.1.2.7."""

    algorithm: Undecoded
    subject_public_key: asn1.BitString


@asn1.sequence
class CertTemplate:
    """RFC 4211 5: the fields in use."""

    serial_number: Annotated[int | None, asn1.Implicit(1)]
    issuer: Annotated[list[Undecoded] | None, asn1.Implicit(3)]
    subject: Annotated[list[Undecoded] | None, asn1.Implicit(5)]
    public_key: Annotated[SubjectPublicKeyInfo | None, asn1.Implicit(6)]
    extensions: Annotated[list[Extension] | None, asn1.Implicit(9)]


@asn1.sequence
class CertId:
    """RFC 4211 6.5."""

    issuer: Undecoded
    serial_number: int


@asn1.sequence
class OldCertificate:
    """The control oldCertID (RFC 4211 6.5)."""

    type: ObjectIdentifier
    value: CertId


@asn1.sequence
class CertRequest:
    """RFC 4211 5."""

    cert_req_id: int
    cert_template: CertTemplate
    controls: list[OldCertificate] | None


@asn1.sequence
class PopoSigningKey:
    """RFC 4211 4.1, over the CertRequest."""

    algorithm_identifier: AlgorithmIdentifier
    signature: asn1.BitString


@asn1.sequence
class CertReqMsg:
    """RFC 4211 3."""

    cert_req: CertRequest
    popo: Annotated[PopoSigningKey, asn1.Implicit(1)]


@asn1.sequence
class CertifiedKeyPair:
    """RFC 9810 5.3.4."""

    cert_or_enc_cert: Undecoded
    private_key: Annotated[list[Undecoded] | None, asn1.Implicit(0)]
    publication_info: Annotated[list[Undecoded] | None, asn1.Implicit(1)]


@asn1.sequence
class CertResponse:
    """RFC 9810 5.3.4."""

    cert_req_id: int
    status: PkiStatusInfo
    certified_key_pair: CertifiedKeyPair | None
    rsp_info: bytes | None


@asn1.sequence
class CertRepMessage:
    """RFC 9810 5.3.4."""

    ca_pubs: Annotated[list[Undecoded] | None, asn1.Explicit(1)]
    response: list[CertResponse]


@asn1.sequence
class CertStatus:
    """RFC 9810 5.3.18."""

    cert_hash: bytes
    cert_req_id: int
    status_info: PkiStatusInfo | None
    hash_alg: Annotated[AlgorithmIdentifier | None, asn1.Explicit(0)]


@asn1.sequence
class PollRequest:
    """RFC 9810 5.3.22."""

    cert_req_id: int


@asn1.sequence
class PollResponse:
    """RFC 9810 5.3.22."""

    cert_req_id: int
    check_after: int
    reason: list[str] | None


@asn1.sequence
class RevDetails:
    """RFC 9810 5.3.9."""

    cert_details: CertTemplate
    crl_entry_details: list[Extension]


@asn1.sequence
class RevRepContent:
    """RFC 9810 5.3.10."""

    status: list[PkiStatusInfo]
    rev_certs: Annotated[list[Undecoded] | None, asn1.Implicit(0)]
    crls: Annotated[list[Undecoded] | None, asn1.Implicit(1)]


@asn1.sequence
class ErrorMsgContent:
    """RFC 9810 5.3.21."""

    pki_status_info: PkiStatusInfo
    error_code: int | None
    error_details: list[str] | None


def undecoded(data: bytes) -> Undecoded:
    """The one DER value that `data` is.

    Raises:
        ValueError: It is not one.
    """
    return asn1.decode_der(Undecoded, data)


def bits(data: bytes) -> asn1.BitString:
    """A BIT STRING of whole octets."""
    return asn1.BitString(data, 0)


def distinguished_name(name: x509.Name) -> Undecoded:
    """A Name (RFC 5280 4.1.2.4)."""
    return undecoded(name.public_bytes())


def general_name(name: x509.Name) -> Undecoded:
    """A GeneralName that is a directoryName."""
    return undecoded(der.encode(_DIRECTORY_NAME, name.public_bytes()))


def der_of(certificate: x509.Certificate) -> bytes:
    """A certificate as it is sent."""
    return certificate.public_bytes(serialization.Encoding.DER)
