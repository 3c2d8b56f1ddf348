"""What a key must be before it signs: quick enough where it is in a token, and in hardware where that is demanded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.audit import AuditTrail
from agent.config import SigningSettings
from agent.daemon.active_key import ALWAYS, ActiveKey
from agent.daemon.demands import Demands
from agent.daemon.self_benchmark import ROUND_SECONDS, ROUNDS, measure
from agent.daemon.signer import Identities
from agent.daemon.wire import HashName
from agent.errors import KeyRefused
from enroll.config import IdentitiesSettings, SigningIdentitySettings, StoreName
from enroll.errors import KeyMismatch, KeyStoreUnavailable
from enroll.identity import IdentityName
from enroll.keystore import KeyStores
from enroll.keystore.base import Protection
from tests.support.agent_process import Scanner, new_scanner
from tests.support.clocks import SteppedClock
from tests.support.fixed_keys import fixed_rsa_key
from tests.support.records import rewrite

HARDWARE = Demands(require_hardware=True)
RSA_2048 = fixed_rsa_key("signer")
MEMORY = SigningIdentitySettings(key_store=StoreName.MEMORY)
TOKEN = SigningIdentitySettings(key_store=StoreName.PKCS11)


@dataclass
class Token:
    """An RSA key that takes its time: each signature moves the clock."""

    clock: SteppedClock
    seconds: float
    wrong_at: int = -1
    key_size: int = 2048
    made: int = 0
    threads: set[int] = field(default_factory=set)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def sign(self, data: bytes, *scheme: Any) -> bytes:
        with self.guard:
            self.made += 1
            self.threads.add(threading.get_ident())
            self.clock.sleep(self.seconds)
        signature = RSA_2048.sign(data, *scheme)
        return signature[::-1] if self.made == self.wrong_at else signature

    def public_key(self) -> Any:
        return RSA_2048.public_key()


def key_in(token: Token, uri: str = "pkcs11:token=t;object=o", number: int = 1) -> ActiveKey:
    """The key of a token, as far as a measurement looks at it."""
    generation = SimpleNamespace(identity=IdentityName.SIGNING, number=number, key_uri=uri)
    return ActiveKey(cast("Any", generation), cast("Any", token), b"", Protection.SOFTWARE, ALWAYS)


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    with new_scanner(tmp_path) as scanner:
        scanner.audit_file.parent.mkdir()
        yield scanner


@pytest.fixture
def audit(scanner: Scanner, clock: SteppedClock) -> Iterator[AuditTrail]:
    trail = AuditTrail(scanner.audit_file, clock)
    yield trail
    trail.close()


# --- measuring


@pytest.mark.parametrize("seconds", [0.002, 0.02, 0.05])
def test_the_rate_is_measured(clock: SteppedClock, seconds: float) -> None:
    assert measure(key_in(Token(clock, seconds)), HashName.SHA256, 20, 1, clock) == pytest.approx(1 / seconds)


def test_a_token_that_is_quick_enough_is_measured_once_and_shortly(clock: SteppedClock) -> None:
    token = Token(clock, 0.001)
    measure(key_in(token), HashName.SHA256, 40, 1, clock)

    assert token.made == 40
    assert clock.monotonic() < 0.1 * ROUND_SECONDS


@pytest.mark.parametrize("seconds", [0.1, 0.7, 5.0])
def test_a_slow_token_is_measured_for_a_bounded_time(clock: SteppedClock, seconds: float) -> None:
    rate = measure(key_in(Token(clock, seconds)), HashName.SHA256, 1000, 1, clock)

    assert clock.monotonic() <= ROUNDS * (ROUND_SECONDS + seconds) + 0.001
    assert rate == pytest.approx(1 / seconds)


def test_as_many_threads_sign_as_the_agent_has(clock: SteppedClock) -> None:
    token = Token(clock, 0.001)
    measure(key_in(token), HashName.SHA256, 400, 4, clock)

    assert 1 <= len(token.threads) <= 4
    assert token.made == 400


def test_a_wrong_signature_is_found(clock: SteppedClock) -> None:
    with pytest.raises(KeyMismatch):
        measure(key_in(Token(clock, 0.001, wrong_at=7)), HashName.SHA256, 40, 1, clock)


# --- quick enough


def test_a_token_that_is_too_slow_is_refused_with_the_figures(
    scanner: Scanner, audit: AuditTrail, clock: SteppedClock
) -> None:
    with pytest.raises(KeyRefused) as refused:
        Demands(images_per_second=40).met_by(key_in(Token(clock, 0.2)), None, audit, clock)

    assert refused.value.code == "key-too-slow"
    assert "5.0 signatures per second" in refused.value.what
    assert "40 images" in refused.value.what
    assert 'key_store = "memory"' in refused.value.remedy
    assert scanner.audit("self-benchmark") == [
        {"identity": "signing", "key_generation": 1, "signatures_per_second": 5, "images_per_second": 40}
    ]


def test_the_rate_of_a_token_that_is_quick_enough_is_kept(audit: AuditTrail, clock: SteppedClock) -> None:
    key = Demands(images_per_second=40).met_by(key_in(Token(clock, 0.01)), None, audit, clock)

    assert key.signatures_per_second == pytest.approx(100)


def test_the_same_token_is_not_measured_while_it_signs(audit: AuditTrail, clock: SteppedClock) -> None:
    """The images that it signs meanwhile would make it look slow, and the measurement would make them wait."""
    demands, token = Demands(images_per_second=40), Token(clock, 0.01)
    key = demands.met_by(key_in(token), None, audit, clock)
    made, token.seconds = token.made, 1.0

    for number in (1, 2):
        again = demands.met_by(key_in(token, number=number), key, audit, clock)
        assert (again.signatures_per_second, token.made) == (key.signatures_per_second, made)


@pytest.mark.parametrize(
    ("uri", "key_size"), [("pkcs11:token=other;object=o", 2048), ("tpm:o", 2048), ("pkcs11:token=t;object=o", 4096)]
)
def test_another_token_or_a_longer_key_is_measured(
    audit: AuditTrail, clock: SteppedClock, uri: str, key_size: int
) -> None:
    demands = Demands(images_per_second=40)
    key = demands.met_by(key_in(Token(clock, 0.01)), None, audit, clock)

    with pytest.raises(KeyRefused):
        demands.met_by(key_in(Token(clock, 0.1, key_size=key_size), uri, number=2), key, audit, clock)


@pytest.mark.parametrize("uri", ["software:k", "memory:k"])
def test_a_key_of_this_processor_is_not_measured(audit: AuditTrail, clock: SteppedClock, uri: str) -> None:
    token = Token(clock, 1)

    assert Demands(images_per_second=40).met_by(key_in(token, uri), None, audit, clock).signatures_per_second is None
    assert token.made == 0


def test_nothing_is_measured_where_no_rate_is_demanded(audit: AuditTrail, clock: SteppedClock) -> None:
    token = Token(clock, 1)
    Demands().met_by(key_in(token), None, audit, clock)

    assert token.made == 0


# --- in hardware


def test_a_key_that_is_not_in_hardware_stops_the_start(
    scanner: Scanner, audit: AuditTrail, clock: SteppedClock
) -> None:
    scanner.enroll()

    with pytest.raises(KeyRefused) as refused:
        Identities(scanner.identities, scanner.keys, audit, clock, demands=HARDWARE)
    assert refused.value.code == "hardware-required"
    assert refused.value.remedy


@pytest.mark.parametrize("name", [IdentityName.DERIVATION, IdentityName.SYNTHESIS])
def test_the_keys_of_the_other_roles_have_to_be_in_hardware_as_well(
    scanner: Scanner, audit: AuditTrail, clock: SteppedClock, name: IdentityName
) -> None:
    scanner.enroll(name)

    with pytest.raises(KeyRefused):
        Identities(scanner.identities, scanner.keys, audit, clock, demands=HARDWARE)


def test_it_counts_what_the_store_says_now_and_not_what_is_written_down(
    scanner: Scanner, audit: AuditTrail, clock: SteppedClock
) -> None:
    generation = scanner.enroll()
    meta = scanner.identities.directory(IdentityName.SIGNING) / "generations" / "0001" / "meta.json"
    rewrite(meta, protection="hardware")
    assert generation.protection is Protection.SOFTWARE

    with pytest.raises(KeyRefused):
        Identities(scanner.identities, scanner.keys, audit, clock, demands=HARDWARE)
    identities = Identities(scanner.identities, scanner.keys, audit, clock)
    assert identities.active_key(IdentityName.SIGNING).protection is Protection.SOFTWARE


def test_a_new_generation_outside_of_hardware_changes_nothing(
    scanner: Scanner, audit: AuditTrail, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scanner.enroll()
    levels = {first.key_uri: Protection.HARDWARE}
    monkeypatch.setattr(KeyStores, "protection", lambda _, uri: levels.get(uri, Protection.SOFTWARE))
    identities = Identities(scanner.identities, scanner.keys, audit, clock, demands=HARDWARE)
    scanner.enroll()
    identities.refresh()

    assert identities.active_key(IdentityName.SIGNING).generation.number == 1
    refused = identities.view(IdentityName.SIGNING).refused
    assert refused is not None
    assert refused.code == "hardware-required"


@pytest.mark.parametrize(
    "identities",
    [
        IdentitiesSettings(signing=MEMORY),
        IdentitiesSettings(signing=SigningIdentitySettings()),
        IdentitiesSettings(signing=TOKEN, derivation=MEMORY),
        IdentitiesSettings(signing=TOKEN, synthesis=MEMORY),
    ],
)
def test_a_configuration_whose_next_key_could_not_sign_is_refused_at_once(identities: IdentitiesSettings) -> None:
    with pytest.raises(KeyRefused) as refused:
        HARDWARE.check_stores(identities)
    assert refused.value.code == "hardware-required"

    Demands().check_stores(identities)


def test_identities_that_nobody_has_asked_for_are_no_obstacle() -> None:
    HARDWARE.check_stores(IdentitiesSettings(signing=TOKEN))


def test_the_options_decide() -> None:
    signing = SigningSettings(hash=HashName.SHA512, images_per_second=40, require_hardware=True)

    assert Demands.of(signing, threads=3) == Demands(True, 40, HashName.SHA512, 3)  # noqa: FBT003 - as in the file


# --- a token that comes and goes


def test_a_token_that_is_away_at_the_start_is_waited_for(
    scanner: Scanner, audit: AuditTrail, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signing resumes within 5 s after it is back."""
    scanner.enroll()
    load, away = KeyStores.load, True

    def load_if_there(stores: KeyStores, uri: str) -> Any:
        if away:
            raise KeyStoreUnavailable("The token is not there.", remedy="Connect it.")
        return load(stores, uri)

    monkeypatch.setattr(KeyStores, "load", load_if_there)
    identities = Identities(scanner.identities, scanner.keys, audit, clock)
    with pytest.raises(Exception, match="not there") as refused:
        identities.active_key(IdentityName.SIGNING)
    assert refused.value.code == "key-store-unavailable"  # type: ignore[attr-defined]

    away = False
    for _ in range(3):
        clock.advance(timedelta(seconds=1))
        identities.refresh()
    assert identities.active_key(IdentityName.SIGNING).generation.number == 1
    assert [line["code"] for line in scanner.audit("identity-refused")] == ["key-store-unavailable"]
