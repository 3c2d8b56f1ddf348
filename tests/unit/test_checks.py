"""What the answers to the questions of `scanseal check` mean."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent import checks
from agent.checks import Finding, Place, State
from agent.cli.main import run
from agent.errors import AgentUnreachable
from enroll.clock_record import Doubt
from enroll.clock_sense import TimeSense
from enroll.errors import ConfigurationError, KeyMismatch, KeyStoreUnavailable, PinRefused
from enroll.identity import IdentityName
from enroll.keystore.base import Protection
from tests.support.agent_process import new_scanner
from tests.support.certificates import Authority, rsa_key

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ROOT = Place(Path("/state"), 700, 0o2750)
SIGNING = IdentityName.SIGNING


def secret(mode: int, owner: int = 700) -> Place:
    return Place(Path("/state/keys/k.pem"), owner, mode, secret=True)


def of_memory_key(status: dict[str, object] | None) -> State:
    return checks.held_by_agent(SIGNING, status, 2).state


def test_every_check_is_explained_where_it_is_listed() -> None:
    source = Path(checks.__file__).read_text("utf-8")
    used = set(re.findall(r"""(?:Finding\(\s*|name = )"([a-z-]+)\"""", source))

    assert used
    assert used <= set(re.findall(r"^    ([a-z-]+) {2,}", checks.__doc__ or "", re.MULTILINE))


@pytest.mark.parametrize("error", [KeyStoreUnavailable("away"), AgentUnreachable("away")])
def test_what_may_come_back_by_itself_is_unavailable(error: KeyStoreUnavailable) -> None:
    assert checks.failure("key-store", error).state is State.UNAVAILABLE


@pytest.mark.parametrize("error", [PinRefused("no"), KeyMismatch("no"), ConfigurationError("no")])
def test_what_somebody_has_to_correct_has_failed(error: PinRefused) -> None:
    assert checks.failure("key-store", error).state is State.FAILED


@pytest.mark.parametrize(
    ("place", "state"),
    [
        (secret(0o600), State.OK),
        (secret(0o640), State.FAILED),
        (secret(0o604), State.FAILED),
        (secret(0o600, owner=0), State.FAILED),
        (Place(Path("/state/audit"), 700, 0o750), State.OK),
        (Place(Path("/state/audit"), 700, 0o752), State.FAILED),
        (Place(Path("/state/audit"), 700, 0o770), State.FAILED),
        (Place(Path("/state/audit"), 0, 0o750), State.FAILED),
    ],
)
def test_the_state_directory_belongs_to_one_user_and_its_secrets_to_nobody_else(place: Place, state: State) -> None:
    found = checks.state_directory([ROOT, place])

    assert found.state is state
    assert bool(found.remedy) == (state is State.FAILED)
    assert str(place.path) in found.what or state is State.OK


def test_a_state_directory_that_all_may_look_into_is_worth_a_look() -> None:
    assert checks.state_directory([Place(Path("/state"), 700, 0o755)]).state is State.WARNING


def test_another_user_is_told_that_the_service_may_see_something_else() -> None:
    assert checks.user(0, 0, "root").state is State.OK
    assert "runuser -u scanseal -- scanseal check" in checks.user(0, 700, "scanseal").remedy


def test_a_clock_that_is_not_believed_has_to_be_set() -> None:
    assert checks.clock(TimeSense(NOW, NOW, None, NOW)).state is State.OK
    for doubt in Doubt:
        found = checks.clock(TimeSense(datetime(1970, 1, 1, tzinfo=UTC), NOW, doubt, NOW))
        assert (found.state, found.code) == (State.FAILED, "clock-suspect")
        assert "1970-01-01" in found.what
        assert "scanseal check --clock-is-right" in found.remedy


def test_a_certificate_is_valid_then_due_then_over(tmp_path: Path) -> None:
    certificate = Authority(tmp_path, NOW).issue("ct1", rsa_key(2048)).certificate
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    moments = {
        begin - timedelta(seconds=1): State.FAILED,
        begin: State.OK,
        begin + (end - begin) * 0.9: State.WARNING,
        end: State.WARNING,
        end + timedelta(seconds=1): State.FAILED,
    }

    for now, state in moments.items():
        found = checks.certificate(SIGNING, certificate, now, begin + (end - begin) / 2)
        assert (found.state, bool(found.remedy)) == (state, state is not State.OK)


