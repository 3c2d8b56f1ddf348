"""`scanseal evaluation-fdo` as a hospital tries it out, typed: from the factory to the next owner."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from agent.cli import exits
from agent.cli.main import run
from agent.cli.try_out import SERIAL_NUMBER
from enroll.certificates import pem
from enroll.clock import SystemClock
from enroll.config import DeviceSettings
from enroll.csr import CertificateRequest, Usage, build
from enroll.evaluation.ca import USERNAME, EvaluationCa
from enroll.evaluation.est_authentication import Authentication
from enroll.evaluation.est_server import EstOptions, EstServer
from enroll.fdo.voucher import Voucher
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.keystore.base import PrivateKey
from enroll.statefile import StateFiles
from tests.support import dcmsign
from tests.support.agent_process import wait_until
from tests.support.dicom_samples import ct_slice
from tests.support.fdo import pilot_on_a_network
from tests.support.peer_in_namespace import need_peer
from tests.support.pki import new_key

ROOT = Path(__file__).parents[2]
SCANSEAL = (sys.executable, "-m", "agent.cli.main")
TIMEOUT = 60  # seconds
FREE = ("--port", "0", "--est-port", "0")


@dataclass(frozen=True)
class Scanner:
    """A pretend scanner.

    Args:
        configuration: Of it; everything else is beside it.
        number: Its serial number.
    """

    configuration: Path
    number: str

    def says(self, *words: str | Path, expected: int = exits.OK) -> str:
        """What one of its commands says."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            done = run([*map(str, words), "--config", str(self.configuration)])
        assert done == expected, said.getvalue()
        return said.getvalue()

    def onboarded(self) -> Generation:
        """The device identity after `scanseal enroll fdo`."""
        self.says("enroll", "fdo")
        return self.identity(IdentityName.DEVICE)

    def identity(self, name: IdentityName) -> Generation:
        current = IdentityStore(self.directory / "scanner", StateFiles()).current(name)
        assert current is not None
        return current

    @property
    def directory(self) -> Path:
        return self.configuration.parent

    def sign_and_verify(self) -> None:
        """Its agent signs an image; this program and another one verify it with the CA that came by FDO."""
        image, signed, log = (self.directory / name for name in ("image.dcm", "signed.dcm", "agent.log"))
        anchors = self.directory / "scanner" / "fdo" / "anchors.pem"
        image.write_bytes(ct_slice(64, 64, self.number))
        with background(["agent", "--config", str(self.configuration)], log):
            wait_until((self.directory / "sign.sock").exists)
            self.says("sign", image, "--output", signed)
        assert run(["verify", str(signed), "--anchor", str(anchors)]) == exits.OK
        if dcmsign.PROGRAM:
            assert dcmsign.verify(signed, anchors).accepted


@dataclass(frozen=True)
class Servers:
    """Servers that run.

    Args:
        facts: What the command says.
        log: What it writes.
    """

    facts: dict[str, Any]
    log: Path

    @property
    def directory(self) -> Path:
        return Path(self.facts["directory"])

    @property
    def incoming(self) -> Path:
        return Path(self.facts["incoming"])

    @property
    def ports(self) -> tuple[str, ...]:
        """The options for the same ports once more."""
        port, est_port = (self.facts[name].rpartition(":")[2] for name in ("url", "renewal"))
        return "--port", port, "--est-port", est_port

    @property
    def scanner(self) -> Scanner:
        """The one whose configuration they have written."""
        return Scanner(Path(self.facts["configuration"]), SERIAL_NUMBER)

    def another_scanner(self, folder: Path, *, key_algorithm: str = "p-256") -> Scanner:
        number = f"CT-{folder.parent.name}"
        text = self.scanner.configuration.read_text("utf-8").replace(SERIAL_NUMBER, number)
        text = text.replace(str(self.directory), str(folder)).replace(
            "[fdo]", f'[fdo]\nkey_algorithm = "{key_algorithm}"'
        )
        folder.mkdir()
        (folder / "passphrase").write_bytes(b"a passphrase for nothing but this test")
        (folder / "passphrase").chmod(0o600)
        (folder / "scanseal.toml").write_text(text, "utf-8")
        return Scanner(folder / "scanseal.toml", number)

    def vouchers(self, owner: str, scanner: Scanner) -> list[Path]:
        """Of a scanner."""
        found = (self.directory / "owners" / owner / "vouchers").glob("*.pem")
        return [path for path in found if scanner.number in _device_of(path)]


