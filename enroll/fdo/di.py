"""DI, in the factory: the device gets its first credential, the manufacturer its voucher: FDO 1.1, 5.2.

The manufacturer proves nothing, so this is for the network of a factory line and never for that of a hospital.

    fdo/initializing.json      the name of the keys that are being made; without it they would stay for ever

The credential counts from message 13 on. A run that ends before leaves a credential that is pending at most; the next
run begins anew, with new keys. The manufacturer may have a voucher then that no device belongs to.
"""

from __future__ import annotations

import logging
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.config import StoreName
from enroll.csr import hash_for
from enroll.errors import ConfigurationError, KeyStoreError, StateError
from enroll.fdo import cbor
from enroll.fdo.conversation import Conversation
from enroll.fdo.credential import CredentialStore, DeviceCredential
from enroll.fdo.fault import Fault
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.messages import ManufacturingInfo, MessageType
from enroll.fdo.public_key import KeyEncoding, key_types, strength
from enroll.fdo.rendezvous import check_leads_somewhere
from enroll.fdo.transport import Channel
from enroll.fdo.voucher import VoucherHeader
from enroll.keystore import KeyStores
from enroll.keystore.base import PrivateKey
from enroll.record import damaged, read_record, write_record
from enroll.statefile import GROUP_DIRECTORY, StateFiles

_HMACS = {
    HashAlgorithm.SHA256: (HmacAlgorithm.SHA256, HashAlgorithm.HMAC_SHA256),
    HashAlgorithm.SHA384: (HmacAlgorithm.SHA384, HashAlgorithm.HMAC_SHA384),
}
_NAME = re.compile(r"fdo-[0-9a-f]{16}")
_LOG = logging.getLogger(__name__)


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
            ConfigurationError: There is no such encoding of such keys.
            EnrollmentError: No answer, or none that the protocol allows.
            KeyStoreError: The keys cannot be made, or those of an earlier run not be removed.
        """
        product = self.product
        if product.encoding is KeyEncoding.COSEKEY and product.key_algorithm.startswith("rsa"):
            raise ConfigurationError(
                "There is no COSEKEY of an RSA key.", remedy='Set [fdo] key_encoding to "X5CHAIN" or "X509".'
            )
        self._clean_up()
        if self.credentials.current() is not None:
            raise StateError(
                "This scanner has its FDO credential already.",
                remedy="A second one would make every voucher of it worthless. In the factory: begin with an empty "
                "state directory.",
                code="fdo-initialized",
                what_next="Nothing was changed: the scanner keeps the credential that it has.",
            )
        name = f"fdo-{secrets.token_hex(8)}"
        self.files.make_directory(self.directory, GROUP_DIRECTORY)
        write_record(self._record, {"name": name, "key_store": product.key_store, "token": product.token}, self.files)
        try:
            return self._with_new_keys(name, channel)
        finally:
            self._clean_up_if_possible()

    @property
    def _record(self) -> Path:
        return self.directory / "initializing.json"

    def _with_new_keys(self, name: str, channel: Channel) -> DeviceCredential:
        store, token = self.product.key_store, self.product.token
        self.stores.check(store, token)
        key_uri = self.stores.generate(store, name, self.product.key_algorithm, token)
        key = self.stores.load(key_uri)
        algorithm, hmac_algorithm = _HMACS[strength(key.public_key())]
        secret_uri = self.stores.generate_secret(store, f"{name}-hmac", algorithm, token)
        with Conversation(channel) as conversation:
            header = self._introduce(key, conversation)
            credential = DeviceCredential(
                guid=header.guid,
                rendezvous=header.rendezvous,
                device_info=header.device_info,
                owner_key_hash=Hash.of(strength(header.manufacturer.key), header.manufacturer.raw),
                owner_key_kind=header.manufacturer.kind,
                certificate_chain_hash=header.certificate_chain_hash,
                key_uri=key_uri,
                secret_uri=secret_uri,
                hmac_algorithm=hmac_algorithm,
            )
            self.credentials.propose(credential)
            hmac = Hash(hmac_algorithm, self.stores.load_secret(secret_uri).sign(header.raw))
            cbor.read(conversation.ask(MessageType.DI_SET_HMAC, cbor.encode([cbor.Raw(hmac.raw)]))).array(0)
            self.credentials.commit(credential)
            return credential

    def _introduce(self, key: PrivateKey, conversation: Conversation) -> VoucherHeader:
        """Messages 10 and 11: the header of the voucher, which the scanner can do something with."""
        product, kinds = self.product, key_types(key.public_key())
        info = ManufacturingInfo(
            kinds[0],
            product.encoding,
            product.serial_number,
            product.device_info,
            _request(key, product.serial_number),
        )
        (wrapped,) = cbor.read(conversation.ask(MessageType.DI_APP_START, info.encode())).array(1)
        header = VoucherHeader.read(wrapped.embedded())
        if header.manufacturer.kind not in kinds:
            raise Fault(f"The key of the manufacturer is of the type {header.manufacturer.kind.name}, unlike ours.")
        check_leads_somewhere(header.rendezvous)
        return header

    def _clean_up(self) -> None:
        """Remove what a run has left behind, but for the keys of a credential that is in use."""
        if not self.files.exists(self._record):
            return
        values = read_record(self._record, ("name", "key_store", "token"), self.files)
        name, store = values["name"], values["key_store"]
        if not _NAME.fullmatch(name) or store not in list(StoreName):
            raise damaged(self._record)  # a shorter name might fit other keys
        current = self.credentials.current()
        if current is None or name not in current.key_uri:
            self.stores.check(StoreName(store), values["token"])  # what is not there now would not be in the list
            for uri in self.stores.list():
                if name in uri:
                    self.stores.destroy(uri)
        if current is None or self.credentials.pending() == current:
            self.credentials.withdraw()
        self.files.remove(self._record)

    def _clean_up_if_possible(self) -> None:
        """The same at the end of a run, whose own failure has to be told; what stays goes with the next run."""
        try:
            self._clean_up()
        except (KeyStoreError, StateError) as error:
            _LOG.warning("What was begun stays for now: %s", error.what)


def _request(key: PrivateKey, serial_number: str) -> bytes:
    """PKCS#10 of the device key; the manufacturer certifies it."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, serial_number)])
    builder = x509.CertificateSigningRequestBuilder(subject)
    return builder.sign(key, hash_for(key)).public_bytes(serialization.Encoding.DER)
