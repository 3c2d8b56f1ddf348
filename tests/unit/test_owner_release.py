"""`scanseal owner release`: what is the owner's is destroyed, what is the scanner's stays (ADR 33)."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.audit import AuditTrail, only_writer, verify
from agent.cli import exits
from agent.cli.enrolling import text
from agent.cli.main import run
from agent.daemon.signer import Identities
from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.config import StoreName
from enroll.enroller import asked_for as asked_for_identity
from enroll.errors import DiskRefused, KeyStoreUnavailable, StateError, StateTooNew
from enroll.fdo import cbor
from enroll.fdo.credential import CredentialStore, DeviceCredential, Owner
from enroll.fdo.hand_over import write_anchors
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.public_key import KeyType
from enroll.flows.acme.account import AccountRecord
from enroll.flows.base import FlowContext
from enroll.flows.settings import EstSettings, FdoApproval, FdoSettings, FlowName
from enroll.identity import IdentityName, IdentityStore
from enroll.journal import PendingRequest, Step
from enroll.keystore import KeyStores
from enroll.owner_release import OWNERS_IDENTITIES, OwnerRelease
from enroll.record import write_record
from enroll.statefile import StateFiles
from enroll.wanted import Wish
from tests.support.agent_process import new_scanner
from tests.support.clocks import SteppedClock
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.pki import HospitalCa
from tests.support.records import rewrite, set_key_uri, values_of
from tests.unit.test_issue_power_cuts import FailingFiles, PowerCut

CA = HospitalCa()
FILES = StateFiles()
DEVICE, SIGNING, DERIVATION, VENDOR = (
    IdentityName.DEVICE,
    IdentityName.SIGNING,
    IdentityName.DERIVATION,
    IdentityName.VENDOR,
)
OWNER = Owner("a" * 64, "b" * 64, (CA.certificate,), renewal='{"flow": "est", "url": "https://a", "label": ""}')
STAYS = {
    "audit",
    "clock.json",
    "clock.lock",
    "enroll.lock",
    "fdo",
    "identities",
    "keys",
    "ledger",
    "owner.json",
    "owner.lock",
    "watch.lock",
}


def owned(folder: Path, *, fdo: bool = True) -> Scanner:
    """A scanner with something of everything. No rule here is about RSA, whose keys take their time."""
    plain = settings(folder)
    quick = replace(plain.identity.signing, key_algorithm=KeyAlgorithm.P_256)
    vendors = replace(plain.identity.vendor, key_algorithm=KeyAlgorithm.P_256)
    identity = replace(plain.identity, vendor=vendors, derivation=quick)
    scanner = Scanner(replace(plain, identity=identity), (CA.certificate,))
    root = scanner.settings.state_directory
    flow = CaFlow(CA, scanner.clock)
    for name in (DEVICE, SIGNING, SIGNING, SIGNING, VENDOR):
        scanner.issue(flow, name)
    asked_for(scanner)
    account = key(scanner, "acme-0123456789abcdef")
    (root / "acme").mkdir()
    values = AccountRecord("acme-0123456789abcdef", account, "https://acme.example", "https://acme.example/1")
    write_record(root / "acme" / "account.json", vars(values), FILES)
    for place in ("anchors/est-1.pem", "audit/audit.jsonl"):
        (root / place).parent.mkdir(exist_ok=True)
        (root / place).write_text("")
    if fdo:
        onboarded(scanner)
    return scanner


def asked_for(scanner: Scanner) -> None:
    """Requests under way, wishes, and what is written down about an identity."""
    now = scanner.clock.now()
    for name in ("derivation-0123456789abcdef", "signing-fedcba9876543210"):
        identity = IdentityName(name.partition("-")[0])
        request = PendingRequest(Step.SENT, name, key(scanner, name), "{}", now)
        scanner.identities.journal(identity).write(request)
    by_hand = PendingRequest(Step.SENT, "signing-0000000000000000", key(scanner, "signing-0000000000000000"), "{}", now)
    scanner.identities.journal_by_hand(SIGNING, "1").write(by_hand)
    planned = PendingRequest(Step.PLANNED, "device-0000000000000000", "", "{}", now)
    key(scanner, planned.key_name)  # the power went before its URI was written down
    scanner.identities.journal(DEVICE).write(planned)
    for name in (IdentityName.SYNTHESIS, VENDOR):
        scanner.identities.wanted(name).write(Wish("est", now))
    for name in ("revocation.json", "last-failure.json", "attestation", "pending/offer.json"):
        (scanner.identities.directory(SIGNING) / name).write_text("{}")


def key(scanner: Scanner, name: str) -> str:
    return scanner.stores.generate(StoreName.SOFTWARE, name, KeyAlgorithm.P_256)


def credentials(scanner: Scanner) -> CredentialStore:
    return CredentialStore(scanner.settings.state_directory / "fdo", scanner.stores, FILES)


def onboarded(scanner: Scanner) -> None:
    """Two credentials, as after a session whose end was lost."""
    secret = scanner.stores.generate_secret(StoreName.SOFTWARE, "fdo-1-hmac", HmacAlgorithm.SHA256)
    credential = DeviceCredential(
        bytes(16),
        cbor.Raw(cbor.encode([])),
        "Example CT",
        Hash.of(HashAlgorithm.SHA256, b""),
        KeyType.SECP256R1,
        None,
        key(scanner, "fdo-1"),
        secret,
        HashAlgorithm.HMAC_SHA256,
        OWNER,
    )
    credentials(scanner).commit(credential)
    credentials(scanner).propose(replace(credential, guid=bytes([1] * 16)))
    write_anchors(OWNER, scanner.settings.state_directory, FILES)
    for name in ("approval.json", "attempt.json"):
        (scanner.settings.state_directory / "fdo" / name).write_text("{}")


def releasing(scanner: Scanner, files: StateFiles | None = None, without_tokens: Collection[str] = ()) -> OwnerRelease:
    """As the command does it, in a process of its own."""
    configured, files = scanner.settings, files or StateFiles()
    stores = KeyStores(configured.keystore, configured.state_directory, files, without_tokens)
    identities = IdentityStore(configured.state_directory, files)
    return OwnerRelease(FlowContext(configured, stores, identities, scanner.clock, files))


def kept_keys(scanner: Scanner, *, fdo: bool = True) -> set[str]:
    own = {"software:fdo-1", "software:fdo-1-hmac"} if fdo else set()
    return own | {scanner.identities.key_uri(VENDOR, 1)}


def assert_released(scanner: Scanner, *, fdo: bool = True) -> None:
    """Nothing of the owner is left, and everything else is as it was."""
    root, identities = scanner.settings.state_directory, scanner.identities
    assert {path.name for path in root.iterdir()} == (STAYS if fdo else STAYS - {"fdo"})
    assert set(scanner.stores.list()) == kept_keys(scanner, fdo=fdo)
    assert scanner.matching_pair(VENDOR) is not None
    for name in OWNERS_IDENTITIES:
        assert identities.current(name) is None
        assert identities.generations(name) == ()
        assert identities.wanted(name).read() is None
        assert identities.journal(name).read() is None
        assert {path.name for path in identities.directory(name).rglob("*")} <= {
            "generations",
            "pending",
            "0001",
            "0003",
        }
    assert [len(list((root / "identities").rglob(name))) for name in ("certificate.pem", "key.uri")] == [1, 1]
    if fdo:
        assert {path.name for path in (root / "fdo").iterdir()} == {"credential.current", "credential.pending"}
        for credential in (credentials(scanner).current(), credentials(scanner).pending()):
            assert credential is not None
            assert (credential.owner, credential.was_owned) == (None, True)


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cuts of these tests are between operations, so nothing has to reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


# --- what goes, what stays


@pytest.mark.parametrize("fdo", [True, False])
def test_what_is_the_owners_goes_and_all_else_stays(tmp_path: Path, *, fdo: bool) -> None:
    scanner = owned(tmp_path, fdo=fdo)

    assert releasing(scanner).run() == ()

    assert_released(scanner, fdo=fdo)
    assert releasing(scanner).run() == ()
    assert_released(scanner, fdo=fdo)


def test_a_scanner_that_nobody_has_enrolled_can_be_released(tmp_path: Path) -> None:
    scanner = Scanner(settings(tmp_path), (CA.certificate,))

    assert releasing(scanner).run() == ()
    assert releasing(scanner).inventory().goes == ()


def test_the_next_owner_gets_numbers_that_nobody_has_had(tmp_path: Path) -> None:
    """The audit trail names them; and an agent that slept meanwhile sees that something has changed."""
    scanner = owned(tmp_path)
    releasing(scanner).run()

    assert scanner.issue(CaFlow(CA, scanner.clock), SIGNING).number == 4  # type: ignore[union-attr]
    assert scanner.issue(CaFlow(CA, scanner.clock), DEVICE).number == 2  # type: ignore[union-attr]
    assert scanner.issue(CaFlow(CA, scanner.clock), DERIVATION).number == 1  # type: ignore[union-attr]
    releasing(scanner).run()
    again = scanner.issue(CaFlow(CA, scanner.clock), SIGNING)
    assert again.number == 5  # type: ignore[union-attr]
    assert "in place of" not in text(SIGNING, again)  # there is none


def test_what_it_does_is_said_beforehand(tmp_path: Path) -> None:
    scanner = owned(tmp_path).restarted(
        est=EstSettings(url="https://est.example", password_file=Path("/password"), timeout=99),
        fdo=FdoSettings(owner_fingerprints=("a" * 64,), manufacturer_url="https://factory.example", token="line-4"),
    )
    before = snapshot(scanner)
    inventory = releasing(scanner).inventory()

    goes, stays, by_hand = ("\n".join(part) for part in (inventory.goes, inventory.stays, inventory.by_hand))
    assert "signing: the keys of 3 generation(s)" in goes
    assert "ACME" in goes
    assert "the identity vendor" in stays
    assert "FDO credential" in stays
    device = scanner.identities.current(DEVICE)
    assert device is not None
    assert f"{device.certificate.serial_number:x} of device revoked by CN=Hospital CA" in by_hand
    assert "[est] url" in by_hand
    assert "[est] password_file" in by_hand
    assert "[fdo] owner_fingerprints" in by_hand
    assert "timeout" not in by_hand
    assert "manufacturer_url" not in by_hand
    assert "token" not in by_hand
    assert "SOP Instance UID" in by_hand
    assert "scanseal fdo voucher extend" in by_hand
    assert "if not done yet" in by_hand
    assert "owner server forget this scanner" in by_hand
    assert "do not run scanseal enroll fdo on this network" in by_hand
    assert "approval" not in by_hand
    careless = scanner.restarted(fdo=FdoSettings(approval=FdoApproval.NEVER))
    assert any('[fdo] approval = "never"' in line for line in releasing(careless).inventory().by_hand)
    assert snapshot(scanner) == before


def test_without_an_fdo_credential_that_is_said(tmp_path: Path) -> None:
    inventory = releasing(owned(tmp_path, fdo=False)).inventory()

    assert any("no FDO credential" in line for line in inventory.stays)


def snapshot(scanner: Scanner) -> dict[str, bytes]:
    root = scanner.settings.state_directory
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"}


# --- it is cut off


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_power_cut_at_any_moment_is_gone_on_with(tmp_path: Path, *, after: bool) -> None:
    """Until it has come to its end nothing is enrolled, because it would go as well."""
    start = tmp_path / "start"
    start.mkdir()
    owned(start)
    for operation in itertools.count(1):
        trial = tmp_path / f"trial-{operation}"
        shutil.copytree(start, trial, symlinks=True)
        scanner = Scanner(settings(trial), (CA.certificate,))
        try:
            releasing(scanner, FailingFiles(operation, PowerCut(), after=after)).run()
        except PowerCut:
            under_way = releasing(scanner).is_under_way
            if under_way:
                with pytest.raises(StateError, match="give it up"):
                    scanner.issue(CaFlow(CA, scanner.clock), SIGNING)
            if under_way or scanner.identities.current(DEVICE) is not None:
                assert releasing(scanner).run() == ()
            assert_released(scanner)
            scanner.issue(CaFlow(CA, scanner.clock), SIGNING)
        else:
            break
    assert operation > 40


def test_who_asks_for_an_identity_meanwhile_leaves_no_wish_behind(tmp_path: Path) -> None:
    """Otherwise the timer would hand the scanner back to the owner that has just given it up."""
    scanner = owned(tmp_path)
    write_record(scanner.identities.release_record, {"begun_at": ""}, FILES)
    scanner.identities.wipe(DEVICE)

    with (
        pytest.raises(StateError, match="give it up"),
        asked_for_identity((DEVICE,), FlowName.FDO, scanner.identities, scanner.clock),
    ):
        pass

    assert scanner.identities.wanted(DEVICE).read() is None


def test_a_token_that_is_away_keeps_it_from_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keys would be the old owner's for ever, and nothing would name them any more."""
    scanner = owned(tmp_path)
    release = releasing(scanner)

    def away(*_: object) -> None:
        raise KeyStoreUnavailable("The token is away.")

    with monkeypatch.context() as patched:
        patched.setattr(KeyStores, "destroy", away)
        with pytest.raises(KeyStoreUnavailable):
            release.run()
    assert release.is_under_way
    assert [scanner.identities.current(name) for name in OWNERS_IDENTITIES] == [None] * 4
    assert scanner.identities.generations(SIGNING) == (1, 2, 3)

    assert release.run() == ()
    assert_released(scanner)


