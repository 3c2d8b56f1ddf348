"""Whatever rendezvous servers and owners do: FDO 1.1, 5.4 and 5.5. See docs/hostile-owner.md, which has all cases.

Each run is that of the whole enroller, over HTTP, against servers that are written from the facts alone.
"""

from __future__ import annotations

import base64
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from enroll.errors import ScansealError
from enroll.failure import Failures
from enroll.fdo import cbor
from enroll.fdo.fault import ErrorCode
from enroll.fdo.messages import ErrorMessage
from enroll.flows.base import Pending
from enroll.identity import Generation
from tests.support.fdo import reference_codec as codec
from tests.support.fdo.hostile_case import ONBOARDS, Case
from tests.support.fdo.hostile_catalogue import CASES, CHAPTERS, DOCUMENT, OF_THE_TOOL, document
from tests.support.fdo.hostile_changes import garbled, message, nth
from tests.support.fdo.hostile_conformance import NUMBER_OF_CASES
from tests.support.fdo.hostile_scanner import DEVICE, PASSPHRASE, Customer, Ended, HostileScanner
from tests.support.fdo.hostile_server import HostileServer
from tests.support.fdo.hostile_stage import HOST, Keys, Stage
from tests.support.reliability.measured import measured

MEMORY = 48 << 20  # bytes of a whole process that is scanner and server; some cases send 25 MiB
STATUS = Path("/proc/self/status")
CURRENT, NEXT, ANCHORS = "fdo/credential.current", "fdo/credential.pending", "fdo/anchors.pem"
# What a run may leave: the lock, when to try again, what went wrong, and the request that the next run goes on with.
DIARY = re.compile(r"enroll\.lock|fdo/attempt\.json|identities/device/(last-failure|pending/request)\.json")
# An honest owner comes after each bad 71, and after one case of each chapter for each message.
TRIED_AGAIN = list({(chapter.title, case.message): case for chapter in CHAPTERS for case in chapter.cases}.values())


@dataclass(frozen=True)
class Site:
    """The server, and scanners that belong to nobody yet, or to an owner already.

    Args:
        server: At one address.
        new: A scanner from its factory.
        owned: One that has a certificate of its owner.
        with_rsa: One from a factory with RSA keys.
    """

    server: HostileServer
    new: Customer
    owned: Customer
    with_rsa: Customer


