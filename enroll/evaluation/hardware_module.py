"""The hardware module that a request names: HardwareModuleName, RFC 4108 5."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat import asn1

from enroll.csr import HARDWARE_MODULE_NAME


@asn1.sequence
class _HardwareModuleName:
    hardware_type: x509.ObjectIdentifier
    serial_number: bytes


def hardware_serial_number(name: x509.GeneralName) -> bytes | None:
    """The serial number in an alternative name; None where it is a name of another kind.

    Raises:
        ValueError: It cannot be read (one of `enroll.certificates.PARSE_ERRORS`).
    """
    if not isinstance(name, x509.OtherName) or name.type_id != HARDWARE_MODULE_NAME:
        return None
    return asn1.decode_der(_HardwareModuleName, name.value).serial_number
