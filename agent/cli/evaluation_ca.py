"""`scanseal evaluation-ca`."""

from __future__ import annotations

import contextlib
import re
import ssl
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from agent.cli.options import configuration, json_option, show
from agent.cli.try_out import configuration_file, write_configuration
from enroll.clock import SystemClock
from enroll.errors import ConfigurationError
from enroll.evaluation.attestation_ca import AttestationCa
from enroll.evaluation.attestation_server import AttestationServer
from enroll.evaluation.ca import DEFAULT_LIFETIME, DEFAULT_LONG_LIFETIME, USERNAME, EvaluationCa
from enroll.evaluation.est_authentication import Authentication
from enroll.evaluation.est_server import EstOptions, EstServer
from enroll.evaluation.https_server import HttpsServer
from enroll.statefile import StateFiles
from enroll.trust import read_ca_certificates

Server = TypeVar("Server", bound=HttpsServer)

TLS_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

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
@click.option("--label", default="", help="EST label (RFC 7030 3.2.2) below which alone the server answers.")
@click.option(
    "--authentication",
    type=click.Choice([way.value for way in Authentication]),
    default=Authentication.BASIC.value,
    show_default=True,
    help="What a scanner without a certificate of this CA shows. A certificate is one by --vendor-anchor then.",
)
@click.option(
    "--vendor-anchor",
    type=click.Path(path_type=Path),
    help="CA certificate of a vendor of scanners, in PEM or DER: their factory identities may enroll.",
)
@click.option("--approve-by-hand", is_flag=True, help="Each request waits until you approve it; the log says how.")
@click.option(
    "--proof-of-possession", is_flag=True, help="Requests must be linked to their TLS connection (RFC 7030 3.5)."
)
@click.option("--tls-version", type=click.Choice(list(TLS_VERSIONS)), help="The only one; by default 1.2 and 1.3.")
@click.option("--roll-over", is_flag=True, help="First give the CA a new key, beside the one that it has.")
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
    roll_over: bool,
    attestation_port: int | None,
    manufacturers: tuple[Path, ...],
    as_json: bool,
    **est: Any,
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
    if roll_over:
        ca.roll_over()
    options = _est_options(**est)
    server = _listening(partial(EstServer, options=options), ca, port, "--port")
    kept = _kept(configuration_file(directory), server.url)
    facts = {
        "directory": str(directory),
        "url": server.url,
        "anchor": str(ca.anchor_file),
        "configuration": str(write_configuration(ca, server.url, *options.labels)),
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


def _est_options(  # noqa: PLR0913 - one for each option
    *,
    label: str,
    authentication: str,
    vendor_anchor: Path | None,
    approve_by_hand: bool,
    proof_of_possession: bool,
    tls_version: str | None,
) -> EstOptions:
    """What the EST server wants, as the options of the command say."""
    if not re.fullmatch(r"[A-Za-z0-9._~-]{0,64}", label):  # RFC 3986 2.3, as in [est]
        raise ConfigurationError(f"{label!r} is no EST label.", remedy="Use letters, digits, and any of -._~ in it.")
    return EstOptions(
        labels=(label,),
        authentication=Authentication(authentication),
        vendors=read_ca_certificates(vendor_anchor, StateFiles()) if vendor_anchor else (),
        proof_of_possession=proof_of_possession,
        approve_by_hand=approve_by_hand,
        tls_version=TLS_VERSIONS[tls_version] if tls_version else None,
    )


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