def test_a_key_whose_name_is_lost_is_told(tmp_path: Path) -> None:
    scanner = owned(tmp_path)
    identities = scanner.identities
    uri = identities.key_uri(SIGNING, 2)
    (identities.directory(SIGNING) / "generations" / "0002" / "key.uri").write_text("\n")
    (identities.directory(DERIVATION) / "pending" / "request.json").write_text("{")
    (scanner.settings.state_directory / "acme" / "account.json").write_text("{")

    lost = releasing(scanner).run()

    assert [line.partition(":")[0] for line in lost] == [
        "the key of generation 2 of signing",
        "the key of a request of derivation",
        "the key of the ACME account",
    ]
    left = {"software:acme-0123456789abcdef", "software:derivation-0123456789abcdef"}
    assert set(scanner.stores.list()) - kept_keys(scanner) - left in (set(), {uri})


IN_TOKEN = "pkcs11:token=gone;object=signing-0123456789abcdef;type=private"


def moved_into_a_token(scanner: Scanner, *, by_hand: bool = True) -> None:
    """The key of a generation, and that of a request, are in a token that nobody has any more."""
    identities = scanner.identities
    set_key_uri(identities.directory(SIGNING) / "generations" / "0002", IN_TOKEN)
    request = PendingRequest(Step.SENT, "derivation-0123456789abcdef", IN_TOKEN, "{}", scanner.clock.now())
    identities.journal(DERIVATION).write(request)
    scanner.stores.destroy("software:derivation-0123456789abcdef")
    if by_hand:
        identities.journal_by_hand(SIGNING, "2").write(request)


