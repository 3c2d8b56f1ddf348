"""Requests that a person approves (RFC 7030 4.2.3): the operator of the evaluation CA. NOT FOR PRODUCTION.

    waiting/<name>.pem      a request, to look at
    approved/<name>         the operator makes it, empty, and the next time the device asks, it gets its certificate

The name is that of the key: a device that proves its possession anew on each connection (3.5) asks with the same key
and another request.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enroll.certificates import public_key_info
from enroll.errors import EnrollmentRefused
from enroll.statefile import StateFiles

WAITING_LIMIT = 64


class Approvals:
    """What waits, and what has been approved.

    Args:
        directory: Of the CA.
        files: Reads and writes it.
    """

    def __init__(self, directory: Path, files: StateFiles) -> None:
        self._waiting = directory / "waiting"
        self._approved = directory / "approved"
        self._files = files

    def is_approved(self, request: x509.CertificateSigningRequest) -> bool:
        """Whether it has been approved; if not, it waits from now on.

        Raises:
            EnrollmentRefused: Too many wait already.
        """
        name = _name(request)
        waiting = self._waiting / f"{name}.pem"
        if self._files.exists(self._approved / name):
            self._files.remove(waiting)
            return True
        if not self._files.exists(waiting):
            if len(self.waiting()) >= WAITING_LIMIT:
                raise EnrollmentRefused(
                    "Too many requests wait for approval.", remedy=f"Approve or remove those in {self._waiting}."
                )
            for directory in (self._waiting, self._approved):
                self._files.make_directory(directory)
            self._files.write(waiting, request.public_bytes(serialization.Encoding.PEM))
        return False

    def waiting(self) -> list[str]:
        """The names of all that wait."""
        return [name.removesuffix(".pem") for name in self._files.names(self._waiting) if name.endswith(".pem")]

    def approve(self, name: str) -> None:
        """Do what the operator does."""
        self._files.write(self._approved / name, b"")

    def how_to_approve(self, request: x509.CertificateSigningRequest) -> str:
        """The command for it."""
        return f"touch {self._approved / _name(request)}"


def _name(request: x509.CertificateSigningRequest) -> str:
    return hashlib.sha256(public_key_info(request.public_key())).hexdigest()[:16]
