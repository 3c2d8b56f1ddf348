"""Signing and verifying from the command line, with a real agent."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli import exits
from agent.cli.main import run
from tests.support.agent_process import Agent, Scanner, new_scanner, running_agent
from tests.support.dicom_samples import ct_slice, deflate_bomb, nested_sequences


@pytest.fixture(scope="module")
def scanner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scanner]:
    with new_scanner(tmp_path_factory.mktemp("scanner")) as scanner:
        scanner.enroll()
        yield scanner


@pytest.fixture(scope="module")
def agent(scanner: Scanner) -> Iterator[Agent]:
    with running_agent(scanner) as agent:
        yield agent


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
    assert verdict(capsys, signed) == (exits.VALID_WITH_RESERVATIONS, "VALID_UNKNOWN_SIGNER")


def test_a_changed_pixel_breaks_the_signature(
    signed: Path, scanner: Scanner, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(signed.read_bytes())
    data[data.index(b"\xe0\x7f\x10\x00OW") + 100] ^= 1
    broken = signed.with_name("broken.dcm")
    broken.write_bytes(data)
    assert verdict(capsys, "--anchor", anchor(scanner), broken) == (exits.BROKEN, "BROKEN")


def test_an_unsigned_file_is_no_success(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(capsys, image) == (exits.UNSIGNED, "UNSIGNED")


def test_of_several_files_the_worst_counts(signed: Path, image: Path, scanner: Scanner) -> None:
    assert run(["verify", "--anchor", anchor(scanner), str(signed), str(image)]) == exits.UNSIGNED


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
    paths["bomb"].write_bytes(deflate_bomb(200))
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


@pytest.mark.parametrize("kind", ODD_FILES)
def test_what_cannot_be_judged_is_indeterminate(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(capsys, odd_files(tmp_path)[kind]) == (exits.INDETERMINATE, "INDETERMINATE")


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
    assert [(entry["identity"], entry["state"]) for entry in status["identities"]] == [
        ("idevid", "absent"),
        ("device", "absent"),
        ("signing", "valid"),
    ]
    assert status["identities"][2]["protection"] == "software"


def test_nothing_is_renewed_before_it_is_due(scanner: Scanner, capsys: pytest.CaptureFixture[str]) -> None:
    configuration = str(scanner.configure())
    assert run(["renew", "--json", "--config", configuration]) == exits.OK
    states = {entry["identity"]: entry["state"] for entry in json.loads(capsys.readouterr().out)["identities"]}
    assert states == {"device": "absent", "signing": "not-due"}