@pytest.fixture(scope="module", autouse=True)
def _quick_disk() -> Iterator[None]:
    """Nothing of these tests has to survive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("hostile-owner")
    with HostileServer() as server:
        new = Customer.delivered(folder / "new", server.port, Keys.new())
        owned = onboarded(new.copied(folder / "owned"), server)
        with_rsa = Customer.delivered(folder / "with-rsa", server.port, Keys.new(with_rsa=True))
        yield Site(server, new, owned, with_rsa)


def onboarded(customer: Customer, server: HostileServer) -> Customer:
    server.play(customer.stage)
    assert isinstance(HostileScanner(customer.folder, customer.stage.clock).run(), Generation)
    return replace(customer, stage=customer.stage.following())


def memory(field: str) -> int:
    """Bytes."""
    line = next(line for line in STATUS.read_text("ascii").splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) << 10


# --- what has to hold after each case


def check_ending(ended: Ended, case: Case, scanner: HostileScanner) -> None:
    remembered = Failures(scanner.scanner.identities).last(DEVICE)  # `scanseal status` shows it
    assert (remembered.code if remembered else "") == (ended.code if isinstance(ended, ScansealError) else "")
    if isinstance(ended, ScansealError):
        assert ended.code == case.ending.code, ended.what
        assert all(text.isprintable() and len(text) < 1200 for text in (ended.what, ended.remedy))
        return
    assert case.ending.code == ("waits" if isinstance(ended, Pending) else "onboards")
    assert not isinstance(ended, Pending) or ended.reason.isprintable()


def check_told(server: HostileServer, case: Case) -> None:
    """Message 255 comes once, as the last message, with the token of the run that it ends (FDO 1.1, 4.3 and 5.1)."""
    told = case.ending.told
    messages = [ErrorMessage.read(heard.body) for heard in server.errors]
    expected = [(told.about, told.code)] if told else []
    assert [(message.previous, message.code) for message in messages] == expected, messages
    if told is not None:
        is_first = told.about in (30, 60)  # no token was given, or none that can be sent back
        role = "rendezvous" if told.about < 60 else "owner"
        assert server.heard[-1].token == ("" if is_first else f"Bearer {role}")
        assert max(server.numbers[:-1]) <= told.about  # it does not go on


def check_kept(scanner: HostileScanner, before: dict[str, bytes], case: Case) -> None:
    """Of all files only the diary has changed, and one key may have come that it names."""
    after = scanner.state
    changed = {name for name in after | before if after.get(name) != before.get(name) and not DIARY.fullmatch(name)}
    journal = scanner.scanner.identities.journal(DEVICE).read()
    if journal is not None:
        changed -= {f"keys/{journal.key_name}.pem", f"ledger/{journal.key_name}.json"}
    assert changed == ({NEXT, ANCHORS} if case.keeps_both else set())
    assert after[CURRENT] == before[CURRENT]


def check_silence(text: str, stage: Stage) -> None:
    """Nothing of what the log says is a secret of the scanner, or of the session."""
    device = stage.device
    number = device.key.private_numbers()
    scalar = number.private_value.to_bytes(32, "big")  # type: ignore[union-attr]
    for secret in (device.secret, scalar, PASSPHRASE, *filter(None, [stage.owner.session_key])):
        for shown in (secret.hex(), base64.b64encode(secret).decode(), repr(secret)[2:-1]):
            assert shown.casefold() not in text.casefold()


def check_next_run(scanner: HostileScanner, stage: Stage, server: HostileServer) -> None:
    """An honest owner comes next, and all is well: one credential, one matching pair, no key that nothing names."""
    server.play(stage.honest())
    generation = scanner.run()
    assert server.failures == []
    assert isinstance(generation, Generation), generation
    assert server.errors == []
    check_onboarded(scanner, server)


def check_onboarded(scanner: HostileScanner, server: HostileServer) -> None:
    stage, identities = server.stage, scanner.scanner.identities
    assert stage is not None
    current = scanner.scanner.matching_pair(DEVICE)
    assert current is not None
    current.certificate.verify_directly_issued_by(stage.csr.ca.certificate)
    assert scanner.credential.owner is not None
    assert scanner.credential.owner.anchors == (stage.csr.ca.certificate,)
    assert scanner.credentials.pending() is None
    assert scanner.credential.guid == stage.owner.next_guid
    named = {scanner.credential.key_uri, scanner.credential.secret_uri}
    named |= {identities.key_uri(DEVICE, number) for number in identities.generations(DEVICE)}
    assert set(scanner.scanner.stores.list()) == named


def run(case: Case, customer: Customer, server: HostileServer, caplog: pytest.LogCaptureFixture) -> None:
    """One case, with all that has to hold afterwards."""
    stage = customer.stage
    scanner = HostileScanner(customer.folder, stage.clock, **case.settings)
    before = scanner.state
    case.arrange(stage)
    server.play(stage)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    resident, begun = memory("VmRSS"), time.monotonic()

    with caplog.at_level(logging.DEBUG):
        ended = scanner.run()

    assert server.failures == []
    assert time.monotonic() - begun < case.seconds
    assert memory("VmHWM") - resident < MEMORY
    check_ending(ended, case, scanner)
    check_told(server, case)
    assert len(server.heard) <= case.requests
    check_silence(caplog.text, stage)
    if case.ending is ONBOARDS:
        check_onboarded(scanner, server)
        return
    check_kept(scanner, before, case)
    if case.keeps_both or case in TRIED_AGAIN:
        # Without what the case needed; but an honest owner with an RSA key has to be spoken to in its way.
        needed = {"key_exchange": "ASYMKEX2048"} if case.with_rsa else {}
        check_next_run(HostileScanner(customer.folder, stage.clock, **needed), stage, server)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_comes_of_it_and_the_server_is_told(
    case: Case, site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    customer = (site.with_rsa if case.with_rsa else site.new).copied(tmp_path / "scanner")
    run(case, customer, site.server, caplog)
    shutil.rmtree(tmp_path / "scanner")


@pytest.mark.parametrize("case", OF_THE_TOOL.cases, ids=lambda case: case.name)
def test_a_scanner_that_has_an_owner_keeps_its_certificate(
    case: Case, site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same once more, with something to lose."""
    customer = site.owned.copied(tmp_path / "scanner")
    run(case, customer, site.server, caplog)
    shutil.rmtree(tmp_path / "scanner")


@pytest.mark.parametrize("kind", ["new", "owned", "with_rsa"])
def test_without_a_case_the_servers_are_right(kind: str, site: Site, tmp_path: Path) -> None:
    """What the others are refused for is what they do, and nothing else; with reuse, as the tool wants it, as well."""
    customer: Customer = getattr(site, kind).copied(tmp_path / "scanner")
    settings = {"key_exchange": "ASYMKEX2048"} if kind == "with_rsa" else {}
    scanner = HostileScanner(customer.folder, customer.stage.clock, **settings)
    check_next_run(scanner, customer.stage, site.server)


# --- several servers, and several runs


