"""A scanner with two tokens: one holds the key that says who it is, the other the key that signs its images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.cli import exits
from agent.cli.main import run
from agent.client import SigningClient
from enroll.identity import IdentityName
from enroll.keystore.tokenuri import TokenUri
from tests.support.agent_process import START_SECONDS, Scanner, new_scanner, running_agent, start
from tests.support.dicom_samples import ct_slice
from tests.support.hospital import Hospital
from tests.support.key_stores import WRONG_SECRET, secret_file
from tests.support.softhsm import SoftHsm, new_softhsm


@pytest.fixture
def softhsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    hsm = new_softhsm(tmp_path / "hsm", ["card", "hsm"])
    for name, value in hsm.environment.items():
        monkeypatch.setenv(name, value)
    return hsm


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path / "ca")


@pytest.fixture
def tables(softhsm: SoftHsm, hospital: Hospital) -> dict[str, dict[str, Any]]:
    module, pin_file = str(softhsm.copy("own")), str(softhsm.pin_file)
    return {
        **hospital.tables(),
        "identity.device": {"key_store": "pkcs11"},
        "identity.signing": {"key_store": "pkcs11", "key_algorithm": "rsa-2048", "token": "hsm"},
        "keystore.pkcs11": {"module": module, "token": "card", "pin_file": pin_file},
        "keystore.pkcs11.tokens.hsm": {"pin_file": pin_file},
    }


@pytest.fixture
def scanner(tmp_path: Path, hospital: Hospital, tables: dict[str, dict[str, Any]]) -> Iterator[Scanner]:
    with new_scanner(tmp_path) as scanner:
        with hospital.answers():
            assert run(["enroll", "est", "--config", str(scanner.configure(**tables))]) == exits.OK
        yield scanner


def token_of(scanner: Scanner, identity: IdentityName) -> str:
    generation = scanner.identities.current(identity)
    assert generation is not None
    return TokenUri.parse(generation.key_uri).token


def test_each_key_is_in_its_token(
    scanner: Scanner,
    hospital: Hospital,
    tables: dict[str, dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert token_of(scanner, IdentityName.DEVICE) == "card"
    assert token_of(scanner, IdentityName.SIGNING) == "hsm"

    image = tmp_path / "image.dcm"
    with running_agent(scanner, **tables) as agent, SigningClient(agent.socket) as client, image.open("wb") as signed:
        client.sign_instance(ct_slice(16, 16), signed, role="acquisition")

    capsys.readouterr()
    assert run(["verify", "--json", "--anchor", str(hospital.ca.anchor_file), str(image)]) == exits.OK
    assert [file["verdict"] for file in json.loads(capsys.readouterr().out)["files"]] == ["VALID"]


def test_a_wrong_pin_of_the_other_token_does_not_keep_images_from_being_signed(
    scanner: Scanner, tables: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    tables["keystore.pkcs11"]["pin_file"] = str(secret_file(tmp_path / "wrong", WRONG_SECRET))

    with running_agent(scanner, **tables) as agent, SigningClient(agent.socket) as client:
        assert client.splice_instance(ct_slice(16, 16), role="acquisition").key_generation == 1


def test_a_wrong_pin_of_the_token_that_signs_is_named(
    scanner: Scanner, tables: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    wrong = secret_file(tmp_path / "wrong", WRONG_SECRET)
    tables["keystore.pkcs11.tokens.hsm"]["pin_file"] = str(wrong)

    process = start(scanner.configure(**tables), log := tmp_path / "log")

    assert process.wait(START_SECONDS) == 1
    said = log.read_text("utf-8").splitlines()[-1]
    assert said.startswith("pin-refused: The token hsm")
    assert str(wrong) in said
