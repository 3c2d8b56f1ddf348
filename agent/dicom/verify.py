"""Checking the signatures of an instance (PS3.3 C.12.1.1.3, PS3.15 C.2).

For each signature the covered bytes are hashed anew, in these steps:

1. The instance is well-formed; whatever two readers could understand differently ends here.
2. The two items of the signature are complete, belong together and hold nothing else.
3. The MAC Calculation Transfer Syntax can be that of the stored bytes.
4. Data Elements Signed lists elements that are all there, once, in the order of the data set.
5. The signature is that of the hash, by the key in the certificate.
6. Every element that the profile demands and that is there is covered.
7. The certificate leads to an anchor, and the time of signing lies in its validity.

A broken step is a finding of that signature; only step 1 is an error of the whole instance.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from agent.dicom.deflate import Inflater
from agent.dicom.elements import tag_name
from agent.dicom.headers import DEFAULT_LIMITS, Limits
from agent.dicom.profile import Profile
from agent.dicom.reader import Scanner
from agent.dicom.report import SignatureReport, VerificationReport
from agent.dicom.signature_items import DigitalSignature, MacParameters, read_digital_signature, read_mac_parameters
from agent.dicom.stream import Hash, MacStream
from agent.dicom.transfer_syntax import MAC_NATIVE_SYNTAXES, TransferSyntax, read_file_meta
from agent.dicom.window import Window
from agent.errors import DicomError
from enroll.certificates import PARSE_ERRORS
from enroll.errors import CertificateRefused
from enroll.trust import verify_chain

INFLATED_BUFFER = 1 << 18  # bytes

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
        outline = self._scanner(window, hashlib.sha256(), note)[0].walk()
        self.signature_items = outline.signatures.items if outline.signatures else ()
        self.mac_parameters_items = outline.mac_parameters.items if outline.mac_parameters else ()

    def hash_covered(self, tags: Sequence[int], state: Hash) -> None:
        """Hash the elements of the data set that a signature covers."""
        window = Window.over(self._data)
        window.skip(self._start)
        scanner, mac = self._scanner(window, state, frozenset(tags).__contains__)
        scanner.walk()
        mac.flush()

    def _scanner(self, window: Window, state: Hash, covers: Callable[[int], bool]) -> tuple[Scanner, MacStream]:
        if self.syntax.deflated:
            window = Window(Inflater(window).read_into, bytearray(INFLATED_BUFFER))
        mac = MacStream(window, state)
        encoding, encapsulated = self.syntax.encoding, self.syntax.encapsulated
        return Scanner(window, encoding, encapsulated=encapsulated, mac=mac, covers=covers, limits=self._limits), mac


def _signature_report(instance: _Instance, item: bytes, verification: Verification) -> SignatureReport:
    encoding = instance.syntax.encoding
    signature = parameters = certificate = None
    reason = ""
    trusted = False
    try:
        signature = read_digital_signature(item, encoding, hashlib.sha256())
        parameters = _parameters_of(signature, instance)
        certificate = _certificate(signature.certificate)
        _check_transfer_syntax(parameters, instance.syntax)
        _check_tag_list(parameters.signed_tags, instance.present)
        _check_signature(instance, item, signature, parameters, certificate)
    except DicomError as error:
        reason = error.what
    intact = not reason
    if intact and certificate is not None:
        reason = _distrust(certificate, verification)
        trusted = not reason
    covered = parameters.signed_tags if parameters else ()
    demanded = verification.profile.tags.intersection(instance.present).difference(covered)
    return SignatureReport(
        uid=signature.uid if signature else "",
        signed_at=signature.signed_at if signature else "",
        algorithm=parameters.algorithm if parameters else "",
        intact=intact,
        trusted=trusted,
        reason=reason,
        covered=covered,
        not_covered=tuple(sorted(demanded)),
        certificate=certificate,
    )


def _parameters_of(signature: DigitalSignature, instance: _Instance) -> MacParameters:
    candidates = [read_mac_parameters(item, instance.syntax.encoding) for item in instance.mac_parameters_items]
    matching = [parameters for parameters in candidates if parameters.mac_id == signature.mac_id]
    if len(matching) != 1:
        raise _broken(f"{len(matching)} items of MAC parameters have the number {signature.mac_id} instead of one.")
    return matching[0]


def _certificate(stored: bytes) -> x509.Certificate:
    length = der_length(stored)
    if length is None or stored[length:] not in (b"", b"\0"):
        raise _broken("Certificate of Signer (0400,0115) is not exactly one certificate.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what cryptography only warns about, it will refuse one day
            return x509.load_der_x509_certificate(stored[:length])
    except (*PARSE_ERRORS, Warning) as error:
        raise _broken("Certificate of Signer (0400,0115) cannot be read.") from error


def _check_transfer_syntax(parameters: MacParameters, stored: TransferSyntax) -> None:
    """Step 3: of a native data set any native syntax gives the same bytes; of fragments only their own does."""
    if stored.encapsulated:
        fits = parameters.transfer_syntax == stored.uid
    else:
        fits = parameters.transfer_syntax in MAC_NATIVE_SYNTAXES
    if not fits:
        raise _broken(
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
        raise _broken(f"The MAC algorithm {parameters.algorithm[:16]} is not checked.")
    name, algorithm = _HASHES[parameters.algorithm]
    state = hashlib.new(name)
    instance.hash_covered(parameters.signed_tags, state)
    read_digital_signature(item, instance.syntax.encoding, state)
    hashed = utils.Prehashed(algorithm)
    try:
        key = certificate.public_key()
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature.signature, state.digest(), padding.PKCS1v15(), hashed)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            # Outside PS3.15 C, but made by some. DER may be of odd length and is padded then.
            length = der_length(signature.signature)
            key.verify(signature.signature[:length], state.digest(), ec.ECDSA(hashed))
        else:
            raise _broken("The key of the certificate is neither RSA nor EC.")
    except InvalidSignature as error:
        raise _broken("The covered bytes, or the signature, were changed after signing.") from error
    except PARSE_ERRORS as error:
        raise _broken("The key of the certificate cannot be used.") from error


def _distrust(certificate: x509.Certificate, verification: Verification) -> str:
    """Why the signer is not trusted; empty if it is."""
    if not verification.anchors:
        return "No trust anchor was given."
    try:
        verify_chain(certificate, verification.intermediates, verification.anchors, verification.now)
    except CertificateRefused as error:
        return error.what
    return ""


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


def _broken(what: str) -> DicomError:
    return DicomError(what, code="signature-broken")
