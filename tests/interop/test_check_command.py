"""`scanseal check` on real scanners: keys in files, in SoftHSM and in a simulated TPM, and all that may be wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.cli import exits
from agent.cli.main import run
from enroll.identity import IdentityName
from tests.support.agent_process import Scanner, new_scanner, running_agent, wait_until
from tests.support.hospital import Hospital
from tests.support.other_user import NOBODY
from tests.support.records import set_key_uri
from tests.support.softhsm import PIN, SECURITY_OFFICER_PIN
from tests.support.swtpm import running_swtpm

ROOT = Path(__file__).parents[2]
TOKEN = "checked"
WRONG_PIN = "not-the-pin-31415"

Tables = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Answer:
    """What the command said.

    Args:
        code: Its exit code.
        findings: Each by its check and subject.
        text: All it wrote.
    """

    code: int
    findings: dict[tuple[str, str], dict[str, str]]
    text: str

    def state(self, check: str, subject: str = "") -> str:
        """What came out of one check."""
        return self.findings[check, subject]["state"]

    def wrong(self) -> set[tuple[str, str]]:
        """The checks that did not end well."""
        return {name for name, found in self.findings.items() if found["state"] in {"failed", "unavailable"}}


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path / "ca")


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    (tmp_path / "scanner").mkdir()
    with new_scanner(tmp_path / "scanner") as scanner:
        scanner.state.chmod(0o750)
        yield scanner


@pytest.fixture
def check(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """The command in this process."""

    def checked(configuration: Path, *options: str) -> Answer:
        capfd.readouterr()
        code = run(["check", "--json", "--config", str(configuration), *options])
        return answer(code, *capfd.readouterr())

    return checked


def answer(code: int, output: str, errors: str) -> Answer:
    listed = json.loads(output)["findings"]
    for found in listed:
        assert found["remedy"] or found["state"] in {"ok", "not-applicable"}, found
    found = {(entry["check"], entry["subject"]): entry for entry in listed}
    assert len(found) == len(listed)
    return Answer(code, found, output + errors)


def checked_apart(configuration: Path, environment: dict[str, str], *options: str) -> Answer:
    """The command in a process of its own: a PKCS#11 library reads its environment once."""
    command = [sys.executable, "-m", "agent.cli.main", "check", "--json", "--config", str(configuration), *options]
    ran = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    return answer(ran.returncode, ran.stdout, ran.stderr)


# ------------------------------------------------------------------------------------------------ keys in files


@pytest.fixture
def enrolled(scanner: Scanner, hospital: Hospital) -> Path:
    """The configuration of a scanner with both identities, their keys in files."""
    path = scanner.configure(**hospital.tables())
    with hospital.answers():
        assert run(["enroll", "est", "--config", str(path)]) == exits.OK
    return path


def test_a_scanner_that_can_do_its_work_is_told_so(enrolled: Path, check: Callable[..., Answer]) -> None:
    found = check(enrolled)

    assert (found.code, found.wrong()) == (exits.OK, set())
    assert {name[0] for name, finding in found.findings.items() if finding["code"]} <= {"agent"}
    assert found.findings["key", "signing"]["what"].startswith("software")
    assert found.findings["tls-route", ""]["what"].startswith("key-file")


def test_a_scanner_without_certificates_is_told_what_comes_next(
    scanner: Scanner, hospital: Hospital, check: Callable[..., Answer]
) -> None:
    found = check(scanner.configure(**hospital.tables()))

    assert (found.code, found.wrong()) == (exits.OK, set())
    assert found.findings["identity", "device"]["remedy"] == "Run: scanseal enroll est"
    assert found.state("identity", "derivation") == found.state("identity", "synthesis") == "not-applicable"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"password_file": "/nowhere/password"}, "/nowhere/password"),
        ({"username": ""}, "[est] username is not set."),
        ({"anchor_fingerprint": "ab" * 32}, "Both [est] anchor_file and anchor_fingerprint are set."),
        ({"anchor_file": "", "anchor_fingerprint": "ab" * 20}, "that is a SHA-1"),
        ({"anchor_file": ""}, "Neither [est] anchor_file nor anchor_fingerprint is set."),
    ],
)
def test_what_keeps_a_first_enrollment_from_working_is_found(
    scanner: Scanner, hospital: Hospital, check: Callable[..., Answer], changes: dict[str, str], said: str
) -> None:
    est = {option: value for option, value in (hospital.tables()["est"] | changes).items() if value}
    found = check(scanner.configure(est=est))

    assert (found.code, found.wrong()) == (exits.CONFIGURATION, {("enrollment", "est")})
    assert said in found.findings["enrollment", "est"]["what"]


