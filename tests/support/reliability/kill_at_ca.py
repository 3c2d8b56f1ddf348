"""The stages of commands beside enrollment that talk to a CA, a token or a TPM, or find nobody to talk to.

See `kill_stages`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from agent.cli import exits
from agent.config import load
from enroll.attestation.attest import Attestation
from enroll.clock import SystemClock
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.renewal.alarms import LEVELS
from enroll.revocation.record import RevocationRecords, RevocationState
from enroll.statefile import StateFiles
from tests.support.acme.pebble import running_pebble
from tests.support.attesting import Vendor, running_vendor
from tests.support.cmp_scanner import site as cmp_site
from tests.support.key_stores import secret_file
from tests.support.reliability.kill_flows import owned
from tests.support.reliability.kill_points import Commands
from tests.support.reliability.kill_stages import (
    TOKEN,
    USUAL,
    Hospital,
    MakeStage,
    enrolled_long_ago,
    machine,
    settings_tables,
)
from tests.support.reliability.kill_sweep import Machine, Stage, tables_of
from tests.support.reliability.looking import Look
from tests.support.softhsm import new_softhsm
from tests.support.swtpm import resource_manager, running_swtpm

DEVICE, SIGNING = IdentityName.DEVICE, IdentityName.SIGNING
_TWO_HOURS = timedelta(hours=2).total_seconds()
_SELDOM = 7  # a TPM takes its time


# --- giving a certificate up


@contextmanager
def revoke_by_cmp(folder: Path, commands: Commands) -> Iterator[Stage]:
    with cmp_site(folder) as running:
        scanner = Machine(folder, commands, settings_tables(running.scanner.settings))
        scanner.done("enroll", "cmp", "--identity", SIGNING)
        yield Stage(
            scanner,
            ("revoke", "--identity", SIGNING, "--reason", "keyCompromise"),
            check_done=lambda _: _is_known_as_revoked(scanner, SIGNING),
            has_begun=lambda _: False,
        )


@contextmanager
def revoke_by_acme(folder: Path, commands: Commands) -> Iterator[Stage]:
    """Pebble revokes a certificate once, and says so to whoever asks again (RFC 8555 7.6)."""
    with running_pebble(folder / "pebble") as pebble:
        scanner = Machine(folder, commands, settings_tables(pebble.scanner(folder / "scanner").settings))

        def is_revoked(_: Look) -> None:
            assert pebble.is_revoked(_in_use(scanner, DEVICE).certificate)
            _is_known_as_revoked(scanner, DEVICE)

        yield Stage(
            scanner,
            ("revoke", "--identity", DEVICE, "--reason", "keyCompromise"),
            before=lambda: scanner.done("enroll", "acme", "--identity", DEVICE),
            check_done=is_revoked,
            has_begun=lambda _: False,
        )


def _is_known_as_revoked(scanner: Machine, identity: IdentityName) -> None:
    """The agent stops signing at once, whether this CA has OCSP and lists or not."""
    known = RevocationRecords(_identities(scanner)).of(_in_use(scanner, identity))
    assert known is not None, "the CA has revoked it, and this scanner does not know"
    assert known.state is RevocationState.REVOKED


def _in_use(scanner: Machine, identity: IdentityName) -> Generation:
    current = _identities(scanner).current(identity)
    assert current is not None
    return current


def _identities(scanner: Machine) -> IdentityStore:
    return IdentityStore(scanner.state, StateFiles())


# --- the ACME account


@contextmanager
def acme_account(folder: Path, commands: Commands, *options: str) -> Iterator[Stage]:
    """The account is made, or gets a new key (RFC 8555 7.3.5); the CA knows one account of this scanner afterwards."""
    with running_pebble(folder / "pebble") as pebble:
        scanner = Machine(folder, commands, settings_tables(pebble.scanner(folder / "scanner").settings))
        addresses: list[str] = []

        def make() -> None:
            if options:
                addresses[:] = [_address(scanner)]

        def serves(_: Look) -> None:
            """It is the same one, and its keys are those that it needs."""
            address = _address(scanner)
            assert address in (addresses or [address]), "it is another account"
            scanner.done("renew")
            keys = scanner.look().keys
            assert len(keys) == 1, keys

        yield Stage(
            scanner, ("acme-account", *options), before=make, check_done=serves, has_begun=lambda _: bool(options)
        )


@contextmanager
def new_account_key(folder: Path, commands: Commands) -> Iterator[Stage]:
    with acme_account(folder, commands, "--new-key") as stage:
        yield stage


def _address(scanner: Machine) -> str:
    scanner.done("acme-account", "--json")
    return str(json.loads(scanner.said)["url"])


# --- evidence of where keys are


@contextmanager
def attest_a_key_in_a_token(folder: Path, commands: Commands) -> Iterator[Stage]:
    hsm = new_softhsm(folder / "hsm", [TOKEN])
    store = {"module": str(hsm.proxy), "token": TOKEN, "pin_file": str(hsm.pin_file)}
    with running_vendor(folder / "vendor") as vendor:
        tables = {"keystore.pkcs11": store, "identity.device": {"key_store": "pkcs11"}}
        with owned(
            folder,
            commands,
            {**tables, "attestation": _attestation(vendor)},
            environment=hsm.environment,
            places=(hsm.tokens,),
        ) as scanner:
            yield _attested(scanner)


@contextmanager
def attest_a_key_in_a_tpm(folder: Path, commands: Commands) -> Iterator[Stage]:
    with running_swtpm(folder / "tpm", manufactured=True) as tpm, resource_manager(tpm, folder) as manager:
        store = {"tcti": manager.tcti, "authorization_file": str(secret_file(folder / "authorization", "a-long-value"))}
        with running_vendor(folder / "vendor", tpm) as vendor:
            tables = {"keystore.tpm": store, "identity.device": {"key_store": "tpm", "key_algorithm": "p-256"}}
            with owned(
                folder, commands, {**tables, "attestation": _attestation(vendor)}, environment=manager.environment
            ) as scanner:
                yield _attested(scanner)


def _attestation(vendor: Vendor) -> dict[str, str]:
    (table,) = [table for name, table in tables_of(vendor.settings()).items() if not name]  # type: ignore[arg-type]
    return table


def _attested(scanner: Machine) -> Stage:
    def is_attested(_: Look) -> None:
        attestation = Attestation.configured(
            load(scanner.configuration, StateFiles()).enroll, SystemClock(), StateFiles()
        )
        generation = _in_use(scanner, DEVICE)
        kept = attestation.kept(generation)
        assert kept is not None
        assert attestation.verify(generation, kept).public_key == generation.certificate.public_key()

    def is_whole(_: Look) -> None:
        """What was kept is whole or not there; `status` may look at it at any moment."""
        files = StateFiles()
        settings = load(scanner.configuration, files).enroll
        Attestation.configured(settings, SystemClock(), files).kept(_in_use(scanner, DEVICE))

    every = _SELDOM if "keystore.tpm" in scanner.tables else 1
    return Stage(
        scanner, ("attest",), every=every, check_cut=is_whole, check_done=is_attested, has_begun=lambda _: False
    )


# --- a key for a measurement


@contextmanager
def check_speed(folder: Path, commands: Commands) -> Iterator[Stage]:
    """The key that signs images is not there yet: one like it is made, measured and destroyed."""
    with owned(folder, commands) as scanner:
        code = _once(scanner, "check", "--speed")  # what else it finds is that of this machine
        yield Stage(scanner, ("check", "--speed"), code=code, has_begun=lambda _: True, also=frozenset({exits.OK}))


# --- the timer, while nobody answers


@contextmanager
def renew_without_a_ca(folder: Path, commands: Commands) -> Iterator[Stage]:
    """What the timer keeps of a CA that gives no answer, and of the alarm that it raises, is in nobody's way."""
    hospital = Hospital(folder / "ca")
    scanner = machine(folder, commands, {"est": hospital.table})
    with enrolled_long_ago(scanner, hospital):
        pass
    (scanner.state / "clock.json").unlink(missing_ok=True)  # else the clock would have jumped
    end = _in_use(scanner, DEVICE).certificate.not_valid_after_utc
    scanner.seconds_later = (end - LEVELS[0] - SystemClock().now()).total_seconds() - _TWO_HOURS / 2
    scanner.run("renew")  # the first retry, a minute after this, would be part of a run of the timer
    scanner.seconds_later += _TWO_HOURS  # the first alarm is due
    code = _once(scanner, "renew", "--unattended")

    def recovers(_: Look) -> None:
        before = scanner.seconds_later
        scanner.seconds_later += _TWO_HOURS * 10
        with hospital.today():
            scanner.done("renew", "--unattended")
        done = scanner.look()
        scanner.seconds_later = before
        assert [done.current[name]["number"] for name in sorted(USUAL)] == [2, 2]
        assert not list((scanner.state / "servers").glob("*.json"))
        assert not list(scanner.state.glob("identities/*/alarm.json"))

    yield Stage(
        scanner,
        ("renew", "--unattended"),
        check_done=recovers,
        has_begun=lambda _: False,
        code=code,
        also=frozenset({exits.OK, exits.TRY_LATER}),
    )


