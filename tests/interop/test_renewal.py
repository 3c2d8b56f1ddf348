"""Renewal as it happens on a scanner: by the command line, at a CA that comes and goes, while images are signed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.cli import exits
from agent.cli.main import run
from agent.client import SigningClient
from agent.errors import AgentError
from enroll.identity import IdentityName
from tests.support.agent_process import Scanner, new_scanner, running_agent, wait_until
from tests.support.dicom_samples import ct_slice
from tests.support.hospital import Hospital

SIGNING = IdentityName.SIGNING
SIGNERS = 3
QUICK = {"identity.signing": {"key_algorithm": "rsa-2048"}}


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path / "ca")


@pytest.fixture
def scanner(tmp_path: Path, hospital: Hospital) -> Iterator[Scanner]:
    with new_scanner(tmp_path) as scanner:
        configuration = scanner.configure(**hospital.tables(), **QUICK)
        with hospital.answers():
            assert run(["enroll", "est", "--config", str(configuration)]) == exits.OK
        yield scanner


def renew(scanner: Scanner) -> int:
    return run(["renew", "--force", "--config", str(scanner.directory / "scanseal.toml")])


@contextmanager
def images_being_signed(socket: Path) -> Iterator[list[int]]:
    """Sign without a break on several connections; yields the generations that signed. No request may fail."""
    image, over = ct_slice(32, 32), threading.Event()
    generations: list[int] = []
    failures: list[AgentError] = []

    def sign() -> None:
        with SigningClient(socket) as client:
            while not over.is_set():
                try:
                    answer = client.splice_instance(image, role="acquisition", profile="creator-rsa")
                    generations.append(answer.key_generation)
                except AgentError as error:
                    failures.append(error)
                    return

    threads = [threading.Thread(target=sign) for _ in range(SIGNERS)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: generations or failures)
        yield generations
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_while_the_ca_is_away_the_old_certificate_goes_on_signing(
    scanner: Scanner, hospital: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    before = scanner.identities.current(SIGNING)
    with (
        running_agent(scanner, **hospital.tables(), **QUICK) as agent,
        images_being_signed(agent.socket) as generations,
    ):
        assert renew(scanner) == exits.UNAVAILABLE
        assert "not renewed" in capsys.readouterr().out
        signed = len(generations)
        wait_until(lambda: len(generations) > signed + SIGNERS)

        assert scanner.identities.current(SIGNING) == before
        assert set(generations) == {1}


def test_a_request_that_never_left_is_not_said_to_be_with_the_ca(
    tmp_path: Path, hospital: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    with new_scanner(tmp_path) as scanner:
        configuration = str(scanner.configure(**hospital.tables(), **QUICK))
        assert run(["enroll", "est", "--config", configuration]) == exits.UNAVAILABLE
        capsys.readouterr()

        assert run(["renew", "--dry-run", "--config", configuration]) == exits.OK

    assert capsys.readouterr().out.splitlines() == [
        "device: the first request is prepared, not sent yet",
        "signing: not enrolled yet, nothing to renew",
    ]  # and nothing of identities that most scanners never have


def test_a_renewal_while_images_are_signed_fails_no_request(scanner: Scanner, hospital: Hospital) -> None:
    with (
        running_agent(scanner, **hospital.tables(), **QUICK) as agent,
        images_being_signed(agent.socket) as generations,
    ):
        assert renew(scanner) == exits.UNAVAILABLE
        with hospital.answers():
            assert renew(scanner) == exits.OK
        wait_until(lambda: 2 in generations)
        signed = len(generations)
        wait_until(lambda: len(generations) > signed + SIGNERS)

    assert set(generations) == {1, 2}
    assert set(generations[signed + SIGNERS :]) == {2}
    for identity in (IdentityName.DEVICE, SIGNING):
        renewed = scanner.identities.current(identity)
        assert renewed is not None
        assert renewed.number == 2