def test_an_enrolled_scanner_needs_no_password(
    enrolled: Path, scanner: Scanner, hospital: Hospital, check: Callable[..., Answer]
) -> None:
    est = {name: hospital.tables()["est"][name] for name in ("url", "anchor_file")}

    assert check(enrolled).wrong() == check(scanner.configure(est=est)).wrong() == set()


@pytest.mark.usefixtures("enrolled")
def test_a_group_that_this_machine_does_not_have_is_found_before_the_agent_ends_for_it(
    scanner: Scanner, hospital: Hospital, check: Callable[..., Answer]
) -> None:
    for tables in (
        {"socket": {"path": str(scanner.socket), "group": "no-such-group"}},
        {"roles": {"derivation": ["group:no-such-group"]}},
    ):
        found = check(scanner.configure(**hospital.tables(), **tables))

        assert (found.code, found.wrong()) == (exits.CONFIGURATION, {("callers", "")})


def test_with_nothing_but_a_vendor_its_way_is_advised_and_no_other(
    scanner: Scanner, hospital: Hospital, check: Callable[..., Answer]
) -> None:
    vendor = {"url": "https://vendor.example", "anchor_file": str(hospital.ca.anchor_file)}
    found = check(scanner.configure(vendor=vendor))

    assert found.findings["identity", "idevid"]["remedy"] == "Run: scanseal enroll vendor request"
    assert "enroll est" not in found.text


def test_a_role_that_is_given_to_somebody_needs_its_identity(
    scanner: Scanner, hospital: Hospital, check: Callable[..., Answer]
) -> None:
    found = check(scanner.configure(**hospital.tables(), roles={"derivation": [f"user:{os.getuid()}"]}))

    assert found.state("identity", "derivation") == "warning"
    assert found.state("identity", "synthesis") == "not-applicable"


def test_before_the_first_enrollment_there_is_no_state_directory(
    scanner: Scanner, hospital: Hospital, check: Callable[..., Answer]
) -> None:
    path = scanner.configure(**hospital.tables())
    scanner.state.rmdir()
    found = check(path)

    assert (found.code, found.wrong()) == (exits.OK, set())
    assert found.state("state-directory") == "warning"
    assert not scanner.state.exists()


def test_a_state_directory_that_nobody_can_make_has_to_be_corrected(
    scanner: Scanner, hospital: Hospital, check: Callable[..., Answer]
) -> None:
    path = scanner.configure(**hospital.tables())
    scanner.state.rmdir()
    scanner.state.write_bytes(b"")
    path.write_text(path.read_text("utf-8").replace(str(scanner.state), f"{scanner.state}/below-a-file"), "utf-8")

    assert check(path).state("state-directory") == "failed"


