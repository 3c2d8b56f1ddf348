"""One signature of a data set: read strictly, its MAC recomputed (PS3.3 C.12.1.1.3.1), its algorithms graded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from agent.dicom.algorithms import (
    MAC_ALGORITHMS,
    MacAlgorithm,
    can_check,
    is_antique_key,
    key_name,
    verifies,
)
from agent.dicom.data_set import DataSet
from agent.dicom.elements import PIXEL_DATA, tag_name
from agent.dicom.report import Algorithms, Finding, Grade, Integrity, Outcome
from agent.dicom.signature_items import MacParameters
from agent.dicom.stored_signatures import DigitalSignature, der_value, unpadded
from agent.dicom.transfer_syntax import MAC_NATIVE_SYNTAXES, TransferSyntax
from agent.errors import DicomError
from enroll import der
from enroll.certificates import PARSE_ERRORS, private_key_usage_period

X509_CERTIFICATE = "X509_1993_SIG"  # PS3.15 C.1; the older term stands for the same encoding
_CERTIFICATE_TYPES = frozenset((X509_CERTIFICATE, "X509_1993"))
_CERTIFICATES_REMEMBERED = 256


@dataclass(frozen=True)
class CheckedSignature:
    """A signature whose MAC was recomputed, or could not be.

    Args:
        signature: Its item.
        parameters: The MAC parameters that belong to it.
        certificate: The signer's, where it can be read.
        value: The signature itself, without padding; None where it is not well-formed.
        integrity: What was found.
        algorithms: What it was made with.
    """

    signature: DigitalSignature
    parameters: MacParameters | None
    certificate: x509.Certificate | None
    value: bytes | None = field(repr=False)
    integrity: Integrity
    algorithms: Algorithms

    def fits(self, digest: bytes) -> bool:
        """Whether this is the signature of a digest; for readings of the data set other than the standard one."""
        algorithm = MAC_ALGORITHMS.get(self.parameters.algorithm) if self.parameters else None
        if self.certificate is None or self.value is None or algorithm is None:
            return False
        return verifies(self.certificate.public_key(), algorithm, digest, self.value)


def check_mac(
    data_set: DataSet,
    syntax: TransferSyntax,
    signature: DigitalSignature,
    candidates: Sequence[MacParameters],
    certificates: SignerCertificates,
) -> CheckedSignature:
    """Recompute the MAC of one signature.

    Args:
        data_set: What it was made over: the data set of the instance, or a sequence item.
        syntax: How the instance is stored.
        signature: The item of the Digital Signatures Sequence.
        candidates: The items of the MAC Parameters Sequence beside it.
        certificates: Reads the signer's.
    """
    findings: list[Finding] = []
    matching = [parameters for parameters in candidates if parameters.mac_id == signature.mac_id]
    parameters = matching[0] if len(matching) == 1 else None
    if parameters is None:
        what = f"{len(matching)} items of MAC parameters have the number {signature.mac_id} instead of one."
        findings.append(Finding("mac-parameters-missing", what))
    certificate = key = None
    try:
        certificate, key = certificates.read(signature)
    except DicomError as error:
        findings.append(Finding(error.code, error.what))
    value = _unpadded_value(signature.signature, key)
    if value is None:
        what = "Signature (0400,0120) is cut off, or something follows it."
        findings.append(Finding("signature-malformed", what))
    if parameters is not None:
        findings += _list_faults(parameters, data_set)
        findings += _syntax_faults(parameters, syntax, data_set)
    if parameters is not None and key is not None and value is not None and not findings:
        findings += _mac_faults(data_set, signature, parameters, key, value)
    algorithms = _graded(parameters.algorithm if parameters else "", key)
    return CheckedSignature(signature, parameters, certificate, value, Integrity(findings=tuple(findings)), algorithms)


class SignerCertificates:
    """Reads the certificates of signers, each once: a study has few, and reading one costs as much as a check."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[x509.Certificate, PublicKeyTypes]] = {}

    def read(self, signature: DigitalSignature) -> tuple[x509.Certificate, PublicKeyTypes]:
        """Certificate of Signer (0400,0115), and its key: exactly one, DER, padded by at most one byte.

        Raises:
            DicomError: It is anything else.
        """
        if signature.certificate_type not in _CERTIFICATE_TYPES:
            raise DicomError(
                f"Certificate Type (0400,0110) is {signature.certificate_type[:16]}.", code="certificate-wrong-type"
            )
        stored = signature.certificate
        if stored not in self._known:
            found = _loaded(stored)
            if len(self._known) >= _CERTIFICATES_REMEMBERED:
                self._known.clear()
            self._known[stored] = found
        return self._known[stored]


