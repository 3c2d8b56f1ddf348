"""The factory line: a manufacturer that does whatever a test wants, and a scanner that may lose its power."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from enroll.algorithms import KeyAlgorithm
from enroll.config import KeyStoreSettings, StoreName
from enroll.fdo import cbor
from enroll.fdo.credential import CredentialStore, DeviceCredential
from enroll.fdo.di import Initialization, Product
from enroll.fdo.messages import ErrorMessage, MessageType
from enroll.fdo.public_key import FdoPublicKey, KeyEncoding
from enroll.fdo.transport import Received
from enroll.fdo.voucher import VoucherHeader
from enroll.keystore import KeyStores
from enroll.keystore.base import PublicKey
from enroll.statefile import StateFiles
from tests.support.pki import new_key
from tests.unit.test_issue_power_cuts import FailingFiles, PowerCut

GUID = bytes(range(16))
RENDEZVOUS = cbor.encode([[[5, cbor.encode("rendezvous.example")], [12, cbor.encode(1)], [3, cbor.encode(8080)]]])
PRODUCT = Product("CT-4711", "Example CT", StoreName.SOFTWARE, "", KeyAlgorithm.P_256, KeyEncoding.X509)
KEY = FdoPublicKey.make(new_key().public_key())


def header_for(key: PublicKey | None = None) -> VoucherHeader:
    """The header of a voucher that nothing is wrong with."""
    manufacturer = FdoPublicKey.make(key) if key else KEY
    return VoucherHeader.make(GUID, cbor.Raw(RENDEZVOUS), "Example CT", manufacturer, None)


GOOD_HEADER = cbor.encode([header_for().raw])
DONE = cbor.encode([])


@dataclass
class ScriptedManufacturer:
    """The way to a manufacturer.

    Args:
        set_credentials: Message 11.
        done: Message 13.
        before, after: Called with the number of each message of the device, before and after it arrives.
    """

    set_credentials: bytes = GOOD_HEADER
    done: bytes = DONE
    before: Callable[[MessageType], None] = lambda _: None
    after: Callable[[MessageType], None] = lambda _: None
    received: dict[MessageType, bytes] = field(default_factory=dict)
    reported: list[ErrorMessage] = field(default_factory=list)

    where = "the manufacturer"

    def exchange(self, number: MessageType, body: bytes) -> Received:
        self.before(number)
        self.received[number] = body
        self.after(number)
        return Received(number + 1, self.set_credentials if number is MessageType.DI_APP_START else self.done)

    def report(self, error: ErrorMessage) -> None:
        self.reported.append(error)

    def close(self) -> None:
        pass


class CutFiles(FailingFiles):
    """Without power from the operation with the given number on: nothing works any more."""

    def __init__(self, last: int, *, after: bool) -> None:
        super().__init__(last, PowerCut(), after=after)

    def _count(self, operation: Callable[[], None]) -> None:
        self._check_power()
        super()._count(operation)

    def read(self, path: Path, limit: int = 1 << 20, *, follow: bool = False) -> bytes:
        self._check_power()
        return super().read(path, limit, follow=follow)

    def exists(self, path: Path) -> bool:
        self._check_power()
        return super().exists(path)

    def _check_power(self) -> None:
        if self.left <= 0:
            raise PowerCut


class NewScanner:
    """A scanner on the factory line; a new one on the same folder is the process after a restart.

    Args:
        folder: Its state.
        settings: Its key stores.
        product: What it is.
        files: Reads and writes.
    """

    def __init__(
        self, folder: Path, settings: KeyStoreSettings, product: Product = PRODUCT, files: StateFiles | None = None
    ) -> None:
        self.files = files or StateFiles()
        self.directory = folder / "fdo"
        self.product = product
        self.stores = KeyStores(settings, folder, self.files)
        self.credentials = CredentialStore(self.directory, self.stores, self.files)

    def initialize(self, manufacturer: ScriptedManufacturer | None = None) -> DeviceCredential:
        """DI."""
        run = Initialization(self.product, self.stores, self.credentials, self.directory, self.files)
        return run.run(manufacturer or ScriptedManufacturer())

    def made(self) -> set[str]:
        """All keys and secrets that DI has made."""
        return {uri for uri in self.stores.list() if "fdo-" in uri}

    def assert_untouched(self) -> None:
        """Nothing of a run is left."""
        assert self.made() == set()
        assert (self.credentials.current(), self.credentials.pending()) == (None, None)
        assert not self.directory.exists() or list(self.directory.iterdir()) == []
