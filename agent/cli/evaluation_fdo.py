"""`scanseal evaluation-fdo`."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from agent.cli.options import configuration, json_option, show
from agent.cli.try_out import configuration_file, write_fdo_configuration
from enroll.clock import Clock, SystemClock
from enroll.errors import ConfigurationError, StateError
from enroll.est.client import address
from enroll.est.first_password import first_password
from enroll.evaluation.ca import EvaluationCa
from enroll.evaluation.est_server import EstServer
from enroll.evaluation.fdo.certificate_sources import CaBehind, CertificateSource, EstBridge
from enroll.evaluation.fdo.pilot import FIRST_OWNER, Pilot, PilotTerms
from enroll.fdo.credential import fdo_directory, read_owner
from enroll.fdo.hand_over import Renewal
from enroll.flows.settings import EstSettings, FlowName
from enroll.foreign import printable
from enroll.keystore.base import KeyFile
from enroll.options import read_settings
from enroll.statefile import StateFiles
from enroll.tls import ClientIdentity
from enroll.trust import read_ca_certificates

ATTENDED_EVERY = 1.0  # seconds
OWNER_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")

BANNER = """\
FIDO Device Onboard for trying out. NOT FOR PRODUCTION: all keys lie unencrypted in {directory}.

  servers          {url}  ({parties})
  renewal          {renewal}  (EST)
  owners           {owners}; their keys and vouchers are in {directory}/owners
  other vouchers   put them into {incoming}
{scanner}
Stop with Ctrl-C."""
PRETEND_SCANNER = """\
  configuration    {configuration}{kept}
                   of a pretend scanner

Now, in another terminal:

  scanseal fdo init --config {configuration}
  scanseal enroll fdo --config {configuration}
  scanseal agent --config {configuration} &
  scanseal sign image.dcm --config {configuration} --output signed.dcm
