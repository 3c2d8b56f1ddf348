"""The stages of commands that need more than a server: what the vendor gives, requests by hand, FIDO Device Onboard.

See `kill_stages`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from agent.cli import exits
from enroll.certificates import pem
from enroll.clock import SystemClock
from enroll.identity import IdentityName
from enroll.offline_request import read_offline_request
from tests.support.by_hand import granted
from tests.support.fdo.cuts import QuickStart, Scanner, Site
from tests.support.flow_servers.vendor import accept_ticket, vendor_service
from tests.support.pki import HospitalCa
from tests.support.reliability.kill_points import Commands
from tests.support.reliability.kill_stages import USUAL, Hospital, MakeStage, enrolled_today, machine, settings_tables
from tests.support.reliability.kill_sweep import Machine, Stage
from tests.support.reliability.looking import Look
from tests.support.reliability.signing_agent import AgentStage, SigningAgent, agent_tables
from tests.support.revoking_ca import web_server

DEVICE, SIGNING, IDEVID, VENDOR = IdentityName.DEVICE, IdentityName.SIGNING, IdentityName.IDEVID, IdentityName.VENDOR
PASSPHRASE = b"passphrase"

MakeAgentStage = Callable[[Path, Commands], AbstractContextManager[AgentStage]]


def back(*directories: Path) -> Callable[[], None]:
    """Takes directories of a server back to what they hold now."""
    for directory in directories:
        if directory.exists():
            shutil.copytree(directory, directory.with_name(f"{directory.name}-kept"))

    def go_back() -> None:
        for directory in directories:
            shutil.rmtree(directory, ignore_errors=True)
            kept = directory.with_name(f"{directory.name}-kept")
            if kept.exists():
                shutil.copytree(kept, directory)

    return go_back


def certificates_in(directory: Path) -> int:
    """How many different ones there are; a server may keep each under several names."""
    return len({file.read_bytes() for file in directory.glob("*")})


# --- from the vendor


@contextmanager
def vendor_issue(folder: Path, commands: Commands) -> Iterator[Stage]:
    with vendor_service(folder) as (ca, _, scanner):
        accept_ticket(scanner, ca)
        issued = ca.directory / "issued"
        yield Stage(
            Machine(folder, commands, settings_tables(scanner.settings)),
            ("enroll", "vendor", "issue"),
            brings=frozenset({IDEVID, VENDOR}),
            before=back(issued),
            issued=lambda: certificates_in(issued),
            gives_again=True,
        )


@contextmanager
def vendor_import(folder: Path, commands: Commands) -> Iterator[Stage]:
    with vendor_service(folder) as (ca, _, scanner):
        packed, secret = folder / "vendor.p12", folder / "secret"
        packed.write_bytes(ca.make_vendor_wide(PASSPHRASE))
        secret.write_bytes(PASSPHRASE)
        secret.chmod(0o600)
        yield Stage(
            Machine(folder, commands, settings_tables(scanner.settings)),
            ("enroll", "vendor", "import", str(packed), "--passphrase-file", str(secret)),
            brings=frozenset({VENDOR}),
            has_begun=lambda _: False,
            goes_on=False,
        )


# --- by hand


class _Carrier:
    """Exports requests, and has the CA answer them."""

    def __init__(self, folder: Path, commands: Commands) -> None:
        self.ca = HospitalCa()
        anchor = folder / "anchor.pem"
        anchor.write_bytes(pem([self.ca.certificate]))
        self.stick = folder / "stick"
        self.stick.mkdir()
        self.scanner = machine(folder, commands, {"offline": {"anchor_file": str(anchor)}})
        self.export = ("enroll", "offline", "export", "--output", str(self.stick))

    def clear(self) -> None:
        for file in self.stick.iterdir():
            file.unlink()

    def answer(self) -> list[str]:
        """What the CA gives for all requests on the stick."""
        answers = []
        for file in sorted(self.stick.glob("*.txt")):
            answer = file.with_suffix(".pem")
            answer.write_bytes(pem([granted(self.ca, read_offline_request(file.read_bytes()))]))
            answers.append(str(answer))
        return answers

    def requests(self) -> list[dict[str, str]]:
        """Those that are out."""
        self.scanner.done("enroll", "offline", "list", "--json")
        return list(json.loads(self.scanner.said)["requests"])


@contextmanager
def offline_export(folder: Path, commands: Commands) -> Iterator[Stage]:
    carrier = _Carrier(folder, commands)

    def can_be_answered(_: Look) -> None:
        carrier.scanner.done("enroll", "offline", "import", *carrier.answer())
        done = carrier.scanner.look()
        assert {DEVICE, SIGNING} <= set(done.current)
        carrier.clear()

    yield Stage(
        carrier.scanner,
        carrier.export,
        before=carrier.clear,
        check_done=can_be_answered,
        has_begun=lambda _: False,
    )


@contextmanager
def offline_import(folder: Path, commands: Commands) -> Iterator[Stage]:
    carrier = _Carrier(folder, commands)
    carrier.scanner.done(*carrier.export)
    words = ("enroll", "offline", "import", *carrier.answer())
    yield Stage(carrier.scanner, words, brings=USUAL, has_begun=lambda cut: set(cut.current) >= USUAL)


@contextmanager
def offline_cancel(folder: Path, commands: Commands) -> Iterator[Stage]:
    carrier = _Carrier(folder, commands)
    carrier.scanner.done(*carrier.export)
    number = next(request["number"] for request in carrier.requests() if request["identity"] == SIGNING)

    def is_cancelled(done: Look) -> None:
        assert set(done.by_hand) == {DEVICE}
        assert not done.keys_of(SIGNING)

    yield Stage(
        carrier.scanner,
        ("enroll", "offline", "cancel", number),
        check_done=is_cancelled,
        has_begun=lambda cut: SIGNING not in cut.by_hand,  # it is over, and the timer does the rest
    )


# --- FIDO Device Onboard


@contextmanager
def with_site(folder: Path, commands: Commands, **fdo: str) -> Iterator[tuple[Site, Machine]]:
    """A scanner, its manufacturer and its owner.

    Args:
        folder: Of their own.
        commands: Start the commands.
        fdo: What [fdo] says otherwise.
    """
    with Site(folder / "site") as site:
        scanner = Scanner(folder / "scanner", site, _no_processes())
        tables = {"": {"state_directory": str(scanner.state)}, **scanner.tables}
        tables["fdo"].update(fdo)
        yield site, Machine(folder, commands, tables)


def _no_processes() -> QuickStart:
    return object.__new__(QuickStart)


@contextmanager
def fdo_init(folder: Path, commands: Commands) -> Iterator[Stage]:
    with with_site(folder, commands) as (site, scanner):

        def initialized(done: Look) -> None:
            assert len(done.credentials) == 1
            assert done.credentials[0] in [guid.hex() for guid in site.guids]
            site.forget()

        yield Stage(
            scanner,
            ("fdo", "init"),
            check_done=initialized,
            has_begun=lambda _: False,
            also=frozenset({exits.CONFIGURATION}),  # there is a credential, and the manufacturer has its voucher
            before=site.forget,
        )


@contextmanager
def enroll_fdo(folder: Path, commands: Commands) -> Iterator[Stage]:
    with with_site(folder, commands) as (site, scanner):
        scanner.done("fdo", "init")

        def onboarded(done: Look) -> None:
            assert list(done.credentials) == [guid.hex() for guid in site.guids]

        yield Stage(
            scanner,
            ("enroll", "fdo"),
            brings=frozenset({DEVICE}),
            check_done=onboarded,
            before=back(folder / "site" / "vouchers", folder / "site" / "issued"),
            # A session of TO2 that was cut off begins anew (FDO 1.1, 5.5), and what it has brought cannot be fetched.
            has_begun=lambda _: False,
        )


@contextmanager
def owner_release(folder: Path, commands: Commands) -> Iterator[Stage]:
    with with_site(folder, commands) as (_, scanner):
        scanner.done("fdo", "init")
        scanner.done("enroll", "fdo")
        yield Stage(
            scanner,
            ("owner", "release", "--yes"),
            loses=frozenset({DEVICE}),
            has_begun=lambda cut: cut.releasing,
        )


# --- what the owner says


@contextmanager
def owned(
    folder: Path, commands: Commands, tables: Mapping[str, dict[str, Any]] = MappingProxyType({}), **options: Any
) -> Iterator[Machine]:
    """A scanner with a device identity.

    Args:
        folder: Of its own.
        commands: Start the commands.
        tables: Of its configuration.
        options: Of `Machine`.
    """
    hospital = Hospital(folder / "ca")
    scanner = machine(folder, commands, {"est": hospital.table, **tables}, **options)
    with hospital.today(), enrolled_today(scanner, "--identity", "device"):
        yield scanner


def by_owner(*words: str, before: Sequence[str] = (), disabled: str = "no") -> MakeStage:
    """What the owner says; the last word counts, whatever was killed."""

    @contextmanager
    def stage(folder: Path, commands: Commands) -> Iterator[Stage]:
        with owned(folder, commands) as scanner:
            if before:
                scanner.done(*before)

            def heard(done: Look) -> None:
                assert done.owner["disabled"] == disabled
                assert done.owner["ownership"] == "owned"

            yield Stage(scanner, ("owner", *words), check_done=heard, has_begun=lambda _: False)

    return stage


# --- the agent


@contextmanager
def first_signature(folder: Path, commands: Commands) -> Iterator[AgentStage]:
    """Its key is in memory, so a restart costs a new one, with its certificate."""
    hospital = Hospital(folder / "ca")
    signing = {"key_store": "memory"}
    tables = {"est": hospital.table, "identity.signing": signing, **agent_tables(folder)}
    scanner = machine(folder, commands, tables)
    with (
        Commands() as agents,
        Commands() as enrollers,
        hospital.today(),
        enrolled_today(scanner, "--identity", "device"),
    ):
        agent = SigningAgent(scanner, agents)
        stage = AgentStage(agent, enrollers)
        agent.meanwhile = stage.serve_offer
        yield stage


# --- what the CA says


@contextmanager
def revocation_watch(folder: Path, commands: Commands) -> Iterator[Stage]:
    """The certificate that signs is revoked, and the timer's command hears of it."""
    hospital = Hospital(folder / "ca")
    with web_server() as server, hospital.today():
        scanner = machine(folder, commands, {"est": hospital.table, "revocation": {"crl_url": server.url}})
        with enrolled_today(scanner):
            serial = scanner.look().current[SIGNING]["serial"]
            server.body = _list(hospital, int(serial, 16))
            record = scanner.state / "identities" / "signing" / "revocation.json"

            def knows(_: Look) -> None:
                assert '"revoked"' in record.read_text("utf-8")

            yield Stage(scanner, ("renew",), check_done=knows, code=exits.NOT_PERMITTED)


def _list(hospital: Hospital, serial: int) -> bytes:
    """The revocation list of the evaluation CA, with one entry."""
    folder = hospital.ca.directory
    key = serialization.load_pem_private_key((folder / "root.key").read_bytes(), None)
    now = SystemClock().now()
    entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(hospital.ca.certificate.subject)
        .last_update(now - timedelta(minutes=5))
        .next_update(now + timedelta(days=1))
        .add_revoked_certificate(entry)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)  # type: ignore[arg-type]


STAGES: Mapping[str, MakeStage | MakeAgentStage] = {
    "enroll-vendor": vendor_issue,
    "enroll-vendor-import": vendor_import,
    "enroll-offline-export": offline_export,
    "enroll-offline-import": offline_import,
    "enroll-offline-cancel": offline_cancel,
    "fdo-init": fdo_init,
    "enroll-fdo": enroll_fdo,
    "owner-release": owner_release,
    "owner-disable": by_owner("disable", disabled="yes"),
    "owner-enable": by_owner("enable", before=("owner", "disable")),
    "agent-first-signature": first_signature,
    "renew-and-hear-of-a-revocation": revocation_watch,
}
