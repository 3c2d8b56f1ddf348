"""A certificate that the CA revokes stops signing: OCSP and lists of openssl, and a real agent."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agent.cli import exits
from agent.cli.main import run
from agent.client import SigningClient
from agent.errors import AgentRefused
from enroll.certificates import serial_text
from tests.support.agent_process import Scanner, new_scanner, running_agent, wait_until
from tests.support.dicom_samples import small_instance
from tests.support.openssl import needs_openssl
from tests.support.records import values_of
from tests.support.revoking_ca import PORT, RevokingCa, renew, web_server

REFRESH = 1.0  # seconds, docs/socket-protocol.md
RESPONDER = f"http://127.0.0.1:{PORT}/"

needs_namespaces = pytest.mark.skipif(
    not all(map(shutil.which, ("unshare", "nsenter", "ip"))),
    reason="network namespaces are missing: apt-get install util-linux iproute2",
)


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    with new_scanner(tmp_path) as scanner:
        yield scanner


@pytest.fixture
def ca(tmp_path: Path) -> RevokingCa:
    return RevokingCa(tmp_path / "ca")


def sign(client: SigningClient) -> str:
    """The code of the refusal; empty where it was signed."""
    try:
        client.splice_instance(small_instance(), role="acquisition", profile="creator-rsa")
    except AgentRefused as error:
        return error.code
    return ""


def seconds_until(client: SigningClient, code: str) -> float:
    """How long the agent goes on until its answer is this one."""
    begin = time.monotonic()
    wait_until(lambda: sign(client) == code, 5)
    return time.monotonic() - begin


def seconds_to_the_end(
    scanner: Scanner, client: SigningClient, configuration: Path, namespace: int | None = None
) -> float:
    """Let the enroller hear of a revocation; how long the agent signs after it has been written down."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(renew, configuration, namespace)
        wait_until(lambda: sign(client) == "certificate-revoked")
        seconds = time.time() - (scanner.state / "identities/signing/revocation.json").stat().st_mtime
        assert done.result().returncode == exits.NOT_PERMITTED
    return seconds


def known(scanner: Scanner) -> dict[str, Any]:
    """The record of the signing identity."""
    return values_of(scanner.state / "identities/signing/revocation.json")  # type: ignore[no-any-return]


