"""The scanner is killed, or hears nothing, at every message of FIDO Device Onboard and at every write around them.

Whatever happens, the next start ends onboarded: with its certificate, with one credential, which is the one that its
owner knows, and with no key in the store that nothing names. The commands are real processes, and SIGKILL ends them.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agent.cli import exits
from enroll.fdo.messages import MessageType
from tests.interop.test_renewal import images_being_signed
from tests.support.agent_process import new_scanner as new_device
from tests.support.agent_process import running_agent, wait_until
from tests.support.fdo.cuts import TOKEN, Cut, Moment, QuickStart, Scanner, Site
from tests.support.fdo.parties import party_keys, sold
from tests.support.softhsm import SoftHsm, new_softhsm

M = MessageType
KILLED = -signal.SIGKILL
ENROLL = ("enroll", "fdo")
INIT = ("fdo", "init", "--json")
RELEASE = ("owner", "release", "--yes")
TIMER = ("renew",)
ROUNDS = 5  # of 68 and 69 in one onboarding
MESSAGES = [
    (M.TO1_HELLO_RV, 1),
    (M.TO1_PROVE_TO_RV, 1),
    (M.TO2_HELLO_DEVICE, 1),
    (M.TO2_GET_OV_NEXT_ENTRY, 1),
    (M.TO2_PROVE_DEVICE, 1),
    (M.TO2_DEVICE_SERVICE_INFO_READY, 1),
    *((M.TO2_DEVICE_SERVICE_INFO, count) for count in range(1, ROUNDS + 1)),
    (M.TO2_DONE, 1),
]
CUTS = [Cut(message, count, moment) for message, count in MESSAGES for moment in Moment]
FACTORY_CUTS = [Cut(message, 1, moment) for message in (M.DI_APP_START, M.DI_SET_HMAC) for moment in Moment]
MOST_OPERATIONS = 300  # on the disk, in one run; more would never end
LEAST_OPERATIONS = 20
TRIALS = 12  # of several cuts
PARTS = 4  # of a sweep, so that they can run at the same time

NewScanner = Callable[[str], Scanner]


@pytest.fixture(scope="module")
def processes() -> Iterator[QuickStart]:
    with QuickStart() as started:
        yield started


@pytest.fixture(scope="module")
def other_processes() -> Iterator[QuickStart]:
    """At the same time."""
    with QuickStart() as started:
        yield started


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def site(running: Site) -> Site:
    running.forget()
    running.heard.clear()
    running.meanwhile = lambda _: None
    return running


@pytest.fixture(scope="module", params=["software", "pkcs11"])
def hsm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsm | None]:
    """Where the keys are; None for files."""
    if request.param == "software":
        yield None
        return
    made = new_softhsm(tmp_path_factory.mktemp("hsm") / "hsm", [TOKEN])
    with pytest.MonkeyPatch.context() as patched:
        for name, value in made.environment.items():
            patched.setenv(name, value)
        yield made


@pytest.fixture
def in_factory(tmp_path: Path, site: Site, processes: QuickStart, hsm: SoftHsm | None) -> Scanner:
    """A scanner that has nothing yet."""
    return factory_fresh(tmp_path / "scanner", site, processes, hsm)


def factory_fresh(folder: Path, site: Site, processes: QuickStart, hsm: SoftHsm | None) -> Scanner:
    scanner = Scanner(folder, site, processes, hsm)
    with scanner.stores() as stores:
        for uri in stores.list():  # of the one before, in the same token
            stores.destroy(uri)
    return scanner


@pytest.fixture
def scanner(in_factory: Scanner) -> Scanner:
    """A scanner that waits for its owner, who has its voucher."""
    assert in_factory.run(*INIT) == exits.OK, in_factory.said
    return in_factory


def test_these_are_all_messages(scanner: Scanner, site: Site) -> None:
    site.heard.clear()
    assert scanner.run(*ENROLL) == exits.OK

    own = [number for number in site.heard if number not in (M.TO0_HELLO, M.TO0_OWNER_SIGN)]
    assert own == [message for message, _ in MESSAGES]
    scanner.check_onboarded(site.owner, site.ca)


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_after_a_cut_at_any_message_the_next_start_ends_onboarded(scanner: Scanner, site: Site, cut: Cut) -> None:
    ended = scanner.run(*ENROLL, cut=cut)

    assert ended == (exits.TRY_LATER if cut.moment.is_survived else KILLED)
    assert scanner.until_done(*ENROLL) == [exits.OK]
    scanner.check_onboarded(site.owner, site.ca)


@pytest.fixture
def new_scanner(tmp_path: Path, site: Site, processes: QuickStart) -> NewScanner:
    """Makes one that waits for its owner; its keys are in files."""

    def make(name: str) -> Scanner:
        site.forget()
        scanner = factory_fresh(tmp_path / name, site, processes, None)
        assert scanner.run(*INIT) == exits.OK, scanner.said
        return scanner

    return make


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_after_a_kill_at_any_write_the_next_start_ends_onboarded(
    new_scanner: NewScanner, site: Site, part: int, *, after: bool
) -> None:
    ended, operation = KILLED, 0
    for operation in operations(part):
        scanner = new_scanner(f"trial-{operation}")
        ended = scanner.run(*ENROLL, operation=operation, after=after)
        codes = scanner.until_done(*ENROLL)
        assert codes == [exits.OK], f"{operation}: {scanner.said}"
        scanner.check_onboarded(site.owner, site.ca)
        if ended != KILLED:
            break
    assert ended == exits.OK
    assert operation > LEAST_OPERATIONS


@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_is_lost_where_the_owner_does_not_register_what_it_has_taken_over(
    new_scanner: NewScanner, site: Site, part: int
) -> None:
    """Nobody knows the scanner then, and nobody gives the certificate again: go-fdo does so. The timer ends it."""
    lost = 0
    for operation in operations(part):
        scanner = new_scanner(f"trial-{operation}")
        (old,) = site.guids
        ended = scanner.run(*ENROLL, operation=operation)
        if site.guids != [old]:
            site.forget()
            lost += 1
            assert scanner.until_done(*TIMER) == [exits.OK], f"{operation}: {scanner.said}"
            scanner.check_kept()
        if ended != KILLED:
            break
    assert lost > LEAST_OPERATIONS // 2 // PARTS


@pytest.mark.parametrize("cut", FACTORY_CUTS, ids=str)
def test_after_a_cut_in_the_factory_the_scanner_can_be_onboarded(in_factory: Scanner, site: Site, cut: Cut) -> None:
    """FDO 1.1, 5.2. The manufacturer may have handed on a voucher that no device belongs to: nothing undoes 12."""
    ended = in_factory.run(*INIT, cut=cut)
    assert ended == (exits.UNAVAILABLE if cut.moment.is_survived else KILLED)
    worthless = site.guids
    assert len(worthless) == (cut.message == M.DI_SET_HMAC and cut.moment not in (Moment.SENT, Moment.UNHEARD))

    assert in_factory.run(*INIT) == exits.OK, in_factory.said
    for guid in worthless:
        site.owner.vouchers.remove(guid)
    assert in_factory.until_done(*ENROLL) == [exits.OK]
    in_factory.check_onboarded(site.owner, site.ca)


def test_a_scanner_whose_factory_never_heard_the_last_answer_belongs_to_its_voucher(
    in_factory: Scanner, site: Site
) -> None:
    """The credential was on the disk before message 12, and the manufacturer has made the voucher of it."""
    in_factory.run(*INIT, cut=Cut(M.DI_SET_HMAC, 1, Moment.PROCESSED))

    assert in_factory.until_done(*ENROLL) == [exits.OK]
    in_factory.check_onboarded(site.owner, site.ca)
    assert in_factory.run(*INIT) == exits.CONFIGURATION
    in_factory.check_onboarded(site.owner, site.ca)


def test_a_scanner_whose_factory_never_heard_of_it_finds_no_owner_and_can_be_made_again(
    in_factory: Scanner, site: Site
) -> None:
    in_factory.run(*INIT, cut=Cut(M.DI_SET_HMAC, 1, Moment.SENT))

    assert in_factory.run(*ENROLL) == exits.TRY_LATER
    assert in_factory.run(*INIT) == exits.OK
    assert in_factory.until_done(*ENROLL) == [exits.OK]
    in_factory.check_onboarded(site.owner, site.ca)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_after_a_kill_at_any_write_in_the_factory_the_scanner_can_be_onboarded(
    tmp_path: Path, site: Site, processes: QuickStart, *, after: bool
) -> None:
    ended, operation = KILLED, 0
    for operation in operations(parts=1):
        site.forget()
        scanner = factory_fresh(tmp_path / f"trial-{operation}", site, processes, None)
        ended = scanner.run(*INIT, operation=operation, after=after)
        assert scanner.run(*INIT) == exits.OK or "fdo-initialized" in scanner.said
        for guid in set(site.guids) - {scanner.guid}:  # a voucher that no device belongs to
            site.owner.vouchers.remove(guid)
        assert scanner.until_done(*ENROLL) == [exits.OK]
        scanner.check_onboarded(site.owner, site.ca)
        if ended != KILLED:
            break
    assert ended == exits.OK
    assert operation > LEAST_OPERATIONS // 2


@pytest.mark.parametrize("part", range(PARTS))
def test_after_a_kill_at_any_write_of_a_release_the_next_owner_takes_over(
    new_scanner: NewScanner, site: Site, tmp_path: Path, part: int
) -> None:
    ended = KILLED
    with site.next_owner(tmp_path / "buyer", "buyer") as (buyer, ca):
        for operation in operations(part):
            scanner = new_scanner(f"trial-{operation}")
            assert scanner.run(*ENROLL) == exits.OK
            (guid,) = site.guids
            buyer.take(sold(site.owner, guid, party_keys("buyer")))

            ended = scanner.run(*RELEASE, operation=operation)
            # Once it has begun, the timer brings it to its end; before that, nothing has happened.
            assert scanner.run(*(TIMER if is_begun(scanner) else RELEASE)) == exits.OK, scanner.said
            scanner.check_released()
            assert scanner.until_done(*ENROLL) == [exits.OK], f"{operation}: {scanner.said}"
            scanner.check_onboarded(buyer, ca)
            buyer.vouchers.remove(buyer.vouchers.all()[0].header.guid)
            if ended != KILLED:
                break
    assert ended == exits.OK
    assert operation > LEAST_OPERATIONS


def is_begun(scanner: Scanner) -> bool:
    return (scanner.state / "release.json").exists()


def test_cuts_again_and_again(new_scanner: NewScanner, site: Site) -> None:
    """Whatever went before: some cuts in a row, in any order, of an owner that the scanner has had or has not."""
    chance = random.Random(33)  # noqa: S311 - cuts, the same in every run
    scanner = new_scanner("scanner")
    for trial in range(TRIALS):
        for cut in chance.sample(CUTS, chance.randint(2, 5)):
            scanner.run(*ENROLL, cut=cut)
        codes = scanner.until_done(*ENROLL)
        assert codes == [exits.OK], f"{trial}: {scanner.said}"
        scanner.check_onboarded(site.owner, site.ca)


@pytest.fixture
def strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is missing: apt-get install strace")
    if subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let strace trace: allow ptrace")


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("hsm", ["pkcs11"], indirect=True)
def test_after_a_kill_while_the_token_makes_a_key_the_next_start_ends_onboarded(
    tmp_path: Path, site: Site, processes: QuickStart, hsm: SoftHsm
) -> None:
    """It is killed in the middle of SoftHSM, by strace. What that leaves half made has no name, and is no key."""
    ended = KILLED
    for write in range(3, MOST_OPERATIONS, 11):
        site.forget()
        scanner = factory_fresh(tmp_path / f"trial-{write}", site, processes, hsm)
        assert scanner.run(*INIT) == exits.OK, scanner.said
        ended = scanner.run_traced("ftruncate", write, *ENROLL)
        assert scanner.until_done(*ENROLL) == [exits.OK], f"{write}: {scanner.said}"
        scanner.check_onboarded(site.owner, site.ca)
        if ended == exits.OK:
            break
    assert ended == exits.OK
    assert write > 3 * 11


@pytest.mark.parametrize("other", [ENROLL, RELEASE, TIMER, INIT], ids=lambda words: words[0])
@pytest.mark.parametrize("at", [M.TO1_HELLO_RV, M.TO2_DONE], ids=int)
def test_of_two_runs_at_once_one_is_told_to_come_later(
    new_scanner: NewScanner, site: Site, other_processes: QuickStart, other: Sequence[str], at: M
) -> None:
    """The timer, say, and an operator."""
    scanner = new_scanner("scanner")
    second = replace(scanner, processes=other_processes)
    codes: list[int] = []

    def meanwhile(number: int) -> None:
        if number == at and not codes:
            codes.append(second.run(*other))

    site.meanwhile = meanwhile
    assert scanner.run(*ENROLL) == exits.OK

    assert codes == [exits.TRY_LATER]
    scanner.check_onboarded(site.owner, site.ca)


def test_images_are_signed_whatever_happens_meanwhile(tmp_path: Path, site: Site, processes: QuickStart) -> None:
    """The owner takes its scanner over again, which brings a new certificate for signing, too; each time it is cut."""
    signing = {"key_algorithm": "rsa-2048", "key_store": "software"}
    with new_device(tmp_path) as device:
        scanner = Scanner(tmp_path, site, processes)
        tables = scanner.tables | {"identity.signing": signing}
        device.configure(**tables)
        assert scanner.run(*INIT) == exits.OK, scanner.said
        assert scanner.run(*ENROLL) == exits.OK, scanner.said
        with running_agent(device, **tables) as agent, images_being_signed(agent.socket) as generations:
            for cut in CUTS[3 :: len(CUTS) // 4]:
                scanner.run(*ENROLL, cut=cut)
                go_on(generations)
                assert scanner.until_done(*ENROLL) == [exits.OK]
            wait_until(lambda: max(generations) > 1)
    scanner.check_onboarded(site.owner, site.ca)


def go_on(generations: Sequence[int]) -> None:
    """One more image is signed."""
    signed = len(generations)
    wait_until(lambda: len(generations) > signed)


def operations(part: int = 0, parts: int = PARTS) -> Iterator[int]:
    """The numbers of operations on the disk in one run, for one part of the sweep."""
    yield from range(1 + part, MOST_OPERATIONS, parts)
    pytest.fail(f"more than {MOST_OPERATIONS} operations on the disk")
