"""A scanner whose commands are killed, or get no answer, while they talk to manufacturer and owner; and what is left.

with Site(folder) as site, QuickStart() as processes:
    scanner = Scanner(folder / "scanner", site, processes)
    scanner.run("enroll", "fdo", cut=Cut(MessageType.TO2_DONE, 1, Moment.PROCESSED))
    scanner.until_done("enroll", "fdo")
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from agent.cli import exits
from enroll.certificates import check_pair
from enroll.config import KeyStoreSettings, Pkcs11StoreSettings, SoftwareStoreSettings
from enroll.evaluation.ca import EvaluationCa
from enroll.evaluation.est_server import EstServer
from enroll.evaluation.fdo.owner import Owner
from enroll.evaluation.fdo.sessions import Reply
from enroll.fdo.credential import CredentialStore, read_unauthenticated
from enroll.fdo.messages import MessageType
from enroll.identity import IdentityName, IdentityStore
from enroll.keystore import KeyStores
from enroll.statefile import StateFiles
from tests.support.fdo.parties import Parties
from tests.support.fdo.quick_start import TIMEOUT, Order
from tests.support.softhsm import SoftHsm

ROOT = Path(__file__).parents[3]
TOKEN = "scanner"
RUNS = 4  # of a command until it has to be done
WAIT = 600.0  # seconds between two of them; more than any directive here says


class Moment(StrEnum):
    """Of an exchange of messages."""

    SENT = "killed before the server has seen it"
    PROCESSED = "killed before the server answers"
    DELIVERED = "killed when the answer has come"
    UNHEARD = "the connection ends before the server has seen it"
    DROPPED = "the connection ends before the server answers"

    @property
    def is_survived(self) -> bool:
        """Whether the process lives on."""
        return self in (Moment.UNHEARD, Moment.DROPPED)


@dataclass(frozen=True)
class Cut:
    """Where a run ends, or is disturbed.

    Args:
        message: Of the scanner.
        count: Which one of that number, in one run.
        moment: Of that exchange.
    """

    message: MessageType
    count: int
    moment: Moment

    def __str__(self) -> str:
        return f"{self.message:d}-{self.count}-{self.moment.name.lower()}"


class QuickStart:
    """Processes that start at once; see `quick_start`."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.support.fdo.quick_start"]
        pipe = subprocess.PIPE
        self._server = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        self.process = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate(timeout=2 * TIMEOUT)

    def start(self, order: Order) -> None:
        assert self._server.stdin
        self._server.stdin.write(order.encode())
        self._server.stdin.flush()
        self.process = self._number()

    def wait(self) -> int:
        """How it ended: as `subprocess` says it."""
        return self._number()

    def kill(self) -> None:
        os.kill(self.process, signal.SIGKILL)

    def _number(self) -> int:
        assert self._server.stdout
        return int(self._server.stdout.readline())


class Site(Parties):
    """All servers, with an EST server for what is enrolled after the device identity."""

    def __init__(self, folder: Path, **terms: Any) -> None:
        super().__init__(folder, **terms)
        self.est = EstServer(self.ca)  # where the scanner renews, and gets its certificates for signing
        self.heard: list[int] = []
        self.scanner: Scanner | None = None  # the one that talks
        self.meanwhile: Callable[[int], None] = lambda _: None  # called when a message has come
        self._answer = self.services.answer
        self.services.answer = self._watched  # type: ignore[method-assign]

    def __enter__(self) -> Self:
        self.est.start()
        return super().__enter__()

    def __exit__(self, *failure: object) -> None:
        super().__exit__(*failure)
        self.est.stop()

    @property
    def guids(self) -> list[bytes]:
        """The devices that the owner knows."""
        return [voucher.header.guid for voucher in self.owner.vouchers.all()]

    def forget(self) -> None:
        """Nobody knows any device any more, as where vouchers without an entry are not registered."""
        for guid in self.guids:
            self.owner.vouchers.remove(guid)

    def _watched(self, number: int, token: str, body: bytes) -> Reply:
        self.heard.append(number)
        self.meanwhile(number)
        cut = self.scanner.awaited(number) if self.scanner else None
        if cut is None:
            return self._answer(number, token, body)
        assert self.scanner
        if cut.moment in (Moment.PROCESSED, Moment.DROPPED):
            self._answer(number, token, body)
        if cut.moment in (Moment.SENT, Moment.PROCESSED):
            self.scanner.processes.kill()
        raise ConnectionError("cut")


