"""DI, in the factory: the device gets its first credential, the manufacturer its voucher: FDO 1.1, 5.2.

The manufacturer proves nothing, so this is for the network of a factory line and never for that of a hospital.

    fdo/initializing.json      the name of the keys that are being made; without it they would stay for ever

The credential counts from message 13 on. A run that ends before leaves a credential that is pending at most; the next
run begins anew, with new keys. The manufacturer may have a voucher then that no device belongs to.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.config import StoreName
from enroll.csr import hash_for
from enroll.errors import StateError
from enroll.fdo import cbor
from enroll.fdo.conversation import Conversation
from enroll.fdo.credential import CredentialStore, DeviceCredential
from enroll.fdo.fault import Fault
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.messages import ManufacturingInfo, MessageType
from enroll.fdo.public_key import KeyEncoding, key_types, strength
from enroll.fdo.rendezvous import read_directives
from enroll.fdo.transport import Channel
from enroll.fdo.voucher import VoucherHeader
from enroll.keystore import KeyStores
from enroll.keystore.base import PrivateKey
from enroll.record import read_record, write_record
from enroll.retire import destroy_named
from enroll.statefile import StateFiles

_HMACS = {
    HashAlgorithm.SHA256: (HmacAlgorithm.SHA256, HashAlgorithm.HMAC_SHA256),
    HashAlgorithm.SHA384: (HmacAlgorithm.SHA384, HashAlgorithm.HMAC_SHA384),
}


@dataclass(frozen=True)
class Product:
    """What the factory says the device is.

    Args:
        serial_number: Of the device.
        device_info: Its model.
        key_store: Where its key and secret live.
        token: Label of the token, where there are several.
        key_algorithm: Kind of the device key; manufacturer and owners have keys of the same kind.
        encoding: How the keys of manufacturer and owners are written.
    """

    serial_number: str
    device_info: str
    key_store: StoreName
    token: str
    key_algorithm: KeyAlgorithm
    encoding: KeyEncoding


@dataclass(frozen=True)
class Initialization:
    """DI of one device.

    Args:
        product: What it is.
        stores: Where its keys are made.
        credentials: Where the credential goes.
        directory: `fdo` below the state directory.
        files: Reads and writes.
    """

    product: Product
    stores: KeyStores
    credentials: CredentialStore
    directory: Path
    files: StateFiles

    def run(self, channel: Channel) -> DeviceCredential:
        """Messages 10 to 13. What an earlier run left behind, which was interrupted, is cleaned up first.

        Args:
            channel: To the manufacturer.

        Raises:
            StateError: The device has a credential already.
            EnrollmentError: No answer, or none that the protocol allows.
            KeyStoreError: The keys cannot be made.
        """
        self._clean_up()
        if self.credentials.current() is not None:
            raise StateError(
                "This scanner has its FDO credential already.",
                remedy="A second one would make every voucher of it worthless. In the factory: begin with an empty "
                "state directory.",
                code="fdo-initialized",
            )
        name = f"fdo-{secrets.token_hex(8)}"
        self.files.make_directory(self.directory)
        write_record(self._record, {"name": name}, self.files)
        try:
            credential = self._talk(channel, name)
        except BaseException:
            self._clean_up()
            raise
        self.files.remove(self._record)
        return credential

    @property
    def _record(self) -> Path:
        return self.directory / "initializing.json"

    def _talk(self, channel: Channel, name: str) -> DeviceCredential:
        product = self.product
        self.stores.check(product.key_store, product.token)
        uri = self.stores.generate(product.key_store, name, product.key_algorithm, product.token)
        key = self.stores.load(uri)
        algorithm, number = _HMACS[strength(key.public_key())]
        secret_uri = self.stores.generate_secret(product.key_store, f"{name}-hmac", algorithm, product.token)
        with Conversation(channel) as conversation:
            info = ManufacturingInfo(
                key_types(key.public_key())[0],
                product.encoding,
                product.serial_number,
                product.device_info,
                _request(key, product.serial_number),
            )
            (wrapped,) = cbor.read(conversation.ask(MessageType.DI_APP_START, info.encode())).array(1)
            header = VoucherHeader.read(wrapped.embedded())
            if not read_directives(cbor.read(header.rendezvous.encoded)):
                raise Fault("The voucher has no rendezvous directive that this scanner could follow.")
            credential = DeviceCredential(
                header.guid,
                header.rendezvous,
                header.device_info,
                Hash.of(strength(key.public_key()), header.manufacturer.raw),
                header.manufacturer.kind,
                header.certificate_chain_hash,
                uri,
                secret_uri,
                number,
            )
            self.credentials.propose(credential)
            hmac = Hash(number, self.stores.load_secret(secret_uri).sign(header.raw))
            body = cbor.encode([cbor.Raw(hmac.raw)])
            cbor.read(conversation.ask(MessageType.DI_SET_HMAC, body)).array(0)
            self.credentials.commit(credential)
            return credential

    def _clean_up(self) -> None:
        if not self.files.exists(self._record):
            return
        current = self.credentials.current()
        name = read_record(self._record, ("name",), self.files)["name"]
        if current is None:
            self.credentials.withdraw()
        if current is None or name not in current.key_uri:
            destroy_named(name, self.stores)
        self.files.remove(self._record)


def _request(key: PrivateKey, serial_number: str) -> bytes:
    """PKCS#10 of the device key; the manufacturer certifies it."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, serial_number)])
    builder = x509.CertificateSigningRequestBuilder(subject)
    return builder.sign(key, hash_for(key)).public_bytes(serialization.Encoding.DER)