def test_a_token_that_is_lost_for_good_can_be_left_out_and_its_keys_are_named(tmp_path: Path) -> None:
    """Otherwise it would keep the scanner with its owner for ever."""
    scanner = owned(tmp_path)
    second = scanner.identities.key_uri(SIGNING, 2)
    moved_into_a_token(scanner)
    scanner.stores.destroy(second)
    with pytest.raises(KeyStoreUnavailable):
        releasing(scanner).run()

    left = releasing(scanner, without_tokens=("another", "gone")).run()

    assert [line.partition(":")[0] for line in left] == [
        "the key of generation 2 of signing",
        "the key of a request of signing",
        "the key of a request of derivation",
    ]
    assert all(IN_TOKEN in line for line in left)
    assert_released(scanner)


def test_an_fdo_secret_that_is_lost_keeps_nothing_from_going(tmp_path: Path) -> None:
    """The TPM was replaced, say: then no owner can take the scanner over by FDO any more."""
    scanner = owned(tmp_path)
    scanner.stores.destroy("software:fdo-1-hmac")

    assert any("FDO credential" in line for line in releasing(scanner).inventory().by_hand)
    (left,) = releasing(scanner).run()
    assert left.startswith("the FDO credential, which stays as it is")
    assert not releasing(scanner).is_under_way
    assert scanner.identities.generations(SIGNING) == ()