@dataclass
class Scanner:
    """A scanner whose commands are processes.

    Args:
        folder: Of its own.
        site: Where it is.
        processes: Starts them.
        hsm: Where its keys are; None for files.
    """

    folder: Path
    site: Site
    processes: QuickStart
    hsm: SoftHsm | None = None
    cut: Cut | None = None
    runs: int = 0
    counted: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        passphrase = self.folder / "passphrase"
        passphrase.write_text("a passphrase\n")
        passphrase.chmod(0o600)
        lines = [f'state_directory = "{self.state}"']
        for name, table in self.tables.items():
            lines += [f"[{name}]", *(f"{option} = {json.dumps(value)}" for option, value in table.items())]
        self.configuration.write_text("\n".join(lines), "utf-8")

    @property
    def tables(self) -> dict[str, dict[str, Any]]:
        """Its configuration. The keys that sign images are the agent's, so nothing is enrolled but the device."""
        store, hsm = "pkcs11" if self.hsm else "software", self.hsm
        return {
            "device": {"serial_number": "CT-000123", "model": "Example CT"},
            "keystore.software": {"passphrase_file": str(self.folder / "passphrase")},
            **(
                {"keystore.pkcs11": {"module": str(hsm.proxy), "token": TOKEN, "pin_file": str(hsm.pin_file)}}
                if hsm
                else {}
            ),
            "identity.device": {"key_algorithm": "p-256", "key_store": store},
            "identity.signing": {"key_store": "memory"},
            "est": {"url": self.site.est.url},
            "fdo": {
                "factory_mode": True,
                "manufacturer_url": self.site.url,
                "key_encoding": "X509",
                "key_store": store,
                "renewal": "est",
                "approval": "never",
            },
        }

    def awaited(self, number: int) -> Cut | None:
        """The cut, where this is the message that it is about."""
        self.counted[number] += 1
        cut = self.cut
        return cut if cut and (number, self.counted[number]) == (cut.message, cut.count) else None

    def start(self, *words: str, **ends: Any) -> None:
        """Start a command; `ends` are those of `Order`."""
        self.counted.clear()
        self.site.scanner = self
        words = (*words, "--config", str(self.configuration))
        environment = self.hsm.environment if self.hsm else {}
        later = WAIT * self.runs
        self.runs += 1
        self.processes.start(Order(words, str(self.output), environment, later, **ends))

    def run(self, *words: str, cut: Cut | None = None, **ends: Any) -> int:
        """One run of a command: how it ended."""
        self.cut = cut
        if cut and cut.moment is Moment.DELIVERED:
            self.cut, ends = None, {"answer": (int(cut.message), cut.count)}
        self.start(*words, **ends)
        code = self.processes.wait()
        self.cut = None
        return code

    def run_traced(self, call: str, number: int, *words: str) -> int:
        """One run, as it is started by hand, that strace kills at a system call: how strace ended, as it does."""
        injected = f"inject={call}:signal=SIGKILL:when={number}"
        tracer = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", injected]
        command = [*tracer, sys.executable, "-m", "agent.cli.main", *words, "--config", str(self.configuration)]
        environment = {**os.environ, **(self.hsm.environment if self.hsm else {})}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=TIMEOUT, check=False)
        return done.returncode

    def until_done(self, *words: str) -> list[int]:
        """Run it again, with time going by, until it is done; how each run ended."""
        codes: list[int] = []
        while not codes or codes[-1] == exits.TRY_LATER:
            codes.append(self.run(*words))
            assert len(codes) <= RUNS, self.said
        return codes

    @property
    def configuration(self) -> Path:
        return self.folder / "scanseal.toml"

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def said(self) -> str:
        """What the last run has said."""
        return self.output.read_text("utf-8")

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @contextmanager
    def stores(self) -> Iterator[KeyStores]:
        """Its keys, as this process sees them."""
        software = SoftwareStoreSettings(passphrase_file=self.folder / "passphrase")
        settings = KeyStoreSettings(software=software)
        if self.hsm:
            pkcs11 = Pkcs11StoreSettings(self.hsm.copy("look"), TOKEN, self.hsm.pin_file)
            settings = replace(settings, pkcs11=pkcs11)
        stores = KeyStores(settings, self.state, StateFiles())
        try:
            yield stores
        finally:
            stores.close()

    @property
    def guid(self) -> bytes:
        """Of its credential."""
        return read_unauthenticated(self.state / "fdo", StateFiles())[0].guid

    @property
    def credentials(self) -> set[str]:
        """The files of its credentials."""
        return {path.name for path in (self.state / "fdo").glob("credential.*")}

    def check_onboarded(self, owner: Owner, ca: EvaluationCa) -> None:
        """It has its certificate, one credential, which is the only one that its owner knows, and no key but theirs."""
        with self.stores() as stores:
            assert self.credentials == {"credential.current"}
            credential = CredentialStore(self.state / "fdo", stores, StateFiles()).current()
            assert credential is not None
            assert credential.owner is not None
            assert [voucher.header.guid for voucher in owner.vouchers.all()] == [credential.guid]
            self.check_identities(stores, ca)
            assert set(stores.list()) == {credential.key_uri, credential.secret_uri, *self.identity_keys()}

    def check_identities(self, stores: KeyStores, ca: EvaluationCa) -> None:
        """The device identity has a certificate of the CA for its key, and no request for another one is under way."""
        identities = IdentityStore(self.state, StateFiles())
        current = identities.current(IdentityName.DEVICE)
        assert current is not None
        check_pair(stores.load(current.key_uri), current.certificate)
        current.certificate.verify_directly_issued_by(ca.certificate)
        pending = identities.journal(IdentityName.DEVICE).read()
        assert pending is None or pending.key_uri == current.key_uri

    def identity_keys(self) -> set[str]:
        """Those of the generation in use and of the one before, of every identity."""
        identities = IdentityStore(self.state, StateFiles())
        return {
            identities.key_uri(name, number) for name in IdentityName for number in identities.generations(name)[-2:]
        }

    def check_kept(self) -> None:
        """It has the certificate that its owner gave it before nobody knew it any more, and no key that is unknown."""
        with self.stores() as stores:
            credentials = CredentialStore(self.state / "fdo", stores, StateFiles()).candidates()
            issued = [each.owner.issued for each in credentials if each.owner]
            current = IdentityStore(self.state, StateFiles()).current(IdentityName.DEVICE)
            assert current is not None
            assert current.certificate in [certificate for chain in issued for certificate in chain]
            self.check_identities(stores, self.site.ca)
            assert set(stores.list()) == {credentials[0].key_uri, credentials[0].secret_uri, *self.identity_keys()}

    def check_released(self) -> None:
        """Nothing is left of the owner, and its keys are gone."""
        with self.stores() as stores:
            (credential,) = CredentialStore(self.state / "fdo", stores, StateFiles()).candidates()
            assert (credential.owner, credential.was_owned) == (None, True)
            assert {path.name for path in (self.state / "fdo").iterdir()} == {"credential.current"}
            assert set(stores.list()) == {credential.key_uri, credential.secret_uri}
            assert IdentityStore(self.state, StateFiles()).current(IdentityName.DEVICE) is None
            assert not (self.state / "release.json").exists()
