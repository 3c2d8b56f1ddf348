"""All keys of a scanner are in a token, SoftHSM or a simulated TPM, and `dcmsign` accepts the images that it signs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.cli import exits
from agent.cli.main import run
from agent.client import SigningClient
from enroll.keystore.base import Protection
from tests.support import dcmsign
from tests.support.agent_process import new_scanner, running_agent
from tests.support.dicom_samples import ct_slice
from tests.support.hospital import Hospital
from tests.support.key_stores import secret_file
from tests.support.softhsm import new_softhsm
from tests.support.swtpm import resource_manager, running_swtpm
from tests.support.tpm2_pkcs11 import LABEL, token_in_tpm

IMAGES = 3


@dataclass(frozen=True)
class Place:
    """Where keys live.

    Args:
        store: The key store.
        settings: Its table.
    """

    store: str
    settings: dict[str, Any]


def softhsm(directory: Path, stack: ExitStack) -> Place:
    hsm = new_softhsm(directory, ["scanner"])
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    for name, value in hsm.environment.items():
        patch.setenv(name, value)
    module = str(hsm.copy("own"))
    return Place("pkcs11", {"module": module, "token": "scanner", "pin_file": str(hsm.pin_file)})


def tpm(directory: Path, stack: ExitStack) -> Place:
    pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is missing: pip install '.[tpm]'")
    simulated = stack.enter_context(running_swtpm(directory))
    authorization = secret_file(directory / "authorization", "a long authorization value")
    return Place("tpm", {"tcti": simulated.tcti, "authorization_file": str(authorization)})


def token_of_tpm(directory: Path, stack: ExitStack) -> Place:
    simulated = stack.enter_context(running_swtpm(directory / "tpm"))
    manager = stack.enter_context(resource_manager(simulated, directory))
    token = stack.enter_context(token_in_tpm(directory / "token", manager.tcti, manager.environment))
    settings = {"module": str(token.library), "token": LABEL, "pin_file": str(token.pin_file)}
    return Place("pkcs11", settings)


@pytest.fixture(params=[softhsm, tpm, token_of_tpm], ids=lambda place: str(place.__name__))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    directory = tmp_path / "place"
    directory.mkdir()
    with ExitStack() as stack:
        yield request.param(directory, stack)


@dcmsign.needs_dcmsign
def test_dcmsign_accepts_images_whose_key_never_left_its_token(place: Place, tmp_path: Path) -> None:
    """PS3.15 C.2, with RSA-2048."""
    hospital = Hospital(tmp_path / "ca")
    tables = {
        **hospital.tables(),
        f"keystore.{place.store}": place.settings,
        "identity.device": {"key_store": place.store},
        "identity.signing": {"key_store": place.store, "key_algorithm": "rsa-2048"},
    }
    with new_scanner(tmp_path) as scanner:
        with hospital.answers():
            assert run(["enroll", "est", "--config", str(scanner.configure(**tables))]) == exits.OK
        with running_agent(scanner, **tables) as agent, SigningClient(agent.socket) as client:
            for number in range(IMAGES):
                image = tmp_path / f"{number}.dcm"
                with image.open("wb") as signed:
                    client.sign_instance(ct_slice(16, 16 + number), signed, role="acquisition")
                assert dcmsign.verify(image, hospital.ca.anchor_file).accepted
            assert client.status()["identities"]["signing"]["protection"] == Protection.SOFTWARE  # it is a simulation
