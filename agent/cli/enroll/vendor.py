"""`scanseal enroll vendor`: what the vendor of the scanner gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.cli import enrolling, exits
from agent.cli.enrolling import enroll_by, show_plans, warn_of_software
from agent.cli.options import config_option, configuration, json_option, show
from agent.config import Configuration, SigningIdentity
from agent.daemon.hardening import protect_memory
from enroll.clock import Clock, SystemClock
from enroll.config import EnrollSettings
from enroll.enroller import Enroller, asked_for
from enroll.errors import ConfigurationError, StateDamaged, StateError
from enroll.flows.base import Pending
from enroll.flows.settings import FlowName
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.issue import NotAsked
from enroll.keystore.base import Protection
from enroll.proves import Proves, proves, remark
from enroll.statefile import StateFiles
from enroll.trust import read_ca_certificates
from enroll.vendor.case import KeptTicket, ServiceCase, shown
from enroll.vendor.pkcs12 import read_passphrase, read_pkcs12
from enroll.vendor.ticket import IDENTITIES, TICKET_LIMIT, read_ticket
from enroll.vendor.vendor_wide import KeyInToken, KeyToImport, import_vendor_wide

_IN_ORDER = (IdentityName.IDEVID, IdentityName.VENDOR)  # the factory identity renews the other


@click.group("vendor")
def command() -> None:
    """Get what the vendor of the scanner gives it: its factory identity, and certificates that sign.

    \b
    A certificate for all devices of the vendor:  scanseal enroll vendor import vendor.p12 --passphrase-file FILE
    A factory identity from the vendor's service: scanseal enroll vendor request
                                                  scanseal enroll vendor issue --ticket FILE
    """


@command.command("import")
@config_option
@click.argument("pkcs12", type=click.Path(path_type=Path), required=False)
@click.option("--passphrase-file", type=click.Path(path_type=Path), help="File that holds the passphrase of PKCS12.")
@click.option("--key-uri", help="Instead of PKCS12: a key that is in a token already, by its URI (RFC 7512).")
@click.option(
    "--certificate",
    type=click.Path(path_type=Path),
    help="With --key-uri: file (PEM or DER) with the certificate of that key, and its intermediates.",
)
@json_option
def import_(  # noqa: PLR0913 - one for each option
    *,
    config: Path,
    pkcs12: Path | None,
    passphrase_file: Path | None,
    key_uri: str | None,
    certificate: Path | None,
    as_json: bool,
) -> int:
    """Take a certificate for all devices of the vendor into use, with its key. It becomes the identity "vendor".

    The same key is on many machines, so what it signs proves the vendor only: that one of its devices signed, and not
    which. To sign original images with it, set [signing] identity = "vendor". The file can be removed afterwards.

    \b
    Exit code: 0 imported, 69 the certificate must not be used, 78 the file, the configuration or a key store has to
               be corrected.

    \b
    Example: scanseal enroll vendor import vendor.p12 --passphrase-file passphrase
    """
    protect_memory()
    files = StateFiles()
    found: KeyToImport | KeyInToken
    if pkcs12 and passphrase_file and not (key_uri or certificate):
        content = read_pkcs12(pkcs12, read_passphrase(passphrase_file, "--passphrase-file", files), files)
        found, certificates = KeyToImport(content.key), (content.certificate, *content.others)
    elif key_uri and certificate and not (pkcs12 or passphrase_file):
        found, certificates = KeyInToken(key_uri), read_ca_certificates(certificate, files)
    else:
        raise click.UsageError("Name a PKCS#12 file with --passphrase-file, or a key by --key-uri with --certificate.")
    whole = configuration(config)
    with Enroller.configured(whole.enroll, SystemClock(), files) as enroller:
        generation = import_vendor_wide(found, certificates, enroller.context)
    show({"identities": [_record(generation)]}, _text(generation), as_json=as_json)
    _warn_of_software(whole, generation)
    return exits.OK


@command.command("request")
@config_option
@click.option("--new", "anew", is_flag=True, help="Forget the nonce that was shown before.")
@json_option
def request(config: Path, *, anew: bool, as_json: bool) -> None:
    """Show what the vendor's service desk needs for a service ticket: the serial number and a nonce of this device.

    The nonce is no secret, and good for one ticket. The same one is shown until a ticket has come for it.

    \b
    Example: scanseal enroll vendor request
    """
    settings = configuration(config).enroll
    nonce = shown(ServiceCase(settings.state_directory, StateFiles()).nonce(anew=anew))
    serial_number = settings.device.serial_number
    text = (
        f"serial number   {serial_number}\n"
        f"nonce           {nonce}\n"
        "Give both to the vendor's service desk. With the ticket that comes back, run:\n"
        "scanseal enroll vendor issue --ticket FILE"
    )
    show({"serial_number": serial_number, "nonce": nonce}, text, as_json=as_json)


@command.command("issue")
@config_option
@click.option("--ticket", type=click.Path(path_type=Path), help="File with the service ticket. Default: the last one.")
@click.option(
    "--identity",
    type=click.Choice(sorted(name.value for name in IDENTITIES)),
    help="Only this identity. Default: those of the ticket, the factory identity first.",
)
@click.option("--dry-run", is_flag=True, help="Only check and keep the ticket, and say what would be sent to whom.")
@json_option
def issue(config: Path, ticket: Path | None, identity: str | None, *, dry_run: bool, as_json: bool) -> int:
    """Get certificates from the vendor's provisioning service, with a service ticket.

    idevid is the factory identity, which says what device this is; vendor signs original images. The ticket stays with
    the scanner until it has brought everything, so that the command can be run again where the service did not answer.

    \b
    Exit code: 0 issued, 69 no answer from the service, 75 the service has not decided yet: run the command again,
               77 the ticket is not accepted, 78 the configuration or a key store has to be corrected.

    \b
    Example: scanseal enroll vendor issue --ticket ticket.jwt
    """
    protect_memory()
    whole, clock, files = configuration(config), SystemClock(), StateFiles()
    settings = whole.enroll
    identities = IdentityStore(settings.state_directory, files)
    kept = _kept(ticket, settings, clock, files)
    chosen = (
        (IdentityName(identity),) if identity else tuple(name for name in _IN_ORDER if name in kept.ticket.identities)
    )
    if dry_run:
        with Enroller.configured(settings, clock, files) as enroller:
            return show_plans({name: enroller.plan(name, FlowName.VENDOR) for name in chosen}, as_json=as_json)
    answers: dict[IdentityName, Generation | Pending | NotAsked] = {}
    with asked_for(chosen, FlowName.VENDOR, identities, clock):
        for name in chosen:
            answers[name] = _brought(name, kept, identities) or enroll_by(FlowName.VENDOR, name, settings, clock)
    records = [
        _record(answer) if isinstance(answer, Generation) else enrolling.record(name, answer)
        for name, answer in answers.items()
    ]
    lines = [
        _text(answer) if isinstance(answer, Generation) else enrolling.text(name, answer)
        for name, answer in answers.items()
    ]
    show({"identities": records}, "\n".join(lines), as_json=as_json)
    _warn_of_software(whole, answers.get(IdentityName.VENDOR))
    _warn_of_copies(answers.get(IdentityName.IDEVID))
    return exits.TRY_LATER if any(isinstance(answer, Pending) for answer in answers.values()) else exits.OK


def _kept(path: Path | None, settings: EnrollSettings, clock: Clock, files: StateFiles) -> KeptTicket:
    """The ticket, after it has been checked and kept.

    Raises:
        EnrollmentRefused: It is not for this device, or not any more.
        ConfigurationError: There is no ticket.
    """
    case = ServiceCase(settings.state_directory, files)
    kept = case.ticket()
    text = kept.text if kept and path is None else _read(path, files)
    if kept is not None and text == kept.text:
        return kept
    ticket, nonce, now = read_ticket(text), case.nonce(), clock.now()
    for name in ticket.identities:
        ticket.check(settings.device.serial_number, nonce, name, now)
    return case.accept(text, ticket)


def _brought(name: IdentityName, kept: KeptTicket, identities: IdentityStore) -> Generation | None:
    """What the ticket has brought already; None where it has not, or that has to be finished or mended.

    What was imported instead is not meant: then the flow says what to do.
    """
    try:
        current, under_way = identities.current(name), identities.journal(name).read()
    except StateDamaged:
        return None
    if current is None or under_way is not None or proves(current.certificate) is Proves.VENDOR:
        return None
    return current if kept.is_older_than(current) else None


def _read(path: Path | None, files: StateFiles) -> str:
    if path is None:
        raise ConfigurationError("There is no service ticket.", remedy="Run: scanseal enroll vendor request")
    try:
        return files.read(path, TICKET_LIMIT + 2, follow=True).decode("ascii", errors="replace").strip()
    except StateError as error:
        remedy = f"Name the file with the ticket; it has at most {TICKET_LIMIT} characters."
        raise ConfigurationError(error.what, remedy=remedy) from error


def _warn_of_software(whole: Configuration, answer: Generation | Pending | NotAsked | None) -> None:
    signing = whole.agent.signing
    if signing.require_hardware and signing.identity is SigningIdentity.VENDOR and answer is not None:
        warn_of_software({IdentityName.VENDOR: answer})


def _warn_of_copies(answer: Generation | Pending | NotAsked | None) -> None:
    if isinstance(answer, Generation) and answer.protection != Protection.HARDWARE:
        click.echo(
            f"The key of the factory identity is in {answer.protection}: who copies it is this device for good. Set "
            '[identity.idevid] key_store to "tpm" or "pkcs11", where there is one.',
            err=True,
        )


def _record(generation: Generation) -> dict[str, Any]:
    return {**enrolling.record(generation.identity, generation), "proves": proves(generation.certificate)}


def _text(generation: Generation) -> str:
    told = remark(generation.certificate)
    return f"{enrolling.text(generation.identity, generation)}{told and '; it '}{told}"
