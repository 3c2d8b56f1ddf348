"""The units in systemd/, judged by systemd's own tools. They are checked, not started."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from agent.cli import exits
from agent.daemon.renewal import LONGEST_RUN
from agent.daemon.signer import IDENTITY_OF
from enroll.offer import FILE_NAME
from tests.support.other_user import run_as

UNITS = Path(__file__).parents[2] / "systemd"
UNIT_FILES = sorted(path.name for kind in ("path", "service", "socket", "timer") for path in UNITS.glob(f"*.{kind}"))


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is missing: apt-get install systemd")
    return path


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, **environment})


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with a program that every machine has: systemd refuses a unit whose program is not installed."""
    for name in UNIT_FILES:
        text = (UNITS / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("ExecStart=/usr/bin/scanseal", "ExecStart=/bin/true"))
    return tmp_path


@pytest.mark.parametrize("name", UNIT_FILES)
def test_systemd_finds_nothing_wrong_with_the_unit(units: Path, name: str) -> None:
    verified = run(tool("systemd-analyze"), "verify", units / name, SYSTEMD_UNIT_PATH=f"{units}:")

    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


@pytest.mark.parametrize(("name", "limit"), [("scanseal.service", 1.0), ("scanseal-renew.service", 1.5)])
def test_the_service_is_exposed_to_little(units: Path, name: str, limit: float) -> None:
    judged = run(tool("systemd-analyze"), "security", "--offline=true", "--no-pager", units / name)
    if "unrecognized option" in judged.stderr:
        pytest.skip("this systemd-analyze cannot judge files: systemd 250 or later can")
    score = re.search(r"Overall exposure level for \S+: ([0-9.]+)", judged.stdout)

    assert score is not None, judged.stderr
    assert float(score[1]) <= limit


