"""`scanseal fdo voucher verify`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click

from agent.cli import exits
from agent.cli.fdo.voucher.reading import (
    Certificates,
    VerifiedVoucher,
    anchors_of,
    kind_text,
    proved_by,
    voucher_argument,
)
from agent.cli.options import json_option, show, shown_name
from enroll.certificates import subject_text
from enroll.clock import SystemClock
from enroll.errors import CertificateRefused, VoucherRefused
from enroll.fdo.owner_policy import read_fingerprint

_ANCHORS = "File (PEM or DER) with {}. May be given several times."
_PASSED, _NOT_ASKED, _NEEDS_DEVICE = "passed", "not asked for", "needs the device"


@dataclass(frozen=True)
class _Check:
    """One check: its name, what came of it, and what that means."""

    check: str
    result: str
    what: str


@click.command("verify", short_help="Does a voucher hold, and is it the manufacturer's?")
@voucher_argument
@click.option(
    "--manufacturer-fingerprint",
    "fingerprints",
    multiple=True,
    help="SHA-256 fingerprint of the manufacturer's key, as it came on another way. May be given several times.",
)
@click.option(
    "--manufacturer-anchor",
    "manufacturer_anchors",
    type=click.Path(path_type=Path),
    multiple=True,
    help=_ANCHORS.format("CA certificates that the manufacturer's certificate has to lead to"),
)
@click.option(
    "--device-anchor",
    "device_anchors",
    type=click.Path(path_type=Path),
    multiple=True,
    help=_ANCHORS.format("CA certificates that the device's certificate has to lead to"),
)
@json_option
def command(
    *,
    file: Path,
    fingerprints: Sequence[str],
    manufacturer_anchors: Sequence[Path],
    device_anchors: Sequence[Path],
    as_json: bool,
) -> int:
    """Verify everything in a voucher that can be verified without the device, and say what cannot.

    Without an option that says who the manufacturer is, anybody may have made the voucher: all that is verified then is
    that its parts belong together. Of several fingerprints and anchors for the manufacturer one has to fit.

    \b
    Exit code: 0 it holds, and all that was asked for was found, 66 the voucher cannot be read, 78 it does not hold, its
               manufacturer or device is another one, or a fingerprint or a file of CA certificates cannot be used.

    \b
    Example: scanseal fdo voucher verify voucher.pem --manufacturer-anchor vendor-ca.pem
    """
    wanted = [read_fingerprint(fingerprint, "--manufacturer-fingerprint") for fingerprint in fingerprints]
    makers, devices = anchors_of(manufacturer_anchors), anchors_of(device_anchors)
    verified, now = VerifiedVoucher.read(file), SystemClock().now()
    checks = [
        *_of_the_voucher(verified),
        _manufacturer(verified, wanted, makers, now),
        _device(verified, devices, now),
        _Check(
            "hmac",
            _NEEDS_DEVICE,
            "only the device can tell that this is its voucher; it does when it is onboarded",
        ),
    ]
    lines = [
        f"{shown_name(file)} holds, as far as that can be told without the device:",
        *(f"  {check.check + ':':<21}{check.result}: {check.what}" for check in checks),
        f"  {'manufacturer key:':<21}{verified.voucher.header.manufacturer.fingerprint}",
        f"  {'owner fingerprint:':<21}{verified.owners.owner.fingerprint}",
        f"  {'voucher fingerprint:':<21}{verified.owners.fingerprint}",
    ]
    result = {"file": str(file), "holds": True, "checks": [vars(check) for check in checks], **verified.fingerprints}
    show(result, "\n".join(lines), as_json=as_json)
    return exits.OK


def _of_the_voucher(verified: VerifiedVoucher) -> list[_Check]:
    """What was verified when it was read."""
    voucher, owners = verified.voucher, verified.owners
    count, certificates = len(voucher.entries), len(voucher.device_chain)
    signed = f"{count}, each signed by the owner before, over all that stands before it, for this device"
    hashed = f"{certificates} of the device, those that the header speaks of"
    return [
        _Check("entries", _PASSED, signed if count else "none: the manufacturer still owns the device"),
        _Check("keys", _PASSED, f"all are {kind_text(owners.owner)}, as the manufacturer's"),
        _Check(
            "certificates",
            _PASSED,
            hashed if certificates else "none of the device, and none in the header either",
        ),
    ]


def _manufacturer(
    verified: VerifiedVoucher, fingerprints: Sequence[str], anchors: Certificates, now: datetime
) -> _Check:
    manufacturer = verified.voucher.header.manufacturer
    if not (fingerprints or anchors):
        what = "anybody may have made it; give --manufacturer-fingerprint or --manufacturer-anchor"
        return _Check("manufacturer", _NOT_ASKED, what)
    if manufacturer.fingerprint in fingerprints:
        return _Check("manufacturer", _PASSED, f"it has the fingerprint {manufacturer.fingerprint}")
    reason = "" if manufacturer.chain or not anchors else " It is named by a key alone, which leads to no anchor."
    try:
        if path := proved_by(manufacturer.chain, anchors, now):
            named = f"{subject_text(path[0])} leads to {subject_text(path[-1])}"
            return _Check("manufacturer", _PASSED, named)
    except CertificateRefused as error:
        reason = f" {error.what}"
    raise VoucherRefused(
        f"The manufacturer of the voucher, with the fingerprint {manufacturer.fingerprint}, is not one of those that "
        f"were named.{reason}",
        remedy="Ask the vendor which key or CA its vouchers begin with; one that an owner made begins with its own.",
        code="voucher-manufacturer-unknown",
    )


def _device(verified: VerifiedVoucher, anchors: Certificates, now: datetime) -> _Check:
    chain = verified.voucher.device_chain
    if not anchors:
        what = "give --device-anchor" if chain else "the voucher has no certificate of the device"
        return _Check("device", _NOT_ASKED, what)
    reason = "" if chain else " The voucher has none."
    try:
        if path := proved_by(chain, anchors, now):
            return _Check("device", _PASSED, f"{subject_text(path[0])} leads to {subject_text(path[-1])}")
    except CertificateRefused as error:
        reason = f" {error.what}"
    raise VoucherRefused(
        f"The certificate of the device does not lead to an anchor that was named.{reason}",
        remedy="Ask the vendor for the CA that certifies its devices in the factory.",
        code="voucher-device-unknown",
    )
