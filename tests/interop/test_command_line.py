"""Signing and verifying from the command line, with a real agent."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import exits
from agent.cli.main import run
from agent.policy.verdicts import ExitCode
from enroll.identity import IdentityName
from tests.support.agent_process import Agent, Scanner
from tests.support.dicom_samples import ct_slice, deflate_bomb, nested_sequences
from tests.support.terminal import on_a_terminal


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.dcm"
    path.write_bytes(ct_slice(64, 64))
    return path


@pytest.fixture
def signed(agent: Agent, scanner: Scanner, image: Path, tmp_path: Path) -> Path:
    path = tmp_path / "signed.dcm"
    assert run(["sign", str(image), "-o", str(path), "--socket", str(agent.socket)]) == exits.OK
    return path


def anchor(scanner: Scanner) -> str:
    return str(scanner.authority.certificate_file)


def verdict(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    capsys.readouterr()
    code = run(["verify", "--json", *map(str, arguments)])
    return code, json.loads(capsys.readouterr().out)["files"][0]["verdict"]


def test_what_was_signed_is_valid(signed: Path, scanner: Scanner, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(capsys, "--anchor", anchor(scanner), signed) == (exits.OK, "VALID")


def test_without_an_anchor_nobody_knows_the_signer(signed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(capsys, signed) == (ExitCode.VALID_WITH_RESERVATIONS, "VALID_UNKNOWN_SIGNER")


def test_a_changed_pixel_breaks_the_signature(
    signed: Path, scanner: Scanner, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(signed.read_bytes())
    data[data.index(b"\xe0\x7f\x10\x00OW") + 100] ^= 1
    broken = signed.with_name("broken.dcm")
    broken.write_bytes(data)
    assert verdict(capsys, "--anchor", anchor(scanner), broken) == (ExitCode.BROKEN, "BROKEN")


def test_an_unsigned_file_is_no_success(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(capsys, image) == (ExitCode.UNSIGNED, "UNSIGNED")


def test_of_several_files_the_worst_counts(signed: Path, image: Path, scanner: Scanner) -> None:
    assert run(["verify", "--anchor", anchor(scanner), str(signed), str(image)]) == ExitCode.UNSIGNED


ODD_FILES = ("empty", "text", "truncated", "bomb", "deep", "directory", "fifo", "absent")


def odd_files(folder: Path) -> dict[str, Path]:
    paths = {
        name: folder / name for name in ("empty", "text", "truncated", "directory", "fifo", "absent", "bomb", "deep")
    }
    paths["empty"].write_bytes(b"")
    paths["text"].write_bytes(b"This is no DICOM file." * 100)
    paths["truncated"].write_bytes(ct_slice(64, 64)[:-5000])
    paths["directory"].mkdir()
    os.mkfifo(paths["fifo"])
    paths["bomb"].write_bytes(deflate_bomb(300))
    paths["deep"].write_bytes(nested_sequences(10_000, undefined_length=True))
    return paths


@pytest.mark.parametrize(
    ("kind", "code", "name"),
    [
        ("empty", exits.INSTANCE_REFUSED, "not-dicom"),
        ("text", exits.INSTANCE_REFUSED, "not-dicom"),
        ("truncated", exits.INSTANCE_REFUSED, "truncated"),
        ("bomb", exits.INSTANCE_REFUSED, "deflate-bomb"),
        ("deep", exits.INSTANCE_REFUSED, "nesting-too-deep"),
        ("directory", exits.NO_INPUT, "input-unreadable"),
        ("fifo", exits.NO_INPUT, "input-unreadable"),
        ("absent", exits.NO_INPUT, "input-unreadable"),
    ],
)
def test_what_cannot_be_signed_is_refused_by_name_and_the_next_file_is_signed(  # noqa: PLR0917
    agent: Agent, tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str], kind: str, code: int, name: str
) -> None:
    bad = odd_files(tmp_path)[kind]
    target = tmp_path / "target"
    target.mkdir()
    arguments = ["sign", "--json", "--socket", str(agent.socket), "--output-directory", str(target)]
    assert run([*arguments, str(bad), str(image)]) == code
    refused, signed = json.loads(capsys.readouterr().out)["files"]
    assert refused["error"]["code"] == name
    assert [path.name for path in target.iterdir()] == [image.name]
    assert signed["signed"] == str(target / image.name)


@pytest.mark.parametrize("kind", [kind for kind in ODD_FILES if kind != "directory"])
def test_what_cannot_be_judged_is_indeterminate(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(capsys, odd_files(tmp_path)[kind]) == (ExitCode.INDETERMINATE, "INDETERMINATE")


def test_a_folder_stands_for_the_files_in_it(
    agent: Agent, image: Path, scanner: Scanner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    assert run(["sign", "--socket", str(agent.socket), str(image), "-o", str(study / "series" / "1.dcm")]) == 0
    (study / "2.dcm").write_bytes(image.read_bytes())
    (study / "link").symlink_to(image)
    capsys.readouterr()
    assert run(["verify", "--anchor", anchor(scanner), str(study)]) == ExitCode.UNSIGNED
    assert capsys.readouterr().out.splitlines()[-1] == "3 files: 2 UNSIGNED, 1 VALID"
    (tmp_path / "nothing").mkdir()
    assert run(["verify", str(tmp_path / "nothing")]) == exits.USAGE


def test_nothing_that_is_there_is_replaced_without_force(agent: Agent, image: Path, tmp_path: Path) -> None:
    original, other = image.read_bytes(), tmp_path / "other.dcm"
    other.write_bytes(b"something")
    arguments = ["sign", "--socket", str(agent.socket), str(image), "-o"]
    assert run([*arguments, str(image)]) == exits.OUTPUT
    assert run([*arguments, str(image), "--force"]) == exits.OUTPUT
    assert run([*arguments, str(other)]) == exits.OUTPUT
    assert (image.read_bytes(), other.read_bytes()) == (original, b"something")
    assert run([*arguments, str(other), "--force"]) == exits.OK
    assert other.read_bytes().startswith(original[:300])


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_the_hash_of_a_signature_can_be_chosen(
    agent: Agent, image: Path, scanner: Scanner, capsys: pytest.CaptureFixture[str], algorithm: str
) -> None:
    target = image.with_name(algorithm)
    assert run(["sign", "--algorithm", algorithm, "--socket", str(agent.socket), str(image), "-o", str(target)]) == 0
    capsys.readouterr()
    assert run(["verify", "--json", "--anchor", anchor(scanner), str(target)]) == exits.OK
    (signature,) = json.loads(capsys.readouterr().out)["files"][0]["signatures"]
    assert signature["algorithms"]["mac"] == algorithm.upper()


def test_long_work_shows_progress_on_a_terminal(agent: Agent, image: Path, tmp_path: Path) -> None:
    """A progress bar goes to the terminal, and never into output that a program reads."""
    for number in range(3):
        (tmp_path / f"{number}.dcm").write_bytes(image.read_bytes())
    files = [str(tmp_path / f"{number}.dcm") for number in range(3)]
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-m", "agent.cli.main", "sign", "--json", "--socket", str(agent.socket)]
    directory = str(tmp_path / "out")
    shown, output = on_a_terminal([*command, "--output-directory", directory, *files], streams=("stderr",))
    assert "100%" in shown
    assert len(json.loads(output)["files"]) == 3


def test_without_an_agent_the_error_names_the_remedy(
    tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = tmp_path / "absent.sock"
    assert run(["sign", str(image), "-o", str(tmp_path / "o"), "--socket", str(absent)]) == exits.UNAVAILABLE
    assert "systemctl start scanseal" in capsys.readouterr().out


def test_status_shows_the_identities_and_the_agent(
    agent: Agent, scanner: Scanner, capsys: pytest.CaptureFixture[str]
) -> None:
    configuration = str(scanner.directory / "scanseal.toml")
    assert run(["status", "--json", "--config", configuration]) == exits.OK
    status = json.loads(capsys.readouterr().out)
    assert status["agent"]["state"] == "ready"
    states = {name: record["state"] for name, record in status["identities"].items()}
    assert states == {name: "valid" if name == "signing" else "absent" for name in IdentityName}
    assert status["identities"]["signing"]["protection"] == "software"
    assert status["warnings"] == []


def test_nothing_is_renewed_before_it_is_due(scanner: Scanner, capsys: pytest.CaptureFixture[str]) -> None:
    configuration = str(scanner.configure())
    assert run(["renew", "--json", "--config", configuration]) == exits.OK
    states = {entry["identity"]: entry["state"] for entry in json.loads(capsys.readouterr().out)["identities"]}
    others = dict.fromkeys(("device", "derivation", "synthesis", "vendor"), "absent")
    assert states == {"signing": "not-due", **others}


def test_the_audit_trail_is_checked_from_the_command_line(
    agent: Agent, signed: Path, scanner: Scanner, capsys: pytest.CaptureFixture[str]
) -> None:
    configuration = str(scanner.directory / "scanseal.toml")
    assert run(["audit", "verify", "--json", "--config", configuration]) == exits.OK
    assert json.loads(capsys.readouterr().out)["records"] >= len(scanner.audit("signature"))
    forged = scanner.directory / "forged.jsonl"
    forged.write_bytes(scanner.audit_file.read_bytes().replace(b'"role":"acquisition"', b'"role":"synthesis"', 1))
    assert run(["audit", "verify", str(forged)]) == exits.CONFIGURATION
    assert "line" in capsys.readouterr().err


def test_a_port_in_use_is_the_users_to_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run(["evaluation-ca", "--directory", str(tmp_path), "--port", port]) == exits.CONFIGURATION
    assert "--port" in capsys.readouterr().err


def banner(directory: Path) -> str:
    """What the evaluation CA says at its start, on a free port; it is stopped then."""
    command = [sys.executable, "-m", "agent.cli.main", "evaluation-ca", "--port", "0", "--directory", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Stop with"):
                break
        process.terminate()
    return "".join(lines)


def test_the_evaluation_ca_keeps_a_configuration_that_is_there(tmp_path: Path) -> None:
    """Its port is another one at the second start: it says so, and changes nothing."""
    assert "kept" not in banner(tmp_path)
    path = tmp_path / "scanseal.toml"
    edited = path.read_text("utf-8") + '\n[identity.signing]\nkey_store = "memory"\n'
    path.write_text(edited, "utf-8")
    url = next(line.partition(" = ")[2].strip('"') for line in edited.splitlines() if line.startswith("url = "))

    said = banner(tmp_path)

    assert path.read_text("utf-8") == edited
    assert f"kept as it was. It enrolls at {url}: start the CA with the --port of that" in said


def test_the_evaluation_ca_starts_beside_a_configuration_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "scanseal.toml").write_text("[devise]\n", "utf-8")

    assert "kept as it was. It cannot be used" in banner(tmp_path)