def _once(scanner: Machine, *words: str) -> int:
    """How a command ends, without what it does."""
    scanner.keep()
    code = scanner.run(*words).code
    scanner.restore()
    return code


# --- keys in a TPM


@contextmanager
def enroll_in_a_tpm(folder: Path, commands: Commands) -> Iterator[Stage]:
    with running_swtpm(folder / "tpm") as tpm, resource_manager(tpm, folder) as manager:
        store = {"tcti": manager.tcti, "authorization_file": str(secret_file(folder / "authorization", "a-long-value"))}
        tables = {"keystore.tpm": store, "identity.device": {"key_store": "tpm", "key_algorithm": "p-256"}}
        hospital = Hospital(folder / "ca")
        with hospital.today():
            scanner = machine(folder, commands, {"est": hospital.table, **tables}, environment=manager.environment)
            words = ("enroll", "est", "--identity", DEVICE)
            yield Stage(scanner, words, brings=frozenset({DEVICE}), issued=hospital.issued, every=_SELDOM)


STAGES: Mapping[str, MakeStage] = {
    "revoke-cmp": revoke_by_cmp,
    "revoke-acme": revoke_by_acme,
    "acme-account": acme_account,
    "acme-account-new-key": new_account_key,
    "attest-token": attest_a_key_in_a_token,
    "attest-tpm": attest_a_key_in_a_tpm,
    "check-speed": check_speed,
    "renew-unattended-without-a-ca": renew_without_a_ca,
    "enroll-est-tpm": enroll_in_a_tpm,
}
