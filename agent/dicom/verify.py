"""Checking the signatures of an instance (PS3.3 C.12.1.1.3, PS3.15 C.2).

For each signature the covered bytes are hashed anew, in these steps:

1. The instance is well-formed; whatever two readers could understand differently ends here.
2. The two items of the signature are complete, belong together and hold nothing else.
3. The MAC Calculation Transfer Syntax can be that of the stored bytes.
4. Data Elements Signed lists elements that are all there, once, in the order of the data set.
5. The signature is that of the hash, by the key in the certificate.
6. Every element that the profile demands and that is there is covered.
7. The certificate leads to an anchor, may sign documents, and was valid at the time that the signature states. That
   time is the signer's word; nothing proves it.

What fails is a finding of that signature; only step 1 is an error of the whole instance. What cannot be checked, such
as a signature over another transfer syntax than the stored one, is told apart from what was changed.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from agent.dicom.deflate import inflated
from agent.dicom.elements import tag_name
from agent.dicom.headers import DEFAULT_LIMITS, Limits, malformed
from agent.dicom.outline import Outline
from agent.dicom.profile import Profile
from agent.dicom.reader import Scanner
from agent.dicom.report import SignatureReport, VerificationReport
from agent.dicom.signature_items import (
    MOST_SIGNATURES,
    DigitalSignature,
    MacParameters,
    read_digital_signature,
    read_mac_parameters,
)
from agent.dicom.stream import Hash, MacStream
from agent.dicom.transfer_syntax import MAC_NATIVE_SYNTAXES, TransferSyntax, read_file_meta
from agent.dicom.window import Window
from agent.errors import DicomError
from enroll.certificates import PARSE_ERRORS
from enroll.errors import CertificateRefused
from enroll.trust import CLOCK_SKEW, verify_signer

NOT_CHECKABLE = "signature-not-checkable"

_HASHES: dict[str, tuple[str, hashes.HashAlgorithm]] = {
    "SHA256": ("sha256", hashes.SHA256()),
    "SHA384": ("sha384", hashes.SHA384()),
    "SHA512": ("sha512", hashes.SHA512()),
}


@dataclass(frozen=True)
class Verification:
    """By what signatures are judged.

    Args:
        profile: What a signature is expected to cover.
        anchors: CA certificates that are trusted.
        intermediates: CA certificates that may stand between.
        now: The time of the verification, aware.
        limits: What the instance may demand.
    """

    profile: Profile
    now: datetime
    anchors: tuple[x509.Certificate, ...] = ()
    intermediates: tuple[x509.Certificate, ...] = ()
    limits: Limits = DEFAULT_LIMITS


def verify_instance(data: bytes | memoryview, verification: Verification) -> VerificationReport:
    """Check all signatures of the data set.

    Args:
        data: The instance, a DICOM file.
        verification: By what they are judged.

    Raises:
        DicomError: The instance is not well-formed (step 1).
    """
    instance = _Instance(data, verification.limits)
    return VerificationReport(
        tuple(_signature_report(instance, item, verification) for item in instance.signature_items)
    )


class _Instance:
    """An instance in memory, walked once to see what is there, and once more for each signature."""

    def __init__(self, data: bytes | memoryview, limits: Limits) -> None:
        self._data = data
        self._limits = limits
        self.present: list[int] = []

        def note(tag: int) -> bool:
            self.present.append(tag)
            return False

        window = Window.over(data)
        self.syntax = read_file_meta(window, limits)
        self._start = window.offset
        outline = self._walk(window, hashlib.sha256(), note)
        self.signature_items = outline.signatures.items if outline.signatures else ()
        parameters_items = outline.mac_parameters.items if outline.mac_parameters else ()
        if max(len(self.signature_items), len(parameters_items)) > MOST_SIGNATURES:
            raise malformed(f"The instance has more than {MOST_SIGNATURES} signatures.", "too-many-signatures")
        self._parameters = [read_mac_parameters(item, self.syntax.encoding) for item in parameters_items]

    def parameters_of(self, signature: DigitalSignature) -> MacParameters:
        """The MAC parameters that a signature names."""
        matching = [parameters for parameters in self._parameters if parameters.mac_id == signature.mac_id]
        if len(matching) != 1:
            raise _broken(f"{len(matching)} items of MAC parameters have the number {signature.mac_id} instead of one.")
        return matching[0]

    def hash_covered(self, tags: Sequence[int], state: Hash) -> None:
        """Hash the elements of the data set that a signature covers."""
        window = Window.over(self._data)
        window.skip(self._start)
        self._walk(window, state, frozenset(tags).__contains__)

    def _walk(self, window: Window, state: Hash, covers: Callable[[int], bool]) -> Outline:
        data_set, limits = inflated(window, self.syntax, self._limits)
        mac = MacStream(data_set, state)
        encoding, encapsulated = self.syntax.encoding, self.syntax.encapsulated
        outline = Scanner(data_set, encoding, encapsulated=encapsulated, mac=mac, covers=covers, limits=limits).walk()
        mac.flush()
        return outline


def _signature_report(instance: _Instance, item: bytes, verification: Verification) -> SignatureReport:
    encoding = instance.syntax.encoding
    signature = parameters = certificate = None
    intact: bool | None = True
    trusted = False
    try:
        signature = read_digital_signature(item, encoding, hashlib.sha256())
        parameters = instance.parameters_of(signature)
        certificate = _certificate(signature.certificate)
        _check_tag_list(parameters.signed_tags, instance.present)
        _check_transfer_syntax(parameters, instance.syntax)
        _check_signature(instance, item, signature, parameters, certificate)
        reason = _distrust(certificate, signature.signed_at, verification)
        trusted = not reason
    except DicomError as error:
        intact = None if error.code == NOT_CHECKABLE else False
        reason = error.what
    covered = parameters.signed_tags if parameters else ()
    demanded = set(filter(verification.profile.selector(), instance.present))
    return SignatureReport(
        uid=signature.uid if signature else "",
        signed_at=signature.signed_at if signature else "",
        algorithm=parameters.algorithm if parameters else "",
        intact=intact,
        trusted=trusted,
        reason=reason,
        covered=covered,
        not_covered=tuple(sorted(demanded.difference(covered))),
        certificate=certificate,
    )


def _certificate(stored: bytes) -> x509.Certificate:
    encoded = _unpadded(stored, der_length(stored))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what cryptography only warns about, it will refuse one day
            return x509.load_der_x509_certificate(encoded)
    except (*PARSE_ERRORS, Warning) as error:
        raise _broken("Certificate of Signer (0400,0115) cannot be read.") from error


def _check_transfer_syntax(parameters: MacParameters, stored: TransferSyntax) -> None:
    """Step 3: of a native data set any native syntax gives the same bytes; of fragments only their own does."""
    if stored.encapsulated:
        fits = parameters.transfer_syntax == stored.uid
    else:
        fits = parameters.transfer_syntax in MAC_NATIVE_SYNTAXES
    if not fits:
        raise _not_checkable(
            f"The signature was made over transfer syntax {parameters.transfer_syntax[:64]}, stored is {stored.uid}."
        )


def _check_tag_list(signed_tags: Sequence[int], present: Sequence[int]) -> None:
    if any(later <= earlier for earlier, later in pairwise(signed_tags)):
        raise _broken("Data Elements Signed (0400,0020) is not in the order of the data set.")
    if absent := set(signed_tags).difference(present):
        raise _broken(f"{tag_name(min(absent))} was signed and is not there.")


def _check_signature(
    instance: _Instance,
    item: bytes,
    signature: DigitalSignature,
    parameters: MacParameters,
    certificate: x509.Certificate,
) -> None:
    if parameters.algorithm not in _HASHES:
        raise _not_checkable(f"Signatures with {parameters.algorithm[:16]} are not checked by this version.")
    name, algorithm = _HASHES[parameters.algorithm]
    state = hashlib.new(name)
    instance.hash_covered(parameters.signed_tags, state)
    read_digital_signature(item, instance.syntax.encoding, state)
    hashed = utils.Prehashed(algorithm)
    try:
        key = certificate.public_key()
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(_unpadded(signature.signature, key.key_size // 8), state.digest(), padding.PKCS1v15(), hashed)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            # Outside PS3.15 C, but made by some.
            value = _unpadded(signature.signature, der_length(signature.signature))
            key.verify(value, state.digest(), ec.ECDSA(hashed))
        else:
            raise _not_checkable("The key of the certificate is neither RSA nor EC.")
    except InvalidSignature as error:
        raise _broken("The covered bytes, or the signature, were changed after signing.") from error
    except PARSE_ERRORS as error:
        raise _broken("The key of the certificate cannot be used.") from error


def _distrust(certificate: x509.Certificate, signed_at: str, verification: Verification) -> str:
    """Why the signer is not trusted; empty if it is."""
    if not verification.anchors:
        return "No trust anchor was given."
    moment = _time_of_signing(signed_at)
    if moment is None:
        return "Digital Signature DateTime (0400,0105) is no time with a UTC offset."
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
        return f"The certificate was not valid at the time of signing, {moment:%Y-%m-%d %H:%M} UTC."
    if moment > verification.now + CLOCK_SKEW:
        return f"The time of signing, {moment:%Y-%m-%d %H:%M} UTC, lies in the future."
    try:
        verify_signer(certificate, verification.intermediates, verification.anchors, verification.now)
    except CertificateRefused as error:
        return error.what
    return ""


def _time_of_signing(text: str) -> datetime | None:
    """A DT value with seconds and UTC offset (PS3.5 6.2) as a time."""
    parts = re.fullmatch(r"([0-9]{14})(?:\.([0-9]{1,6}))?([+-][0-9]{4})", text, re.ASCII)
    if parts is None:
        return None
    try:
        return datetime.strptime(f"{parts[1]}.{parts[2] or 0}{parts[3]}", "%Y%m%d%H%M%S.%f%z")
    except ValueError:
        return None


def _unpadded(stored: bytes, length: int | None) -> bytes:
    """A value of odd length is padded with one byte 00 (PS3.5 6.2, OB); nothing else may follow it."""
    if length is None or stored[length:] not in (b"", b"\0"):
        raise _broken("A certificate or signature is cut off, or something follows it.")
    return stored[:length]


def der_length(data: bytes) -> int | None:
    """Bytes of the DER value at the start of `data`; None where there is none (X.690 8.1.3)."""
    if len(data) < 2:
        return None
    first = data[1]
    if first < 0x80:
        return 2 + first
    size = first & 0x7F
    if not 1 <= size <= 4 or len(data) < 2 + size:
        return None
    return 2 + size + int.from_bytes(data[2 : 2 + size])


def _not_checkable(what: str) -> DicomError:
    return DicomError(what, code=NOT_CHECKABLE)


def _broken(what: str) -> DicomError:
    return DicomError(what, code="signature-broken")