def _loaded(stored: bytes) -> tuple[x509.Certificate, PublicKeyTypes]:
    encoded = der_value(stored)
    if encoded is None or not der.is_one_value(encoded):
        what = "Certificate of Signer (0400,0115) is not exactly one certificate in DER."
        raise DicomError(what, code="certificate-malformed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what cryptography only warns about, it will refuse one day
            certificate = x509.load_der_x509_certificate(encoded)
            # Read on demand, so that a fault in them would show wherever they are first looked at.
            names = certificate.subject, certificate.issuer
            for name in names:
                name.rfc4514_string()
            private_key_usage_period(certificate)  # and with it all extensions
            return certificate, certificate.public_key()
    except (*PARSE_ERRORS, Warning) as error:
        raise DicomError("Certificate of Signer (0400,0115) cannot be read.", code="certificate-malformed") from error


def _list_faults(parameters: MacParameters, data_set: DataSet) -> Iterator[Finding]:
    if not parameters.signed_tags:
        yield Finding("tag-list-empty", "Data Elements Signed (0400,0020) is empty: nothing was signed.")
    if not parameters.in_order:
        yield Finding("tag-list-disordered", "Data Elements Signed (0400,0020) is not in the order of the data set.")
    if absent := parameters.signed_set.difference(data_set.tags):
        yield Finding("signed-element-absent", f"{tag_name(min(absent))} was signed and is not there.")
    if impossible := parameters.signed_set.intersection(data_set.survey.unsignable).union(parameters.never_signed):
        what = f"{tag_name(min(impossible))} is listed as signed and cannot be (PS3.3 C.12.1.1.3.1.1)."
        yield Finding("signed-element-unsignable", what)


def _syntax_faults(parameters: MacParameters, stored: TransferSyntax, data_set: DataSet) -> Iterator[Finding]:
    """Of a native data set any native syntax gives the same bytes; of fragments only their own does."""
    in_fragments = stored.encapsulated and PIXEL_DATA in parameters.signed_set and PIXEL_DATA in data_set
    fits = not in_fragments and parameters.transfer_syntax in MAC_NATIVE_SYNTAXES
    if not fits and not (stored.encapsulated and parameters.transfer_syntax == stored.uid):
        what = f"The signature was made over transfer syntax {parameters.transfer_syntax[:64]}, stored is {stored.uid}."
        yield Finding("transfer-syntax-differs", what, Outcome.INDETERMINATE)


def _unpadded_value(stored: bytes, key: PublicKeyTypes | None) -> bytes | None:
    """The signature without its padding; None where it is cut off, or something follows it."""
    if isinstance(key, rsa.RSAPublicKey):
        return unpadded(stored, (key.key_size + 7) // 8)
    return der_value(stored) if isinstance(key, ec.EllipticCurvePublicKey) else stored


def _mac_faults(
    data_set: DataSet,
    signature: DigitalSignature,
    parameters: MacParameters,
    key: PublicKeyTypes,
    value: bytes,
) -> Iterator[Finding]:
    algorithm = MAC_ALGORITHMS.get(parameters.algorithm)
    if algorithm is None or not can_check(key):
        what = f"Signatures with {parameters.algorithm[:16]} and {key_name(key)} cannot be checked."
        yield Finding("algorithm-unknown", what, Outcome.INDETERMINATE)
        return
    try:
        digest = mac_digest(data_set.cover, signature, parameters, algorithm)
    except DicomError as error:
        yield Finding(error.code, error.what, Outcome.INDETERMINATE)
        return
    if not verifies(key, algorithm, digest, value):
        yield Finding("signature-wrong", "The covered bytes, or the signature, were changed after signing.")


def mac_digest(
    cover: Callable[..., None], signature: DigitalSignature, parameters: MacParameters, algorithm: MacAlgorithm
) -> bytes:
    """The digest that was signed: the covered elements, then the item of the signature.

    Args:
        cover: `DataSet.cover` of what it was made over.
        signature: The item.
        parameters: The MAC parameters.
        algorithm: That of the parameters.
    """
    state = algorithm.new()
    cover(parameters.signed_set, state)
    signature.cover(state)
    return state.digest()


def _graded(mac: str, key: PublicKeyTypes | None) -> Algorithms:
    algorithm = MAC_ALGORITHMS.get(mac)
    findings: list[Finding] = []
    grade = Grade.CURRENT
    if algorithm is None or key is None or not can_check(key):
        what = f"{mac[:16] or 'No MAC Algorithm (0400,0015)'} with {key_name(key) if key else 'no key'} is not known."
        return Algorithms(
            findings=(Finding("algorithm-unknown", what),), mac=mac[:16], key=key_name(key) if key else ""
        )
    if algorithm.antique:
        grade = Grade.ANTIQUE
        what = f"{mac} can be forged today: the signature proves nothing unless it is known to be old."
        findings.append(Finding("hash-antique", what, Outcome.FLAGGED))
    if is_antique_key(key):
        grade = Grade.ANTIQUE
        what = f"{key_name(key)} can be broken today: the signature proves nothing unless it is known to be old."
        findings.append(Finding("key-antique", what, Outcome.FLAGGED))
    if not isinstance(key, rsa.RSAPublicKey):
        what = f"{key_name(key)} is outside the profiles of PS3.15 C.1 to C.4, which name RSA only."
        findings.append(Finding("outside-profile", what, Outcome.FLAGGED))
    return Algorithms(findings=tuple(findings), mac=mac, key=key_name(key), grade=grade)
