"""Certificate requests (PKCS#10, RFC 2986): what a scanner asks for.

    request = CertificateRequest.for_device(settings.device, Usage.SIGNING)
    build(key, request)  ->  subject CN="Example CT 1234" serialNumber="1234"
                             keyUsage digitalSignature (critical), extendedKeyUsage documentSigning
                             subjectAltName hardwareModuleName {model, 1234}
                             unstructuredName "key protection: software"

What is made from images, or by a model, is signed with keys of its own, whose certificates say so in the
organizational unit: OU="derivation" or OU="synthesis".

The attribute unstructuredName (RFC 2985 5.4.1) says where the key lives, "hardware", "memory" or "software", for CAs
that grant by that (ADR 22). It is the device's own word; attestation proves it.

What is left out on purpose: the organization. In a certificate of the owner it names the owner, and it is the
owner's CA that knows its name. Patients and staff are never named.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from enroll import der
from enroll.certificates import PARSE_ERRORS, alternative_names, name_text, private_key_usage_period
from enroll.config import DeviceSettings
from enroll.keystore.base import PrivateKey, Protection

# RFC 9336; cryptography has no constant for it.
DOCUMENT_SIGNING = ObjectIdentifier("1.3.6.1.5.5.7.3.36")
# RFC 4108 section 5: the SAN otherName that names a device by type and serial number.
HARDWARE_MODULE_NAME = ObjectIdentifier("1.3.6.1.5.5.7.8.4")
# RFC 4043 section 2: the SAN otherName that names a device by an identifier for ever.
PERMANENT_IDENTIFIER = ObjectIdentifier("1.3.6.1.5.5.7.8.3")
UNSTRUCTURED_NAME = NameOID.UNSTRUCTURED_NAME
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
_ATTRIBUTES = ["1.2.840.113549.1.9.14", UNSTRUCTURED_NAME.dotted_string]  # RFC 2985 5.4.2: extensionRequest
_MARKER = "key protection: "
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
    def purpose(self) -> str:
        """The same for people, in the words of RFC 5280 4.2.1.12 and RFC 9336."""
        return "clientAuth" if self is Usage.DEVICE else "documentSigning"

    @property
    def organizational_unit(self) -> str:
        """What tells the certificate from that of original images; empty where nothing has to."""
        return self.value if self in (Usage.DERIVATION, Usage.SYNTHESIS) else ""


RESERVED_UNITS = frozenset(filter(None, (usage.organizational_unit for usage in Usage)))
OWNERS_NAMES = frozenset(  # what the owner's CA may add to the names of a device; of the units none that is reserved
    {
        NameOID.ORGANIZATION_NAME,
        NameOID.ORGANIZATIONAL_UNIT_NAME,
        NameOID.COUNTRY_NAME,
        NameOID.STATE_OR_PROVINCE_NAME,
        NameOID.LOCALITY_NAME,
        NameOID.DOMAIN_COMPONENT,
    }
)


@dataclass(frozen=True)
class CertificateRequest:
    """The content of a request, without key and encoding.

    Args:
        common_name: For people: model and serial number.
        serial_number: Subject attribute serialNumber, as on the type plate.
        hardware_type: Object identifier of the model; empty for no hardwareModuleName.
        usage: What the certificate is for.
        host_name: The one alternative name where the CA proves a host name and nothing else.
        permanent_identifier: The one alternative name where the CA proves an identifier of the device.
    """

    common_name: str
    serial_number: str
    hardware_type: str
    usage: Usage
    host_name: str = ""
    permanent_identifier: str = ""

    @classmethod
    def for_device(cls, device: DeviceSettings, usage: Usage) -> CertificateRequest:
        """What the configured scanner asks for; the model is left out of the common name where both do not fit."""
        full_name = f"{device.model} {device.serial_number}".strip()
        name = full_name if len(full_name) <= _COMMON_NAME_LIMIT else device.serial_number
        return cls(name, device.serial_number, device.hardware_type, usage)

    def for_host(self, name: str) -> CertificateRequest:
        """The same for a CA that proves a host name (RFC 8555), which the common name has to be then as well."""
        common_name = name if len(name) <= _COMMON_NAME_LIMIT else ""
        return replace(self, common_name=common_name, hardware_type="", host_name=name)

    def for_permanent_identifier(self, identifier: str) -> CertificateRequest:
        """The same for a CA that proves an identifier of the device, which the common name has to be as well."""
        common_name = identifier if len(identifier) <= _COMMON_NAME_LIMIT else ""
        return replace(self, common_name=common_name, hardware_type="", permanent_identifier=identifier)

    @property
    def proved_by_ca(self) -> bool:
        """Whether the CA certifies a name that it has proved; it may leave out what it has not."""
        return bool(self.host_name or self.permanent_identifier)

    @property
    def subject(self) -> x509.Name:
        """The distinguished name."""
        names = [x509.NameAttribute(NameOID.SERIAL_NUMBER, self.serial_number)]
        if self.common_name:
            names.insert(0, x509.NameAttribute(NameOID.COMMON_NAME, self.common_name))
        if unit := self.usage.organizational_unit:
            names.insert(0, x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
        return x509.Name(names)

    @property
    def alternative_names(self) -> tuple[x509.GeneralName, ...]:
        """The names of the SubjectAltName extension; none where no hardware type is configured."""
        if self.host_name:
            return (x509.DNSName(self.host_name),)
        if self.permanent_identifier:
            return (permanent_identifier(self.permanent_identifier),)
        return (hardware_module_name(self.hardware_type, self.serial_number),) if self.hardware_type else ()

    @property
    def alternative_names_text(self) -> str:
        """The same for people; empty where there are none."""
        if self.host_name:
            return f"host name {self.host_name}"
        if self.permanent_identifier:
            return f"permanentIdentifier {self.permanent_identifier}"
        return f"hardwareModuleName {self.hardware_type} {self.serial_number}" if self.hardware_type else ""

    @property
    def text(self) -> str:
        """What is asked for, in one line for people."""
        parts = (name_text(self.subject), self.alternative_names_text, self.usage.purpose)
        return f"certificate request for {self.usage}: {', '.join(filter(None, parts))}"


def permanent_identifier(identifier: str) -> x509.OtherName:
    """PermanentIdentifier ::= SEQUENCE { identifierValue UTF8String, assigner left out } (RFC 4043 section 2)."""
    value = der.encode(der.UTF8_STRING, identifier.encode("utf-8"))
    return x509.OtherName(PERMANENT_IDENTIFIER, der.encode(der.SEQUENCE, value))


def hardware_module_name(hardware_type: str, serial_number: str) -> x509.OtherName:
    """HardwareModuleName ::= SEQUENCE { hwType OBJECT IDENTIFIER, hwSerialNum OCTET STRING } (RFC 4108 section 5)."""
    content = der.object_identifier(hardware_type) + der.encode(der.OCTET_STRING, serial_number.encode("utf-8"))
    return x509.OtherName(HARDWARE_MODULE_NAME, der.encode(der.SEQUENCE, content))


def build(  # noqa: PLR0913 - all that a request may hold
    key: PrivateKey,
    request: CertificateRequest,
    renews: x509.Certificate | None = None,
    usage_period: tuple[datetime, datetime] | None = None,
    *,
    protection: Protection = Protection.SOFTWARE,
    owners_names: Sequence[x509.NameAttribute[str]] = (),
    challenge_password: str = "",
) -> x509.CertificateSigningRequest:
    """Sign a request with the key that it asks a certificate for.

    Args:
        key: The new key.
        request: What is asked for.
        renews: A certificate whose subject and alternative names are repeated to the letter, what the CA added
            to them included (RFC 7030 4.2.2).
        usage_period: First and last moment when the key will sign, where the certificate is to outlive it (RFC 3280
            4.2.1.4). In whole seconds.
        protection: Where the key lives; without better knowledge the least.
        owners_names: Names of the owner that the CA wants before those of the device. A renewal repeats what it has.
        challenge_password: The attribute of that name (RFC 2985 5.4.1), where the protocol wants one.

    Raises:
        KeyStoreError: The key's store refused to sign.
    """
    subject = x509.Name([*owners_names, *request.subject]) if renews is None else renews.subject
    names = request.alternative_names if renews is None else alternative_names(renews)
    builder = x509.CertificateSigningRequestBuilder(subject)
    for extension, critical in _extensions(request.usage, names, usage_period):
        builder = builder.add_extension(extension, critical)
    builder = builder.add_attribute(UNSTRUCTURED_NAME, _marker(protection))
    if challenge_password:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, challenge_password.encode("ascii"))
    return builder.sign(key, hash_for(key))


def stated_protection(signed: x509.CertificateSigningRequest) -> Protection | None:
    """Where the key of a request lives by its own account; None where it does not say.

    Raises:
        ValueError: What it says is none of the three; or another of `PARSE_ERRORS`.
    """
    names = [attribute.value for attribute in signed.attributes if attribute.oid == UNSTRUCTURED_NAME]
    stated = [name.decode("ascii") for name in names if name.startswith(_MARKER.encode("ascii"))]
    if len(stated) > 1:
        raise ValueError("stated more than once")
    return Protection(stated[0].removeprefix(_MARKER)) if stated else None


def difference(signed: x509.CertificateSigningRequest, request: CertificateRequest, protection: Protection) -> str:
    """Which parts of a request are not those that `build` makes; empty where all are. Key and usage period may be any.

    Args:
        signed: Made by whoever holds the key.
        request: What is to be asked for.
        protection: Where such a key lives.
    """
    try:
        wanted = _extensions(request.usage, request.alternative_names, private_key_usage_period(signed))
        stated = [(extension.value, extension.critical) for extension in signed.extensions]
        attributes = list(signed.attributes)
        marker = x509.Attribute(UNSTRUCTURED_NAME, _marker(protection))
        same = {
            "subject": signed.subject.public_bytes() == request.subject.public_bytes(),
            "extensions": _encoded(stated) == _encoded(wanted),
            # The marker and one request for extensions; in a second one nobody would have looked.
            "attributes": sorted(a.oid.dotted_string for a in attributes) == _ATTRIBUTES and marker in attributes,
        }
    except PARSE_ERRORS:
        return "what it asks for cannot be read"
    return ", ".join(part for part, is_same in same.items() if not is_same)


def _marker(protection: Protection) -> bytes:
    return f"{_MARKER}{protection}".encode("ascii")


def _extensions(
    usage: Usage, names: Sequence[x509.GeneralName], usage_period: tuple[datetime | None, datetime | None] | None
) -> list[tuple[x509.ExtensionType, bool]]:
    """The extensions of a request, each with whether it is critical."""
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (DIGITAL_SIGNATURE, True),
        (x509.ExtendedKeyUsage([usage.extended_key_usage]), False),
    ]
    if names:
        extensions.append((x509.SubjectAlternativeName(names), False))
    if usage_period is not None:
        extensions.append((x509.PrivateKeyUsagePeriod(*usage_period), False))
    return extensions


def _encoded(extensions: Iterable[tuple[x509.ExtensionType, bool]]) -> list[tuple[str, bytes, bool]]:
    return [(value.oid.dotted_string, value.public_bytes(), critical) for value, critical in extensions]


def hash_for(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384:
    """The hash that a key signs requests with."""
    wide_curve = isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > hashes.SHA256.digest_size * 8
    return hashes.SHA384() if wide_curve else hashes.SHA256()
