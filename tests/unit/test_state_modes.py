"""Who may see what below the state directory: administrators every certificate, nobody else a key."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from enroll.errors import StateError, StateUnreadable
from enroll.identity import Generation, IdentityName
from enroll.statefile import StateFiles
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.other_user import NOBODY, run_as
from tests.support.pki import HospitalCa

CA = HospitalCa()
SIGNING = IdentityName.SIGNING
FOR_THE_GROUP = {
    "ledger",
    "identities",
    "identities/signing",
    "identities/signing/generations",
    "identities/signing/generations/0001",
}
FACTS = {"clock.json", "owner.json", "identities/signing/newest.json"}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving files to a user needs root: run the tests as root")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture
def scanner(tmp_path: Path) -> Scanner:
    return Scanner(settings(tmp_path), (CA.certificate,))


def modes(folder: Path) -> dict[str, int]:
    entries = [path for path in folder.rglob("*") if not path.is_symlink()]
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in entries}


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_after_an_enrollment_the_group_reads_certificates_and_nothing_else(scanner: Scanner, mask: int) -> None:
    """Whatever the umask of whoever enrolls."""
    flow = CaFlow(CA, scanner.clock)
    with umask(mask):
        assert isinstance(scanner.issue(flow), Generation)

    state = scanner.settings.state_directory
    assert stat.S_IMODE(state.stat().st_mode) == 0o750
    found = modes(state)
    generation = {name for name in found if name.startswith("identities/signing/generations/0001/")}
    assert len(generation) == 5
    assert {name for name, mode in found.items() if mode == 0o750} == FOR_THE_GROUP
    readable = {name for name, mode in found.items() if mode == 0o640}
    ledger = {name for name in found if name.startswith("ledger/")}
    assert generation < readable <= generation | FACTS | ledger
    assert all(found[name] & 0o077 == 0 for name in set(found) - FOR_THE_GROUP - readable)


def test_a_request_under_way_is_for_the_service_alone(scanner: Scanner) -> None:
    def lose_power(_: object) -> None:
        raise StateError("The power is gone.")

    with pytest.raises(StateError):
        scanner.issue(CaFlow(CA, scanner.clock, answer=lose_power))  # type: ignore[arg-type]

    found = modes(scanner.settings.state_directory)
    assert found["identities/signing"] == 0o750
    assert found["identities/signing/pending"] == 0o700
    assert found["keys"] == 0o700


@needs_root
def test_root_does_not_enroll_for_another_user(scanner: Scanner) -> None:
    """What root makes, the agent cannot read."""
    state = scanner.settings.state_directory
    state.mkdir()
    os.chown(state, NOBODY, -1)

    with pytest.raises(StateError, match=f"{state} belongs to nobody") as refusal:
        scanner.issue(CaFlow(CA, scanner.clock))

    assert "runuser -u nobody -- scanseal enroll" in refusal.value.remedy
    assert not isinstance(refusal.value, StateUnreadable)
    assert list(state.iterdir()) == []


@needs_root
def test_a_directory_of_root_is_given_to_the_service(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "state").mkdir()

    said = run_as(NOBODY, NOBODY, "files.check_owner(folder / 'state')", tmp_path)

    assert said.startswith("StateError state-of-another-user state belongs to root, and this runs as nobody.")
    assert said.endswith("Run as root: chown -R nobody state")


@needs_root
def test_what_root_left_behind_is_given_back(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    state = tmp_path / "state"
    state.mkdir()
    files = StateFiles()
    files.make_directory(state / "identities" / "device")
    files.write(state / "file", b"")
    os.chown(state, NOBODY, -1)

    for name in ("file", "identities/device/current/meta.json"):
        said = run_as(NOBODY, NOBODY, f"files.read(folder / 'state' / {name!r})", tmp_path)
        assert said.startswith("StateUnreadable"), said
        assert said.endswith("chown -R nobody state")


@needs_root
def test_what_is_for_others_is_not_to_be_taken_over(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "file").chmod(0o600)

    said = run_as(NOBODY, NOBODY, "files.read(folder / 'file')", tmp_path)

    assert "as the user scanseal" in said
    assert "chown" not in said
