"""`scanseal evaluation-ca`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import click

from agent.cli.options import configuration, json_option, show
from agent.cli.try_out import configuration_file, write_configuration
from enroll.clock import SystemClock
from enroll.errors import ConfigurationError
from enroll.evaluation.attestation_ca import AttestationCa
from enroll.evaluation.attestation_server import AttestationServer
from enroll.evaluation.ca import DEFAULT_LIFETIME, DEFAULT_LONG_LIFETIME, USERNAME, EvaluationCa
from enroll.evaluation.est_server import EstServer
from enroll.evaluation.https_server import HttpsServer
from enroll.statefile import StateFiles
from enroll.trust import read_ca_certificates

Server = TypeVar("Server", bound=HttpsServer)

BANNER = """\
Evaluation CA. NOT FOR PRODUCTION: its key lies unencrypted in {directory}, and it never revokes.

  EST server      {url}
  anchor          {anchor}
  configuration   {configuration}{kept}
                  of a pretend scanner that enrolls here: scanseal enroll est --config {configuration}
{attestation}
Stop with Ctrl-C."""
ATTESTATION = """
Attestation CA, as a vendor of scanners has one. NOT FOR PRODUCTION either. For [attestation] of scanseal.toml:

  url             {url}
  anchor_file     {anchor}
  username        {username}
  password_file   {password}
"""


@click.command("evaluation-ca")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    required=True,
    help="Where the CA keeps its files; they are made at the first start.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=8443, show_default=True, help="0 takes a free port.")
@click.option(
    "--lifetime-days",
    type=click.IntRange(1, 3650),
    default=DEFAULT_LIFETIME.days,
    show_default=True,
    help="How long issued certificates live.",
)
@click.option(
    "--long-lifetime-days",
    type=click.IntRange(1, 3650),
    default=DEFAULT_LONG_LIFETIME.days,
    show_default=True,
    help="The same for certificates that outlive their keys: those of keys in memory, which sign for days only and "
    "ask for that (PrivateKeyUsagePeriod). Never longer than the CA's own.",
)
@click.option(
    "--attestation-port",
    type=click.IntRange(0, 65535),
    help="Run an attestation CA as well, on this port; 0 takes a free one.",
)
@click.option(
    "--tpm-manufacturer",
    "manufacturers",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Certificate that issues the endorsement certificates of TPMs, in PEM or DER: the attestation CA believes "
    "these TPMs. May be given several times.",
)
@json_option
def command(  # noqa: PLR0913 - one for each option
    *,
    directory: Path,
    port: int,
    lifetime_days: int,
    long_lifetime_days: int,
    attestation_port: int | None,
    manufacturers: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Run a small owner CA on this machine, for trying out. NOT FOR PRODUCTION.

    It speaks EST over TLS on 127.0.0.1 and issues what a hospital's CA should issue for a scanner. It also writes
    scanseal.toml for a pretend scanner that enrolls with it; one that is there is kept as it is. With --json it prints
    one line that says where, as soon as it listens.

    \b
    Example: scanseal evaluation-ca --directory ./evaluation-ca
    """
    directory = directory.absolute()
    lifetimes = timedelta(days=lifetime_days), timedelta(days=long_lifetime_days)
    ca = EvaluationCa.create_or_open(directory, SystemClock(), *lifetimes)
    server = _listening(EstServer, ca, port, "--port")
    kept = _kept(configuration_file(directory), server.url)
    facts = {
        "directory": str(directory),
        "url": server.url,
        "anchor": str(ca.anchor_file),
        "configuration": str(write_configuration(ca, server.url)),
    }
    with contextlib.ExitStack() as servers:
        attestation = None
        if attestation_port is not None:
            attestation = _attestation(directory / "attestation", attestation_port, manufacturers, servers)
        text = BANNER.format(**facts, kept=kept, attestation=ATTESTATION.format(**attestation) if attestation else "")
        shown = {"not_for_production": True, **facts} | ({"attestation": attestation} if attestation else {})
        show(shown, text, as_json=as_json)
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)


def _kept(path: Path, url: str) -> str:
    """What to say of a configuration that is there already; nothing where there is none."""
    if not path.exists():
        return ""
    try:
        enrolls_at = configuration(path).enroll.est.url
    except ConfigurationError as error:
        return f"\n                  kept as it was. It cannot be used: {error.what}"
    if enrolls_at == url:
        return "\n                  kept as it was"
    return (
        f"\n                  kept as it was. It enrolls at {enrolls_at}: start the CA with the --port of that, or "
        f'set [est] url = "{url}"'
    )


def _attestation(
    directory: Path, port: int, manufacturers: tuple[Path, ...], servers: contextlib.ExitStack
) -> dict[str, str]:
    """Start the attestation CA; what to write into [attestation]."""
    files = StateFiles()
    believed = [certificate for path in manufacturers for certificate in read_ca_certificates(path, files)]
    ca = AttestationCa.create_or_open(directory, believed, SystemClock())
    server = servers.enter_context(_listening(AttestationServer, ca, port, "--attestation-port"))
    return {
        "url": server.url,
        "anchor": str(ca.anchor_file),
        "username": USERNAME,
        "password": str(ca.password_file),
    }


def _listening(kind: Callable[..., Server], ca: object, port: int, option: str) -> Server:
    try:
        return kind(ca, ("127.0.0.1", port), log=lambda line: click.echo(line, err=True))
    except OSError as error:
        raise ConfigurationError(
            f"Port {port} cannot be used: {error.strerror}.", remedy=f"Choose another one with {option}, or 0 for any."
        ) from error
