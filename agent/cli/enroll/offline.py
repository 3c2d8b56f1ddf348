"""`scanseal enroll offline`: requests and answers that a person carries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from agent.cli import enrolling, exits
from agent.cli.enrolling import USUAL_IDENTITIES, attest_again, show_plans, warn_of_software
from agent.cli.options import config_option, configuration, json_option, show, shown_name, written_whole
from agent.daemon.hardening import protect_memory
from agent.errors import InputFileError
from enroll.certificates import name_text
from enroll.clock import SystemClock
from enroll.config import EnrollSettings
from enroll.enroller import Enroller
from enroll.errors import StateError
from enroll.flows.offline import Errand
from enroll.flows.offline.answers import FILE_LIMIT as ANSWER_LIMIT
from enroll.flows.offline.desk import OfflineDesk
from enroll.flows.offline.requests import Request
from enroll.identity import IdentityName
from enroll.issue import made_by_agent
from enroll.offline_request import FILE_LIMIT, OfflineRequest, check_proof, read_offline_request
from enroll.statefile import StateFiles
from enroll.trust import read_ca_certificates

_IMPORT = "scanseal enroll offline import ANSWER"


@click.group("offline")
def command() -> None:
    """Get certificates from any CA by USB stick or mail: a file goes out, certificates come back.

    \b
    At the scanner: scanseal enroll offline export --output /media/usb
    At the CA:      certreq -submit FILE answer.cer answer.p7b         (AD CS)
                    openssl ca -in FILE -out answer.pem -notext        (OpenSSL)
    At the scanner: scanseal enroll offline import /media/usb/answer.p7b
    """


@command.command("export")
@config_option
@click.option(
    "--identity",
    type=click.Choice([identity.value for identity in IdentityName]),
    help="Only this identity. Default: the device's own, and the one that signs original images.",
)
@click.option("--reason", default="", help="Why the certificate is wanted, for the CA operator; one line.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path(),
    help="File, or folder such as a USB stick. Default: the current folder.",
)
@click.option("--again", metavar="REQUEST", help="Write the file of a request that waits once more; it stays the same.")
@click.option("--dry-run", is_flag=True, help="Only say what would be written.")
@json_option
def export(  # noqa: PLR0913 - one for each option
    *, config: Path, identity: str | None, reason: str, output: Path, again: str | None, dry_run: bool, as_json: bool
) -> int:
    """Make a key, and write a file that asks for its certificate.

    The file is a text: a summary for people, the PKCS#10 request, and a proof of which scanner asks. Any number of
    requests may be out at a time, each for 30 days; each has a key of its own.

    \b
    Exit code: 0 written, 69 a token or a TPM is not available now, 73 the file cannot be written, 75 another enrollment
               is running, 78 the configuration or a key store has to be corrected.

    \b
    Example: scanseal enroll offline export --identity signing --output /media/usb
    """
    protect_memory()
    settings = configuration(config).enroll
    with _enroller(settings) as enroller:
        desk = OfflineDesk(enroller.context)
        asked = [(desk.find(again).identity, again)] if again else _chosen(identity, settings, desk)
        if len(asked) > 1 and not output.is_dir():
            raise click.UsageError("--output must be a folder for several identities. Name one with --identity.")
        errands = {name: _errand(name, number, reason, output) for name, number in asked}
        if dry_run:
            plans = {name: desk.plan(name, errand) for name, (errand, _) in errands.items()}
            return show_plans(plans, ending="Nothing was written.", as_json=as_json)
        written = [(desk.export(name, errand), path) for name, (errand, path) in errands.items()]
    results = [(request, path, read_offline_request(_content(path, FILE_LIMIT))) for request, path in written]
    records = [_record(request) | {"file": str(path), "proved": of.proof is not None} for request, path, of in results]
    lines = [line for request, path, of in results for line in _exported(request, path, of)]
    show({"requests": records}, "\n".join(lines), as_json=as_json)
    return exits.OK


@command.command("import")
@config_option
@click.argument("answers", metavar="ANSWER...", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
def import_(*, config: Path, answers: Sequence[Path], as_json: bool) -> int:
    """Put the answer of a CA into use: PKCS#7, PEM or DER, in one file or several.

    The request is found by its key, so the names and the order of the files mean nothing. CA certificates that the
    answer lacks are added as files. What does not fit is refused and changes nothing: the request waits for another
    answer. A running agent notices the new certificate by itself.

    \b
    Exit code: 0 in use, 66 a file cannot be read, 69 the answer cannot be used: the message says why, 75 another
               enrollment is running, 78 the configuration or a key store has to be corrected.

    \b
    Example: scanseal enroll offline import answer.cer issuing-ca.cer
    """
    protect_memory()
    whole = configuration(config)
    files = {shown_name(path): _content(path, ANSWER_LIMIT) for path in answers}
    with _enroller(whole.enroll) as enroller:
        generations = {generation.identity: generation for generation in OfflineDesk(enroller.context).take_in(files)}
    for generation in generations.values():
        attest_again(generation, whole.enroll, SystemClock(), StateFiles())
    show(
        {"identities": [enrolling.record(name, generation) for name, generation in generations.items()]},
        "\n".join(enrolling.text(name, generation) for name, generation in generations.items()),
        as_json=as_json,
    )
    if whole.agent.signing.require_hardware:
        warn_of_software(generations)
    return exits.OK


@command.command("list")
@config_option
@json_option
def list_(*, config: Path, as_json: bool) -> int:
    """Show the requests that are out, and what became of the last ones.

    \b
    States: waiting; accepted (its answer is good and not in use yet: import it again); prepared (its export was cut
    off: export again); superseded (the certificate in use was asked for later); expired; and of those that are over:
    answered, cancelled, expired.
    """
    with _enroller(configuration(config).enroll) as enroller:
        desk = OfflineDesk(enroller.context)
        out = desk.requests.all()
        over = [(name, ended) for name in IdentityName for ended in desk.requests.ended(name).read()]
    names = {request.number for request in out}
    ended = [
        {"number": one.number, "identity": name, "state": one.end, "ended_at": one.ended_at.isoformat()}
        for name, one in over
        if one.number not in names
    ]
    lines = [
        f"{request.number}  {request.identity}: {request.state}, until {request.expires_at:%Y-%m-%d %H:%M} UTC"
        for request in out
    ] + [f"{one['number']}  {one['identity']}: {one['state']} on {one['ended_at'][:10]}" for one in ended]
    records = {"requests": [_record(request) for request in out], "ended": ended}
    show(records, "\n".join(lines or ["No request is out."]), as_json=as_json)
    return exits.OK


@command.command("cancel")
@config_option
@click.argument("request")
@json_option
def cancel(*, config: Path, request: str, as_json: bool) -> int:
    """Give a request up and destroy its key. An answer to it is refused from then on.

    \b
    Exit code: 0 cancelled, 69 its token or TPM is not available now, 75 another enrollment is running, 78 there is no
               such request.
    """
    protect_memory()
    with _enroller(configuration(config).enroll) as enroller:
        cancelled = OfflineDesk(enroller.context).cancel(request)
    text = f"{cancelled.identity}: request {cancelled.number} is cancelled, its key destroyed"
    show(_record(cancelled) | {"state": "cancelled"}, text, as_json=as_json)
    return exits.OK


@command.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--anchor",
    type=click.Path(path_type=Path),
    help="File (PEM or DER) with the anchor of the CA that gives devices their identity, the vendor's as a rule.",
)
@json_option
def show_(*, file: Path, anchor: Path | None, as_json: bool) -> int:
    """At the CA: show what a file asks for, and with --anchor verify which scanner asks.

    Needs no configuration. Without --anchor nothing is verified but that the parts of the file belong together.

    \b
    Exit code: 0 shown, and proved where --anchor is given, 66 the file cannot be read, 78 it is not proved, or damaged.

    \b
    Example: scanseal enroll offline show request.txt --anchor vendor-ca.pem
    """
    request = read_offline_request(_content(file, FILE_LIMIT))
    proved = "not verified: give --anchor" if request.proof else "no: this device has no identity yet"
    if anchor is not None:
        chain = check_proof(request, read_ca_certificates(anchor, StateFiles()), SystemClock().now())
        proved = f"yes, by {name_text(chain[0].subject)}, below {name_text(chain[-1].subject)}"
    shown = {
        **{name: str(value) for name, value in vars(request.statement).items()},
        "subject": name_text(request.signed.subject),
        "proved": proved,
    }
    lines = [f"{name.replace('_', ' '):16}{value}" for name, value in shown.items()]
    show(shown | {"proved": anchor is not None}, "\n".join(lines), as_json=as_json)
    return exits.OK


def _enroller(settings: EnrollSettings) -> Enroller:
    return Enroller.configured(settings, SystemClock(), StateFiles())


def _chosen(identity: str | None, settings: EnrollSettings, desk: OfflineDesk) -> list[tuple[IdentityName, str]]:
    """Which identities, each with the number of its request. What the agent asks for itself is left out."""
    usual = [name for name in USUAL_IDENTITIES if not made_by_agent(name, settings)]
    names = [IdentityName(identity)] if identity else usual
    return [(name, desk.number_for(name)) for name in names]


def _errand(identity: IdentityName, number: str, reason: str, output: Path) -> tuple[Errand, Path]:
    path = output / f"scanseal-{identity}-{number}.txt" if output.is_dir() else output

    def deliver(data: bytes) -> None:
        with written_whole(path) as file:
            file.write(data)

    return Errand(number, reason, path.name, deliver), path


def _exported(request: Request, path: Path, written: OfflineRequest) -> list[str]:
    lines = [
        f"{request.identity}: request {request.number} is in {shown_name(path)}",
        f"    It waits until {request.expires_at:%Y-%m-%d}. Carry the file to the CA, and bring the answer: {_IMPORT}",
    ]
    if written.proof is None:
        lines.append("    No proof of which scanner asks is in it, because this one has no identity yet.")
    return lines


def _record(request: Request) -> dict[str, Any]:
    return {
        "number": request.number,
        "identity": request.identity,
        "state": request.state,
        "key_sha256": request.key_sha256,
        "started_at": request.pending.started_at.isoformat(),
        "expires_at": request.expires_at.isoformat(),
    }


def _content(path: Path, limit: int) -> bytes:
    """What a person brought, bounded.

    Raises:
        InputFileError: It cannot be read.
    """
    try:
        return StateFiles().read(path, limit, follow=True)
    except StateError as error:
        raise InputFileError(
            error.what, remedy="Name the file that was brought.", what_next="Nothing was changed."
        ) from error
