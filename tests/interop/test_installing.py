"""docs/installing.md, typed as it stands: into a folder instead of the machine, and without a systemd that runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agent import config
from agent.cli.demo import SAMPLES
from enroll.keystore.secretfile import read_secret
from enroll.statefile import StateFiles

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "installing.md").read_text("utf-8")
UNITS = (
    "scanseal.service",
    "scanseal.socket",
    "scanseal-enroll.path",
    "scanseal-renew.service",
    "scanseal-renew.timer",
)

# What needs a real machine only says that it was called; what knows another root is given it.
PRELUDE = """
set -euo pipefail
umask 077
apt-get() { echo apt-get "$@"; }
chown() { echo chown "$@"; }
journalctl() { echo journalctl "$@"; }
runuser() { echo runuser "$@"; }
scanseal() { echo scanseal "$@"; }
systemctl() { echo systemctl "$@"; }
systemd-ask-password() { echo a-password; }
usermod() { echo usermod "$@"; }
python3() { mkdir -p "$3/bin"; cp /bin/true "$3/bin/pip"; cp /bin/true "$3/bin/scanseal"; }
systemd-sysusers() { command systemd-sysusers --root="$root" "$@"; }
systemd-tmpfiles() { command systemd-tmpfiles --root="$root" "$@"; }
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def in_folder(text: str, root: Path) -> str:
    """The same with every path of the machine below `root`; the commands run as root, so none may be left."""
    moved = re.sub(r"(?<![\w.])/(?=(?:etc|opt|var|usr/local)/)", f"{root}/", text)
    assert not re.search(rf"(?<!{re.escape(str(root))})/(?:etc|opt|var|usr/local)/", moved)
    return moved


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after all commands of the page."""
    for tool in ("systemd-sysusers", "systemd-tmpfiles", "systemd-analyze", "openssl"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing: apt-get install systemd openssl")
    if os.geteuid() != 0:
        pytest.skip("giving files to a user needs root: run the tests as root")
    root, checkout = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("checkout")
    (root / "etc").mkdir()
    for name in ("systemd", "docs", "requirements.lock"):
        (checkout / name).symlink_to(ROOT / name)
    (root / "var/tmp").mkdir(parents=True)
    (checkout / "scripts").mkdir()
    demo = checkout / "scripts/demo"
    demo.write_text("#!/bin/sh\ninstall -D /dev/null scanseal-demo/images/CT_small.dcm\n", "utf-8")
    demo.chmod(0o755)
    certificate = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-subj", "/CN=CA"]
    subprocess.run([*certificate, "-out", "hospital-ca.pem"], cwd=checkout, check=True, capture_output=True)
    for block in blocks("sh"):
        # The user is known below the root only, and to the tools outside by its number.
        users = (root / "etc/passwd").read_text("utf-8") if (root / "etc/passwd").exists() else ""
        number = next((line.split(":")[2] for line in users.splitlines() if line.startswith("scanseal:")), "")
        commands = in_folder(block, root).replace("-o scanseal ", f"-o {number} ")
        ran = subprocess.run(
            ["bash", "-c", PRELUDE + commands],
            cwd=checkout,
            env={**os.environ, "root": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, block + ran.stderr
    return root


def test_every_command_can_be_parsed() -> None:
    subprocess.run(["bash", "-n"], input="\n".join(blocks("sh")), text=True, check=True)


def test_every_file_of_the_checkout_that_is_named_is_there() -> None:
    named = set(re.findall(r"(?<![\w/.])(?:docs|systemd|scripts)/[\w./-]+|requirements[\w-]*\.lock", PAGE))

    assert len(named) > 3
    assert {name for name in named if not (ROOT / name).exists()} == set()
    assert {unit for unit in UNITS if unit not in PAGE} == set()


def test_the_image_that_is_signed_is_one_that_the_demo_leaves() -> None:
    assert set(re.findall(r"scanseal-demo/images/(\S+\.dcm)", PAGE)) <= set(SAMPLES.values())
    assert "scanseal-demo/images/" in "\n".join(blocks("sh"))


def test_the_configuration_can_be_read_by_all_whatever_the_umask_of_root(installed: Path) -> None:
    assert (installed / "etc/scanseal/scanseal.toml").stat().st_mode & 0o777 == 0o644


def test_nothing_stays_behind_from_the_check(installed: Path) -> None:
    assert list((installed / "var/tmp").iterdir()) == []


def test_pip_is_the_one_of_the_environment_of_scanseal() -> None:
    assert set(re.findall(r"\S*\bpip(?= install)", "\n".join(blocks("sh")))) == {"/opt/scanseal/bin/pip"}


@pytest.mark.parametrize("told", ["has to be started again", "systemctl restart scanseal\n"])
def test_what_has_to_be_restarted_is_told(told: str) -> None:
    assert told in PAGE


def test_the_configuration_is_accepted(tmp_path: Path) -> None:
    (table,) = blocks("toml")
    (tmp_path / "scanseal.toml").write_text(table, "utf-8")

    settings = config.load(tmp_path / "scanseal.toml", StateFiles())

    for path in (
        settings.enroll.keystore.software.passphrase_file,
        settings.enroll.est.anchor_file,
        settings.enroll.est.password_file,
    ):
        assert any(f" {path}\n" in block or f">{path}\n" in block for block in blocks("sh"))


def test_systemd_finds_nothing_wrong_with_the_units_that_are_installed(installed: Path) -> None:
    folder = installed / "etc/systemd/system"
    verified = subprocess.run(
        ["systemd-analyze", "verify", *(folder / unit for unit in UNITS)],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    started = re.findall(r"^ExecStart=(\S+)", "".join((folder / u).read_text("utf-8") for u in UNITS), re.MULTILINE)
    assert started == [f"{installed}/opt/scanseal/bin/scanseal"] * 2
    documents = re.findall(
        r"^Documentation=file://(\S+)", (folder / "scanseal.service").read_text("utf-8"), re.MULTILINE
    )
    assert all(Path(document).exists() for document in documents)


@pytest.mark.parametrize("name", ["key-passphrase", "est-password"])
def test_secrets_are_for_the_service_alone_and_are_taken(installed: Path, name: str) -> None:
    path = installed / "etc/scanseal" / name
    passwd = (installed / "etc/passwd").read_text("utf-8")

    assert f"scanseal:x:{path.stat().st_uid}:" in passwd
    assert path.stat().st_mode & 0o777 == 0o400
    assert read_secret(path, name, StateFiles())


def test_the_command_is_on_the_path(installed: Path) -> None:
    assert (installed / "usr/local/bin/scanseal").resolve() == installed / "opt/scanseal/bin/scanseal"
