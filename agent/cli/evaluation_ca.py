"""`scanseal evaluation-ca`."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import click

from agent.cli.options import json_option, show
from agent.cli.try_out import write_configuration
from enroll.clock import SystemClock
from enroll.errors import ConfigurationError
from enroll.evaluation.ca import DEFAULT_LIFETIME, EvaluationCa
from enroll.evaluation.est_server import EstServer

BANNER = """\
Evaluation CA. NOT FOR PRODUCTION: its key lies unencrypted in {directory}, and it never revokes.

  EST server      {url}
  anchor          {anchor}
  configuration   {configuration}
                  of a pretend scanner that enrolls here: scanseal enroll est --config {configuration}

Stop with Ctrl-C."""


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
@json_option
def command(directory: Path, port: int, lifetime_days: int, *, as_json: bool) -> None:
    """Run a small owner CA on this machine, for trying out. NOT FOR PRODUCTION.

    It speaks EST over TLS on 127.0.0.1 and issues what a hospital's CA should issue for a scanner. It also writes
    scanseal.toml for a pretend scanner that enrolls with it. With --json it prints one line that says where, as soon
    as it listens.

    \b
    Example: scanseal evaluation-ca --directory ./evaluation-ca
    """
    directory = directory.absolute()
    ca = EvaluationCa.create_or_open(directory, SystemClock(), timedelta(days=lifetime_days))
    try:
        server = EstServer(ca, ("127.0.0.1", port), log=lambda line: click.echo(line, err=True))
    except OSError as error:
        raise ConfigurationError(
            f"Port {port} cannot be used: {error.strerror}.", remedy="Choose another one with --port, or 0 for any."
        ) from error
    facts = {
        "directory": str(directory),
        "url": server.url,
        "anchor": str(ca.anchor_file),
        "configuration": str(write_configuration(ca, server.url)),
    }
    show({"not_for_production": True, **facts}, BANNER.format(**facts), as_json=as_json)
    sys.stdout.flush()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