def test_speed_is_measured_with_a_key_that_is_gone_afterwards(
    scanner: Scanner, hospital: Hospital, check: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.cli.signing_rate.SECONDS", 0.1)
    found = check(scanner.configure(**hospital.tables()), "--speed")

    assert "signatures per second (software, rsa-3072)" in found.findings["signing-rate", "signing"]["what"]
    assert scanner.keys.list() == ()


def test_a_configuration_that_cannot_be_read_is_the_first_and_only_finding(
    tmp_path: Path, check: Callable[..., Answer]
) -> None:
    found = check(tmp_path / "absent.toml")

    assert (found.code, found.wrong()) == (exits.CONFIGURATION, {("configuration", "")})
    assert len(found.findings) == 1


def change_passphrase(scanner: Scanner) -> None:
    scanner.passphrase.write_text("another one", "utf-8")


def forget_passphrase(scanner: Scanner) -> None:
    scanner.passphrase.unlink()


def show_passphrase(scanner: Scanner) -> None:
    scanner.passphrase.chmod(0o644)


def lose_key(scanner: Scanner) -> None:
    signing = scanner.identities.current(IdentityName.SIGNING)
    assert signing
    (scanner.state / "keys" / f"{signing.key_uri.partition(':')[2]}.pem").unlink()


def swap_keys(scanner: Scanner) -> None:
    device, signing = (scanner.identities.current(name) for name in (IdentityName.DEVICE, IdentityName.SIGNING))
    assert device
    assert signing
    set_key_uri(scanner.identities.directory(IdentityName.DEVICE) / "current", signing.key_uri)


def damage_identity(scanner: Scanner) -> None:
    (scanner.identities.directory(IdentityName.SIGNING) / "current" / "meta.json").write_text("{", "utf-8")


def open_keys(scanner: Scanner) -> None:
    (scanner.state / "keys").chmod(0o755)


def name_no_key(scanner: Scanner) -> None:
    set_key_uri(scanner.identities.directory(IdentityName.SIGNING) / "current", "cloud:x")


@pytest.mark.parametrize(
    ("fault", "wrong"),
    [
        (change_passphrase, {("key", "device"), ("key", "signing")}),
        (forget_passphrase, {("key-store", "software")}),
        (show_passphrase, {("key-store", "software")}),
        (lose_key, {("key", "signing"), ("device-state", "")}),
        (swap_keys, {("key", "device")}),
        (damage_identity, {("identity", "signing"), ("device-state", "")}),
        (open_keys, {("state-directory", "")}),
        (name_no_key, {("identity", "signing")}),
    ],
)
def test_what_has_to_be_corrected_is_named_and_nothing_else(
    enrolled: Path,
    scanner: Scanner,
    check: Callable[..., Answer],
    fault: Callable[[Scanner], None],
    wrong: set[tuple[str, str]],
) -> None:
    fault(scanner)

    found = check(enrolled)

    assert (found.code, found.wrong()) == (exits.CONFIGURATION, wrong)


def test_a_finding_names_the_code_of_the_error_behind_it(
    enrolled: Path, scanner: Scanner, capsys: pytest.CaptureFixture[str]
) -> None:
    change_passphrase(scanner)
    run(["check", "--config", str(enrolled)])

    assert "FAILED   key (signing) [pin-refused]: " in capsys.readouterr().out


def test_hardware_that_is_demanded_and_not_there_has_to_be_corrected(
    enrolled: Path, scanner: Scanner, hospital: Hospital, check: Callable[..., Answer]
) -> None:
    found = check(scanner.configure(**hospital.tables(), signing={"require_hardware": True}))

    assert (found.code, found.wrong()) == (exits.CONFIGURATION, {("require-hardware", "")})


def test_a_running_agent_is_asked(
    enrolled: Path, scanner: Scanner, hospital: Hospital, check: Callable[..., Answer]
) -> None:
    with running_agent(scanner, **hospital.tables()):
        found = check(scanner.directory / "scanseal.toml")

    assert (found.code, found.state("agent")) == (exits.OK, "ok")
    assert found.findings["memory-lock", ""]["what"].startswith("the agent")


def test_no_secret_is_printed(enrolled: Path, scanner: Scanner, check: Callable[..., Answer]) -> None:
    secret = scanner.passphrase.read_text("utf-8")
    scanner.passphrase.write_text(WRONG_PIN, "utf-8")

    assert secret not in check(enrolled).text
    assert WRONG_PIN not in check(enrolled).text


def test_another_user_is_told_as_whom_to_run_it(enrolled: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root: run the tests as root")
    enrolled.parent.chmod(0o755)
    # Imported before: the other user may not be able to read the interpreter.
    program = f"""
import os, sys
from agent.cli import check, main
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
sys.exit(main.run(["check", "--json", "--config", "{enrolled.name}"]))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=enrolled.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    found = answer(ran.returncode, ran.stdout, ran.stderr)

    assert (found.code, found.wrong()) == (exits.CONFIGURATION, {("state-directory", "")})
    assert "Permission denied" in found.findings["state-directory", ""]["what"]
    assert "as the user scanseal" in found.findings["state-directory", ""]["remedy"]
    assert ("key-store", "software") not in found.findings


# ------------------------------------------------------------------------------------------------ keys in memory


def test_a_key_in_memory_is_where_the_running_agent_says(
    scanner: Scanner, hospital: Hospital, check: Callable[..., Answer]
) -> None:
    tables: Tables = {**hospital.tables(), "identity.signing": {"key_store": "memory", "key_algorithm": "rsa-2048"}}
    path = scanner.configure(**tables)
    offer = scanner.identities.directory(IdentityName.SIGNING) / "pending" / "offer.json"
    with hospital.answers():
        assert run(["enroll", "est", "--identity", "device", "--config", str(path)]) == exits.OK
        with running_agent(scanner, **tables):
            wait_until(offer.exists)
            assert run(["renew", "--config", str(path)]) == exits.OK
            wait_until(lambda: check(path).state("key", "signing") == "ok")
            running = check(path)
    ended = check(path)
    with running_agent(scanner, **tables):
        restarted = check(path)

    assert (running.code, running.wrong()) == (exits.OK, set())
    assert running.findings["key", "signing"]["what"].startswith("memory")
    assert (ended.code, ended.state("key", "signing")) == (exits.OK, "warning")
    assert "Start the agent" in ended.findings["key", "signing"]["remedy"]
    assert (restarted.code, restarted.wrong()) == (exits.UNAVAILABLE, {("agent", ""), ("key", "signing")})
    assert restarted.findings["agent", ""]["what"].endswith("as acquisition: awaiting-certificate.")


# --------------------------------------------------------------------------------------------- keys in SoftHSM


@pytest.fixture
def softhsm(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that has a token of its own, whose calls are written down."""
    library = next(Path("/usr/lib").glob("*/softhsm/libsofthsm2.so"), None)
    spy = next(Path("/usr/lib").glob("*/pkcs11/pkcs11-spy.so"), None)
    tools = all(shutil.which(tool) for tool in ("softhsm2-util", "pkcs11-tool"))
    if library is None or spy is None or not tools:
        pytest.skip("no SoftHSM, pkcs11-tool or pkcs11-spy.so: apt-get install softhsm2 opensc opensc-pkcs11")
    (tmp_path / "tokens").mkdir()
    configuration = tmp_path / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {tmp_path}/tokens\nobjectstore.backend = file\n", "utf-8")
    environment = {
        "SOFTHSM2_CONF": str(configuration),
        "PKCS11SPY": str(library),
        "PKCS11SPY_OUTPUT": str(tmp_path / "calls"),
        "SPY": str(spy),
    }
    command = ["softhsm2-util", "--init-token", "--free", "--label", TOKEN, "--pin", PIN]
    command += ["--so-pin", SECURITY_OFFICER_PIN]
    subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True)
    return environment


@pytest.fixture
def in_softhsm(softhsm: dict[str, str], hospital: Hospital, scanner: Scanner) -> Tables:
    """What the configuration of a scanner says whose keys are both in the token."""
    pin = scanner.directory / "pin"
    pin.write_text(PIN, "utf-8")
    pin.chmod(0o600)
    kind = {"key_store": "pkcs11", "key_algorithm": "rsa-2048"}
    return {
        **hospital.tables(),
        "keystore.pkcs11": {"module": softhsm["SPY"], "token": TOKEN, "pin_file": str(pin)},
        "identity.device": {"key_store": "pkcs11"},
        "identity.signing": kind,
    }


def logins(environment: dict[str, str]) -> int:
    return Path(environment["PKCS11SPY_OUTPUT"]).read_text("utf-8", "replace").count(": C_Login\n")


def objects_left(environment: dict[str, str]) -> str:
    """What is in the token."""
    command = ["pkcs11-tool", "--module", environment["PKCS11SPY"], "--token-label", TOKEN, "--login", "--pin", PIN]
    listed = [*command, "--list-objects"]
    return subprocess.run(listed, env={**os.environ, **environment}, check=True, capture_output=True, text=True).stdout


def test_a_token_is_logged_in_to_once_for_all_identities(
    softhsm: dict[str, str], in_softhsm: Tables, scanner: Scanner
) -> None:
    found = checked_apart(scanner.configure(**in_softhsm), softhsm, "--speed")

    assert (found.code, found.wrong()) == (exits.OK, set())
    assert logins(softhsm) == 1
    assert objects_left(softhsm) == ""
    assert found.state("key-store", f"pkcs11 {TOKEN}") == "ok"
    assert f"(pkcs11 {TOKEN}, rsa-2048)" in found.findings["signing-rate", "signing"]["what"]
    assert PIN not in found.text


def test_a_token_that_is_too_slow_for_the_scanner_is_found_out_by_measuring(
    softhsm: dict[str, str], in_softhsm: Tables, scanner: Scanner
) -> None:
    path = scanner.configure(**in_softhsm, signing={"images_per_second": 100_000})

    unmeasured, measured = checked_apart(path, softhsm), checked_apart(path, softhsm, "--speed")

    assert (unmeasured.code, unmeasured.state("images-per-second")) == (exits.OK, "warning")
    assert (measured.code, measured.wrong()) == (exits.CONFIGURATION, {("images-per-second", "")})
    assert "memory" in measured.findings["images-per-second", ""]["remedy"]


def test_a_pin_that_is_refused_is_sent_once(softhsm: dict[str, str], in_softhsm: Tables, scanner: Scanner) -> None:
    Path(in_softhsm["keystore.pkcs11"]["pin_file"]).write_text(WRONG_PIN, "utf-8")

    found = checked_apart(scanner.configure(**in_softhsm), softhsm, "--speed")

    assert (found.code, found.wrong()) == (exits.CONFIGURATION, {("key-store", f"pkcs11 {TOKEN}")})
    assert found.findings["key-store", f"pkcs11 {TOKEN}"]["code"] == "pin-refused"
    assert logins(softhsm) == 1
    assert WRONG_PIN not in found.text


def test_a_token_that_is_not_there_is_not_available_now(
    softhsm: dict[str, str], in_softhsm: Tables, scanner: Scanner
) -> None:
    in_softhsm["keystore.pkcs11"]["token"] = "elsewhere"

    found = checked_apart(scanner.configure(**in_softhsm), softhsm)

    assert (found.code, found.wrong()) == (exits.UNAVAILABLE, {("key-store", "pkcs11 elsewhere")})


def test_a_library_that_is_not_there_has_to_be_installed(
    softhsm: dict[str, str], in_softhsm: Tables, scanner: Scanner
) -> None:
    in_softhsm["keystore.pkcs11"]["module"] = "/nowhere/token.so"

    found = checked_apart(scanner.configure(**in_softhsm), softhsm)

    assert (found.code, found.wrong()) == (exits.CONFIGURATION, {("key-store", f"pkcs11 {TOKEN}")})


# ------------------------------------------------------------------------------------------------- keys in a TPM


@pytest.fixture
def in_tpm(hospital: Hospital, scanner: Scanner) -> Tables:
    authorization = scanner.directory / "authorization"
    authorization.write_text("a long random value", "utf-8")
    authorization.chmod(0o600)
    return {
        **hospital.tables(),
        "keystore.tpm": {"authorization_file": str(authorization)},
        "identity.device": {"key_store": "tpm"},
    }


def test_a_simulated_tpm_is_not_called_hardware(
    in_tpm: Tables, hospital: Hospital, scanner: Scanner, tmp_path: Path
) -> None:
    pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is missing: pip install '.[tpm]'")
    with running_swtpm(tmp_path / "tpm") as tpm:
        in_tpm["keystore.tpm"]["tcti"] = tpm.tcti
        path = scanner.configure(**in_tpm)
        with hospital.answers():
            enroll = [sys.executable, "-m", "agent.cli.main", "enroll", "est", "--config", str(path)]
            subprocess.run(enroll, cwd=ROOT, check=True, capture_output=True, timeout=120)
        found = checked_apart(path, {})

    assert (found.code, found.wrong()) == (exits.OK, set())
    assert found.findings["key", "device"]["what"].startswith("software (tpm); it fits the certificate. This token is")


def test_a_tpm_that_does_not_answer_is_not_available_now(in_tpm: Tables, scanner: Scanner, tmp_path: Path) -> None:
    pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is missing: pip install '.[tpm]'")
    in_tpm["keystore.tpm"]["tcti"] = "swtpm:host=127.0.0.1,port=1"

    path = scanner.configure(**in_tpm)
    found = checked_apart(path, {})
    enroll = [sys.executable, "-m", "agent.cli.main", "enroll", "est", "--json", "--config", str(path)]
    enrolled = subprocess.run(enroll, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    assert (found.code, found.wrong()) == (exits.UNAVAILABLE, {("key-store", "tpm")})
    assert found.findings["key-store", "tpm"]["code"] == "key-store-unavailable"
    assert (enrolled.returncode, "key-store-unavailable" in enrolled.stdout) == (exits.UNAVAILABLE, True)