def _device_of(voucher: Path) -> str:
    try:
        content = voucher.read_bytes()
    except FileNotFoundError:  # the servers have just taken it away
        return ""
    return Voucher.read(content).device_chain[0].subject.rfc4514_string()


@contextmanager
def background(words: list[str], log: Path) -> Iterator[subprocess.Popen[str]]:
    with (
        log.open("a") as errors,
        subprocess.Popen([*SCANSEAL, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def running(directory: Path, *options: str) -> Iterator[Servers]:
    log = directory.with_name(f"{directory.name}.log")
    with background(["evaluation-fdo", "--directory", str(directory), "--json", *(options or FREE)], log) as process:
        assert process.stdout
        line = process.stdout.readline()
        assert line, log.read_text()
        yield Servers(json.loads(line), log)


@contextmanager
def banner_of(directory: Path, *options: str) -> Iterator[str]:
    """What the command says to a person."""
    log = directory.with_name(f"{directory.name}.log")
    with background(["evaluation-fdo", "--directory", str(directory), *options], log) as process:
        assert process.stdout
        lines: list[str] = []
        while not lines or not lines[-1].startswith("Stop with"):
            lines.append(process.stdout.readline())
            assert lines[-1], log.read_text()
        yield "".join(lines)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """For all tests that need nothing special."""
    with running(tmp_path_factory.mktemp("p") / "d", *FREE, "--owner", "clinic") as shared:
        yield shared


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its name is short, because that of a socket has to be."""
    return tmp_path_factory.mktemp("q") / "d"


@pytest.fixture
def scanner(servers: Servers, directory: Path) -> Scanner:
    """One that comes from its factory."""
    scanner = servers.another_scanner(directory)
    scanner.says("fdo", "init")
    return scanner


def test_from_the_factory_to_a_signed_image_and_its_renewal(servers: Servers) -> None:
    scanner = servers.scanner
    assert servers.facts["not_for_production"] is True
    made = json.loads(scanner.says("fdo", "init", "--json"))
    assert [path.stem for path in servers.vouchers("hospital", scanner)] == [made["guid"]]
    device = scanner.onboarded()
    assert device.flow == "fdo"
    scanner.sign_and_verify()

    scanner.says("renew", "--force")

    assert scanner.identity(IdentityName.DEVICE).flow == "est"
    assert scanner.identity(IdentityName.DEVICE).number == device.number + 1
    assert scanner.identity(IdentityName.SIGNING).flow == "est"


def test_a_restart_changes_nothing(directory: Path) -> None:
    """Keys, vouchers, owners and the CA are there; the scanner is registered at the rendezvous server again."""
    with running(directory, *FREE, "--owner", "clinic") as servers:
        servers.scanner.says("fdo", "init")
        servers.scanner.onboarded()
    with banner_of(directory, *servers.ports) as banner:
        servers.scanner.says("renew", "--force")
        assert servers.scanner.identity(IdentityName.DEVICE).flow == "est"
        again = servers.scanner.onboarded()

    assert (again.number, again.flow) == (3, "fdo")
    assert "kept as it was\n" in banner
    assert "hospital, clinic; their keys" in banner


def test_a_restart_elsewhere_than_the_scanner_knows_is_told(directory: Path) -> None:
    """It keeps where its manufacturer is, and where its owner told it to renew."""
    with running(directory) as servers:
        servers.scanner.says("fdo", "init")
        servers.scanner.onboarded()
    with banner_of(directory, *FREE) as banner:
        assert f"Its server is {servers.facts['url']}: start with the --port of that" in banner
        assert f"It renews at {servers.facts['renewal']}: start with the --est-port or --est-url of that" in banner


def test_on_a_network_there_is_no_pretend_scanner(tmp_path: Path) -> None:
    """DI proves nothing: whoever reached a manufacturer could be any scanner."""
    need_peer("ip", "iproute2")
    banner, line = (on_a_network(tmp_path, *options) for options in ((), ("--json",)))

    assert "(rendezvous server, owners)" in banner
    assert json.loads(line)["configuration"] is None
    for absent in ("manufacturer", "fdo init", "scanseal.toml", "pretend"):
        assert absent not in banner.replace(str(tmp_path), "")
    assert {path.name for path in (tmp_path / "pilot").iterdir()} == {"owners", "incoming"}


def on_a_network(folder: Path, *options: str) -> str:
    command = [*pilot_on_a_network.ENTER, str(folder), *options]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout


def test_a_scanner_is_taken_over_again_and_again(servers: Servers, scanner: Scanner) -> None:
    guids = set()
    for _ in range(3):
        assert scanner.onboarded().flow == "fdo"
        (voucher,) = servers.vouchers("hospital", scanner)
        guids.add(voucher.stem)

    assert len(guids) == 3


def test_a_scanner_comes_to_its_owner_without_a_rendezvous_server(directory: Path) -> None:
    """FDO 1.1, 3.3.2: RVBypass."""
    with running(directory, *FREE, "--bypass") as servers:
        servers.scanner.says("fdo", "init")
        assert servers.scanner.onboarded().flow == "fdo"
        assert servers.scanner.onboarded().flow == "fdo"

    log = servers.log.read_text()
    assert "/msg/60 " in log
    assert not [number for number in (20, 30) if f"/msg/{number} " in log]


@pytest.mark.parametrize("algorithm", ["p-384", "rsa-2048", "rsa-3072"])
def test_the_servers_have_a_key_for_each_kind_of_scanner(servers: Servers, directory: Path, algorithm: str) -> None:
    scanner = servers.another_scanner(directory, key_algorithm=algorithm)
    scanner.says("fdo", "init")

    assert scanner.onboarded().flow == "fdo"


def test_a_scanner_is_sold(servers: Servers, scanner: Scanner) -> None:
    before = scanner.onboarded()
    (voucher,) = servers.vouchers("hospital", scanner)
    owners = servers.directory / "owners"
    sold = ["fdo", "voucher", "extend", voucher, "--key", owners / "hospital" / "keys" / "P-256.key"]
    sold += ["--to", owners / "clinic" / "keys" / "P-256.pem", "--output", servers.incoming / "sold.pem"]
    assert run([str(word) for word in sold]) == exits.OK
    wait_until(lambda: servers.vouchers("clinic", scanner) and not servers.vouchers("hospital", scanner))
    scanner.says("enroll", "fdo", expected=exits.NOT_PERMITTED)  # until its owner gives it up
    scanner.says("owner", "release", "--yes")
    scanner.says("enroll", "fdo", expected=exits.TRY_LATER)
    waiting = json.loads(scanner.says("status", "--json", expected=exits.UNAVAILABLE))["fdo"]["approval"][0]
    scanner.says("fdo", "approve", waiting["owner"])

    after = scanner.onboarded()

    (bought,) = servers.vouchers("clinic", scanner)
    assert after.certificate != before.certificate
    assert bought.stem != voucher.stem
    scanner.sign_and_verify()


def test_a_voucher_of_another_maker_is_taken(servers: Servers, scanner: Scanner, tmp_path: Path) -> None:
    """FDO 1.1, 5.3: the scanner asks the rendezvous server of its maker, so the hospital registers there."""
    hospital = tmp_path / "hospital"
    keys = Path("owners", "hospital", "keys")
    shutil.copytree(servers.directory / keys, hospital / keys)
    (voucher,) = servers.vouchers("hospital", scanner)
    with running(hospital, *FREE) as own:
        shutil.move(voucher, own.incoming)  # the maker does not own it
        wait_until(lambda: "/msg/22 " in own.log.read_text() and not list(own.incoming.iterdir()))
        assert scanner.onboarded().flow == "fdo"
        again = scanner.onboarded()  # without its maker now

        assert own.vouchers("hospital", scanner)
    again.certificate.verify_directly_issued_by(EvaluationCa.create_or_open(hospital / "ca", SystemClock()).certificate)


def test_what_is_no_voucher_of_an_owner_here_stays_and_is_told_of_once(servers: Servers, scanner: Scanner) -> None:
    incoming = servers.incoming
    (incoming / "letter.txt").write_text("Dear customer")
    wait_until(lambda: "letter.txt is not taken" in servers.log.read_text())
    (voucher,) = servers.vouchers("hospital", scanner)
    whole = voucher.read_bytes()
    (incoming / "cut.pem").write_bytes(whole[:-100])
    wait_until(lambda: "cut.pem is not taken" in servers.log.read_text())
    (incoming / "cut.pem").write_bytes(whole)
    wait_until(lambda: not (incoming / "cut.pem").exists())

    assert (incoming / "letter.txt").exists()
    assert servers.log.read_text().count("letter.txt is not taken") == 1


# --- a bridge to an EST server


@pytest.fixture
def est(tmp_path: Path) -> Iterator[EstServer]:
    ca = EvaluationCa.create_or_open(tmp_path / "hospital-ca", SystemClock())
    with EstServer(ca, options=EstOptions(labels=("", "imaging"))) as server:
        yield server


def bridge(est: EstServer, *more: str) -> tuple[str, ...]:
    ca = est.ca
    trust = ("--est-url", est.url, "--est-anchor", str(ca.anchor_file))
    return ("--port", "0", *trust, "--est-username", USERNAME, "--est-password-file", str(ca.password_file), *more)


def test_certificates_come_from_an_est_server_of_the_hospital(directory: Path, est: EstServer) -> None:
    with running(directory, *bridge(est, "--est-label", "imaging")) as servers:
        assert servers.facts["renewal"] == f"{est.url} imaging"
        servers.scanner.says("fdo", "init")
        device = servers.scanner.onboarded()
        servers.scanner.says("renew", "--force")

    device.certificate.verify_directly_issued_by(est.ca.certificate)
    assert servers.scanner.identity(IdentityName.DEVICE).flow == "est"


def test_the_bridge_shows_a_certificate_to_a_server_that_wants_one(
    directory: Path, tmp_path: Path, est: EstServer
) -> None:
    """The evaluation CA lets a certificate enroll for its own serial number, so this one has that of the scanner."""
    key = new_key()
    scanner = DeviceSettings(serial_number=SERIAL_NUMBER)
    certificate = est.ca.issue(build(key, CertificateRequest.for_device(scanner, Usage.DEVICE)))
    (tmp_path / "pilot.pem").write_bytes(pem([certificate]))
    (tmp_path / "pilot.key").write_bytes(key_bytes(key))
    est.options = EstOptions(authentication=Authentication.CERTIFICATE)
    identity = ("--est-certificate", str(tmp_path / "pilot.pem"), "--est-key", str(tmp_path / "pilot.key"))
    trust = ("--est-url", est.url, "--est-anchor", str(est.ca.anchor_file))

    with running(directory, "--port", "0", *trust, *identity) as servers:
        servers.scanner.says("fdo", "init")
        assert servers.scanner.onboarded().flow == "fdo"


def key_bytes(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda est: ("--est-url", est.url), "--est-anchor"),
        (lambda est: ("--est-anchor", str(est.ca.anchor_file)), "--est-url"),
        (lambda est: bridge(est, "--est-key", "key.pem"), "--est-certificate"),
        (lambda est: bridge(est, "--est-label", "a/b"), "label"),
        (lambda _: ("--host", "192.0.2.1"), "--est-url"),
        (lambda _: ("--host", "hospital.example"), "no IP address"),
        (lambda est: bridge(est, "--host", "::"), "cannot be told"),
        (lambda _: ("--owner", "../x"), "no name of an owner"),
        (lambda est: ("--port", "0", "--est-port", est.url.rpartition(":")[2]), "--est-port"),
        (lambda est: ("--est-port", "0", "--port", est.url.rpartition(":")[2]), "--port"),
        (lambda _: ("--port", "8445", "--est-port", "8445"), "--port and --est-port are the same: 8445."),
        (lambda _: ("--port", "8446"), "--port and --est-port are the same: 8446."),
        (lambda est: bridge(est, "--host", "198.51.100.1"), "Port 0 of 198.51.100.1 cannot be used"),
    ],
)
def test_a_wrong_option_is_told(
    directory: Path,
    est: EstServer,
    make: Callable[[EstServer], tuple[str, ...]],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["evaluation-fdo", "--directory", str(directory), *make(est)]) == exits.CONFIGURATION
    assert told in capsys.readouterr().err


def test_a_server_that_does_not_answer_as_est_does_is_told_of(
    directory: Path, est: EstServer, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = bridge(est, "--est-label", "nowhere")

    assert run(["evaluation-fdo", "--directory", str(directory), *wrong]) == exits.UNAVAILABLE
    assert "404" in capsys.readouterr().err


def test_an_est_server_that_wants_requests_linked_is_told_of_at_once(
    directory: Path, est: EstServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """RFC 7030 3.5: the connection is not that of the scanner."""
    est.options = EstOptions(proof_of_possession=True)

    assert run(["evaluation-fdo", "--directory", str(directory), *bridge(est)]) == exits.CONFIGURATION
    assert "linked" in capsys.readouterr().err


def test_everything_is_private(servers: Servers) -> None:
    keys = [path for path in servers.directory.rglob("*") if path.suffix == ".key"]

    assert keys
    assert {path.stat().st_mode & 0o077 for path in keys} == {0}
    assert servers.directory.stat().st_mode & 0o007 == 0
