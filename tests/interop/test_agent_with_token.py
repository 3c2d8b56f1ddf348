"""An agent whose signing key never leaves a token: SoftHSM, reached through p11-kit as a hardware token would be."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from agent.cli import exits
from agent.cli.main import run
from agent.client import SigningClient
from agent.errors import AgentRefused
from enroll.config import KeyStoreSettings, Pkcs11StoreSettings
from enroll.identity import IdentityName
from enroll.keystore import KeyStores
from tests.support.agent_process import (
    START_SECONDS,
    Agent,
    Scanner,
    needs_root_to_look_inside,
    new_scanner,
    running_agent,
    start,
    wait_until,
)
from tests.support.dicom_samples import ct_slice
from tests.support.hospital import Hospital
from tests.support.key_stores import secret_file
from tests.support.process_memory import holds
from tests.support.softhsm import SoftHsm, softhsm_of_this_process
from tests.support.swtpm import running_swtpm

CONNECTIONS = 4
INSTANCES = 50


@pytest.fixture(scope="module")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    return softhsm_of_this_process(tmp_path_factory.getbasetemp())


@pytest.fixture
def token(softhsm: SoftHsm) -> Pkcs11StoreSettings:
    return Pkcs11StoreSettings(softhsm.proxy, "through-proxy", softhsm.pin_file, sessions=CONNECTIONS)


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path / "ca")


@pytest.fixture
def tables(token: Pkcs11StoreSettings, hospital: Hospital) -> dict[str, dict[str, Any]]:
    return {
        **hospital.tables(),
        "identity.signing": {"key_store": "pkcs11", "key_algorithm": "rsa-2048"},
        "keystore.pkcs11": {
            "module": str(token.module),
            "token": token.token,
            "pin_file": str(token.pin_file),
            "sessions": token.sessions,
        },
    }


@pytest.fixture
def scanner(
    tmp_path: Path, token: Pkcs11StoreSettings, hospital: Hospital, tables: dict[str, dict[str, Any]]
) -> Iterator[Scanner]:
    with new_scanner(tmp_path) as scanner:
        with hospital.answers():
            assert run(["enroll", "est", "--config", str(scanner.configure(**tables))]) == exits.OK
        yield scanner
        signing = scanner.identities.current(IdentityName.SIGNING)
        assert signing is not None
        stores = KeyStores(KeyStoreSettings(pkcs11=token), scanner.state, scanner.files)
        stores.destroy(signing.key_uri)
        stores.close()


@pytest.fixture
def agent(scanner: Scanner, tables: dict[str, dict[str, Any]]) -> Iterator[Agent]:
    with running_agent(scanner, **tables) as agent:
        yield agent


def test_every_image_that_several_connections_have_signed_by_a_token_is_valid(
    agent: Agent, hospital: Hospital, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [ct_slice(16, 16 + number) for number in range(INSTANCES)]
    files = [tmp_path / f"{number}.dcm" for number in range(INSTANCES)]

    def sign(mine: range) -> None:
        with SigningClient(agent.socket) as client:
            for number in mine:
                signed = BytesIO()
                client.sign_instance(images[number], signed, role="acquisition")
                files[number].write_bytes(signed.getvalue())

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        list(threads.map(sign, (range(first, INSTANCES, CONNECTIONS) for first in range(CONNECTIONS))))

    capsys.readouterr()
    assert run(["verify", "--json", "--anchor", str(hospital.ca.anchor_file), *map(str, files)]) == exits.OK
    assert [file["verdict"] for file in json.loads(capsys.readouterr().out)["files"]] == ["VALID"] * INSTANCES


def test_a_token_in_software_is_not_called_hardware(
    agent: Agent, scanner: Scanner, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["status", "--json", "--config", str(scanner.directory / "scanseal.toml")]) == exits.OK

    assert json.loads(capsys.readouterr().out)["identities"]["signing"]["protection"] == "software"
    signing = scanner.identities.current(IdentityName.SIGNING)
    assert signing is not None
    assert signing.key_uri.startswith("pkcs11:")


@needs_root_to_look_inside
def test_no_worker_has_the_pin_in_its_memory(agent: Agent, softhsm: SoftHsm) -> None:
    """And nobody finds it among arguments and variables."""
    pin = softhsm.pin_file.read_bytes().strip()
    for _ in range(4):
        with SigningClient(agent.socket) as client:
            client.splice_instance(ct_slice(16, 16), role="acquisition")

    assert holds(os.getpid(), [pin])  # otherwise the search would prove nothing
    for worker in agent.workers():
        assert not holds(worker, [pin])
    for process in (agent.process.pid, *agent.workers()):
        for name in ("environ", "cmdline"):
            assert pin not in Path(f"/proc/{process}/{name}").read_bytes()


# --- what the token has to be


def failed_start(scanner: Scanner, tables: dict[str, dict[str, Any]]) -> str:
    """What an agent that cannot start says in the end."""
    log = scanner.directory / "failed.log"
    process = start(scanner.configure(**tables), log)
    assert process.wait(START_SECONDS) == 1
    return log.read_text("utf-8").splitlines()[-1]


def test_the_rate_of_the_token_is_measured_at_the_start(scanner: Scanner, tables: dict[str, dict[str, Any]]) -> None:
    signing = {"images_per_second": 5}
    with running_agent(scanner, **tables, signing=signing) as agent, SigningClient(agent.socket) as client:
        measured = client.status()["identities"]["signing"]["signatures_per_second"]

    assert measured >= signing["images_per_second"]
    (line,) = scanner.audit("self-benchmark")
    assert line["signatures_per_second"] == pytest.approx(measured, abs=1)


def test_a_token_that_is_too_slow_stops_the_start(scanner: Scanner, tables: dict[str, dict[str, Any]]) -> None:
    """Never a fallback to another store: the operator decides."""
    said = failed_start(scanner, {**tables, "signing": {"images_per_second": 100_000}})

    assert said.startswith("key-too-slow: ")
    assert "100000 images" in said
    assert 'key_store = "memory"' in said


def test_a_token_in_software_is_no_hardware(scanner: Scanner, tables: dict[str, dict[str, Any]]) -> None:
    said = failed_start(scanner, {**tables, "signing": {"require_hardware": True}})

    assert said.startswith("hardware-required: ")


def test_every_signature_says_where_its_key_lives(agent: Agent, scanner: Scanner) -> None:
    with SigningClient(agent.socket) as client:
        digest = client.sign_digest(bytes(32), algorithm="sha256", role="acquisition")
        splice = client.splice_instance(ct_slice(16, 16), role="acquisition")

    assert (digest.protection, splice.protection) == ("software", "software")
    assert [line["protection"] for line in scanner.audit("signature")] == ["software", "software"]


def test_a_token_that_is_away_at_the_start_is_waited_for(
    scanner: Scanner, softhsm: SoftHsm, tables: dict[str, dict[str, Any]]
) -> None:
    """Images get a clear error at once, and signing resumes within 5 s after the token is back."""
    tokens = softhsm.directory / "tokens"
    away = tokens.rename(softhsm.directory / "away")
    tokens.mkdir()
    try:
        with running_agent(scanner, **tables) as agent, SigningClient(agent.socket) as client:
            begun = time.monotonic()
            with pytest.raises(AgentRefused) as refused:
                client.splice_instance(ct_slice(16, 16), role="acquisition")
            assert time.monotonic() - begun < 1
            assert (refused.value.status, refused.value.code) == (503, "key-store-unavailable")
            assert client.status()["roles"]["acquisition"] == "key-store-unavailable"

            tokens.rmdir()
            away.rename(tokens)
            wait_until(lambda: client.status()["state"] == "ready", 5)
            assert client.splice_instance(ct_slice(16, 16), role="acquisition").key_generation == 1
            assert client.status()["unsigned"] == {"since_start": 1, "since_last_signature": 0}
    finally:
        if away.exists():
            tokens.rmdir()
            away.rename(tokens)


def test_a_token_that_goes_is_seen_in_the_status_and_in_the_log(agent: Agent, softhsm: SoftHsm) -> None:
    """And every image tries it anew: nobody has to tell the agent that the token is back."""
    tokens, away = softhsm.directory / "tokens", softhsm.directory / "away"
    with SigningClient(agent.socket) as client:
        assert client.splice_instance(ct_slice(16, 16), role="acquisition").key_generation == 1
        tokens.rename(away)
        tokens.mkdir()
        try:
            for _ in range(3):
                assert refused_code(client) == "key-store-unavailable"
            assert client.status()["state"] == client.status()["roles"]["acquisition"] == "key-store-unavailable"
        finally:
            tokens.rmdir()
            away.rename(tokens)
        wait_until(lambda: refused_code(client) is None, 5)
        assert client.status()["state"] == "ready"
    assert agent.log.read_text("utf-8").count("Images are not signed: ") == 1


def test_a_tpm_that_is_cleared_needs_an_enrollment_and_no_restart(tmp_path: Path, hospital: Hospital) -> None:
    with running_swtpm(tmp_path / "tpm") as tpm, new_scanner(tmp_path) as scanner:
        authorization = secret_file(tmp_path / "authorization", "a long authorization value of the keys")
        tables = {
            **hospital.tables(),
            "identity.signing": {"key_store": "tpm", "key_algorithm": "rsa-2048"},
            "keystore.tpm": {"tcti": tpm.tcti, "authorization_file": str(authorization)},
        }
        with hospital.answers():
            assert run(["enroll", "est", "--config", str(scanner.configure(**tables))]) == exits.OK
        with running_agent(scanner, **tables) as agent, SigningClient(agent.socket) as client:
            assert refused_code(client) is None
            tpm.clear()
            with pytest.raises(AgentRefused) as refused:
                client.splice_instance(ct_slice(16, 16), role="acquisition")
            assert (refused.value.status, refused.value.code) == (503, "key-damaged")
            assert refused.value.remedy == ("Run: scanseal enroll est, and have the CA revoke the old certificate.")
            assert client.status()["roles"]["acquisition"] == "key-damaged"

            scanner.enroll()
            wait_until(lambda: client.status()["roles"]["acquisition"] == "ready", 5)
            assert refused_code(client) is None


def refused_code(client: SigningClient) -> str | None:
    """Why an image is not signed; nothing where it is."""
    try:
        client.splice_instance(ct_slice(16, 16), role="acquisition")
    except AgentRefused as refused:
        return refused.code
    return None
