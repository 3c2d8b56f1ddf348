"""A failed enrollment names what happened, who must act and what happens next; `scanseal status` shows it later."""

from __future__ import annotations

import importlib
import json
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from agent.cli.main import run
from enroll import errors
from enroll.errors import (
    CertificateRefused,
    EnrollerBusy,
    EnrollmentRefused,
    ScansealError,
    ServerUnreachable,
    StateError,
    StateUnreadable,
)
from enroll.failure import MOST_ATTEMPTS, TEXT_LIMIT, Failures
from enroll.flows.base import Enrollment, OfferedEnrollment, Pending, Refused
from enroll.identity import IdentityName, IdentityStore
from enroll.statefile import StateFiles
from tests.support.agent_process import Scanner as ConfiguredScanner
from tests.support.agent_process import new_scanner
from tests.support.clocks import SteppedClock
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.pki import NOW, HospitalCa
from tests.support.records import rewrite

DEVICE = IdentityName.DEVICE


def error_classes(kind: type[ScansealError] = ScansealError) -> Iterator[type[ScansealError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from error_classes(below)


@pytest.fixture
def failures(tmp_path: Path) -> Failures:
    return Failures(IdentityStore(tmp_path / "state", StateFiles()))


def fail(failures: Failures, error: ScansealError, clock: SteppedClock) -> None:
    with pytest.raises(type(error)) as raised, failures.noted(DEVICE, "cmp", clock):
        raise error
    assert raised.value is error


importlib.import_module("agent.errors")


@pytest.mark.parametrize("kind", sorted(set(error_classes()), key=repr))
def test_every_error_names_who_must_act_and_what_happens_next(kind: type[ScansealError]) -> None:
    assert kind.who_must_act
    assert kind.what_next.endswith(".")


def test_the_tree_in_the_docstring_names_every_class_that_is_declared_there() -> None:
    declared = {name for name, kind in vars(errors).items() if isinstance(kind, type) and kind is not ScansealError}

    assert {name for name in declared if name not in (errors.__doc__ or "")} == set()


def test_a_failure_is_kept_with_all_that_a_person_needs(failures: Failures) -> None:
    assert failures.last(DEVICE) is None
    fail(failures, ServerUnreachable("No answer.", remedy="Check the network."), SteppedClock())

    failure = failures.last(DEVICE)
    assert failure is not None
    assert (failure.at, failure.since, failure.attempts, failure.flow) == (NOW, NOW, 1, "cmp")
    assert (failure.code, failure.what, failure.remedy) == ("server-unreachable", "No answer.", "Check the network.")
    assert failure.who_must_act == "hospital IT"
    assert "tries again by itself" in failure.next


def test_failures_of_one_kind_in_a_row_are_counted_since_the_first(failures: Failures) -> None:
    clock = SteppedClock()
    for error in (ServerUnreachable("1"), ServerUnreachable("2"), ServerUnreachable("3")):
        fail(failures, error, clock)
        clock.advance(timedelta(hours=1))

    failure = failures.last(DEVICE)
    assert failure is not None
    assert (failure.what, failure.attempts, failure.since) == ("3", 3, NOW)
    assert failure.at == NOW + timedelta(hours=2)


def test_another_failure_is_counted_anew(failures: Failures) -> None:
    clock = SteppedClock()
    fail(failures, ServerUnreachable("1"), clock)
    clock.advance(timedelta(hours=1))
    fail(failures, CertificateRefused("2"), clock)

    failure = failures.last(DEVICE)
    assert failure is not None
    assert (failure.attempts, failure.since) == (1, NOW + timedelta(hours=1))


def test_an_attempt_that_does_not_fail_ends_the_failure(failures: Failures) -> None:
    fail(failures, ServerUnreachable("No answer."), SteppedClock())
    with failures.noted(DEVICE, "est", SteppedClock()):
        pass

    assert failures.last(DEVICE) is None


def test_two_enrollers_at_once_are_no_failure(failures: Failures) -> None:
    fail(failures, EnrollerBusy("Another enrollment is running."), SteppedClock())

    assert failures.last(DEVICE) is None


def test_a_user_who_cannot_read_the_state_leaves_nothing_in_it(failures: Failures, tmp_path: Path) -> None:
    fail(failures, StateUnreadable("No."), SteppedClock())

    assert not (tmp_path / "state").exists()


def test_a_disk_that_refuses_hides_no_error(tmp_path: Path) -> None:
    class Full(StateFiles):
        def write(self, path: Path, data: bytes, mode: int = 0o600) -> None:
            raise StateError("full")

        def remove(self, path: Path) -> None:
            raise StateError("full")

    failures = Failures(IdentityStore(tmp_path, Full()))
    fail(failures, ServerUnreachable("No answer."), SteppedClock())
    with failures.noted(DEVICE, "est", SteppedClock()):
        pass


def test_what_is_kept_is_bounded_and_printable_and_for_the_group(failures: Failures, tmp_path: Path) -> None:
    fail(failures, EnrollmentRefused("\x1b[2J" + "x" * 100_000, who_must_act="y" * 100_000), SteppedClock())

    path = tmp_path / "state/identities/device/last-failure.json"
    failure = failures.last(DEVICE)
    assert failure is not None
    assert len(failure.what) <= TEXT_LIMIT
    assert failure.what.isprintable()
    assert path.stat().st_size < 4 * TEXT_LIMIT
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "change", [{"attempts": "0"}, {"attempts": "-1"}, {"attempts": "9" * 10}, {"at": "x"}, {"more": ""}]
)
def test_a_damaged_record_is_said_to_be_damaged_and_replaced_by_the_next(
    failures: Failures, tmp_path: Path, change: dict[str, str]
) -> None:
    fail(failures, ServerUnreachable("1"), SteppedClock())
    path = tmp_path / "state/identities/device/last-failure.json"
    rewrite(path, **change)
    with pytest.raises(StateError):
        failures.last(DEVICE)
    fail(failures, ServerUnreachable("2"), SteppedClock())

    failure = failures.last(DEVICE)
    assert failure is not None
    assert failure.attempts == 1


def test_the_count_has_an_end(failures: Failures, tmp_path: Path) -> None:
    fail(failures, ServerUnreachable("1"), SteppedClock())
    path = tmp_path / "state/identities/device/last-failure.json"
    rewrite(path, attempts=str(MOST_ATTEMPTS))
    fail(failures, ServerUnreachable("2"), SteppedClock())

    assert failures.last(DEVICE) is not None


def test_a_refusal_names_whom_the_flow_names(tmp_path: Path) -> None:
    ca, clock = HospitalCa(), SteppedClock()

    def refuse(_: Enrollment | OfferedEnrollment) -> Refused:
        return Refused("unknown device", "vendor service", "Ask for a ticket.")

    scanner = Scanner(settings(tmp_path), (ca.certificate,), clock)
    failures = Failures(scanner.identities)
    with pytest.raises(EnrollmentRefused), failures.noted(IdentityName.SIGNING, "est", clock):
        scanner.issue(CaFlow(ca, clock, answer=refuse))

    failure = failures.last(IdentityName.SIGNING)
    assert failure is not None
    assert failure.who_must_act == "vendor service"
    assert failure.remedy == "Ask for a ticket."
    assert "with a new key" in failure.next


# --- what is shown


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[ConfiguredScanner]:
    with new_scanner(tmp_path) as scanner:
        yield scanner


def test_an_error_on_the_command_line_names_all_four(
    configured: ConfiguredScanner, capsys: pytest.CaptureFixture[str]
) -> None:
    configuration = str(configured.configure())
    run(["enroll", "est", "--config", configuration])
    told = capsys.readouterr().err
    run(["enroll", "est", "--json", "--config", configuration])
    error = json.loads(capsys.readouterr().out)["error"]

    assert set(error) == {"code", "what", "remedy", "who_must_act", "next"}
    assert told.splitlines() == [
        f"Error [configuration-invalid]: {error['what']}",
        f"       {error['remedy']}",
        f"       To act: {error['who_must_act']}.",
        f"       Next: {error['next']}",
    ]


def test_status_and_check_show_it_later(configured: ConfiguredScanner, capsys: pytest.CaptureFixture[str]) -> None:
    configuration = str(configured.configure())
    for _ in range(2):
        run(["enroll", "est", "--config", configuration])
    capsys.readouterr()
    run(["status", "--config", configuration])
    status = capsys.readouterr().out
    run(["status", "--json", "--config", configuration])
    failure = json.loads(capsys.readouterr().out)["identities"]["device"]["last_failure"]
    run(["check", "--json", "--config", configuration])
    findings = json.loads(capsys.readouterr().out)["findings"]

    assert "failed      [configuration-invalid] by est at " in status
    assert "(2 times since " in status
    assert "To act: operator of the scanner.\n" in status
    assert (failure["attempts"], failure["code"]) == (2, "configuration-invalid")
    (finding,) = [each for each in findings if each["check"] == "last-enrollment"]
    assert (finding["subject"], finding["state"], finding["code"]) == ("device", "warning", "configuration-invalid")
    assert "To act: operator of the scanner." in finding["remedy"]


def test_status_shows_what_waits_and_for_what(
    configured: ConfiguredScanner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ca, clock = HospitalCa(), SteppedClock()

    def wait(_: Enrollment | OfferedEnrollment) -> Pending:
        return Pending(NOW + timedelta(hours=4), "an officer has to look at it")

    (tmp_path / "other").mkdir()
    scanner = Scanner(settings(tmp_path / "other"), (ca.certificate,), clock)
    scanner.identities = configured.identities
    scanner.issue(CaFlow(ca, clock, name="cmp", answer=wait))
    configuration = str(configured.configure())
    run(["status", "--config", configuration])
    status = capsys.readouterr().out
    run(["status", "--json", "--config", configuration])
    (pending,) = json.loads(capsys.readouterr().out)["identities"]["signing"]["pending"]

    assert (
        "under way   by cmp since 2026-11-22 12:00 UTC, the CA is asked again after 2026-11-22 16:00 UTC: "
        "an officer has to look at it"
    ) in status
    assert (pending["flow"], pending["step"], pending["reason"]) == ("cmp", "sent", "an officer has to look at it")


def test_status_says_from_whom_and_how_a_certificate_came(
    configured: ConfiguredScanner, capsys: pytest.CaptureFixture[str]
) -> None:
    configured.enroll()
    run(["status", "--config", str(configured.configure())])

    assert "issued by CN=Test CA (test)" in capsys.readouterr().out
