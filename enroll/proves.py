"""What a certificate can prove: that it was one device, or only that it was something of its vendor.

A certificate that lies on many machines, with its key, names none of them. Whoever shows a certificate to people or
programs says this of it, and asks here.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from cryptography import x509
from cryptography.x509.oid import NameOID

from enroll.certificates import PARSE_ERRORS, alternative_names
from enroll.csr import HARDWARE_MODULE_NAME, PERMANENT_IDENTIFIER

VENDOR_ONLY = "proves the vendor only, not which device"

_DEVICE_UID = "urn:oid:"  # RFC 3061
_DEVICE_IDENTIFIER, _ITS_SERIAL = "https://id.gs1.org/01/", "/21/"  # a GS1 Digital Link of one device


class Proves(StrEnum):
    """Whom a certificate speaks for."""

    DEVICE = "device"
    VENDOR = "vendor"


def proves(certificate: x509.Certificate) -> Proves:
    """Whether a certificate names one device; one whose names cannot be read names none."""
    try:
        return Proves.DEVICE if any(_names_of_devices(certificate)) else Proves.VENDOR
    except PARSE_ERRORS:
        return Proves.VENDOR


def remark(certificate: x509.Certificate) -> str:
    """What people have to be told of what it proves; empty for the certificate of one device."""
    return VENDOR_ONLY if proves(certificate) is Proves.VENDOR else ""


def _names_of_devices(certificate: x509.Certificate) -> Iterator[bool]:
    """Of each name, whether it is that of one device: as in docs/signer-identity.md, by RFC 4043, or as a host."""
    yield bool(certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER))
    for name in alternative_names(certificate):
        yield isinstance(name, x509.DNSName | x509.IPAddress)
        if isinstance(name, x509.OtherName):
            yield name.type_id in (HARDWARE_MODULE_NAME, PERMANENT_IDENTIFIER)
        if isinstance(name, x509.UniformResourceIdentifier):
            of_device = name.value.startswith(_DEVICE_IDENTIFIER) and _ITS_SERIAL in name.value
            yield of_device or name.value.casefold().startswith(_DEVICE_UID)