def test_a_damaged_credential_keeps_nothing_from_going(tmp_path: Path) -> None:
    scanner = owned(tmp_path)
    (scanner.settings.state_directory / "fdo" / "credential.current").write_bytes(b"")

    assert any("damaged" in line for line in releasing(scanner).inventory().by_hand)
    (told,) = releasing(scanner).run()
    assert "credential" in told
    assert scanner.identities.current(DEVICE) is None


# --- the agent, which runs meanwhile


def test_the_agent_stops_signing_with_what_is_gone(tmp_path: Path) -> None:
    with new_scanner(tmp_path) as scanner:
        scanner.audit_file.parent.mkdir()
        scanner.enroll()
        clock = SteppedClock()
        trail = AuditTrail(scanner.audit_file, clock)
        identities = Identities(scanner.identities, scanner.keys, trail, clock)
        assert identities.view(SIGNING).active is not None

        scanner.identities.wipe(SIGNING)
        identities.refresh()

        assert identities.view(SIGNING).active is None
        assert identities.view(SIGNING).generation is None
        assert scanner.audit("identity-gone") == [{"identity": "signing"}]
        trail.close()


# --- the command

CONFIGURATION = """
state_directory = "{state}"
[device]
serial_number = "CT-000123"
model = "Example CT"
[keystore.software]
passphrase_file = "{folder}/passphrase"
[identity.signing]
key_algorithm = "rsa-3072"
[est]
url = "https://est.example"
"""


