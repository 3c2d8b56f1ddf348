"""DI, in the factory: the device gets its first credential, the manufacturer its voucher: FDO 1.1, 5.2.

The manufacturer proves nothing, so this is for the network of a factory line and never for that of a hospital.
"""

from __future__ import annotations

from dataclasses import dataclass

from enroll.algorithms import KeyAlgorithm
from enroll.config import StoreName
from enroll.fdo.credential import CredentialStore, DeviceCredential
from enroll.fdo.public_key import KeyEncoding
from enroll.fdo.transport import Channel
from enroll.keystore import KeyStores


@dataclass(frozen=True)
class Product:
    """What the factory says the device is.

    Args:
        serial_number: Of the device.
        device_info: Its model.
        key_store: Where its key and secret live.
        token: Label of the token, where there are several.
        key_algorithm: Kind of the device key; owners have keys of the same kind.
        encoding: How the keys of manufacturer and owners are written.
    """

    serial_number: str
    device_info: str
    key_store: StoreName
    token: str
    key_algorithm: KeyAlgorithm
    encoding: KeyEncoding


def initialize(channel: Channel, product: Product, stores: KeyStores, credentials: CredentialStore) -> DeviceCredential:
    """Messages 10 to 13. What an earlier run left behind, which was interrupted, is cleaned up first.

    Raises:
        StateError: The device has a credential already.
        EnrollmentError: No answer, or none that the protocol allows.
        KeyStoreError: The keys cannot be made.
    """
    raise NotImplementedError
