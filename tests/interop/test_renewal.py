"""Renewal as it happens on a scanner: by the command line, at a CA that comes and goes, while images are signed."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.cli import exits
from agent.cli.main import run
from agent.cli.options import configuration
from agent.client import SigningClient
from agent.errors import AgentError
from enroll.clock import SystemClock
from enroll.identity import IdentityName
from enroll.offer import FILE_NAME
from tests.support.agent_process import Scanner, new_scanner, running_agent, wait_until
from tests.support.dicom_samples import ct_slice
from tests.support.enrolling import Keyholder
from tests.support.enrolling import Scanner as Enroller
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


def without_times(text: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "TIME", text)


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

    assert without_times(capsys.readouterr().out).splitlines() == [
        "device: the first request is prepared, not sent yet",
        "signing: asked for by est on TIME, not issued yet; device comes first",
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


# --- a key that the agent makes in its memory


@pytest.fixture
def keyholder(scanner: Scanner, hospital: Hospital) -> Keyholder:
    """Of a scanner that was changed to such keys; its agent offers nothing yet."""
    signing = {"identity.signing": {"key_store": "memory", "key_algorithm": "rsa-2048"}}
    settings = configuration(scanner.configure(**hospital.tables(), **signing)).enroll
    return Keyholder(Enroller(settings, (hospital.ca.certificate,), SystemClock()))


def signing_line(text: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith("signing: ")]
    return line


def command(scanner: Scanner, *words: str) -> int:
    return run([*words, "--config", str(scanner.directory / "scanseal.toml")])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["renew"], "signing: the agent asks for the next key by itself"),
        (["renew", "--dry-run"], "signing: the agent asks for the next key by itself"),
        (
            ["enroll", "est", "--identity", "signing"],
            "signing: the agent has not asked for a certificate. Start the agent; it asks by itself.",
        ),
    ],
)
@pytest.mark.usefixtures("keyholder")
def test_while_the_agent_asks_for_nothing_nothing_is_wrong_and_nobody_is_asked(
    scanner: Scanner, words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The CA is away all the time."""
    assert command(scanner, *words) == exits.OK

    assert signing_line(capsys.readouterr().out) == line


@pytest.mark.usefixtures("keyholder")
def test_force_does_not_apply_to_a_key_of_the_agent_and_says_so(
    scanner: Scanner, hospital: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    with hospital.answers():
        assert command(scanner, "renew", "--force") == exits.OK

    assert signing_line(capsys.readouterr().out).endswith("by itself; --force does not apply")


def test_what_the_agent_offers_is_due_and_is_sent_when_the_ca_is_back(
    scanner: Scanner, hospital: Hospital, keyholder: Keyholder, capsys: pytest.CaptureFixture[str]
) -> None:
    keyholder.offer()
    before = scanner.identities.current(SIGNING)

    assert command(scanner, "renew", "--dry-run") == exits.OK
    assert signing_line(capsys.readouterr().out) == "signing: the agent has asked for a certificate"
    assert command(scanner, "renew") == exits.UNAVAILABLE
    assert "not renewed" in signing_line(capsys.readouterr().out)
    assert scanner.identities.current(SIGNING) == before

    with hospital.answers():
        assert command(scanner, "renew", "--json") == exits.OK
    record = next(r for r in json.loads(capsys.readouterr().out)["identities"] if r["identity"] == "signing")
    assert (record["state"], record["generation"], record["protection"]) == ("issued", 2, "memory")
    assert keyholder.matching_pair() == scanner.identities.current(SIGNING)

    assert command(scanner, "renew", "--json") == exits.OK
    record = next(r for r in json.loads(capsys.readouterr().out)["identities"] if r["identity"] == "signing")
    assert record == {"identity": "signing", "state": "not-asked"}


def test_an_offer_that_is_not_ours_fails_this_identity_alone(
    scanner: Scanner, keyholder: Keyholder, capsys: pytest.CaptureFixture[str]
) -> None:
    keyholder.offer()
    (keyholder.pending / FILE_NAME).write_bytes(b"{")

    assert command(scanner, "renew") == exits.CONFIGURATION

    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("device: due on") for line in lines)
    at = lines.index("signing: not renewed [state-damaged]")
    assert FILE_NAME in lines[at + 1]


def test_what_is_shown_of_a_generation_needs_no_key(
    scanner: Scanner, hospital: Hospital, keyholder: Keyholder, capsys: pytest.CaptureFixture[str]
) -> None:
    keyholder.offer()
    with hospital.answers():
        assert command(scanner, "renew") == exits.OK
    capsys.readouterr()

    keyholder.keys.close()  # the agent has ended
    command(scanner, "status", "--json")

    identities = json.loads(capsys.readouterr().out)["identities"]
    assert identities["signing"]["protection"] == "memory"


def test_an_agent_that_waits_with_a_key_that_is_no_longer_wanted_has_to_be_restarted(
    tmp_path: Path, hospital: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    """The configuration was changed under a running agent, before its first certificate."""
    with new_scanner(tmp_path) as scanner:
        memory = {"identity.signing": {"key_store": "memory", "key_algorithm": "rsa-2048"}}
        settings = configuration(scanner.configure(**hospital.tables(), **memory)).enroll
        Keyholder(Enroller(settings, (hospital.ca.certificate,), SystemClock())).offer()
        scanner.configure(**hospital.tables(), **QUICK)

        assert command(scanner, "renew") == exits.CONFIGURATION

    _, _, said = capsys.readouterr().out.partition("signing: not renewed [configuration-invalid]\n")
    assert "The agent waits for a certificate of a key in memory, but [identity.signing] key_store" in said
    assert "restart the agent" in said


@pytest.mark.parametrize("demanded", [True, False])
def test_a_key_that_the_agent_will_refuse_is_not_enrolled_in_silence(
    tmp_path: Path, hospital: Hospital, capsys: pytest.CaptureFixture[str], *, demanded: bool
) -> None:
    with new_scanner(tmp_path) as scanner:
        scanner.configure(**hospital.tables(), **QUICK, signing={"require_hardware": demanded})
        with hospital.answers():
            assert command(scanner, "enroll", "est") == exits.OK

    warning = (
        "The agent will not sign with this key: [signing] require_hardware is true, and the key of signing is in "
        "software."
    )
    assert (warning in capsys.readouterr().err) == demanded
