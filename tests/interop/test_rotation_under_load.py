"""Hundreds of rotations while digests are signed on several connections: nobody notices. R18 of docs/reliability.md.

SCANSEAL_ROTATIONS=1000 makes it a thousand of each kind. Key files get keys that were made before, one after the other,
because making them takes longer than all the rest and has nothing to do with the agent. The control are rotations of
another scanner on this machine, which the agent has nothing to do with: what that shows is the machine, and not the
agent.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from agent.client import SigningClient
from enroll.algorithms import KeyAlgorithm
from enroll.clock import SystemClock
from enroll.config import (
    EnrollSettings,
    IdentitiesSettings,
    KeyStoreSettings,
    Pkcs11StoreSettings,
    SigningIdentitySettings,
    SoftwareStoreSettings,
    StoreName,
)
from enroll.identity import Generation, IdentityName
from enroll.keystore.tokenuri import TokenUri
from tests.support.agent_process import Scanner, needs_root_to_look_inside, new_scanner, running_agent, wait_until
from tests.support.enrolling import CaFlow
from tests.support.enrolling import Scanner as Enroller
from tests.support.pki import DEVICE, HospitalCa
from tests.support.reliability.load import running_load
from tests.support.reliability.measured import measured
from tests.support.reliability.processes import Held
from tests.support.softhsm import SoftHsm, softhsm_of_this_process

CONNECTIONS = 4
LONGEST_GAP = 0.05  # seconds
MADE_BEFORE = 12  # keys; a generation never gets that of the one before
SETTLED_AFTER = 5  # rotations at least, after which memory may not grow any more
LOOKS = 5  # of which the least counts: at any moment a file may be open
LIMITS = {"connections": CONNECTIONS + 4, "connections_per_user": CONNECTIONS + 4}


@dataclass(frozen=True)
class Kind:
    """Where the keys are, and how many rotations there are unless the environment says otherwise."""

    store: StoreName
    algorithm: KeyAlgorithm
    rotations: int


SOFTWARE = Kind(StoreName.SOFTWARE, KeyAlgorithm.RSA_3072, 100)
TOKEN = Kind(StoreName.PKCS11, KeyAlgorithm.RSA_2048, 30)


class Rotating:
    """The transaction of `enroll.issue` on a state directory, with a CA that issues what is asked for."""

    def __init__(self, scanner: Scanner, kind: Kind, token: Pkcs11StoreSettings) -> None:
        clock, ca = SystemClock(), HospitalCa()
        software = SoftwareStoreSettings(passphrase_file=scanner.passphrase)
        signing = SigningIdentitySettings(key_store=kind.store, key_algorithm=kind.algorithm)
        settings = EnrollSettings(
            device=DEVICE,
            state_directory=scanner.state,
            keystore=KeyStoreSettings(software=software, pkcs11=token),
            identity=IdentitiesSettings(signing=signing),
        )
        self.enroller = Enroller(settings, (ca.certificate,), clock)
        self._flow = CaFlow(ca, clock)
        self._of_other_tests: list[str] = []  # the token is that of all tests
        self._of_other_tests = self.keys()

    def rotate(self) -> Generation:
        """The new generation."""
        generation = self.enroller.issue(self._flow)
        assert isinstance(generation, Generation)
        return generation

    def keys(self) -> list[str]:
        """All keys of the identity that are in the store."""
        found = [uri for uri in self.enroller.stores.list() if f"{IdentityName.SIGNING}-" in uri]
        return [uri for uri in found if uri not in self._of_other_tests]

    def end(self) -> None:
        """Destroy what is left."""
        for uri in self.keys():
            self.enroller.stores.destroy(uri)
        self.enroller.stores.close()


@pytest.fixture(scope="module")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    return softhsm_of_this_process(tmp_path_factory.getbasetemp())


@pytest.fixture
def keys_made_before(monkeypatch: pytest.MonkeyPatch) -> None:
    made = itertools.cycle([rsa.generate_private_key(65537, 3072) for _ in range(MADE_BEFORE)])
    monkeypatch.setattr(rsa, "generate_private_key", lambda *_: next(made))


@pytest.fixture
def start(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[Kind, str], tuple[Scanner, Rotating]]]:
    """Makes a scanner with a first generation, and what rotates it."""
    with ExitStack() as stack:

        def start(kind: Kind, label: str) -> tuple[Scanner, Rotating]:
            token = Pkcs11StoreSettings()
            if kind.store is StoreName.PKCS11:
                softhsm: SoftHsm = request.getfixturevalue("softhsm")
                token = Pkcs11StoreSettings(softhsm.proxy, label, softhsm.pin_file, sessions=CONNECTIONS)
            (tmp_path / label).mkdir()
            scanner = stack.enter_context(new_scanner(tmp_path / label))
            rotating = Rotating(scanner, kind, token)
            stack.callback(rotating.end)
            assert rotating.rotate().number == 1
            return scanner, rotating

        yield start


def tables(rotating: Rotating) -> dict[str, dict[str, Any]]:
    """What the agent has to know of the store."""
    token = rotating.enroller.settings.keystore.pkcs11
    if token.pin_file is None:
        return {}
    values = {"module": str(token.module), "token": token.token, "pin_file": str(token.pin_file)}
    return {"keystore.pkcs11": {**values, "sessions": token.sessions}}


@contextmanager
def user_without_scanseal(rotating: Rotating) -> Iterator[Callable[[str], Held]]:
    """Uses each key by its URI, and says what its process holds; nothing where the keys are in files."""
    token = rotating.enroller.settings.keystore.pkcs11
    if token.pin_file is None:
        yield lambda _: Held(0, 0)
        return
    from tests.support.bare_token_user import bare_user  # noqa: PLC0415 - an optional extra

    with bare_user(token.module, token.token, token.pin_file) as use:
        yield lambda uri: use(TokenUri.parse(uri).label or "")


def first_and_last(looks: Sequence[Held]) -> tuple[Held, Held]:
    """What was held after the warm-up, a tenth as in `scripts/soak`, and in the end."""
    settled = looks[max(min(SETTLED_AFTER, len(looks) // 2), len(looks) // 10) :]
    return Held.least(settled[:LOOKS]), Held.least(settled[-LOOKS:])


def mib(held: Held) -> float:
    return round(held.resident / 2**20, 1)


@needs_root_to_look_inside
@pytest.mark.parametrize("kind", [SOFTWARE, TOKEN], ids=["software", "SoftHSM"])
def test_rotations_under_load_are_noticed_by_nobody(
    kind: Kind,
    start: Callable[[Kind, str], tuple[Scanner, Rotating]],
    keys_made_before: None,
    request: pytest.FixtureRequest,
) -> None:
    rotations = int(os.environ.get("SCANSEAL_ROTATIONS", kind.rotations))
    scanner, rotating = start(kind, "through-proxy")
    _, twin = start(kind, "spare")
    with (
        user_without_scanseal(rotating) as use,
        running_agent(scanner, limits=LIMITS, **tables(rotating)) as agent,
        SigningClient(agent.socket) as client,
    ):

        def taken_up(number: int) -> bool:
            return bool(client.status()["identities"]["signing"]["generation"] == number)

        with running_load(agent.socket, agent.process.pid, CONNECTIONS) as control:
            for _ in range(rotations // 4):
                twin.rotate()
        keyholder: list[Held] = []
        bare: list[Held] = []
        with running_load(agent.socket, agent.process.pid, CONNECTIONS) as report:
            for _ in range(rotations):
                generation = rotating.rotate()
                agent.process.send_signal(signal.SIGHUP)  # or it would be up to half a second later
                wait_until(lambda: taken_up(generation.number))  # noqa: B023 - it is called before the next round
                keyholder.append(Held.by(agent.process.pid))
                bare.append(use(generation.key_uri))
            assert client.sign_digest(bytes(32), algorithm="sha256", role="acquisition").key_generation == rotations + 1
        wait_until(lambda: client.status()["connections"] == 1)

    assert report.failures == control.failures == []
    assert set(report.generations) >= set(range(2, rotations + 1))
    assert len(rotating.keys()) == 2, "of the generation in use, and of the one before (ADR 9)"
    begin, end = first_and_last(keyholder)
    bare_begin, bare_end = first_and_last(bare)
    of_the_library = bare_end.resident - bare_begin.resident
    longest, machine = (max(one.gaps, key=lambda gap: gap.own) for one in (report, control))
    measured(
        "R18",
        f"rotations under load: {request.node.callspec.id}",
        rotations=rotations,
        signatures=report.signed,
        failed=len(report.failures),
        signatures_per_second=round(report.rate),
        longest_gap_ms=round(longest.own * 1e3, 1),
        the_host_had_a_processor_in_that_ms=round(longest.stolen * 1e3),
        gaps_over_50_ms=sum(gap.own > LONGEST_GAP for gap in report.gaps),
        longest_gap_without_rotations_ms=round(machine.own * 1e3, 1),
        with_waiting_for_a_processor_ms=round(report.pause * 1e3, 1),
        longest_request_ms=round(report.longest * 1e3, 1),
        longest_request_without_rotations_ms=round(control.longest * 1e3, 1),
        keyholder_mib_before=mib(begin),
        keyholder_mib_after=mib(end),
        **({"user_without_scanseal_mib": f"{mib(bare_begin)} to {mib(bare_end)}"} if bare_end.resident else {}),
        descriptors_before=begin.descriptors,
        descriptors_after=end.descriptors,
        keys_left=len(rotating.keys()),
    )
    # What stopped signing would do so at each rotation; a host that stops this machine for a moment does so at one.
    assert sum(gap.own > LONGEST_GAP for gap in report.gaps) <= rotations // 10
    assert end.descriptors <= begin.descriptors
    assert end.resident - begin.resident <= of_the_library + max(0.02 * begin.resident, 1 << 20)