def led(customer: Customer, directives: list[list[list[Any]]]) -> HostileScanner:
    """A scanner with these rendezvous directives."""
    scanner = HostileScanner(customer.folder, customer.stage.clock)
    encoded = cbor.Raw(codec.write(directives))
    scanner.credentials.commit(replace(scanner.credential, rendezvous=encoded))
    return scanner


def directive(port: int, **changes: Any) -> list[list[Any]]:
    """A rendezvous directive (FDO 1.1, 3.3.2)."""
    numbers = {"dns": 5, "port": 3, "protocol": 12, "server": 6, "issuer": 7}
    values = {"dns": HOST, "port": port, "protocol": 1, **changes}
    return [[numbers[name], codec.write(value)] for name, value in values.items()]


@pytest.mark.parametrize("number", [31, 33, 61, 63, 65, 67, 69])
def test_a_hostile_server_keeps_no_scanner_from_the_next_one(number: int, site: Site, tmp_path: Path) -> None:
    """FDO 1.1, 3.7: the next directive leads to somebody else, in the same run."""
    customer = site.new.copied(tmp_path / "scanner")
    scanner = led(customer, [directive(site.server.port), directive(site.server.port)])
    message(number, nth(1, garbled))(customer.stage)
    site.server.play(customer.stage)

    assert isinstance(scanner.run(), Generation)

    assert len(site.server.errors) == 1
    check_onboarded(scanner, site.server)


@pytest.mark.parametrize(
    "pins",
    [{}, {"server": [-16, bytes(32)]}, {"issuer": [-16, bytes(32)]}, {"server": [5, bytes(32)]}],
    ids=["no pin", "of the server", "of its CA", "by an HMAC"],
)
def test_nobody_gets_round_a_pin_by_blocking_tls(pins: dict[str, Any], site: Site, tmp_path: Path) -> None:
    """FDO 1.1, 3.3.2: the protocol REST is https and then http, but there is nothing to compare with a pin in http."""
    customer = site.new.copied(tmp_path / "scanner")
    scanner = led(customer, [directive(site.server.port, protocol=0, **pins)])
    site.server.play(customer.stage)

    ended = scanner.run()

    assert isinstance(ended, Pending if pins else Generation)
    assert bool(site.server.heard) is not bool(pins)


def test_after_a_wrong_end_the_old_credential_still_leads_to_an_owner(site: Site, tmp_path: Path) -> None:
    """What came as 71 was not of the owner, who has never seen message 70: it knows the scanner as before."""
    customer = site.new.copied(tmp_path / "scanner")
    scanner = HostileScanner(customer.folder, customer.stage.clock)
    message(71, garbled)(customer.stage)
    site.server.play(customer.stage)
    assert isinstance(scanner.run(), ScansealError)
    assert scanner.credentials.pending() is not None

    site.server.play(customer.stage.again())
    assert isinstance(scanner.run(), Generation)

    check_onboarded(scanner, site.server)


def test_a_wrong_end_again_and_again_fills_nothing(site: Site, tmp_path: Path) -> None:
    """Each owner takes the scanner over and spoils the end: one credential beside the one in use, and one key."""
    customer = site.new.copied(tmp_path / "scanner")
    scanner, stage = HostileScanner(customer.folder, customer.stage.clock), customer.stage
    files = set()
    for _ in range(5):
        message(71, garbled)(stage)
        site.server.play(stage)
        assert isinstance(scanner.run(), ScansealError)
        files.add(len(scanner.state))
        stage = stage.honest()
    assert len(files) == 1

    check_next_run(scanner, stage, site.server)


def test_an_earlier_owner_does_not_come_back(site: Site, tmp_path: Path) -> None:
    """It still has its voucher, whose owner it was, and answers to the new GUID with it (FDO 1.1, 5.5.3)."""
    customer = site.owned.copied(tmp_path / "scanner")
    scanner = HostileScanner(customer.folder, customer.stage.clock)
    before, stage = scanner.state, customer.stage
    stage.owner.voucher = replace(site.new.stage.voucher, device=stage.device)
    site.server.play(stage)

    assert isinstance(scanner.run(), ScansealError)

    assert [ErrorMessage.read(heard.body).code for heard in site.server.errors] == [ErrorCode.INVALID_GUID]
    assert scanner.state[CURRENT] == before[CURRENT]


def test_the_cases_are_those_of_the_tool_and_many_more() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
    assert len({case.name.partition("/")[0] for case in OF_THE_TOOL.cases}) == NUMBER_OF_CASES
    assert len(CASES) - len(OF_THE_TOOL.cases) >= 40
    assert all(chapter.cases for chapter in CHAPTERS)
    assert all(case.ending.told or case.ending.untold for case in CASES)
    measured("R11", "what owners and rendezvous servers do, each a test", cases=len(CASES))


def test_the_document_on_hostile_owners_shows_the_cases() -> None:
    assert DOCUMENT.read_text("utf-8") == document()
