"""What certificates for attestation say of the TPM and of the device; written by the evaluation CA, read by everybody.

AK certificate     subjectAltName { directoryName { tpmManufacturer, tpmModel, tpmVersion },
                                    permanentIdentifier { serial number of the device } }
key certificate    an extension { serial number of the device }, for keys that are in no TPM
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import ObjectIdentifier

from enroll import der
from enroll.certificates import PARSE_ERRORS, alternative_names
from enroll.csr import PERMANENT_IDENTIFIER
from enroll.foreign import printable

EK_CERTIFICATE = ObjectIdentifier("2.23.133.8.1")  # tcg-kp-EKCertificate
AK_CERTIFICATE = ObjectIdentifier("2.23.133.8.3")  # tcg-kp-AIKCertificate
MANAGED_DEVICE = ObjectIdentifier("1.3.6.1.4.1.37476.9000.64.4")  # how format step names a device

_MANUFACTURER = ObjectIdentifier("2.23.133.2.1")
_MODEL = ObjectIdentifier("2.23.133.2.2")
_VERSION = ObjectIdentifier("2.23.133.2.3")
_UTF8_STRING = 0x0C
_PRINTABLE_STRING = 0x13
# Programs that behave as a TPM: libtpms (swtpm, QEMU) and VMware.
_SIMULATORS = frozenset({"id:00001014", "id:564D5700"})


@dataclass(frozen=True)
class TpmDetails:
    """Which TPM it is (TCG EK Credential Profile, section 3.2.9, as WebAuthn 8.3.1 cites it).

    Args:
        manufacturer: "id:" and the hexadecimal vendor id.
        model: As the manufacturer calls it.
        version: Of its firmware.
    """

    manufacturer: str
    model: str
    version: str

    @property
    def simulated(self) -> bool:
        """Whether it is known to be a program and no chip. Of a program that hides it, nobody can tell."""
        return self.manufacturer.replace("ID:", "id:") in _SIMULATORS or "swtpm" in self.model.casefold()

    def directory_name(self) -> x509.DirectoryName:
        """The subject alternative name that says so."""
        values = ((_MANUFACTURER, self.manufacturer), (_MODEL, self.model), (_VERSION, self.version))
        return x509.DirectoryName(x509.Name([x509.NameAttribute(oid, value) for oid, value in values]))


def tpm_details(certificate: x509.Certificate) -> TpmDetails | None:
    """Which TPM an EK or AK certificate speaks of; None where it does not say exactly one, or leaves something out.

    Raises:
        ValueError: The extensions cannot be parsed; or another of `PARSE_ERRORS`.
    """
    named = [name.value for name in alternative_names(certificate) if isinstance(name, x509.DirectoryName)]
    attributes = [attribute for name in named for attribute in name]
    kinds = (_MANUFACTURER, _MODEL, _VERSION)
    values = [[printable(str(attribute.value)) for attribute in attributes if attribute.oid == kind] for kind in kinds]
    if any(len(found) != 1 or not found[0] for found in values):
        return None
    return TpmDetails(*(found[0] for found in values))


def permanent_identifiers(certificate: x509.Certificate) -> tuple[str, ...]:
    """The devices that a certificate names by RFC 4043; what has an assigner, or no value, is left out.

    Raises:
        ValueError: The extensions cannot be parsed; or another of `PARSE_ERRORS`.
    """
    names = [name for name in alternative_names(certificate) if isinstance(name, x509.OtherName)]
    texts = [_text(name.value, (_UTF8_STRING,)) for name in names if name.type_id == PERMANENT_IDENTIFIER]
    return tuple(filter(None, texts))


def managed_device(serial_number: str) -> x509.UnrecognizedExtension:
    """The extension by which a key certificate of format step names a device: SEQUENCE { UTF8String }."""
    value = der.encode(_UTF8_STRING, serial_number.encode("utf-8"))
    return x509.UnrecognizedExtension(MANAGED_DEVICE, der.encode(der.SEQUENCE, value))


def managed_device_of(certificate: x509.Certificate) -> str:
    """The device that a key certificate names; empty where it names none.

    Raises:
        ValueError: The extensions cannot be parsed; or another of `PARSE_ERRORS`.
    """
    try:
        extension = certificate.extensions.get_extension_for_oid(MANAGED_DEVICE).value
    except x509.ExtensionNotFound:
        return ""
    if not isinstance(extension, x509.UnrecognizedExtension):
        return ""
    return _text(extension.value, (_UTF8_STRING, _PRINTABLE_STRING))


def parsed(data: bytes) -> x509.Certificate:
    """A certificate whose every part can be read.

    Raises:
        ValueError: It is none, or not in DER.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what cryptography only warns about, it will refuse one day
            certificate = x509.load_der_x509_certificate(data)
            # These are read when they are asked for, and not before.
            _ = certificate.extensions, certificate.public_key(), certificate.subject, certificate.issuer
    except (*PARSE_ERRORS, Warning) as error:
        raise ValueError(str(error)) from error
    if not der.is_one_value(data):
        raise ValueError("not DER")
    return certificate


def _text(data: bytes, tags: tuple[int, ...]) -> str:
    """The text in a SEQUENCE of one string; empty for anything else."""
    if not der.is_one_value(data) or data[0] != der.SEQUENCE:
        return ""
    inner = _content(data)
    if not der.is_one_value(inner) or inner[0] not in tags:
        return ""
    try:
        return _content(inner).decode("utf-8")
    except UnicodeDecodeError:
        return ""


def _content(value: bytes) -> bytes:
    """What stands after tag and length of one DER value."""
    octets = value[1] & 0x7F if value[1] & 0x80 else 0
    return value[2 + octets :]
