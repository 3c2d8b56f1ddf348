"""The keys of a manufacturer or an owner, one of each kind that devices need. NOT FOR PRODUCTION: unencrypted.

root.pem root.key                    a CA of its own, which devices may pin
P-256.pem P-256.key, ...             certificates below it, with the root, and their keys
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from enroll.certificates import pem, public_key_info, read_certificates
from enroll.clock import Clock
from enroll.csr import DIGITAL_SIGNATURE
from enroll.evaluation.authority import ROOT_LIFETIME, Authority, certificate_builder, create_authority
from enroll.evaluation.key_file import read_key, write_key
from enroll.fdo.fault import ErrorCode, Fault
from enroll.fdo.public_key import FdoPublicKey, KeyEncoding, KeyType
from enroll.keystore.base import PrivateKey, PublicKey
from enroll.statefile import StateFiles

_MAKERS: dict[str, Callable[[], PrivateKey]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA-2048": lambda: rsa.generate_private_key(65537, 2048),
    "RSA-3072": lambda: rsa.generate_private_key(65537, _LONG),
}
_CURVES = {KeyType.SECP256R1: "P-256", KeyType.SECP384R1: "P-384"}
_LONG = 3072  # bits


@dataclass(frozen=True)
class PartyKey:
    """One key.

    Args:
        key: It.
        chain: Its certificate and those above.
    """

    key: PrivateKey = field(repr=False)
    chain: tuple[x509.Certificate, ...]

    def public(self, kind: KeyType, encoding: KeyEncoding) -> FdoPublicKey:
        """How others get it.

        Raises:
            Fault: This kind of key is not written so.
        """
        key = self.chain if encoding is KeyEncoding.X5CHAIN else self.key.public_key()
        return FdoPublicKey.make(key, encoding, kind)


class PartyKeys:
    """The keys of one party.

    Those for elliptic curves are made at once, for others to make vouchers out to; those for RSA when a device needs
    them.

    Args:
        directory: Where they lie.
        name: Of the party, for its certificates.
        clock: Dates those.
        files: Reads and writes.

    Raises:
        StateError: The files cannot be written, or are damaged.
    """

    def __init__(self, directory: Path, name: str, clock: Clock, files: StateFiles) -> None:
        self._directory, self._name, self._clock, self._files = directory, name, clock, files
        self._guard = threading.Lock()
        self._opened: dict[str, PartyKey] = {}
        files.make_directory(directory)
        if not files.exists(directory / "root.pem"):
            create_authority(directory / "root", _name(name, "root"), 0, now=clock.now(), files=files)
        self._root = Authority(directory / "root", files)
        for kind in (KeyType.SECP256R1, KeyType.SECP384R1):
            self._key(_CURVES[kind])

    def of_kind(self, kind: KeyType, beside: PublicKey) -> PartyKey:
        """The key of a kind, and as long as `beside` where both are RSA.

        Raises:
            StateError: It cannot be written, or is damaged.
        """
        if kind in _CURVES:
            return self._key(_CURVES[kind])
        is_long = kind is not KeyType.RSA_2048_RESTRICTED and beside.key_size == _LONG
        return self._key("RSA-3072" if is_long else "RSA-2048")

    def successor(self, owner: FdoPublicKey) -> FdoPublicKey:
        """The key of this party that can follow on `owner` in a voucher, written in the same way; raises as above."""
        return self.of_kind(owner.kind, owner.key).public(owner.kind, owner.encoding)

    def owning(self, owner: FdoPublicKey) -> PartyKey:
        """The key that a voucher names.

        Raises:
            Fault: It is not one of this party.
            StateError: One is damaged.
        """
        wanted = public_key_info(owner.key)
        for name in _MAKERS:
            if self._files.exists(self._directory / f"{name}.pem"):
                key = self._key(name)
                if public_key_info(key.key.public_key()) == wanted:
                    return key
        raise Fault("The voucher belongs to somebody else.", ErrorCode.INVALID_VOUCHER)

    def _key(self, name: str) -> PartyKey:
        """The key of this name; made where it is missing."""
        with self._guard:
            if name not in self._opened:
                self._opened[name] = self._open(name)
            return self._opened[name]

    def _open(self, name: str) -> PartyKey:
        certificate_file, key_file = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        if not self._files.exists(certificate_file):
            key = _MAKERS[name]()
            certificates = _certified(key, _name(self._name, name), self._root, self._clock.now())
            write_key(key_file, key, self._files)
            self._files.write(certificate_file, pem(certificates), 0o644)
        return PartyKey(read_key(key_file, self._files), read_certificates(certificate_file, self._files))


def _certified(
    key: PrivateKey, subject: x509.Name, root: Authority, now: datetime
) -> tuple[x509.Certificate, x509.Certificate]:
    builder = certificate_builder(subject, key.public_key(), now, ROOT_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    return root.sign(builder.add_extension(DIGITAL_SIGNATURE, critical=True)), root.certificate


def _name(party: str, unit: str) -> x509.Name:
    names = ((NameOID.ORGANIZATIONAL_UNIT_NAME, unit), (NameOID.COMMON_NAME, party))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in names])