def test_check_and_the_timer_name_the_same_day(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each scanner renews at a moment of its own, days before others."""
    with new_scanner(tmp_path) as scanner:
        scanner.authority.not_after += timedelta(days=3650)
        scanner.enroll()
        configured = str(scanner.configure())
        run(["renew", "--dry-run", "--json", "--config", configured])
        due = {each["identity"]: each.get("due_at") for each in json.loads(capsys.readouterr().out)["identities"]}
        run(["check", "--json", "--config", configured])
        said = [each["what"] for each in json.loads(capsys.readouterr().out)["findings"]]

    assert any(f"renewed from {due['signing'][:10]} on" in what for what in said)


def test_hardware_that_is_required_is_not_replaced_by_anything() -> None:
    for where in (Protection.SOFTWARE, Protection.MEMORY):
        found = checks.hardware({SIGNING: where}, required=True)
        assert found.state is State.FAILED
        assert f"signing in {where}" in found.what
    assert checks.hardware({SIGNING: Protection.HARDWARE}, required=True).state is State.OK
    assert checks.hardware({SIGNING: Protection.SOFTWARE}, required=False).state is State.NOT_APPLICABLE
    assert checks.hardware({}, required=True).state is State.NOT_APPLICABLE


def test_a_token_has_to_make_as_many_signatures_as_the_scanner_makes_images() -> None:
    assert checks.speed(40, 39.9, in_token=True).state is State.FAILED
    assert checks.speed(40, 40.0, in_token=True).state is State.OK
    assert checks.speed(40, None, in_token=True).state is State.WARNING
    assert "does not start if it is too slow." in checks.speed(40, None, in_token=True).what
    assert checks.speed(40, 1.0, in_token=False).state is State.NOT_APPLICABLE
    assert checks.speed(0, 1.0, in_token=True).state is State.NOT_APPLICABLE


def test_a_key_that_is_no_longer_where_it_was_recorded_is_worth_a_look() -> None:
    moved = checks.protection(SIGNING, "pkcs11 t", Protection.SOFTWARE, Protection.HARDWARE)
    same = checks.protection(SIGNING, "pkcs11 t", Protection.HARDWARE, Protection.HARDWARE)

    assert (moved.state, same.state) == (State.WARNING, State.OK)


def test_a_key_in_memory_is_where_the_agent_says() -> None:
    end = "2026-11-23T12:00:00+00:00"

    assert of_memory_key({"identities": {"signing": {"generation": 2, "signs_until": end}}}) is State.OK
    assert of_memory_key({"identities": {"signing": {"generation": 1, "signs_until": end}}}) is State.UNAVAILABLE
    assert of_memory_key({"identities": {"signing": {"generation": 2, "signs_until": None}}}) is State.UNAVAILABLE
    assert of_memory_key(None) is State.WARNING


@pytest.mark.parametrize("status", [{}, {"identities": 1}, {"identities": {"signing": "x"}}, {"identities": [2]}])
def test_nothing_that_an_agent_answers_breaks_a_check(status: dict[str, object]) -> None:
    assert of_memory_key(status) is State.UNAVAILABLE
    assert isinstance(checks.agent_state(status), Finding)


def test_an_agent_that_refuses_a_generation_says_why_on_one_line() -> None:
    found = checks.agent_state({"refused_generation": {"identity": "signing", "detail": "no\x1b[2J\nsuch key"}})

    assert found.state is State.FAILED
    assert found.what.isprintable()


def test_an_agent_is_well_only_if_it_signs() -> None:
    ready = {"state": "ready", "roles": {"acquisition": "ready", "derivation": "not-enrolled"}}
    waiting = {"state": "awaiting-certificate", "roles": {"acquisition": "awaiting-certificate"}}
    found = checks.agent_state(waiting)

    assert checks.agent_state(ready).state is State.OK
    assert found.state is State.UNAVAILABLE
    assert found.what == "The agent cannot sign as acquisition: awaiting-certificate."
    assert found.remedy == "Run: scanseal renew; it says why the certificate does not come."


@pytest.mark.parametrize("state", ["not-enrolled", "key-expired", "key-store-unavailable", "a\x1b[2J", 1, None, []])
def test_an_agent_that_signs_in_one_role_of_two_is_not_well(state: object) -> None:
    alone = checks.agent_state({"state": state, "roles": {"acquisition": state}})
    second = checks.agent_state({"state": "ready", "roles": {"acquisition": "ready", "derivation": "key-expired"}})

    assert (alone.state, second.state) == (State.UNAVAILABLE, State.UNAVAILABLE)
    assert alone.what.isprintable()
    assert alone.remedy
    assert "as derivation: key-expired" in second.what


def test_an_agent_without_a_certificate_names_the_way_that_there_is() -> None:
    found = checks.agent_state({"state": "not-enrolled", "roles": {"acquisition": "not-enrolled"}}, "fdo")

    assert found.remedy == "Run: scanseal enroll fdo"
    assert checks.agent_state({"state": "not-enrolled"}).remedy == "Run: scanseal enroll"


def test_a_finding_that_comes_from_an_error_has_its_code() -> None:
    refused = {"refused_generation": {"identity": "signing", "code": "key-damaged", "detail": "no"}}

    assert checks.failure("key-store", PinRefused("no")).code == "pin-refused"
    assert checks.agent_state(refused).code == "key-damaged"
    assert checks.state_directory([ROOT]).code == ""


def test_a_state_directory_that_can_still_be_made_is_no_failure() -> None:
    found = checks.state_directory_to_come(Path("/state"))

    assert (found.state, found.what) == (State.WARNING, "/state does not exist yet; scanseal enroll makes it.")


def test_a_role_that_is_given_to_nobody_needs_no_identity() -> None:
    assert checks.not_needed(IdentityName.DERIVATION).state is State.NOT_APPLICABLE


def test_only_p11_kit_proxy_is_used_by_several_threads_at_once() -> None:
    assert checks.token_threads("pkcs11 t", through_proxy=True).remedy == ""
    assert "p11-kit-proxy.so" in checks.token_threads("pkcs11 t", through_proxy=False).remedy


def test_keys_in_memory_need_memory_that_is_locked() -> None:
    def state(*, possible: bool, in_memory: bool) -> State:
        return checks.memory_lock("scanseal.service", possible=possible, in_memory=in_memory).state

    assert state(possible=True, in_memory=True) is State.OK
    assert state(possible=False, in_memory=False) is State.WARNING
    assert state(possible=False, in_memory=True) is State.FAILED
    remedy = checks.memory_lock("this user", possible=False, in_memory=True).remedy
    assert remedy.endswith("by hand (as root: prlimit --pid $$ --memlock=unlimited).")


def test_no_service_may_leave_its_memory_in_a_file() -> None:
    assert checks.core_dumps({}).state is State.NOT_APPLICABLE
    assert checks.core_dumps({"a": 0, "b": 0}).state is State.OK
    assert checks.core_dumps({"a": 0, "b": None}).state is State.WARNING
