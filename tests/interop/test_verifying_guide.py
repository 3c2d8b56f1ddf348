"""What the guide for owners of archives tells them to type, typed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from agent.cli.main import run
from agent.dicom.profile import ProfileName, load_profile
from agent.policy.verdicts import Verdict
from enroll.certificates import pem
from tests.support.certificates import Authority, rsa_key
from tests.support.dicom_samples import ct_slice
from tests.support.openssl import needs_openssl
from tests.support.pki import HospitalCa
from tests.support.product_signing import plan, sign_bytes
from tests.support.time_stamp_authority import OpensslTsa, new_tsa, time_stamp_server

pytestmark = needs_openssl

GUIDE: Final = (Path(__file__).parents[2] / "docs/verifying.md").read_text("utf-8")
COMMANDS: Final = [
    line for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines() if line
]
POLICY: Final = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
TSA_CA: Final = HospitalCa("TSA CA")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two images of a scanner, one of them signed."""
    authority = Authority(tmp_path, datetime.now(UTC))
    authority.certificate_file.rename(tmp_path / "hospital-ca.pem")
    (tmp_path / "tsa-ca.pem").write_bytes(pem([TSA_CA.certificate]))
    folder = tmp_path / "archive"
    folder.mkdir()
    ct1 = authority.issue("ct1", rsa_key(3072))
    everything = replace(plan(), profile=load_profile(ProfileName.CREATOR_PLUS))
    signed = sign_bytes(ct_slice(8, 8), everything, ct1.sign_digest("sha256"), ct1.certificate_der)
    (folder / "signed.dcm").write_bytes(signed)
    (folder / "unsigned.dcm").write_bytes(ct_slice(8, 8))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def tsa(tmp_path: Path) -> Iterator[str]:
    with time_stamp_server(OpensslTsa(new_tsa(TSA_CA), tmp_path / "tsa").http) as address:
        yield address


def test_every_step_of_the_guide_works_as_printed(archive: Path, tsa: str, capsys: pytest.CaptureFixture[str]) -> None:
    fingerprint, first, digest, second, stamp, third = COMMANDS

    def typed(command: str) -> str:
        run(command.split()[1:])
        return capsys.readouterr().out

    def printed(command: str) -> str:
        return subprocess.run(
            ["sh", "-c", command], cwd=archive.parent, capture_output=True, text=True, check=True
        ).stdout

    assert "Fingerprint" in printed(fingerprint)
    assert "2 files: 1 UNSIGNED, 1 VALID" in typed(first)
    (text,) = POLICY
    (archive.parent / "policy.toml").write_text(text.replace("0" * 64, printed(digest).split()[0]), encoding="utf-8")
    assert "2 files: 1 UNSIGNED_VIOLATION, 1 VALID_EXPECTED_SIGNER" in typed(second)
    stamped = typed(stamp.replace("http://tsa.hospital.example", tsa))
    assert "stamped" in stamped
    assert "time stamp: existed by" in typed(third)


def test_the_verdicts_of_the_guide_are_those_of_the_program() -> None:
    named = re.findall(r"^\| ([A-Z_]+) \|", GUIDE, re.MULTILINE)
    assert len(named) > 5
    assert set(named) <= set(Verdict)
