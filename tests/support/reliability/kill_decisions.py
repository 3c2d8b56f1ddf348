"""The stages of commands that write down what a person has decided or was told: they ask no server.

See `kill_stages`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from agent.cli import exits
from enroll.clock import SystemClock
from enroll.clock_record import Reading, Seen, read_seen, write_seen
from enroll.statefile import StateFiles
from enroll.vendor.ticket import IDENTITIES
from tests.support.flow_servers.vendor import vendor_service
from tests.support.reliability.kill_flows import back, owned, with_site
from tests.support.reliability.kill_points import Commands
from tests.support.reliability.kill_stages import MakeStage, settings_tables
from tests.support.reliability.kill_sweep import Machine, Stage
from tests.support.reliability.looking import Look

_TOO_FAR = timedelta(days=400)


# --- the owner


def reset_record(lose: Callable[[Path], None]) -> MakeStage:
    """The record of the owner is lost, and a person has looked (docs/adr/0037-device-states.md).

    Args:
        lose: Removes the record, or damages it.
    """

    @contextmanager
    def stage(folder: Path, commands: Commands) -> Iterator[Stage]:
        with owned(folder, commands) as scanner:
            scanner.done("owner", "disable")
            lose(scanner.state / "owner.json")

            def heard(done: Look) -> None:
                assert (done.owner["ownership"], done.owner["disabled"]) == ("owned", "no")
                assert '"device-enabled"' in (scanner.state / "audit" / "audit.jsonl").read_text("ascii")

            yield Stage(scanner, ("owner", "enable", "--reset-record"), check_done=heard, has_begun=lambda _: False)

    return stage


def _damage(record: Path) -> None:
    document = json.loads(record.read_bytes())
    record.write_text(json.dumps({**document, "sha256": "0" * 64}), "ascii")


# --- the clock


@contextmanager
def clock_is_right(folder: Path, commands: Commands) -> Iterator[Stage]:
    """The clock is not believed, because it has been far ahead, until a person vouches for it."""
    with owned(folder, commands) as scanner:
        reading, files = Reading.of(SystemClock()), StateFiles()
        ahead = reading.wall + _TOO_FAR
        before = Seen(ahead, reading.boot_id, ahead, reading.boottime, reading.boot_id)
        write_seen(before, scanner.state, files)

        def is_known(cut: Look) -> None:
            assert cut.current
            assert read_seen(scanner.state, files) is not None, "what was seen of the clock is forgotten"

        def is_believed(_: Look) -> None:
            seen = read_seen(scanner.state, files)
            assert seen is not None
            assert seen.doubt is None
            assert seen.believed < ahead
            assert seen.confirmed_by.startswith("uid ")

        scanner.keep()
        code = scanner.run("check", "--clock-is-right").code  # what else it finds is that of this machine
        assert code in (exits.OK, exits.UNAVAILABLE, exits.CONFIGURATION), scanner.said
        scanner.restore()
        yield Stage(
            scanner,
            ("check", "--clock-is-right"),
            check_cut=is_known,
            check_done=is_believed,
            has_begun=lambda _: False,
            code=code,
        )


# --- who may have the scanner by FIDO Device Onboard


def approval(*words: str, before: Sequence[str] = (), approved: bool) -> MakeStage:
    """An owner waits for approval. FINGERPRINT among the words is that of the owner."""

    @contextmanager
    def stage(folder: Path, commands: Commands) -> Iterator[Stage]:
        with with_site(folder, commands, approval="always") as (_, scanner):
            scanner.done("fdo", "init")
            assert scanner.run("enroll", "fdo").code == exits.TRY_LATER, scanner.said
            (waiting,) = _waiting(scanner)
            if before:
                scanner.done(*_named(before, waiting["owner"]))
            go_back = back(folder / "site" / "vouchers", folder / "site" / "issued")

            def still_waits(_: Look) -> None:
                assert [each["owner"] for each in _waiting(scanner)] == [waiting["owner"]], "who waits is forgotten"

            def holds(_: Look) -> None:
                assert [each["is_approved"] for each in _waiting(scanner)] == [approved]
                go_back()
                code = scanner.run("enroll", "fdo").code
                assert (code == exits.OK) == approved, scanner.said

            yield Stage(
                scanner,
                _named(words, waiting["owner"]),
                before=go_back,
                check_cut=still_waits,
                check_done=holds,
                has_begun=lambda _: False,
            )

    return stage


def _named(words: Sequence[str], fingerprint: str) -> tuple[str, ...]:
    return tuple(fingerprint if word == "FINGERPRINT" else word for word in words)


def _waiting(scanner: Machine) -> list[dict[str, Any]]:
    scanner.run("status", "--json")
    return list(json.loads(scanner.said)["fdo"]["approval"])


# --- a service case with the vendor


def vendor_request(*options: str) -> MakeStage:
    """The nonce is shown; whichever was shown last is the one that holds."""

    @contextmanager
    def stage(folder: Path, commands: Commands) -> Iterator[Stage]:
        with vendor_service(folder) as (_, _, plain):
            scanner = Machine(folder, commands, settings_tables(plain.settings))
            first = nonce(scanner) if options else ""

            def holds(_: Look) -> None:
                shown = nonce(scanner)
                assert shown != first
                assert nonce(scanner) == shown, "another nonce is shown than before"

            words = ("enroll", "vendor", "request", *options)
            yield Stage(scanner, words, check_done=holds, has_begun=lambda _: False)

    return stage


def nonce(scanner: Machine) -> str:
    """The one that is shown now."""
    scanner.done("enroll", "vendor", "request", "--json")
    return str(json.loads(scanner.said)["nonce"])


@contextmanager
def vendor_ticket(folder: Path, commands: Commands) -> Iterator[Stage]:
    """A ticket comes, and is kept; its nonce is good for no other one."""
    with vendor_service(folder) as (ca, _, plain):
        scanner = Machine(folder, commands, settings_tables(plain.settings))
        spent = nonce(scanner)
        serial_number = plain.settings.device.serial_number
        ticket = folder / "ticket.jwt"
        ticket.write_text(
            ca.make_ticket(serial_number, spent.replace("-", ""), IDENTITIES, timedelta(hours=24)), "ascii"
        )

        def is_spent(_: Look) -> None:
            scanner.done("enroll", "vendor", "issue", "--dry-run")
            assert nonce(scanner) != spent, "the nonce of a ticket that has come is shown again"

        yield Stage(
            scanner,
            ("enroll", "vendor", "issue", "--ticket", str(ticket), "--dry-run"),
            check_done=is_spent,
            has_begun=lambda _: False,
        )


STAGES: Mapping[str, MakeStage] = {
    "owner-enable-over-a-missing-record": reset_record(Path.unlink),
    "owner-enable-over-a-damaged-record": reset_record(_damage),
    "check-clock-is-right": clock_is_right,
    "fdo-approve": approval("fdo", "approve", "FINGERPRINT", approved=True),
    "fdo-approve-none": approval("fdo", "approve", "--none", before=("fdo", "approve", "FINGERPRINT"), approved=False),
    "enroll-vendor-request": vendor_request(),
    "enroll-vendor-request-new": vendor_request("--new"),
    "enroll-vendor-ticket": vendor_ticket,
}