def reported(configuration: Path, capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    run([*command, "--json", "--config", str(configuration)])
    return json.loads(capsys.readouterr().out)


@needs_openssl
@needs_namespaces
def test_a_revocation_told_by_ocsp_stops_signing_within_one_refresh(
    scanner: Scanner, ca: RevokingCa, capsys: pytest.CaptureFixture[str]
) -> None:
    generation = ca.enroll(scanner, responder=RESPONDER)
    configuration = scanner.configure()
    with running_agent(scanner) as agent, SigningClient(agent.socket) as client:
        with ca.answering() as namespace:
            done = renew(configuration, namespace)
        assert known(scanner)["state"] == "good", done.stderr
        assert done.returncode == exits.OK
        assert sign(client) == ""

        ca.revoke(generation.certificate, "keyCompromise")
        with ca.answering() as namespace:
            seconds = seconds_to_the_end(scanner, client, configuration, namespace)
        roles = client.status()["roles"]
        status = reported(configuration, capsys, "status")["identities"]["signing"]["revocation"]
        findings = reported(configuration, capsys, "check")["findings"]

        # Whoever blocks the responder changes nothing about that, and neither does a restart.
        done = renew(configuration)
        assert sign(client) == "certificate-revoked"
        ca.enroll(scanner, responder=RESPONDER)
        assert seconds_until(client, "") < 2 * REFRESH

    sys.stdout.write(f"\nrevoked by OCSP: nothing was signed {seconds:.2f} s after it was written down\n")
    assert seconds < 2 * REFRESH
    assert roles["acquisition"] == "certificate-revoked"
    failed = next(each for each in json.loads(done.stdout)["identities"] if each["identity"] == "signing")
    assert done.returncode == exits.NOT_PERMITTED
    assert failed["error"]["code"] == "certificate-revoked"
    assert failed["error"]["who_must_act"] == "CA operator"
    assert (status["state"], status["reason"], status["source"]) == ("revoked", "keyCompromise", RESPONDER)
    assert ("revocation", "signing", "failed") in {(f["check"], f["subject"], f["state"]) for f in findings}
    (event,) = scanner.audit("certificate-revoked")
    assert event == {
        "identity": "signing",
        "key_generation": generation.number,
        "serial_number": serial_text(generation.certificate),
        "reason": "keyCompromise",
    }


@needs_openssl
def test_a_certificate_on_hold_signs_again_when_a_later_list_says_so(scanner: Scanner, ca: RevokingCa) -> None:
    """RFC 5280 5.3.1: certificateHold is the one revocation that can be lifted."""
    with web_server() as server:
        generation = ca.enroll(scanner, list_at=server.url)
        configuration = scanner.configure()
        before = server.body = ca.list()
        index = (ca.folder / "index.txt").read_text()
        with running_agent(scanner) as agent, SigningClient(agent.socket) as client:
            assert renew(configuration).returncode == exits.OK
            assert (known(scanner)["state"], known(scanner)["source"]) == ("good", server.url)
            time.sleep(1.1)  # lists have whole seconds

            ca.revoke(generation.certificate, "certificateHold")
            server.body = ca.list()
            seconds = seconds_to_the_end(scanner, client, configuration)

            server.body = before
            renew(configuration)
            assert sign(client) == "certificate-revoked"
            assert "older" in known(scanner)["problem"]

            time.sleep(1.1)
            (ca.folder / "index.txt").write_text(index)
            server.body = ca.list()
            renew(configuration)
            assert seconds_until(client, "") < 2 * REFRESH

    sys.stdout.write(f"\nrevoked by a list: nothing was signed {seconds:.2f} s after it was written down\n")
    assert seconds < 2 * REFRESH
    assert len(scanner.audit("certificate-revocation-lifted")) == 1


@needs_openssl
def test_a_revocation_that_was_seen_holds_after_a_restart_of_the_agent(scanner: Scanner, ca: RevokingCa) -> None:
    with web_server() as server:
        generation = ca.enroll(scanner, list_at=server.url)
        ca.revoke(generation.certificate, "unspecified")
        server.body = ca.list()
        renew(scanner.configure())

    with running_agent(scanner) as agent, SigningClient(agent.socket) as client:
        assert sign(client) == "certificate-revoked"


@needs_openssl
def test_a_ca_that_does_not_answer_only_warns(
    scanner: Scanner, ca: RevokingCa, capsys: pytest.CaptureFixture[str]
) -> None:
    with web_server() as server:
        ca.enroll(scanner, responder=server.url, list_at=server.url)
        server.status = 503
        configuration = scanner.configure()
        with running_agent(scanner) as agent, SigningClient(agent.socket) as client:
            assert renew(configuration).returncode == exits.OK
            assert sign(client) == ""
            status = reported(configuration, capsys, "status")["identities"]["signing"]["revocation"]
            findings = reported(configuration, capsys, "check")["findings"]

    assert status["state"] == "unknown"
    assert "503" in status["problem"]
    assert ("revocation", "signing", "warning") in {(f["check"], f["subject"], f["state"]) for f in findings}


@needs_openssl
def test_what_was_only_superseded_is_renewed_at_once(scanner: Scanner, ca: RevokingCa) -> None:
    """There is no CA here to renew from: it is asked, and that fails."""
    with web_server() as server:
        generation = ca.enroll(scanner, list_at=server.url)
        ca.revoke(generation.certificate, "superseded")
        server.body = ca.list()
        done = renew(scanner.configure())

    failed = next(each for each in json.loads(done.stdout)["identities"] if each["identity"] == "signing")
    assert failed["error"]["code"] == "configuration-invalid"