def command(scanner: Scanner, *options: str) -> int:
    folder = scanner.settings.state_directory.parent
    path = folder / "scanseal.toml"
    path.write_text(CONFIGURATION.format(state=scanner.settings.state_directory, folder=folder))
    return run(["owner", "release", "--config", str(path), *options])


def test_the_command_says_first_what_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    scanner = owned(tmp_path)
    before = snapshot(scanner)
    assert command(scanner, "--dry-run", "--json") == exits.OK
    said: Mapping[str, Any] = json.loads(capsys.readouterr().out)
    assert said.keys() == {"goes", "stays", "by_hand"}
    assert "[est] url in scanseal.toml is of this owner" in said["by_hand"]
    assert command(scanner, "--dry-run") == exits.OK
    assert capsys.readouterr().out.endswith("Nothing was changed.\n")

    assert command(scanner) == exits.INTERRUPTED  # nobody is there to agree
    asked = capsys.readouterr().err
    assert "By hand" in asked
    assert asked.endswith("Nothing was released.\n")
    assert "Interrupted" not in asked
    assert snapshot(scanner) == before


def test_where_nothing_goes_it_claims_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    scanner = owned(tmp_path)
    releasing(scanner).run()

    assert command(scanner) == exits.INTERRUPTED
    asked = capsys.readouterr().err
    assert "Destroy what goes" not in asked
    assert "nobody has enrolled" not in asked

    assert command(scanner, "--yes") == exits.OK
    assert capsys.readouterr().out.startswith("Nothing of an owner was there.\n")


def test_the_command_releases_and_writes_into_the_audit_trail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scanner = owned(tmp_path)
    assert command(scanner, "--yes") == exits.OK

    assert "The scanner is released." in capsys.readouterr().out
    (scanner.settings.state_directory / "agent.lock").unlink()
    assert verify(scanner.settings.state_directory / "audit" / "audit.jsonl").records == 2 + len(tasks(scanner))
    assert any("of device revoked" in task for task in tasks(scanner))
    assert set(events(scanner)) == {"owner-release-begun", "owner-release-task", "owner-released"}
    assert_released(scanner)


def test_an_agent_that_runs_is_the_only_writer_of_the_audit_trail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scanner = owned(tmp_path)
    root = scanner.settings.state_directory
    with only_writer(root, FILES):
        assert command(scanner, "--yes") == exits.OK

    assert (root / "audit" / "audit.jsonl").read_bytes() == b""
    assert "released" in capsys.readouterr().out