def test_the_agent_can_tell_its_callers_apart() -> None:
    """With PrivateUsers= SO_PEERCRED shows every caller as uid 65534 (user_namespaces(7))."""
    assert not re.search(r"^PrivateUsers=", (UNITS / "scanseal.service").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("name", ["scanseal.service", "scanseal-renew.service"])
def test_no_process_may_read_the_memory_of_another(name: str) -> None:
    filters = re.findall(r"^SystemCallFilter=~(.*)$", (UNITS / name).read_text(encoding="utf-8"), re.MULTILINE)

    assert {"process_vm_readv", "process_vm_writev"} <= set(" ".join(filters).split())


@pytest.mark.parametrize("name", ["scanseal.service", "scanseal-renew.service"])
def test_administrators_may_read_what_is_written_for_them(name: str) -> None:
    """Directories are made with 0750 and files with 0640; a stricter mask would take that back."""
    assert set_to(name, "UMask") == ["0027"]


def test_a_first_request_that_waits_for_the_ca_is_gone_on_with() -> None:
    """RFC 7030 4.2.3: after a 202 there is a request, and no `current` yet."""
    conditions = re.findall(r"^Condition\w+=.*$", (UNITS / "scanseal-renew.service").read_text("utf-8"), re.MULTILINE)

    assert conditions == ["ConditionPathExists=/var/lib/scanseal/identities"]


def test_a_ca_that_has_not_decided_is_no_failure_of_the_timer() -> None:
    assert set_to("scanseal-renew.service", "SuccessExitStatus") == [str(exits.TRY_LATER)]
    assert set_to("scanseal.service", "RestartPreventExitStatus") == [str(exits.CONFIGURATION)]


def test_an_offer_of_a_key_in_memory_starts_the_enroller() -> None:
    """systemd.path(5): PathChanged= notices a file that is put into place by a rename, and one that is replaced."""
    watched = {f"/var/lib/scanseal/identities/{name}/pending/{FILE_NAME}" for name in IDENTITY_OF.values()}

    assert set(set_to("scanseal-enroll.path", "PathChanged")) == watched
    assert set_to("scanseal-enroll.path", "Unit") == ["scanseal-renew.service"]
    assert set_to("scanseal.service", "Wants") == ["scanseal-enroll.path"]


def test_a_loop_of_starts_does_not_flood_the_ca() -> None:
    """systemd.unit(5), StartLimitBurst=: an agent that cannot stay makes a key, and an offer, at every start."""
    assert set_to("scanseal-renew.service", "StartLimitIntervalSec") == ["10min"]
    assert set_to("scanseal-renew.service", "StartLimitBurst") == ["20"]


def test_the_enroller_is_stopped_after_the_same_time_with_and_without_systemd() -> None:
    assert set_to("scanseal-renew.service", "TimeoutStartSec") == [f"{LONGEST_RUN / 60:.0f}min"]


def test_the_keyholder_may_lock_all_its_memory() -> None:
    """mlockall(2): with a limit, memory would fail later; reserved stacks count as well."""
    assert set_to("scanseal.service", "LimitMEMLOCK") == ["infinity"]


def test_callers_reach_the_socket_but_not_the_state(tmp_path: Path) -> None:
    sysusers, tmpfiles = tool("systemd-sysusers"), tool("systemd-tmpfiles")
    if os.geteuid() != 0:
        pytest.skip("giving directories to a user needs root: run the tests as root")
    (tmp_path / "etc").mkdir()
    made = run(sysusers, f"--root={tmp_path}", UNITS / "sysusers.d" / "scanseal.conf")
    laid_out = run(tmpfiles, f"--root={tmp_path}", "--create", UNITS / "tmpfiles.d" / "scanseal.conf")

    assert (made.returncode, laid_out.returncode) == (0, 0), made.stderr + laid_out.stderr
    users = identifiers(tmp_path / "etc" / "passwd")
    groups = identifiers(tmp_path / "etc" / "group")
    assert owner(tmp_path / "run/scanseal") == (users["scanseal"], groups["scanseal"], 0o750)
    assert owner(tmp_path / "var/lib/scanseal") == (users["scanseal"], groups["scanseal-admin"], 0o2750)


def test_what_the_service_writes_is_for_the_group_of_the_administrators(tmp_path: Path) -> None:
    sysusers, tmpfiles = tool("systemd-sysusers"), tool("systemd-tmpfiles")
    if os.geteuid() != 0:
        pytest.skip("giving directories to a user needs root: run the tests as root")
    (tmp_path / "etc").mkdir()
    run(sysusers, f"--root={tmp_path}", UNITS / "sysusers.d" / "scanseal.conf")
    run(tmpfiles, f"--root={tmp_path}", "--create", UNITS / "tmpfiles.d" / "scanseal.conf")
    user = identifiers(tmp_path / "etc" / "passwd")["scanseal"]
    group = identifiers(tmp_path / "etc" / "group")["scanseal"]
    administrators = identifiers(tmp_path / "etc" / "group")["scanseal-admin"]

    state = tmp_path / "var/lib/scanseal"
    statements = """
files.make_directory(folder / "identities" / "device", 0o750)
files.write(folder / "identities" / "device" / "meta.json", b"", 0o640)
files.make_directory(folder / "keys")
files.write(folder / "keys" / "k.pem", b"")
"""
    assert run_as(user, group, statements, state) == ""

    assert owner(state / "identities" / "device") == (user, administrators, 0o2750)
    assert owner(state / "identities" / "device" / "meta.json") == (user, administrators, 0o640)
    assert stat.S_IMODE((state / "keys").stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE((state / "keys" / "k.pem").stat().st_mode) == 0o600


def set_to(name: str, option: str) -> list[str]:
    """Everything that a unit sets an option to."""
    return re.findall(rf"^{option}=(.*)$", (UNITS / name).read_text("utf-8"), re.MULTILINE)


def identifiers(database: Path) -> dict[str, int]:
    """Name to number, from a file like /etc/passwd."""
    return {line.split(":")[0]: int(line.split(":")[2]) for line in database.read_text(encoding="utf-8").splitlines()}


def owner(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)
