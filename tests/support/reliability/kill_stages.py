"""For each command that changes state, a scanner in front of it: what `kill_sweep` goes through."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from enroll.algorithms import KeyAlgorithm
from enroll.clock import SystemClock
from enroll.config import EnrollSettings
from enroll.evaluation.ca import USERNAME, EvaluationCa
from enroll.evaluation.est_server import EstServer
from enroll.flows.settings import FlowName
from enroll.identity import IdentityName
from tests.support.clocks import SteppedClock
from tests.support.pki import DEVICE as DEVICE_OF_TESTS
from tests.support.reliability.kill_points import Commands
from tests.support.reliability.kill_sweep import Machine, Stage, tables_of
from tests.support.softhsm import new_softhsm

DEVICE, SIGNING = IdentityName.DEVICE, IdentityName.SIGNING
USUAL = frozenset({DEVICE, SIGNING})
LONG_AGO = timedelta(days=250)  # more than two thirds of what the evaluation CA issues
TOKEN = "scanner"
QUICK = "rsa-2048"  # of what image signatures may have

MakeStage = Callable[[Path, Commands], AbstractContextManager[Stage]]


class Hospital:
    """The evaluation CA over EST, which has begun long ago: what it issued at first is due.

    Args:
        folder: Of its own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ca = EvaluationCa.create_or_open(folder, SteppedClock(SystemClock().now() - LONG_AGO))
        with EstServer(self.ca) as server:
            self.url = server.url

    @contextmanager
    def long_ago(self) -> Iterator[None]:
        """It answers as it did then."""
        with self._server():
            yield

    @contextmanager
    def today(self) -> Iterator[None]:
        """It answers as it does now."""
        self.ca = EvaluationCa.create_or_open(self._folder, SystemClock())
        with self._server():
            yield

    def _server(self) -> EstServer:
        return EstServer(self.ca, ("127.0.0.1", int(self.url.rpartition(":")[2])))

    def issued(self) -> int:
        """How many certificates it has issued."""
        return len(list((self._folder / "issued").glob("*")))

    @property
    def table(self) -> dict[str, str]:
        """What is configured as [est]."""
        return {
            "url": self.url,
            "anchor_file": str(self.ca.anchor_file),
            "username": USERNAME,
            "password_file": str(self.ca.password_file),
        }


def machine(folder: Path, commands: Commands, tables: dict[str, dict[str, Any]], **options: Any) -> Machine:
    """A scanner whose keys are in files unless `tables` say otherwise."""
    passphrase = folder / "passphrase"
    passphrase.write_text("a passphrase\n")
    passphrase.chmod(0o600)
    usual: dict[str, dict[str, Any]] = {
        "": {"state_directory": str(folder / "state")},
        "device": tables_of(DEVICE_OF_TESTS)[""],
        "keystore.software": {"passphrase_file": str(passphrase)},
        "identity.device": {},
        "identity.signing": {"key_algorithm": QUICK},
    }
    for name, table in tables.items():
        usual.setdefault(name, {}).update(table)
    return Machine(folder, commands, usual, **options)


@contextmanager
def enroll_est(folder: Path, commands: Commands) -> Iterator[Stage]:
    hospital = Hospital(folder / "ca")
    with hospital.today():
        scanner = machine(folder, commands, {"est": hospital.table})
        yield Stage(scanner, ("enroll", "est"), brings=USUAL, issued=hospital.issued)


@contextmanager
def renew_est(folder: Path, commands: Commands) -> Iterator[Stage]:
    hospital = Hospital(folder / "ca")
    scanner = machine(folder, commands, {"est": hospital.table})
    with enrolled_long_ago(scanner, hospital):
        yield Stage(scanner, ("renew",), brings=USUAL, issued=hospital.issued)


@contextmanager
def renew_est_in_a_token(folder: Path, commands: Commands) -> Iterator[Stage]:
    hospital = Hospital(folder / "ca")
    hsm = new_softhsm(folder / "hsm", [TOKEN])
    store = {"module": str(hsm.proxy), "token": TOKEN, "pin_file": str(hsm.pin_file)}
    tables = {"est": hospital.table, "keystore.pkcs11": store, "identity.device": {"key_store": "pkcs11"}}
    scanner = machine(folder, commands, tables, environment=hsm.environment, places=(hsm.tokens,))
    with enrolled_long_ago(scanner, hospital, "--identity", "device"):
        yield Stage(scanner, ("renew",), brings=frozenset({DEVICE}), issued=hospital.issued)


@contextmanager
def enrolled_long_ago(scanner: Machine, hospital: Hospital, *words: str) -> Iterator[None]:
    """With certificates that are due now; the hospital answers."""
    scanner.seconds_later = -LONG_AGO.total_seconds()
    with hospital.long_ago():
        scanner.done("enroll", "est", *words)
    scanner.seconds_later = 0
    with hospital.today():
        yield


@contextmanager
def enrolled_today(scanner: Machine, *words: str) -> Iterator[None]:
    """With certificates that are not due."""
    scanner.done("enroll", "est", *words)
    yield


def settings_tables(settings: EnrollSettings) -> dict[str, dict[str, Any]]:
    """The configuration of a scanner of the tests, whose keys for signing are those that a file may ask for."""
    signing = replace(settings.identity.signing, key_algorithm=KeyAlgorithm(QUICK))
    return tables_of(replace(settings, identity=replace(settings.identity, signing=signing)))


def by_flow_server(flow: FlowName) -> MakeStage:
    """A first enrollment at the server of `tests/support/flow_servers`."""

    @contextmanager
    def stage(folder: Path, commands: Commands) -> Iterator[Stage]:
        module = importlib.import_module(f"tests.support.flow_servers.{flow}")
        with module.server(folder) as server:
            scanner = Machine(folder, commands, settings_tables(server.scanner.settings))
            yield Stage(
                scanner,
                ("enroll", flow, "--identity", server.identity),
                brings=frozenset({server.identity}),
                issued=server.issued,
                gives_again=server.gives_again,
            )

    return stage


STAGES: Mapping[str, MakeStage] = {
    "enroll-est": enroll_est,
    "renew-est": renew_est,
    "renew-est-token": renew_est_in_a_token,
    "enroll-acme": by_flow_server(FlowName.ACME),
    "enroll-cmp": by_flow_server(FlowName.CMP),
    "enroll-scep": by_flow_server(FlowName.SCEP),
}