def test_the_timer_goes_on_with_what_was_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scanner = owned(tmp_path)
    scanner.identities.retract(SIGNING)
    write_record(scanner.identities.release_record, {"begun_at": ""}, FILES)
    command(scanner, "--dry-run")
    configuration = str(tmp_path / "scanseal.toml")
    capsys.readouterr()
    run(["status", "--config", configuration])
    shown = capsys.readouterr().out
    assert shown.startswith("warning    The owner of this scanner has begun to give it up")
    assert shown.count("has begun to give it up") == 1
    run(["check", "--config", configuration])
    assert "has begun to give it up" in capsys.readouterr().out.splitlines()[1]

    assert run(["renew", "--config", configuration, "--dry-run"]) == exits.CONFIGURATION  # nothing will be renewed
    assert scanner.identities.current(DEVICE) is not None
    (scanner.identities.directory(DERIVATION) / "pending" / "request.json").write_text("{")
    scanner.stores.destroy("software:derivation-0123456789abcdef")
    assert run(["renew", "--config", configuration]) == exits.OK
    told = capsys.readouterr().err
    assert "find and destroy the key of a request of derivation" in told
    assert "The scanner is released" in told
    (scanner.settings.state_directory / "agent.lock").unlink()
    assert_released(scanner)
    assert [event for event in events(scanner) if event != "owner-release-task"] == [
        "owner-release-begun",
        "key-not-destroyed",
        "owner-released",
    ]


def test_what_a_lost_token_holds_is_said_and_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scanner = owned(tmp_path)
    moved_into_a_token(scanner, by_hand=False)
    assert command(scanner, "--yes") == exits.UNAVAILABLE
    assert "--without-token" in capsys.readouterr().err

    assert command(scanner, "--yes", "--json", "--without-token", "gone") == exits.OK

    by_hand = json.loads(capsys.readouterr().out)["by_hand"]
    assert sum(IN_TOKEN in line for line in by_hand) == 2
    assert [event for event in events(scanner) if event != "owner-release-task"] == [
        *["owner-release-begun"] * 2,
        *["key-not-destroyed"] * 2,
        "owner-released",
    ]


UNFINISHED = (
    "The release of this scanner is not finished, and nothing is enrolled until it is. "
    "Run: scanseal owner release. The timer finishes it, too.\n"
)


