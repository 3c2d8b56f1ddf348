"""`scanseal fdo voucher extend`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import click
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from agent.cli import exits
from agent.cli.fdo.voucher.reading import VerifiedVoucher, content, name_of, owner_record, voucher_argument
from agent.cli.options import json_option, show, shown_name, written_whole
from agent.daemon.hardening import protect_memory
from agent.errors import OutputFileError
from enroll.armour import read_blocks
from enroll.certificates import PARSE_ERRORS, public_key_info
from enroll.clock import SystemClock
from enroll.errors import ConfigurationError, VoucherRefused
from enroll.fdo.fault import Fault
from enroll.fdo.voucher import ENTRIES_LIMIT, Voucher
from enroll.keystore.base import KEY_PARSE_ERRORS, PrivateKey, PublicKey
from enroll.statefile import StateFiles
from enroll.vendor.pkcs12 import read_passphrase

_FILE_LIMIT = 128 * 1024  # bytes of a key or of certificates
_PRESENT_OWNER = "the present owner"
_NOTHING_WRITTEN = "Nothing was written."
_A_CA = """\
Warning: the certificate of the next owner is that of a CA, signed by itself. Ask the next owner whether its owner
server really has the key of that."""
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)
_NextOwner = PublicKey | tuple[x509.Certificate, ...]


@click.command("extend", short_help="Pass a scanner on to its next owner.")
@voucher_argument
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path),
    required=True,
    help="File with the private key of the present owner: PEM, PKCS#8.",
)
@click.option("--passphrase-file", type=click.Path(path_type=Path), help="File that holds the passphrase of that key.")
@click.option(
    "--to",
    "next_owner",
    type=click.Path(path_type=Path),
    required=True,
    help="File of the next owner, in PEM: its certificate and those above it, in this order; or its public key. "
    "A CA is no owner.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="File for the voucher of the next owner, in PEM."
)
@click.option(
    "--force", is_flag=True, help="Replace the file that is there already; never one of the files that are read."
)
@json_option
def command(  # noqa: PLR0913 - one for each option
    *,
    file: Path,
    key_file: Path,
    passphrase_file: Path | None,
    next_owner: Path,
    output: Path,
    force: bool,
    as_json: bool,
) -> int:
    """Pass a scanner on: write a voucher that names its next owner, signed by the present one.

    The present owner is the last one in the voucher, the manufacturer where there is no other. The next owner is
    written down as the manufacturer is, with its certificates or as a key alone, and has a key of the same kind. Who
    has the new voucher, and the key that it names, can take the scanner over once it is released: scanseal owner
    release. The present owner itself is no next owner.

    \b
    Exit code: 0 written, 66 a file cannot be read, 73 the output cannot be written, 78 the voucher does not hold or is
               full, the key is not that of its owner, the next owner is the present one, is a CA, or has another kind
               of key, or a file of keys or certificates cannot be used.

    \b
    Example: scanseal fdo voucher extend voucher.pem --key our-key.pem --passphrase-file passphrase \\
             --to their-certificate.pem --output voucher-for-them.pem
    """
    protect_memory()
    _check_output(output, (file, key_file, next_owner), force=force)
    verified = VerifiedVoucher.read(file)
    following = _read_next_owner(next_owner)
    key = _read_key(key_file, passphrase_file)
    extended = _extended(verified, key, following)
    _write(output, extended.pem)
    is_ca = isinstance(following, tuple) and _is_ca(following[0])
    _show(VerifiedVoucher(extended, extended.verify()), output, _A_CA if is_ca else "", as_json=as_json)
    return exits.OK


def _write(output: Path, content: bytes) -> None:
    try:
        with written_whole(output) as written:
            written.write(content)
    except OutputFileError as error:
        raise OutputFileError(error.what, remedy=error.remedy, what_next=_NOTHING_WRITTEN) from error


def _show(extended: VerifiedVoucher, output: Path, warning: str, *, as_json: bool) -> None:
    owner = owner_record(extended.owners.owner, (), SystemClock().now())
    guid = extended.voucher.header.guid.hex()
    lines = [
        f"{shown_name(output)} names the next owner: {name_of(owner)}, {owner['key']}",
        f"for GUID {guid}: compare with scanseal status on the scanner",
        f"owner fingerprint    {extended.owners.owner.fingerprint}",
        f"voucher fingerprint  {extended.owners.fingerprint}",
        "Give it to the next owner, and these fingerprints on another way.",
        *filter(None, [warning]),
    ]
    facts = {"file": str(output), "guid": guid, "entries": len(extended.voucher.entries), "owner": owner}
    result = {**facts, **extended.fingerprints, "warning": warning}
    show(result, "\n".join(lines), as_json=as_json)


def _check_output(output: Path, inputs: Sequence[Path], *, force: bool) -> None:
    """Keep what is there already.

    Raises:
        OutputFileError: Something is, and must not be replaced.
    """
    if not output.exists():
        return
    if any(path.exists() and output.samefile(path) for path in inputs):
        raise OutputFileError(
            f"{shown_name(output)} is one of the files that are read.",
            remedy="Choose another place.",
            what_next=_NOTHING_WRITTEN,
        )
    if not force:
        raise OutputFileError(
            f"{shown_name(output)} exists.",
            remedy="Choose another place, or replace it with --force.",
            what_next=_NOTHING_WRITTEN,
        )


def _extended(verified: VerifiedVoucher, key: PrivateKey, following: _NextOwner) -> Voucher:
    """The voucher with one entry more.

    Raises:
        VoucherRefused: It cannot be passed on like this.
    """
    voucher, owner = verified.voucher, verified.owners.owner
    if len(voucher.entries) == ENTRIES_LIMIT:
        raise VoucherRefused(
            f"The voucher has {ENTRIES_LIMIT} entries, and no more fit.",
            remedy="Let its owner onboard the scanner: the voucher that comes of that begins anew.",
            code="voucher-full",
            who_must_act=_PRESENT_OWNER,
        )
    if public_key_info(key.public_key()) != public_key_info(owner.key):
        raise VoucherRefused(
            f"The key is not that of the present owner, whose fingerprint is {owner.fingerprint}.",
            remedy="Name the key of the present owner; another one cannot pass the scanner on.",
            code="voucher-of-another-owner",
            who_must_act=_PRESENT_OWNER,
        )
    try:
        named = voucher.name_owner(following)
        if public_key_info(named.key) != public_key_info(owner.key):
            return voucher.extend(key, named)
    except Fault as error:
        raise VoucherRefused(
            f"The voucher cannot be passed on to this owner. {error.what}",
            remedy="Ask the next owner for another key or certificate.",
            code="voucher-next-owner-unsuitable",
            who_must_act="the next owner",
        ) from error
    raise VoucherRefused(
        "The next owner's key is the present owner's own.",
        remedy="Name the certificate or public key that the next owner gave you: --to",
        code="voucher-next-owner-unsuitable",
        who_must_act=_PRESENT_OWNER,
    )


def _read_key(path: Path, passphrase_file: Path | None) -> PrivateKey:
    """The key of the present owner; no message says more of it than that it cannot be used.

    Raises:
        InputFileError: It cannot be read.
        ConfigurationError: It is none, or does not open with this passphrase.
    """
    data = content(path, _FILE_LIMIT, "Name the file with the private key of the present owner.")
    passphrase = None
    if passphrase_file is not None:
        passphrase = read_passphrase(passphrase_file, "--passphrase-file", StateFiles())
    try:
        key = serialization.load_pem_private_key(data, passphrase)
    except TypeError as error:
        said = "needs a passphrase" if passphrase is None else "has no passphrase, and one was given"
        remedy = "Name a file that holds it with --passphrase-file." if passphrase is None else "Give none."
        raise _unusable(path, said, remedy) from error
    except KEY_PARSE_ERRORS as error:
        raise _unusable(path, "holds no private key, or another passphrase opens it", "Compare both.") from error
    if not isinstance(key, PrivateKey):
        raise _unusable(path, "holds a key of a kind that owners do not have", "Name an RSA or elliptic curve key.")
    return key


def _read_next_owner(path: Path) -> _NextOwner:
    """The certificate of the next owner and those above it, or its public key.

    Raises:
        InputFileError: It cannot be read.
        ConfigurationError: It is none of the two.
    """
    remedy = "Put the certificate of the next owner there and those above it, in this order; or its public key. PEM."
    try:
        blocks = read_blocks(content(path, _FILE_LIMIT, "Name the file of the next owner."))
        labels = {block.label for block in blocks}
        if labels == {"CERTIFICATE"}:
            return _in_order(path, tuple(x509.load_der_x509_certificate(block.content) for block in blocks))
        if labels == {"PUBLIC KEY"} and len(blocks) == 1:
            key = serialization.load_der_public_key(blocks[0].content)
            if isinstance(key, PublicKey):
                return key
    except PARSE_ERRORS as error:
        raise _unusable(path, "holds something that is damaged", remedy) from error
    if any(label.endswith("PRIVATE KEY") for label in labels):
        raise _unusable(path, "holds a private key, which nobody but its owner may have", remedy)
    raise _unusable(path, "holds neither certificates nor one public key of the kinds that owners have", remedy)


def _in_order(path: Path, chain: tuple[x509.Certificate, ...]) -> tuple[x509.Certificate, ...]:
    """Whether each certificate was issued by the next one: FDO 1.1, 3.3.4, X5CHAIN."""
    for certificate, issuer in pairwise(chain):
        if certificate.issuer != issuer.subject:
            remedy = "Put the certificate of the next owner first, then the one that issued it, and so on."
            raise _unusable(path, "holds certificates that are not in their order", remedy)
    if _is_ca(chain[0]) and not _may_be_self_signed_owner(chain[0]):
        remedy = "Put the certificate of the next owner first, and that of its CA after it."
        raise _unusable(path, "begins with the certificate of a CA, and a CA is no owner", remedy)
    return chain


def _is_ca(certificate: x509.Certificate) -> bool:
    """RFC 5280 4.2.1.9."""
    constraints = _extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def _may_be_self_signed_owner(certificate: x509.Certificate) -> bool:
    """Tools that sign a certificate by itself often say that it is a CA; its key has to sign (RFC 5280 4.2.1.3)."""
    usage = _extension(certificate, x509.KeyUsage)
    return certificate.issuer == certificate.subject and (usage is None or usage.digital_signature)


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _unusable(path: Path, what: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"{shown_name(path)} {what}.", remedy=remedy)