"""


@click.command("evaluation-fdo")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    required=True,
    help="Where keys, vouchers and the CA are kept; they are made at the first start.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8445,
    show_default=True,
    help="Of manufacturer, rendezvous server and owners; 0 takes a free one. Scanners remember it, so it has to be the "
    "same after a restart.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="IP address to listen on, and the one that scanners are told. Another one than this machine's own "
    "(loopback) needs --est-url, and then there is neither a manufacturer, as whoever reached it could be any scanner, "
    "nor a pretend scanner. Vouchers come from other makers.",
)
@click.option(
    "--est-port",
    type=click.IntRange(0, 65535),
    default=8446,
    show_default=True,
    help="Of the evaluation CA's EST server, where scanners renew; 0 takes a free one. Scanners remember it, too, so "
    "it has to be the same after a restart.",
)
@click.option("--est-url", default="", help="Have certificates from this EST server instead of an evaluation CA.")
@click.option("--est-label", default="", help="Its EST label (RFC 7030 3.2.2), where it has one.")
@click.option("--est-anchor", type=click.Path(path_type=Path), help="CA certificate of the EST server, in PEM or DER.")
@click.option("--est-username", default="", help="User name at the EST server.")
@click.option("--est-password-file", type=click.Path(path_type=Path), help="File with the password at the EST server.")
@click.option(
    "--est-certificate",
    type=click.Path(path_type=Path),
    help="Certificate to show to the EST server: PEM, with its intermediates.",
)
@click.option("--est-key", type=click.Path(path_type=Path), help="The key of that: PEM, unencrypted.")
@click.option("--bypass", is_flag=True, help="Scanners come to their owner without asking the rendezvous server.")
@click.option(
    "--owner",
    "owners",
    multiple=True,
    metavar="NAME",
    help=f"One more owner beside {FIRST_OWNER!r}, to whom a scanner can be sold; it stays. May be given several times.",
)
@json_option
def command(  # noqa: PLR0913 - one for each option
    *,
    directory: Path,
    host: str,
    port: int,
    as_json: bool,
    bypass: bool,
    owners: tuple[str, ...],
    **est: Any,
) -> None:
    """Run what FIDO Device Onboard needs on this machine, for trying out: manufacturer, rendezvous server, owner.

    NOT FOR PRODUCTION. A scanner that is taken over gets a certificate from an evaluation CA, which runs along, or from
    an EST server of yours, which has to trust this one to send it the requests of scanners. It is told to renew there.

    It also writes scanseal.toml for a pretend scanner, unless --host is on a network; one that is there is kept as it
    is. With --json it prints one line that says where everything is, as soon as it listens.

    A scanner of another maker: have its voucher made out to the certificate in DIRECTORY/owners/hospital/keys of the
    same kind of key, and put it into DIRECTORY/incoming at any time. A certificate for RSA is there after a pretend
    scanner with such a key was made (key_algorithm in scanseal.toml).

    \b
    To sell the pretend scanner to an owner that --owner clinic has made:
      scanseal fdo voucher extend DIRECTORY/owners/hospital/vouchers/*.pem \\
               --key DIRECTORY/owners/hospital/keys/P-256.key \\
               --to DIRECTORY/owners/clinic/keys/P-256.pem --output DIRECTORY/incoming/sold.pem
      scanseal owner release --config DIRECTORY/scanseal.toml
      scanseal enroll fdo --config DIRECTORY/scanseal.toml
      scanseal fdo approve FINGERPRINT --config DIRECTORY/scanseal.toml
      scanseal enroll fdo --config DIRECTORY/scanseal.toml
    FINGERPRINT is that of the clinic, which extend has printed.

    \b
    Exit code: 0 stopped with Ctrl-C, 69 the EST server does not answer properly, 78 an option has to be corrected, or
               a file cannot be used.

    \b
    Examples: scanseal evaluation-fdo --directory ./evaluation-fdo
              scanseal evaluation-fdo --directory ./evaluation-fdo --owner clinic
              scanseal evaluation-fdo --directory ./evaluation-fdo --est-url https://est.hospital.example \\
                  --est-anchor ca.pem --est-username pilot --est-password-file password
    """
    directory, clock = directory.absolute(), SystemClock()
    is_local = _is_loopback(host)
    if not is_local and not est["est_url"]:
        raise ConfigurationError(
            "The evaluation CA answers on this machine only, so scanners elsewhere could not renew.",
            remedy="Name an EST server with --est-url, or leave out --host.",
        )
    if port and port == est["est_port"] and not est["est_url"]:
        what = f"--port and --est-port are the same: {port}."
        raise ConfigurationError(what, remedy="Choose another one for one of them.")
    with contextlib.ExitStack() as servers:
        source, renewal = _certificates(directory, clock, servers, **est)
        terms = PilotTerms(source, renewal, _owner_names(owners), bypass, factory=is_local)
        with _refusals_of_ports(f"Port {port} of {host}", "--port"):
            pilot = servers.enter_context(Pilot(directory, (host, port), terms, clock, _log))
        facts = {
            "directory": str(directory),
            "url": pilot.url,
            "renewal": " ".join(filter(None, (renewal.url, renewal.label))),
            "incoming": str(pilot.incoming),
            "owners": list(pilot.owners),
        }
        scanner = _pretend_scanner(directory, pilot.url, renewal) if is_local else None
        _show(facts, scanner, as_json=as_json)
        try:
            while True:
                pilot.attend()
                clock.sleep(ATTENDED_EVERY)
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)


@dataclass(frozen=True)
class _PretendScanner:
    """Its configuration, and what to say of it."""

    configuration: Path
    text: str


def _pretend_scanner(directory: Path, url: str, renewal: Renewal) -> _PretendScanner:
    kept = _kept(configuration_file(directory), url, renewal)
    path = write_fdo_configuration(directory, url)
    return _PretendScanner(path, PRETEND_SCANNER.format(configuration=path, kept=kept))


def _show(facts: Mapping[str, Any], scanner: _PretendScanner | None, *, as_json: bool) -> None:
    """Say where everything is."""
    text = BANNER.format(
        **{**facts, "owners": ", ".join(facts["owners"])},
        parties="manufacturer, rendezvous server, owners" if scanner else "rendezvous server, owners",
        scanner=scanner.text if scanner else "",
    )
    configuration_name = str(scanner.configuration) if scanner else None
    show({"not_for_production": True, **facts, "configuration": configuration_name}, text, as_json=as_json)
    sys.stdout.flush()


def _is_loopback(host: str) -> bool:
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError as error:
        raise ConfigurationError(f"{printable(host)!r} is no IP address.", remedy="Correct --host.") from error
    if parsed.is_unspecified:
        raise ConfigurationError(f"Scanners cannot be told to come to {host}.", remedy="Name one address with --host.")
    return parsed.is_loopback


def _owner_names(owners: tuple[str, ...]) -> tuple[str, ...]:
    for name in owners:
        if not OWNER_NAME.fullmatch(name):
            what = f"{printable(name)!r} is no name of an owner."
            raise ConfigurationError(what, remedy="Use small letters, digits, and - in it.")
    return tuple(name for name in dict.fromkeys(owners) if name != FIRST_OWNER)


def _certificates(
    directory: Path, clock: Clock, servers: contextlib.ExitStack, *, est_port: int, est_url: str, **est: Any
) -> tuple[CertificateSource, Renewal]:
    """Where certificates come from, and where they are renewed."""
    if est_url:
        return _bridge(clock, est_url, **est)
    if any(est.values()):
        raise ConfigurationError("There are options of an EST server without --est-url.", remedy="Name its address.")
    ca = EvaluationCa.create_or_open(directory / "ca", clock)
    with _refusals_of_ports(f"Port {est_port}", "--est-port"):
        server = servers.enter_context(EstServer(ca, ("127.0.0.1", est_port), _log))
    return CaBehind(ca), Renewal(FlowName.EST, server.url)


def _bridge(  # noqa: PLR0913 - one for each option
    clock: Clock,
    url: str,
    *,
    est_label: str,
    est_anchor: Path | None,
    est_username: str,
    est_password_file: Path | None,
    est_certificate: Path | None,
    est_key: Path | None,
) -> tuple[EstBridge, Renewal]:
    """An EST server; it has answered."""
    files = StateFiles()
    settings = read_settings(EstSettings, {"url": url, "label": est_label, "username": est_username}, "--est-...")
    if est_anchor is None:
        raise ConfigurationError("The EST server cannot be verified.", remedy="Name its CA certificate: --est-anchor")
    if (est_certificate is None) is not (est_key is None):
        raise ConfigurationError("A certificate needs its key.", remedy="Name both: --est-certificate and --est-key")
    settings = replace(settings, password_file=est_password_file)
    bridge = EstBridge(
        address(settings.url, settings.label),
        read_ca_certificates(est_anchor, files),
        clock,
        identity=ClientIdentity(est_certificate, KeyFile(est_key, bytes)) if est_certificate and est_key else None,
        authorization=first_password(settings, files) if est_username or est_password_file else None,
    )
    bridge.check()
    return bridge, Renewal(FlowName.EST, settings.url, settings.label)


def _kept(path: Path, url: str, renewal: Renewal) -> str:
    """What to say of a configuration that is there already; nothing where there is none."""
    if not path.exists():
        return ""
    said = ["kept as it was"]
    try:
        settings = configuration(path).enroll
        if settings.fdo.manufacturer_url != url:
            said[0] += f". Its server is {settings.fdo.manufacturer_url}: start with the --port of that"
        owner = read_owner(fdo_directory(settings.state_directory), StateFiles())
        told = Renewal.from_text(owner.renewal) if owner else None
        if told and told != renewal:
            said.append(f"It renews at {told.url}: start with the --est-port or --est-url of that")
    except (ConfigurationError, StateError) as error:
        said = [f"kept as it was. It cannot be used: {error.what}"]
    return "".join(f"\n                   {line}" for line in said)


@contextlib.contextmanager
def _refusals_of_ports(port: str, option: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"{port} cannot be used: {error.strerror}.", remedy=f"Choose another one with {option}, or 0 for any."
        ) from error


def _log(line: str) -> None:
    click.echo(line, err=True)
