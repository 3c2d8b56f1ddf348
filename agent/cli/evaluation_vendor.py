"""`scanseal evaluation-vendor`."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import click

from agent.cli.options import json_option, show
from enroll.clock import SystemClock
from enroll.errors import ConfigurationError, EvidenceRefused, StateError
from enroll.evaluation.vendor_ca import VendorCa
from enroll.evaluation.vendor_server import LABEL, VendorServer
from enroll.identity import IdentityName
from enroll.keystore.secretfile import read_secret
from enroll.offline_request import FILE_LIMIT, check_proof, read_offline_request
from enroll.statefile import StateFiles
from enroll.trust import read_ca_certificates
from enroll.vendor.case import normalized
from enroll.vendor.ticket import IDENTITIES, LONGEST_LIFETIME

BANNER = """\
Evaluation vendor. NOT FOR PRODUCTION: its keys lie unencrypted in {directory}, and it never revokes.
For [vendor] of scanseal.toml:

  url             {url}
  label           {label}
  anchor_file     {anchor}

Stop with Ctrl-C."""

_UNPROVED = {"offline-request-unproved", "offline-request-untrusted"}

directory_option = click.option(
    "--directory",
    type=click.Path(path_type=Path),
    required=True,
    help="Where the vendor keeps its files; they are made at the first use.",
)
output_option = click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="The file that is written; one that is there is replaced.",
)


@click.group("evaluation-vendor")
def command() -> None:
    """Play the vendor of scanners on this machine, for trying out. NOT FOR PRODUCTION.

    \b
    An answer to a request that was carried: scanseal evaluation-vendor answer --directory ./vendor REQUEST ...
    Its provisioning service:                scanseal evaluation-vendor serve --directory ./vendor
    A service ticket for a device:           scanseal evaluation-vendor ticket --directory ./vendor --serial-number ...
    A certificate for all of its devices:    scanseal evaluation-vendor vendor-wide --directory ./vendor ...
    """


@command.command("serve")
@directory_option
@click.option("--port", type=click.IntRange(0, 65535), default=8444, show_default=True, help="0 takes a free port.")
@json_option
def serve(directory: Path, port: int, *, as_json: bool) -> None:
    """Run the provisioning service: EST over TLS on 127.0.0.1, for who has a service ticket.

    With --json it prints one line that says where, as soon as it listens.
    """
    ca = _vendor(directory)
    try:
        server = VendorServer(ca, ("127.0.0.1", port), log=lambda line: click.echo(line, err=True))
    except OSError as error:
        what = f"Port {port} cannot be used: {error.strerror}."
        raise ConfigurationError(what, remedy="Choose another one with --port, or 0 for any.") from error
    facts = {"directory": str(ca.directory), "url": server.url, "label": LABEL, "anchor": str(ca.anchor_file)}
    show({"not_for_production": True, **facts}, BANNER.format(**facts), as_json=as_json)
    sys.stdout.flush()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)


@command.command("ticket")
@directory_option
@click.option("--serial-number", required=True, help="Of the device.")
@click.option(
    "--identity",
    "identities",
    type=click.Choice(sorted(name.value for name in IDENTITIES)),
    multiple=True,
    help="What the device may have. May be given several times. Default: idevid and vendor.",
)
@click.option("--organization", default="", help="Of the customer; goes into the certificate that signs.")
@click.option("--unit", default="", help="A unit of that.")
@click.option(
    "--hours",
    type=click.IntRange(1, LONGEST_LIFETIME // timedelta(hours=1)),
    default=24,
    show_default=True,
    help="How long the ticket can be used.",
)
@output_option
def ticket(  # noqa: PLR0913 - one for each option
    *,
    directory: Path,
    serial_number: str,
    identities: tuple[str, ...],
    organization: str,
    unit: str,
    hours: int,
    output: Path,
) -> None:
    """Make a service ticket for a device. Its nonce, as `scanseal enroll vendor request` shows it, is asked for.

    \b
    Example: scanseal evaluation-vendor ticket --directory ./vendor --serial-number CT-0001 --output ticket.jwt
    """
    nonce = normalized(click.prompt("Nonce of the device", err=True))
    text = _vendor(directory).make_ticket(
        serial_number,
        nonce,
        [IdentityName(name) for name in identities or IDENTITIES],
        timedelta(hours=hours),
        organization=organization,
        unit=unit,
    )
    StateFiles().write(output, f"{text}\n".encode("ascii"))
    click.echo(f"{output}: good for {hours} hours, on the device {serial_number} alone")


@command.command("answer")
@directory_option
@click.argument("request_file", metavar="REQUEST", type=click.Path(path_type=Path))
@click.option("--organization", default="", help="Of the customer; goes into the certificate that signs.")
@click.option("--unit", default="", help="A unit of that.")
@click.option("--unproved", is_flag=True, help="Believe a request that no factory identity has signed: the first one.")
@output_option
def answer(  # noqa: PLR0913 - one for each option
    *, directory: Path, request_file: Path, organization: str, unit: str, unproved: bool, output: Path
) -> None:
    """Answer a request of `scanseal enroll offline export` for idevid or vendor.

    It has to be signed by the factory identity of the device. Where the device has none yet, only a person can tell
    whose it is; what another device of this vendor has signed is never believed.

    \b
    Example: scanseal evaluation-vendor answer --directory ./vendor request.txt --output answer.pem
    """
    vendor, files = _vendor(directory), StateFiles()
    try:
        request = read_offline_request(files.read(request_file, FILE_LIMIT, follow=True))
    except StateError as error:
        raise ConfigurationError(error.what, remedy="Name the file that was exported.") from error
    try:
        check_proof(request, read_ca_certificates(vendor.anchor_file, files), SystemClock().now())
    except EvidenceRefused as error:
        # A device that has an owner already signs with the owner's identity, which says nothing here.
        if not unproved or error.code not in _UNPROVED:
            raise
    files.write(output, vendor.answer(request, organization=organization, unit=unit), 0o644)
    click.echo(f"{output}: {request.statement.identity} of the device {request.statement.serial_number}")


@command.command("vendor-wide")
@directory_option
@click.option(
    "--passphrase-file", type=click.Path(path_type=Path), required=True, help="File with a passphrase for it."
)
@output_option
def vendor_wide(directory: Path, passphrase_file: Path, output: Path) -> None:
    """Make a key and certificate for all devices of the vendor, as PKCS#12.

    \b
    Example: scanseal evaluation-vendor vendor-wide --directory ./vendor --passphrase-file secret --output vendor.p12
    """
    passphrase = read_secret(passphrase_file, "--passphrase-file", StateFiles())
    StateFiles().write(output, _vendor(directory).make_vendor_wide(passphrase))
    click.echo(f"{output}: names no device, and proves the vendor only")


def _vendor(directory: Path) -> VendorCa:
    return VendorCa.create_or_open(directory.absolute(), SystemClock())
