"""The manufacturer: gives a device its first credential, and makes the voucher (DI): FDO 1.1, 5.2. NOT FOR PRODUCTION.

Whoever can reach it gets a certificate for a device, so it is for a factory line and never for a network.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from enroll.certificates import PARSE_ERRORS
from enroll.clock import Clock
from enroll.csr import DIGITAL_SIGNATURE
from enroll.evaluation.authority import Authority, certificate_builder
from enroll.evaluation.fdo.party_keys import PartyKey, PartyKeys
from enroll.evaluation.fdo.sessions import Run
from enroll.fdo import cbor
from enroll.fdo.fault import Fault
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.messages import GUID_SIZE, ManufacturingInfo, MessageType
from enroll.fdo.public_key import FdoPublicKey, strength
from enroll.fdo.voucher import Voucher, VoucherHeader
from enroll.keystore.base import PublicKey

DEVICE_LIFETIME = timedelta(days=20 * 365)

_HMACS = {HashAlgorithm.SHA256: HashAlgorithm.HMAC_SHA256, HashAlgorithm.SHA384: HashAlgorithm.HMAC_SHA384}


@dataclass(frozen=True)
class ManufacturerTerms:
    """What devices get.

    Args:
        rendezvous: RVInfo.
        first_owner: The key that a voucher is extended to, from the manufacturer's; None for vouchers without entries.
    """

    rendezvous: cbor.Raw
    first_owner: Callable[[FdoPublicKey], FdoPublicKey] | None = None


@dataclass(frozen=True)
class Manufacturer:
    """The manufacturer.

    Args:
        keys: Its keys.
        device_ca: Certifies device keys.
        terms: What devices get.
        deliver: Gets each voucher that is made.
        clock: Dates certificates.
    """

    keys: PartyKeys
    device_ca: Authority
    terms: ManufacturerTerms
    deliver: Callable[[Voucher], None]
    clock: Clock

    def begin(self) -> ManufacturerRun:
        """One run of DI."""
        return ManufacturerRun(self)

    def certify(self, serial_number: str, key: PublicKey) -> tuple[x509.Certificate, ...]:
        """The certificate of a device key, and that of the CA."""
        now = self.clock.now()
        lifetime = min(DEVICE_LIFETIME, self.device_ca.certificate.not_valid_after_utc - now)
        subject = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, serial_number)])
        builder = certificate_builder(subject, key, now, lifetime)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        certificate = self.device_ca.sign(builder.add_extension(DIGITAL_SIGNATURE, critical=True))
        return certificate, self.device_ca.certificate


class ManufacturerRun(Run):
    """DI with one device.

    Args:
        manufacturer: It.
    """

    # Known from message 10 on.
    key: PartyKey
    header: VoucherHeader
    device_chain: tuple[x509.Certificate, ...]
    hmac_algorithm: HashAlgorithm

    def __init__(self, manufacturer: Manufacturer) -> None:
        super().__init__(MessageType.DI_APP_START)
        self.manufacturer = manufacturer

    @property
    def answers(self) -> Mapping[MessageType, Callable[[bytes], bytes]]:
        """See `Run`."""
        return {MessageType.DI_APP_START: self.app_start, MessageType.DI_SET_HMAC: self.set_hmac}

    def app_start(self, body: bytes) -> bytes:
        """Message 10: the device says what it is, and gets the header of its voucher."""
        info = ManufacturingInfo.read(cbor.read(body))
        device_key = _key_of(info.csr)
        plain = strength(device_key)
        self.key = self.manufacturer.keys.of_kind(info.kind, device_key)
        try:
            self.device_chain = self.manufacturer.certify(info.serial_number, device_key)
        except ValueError as error:
            raise Fault("The serial number of a device cannot stand in a certificate.") from error
        certificates = b"".join(each.public_bytes(serialization.Encoding.DER) for each in self.device_chain)
        self.header = VoucherHeader.make(
            secrets.token_bytes(GUID_SIZE),
            self.manufacturer.terms.rendezvous,
            info.device_info,
            self.key.public(info.kind, info.encoding),
            Hash.of(plain, certificates),
        )
        self.hmac_algorithm = _HMACS[plain]
        self.expected = MessageType.DI_SET_HMAC
        return cbor.encode([self.header.raw])

    def set_hmac(self, body: bytes) -> bytes:
        """Message 12: the HMAC of the device, with which there is a voucher."""
        (item,) = cbor.read(body).array(1)
        hmac = Hash.read(item)
        if hmac.algorithm is not self.hmac_algorithm:
            raise Fault("The HMAC of a device has to be as strong as its key.")
        voucher, first_owner = Voucher.make(self.header, hmac, self.device_chain), self.manufacturer.terms.first_owner
        if first_owner is not None:
            voucher = voucher.extend(self.key.key, first_owner(self.header.manufacturer))
        self.manufacturer.deliver(voucher)
        self.expected = None
        return cbor.encode([])


def _key_of(request: bytes) -> PublicKey:
    """The key of a PKCS#10 request that is signed with it."""
    try:
        csr = x509.load_der_x509_csr(request)
        key, signed = csr.public_key(), csr.is_signature_valid
    except PARSE_ERRORS as error:
        raise Fault("The request of a device for its certificate cannot be read.") from error
    if not signed or not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise Fault("The request of a device for its certificate is not signed with its key.")
    return key
