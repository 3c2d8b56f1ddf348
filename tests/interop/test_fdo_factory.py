"""`scanseal fdo init` is killed while it talks to the manufacturer; its keys are in SoftHSM. FDO 1.1, 5.2."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.cli import exits
from enroll.config import KeyStoreSettings, Pkcs11StoreSettings
from enroll.keystore import KeyStores
from enroll.statefile import StateFiles
from tests.support.fdo.factory import DONE, GOOD_HEADER, GUID
from tests.support.pki import HospitalCa
from tests.support.scripted_server import Request, ScriptedServer, answer
from tests.support.softhsm import SoftHsm, new_softhsm

ROOT = Path(__file__).parents[2]
CA = HospitalCa()
TIMEOUT = 60  # seconds
TOKEN = "factory"
# A process that was started in the background ignores Ctrl-C, and so do those that it starts.
COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from agent.cli.main import main
main()
"""
CONFIGURATION = """
state_directory = "{folder}/state"
[device]
serial_number = "CT-000123"
model = "Example CT"
[keystore.pkcs11]
module = "{hsm.proxy}"
token = "{token}"
pin_file = "{hsm.pin_file}"
[fdo]
factory_mode = true
manufacturer_url = "{url}"
key_encoding = "X509"
key_store = "pkcs11"
"""


@dataclass
class Line:
    """A scanner, and a manufacturer that ends it.

    Args:
        folder: For both.
        hsm: Where its keys are.
    """

    folder: Path
    hsm: SoftHsm
    at: int = 0  # the number of the message at which it ends; 0 for none
    answered: bool = False  # whether its message is answered first
    how: signal.Signals = signal.SIGKILL
    numbers: list[int] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def script(self, request: Request) -> Iterator[bytes]:
        """What the manufacturer does."""
        number = int(request.path.rpartition("/")[2])
        self.numbers.append(number)
        if number == self.at and not self.answered:
            self.end()
            return
        body = {10: GOOD_HEADER, 12: DONE}.get(number, b"")
        headers = (f"Message-Type: {number + 1}", "Authorization: Bearer abc")
        yield answer(body, "200 OK", "application/cbor", *headers)
        if number == self.at:
            self.end()

    def end(self) -> None:
        assert self.process
        self.process.send_signal(self.how)
        self.process.wait(TIMEOUT)

    def init(self, url: str) -> tuple[int, str, str]:
        """The command: how it ended, and what it said."""
        configuration = self.folder / "scanseal.toml"
        configuration.write_text(CONFIGURATION.format(folder=self.folder, hsm=self.hsm, token=TOKEN, url=url), "utf-8")
        command = [sys.executable, "-c", COMMAND, "fdo", "init", "--json", "--config", str(configuration)]
        environment = {**os.environ, **self.hsm.environment}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)
        said, error = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, said, error

    def run(self, at: int = 0, how: signal.Signals = signal.SIGKILL, *, answered: bool = False) -> tuple[int, str, str]:
        """The command, which ends at a message."""
        self.at, self.how, self.answered = at, how, answered
        with ScriptedServer(CA, self.folder, self.script) as server:
            return self.init(server.url)

    def made(self) -> set[str]:
        """What is in the token."""
        settings = Pkcs11StoreSettings(self.hsm.copy("look"), TOKEN, self.hsm.pin_file)
        stores = KeyStores(KeyStoreSettings(pkcs11=settings), self.folder, StateFiles())
        try:
            return set(stores.list())
        finally:
            stores.close()


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    hsm = new_softhsm(tmp_path / "hsm", [TOKEN])
    for name, value in hsm.environment.items():
        monkeypatch.setenv(name, value)
    return Line(tmp_path, hsm)


@pytest.mark.parametrize("at", [10, 12])
@pytest.mark.parametrize("answered", [False, True], ids=["unanswered", "answered"])
def test_after_a_kill_the_next_run_leaves_one_credential_and_its_keys(line: Line, at: int, *, answered: bool) -> None:
    line.run(at, answered=answered)

    code, said, error = line.run()

    assert len(line.made()) == 2
    if code == exits.OK:
        found = json.loads(said)
        assert found["guid"] == GUID.hex()
        assert found["key"] in line.made()
    else:  # the answer to message 12 came first
        assert (at, answered) == (12, True), error
        assert json.loads(said)["error"]["code"] == "fdo-initialized"
    # A file that was being written may be left under a name that nobody reads.
    assert [path.name for path in (line.folder / "state" / "fdo").glob("[!.]*")] == ["credential.current"]


@pytest.mark.parametrize("at", [10, 12])
def test_who_interrupts_it_leaves_nothing(line: Line, at: int) -> None:
    """Ctrl-C."""
    code, _, error = line.run(at, signal.SIGINT)

    assert (code, "Interrupted." in error) == (exits.INTERRUPTED, True)
    assert line.made() == set()
    assert list((line.folder / "state" / "fdo").iterdir()) == []
