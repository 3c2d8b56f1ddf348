"""What the guide to FIDO Device Onboard tells a reader to type, typed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from agent import config
from agent.cli import exits
from agent.cli.try_out import SERIAL_NUMBER
from enroll.clock import SystemClock
from enroll.evaluation.ca import USERNAME, EvaluationCa
from enroll.evaluation.est_server import EstServer
from enroll.evaluation.fdo.owner_modules import RenewalOwnerModule
from enroll.fdo import cbor
from enroll.fdo.hand_over import NAME, RenewalModule
from enroll.fdo.service_info import ACTIVE
from enroll.flows.settings import FlowName
from enroll.statefile import StateFiles
from tests.support.agent_process import wait_until
from tests.support.dicom_samples import ct_slice
from tests.support.openssl import needs_openssl

ROOT: Final = Path(__file__).parents[2]
GUIDE: Final = (ROOT / "docs/fdo.md").read_text("utf-8")
SERVE, FACTORY, HOSPITAL, AGENT, SIGN, PILOT, SELL, BUY = (
    block.splitlines() for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
)
OF_FACTORY, OF_RENEWAL, OF_POLICY = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
SCANNER: Final = '[device]\nmodel = "CT 9000"\nserial_number = "CT-0001"\n'
TIMEOUT: Final = 60  # seconds


@dataclass(frozen=True)
class Place:
    """Where somebody types, with scanseal on the PATH."""

    folder: Path

    def start(self, command: str) -> subprocess.Popen[str]:
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            ["sh", "-c", command], cwd=self.folder, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )

    def typed(self, command: str, answer: str = "", code: int = exits.OK) -> str:
        with self.start(command) as process:
            said, complaints = process.communicate(answer, timeout=TIMEOUT)
        assert process.returncode == code, f"{command}\n{said}{complaints}"
        return said

    @contextmanager
    def serving(self, command: str) -> Iterator[dict[str, Any]]:
        """The servers of the guide, on free ports instead of the usual ones; what they say."""
        with self.start(f"exec {command} --port 0 --est-port 0 --json 2>>{self.folder}/servers.log") as process:
            assert process.stdout
            try:
                line = process.stdout.readline()
                assert line, (self.folder / "servers.log").read_text()
                yield json.loads(line)
            finally:
                process.send_signal(signal.SIGTERM)

    @contextmanager
    def agent(self) -> Iterator[None]:
        (command,) = AGENT
        with self.start(f"exec {command} 2>agent.log >&2") as process:
            try:
                wait_until((self.folder / "fdo/sign.sock").exists)
                yield
            finally:
                process.send_signal(signal.SIGTERM)


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("g")  # the name of a socket has to be short
    program = folder / "bin" / "scanseal"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m agent.cli.main "$@"\n', "ascii")
    program.chmod(0o755)
    return Place(folder)


@needs_openssl
def test_from_the_factory_to_the_next_owner(place: Place) -> None:
    (serve,) = SERVE
    with place.serving(serve) as servers:
        assert servers["owners"] == ["hospital", "clinic"]
        make_it(place)
        take_it_over(place)
        sign_and_renew(place)
        fingerprint = sell_it(place)
        buy_it(place, fingerprint)


def make_it(place: Place) -> None:
    init, leave, show = FACTORY
    assert "has its FDO credential, with the GUID" in place.typed(init)
    place.typed(leave)
    assert "factory_mode = false" in (place.folder / "fdo/scanseal.toml").read_text()
    shown = place.typed(show)
    assert re.search(r"owner now +CN=hospital", shown)
    assert "rendezvous " in shown


def take_it_over(place: Place) -> None:
    verify, plan, enroll, status = HOSPITAL
    assert re.search(r"manufacturer: +passed", place.typed(verify))
    assert "Nothing was sent." in place.typed(plan)
    place.typed(enroll)
    said = place.typed(status)
    assert re.search(r"fdo +owned by the holder of the key \w{64}, renewed by est", said)
    assert re.search(r"device +generation 1, .*\(fdo\)", said)
    assert re.search(r"signing +generation 1, .*\(est\)", said)


def sign_and_renew(place: Place) -> None:
    sign, verify, renew = SIGN
    (place.folder / "image.dcm").write_bytes(ct_slice(64, 64, SERIAL_NUMBER))
    with place.agent():
        place.typed(sign)
    assert " VALID:" in place.typed(verify)
    assert place.typed(renew).count("(generation 2)") == 2


def sell_it(place: Place) -> str:
    """The fingerprint of the buyer."""
    ask, extend, release, owners = SELL
    (known,) = re.findall(r"\w{64}", place.typed(ask))
    (fingerprint,) = re.findall(r"owner fingerprint +(\w{64})", place.typed(extend))
    assert fingerprint == known
    wait_until(lambda: "clinic owns " in (place.folder / "servers.log").read_text())
    refused = place.typed(f"{BUY[0]} 2>&1", code=exits.NOT_PERMITTED)
    assert "[owner-refused]: This scanner has another owner" in refused
    assert "By hand" in place.typed(release, "y\n")
    kept = place.folder / "fdo/scanner"
    assert sorted(path.name for path in (kept / "fdo").iterdir()) == ["credential.current"]
    assert (kept / "audit/audit.jsonl").exists()
    assert "owns it now: CN=clinic" in place.typed(owners)
    return str(fingerprint)


def buy_it(place: Place, fingerprint: str) -> None:
    enroll, approve, again, status = BUY
    assert fingerprint in place.typed(enroll, code=exits.TRY_LATER)
    assert "waits for approval" in place.typed(status)
    place.typed(approve.replace("FINGERPRINT", fingerprint))
    place.typed(again)
    assert f"owned by the holder of the key {fingerprint}" in place.typed(status)


def test_the_pilot_with_an_est_server_of_the_hospital(place: Place) -> None:
    ca = EvaluationCa.create_or_open(place.folder / "ca", SystemClock())
    shutil.copy(ca.anchor_file, place.folder / "hospital-ca.pem")
    shutil.copy(ca.password_file, place.folder / "password")
    (pilot,) = PILOT
    with EstServer(ca) as est:
        here = pilot.replace("https://est.hospital.example", est.url).replace("pilot --est-p", f"{USERNAME} --est-p")
        with place.serving(here) as servers:
            assert servers["renewal"] == est.url
            for command in (FACTORY[0], HOSPITAL[2]):
                place.typed(command.replace("fdo/scanseal.toml", "pilot/scanseal.toml"))
            status = place.typed(HOSPITAL[3].replace("fdo/scanseal.toml", "pilot/scanseal.toml"))

    assert "renewed by est" in status


@pytest.mark.parametrize("settings", [OF_FACTORY, SCANNER + OF_RENEWAL, SCANNER + OF_POLICY])
def test_its_configuration_is_accepted(settings: str, tmp_path: Path) -> None:
    path = tmp_path / "scanseal.toml"
    path.write_text(settings, "utf-8")

    config.load(path, StateFiles())


def test_what_it_says_of_the_module_of_renewal_is_what_the_module_takes() -> None:
    (example,) = re.findall(r"`(\[\"est\", [^`]*\])`", GUIDE)
    module = RenewalModule()

    assert module.receive("renewal", cbor.read(cbor.encode(json.loads(example)))) == []

    assert module.renewal is not None
    assert (module.renewal.flow, module.renewal.url, module.renewal.label) == (
        FlowName.EST,
        "https://est.hospital.example",
        "",
    )
    (statement,) = RenewalOwnerModule(module.renewal).begin()
    keys = re.findall(r"^\| `(scanseal\.renewal:\w+)` \|", GUIDE, re.MULTILINE)
    assert keys == [f"{NAME}:{ACTIVE}", f"{statement.module}:{statement.name}"]


def test_every_code_in_it_is_one_that_is_said() -> None:
    _, _, text = GUIDE.partition("## When it does not work")
    named = {code for row in re.findall(r"^\| (`[a-z-]+`[^|]*)\|", text, re.MULTILINE) for code in codes_in(row)}
    source = "".join(path.read_text("utf-8") for name in ("enroll", "agent") for path in (ROOT / name).rglob("*.py"))
    said = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', source))
    said |= {f"certificate-{check}" for check in re.findall(r'refused\(\s*"([a-z-]+)"', source)}

    assert len(named) > 15
    assert named - said == set()


def codes_in(row: str) -> list[str]:
    return re.findall(r"`([a-z]+(?:-[a-z]+)+)`", row)


def test_every_way_in_which_fdo_fails_is_in_it() -> None:
    folders = ("enroll/fdo", "agent/cli/fdo")
    source = "".join(path.read_text("utf-8") for folder in folders for path in (ROOT / folder).rglob("*.py"))
    source += (ROOT / "enroll/flows/fdo.py").read_text("utf-8")
    said = set(re.findall(r'code ?= ?"([a-z-]+)"', source))

    # Two never get out: the command ends with 75 and says them in words.
    assert said - set(codes_in(GUIDE)) == {"owner-not-reached", "owner-not-approved"}
