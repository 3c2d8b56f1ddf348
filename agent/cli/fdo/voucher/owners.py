"""`scanseal fdo voucher owners`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from agent.cli import exits
from agent.cli.fdo.voucher.reading import VerifiedVoucher, anchors_of, name_of, owner_record, voucher_argument
from agent.cli.options import json_option, show
from enroll.clock import SystemClock
from enroll.foreign import printable

_REMARK = """\
Each has signed who comes next. A name is what the one before wrote down; it is proved only where it says by whom.
A voucher begins anew with an owner who has onboarded the scanner, and that owner then stands here as manufacturer: who
came before stands in an earlier voucher. Only the scanner itself can tell that a voucher is its own."""


@click.command("owners", short_help="Who has owned this scanner?")
@voucher_argument
@click.option(
    "--anchor",
    "anchor_files",
    type=click.Path(path_type=Path),
    multiple=True,
    help="File (PEM or DER) with CA certificates that prove the names of owners. May be given several times.",
)
@json_option
def command(*, file: Path, anchor_files: Sequence[Path], as_json: bool) -> int:
    """Who has owned this scanner: its manufacturer, then each owner in turn, as far as this voucher goes back.

    That each named the next is proved by signatures. The names are not, unless their certificates lead to an --anchor;
    many owners are a key alone, which is known by its fingerprint.

    \b
    Exit code: 0 shown, 66 the voucher cannot be read, 78 it does not hold, or the file of --anchor cannot be used.

    \b
    Example: scanseal fdo voucher owners voucher.pem --anchor vendor-ca.pem --anchor hospital-ca.pem
    """
    verified, anchors, now = VerifiedVoucher.read(file), anchors_of(anchor_files), SystemClock().now()
    header, keys = verified.voucher.header, verified.owners.owners
    owners = [
        {"number": number, "role": _role(number, len(keys)), **owner_record(key, anchors, now)}
        for number, key in enumerate(keys)
    ]
    lines = [f"Device {printable(header.device_info) or 'without a name'}, GUID {header.guid.hex()}"]
    for owner in owners:
        lines.append(f"{owner['number']:>3}  {owner['role']}: {name_of(owner)}")
        lines.append(f"     {owner['key']}, fingerprint {owner['fingerprint']}")
    result = {"guid": header.guid.hex(), "device_info": header.device_info, "owners": owners, **verified.fingerprints}
    show(result, "\n".join([*lines, _REMARK]), as_json=as_json)
    return exits.OK


def _role(number: int, count: int) -> str:
    roles = ["manufacturer" if number == 0 else "owner", *(["owns it now"] if number == count - 1 else [])]
    return ", ".join(roles)
