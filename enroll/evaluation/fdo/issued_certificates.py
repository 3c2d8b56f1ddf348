"""What devices have been given, so that it can be renewed. NOT FOR PRODUCTION.

certificates/<SHA-256 of the serial number>.pem     the newest one of a device
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from enroll.certificates import pem, read_certificates
from enroll.statefile import StateFiles


@dataclass(frozen=True)
class IssuedCertificates:
    """The newest certificate of each device.

    Args:
        directory: Where they are kept.
        files: Reads and writes.
    """

    directory: Path
    files: StateFiles

    def of(self, serial_number: str) -> x509.Certificate | None:
        """That of a device; None where it has none.

        Raises:
            StateError: It is damaged.
        """
        path = self._path(serial_number)
        return read_certificates(path, self.files)[0] if self.files.exists(path) else None

    def keep(self, serial_number: str, certificate: x509.Certificate) -> None:
        """Put it in the place of the one before.

        Raises:
            StateError: The disk refused.
        """
        self.files.make_directory(self.directory)
        self.files.write(self._path(serial_number), pem([certificate]))

    def _path(self, serial_number: str) -> Path:
        return self.directory / f"{hashlib.sha256(serial_number.encode('utf-8')).hexdigest()}.pem"
