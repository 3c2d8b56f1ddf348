"""Certificate requests (PKCS#10, RFC 2986): what a scanner asks for.

    request = CertificateRequest.for_device(settings.device, Usage.SIGNING)
    build(key, request)  ->  subject CN="Example CT 1234" serialNumber="1234"
                             keyUsage digitalSignature (critical), extendedKeyUsage documentSigning
                             subjectAltName hardwareModuleName {model, 1234}

What is made from images, or by a model, is signed with keys of its own, whose certificates say so in the
organizational unit: OU="derivation" or OU="synthesis".

What is left out on purpose: the organization. In a certificate of the owner it names the owner, and it is the
owner's CA that knows its name. Patients and staff are never named.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from enroll import der
from enroll.certificates import alternative_names
from enroll.config import DeviceSettings
from enroll.keystore.base import PrivateKey

# RFC 9336; cryptography has no constant for it.
DOCUMENT_SIGNING = ObjectIdentifier("1.3.6.1.5.5.7.3.36")
# RFC 4108 section 5: the SAN otherName that names a device by type and serial number.
HARDWARE_MODULE_NAME = ObjectIdentifier("1.3.6.1.5.5.7.8.4")
DIGITAL_SIGNATURE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_COMMON_NAME_LIMIT = 64  # characters; ub-common-name of RFC 5280 appendix A.1


class Usage(StrEnum):
    """What a certificate is for; never two of them."""

    DEVICE = "device"
    SIGNING = "signing"
    DERIVATION = "derivation"
    SYNTHESIS = "synthesis"

    @property
    def extended_key_usage(self) -> ObjectIdentifier:
        """The one extended key usage of such a certificate."""
        return ExtendedKeyUsageOID.CLIENT_AUTH if self is Usage.DEVICE else DOCUMENT_SIGNING

    @property
    def organizational_unit(self) -> str:
        """What tells the certificate from that of original images; empty where nothing has to."""
        return self.value if self in (Usage.DERIVATION, Usage.SYNTHESIS) else ""


RESERVED_UNITS = frozenset(filter(None, (usage.organizational_unit for usage in Usage)))


@dataclass(frozen=True)
class CertificateRequest:
    """The content of a request, without key and encoding.

    Args:
        common_name: For people: model and serial number.
        serial_number: Subject attribute serialNumber, as on the type plate.
        hardware_type: Object identifier of the model; empty for no hardwareModuleName.
        usage: What the certificate is for.
    """

    common_name: str
    serial_number: str
    hardware_type: str
    usage: Usage

    @classmethod
    def for_device(cls, device: DeviceSettings, usage: Usage) -> CertificateRequest:
        """What the configured scanner asks for; the model is left out of the common name where both do not fit."""
        full_name = f"{device.model} {device.serial_number}".strip()
        name = full_name if len(full_name) <= _COMMON_NAME_LIMIT else device.serial_number
        return cls(name, device.serial_number, device.hardware_type, usage)

    @property
    def subject(self) -> x509.Name:
        """The distinguished name."""
        names = [
            x509.NameAttribute(NameOID.COMMON_NAME, self.common_name),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, self.serial_number),
        ]
        if unit := self.usage.organizational_unit:
            names.insert(0, x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
        return x509.Name(names)

    @property
    def alternative_names(self) -> tuple[x509.GeneralName, ...]:
        """The names of the SubjectAltName extension; none where no hardware type is configured."""
        return (hardware_module_name(self.hardware_type, self.serial_number),) if self.hardware_type else ()


def hardware_module_name(hardware_type: str, serial_number: str) -> x509.OtherName:
    """HardwareModuleName ::= SEQUENCE { hwType OBJECT IDENTIFIER, hwSerialNum OCTET STRING } (RFC 4108 section 5)."""
    content = der.object_identifier(hardware_type) + der.encode(der.OCTET_STRING, serial_number.encode("utf-8"))
    return x509.OtherName(HARDWARE_MODULE_NAME, der.encode(der.SEQUENCE, content))


def build(
    key: PrivateKey, request: CertificateRequest, renews: x509.Certificate | None = None
) -> x509.CertificateSigningRequest:
    """Sign a request with the key that it asks a certificate for.

    Args:
        key: The new key.
        request: What is asked for.
        renews: A certificate whose subject and alternative names are repeated to the letter, what the CA added
            to them included (RFC 7030 4.2.2).

    Raises:
        KeyStoreError: The key's store refused to sign.
    """
    builder = x509.CertificateSigningRequestBuilder(request.subject if renews is None else renews.subject)
    builder = builder.add_extension(DIGITAL_SIGNATURE, critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([request.usage.extended_key_usage]), critical=False)
    names = request.alternative_names if renews is None else alternative_names(renews)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, _hash_for(key))


def _hash_for(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384:
    wide_curve = isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > hashes.SHA256.digest_size * 8
    return hashes.SHA384() if wide_curve else hashes.SHA256()
