"""`scanseal fdo voucher show`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from agent.cli import exits, options
from agent.cli.fdo.voucher import rendezvous_text
from agent.cli.fdo.voucher.reading import VerifiedVoucher, name_of, owner_record
from agent.cli.options import json_option, shown_name
from enroll.certificates import subject_text
from enroll.clock import SystemClock
from enroll.fdo.fault import Fault
from enroll.foreign import printable

_WIDTH = 21  # characters of a label


@click.command("show", short_help="Which device, whose, and the fingerprints for [fdo].")
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="FILE...")
@json_option
def command(*, files: Sequence[Path], as_json: bool) -> int:
    """Show which device a voucher is about, who made it, who owns it, and where the two look for each other.

    The fingerprints are those that [fdo] of scanseal.toml takes. That of the owner is of its key, and the same for all
    of its scanners; that of the voucher is for this scanner and this owner alone.

    Several vouchers are shown one after the other, with --json in a line each, up to the first that is refused.

    \b
    Exit code: 0 shown, 66 the file cannot be read, 78 it holds no voucher, or one that does not hold.

    \b
    Example: scanseal fdo voucher show voucher.pem
    """
    for number, file in enumerate(files):
        shown = {"file": str(file), **_record(VerifiedVoucher.read(file))}
        lines = [f"{'file':<{_WIDTH}}{shown_name(file)}", *_lines(shown)]
        options.show(shown, "\n".join([*([""] if number else []), *lines]), as_json=as_json)
    return exits.OK


def _record(verified: VerifiedVoucher) -> dict[str, Any]:
    header, now = verified.voucher.header, SystemClock().now()
    try:
        rendezvous = rendezvous_text.records(header.rendezvous)
    except Fault:
        rendezvous = None
    return {
        "guid": header.guid.hex(),
        "device_info": header.device_info,
        "manufacturer": owner_record(header.manufacturer, (), now),
        "entries": len(verified.voucher.entries),
        "owner": owner_record(verified.owners.owner, (), now),
        **verified.fingerprints,
        "rendezvous": rendezvous,
        "device_certificates": [subject_text(certificate) for certificate in verified.voucher.device_chain],
    }


def _lines(shown: dict[str, Any]) -> list[str]:
    rendezvous = shown["rendezvous"]
    if rendezvous is None:
        places = ["cannot be read"]
    else:
        places = [rendezvous_text.text(directive) for directive in rendezvous] or ["none"]
    rows = [
        ("device", f"{printable(shown['device_info']) or 'no name'}, GUID {shown['guid']}"),
        *_numbered("device certificate", shown["device_certificates"] or ["none"]),
        ("manufacturer", f"{name_of(shown['manufacturer'])}, {shown['manufacturer']['key']}"),
        ("changes of owner", str(shown["entries"])),
        ("owner now", f"{name_of(shown['owner'])}, {shown['owner']['key']}"),
        ("owner fingerprint", shown["owner_fingerprint"]),
        ("voucher fingerprint", shown["voucher_fingerprint"]),
        *_numbered("rendezvous", places),
    ]
    return [f"{label:<{_WIDTH}}{value}" for label, value in rows]


def _numbered(label: str, values: list[str]) -> list[tuple[str, str]]:
    if len(values) == 1:
        return [(label, values[0])]
    return [(f"{label} {number}", value) for number, value in enumerate(values, 1)]
