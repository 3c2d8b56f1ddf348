"""A scanner that its factory has delivered, whose voucher leads to the port of a `HostileServer`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.config import EnrollSettings, StoreName
from enroll.enroller import Enroller
from enroll.errors import ScansealError
from enroll.fdo import cbor
from enroll.fdo.credential import CredentialStore, DeviceCredential
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.public_key import FdoPublicKey
from enroll.flows.base import Pending
from enroll.flows.settings import FlowName
from enroll.identity import Generation, IdentityName
from tests.support.enrolling import Scanner
from tests.support.fdo import reference_codec as codec
from tests.support.fdo.hostile_stage import HOST, Keys, MovedClock, Stage
from tests.support.fdo.scanner import FdoScanner
from tests.support.fdo.scripted_owner import ScriptedDevice, public_key, rendezvous

DEVICE: Final = IdentityName.DEVICE
TIMEOUT: Final = 1  # second, for one exchange
PASSPHRASE: Final = b"a passphrase"  # see tests.support.enrolling
Ended = Generation | Pending | ScansealError


class HostileScanner(FdoScanner):
    """A scanner with a clock that can be moved."""

    def __init__(self, folder: Path, clock: MovedClock, **fdo: Any) -> None:
        self.clock = clock
        super().__init__(folder, **{"timeout": TIMEOUT, **fdo})
        self.folder = folder

    def _take(self, changed: EnrollSettings) -> None:
        self.scanner = Scanner(changed, (), self.clock)
        self.directory = changed.state_directory / "fdo"
        self.credentials = CredentialStore(self.directory, self.scanner.stores, self.scanner.files)

    def run(self) -> Ended:
        """One run of the enroller, as after a restart; whatever was to be waited for is over."""
        self.wait()
        try:
            with Enroller(self.scanner.restarted().context) as enroller:
                answer = enroller.enroll(DEVICE, FlowName.FDO)
        except ScansealError as error:
            return error
        assert isinstance(answer, Generation | Pending)
        return answer

    @property
    def state(self) -> dict[str, bytes]:
        """All that it keeps, but for the diaries of what was tried."""
        root = self.scanner.settings.state_directory
        kept = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in kept.items()}


@dataclass(frozen=True)
class Customer:
    """A scanner on the disk, and whom it should meet.

    Args:
        folder: All that it has.
        stage: The right servers for its next run; nothing has happened there yet.
    """

    folder: Path
    stage: Stage

    @classmethod
    def delivered(cls, folder: Path, port: int, keys: Keys) -> Customer:
        """From the factory."""
        scanner = HostileScanner(folder, MovedClock())
        stores = scanner.scanner.stores
        key_uri = stores.generate(StoreName.SOFTWARE, "fdo-key", KeyAlgorithm.P_256)
        secret_uri = stores.generate_secret(StoreName.SOFTWARE, "fdo-secret", HmacAlgorithm.SHA256)
        device = ScriptedDevice(
            _opened(folder, "fdo-key"), secret=_secret(folder, "fdo-secret"), rendezvous=rendezvous(HOST, port)
        )
        manufacturer = FdoPublicKey.read(cbor.read(codec.write(public_key(keys.manufacturer.public_key()))))
        credential = DeviceCredential(
            device.guid,
            cbor.Raw(codec.write(device.rendezvous)),
            device.device_info,
            Hash.of(HashAlgorithm.SHA256, manufacturer.raw),
            manufacturer.kind,
            None,
            key_uri,
            secret_uri,
            HashAlgorithm.HMAC_SHA256,
        )
        scanner.credentials.commit(credential)
        return cls(folder, Stage.new(device, keys, port))

    def copied(self, folder: Path) -> Customer:
        """The same scanner with another disk, and with servers of its own."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return replace(self, folder=folder, stage=self.stage.again())


def _secret(folder: Path, name: str) -> bytes:
    container = _read(folder, name)
    assert isinstance(container, x25519.X25519PrivateKey)
    return container.private_bytes_raw()


def _opened(folder: Path, name: str) -> ec.EllipticCurvePrivateKey:
    key = _read(folder, name)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _read(folder: Path, name: str) -> Any:
    (path,) = folder.rglob(f"{name}.pem")
    return load_pem_private_key(path.read_bytes(), PASSPHRASE)
