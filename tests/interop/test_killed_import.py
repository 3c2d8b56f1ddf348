"""SIGKILL at every step of `scanseal enroll vendor import`: the pair before or the new one, and no key nobody knows.

strace kills the command before a rename, which makes a step durable.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from enroll.identity import IdentityName
from tests.support.flow_servers.vendor import vendor_service

ROOT = Path(__file__).parents[2]
MOST_RENAMES = 40
IMPORT = "import sys; from agent.cli.main import main; sys.exit(main())"


@pytest.fixture(scope="module", autouse=True)
def strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is missing: apt-get install strace")
    if subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let strace trace: allow ptrace")


def test_one_matching_pair_and_no_other_key_after_a_kill_at_every_step(tmp_path: Path) -> None:
    with vendor_service(tmp_path) as (ca, running, scanner):
        config = tmp_path / "scanseal.toml"
        config.write_text(
            f'state_directory = "{scanner.settings.state_directory}"\n[device]\nserial_number = "CT-000123"\n'
            f'[keystore.software]\npassphrase_file = "{scanner.settings.keystore.software.passphrase_file}"\n'
            f'[vendor]\nurl = "{running.url}"\nanchor_file = "{ca.anchor_file}"\n'
        )
        for step in range(1, MOST_RENAMES):
            packed = tmp_path / f"{step}.p12"
            packed.write_bytes(ca.make_vendor_wide(b"passphrase", f"Signing {step}"))
            (tmp_path / "secret").write_bytes(b"passphrase")
            (tmp_path / "secret").chmod(0o600)
            words = ["enroll", "vendor", "import", packed, "--passphrase-file", tmp_path / "secret", "--config", config]
            command = [sys.executable, "-c", IMPORT, *map(str, words)]
            injected = ["-e", "trace=rename", "-e", f"inject=rename:signal=SIGKILL:when={step}"]
            tracer = ["strace", "-f", "-qq", "-o", "/dev/null", *injected]
            ended = subprocess.run([*tracer, *command], cwd=ROOT, capture_output=True, timeout=120, check=False)
            if step > 1:
                assert scanner.matching_pair(IdentityName.VENDOR) is not None, f"killed at rename {step}"
            again = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, check=False)
            assert again.returncode == 0, f"after a kill at rename {step}: {again.stderr!r}"
            assert scanner.matching_pair(IdentityName.VENDOR) is not None
            assert scanner.identities.journal(IdentityName.VENDOR).read() is None
            numbers = scanner.identities.generations(IdentityName.VENDOR)
            known = {scanner.identities.key_uri(IdentityName.VENDOR, number) for number in numbers}
            assert set(scanner.stores.list()) <= known, f"after a kill at rename {step}"
            if ended.returncode == 0:
                break
        else:
            pytest.fail(f"more than {MOST_RENAMES} renames")
    assert step > 5, "too few steps to be true"
