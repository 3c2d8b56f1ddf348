"""`scanseal evaluation-ca` as somebody tries it out: its options, and the scanner whose configuration it writes."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from agent.cli import exits
from agent.cli.main import run
from enroll.certificates import pem
from enroll.clock import SystemClock
from enroll.csr import CertificateRequest, Usage, build
from enroll.evaluation.ca import USERNAME, EvaluationCa
from enroll.evaluation.est_authentication import Authentication, DigestAlgorithm
from enroll.evaluation.est_server import EstOptions, EstServer
from enroll.identity import IdentityName, IdentityStore
from enroll.statefile import StateFiles
from tests.support.openssl import curl, needs_curl
from tests.support.pki import DEVICE, HospitalCa, new_key
from tests.support.records import rewrite

REQUEST = CertificateRequest.for_device(DEVICE, Usage.DEVICE)
SCANSEAL = (sys.executable, "-m", "agent.cli.main")


@dataclass
class Ca:
    """One that runs.

    Args:
        directory: Of its files.
        log: What it writes for each request.
    """

    directory: Path
    log: Path

    def enroll(self, *words: str) -> tuple[int, dict[str, Any]]:
        """What `scanseal enroll est` says with the configuration that the CA has written."""
        command = [*SCANSEAL, "enroll", "est", "--identity", "device", "--json"]
        done = subprocess.run(
            [*command, "--config", self.directory / "scanseal.toml", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, json.loads(done.stdout or done.stderr.splitlines()[-1])


@contextmanager
def running(directory: Path, *options: str) -> Iterator[Ca]:
    log = directory.with_name("log")
    command = [*SCANSEAL, "evaluation-ca", "--directory", str(directory), "--json", *options]
    with (
        log.open("a") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout
            facts = json.loads(process.stdout.readline())
            assert facts["not_for_production"] is True
            yield Ca(directory, log)
        finally:
            process.terminate()


def device(directory: Path) -> x509.Certificate:
    current = IdentityStore(directory / "scanner", StateFiles()).current(IdentityName.DEVICE)
    assert current is not None
    return current.certificate


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--label", "imaging"),
        ("--authentication", "digest"),
        ("--proof-of-possession",),
        ("--tls-version", "1.2"),
        ("--tls-version", "1.3"),
    ],
    ids=" ".join,
)
def test_the_pretend_scanner_enrolls_as_it_is(tmp_path: Path, options: tuple[str, ...]) -> None:
    with running(tmp_path / "ca", "--port", "0", *options) as ca:
        code, said = ca.enroll()

    assert code == exits.OK, said


def test_a_request_is_approved_by_the_command_in_the_log(tmp_path: Path) -> None:
    with running(tmp_path / "ca", "--port", "0", "--approve-by-hand") as ca:
        assert ca.enroll()[0] == exits.TRY_LATER
        (line,) = (line for line in ca.log.read_text().splitlines() if "To approve: " in line)
        subprocess.run(shlex.split(line.partition("To approve: ")[2]), check=True)
        journal = ca.directory / "scanner" / "identities" / "device" / "pending" / "request.json"
        rewrite(journal, until="")  # as if the time to ask again had come
        code, said = ca.enroll()

    assert code == exits.OK, said


def test_after_a_roll_over_the_scanner_goes_on(tmp_path: Path) -> None:
    directory = tmp_path / "ca"
    with running(directory, "--port", "0") as ca:
        assert ca.enroll()[0] == exits.OK
        first = device(directory)
    port = (directory / "scanseal.toml").read_text().partition("https://127.0.0.1:")[2].partition('"')[0]
    with running(directory, "--port", port, "--roll-over") as ca:
        code, said = ca.enroll()

    assert code == exits.OK, said
    old, new = (x509.load_pem_x509_certificate((directory / name).read_bytes()) for name in ("root.pem", "root-2.pem"))
    first.verify_directly_issued_by(old)
    device(directory).verify_directly_issued_by(new)


def test_without_a_factory_identity_nobody_enrolls_where_that_is_wanted(tmp_path: Path) -> None:
    anchor = tmp_path / "vendor.pem"
    anchor.write_bytes(pem([HospitalCa("Vendor CA").certificate]))
    options = ("--port", "0", "--authentication", "certificate", "--vendor-anchor", str(anchor))
    with running(tmp_path / "ca", *options) as ca:
        code, said = ca.enroll()

    assert code == exits.NOT_PERMITTED
    assert "certificate" in said["error"]["what"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--label", 'a"b'), "is no EST label"),
        (("--vendor-anchor", "/nowhere/vendor.pem"), "No CA certificate"),
    ],
)
def test_a_wrong_option_is_told(
    tmp_path: Path, options: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluation-ca", "--directory", str(tmp_path), "--port", "0", *options]) == exits.CONFIGURATION
    assert told in capsys.readouterr().err


@needs_curl
@pytest.mark.parametrize("algorithm", list(DigestAlgorithm))
def test_curl_enrolls_with_digest(tmp_path: Path, algorithm: DigestAlgorithm) -> None:
    ca = EvaluationCa.create_or_open(tmp_path / "ca", SystemClock())
    body = base64.encodebytes(build(new_key(), REQUEST).public_bytes(serialization.Encoding.DER))
    options = EstOptions(authentication=Authentication.DIGEST, digest_algorithms=(algorithm,))
    with EstServer(ca, options=options) as server:
        for password, expected in ((ca.password.decode("ascii"), 200), ("guess", 401)):
            status, _ = curl(
                *("--cacert", ca.anchor_file, "--digest", "--user", f"{USERNAME}:{password}"),
                *("--header", "Content-Type: application/pkcs10", "--data-binary", "@-"),
                f"{server.url}/.well-known/est/simpleenroll",
                stdin=body,
            )
            assert status == expected