@contextmanager
def interruption(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ctrl-C when all identities have gone."""

    def interrupted(_: OwnerRelease) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(OwnerRelease, "_close_account", interrupted)
        yield


def cut_off(scanner: Scanner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said after Ctrl-C."""
    with interruption(monkeypatch):
        assert command(scanner, "--yes") == exits.INTERRUPTED
    assert scanner.identities.generations(DEVICE) == ()
    return capsys.readouterr().err


def test_what_is_left_by_hand_survives_an_interruption(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificates that have to be revoked are named nowhere else any more."""
    scanner = owned(tmp_path)
    device = scanner.identities.current(DEVICE)
    assert device is not None
    (scanner.identities.directory(DERIVATION) / "pending" / "request.json").write_text("{")
    assert command(scanner, "--dry-run", "--json") == exits.OK
    before = json.loads(capsys.readouterr().out)["by_hand"]

    said = cut_off(scanner, monkeypatch, capsys)
    assert said.endswith(UNFINISHED)
    assert command(scanner, "--dry-run", "--json") == exits.OK
    assert json.loads(capsys.readouterr().out)["by_hand"][: len(before)] == before
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert command(scanner) == exits.INTERRUPTED
    assert capsys.readouterr().err.endswith(UNFINISHED)

    assert command(scanner, "--yes", "--json") == exits.OK
    by_hand = json.loads(capsys.readouterr().out)["by_hand"]
    assert by_hand[: len(before)] == before
    assert any(f"{device.certificate.serial_number:x} of device" in line for line in by_hand)
    assert by_hand[-1].startswith("find and destroy the key of a request of derivation")
    assert events(scanner).count("key-not-destroyed") == 1
    assert tasks(scanner) == before


def test_the_timer_that_finishes_it_says_what_is_left_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scanner = owned(tmp_path)
    cut_off(scanner, monkeypatch, capsys)

    assert run(["renew", "--config", str(tmp_path / "scanseal.toml")]) == exits.OK

    told = capsys.readouterr().err
    assert told.startswith("The scanner is released: what was begun is finished.\n")
    assert "of device revoked by CN=Hospital CA" in told
    assert "of signing revoked by CN=Hospital CA" in told


def test_the_timer_that_is_interrupted_says_that_it_is_not_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person may run `scanseal renew`, too, and has to know that the scanner is half given up."""
    scanner = owned(tmp_path)
    cut_off(scanner, monkeypatch, capsys)
    renewal = ["renew", "--config", str(tmp_path / "scanseal.toml")]

    with interruption(monkeypatch):
        assert run(renewal) == exits.INTERRUPTED

    assert capsys.readouterr() == ("", UNFINISHED)
    assert run(renewal) == exits.OK
    assert not releasing(scanner).is_under_way


def test_the_list_is_written_before_anything_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanner = owned(tmp_path)
    by_hand = releasing(scanner).inventory().by_hand

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(IdentityStore, "retract", interrupted)
        with pytest.raises(KeyboardInterrupt):
            releasing(scanner).run()

    assert json.loads(values_of(scanner.identities.release_record)["by_hand"]) == list(by_hand)


def test_a_damaged_list_keeps_nothing_from_going_and_that_is_said(tmp_path: Path) -> None:
    scanner = owned(tmp_path)
    for damaged in ("", '{"begun_at": ""}', '{"begun_at": "", "by_hand": "[1]", "lost": "[]"}'):
        scanner.identities.release_record.write_text(damaged)
        assert any("release.json is damaged" in line for line in releasing(scanner).inventory().by_hand)

    releasing(scanner).run()

    assert_released(scanner)


NOT_LOST = {
    "release.json": "release.json",
    "of-the-account": "acme/account.json",
    "of-fdo": "fdo/credential.current",
}


@pytest.mark.parametrize("name", NOT_LOST.values(), ids=NOT_LOST)
def test_what_cannot_be_read_for_now_is_not_taken_for_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Otherwise nobody would be told which certificates to revoke; and FDO would still know the owner."""
    scanner = owned(tmp_path)
    told = releasing(scanner).inventory().by_hand
    whole = IdentityStore.wipe
    with monkeypatch.context() as patched:
        patched.setattr(IdentityStore, "wipe", interrupted_after(whole))
        with pytest.raises(KeyboardInterrupt):
            releasing(scanner).run()
    path = scanner.settings.state_directory / name
    before = path.read_bytes()
    genuine = os.open

    def refuse(opened: Path, *rest: int) -> int:
        if opened == path:
            raise OSError(errno.EMFILE, "Too many open files")
        return genuine(opened, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(DiskRefused):
            releasing(scanner).run()

    assert path.read_bytes() == before
    assert releasing(scanner).inventory().by_hand == told
    assert releasing(scanner).run() == ()
    assert_released(scanner)


def interrupted_after(step: Callable[[IdentityStore, IdentityName], None]) -> Callable[..., None]:
    def interrupted(identities: IdentityStore, name: IdentityName) -> None:
        step(identities, name)
        raise KeyboardInterrupt

    return interrupted


def test_a_list_of_a_newer_version_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanner = owned(tmp_path)
    record = scanner.identities.release_record
    write_record(record, {"begun_at": "", "by_hand": "[]", "lost": "[]"}, FILES)
    with monkeypatch.context() as patched:
        patched.setattr("enroll.record.FORMAT", 2)
        rewrite(record)
    before = record.read_bytes()

    with pytest.raises(StateTooNew):
        releasing(scanner).run()

    assert record.read_bytes() == before
    assert scanner.identities.current(DEVICE) is not None


def tasks(scanner: Scanner) -> list[str]:
    trail = scanner.settings.state_directory / "audit" / "audit.jsonl"
    records = [json.loads(line) for line in trail.read_text().splitlines()]
    return [record["fields"]["task"] for record in records if record["event"] == "owner-release-task"]


def events(scanner: Scanner) -> list[str]:
    trail = scanner.settings.state_directory / "audit" / "audit.jsonl"
    return [json.loads(line)["event"] for line in trail.read_text().splitlines()]
