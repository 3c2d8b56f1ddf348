"""The bodies of CMP messages: what is asked, and what an answer says.

A certificate is asked for by what `enroll.csr` makes: p10cr sends that PKCS#10 as it is, the others repeat its subject,
key and extensions in a template (RFC 9483 4.1.1), with a proof of possession over that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization

from enroll import der
from enroll.certificates import public_key_info
from enroll.errors import CA_OPERATOR, HOSPITAL_IT, EnrollmentRefused, ServerUnreachable
from enroll.flows.base import Refused
from enroll.flows.cmp import syntax
from enroll.flows.cmp.protection import algorithm_for, certificates_of, sign, violation
from enroll.flows.cmp.syntax import Body
from enroll.foreign import printable
from enroll.keystore.base import PrivateKey
from enroll.time_stamp_syntax import SHA_256, AlgorithmIdentifier, Extension, PkiStatusInfo, decoded, encoded

REQUEST_ID = 0  # certReqId of the one request in a message
ANSWER_IDS = (REQUEST_ID, -1)  # to p10cr it is -1 by RFC 9810 5.3.4; EJBCA and OpenSSL 3.0 say 0
ERROR_REQUEST_ID = -1  # what to poll for after an error message that says "waiting" (RFC 9483 4.4)
ALREADY_REVOKED = "certRevoked"  # a failure, RFC 9810 5.2.3
TEXTS_LIMIT = 3  # of what a server says to a person

_ACCEPTED, _GRANTED_WITH_MODS, _REJECTION, _WAITING = 0, 1, 2, 3  # PKIStatus, RFC 9810 5.2.3
_REVOKED = (_ACCEPTED, _GRANTED_WITH_MODS, 4, 5)  # also revocationWarning (it is imminent), revocationNotification
_CERTIFICATE_TAG = 0xA0  # RFC 9810 5.3.4: CertOrEncCert of the choice certificate
_FAILURES = (  # PKIFailureInfo, RFC 9810 5.2.3: the names of bits 0 to 26
    *("badAlg", "badMessageCheck", "badRequest", "badTime", "badCertId", "badDataFormat", "wrongAuthority"),
    *("incorrectData", "missingTimeStamp", "badPOP", "certRevoked", "certConfirmed", "wrongIntegrity"),
    *("badRecipientNonce", "timeNotAvailable", "unacceptedPolicy", "unacceptedExtension", "addInfoNotAvailable"),
    *("badSenderNonce", "badCertTemplate", "signerNotTrusted", "transactionIdInUse", "unsupportedVersion"),
    *("notAuthorized", "systemUnavail", "systemFailure", "duplicateCertReq"),
)
_INCORRECT_DATA = b"\x01"  # PKIFailureInfo with bit 7
_NOT_NOW = frozenset({"systemUnavail", "systemFailure"})
_TRUST = "Have the CA trust whoever issued the certificate that signs the requests, and know this scanner."
_ADVICE = {  # failure: who must act, what to do
    "badAlg": (HOSPITAL_IT, "Set key_algorithm of the identity to what the CA accepts."),
    "badTime": (HOSPITAL_IT, "Set the clock of this scanner and of the CA."),
    "notAuthorized": (CA_OPERATOR, _TRUST),
    "signerNotTrusted": (CA_OPERATOR, _TRUST),
    "badMessageCheck": (CA_OPERATOR, _TRUST),
    "badCertTemplate": (CA_OPERATOR, "Compare the certificate profile with `scanseal enroll cmp --dry-run`."),
    "unacceptedExtension": (CA_OPERATOR, "Let the certificate profile allow what this scanner asks for."),
    "unacceptedPolicy": (CA_OPERATOR, "Let the certificate profile allow what this scanner asks for."),
    "certRevoked": (CA_OPERATOR, "The certificate that signs the requests was revoked; it says why."),
}
Shape = TypeVar("Shape")


@dataclass(frozen=True)
class Granted:
    """The certificate that was asked for, unchecked, with others that came with it."""

    certificate: x509.Certificate
    others: tuple[x509.Certificate, ...]
    request_id: int


@dataclass(frozen=True)
class Waiting:
    """The CA has not decided; `check_after` in seconds, where it said so."""

    request_id: int
    check_after: int | None
    reason: str


@dataclass(frozen=True)
class Rejected:
    """The CA says no, or that it cannot answer now.

    Args:
        failures: The names in failInfo.
        text: What it says to a person.
    """

    failures: tuple[str, ...]
    text: str

    @property
    def for_now(self) -> bool:
        """Whether the same request may be granted later."""
        return bool(_NOT_NOW.intersection(self.failures))

    @property
    def reason(self) -> str:
        """In one line."""
        return ": ".join(filter(None, (", ".join(self.failures), self.text))) or "it gives no reason"

    def refused(self) -> Refused:
        """With who must act."""
        known = (_ADVICE[failure] for failure in self.failures if failure in _ADVICE)
        who, advice = next(known, (CA_OPERATOR, "Its log says more."))
        return Refused(self.reason, who, advice)


Outcome = Granted | Waiting | Rejected


def certificate_request(
    signed: x509.CertificateSigningRequest, key: PrivateKey, renews: x509.Certificate | None
) -> bytes:
    """The content of ir, cr and kur: CertReqMessages of RFC 4211 with one request.

    Args:
        signed: The same as a PKCS#10.
        key: Of the new certificate; proves that it is there (RFC 4211 4.1).
        renews: What kur replaces.

    Raises:
        KeyStoreError: The key's store refused to sign.
    """
    template = syntax.CertTemplate(
        serial_number=None,
        issuer=None,
        subject=[syntax.distinguished_name(signed.subject)],
        public_key=decoded(syntax.SubjectPublicKeyInfo, public_key_info(key.public_key())),
        extensions=[
            Extension(extn_id=e.oid, critical=e.critical, extn_value=e.value.public_bytes()) for e in signed.extensions
        ],
    )
    controls = None if renews is None else [_old_certificate(renews)]
    request = syntax.CertRequest(cert_req_id=REQUEST_ID, cert_template=template, controls=controls)
    signature = syntax.bits(sign(key, encoded(request)))
    proof = syntax.PopoSigningKey(algorithm_identifier=algorithm_for(key), signature=signature)
    return _sequence_of(syntax.CertReqMsg(cert_req=request, popo=proof))


def pkcs10_request(signed: x509.CertificateSigningRequest) -> bytes:
    """The content of p10cr (RFC 9483 4.1.4)."""
    return signed.public_bytes(serialization.Encoding.DER)


def confirmation(certificate_hash: bytes, request_id: int, *, hash_named: bool, accepted: bool) -> bytes:
    """The content of certConf (RFC 9810 5.3.18).

    Args:
        certificate_hash: See `fingerprint`.
        request_id: certReqId of the answer.
        hash_named: Whether the hash is not that of the certificate's signature, and so has to be named.
        accepted: Whether the certificate is used.
    """
    info = PkiStatusInfo(status=_ACCEPTED, status_string=None, fail_info=None)
    if not accepted:
        info = PkiStatusInfo(
            status=_REJECTION,
            status_string=["The certificate is not the one that was asked for."],
            fail_info=syntax.bits(_INCORRECT_DATA),
        )
    named = AlgorithmIdentifier(algorithm=SHA_256, parameters=None) if hash_named else None
    status = syntax.CertStatus(cert_hash=certificate_hash, cert_req_id=request_id, status_info=info, hash_alg=named)
    return _sequence_of(status)


def fingerprint(certificate: x509.Certificate) -> tuple[bytes, bool]:
    """The hash of a certificate for certConf, and whether that has to be named.

    It is the hash of the certificate's own signature; SHA-256 where that has none, or an unknown one (RFC 9810 5.3.18).
    """
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        algorithm = None
    return certificate.fingerprint(algorithm or hashes.SHA256()), algorithm is None


def poll(request_id: int) -> bytes:
    """The content of pollReq (RFC 9810 5.3.22)."""
    return _sequence_of(syntax.PollRequest(cert_req_id=request_id))


def revocation(certificate: x509.Certificate, reason: x509.ReasonFlags) -> bytes:
    """The content of rr (RFC 9483 4.2)."""
    template = syntax.CertTemplate(
        serial_number=certificate.serial_number,
        issuer=[syntax.distinguished_name(certificate.issuer)],
        subject=None,
        public_key=None,
        extensions=None,
    )
    code = Extension(extn_id=x509.CRLReason.oid, critical=False, extn_value=x509.CRLReason(reason).public_bytes())
    return _sequence_of(syntax.RevDetails(cert_details=template, crl_entry_details=[code]))


def read_issued(body: Body, content: bytes) -> Outcome:
    """What ip, cp, kup, pollRep or error say about a request for a certificate.

    Args:
        body: Which of them.
        content: Its DER.

    Raises:
        ProtocolViolation: Not the answer to one request.
    """
    if body is Body.ERROR:
        return read_error(content)
    if body is Body.POLLREP:
        told = _only(syntax.PollResponse, content)
        return Waiting(told.cert_req_id, max(told.check_after, 0), _texts(told.reason))
    reply = _decoded(syntax.CertRepMessage, content)
    if len(reply.response) != 1 or reply.response[0].cert_req_id not in ANSWER_IDS:
        raise violation("an answer that is not about the one certificate that was asked for")
    response = reply.response[0]
    if response.status.status == _WAITING:
        return Waiting(response.cert_req_id, None, _texts(response.status.status_string))
    if response.status.status not in (_ACCEPTED, _GRANTED_WITH_MODS):
        return _rejected(response.status)
    pair = response.certified_key_pair
    if pair is None or pair.private_key is not None or pair.cert_or_enc_cert.tag_bytes[0] != _CERTIFICATE_TAG:
        raise violation("something else than a plain certificate for the key of this scanner")
    (certificate,) = certificates_of([_undecoded(bytes(pair.cert_or_enc_cert.data))])
    return Granted(certificate, certificates_of(reply.ca_pubs), response.cert_req_id)


def read_revoked(body: Body, content: bytes) -> Waiting | Rejected | None:
    """What rp or error say about a request for revocation; None where the certificate is revoked.

    Raises:
        ProtocolViolation: Not the answer to one request.
    """
    if body is Body.ERROR:
        return read_error(content)
    reply = _decoded(syntax.RevRepContent, content)
    if len(reply.status) != 1:
        raise violation("an answer that is not about the one certificate to be revoked")
    told = reply.status[0]
    if told.status == _WAITING:
        return Waiting(REQUEST_ID, None, _texts(told.status_string))
    return None if told.status in _REVOKED else _rejected(told)


def read_error(content: bytes) -> Waiting | Rejected:
    """An error message (RFC 9810 5.3.21).

    Raises:
        ProtocolViolation: It cannot be read.
    """
    error = _decoded(syntax.ErrorMsgContent, content)
    if error.pki_status_info.status == _WAITING:
        return Waiting(ERROR_REQUEST_ID, None, _texts(error.pki_status_info.status_string))
    return _rejected(error.pki_status_info, error.error_details)


def raise_unless_done(outcome: Waiting | Rejected | None) -> None:
    """Report what the CA says to a request that brings no certificate.

    Raises:
        ServerUnreachable: It cannot do that now.
        EnrollmentRefused: It says no.
    """
    if isinstance(outcome, Rejected) and not outcome.for_now:
        refused = outcome.refused()
        raise EnrollmentRefused(
            f"The CA refused: {refused.reason}.", remedy=refused.advice, who_must_act=refused.who_must_act
        )
    if outcome is not None:
        raise ServerUnreachable(
            f"The CA cannot do that now: {outcome.reason or 'it has not decided'}.",
            remedy="Try again later.",
            who_must_act=CA_OPERATOR,
        )


def _rejected(info: PkiStatusInfo, details: Sequence[str] | None = None) -> Rejected:
    texts = _texts([*(info.status_string or ()), *(details or ())])
    return Rejected(tuple(_failures(info)), texts or ("" if info.fail_info else f"status {info.status}"))


def _failures(info: PkiStatusInfo) -> Iterator[str]:
    if info.fail_info is not None:
        octets = info.fail_info.as_bytes()
        for bit, name in enumerate(_FAILURES[: len(octets) * 8]):
            if octets[bit // 8] & 0x80 >> bit % 8:
                yield name


def _texts(texts: Sequence[str] | None) -> str:
    return printable("; ".join(text[:200] for text in (texts or ())[:TEXTS_LIMIT]))


def _old_certificate(certificate: x509.Certificate) -> syntax.OldCertificate:
    issuer = syntax.general_name(certificate.issuer)
    return syntax.OldCertificate(
        type=syntax.OLD_CERTIFICATE_ID,
        value=syntax.CertId(issuer=issuer, serial_number=certificate.serial_number),
    )


def _sequence_of(value: object) -> bytes:
    return der.encode(der.SEQUENCE, encoded(value))


def _only(shape: type[Shape], content: bytes) -> Shape:
    """The one element of a SEQUENCE OF."""
    outer = _undecoded(content)
    if outer.tag_bytes != bytes([der.SEQUENCE]):
        raise violation("an answer that is not what CMP allows here")
    return _decoded(shape, bytes(outer.data))


def _undecoded(data: bytes) -> syntax.Undecoded:
    try:
        return syntax.undecoded(data)
    except ValueError as error:
        raise violation("an answer that is not what CMP allows here") from error


def _decoded(shape: type[Shape], data: bytes) -> Shape:
    try:
        return decoded(shape, data)
    except ValueError as error:
        raise violation("an answer that is not what CMP allows here") from error
