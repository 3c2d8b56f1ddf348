"""Where an owner keeps its vouchers. NOT FOR PRODUCTION.

<guid>.pem       one voucher; the GUID in 32 hexadecimal digits
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from enroll.certificates import PARSE_ERRORS
from enroll.errors import StateError
from enroll.fdo.fault import ErrorCode, Fault
from enroll.fdo.public_key import SignatureType, key_types, signature_type
from enroll.fdo.voucher import VOUCHER_LIMIT, Voucher
from enroll.keystore.base import PublicKey
from enroll.record import damaged
from enroll.statefile import StateFiles

_SUFFIX = ".pem"
_LOG = logging.getLogger(__name__)


class Vouchers:
    """The vouchers of an owner, in files named by the GUID of their device, so that others can be put beside them.

    Args:
        directory: Where they lie.
        files: Reads and writes.

    Raises:
        StateError: The directory cannot be made.
    """

    def __init__(self, directory: Path, files: StateFiles) -> None:
        files.make_directory(directory)
        self._directory = directory
        self._files = files
        self._guard = threading.Lock()

    def has(self, guid: bytes) -> bool:
        """Whether there is one of a device.

        Raises:
            StateError: That cannot be found out.
        """
        return self._files.exists(self._path(guid))

    def find(self, guid: bytes) -> Voucher:
        """That of a device.

        Raises:
            Fault: There is none (NOT_FOUND).
            StateError: It is damaged.
        """
        if not self.has(guid):
            raise Fault("There is no voucher of this device here.", ErrorCode.NOT_FOUND)
        return self._read(self._path(guid))

    def all(self) -> Sequence[Voucher]:
        """All but those that are damaged; a warning names these.

        Raises:
            StateError: The directory cannot be read.
        """
        found = []
        with self._guard:
            for name in sorted(self._files.names(self._directory)):
                try:
                    if name.endswith(_SUFFIX):
                        found.append(self._read(self._directory / name))
                except StateError as error:
                    _LOG.warning("%s", error.what)
        return tuple(found)

    def add(self, voucher: Voucher) -> None:
        """Keep one.

        Raises:
            StateError: The disk refused.
        """
        self._files.write(self._path(voucher.header.guid), voucher.pem)

    def replace(self, guid: bytes, voucher: Voucher) -> None:
        """Keep one in place of another, which is on the disk until then.

        After a power cut in between both are there, and the device may come back as either.

        Raises:
            Fault: The other is gone already (NOT_FOUND).
            StateError: The disk refused.
        """
        with self._guard:
            self.find(guid)
            self.add(voucher)
            self._files.remove(self._path(guid))

    def remove(self, guid: bytes) -> Voucher:
        """Give one away; raises as `find`."""
        with self._guard:
            voucher = self.find(guid)
            self._files.remove(self._path(guid))
            return voucher

    def _path(self, guid: bytes) -> Path:
        return self._directory / f"{guid.hex()}{_SUFFIX}"

    def _read(self, path: Path) -> Voucher:
        try:
            return Voucher.read(self._files.read(path, VOUCHER_LIMIT))
        except Fault as error:
            raise damaged(path) from error


def device_key(voucher: Voucher) -> PublicKey:
    """The key of a device, after each of its certificates was found to be signed by the next one.

    Whether the last one may certify devices is for whoever takes the voucher.

    Raises:
        Fault: There are none, or they are not signed so.
    """
    chain = voucher.device_chain
    try:
        for certificate, issuer in pairwise(chain):
            certificate.verify_directly_issued_by(issuer)
        key = chain[0].public_key() if chain else None
    except (InvalidSignature, *PARSE_ERRORS) as error:
        raise _unusable() from error
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise _unusable()
    return key


def check_signature_type(kind: SignatureType, key: PublicKey) -> None:
    """Whether a device with this key signs so.

    Raises:
        Fault: It does not.
    """
    if kind not in {signature_type(key, each) for each in key_types(key)}:
        raise Fault("The key of this device does not sign in the way that it says.")


def _unusable() -> Fault:
    return Fault("The certificates of the device in its voucher do not hold.", ErrorCode.INVALID_VOUCHER)
