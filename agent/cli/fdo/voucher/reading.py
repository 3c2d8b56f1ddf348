"""Vouchers and what is compared with them, read from files that other people made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from agent.cli.options import shown_name
from agent.errors import InputFileError
from enroll.certificates import subject_text
from enroll.errors import CertificateRefused, StateError, VoucherRefused
from enroll.fdo.fault import Fault
from enroll.fdo.public_key import FdoPublicKey, KeyType
from enroll.fdo.voucher import FILE_LIMIT, OwnerChain, Voucher
from enroll.statefile import StateFiles
from enroll.trust import read_ca_certificates, verify_chain

Certificates = tuple[x509.Certificate, ...]


def _the_only(_: click.Context, __: click.Parameter, files: Sequence[Path]) -> Path:
    if len(files) > 1:
        raise click.UsageError(
            f"There are {len(files)} files. Name one of them; scanseal fdo voucher show tells which scanner each is "
            "about."
        )
    return files[0]


# More than one are taken to say what to do then: a shell makes several of vouchers/*.pem.
voucher_argument = click.argument(
    "file", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="FILE", callback=_the_only
)


@dataclass(frozen=True)
class VerifiedVoucher:
    """A voucher that holds, and the chain of its owners."""

    voucher: Voucher
    owners: OwnerChain

    @classmethod
    def read(cls, path: Path) -> VerifiedVoucher:
        """The voucher in a file, after everything in it was verified that needs nothing else.

        Raises:
            InputFileError: The file cannot be read, or is too large.
            VoucherRefused: It holds no voucher, or one that does not hold.
        """
        data = content(path, FILE_LIMIT, "Name the file of an ownership voucher.")
        try:
            voucher = Voucher.read(data)
        except Fault as error:
            raise VoucherRefused(
                f"{shown_name(path)} holds no ownership voucher. {error.what}",
                remedy="Was it damaged or cut off? Ask for it again, as PEM (OWNERSHIP VOUCHER) or CBOR of FDO 1.1.",
                code="voucher-malformed",
            ) from error
        try:
            return cls(voucher, voucher.verify())
        except Fault as error:
            raise VoucherRefused(
                f"The voucher in {shown_name(path)} does not hold. {error.what}",
                remedy="Do not rely on it: it was changed, or is not what it says. Ask who gave it for the original.",
                code="voucher-broken",
            ) from error

    @property
    def fingerprints(self) -> dict[str, str]:
        """As [fdo] takes them."""
        return {"owner_fingerprint": self.owners.owner.fingerprint, "voucher_fingerprint": self.owners.fingerprint}


def content(path: Path, limit: int, remedy: str) -> bytes:
    """What is in a file, bounded.

    Raises:
        InputFileError: It cannot be read, or is larger.
    """
    try:
        return StateFiles().read(path, limit, follow=True)
    except StateError as error:
        raise InputFileError(error.what, remedy=remedy, what_next="Nothing was changed.") from error


def anchors_of(files: Sequence[Path]) -> Certificates:
    """The CA certificates of several files.

    Raises:
        ConfigurationError: One of the files cannot be read, or holds none.
    """
    return tuple(anchor for file in files for anchor in read_ca_certificates(file, StateFiles()))


def proved_by(chain: Certificates, anchors: Certificates, now: datetime) -> Certificates:
    """The path from the first certificate of a chain to one of the anchors; empty where there is no chain or anchor.

    Raises:
        CertificateRefused: It leads to none of them, or not now.
    """
    return verify_chain(chain[0], chain[1:], anchors, now) if chain and anchors else ()


def kind_text(key: FdoPublicKey) -> str:
    """What a key is, for people."""
    if isinstance(key.key, ec.EllipticCurvePublicKey):
        return "P-256" if key.kind is KeyType.SECP256R1 else "P-384"
    return f"RSA-{key.key.key_size}" + (" (PSS)" if key.kind is KeyType.RSA_PSS else "")


def owner_record(key: FdoPublicKey, anchors: Certificates, now: datetime) -> dict[str, Any]:
    """Who is behind a key, for programs. `name` is null where it has no certificate.

    Args:
        key: Of the manufacturer or an owner.
        anchors: CA certificates whose word counts.
        now: When.
    """
    try:
        path = proved_by(key.chain, anchors, now)
    except CertificateRefused:
        path = ()
    return {
        "name": subject_text(key.chain[0]) if key.chain else None,
        "proved": bool(path),
        "proved_by": subject_text(path[-1]) if path else None,
        "key": kind_text(key),
        "type": key.kind.name,
        "encoding": key.encoding.name,
        "fingerprint": key.fingerprint,
    }


def name_of(record: dict[str, Any]) -> str:
    """The same for people: the name, and what it is worth."""
    if record["name"] is None:
        return "no name: a key alone"
    worth = f"proved by {record['proved_by']}" if record["proved"] else "claimed, not proved"
    return f"{record['name']} ({worth})"
