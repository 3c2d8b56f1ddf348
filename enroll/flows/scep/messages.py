"""pkiMessage: what is sent, and what an answer says (RFC 8894 3).

A request is encrypted to the CA with AES-256, then signed with SHA-256. An answer is believed when a certificate of the
CA or its RA (`authority`) signed it, and it repeats our transactionID and, as recipientNonce, our senderNonce.

The encryption of an answer keeps no secret: a certificate is public. So certificates that lie beside the envelope are
taken as well, and an envelope that is encrypted by something else than AES stays closed. Debian's scepserver encrypts
by DES, whatever it announces, and lays the certificate beside; it signs by SHA-1, and so does step-ca. SHA-1 is taken
for the signature on an answer, and nowhere else: what comes is judged by `enroll.trust`, which knows our key and wants
SHA-2.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509 import ObjectIdentifier
from cryptography.x509.oid import SignatureAlgorithmOID

from enroll import der
from enroll.certificates import PARSE_ERRORS
from enroll.errors import CA_OPERATOR, HOSPITAL_IT
from enroll.flows.base import Refused
from enroll.flows.scep import syntax
from enroll.flows.scep.authority import Authority, violation
from enroll.flows.scep.requester import Requester
from enroll.flows.scep.syntax import MessageType, PkiStatus
from enroll.foreign import printable
from enroll.signed_data import certificates_in, read_certificate
from enroll.time_stamp_syntax import (
    CONTENT_TYPE,
    MESSAGE_DIGEST,
    NULL,
    SHA_256,
    SIGNED_DATA,
    AlgorithmIdentifier,
    IssuerAndSerialNumber,
    SignedAttributes,
    SignerInfo,
    decoded,
    encoded,
    whole,
)
from enroll.trust import CERTIFICATES_LIMIT

NONCE_BYTES = 16  # RFC 8894 3.2.1.5

_LOG = logging.getLogger(__name__)
_VERSION = 1  # RFC 5652 5.1, 5.3
_HASHES: Mapping[ObjectIdentifier, hashes.HashAlgorithm] = {
    ObjectIdentifier("1.3.14.3.2.26"): hashes.SHA1(),  # noqa: S303 - see above
    SHA_256: hashes.SHA256(),
    ObjectIdentifier("2.16.840.1.101.3.4.2.2"): hashes.SHA384(),
    ObjectIdentifier("2.16.840.1.101.3.4.2.3"): hashes.SHA512(),
}
_CHALLENGE = (
    "Put a new challenge password into [scep] challenge_file; many serve once, and for an hour. Some servers say the "
    "same to keys that are not RSA (key_algorithm), and where there is a certificate of that name: have it revoked."
)
_OWN_KEY = (
    "Its log says more. Some servers want the message signed by the key that is certified: set key_store to software "
    "and key_algorithm to an RSA key."
)
_UNKNOWN = "badCertId"
_ADVICE = {  # failure: who must act, what to do
    "badAlg": (
        HOSPITAL_IT,
        "Have the server accept SHA-256, AES and keys as in key_algorithm; else run: scanseal enroll offline",
    ),
    "badMessageCheck": (CA_OPERATOR, _OWN_KEY),
    "badRequest": (HOSPITAL_IT, _CHALLENGE),
    "badTime": (HOSPITAL_IT, "Set the clock of this scanner and of the server."),
    _UNKNOWN: (CA_OPERATOR, "Its log says which certificate it did not find."),
}


@dataclass(frozen=True)
class Granted:
    """Certificates, unordered and unchecked."""

    certificates: tuple[x509.Certificate, ...]


@dataclass(frozen=True)
class Waiting:
    """A person has to decide."""


@dataclass(frozen=True)
class Rejected:
    """The CA says no.

    Args:
        failure: Why: one of `syntax.FAILURES`.
        text: What it says to a person.
    """

    failure: str
    text: str

    @property
    def is_unknown(self) -> bool:
        """Whether the CA may know nothing of the transaction that was polled for."""
        return self.failure == _UNKNOWN

    def refused(self) -> Refused:
        """With who must act."""
        who, advice = _ADVICE[self.failure]
        return Refused(": ".join(filter(None, (self.failure, self.text))), who, advice)


Outcome = Granted | Waiting | Rejected


@dataclass(frozen=True)
class Exchange:
    """One message and its answer.

    Args:
        transaction: Its name (RFC 8894 3.2.1.1).
        nonce: Of our message.
        requester: Signs it, and opens the answer.
        authority: Reads it, and signs the answer.
    """

    transaction: str
    nonce: bytes
    requester: Requester
    authority: Authority

    def message(self, kind: MessageType, content: bytes) -> bytes:
        """What to send.

        Args:
            kind: Of message.
            content: For the CA's eyes only.

        Raises:
            KeyStoreError: The key could not sign.
        """
        envelope = (
            pkcs7.PKCS7EnvelopeBuilder()
            .set_data(content)
            .add_recipient(self.authority.recipient)
            .set_content_encryption_algorithm(algorithms.AES256)
            .encrypt(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])
        )
        attributes = syntax.signed_attributes(
            {
                CONTENT_TYPE: der.object_identifier(syntax.DATA.dotted_string),
                MESSAGE_DIGEST: syntax.octet_string(_digest(hashes.SHA256(), envelope)),
                syntax.TRANSACTION_ID: syntax.printable_string(self.transaction),
                syntax.MESSAGE_TYPE: syntax.printable_string(kind),
                syntax.SENDER_NONCE: syntax.octet_string(self.nonce),
            }
        )
        return _signed_data(envelope, attributes, self.requester)

    def read(self, data: bytes) -> Outcome:
        """What the answer says.

        Raises:
            ProtocolViolation: Not an answer to this message, or one that is not to be believed.
        """
        signed, info = _parsed(data)
        content = signed.encap_content_info.e_content
        attributes = _verified(info, signed.encap_content_info.e_content_type, content or b"", self.authority)
        if attributes.get(syntax.MESSAGE_TYPE) != syntax.printable_string(MessageType.CERT_REP):
            raise violation("a message that is no answer (CertRep)")
        if attributes.get(syntax.TRANSACTION_ID) != syntax.printable_string(self.transaction):
            raise violation("the answer to another transaction")
        if attributes.get(syntax.RECIPIENT_NONCE) != syntax.octet_string(self.nonce):
            raise violation("the answer to another message: its recipientNonce is not ours")
        status = attributes.get(syntax.PKI_STATUS)
        if status == syntax.printable_string(PkiStatus.PENDING):
            return Waiting()
        if status == syntax.printable_string(PkiStatus.FAILURE):
            return _rejected(attributes)
        if status != syntax.printable_string(PkiStatus.SUCCESS):
            raise violation("an answer of unknown status")
        opened, beside = self._opened(content or b""), _beside(signed)
        if opened is None and not set(beside) - set(self.authority.certificates):
            raise violation(
                "an answer that is not encrypted by AES to this scanner",
                "Have the server encrypt its answers by AES; its settings may name the algorithm.",
            )
        return Granted(tuple(dict.fromkeys((*(opened or ()), *beside)))[:CERTIFICATES_LIMIT])

    def _opened(self, envelope: bytes) -> tuple[x509.Certificate, ...] | None:
        """The certificates in the envelope (RFC 8894 3.3.2); None where it cannot be opened."""
        if not der.is_one_value(envelope):
            raise violation("something else than an encrypted answer")
        try:
            opened = pkcs7.pkcs7_decrypt_der(envelope, self.requester.certificate, self.requester.key, [])
        except PARSE_ERRORS as error:
            _LOG.info("The answer is not encrypted by AES to this scanner: %s", printable(str(error)))
            return None
        try:
            return certificates_in(opened)
        except PARSE_ERRORS as error:
            raise violation("something else than certificates in an encrypted answer") from error


def poll_content(authority: Authority, subject: x509.Name) -> bytes:
    """What CertPoll asks about (RFC 8894 3.3.3)."""
    issuer, asked = (syntax.undecoded(name.public_bytes()) for name in (authority.issuer, subject))
    return encoded(syntax.IssuerAndSubject(issuer=issuer, subject=asked))


def _signed_data(content: bytes, attributes: bytes, requester: Requester) -> bytes:
    certificate = requester.certificate
    sha_256 = AlgorithmIdentifier(algorithm=SHA_256, parameters=None)
    by_rsa = AlgorithmIdentifier(algorithm=SignatureAlgorithmOID.RSA_WITH_SHA256, parameters=NULL)
    issuer = syntax.undecoded(certificate.issuer.public_bytes())
    info = SignerInfo(
        version=_VERSION,
        sid=IssuerAndSerialNumber(issuer=issuer, serial_number=certificate.serial_number),
        digest_algorithm=sha_256,
        signed_attrs=syntax.undecoded(bytes([syntax.SIGNED_ATTRIBUTES]) + attributes[1:]),
        signature_algorithm=syntax.undecoded(encoded(by_rsa)),
        signature=requester.key.sign(attributes, padding.PKCS1v15(), hashes.SHA256()),
        unsigned_attrs=None,
    )
    signed = syntax.SignedData(
        version=_VERSION,
        digest_algorithms=asn1.SetOf([sha_256]),
        encap_content_info=syntax.EncapsulatedContentInfo(e_content_type=syntax.DATA, e_content=content),
        certificates=[syntax.undecoded(certificate.public_bytes(serialization.Encoding.DER))],
        crls=None,
        signer_infos=asn1.SetOf([info]),
    )
    return encoded(syntax.ContentInfo(content_type=SIGNED_DATA, content=signed))


def _parsed(data: bytes) -> tuple[syntax.SignedData, SignerInfo]:
    if not der.is_one_value(data):
        raise violation("something else than a message in DER")
    try:
        message = decoded(syntax.ContentInfo, data)
        infos = message.content.signer_infos.as_list()
    except ValueError as error:
        raise violation("something else than a signed message") from error
    if message.content_type != SIGNED_DATA or len(infos) != 1:
        raise violation("something else than a message with one signature")
    return message.content, infos[0]


def _verified(
    info: SignerInfo, content_type: ObjectIdentifier, content: bytes, authority: Authority
) -> Mapping[ObjectIdentifier, bytes]:
    """The signed attributes (RFC 5652 5.4), after it was seen who signed them."""
    algorithm = _HASHES.get(info.digest_algorithm.algorithm)
    if algorithm is None:
        raise violation("an answer signed with a hash that is not used here")
    signed = bytes([syntax.SET]) + whole(info.signed_attrs)[1:]
    if not any(_has_signed(each, info, signed, algorithm) for each in authority.speakers):
        raise violation("an answer that neither the CA nor its RA has signed")
    try:
        listed = decoded(SignedAttributes, der.encode(der.SEQUENCE, signed)).attributes.as_list()
        attributes = {each.attr_type: whole(_only(each.attr_values.as_list())) for each in listed}
    except ValueError as error:
        raise violation("signed attributes that cannot be read") from error
    if len(attributes) != len(listed):
        raise violation("a signed attribute twice")
    if attributes.get(CONTENT_TYPE) != der.object_identifier(content_type.dotted_string):
        raise violation("an answer of another type than was signed")
    if attributes.get(MESSAGE_DIGEST) != syntax.octet_string(_digest(algorithm, content)):
        raise violation("an answer that is not the one that was signed")
    return attributes


def _only(values: list[asn1.TLV]) -> asn1.TLV:
    if len(values) != 1:
        raise ValueError("not one value")
    return values[0]


def _has_signed(
    certificate: x509.Certificate, info: SignerInfo, signed: bytes, algorithm: hashes.HashAlgorithm
) -> bool:
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    try:
        key.verify(info.signature, signed, padding.PKCS1v15(), algorithm)
    except InvalidSignature:
        return False
    return True


def _rejected(attributes: Mapping[ObjectIdentifier, bytes]) -> Rejected:
    stated = attributes.get(syntax.FAIL_INFO)
    failure = next((name for code, name in syntax.FAILURES.items() if stated == syntax.printable_string(code)), None)
    if failure is None:
        raise violation("a refusal without a reason that SCEP knows")
    try:
        text = decoded(str, attributes[syntax.FAIL_INFO_TEXT])
    except (KeyError, ValueError):
        text = ""
    return Rejected(failure, printable(text[:600]))


def _beside(signed: syntax.SignedData) -> tuple[x509.Certificate, ...]:
    values = signed.certificates or []
    if len(values) > CERTIFICATES_LIMIT:
        raise violation(f"more than {CERTIFICATES_LIMIT} certificates")
    try:
        return tuple(read_certificate(whole(value)) for value in values)
    except PARSE_ERRORS as error:
        raise violation("something else where a certificate should be") from error


def _digest(algorithm: hashes.HashAlgorithm, data: bytes) -> bytes:
    digest = hashes.Hash(algorithm)
    digest.update(data)
    return digest.finalize()
