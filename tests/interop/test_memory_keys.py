"""Images signed by keys that live for days in the agent's memory: real agent, real enroller, real CA, real dcmsign."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from agent.audit import AuditTrail
from agent.cli import exits
from agent.cli.main import run
from agent.client import SigningClient
from agent.config import load
from agent.daemon.active_key import ActiveKey
from agent.daemon.memory_identity import KeyMaker, MemoryIdentity
from agent.daemon.signer import Identities
from agent.daemon.wire import HashName
from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.sign import SignaturePlan
from agent.errors import AgentRefused
from enroll import clock_sense
from enroll.csr import CertificateRequest
from enroll.evaluation.ca import EvaluationCa
from enroll.flows.base import Enrollment, Handle, Issued, OfferedEnrollment, Pending, PlannedExchange, Refused
from enroll.identity import IdentityName
from enroll.issue import issue
from enroll.keystore import KeyStores
from tests.support import dcmsign
from tests.support.agent_process import (
    Agent,
    Scanner,
    needs_root_to_look_inside,
    new_scanner,
    running_agent_with_renewal,
    wait_until,
)
from tests.support.clocks import SteppedClock
from tests.support.dicom_samples import ct_slice
from tests.support.hospital import Hospital
from tests.support.process_memory import holds_prime_of
from tests.support.product_signing import sign_bytes

SIGNING = IdentityName.SIGNING
WORKERS = 2
ROTATIONS = 10
MEMORY: dict[str, Any] = {"key_store": "memory", "key_algorithm": "rsa-2048", "key_lifetime": 7}


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path / "ca")


@pytest.fixture
def tables(hospital: Hospital) -> dict[str, dict[str, Any]]:
    return {**hospital.tables(), "identity.signing": MEMORY}


@pytest.fixture
def scanner(tmp_path: Path, hospital: Hospital, tables: dict[str, dict[str, Any]]) -> Iterator[Scanner]:
    """A scanner with the identity of the device, and none that signs."""
    with new_scanner(tmp_path) as scanner:
        enroll = ["enroll", "est", "--identity", "device", "--config", str(scanner.configure(**tables))]
        with hospital.answers():
            assert run(enroll) == exits.OK
        yield scanner


def sign(agent: Agent) -> bytes:
    """An image, signed."""
    signed = BytesIO()
    with SigningClient(agent.socket) as client:
        client.sign_instance(ct_slice(32, 32), signed, role="acquisition")
    return signed.getvalue()


def sign_as_soon_as_possible(agent: Agent, seconds: float = 60) -> bytes:
    """What acquisition does: it asks for every image, and goes on without a signature where it gets none."""
    signed: list[bytes] = []

    def has_signed() -> bool:
        with suppress(AgentRefused):
            signed.append(sign(agent))
        return bool(signed)

    wait_until(has_signed, seconds)
    return signed[0]


def test_the_agent_gets_its_certificate_by_itself_after_every_start(
    scanner: Scanner, hospital: Hospital, tables: dict[str, dict[str, Any]]
) -> None:
    """And says from when on it signed, and how many images had to do without."""
    for generation in (1, 2):
        begun = time.monotonic()
        with hospital.answers(), running_agent_with_renewal(scanner, **tables) as agent:
            sign_as_soon_as_possible(agent)
            passed = time.monotonic() - begun
            with SigningClient(agent.socket) as client:
                status = client.status()
                answer = client.sign_digest(bytes(32), algorithm="sha256", role="acquisition")

        sys.stdout.write(f"time to the first signature: {status['first_signature_seconds']} s of {passed:.1f} s\n")
        assert status["state"] == "ready"
        assert 0 < status["first_signature_seconds"] < passed + 0.1  # the system counts in hundredths of a second
        assert status["unsigned"]["since_start"] > 0
        assert status["unsigned"]["since_last_signature"] == 0
        assert (answer.key_generation, answer.protection) == (generation, "memory")
        signing = status["identities"]["signing"]
        assert (signing["generation"], signing["protection"]) == (generation, "memory")
        days = (datetime.fromisoformat(signing["signs_until"]) - datetime.now(UTC)) / timedelta(days=1)
        assert days == pytest.approx(MEMORY["key_lifetime"], abs=0.01)

    unsigned = scanner.audit("images-unsigned")
    assert {line["code"] for line in unsigned} == {"awaiting-certificate"}
    assert {line["protection"] for line in scanner.audit("signature")} == {"memory"}


def test_while_the_ca_is_away_images_are_counted_and_the_agent_goes_on_asking(
    scanner: Scanner, hospital: Hospital, tables: dict[str, dict[str, Any]]
) -> None:
    with running_agent_with_renewal(scanner, **tables) as agent:
        wait_until(lambda: "renewal failed" in agent.log.read_text("utf-8"), 30)
        for _ in range(3):
            begun = time.monotonic()
            with pytest.raises(AgentRefused, match="waits for its certificate"):
                sign(agent)
            assert time.monotonic() - begun < 1
        with SigningClient(agent.socket) as client:
            assert client.status()["unsigned"]["since_start"] == 3

        with hospital.answers():
            sign_as_soon_as_possible(agent, 150)  # the attempt after the first failure comes a minute later


@needs_root_to_look_inside
def test_only_the_keyholder_has_the_key_in_its_memory(
    scanner: Scanner, hospital: Hospital, tables: dict[str, dict[str, Any]]
) -> None:
    with hospital.answers(), running_agent_with_renewal(scanner, **tables) as agent:
        sign_as_soon_as_possible(agent)
        current = scanner.identities.current(SIGNING)
        assert current is not None
        public_key = current.certificate.public_key()
        assert isinstance(public_key, rsa.RSAPublicKey)

        wait_until(lambda: len(agent.workers()) == WORKERS)  # and the enroller has ended
        assert holds_prime_of(agent.process.pid, public_key)
        assert not any(holds_prime_of(worker, public_key) for worker in agent.workers())
        files = [
            path.read_bytes() for path in scanner.state.rglob("*") if path.is_file() and path.parent.name != "keys"
        ]
        assert not any(b"PRIVATE KEY" in content for content in files)
        assert [path.name for path in (scanner.state / "keys").iterdir() if "signing" in path.name] == []


# --- rotated away, and valid for years


@dataclass
class Offered:
    """The way to the CA without a network: it gets the request that the keyholder has signed."""

    ca: EvaluationCa
    name: str = "est"

    def enroll(self, asking: Enrollment | OfferedEnrollment) -> Issued | Pending | Refused:
        assert isinstance(asking, OfferedEnrollment)
        return Issued((self.ca.issue(asking.signed),))

    @property
    def anchors(self) -> tuple[x509.Certificate, ...]:
        return (self.ca.certificate,)

    def anchors_and_intermediates(self) -> tuple[x509.Certificate, ...]:
        return self.anchors

    def asks_for(self, request: CertificateRequest) -> CertificateRequest:
        return request

    def plan(self, request: CertificateRequest, renews: x509.Certificate | None) -> tuple[PlannedExchange, ...]:
        return ()

    def confirm(self, handle: Handle, certificate: x509.Certificate | None) -> bool:
        return False


@dcmsign.needs_dcmsign
def test_an_image_verifies_with_dcmsign_after_its_key_has_been_rotated_away_ten_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock begins weeks ago and ends now, because dcmsign has no other clock; nothing is time-stamped."""
    lifetime = timedelta(days=MEMORY["key_lifetime"])
    clock = SteppedClock(datetime.now(UTC) - (ROTATIONS + 1) * lifetime * 0.7)
    monkeypatch.setattr(clock_sense, "BUILD_TIME", clock.now())  # no clock that shows an earlier time is believed
    ca = EvaluationCa.create_or_open(tmp_path / "ca", clock)
    images: list[Path] = []
    keys: set[str] = set()
    with new_scanner(tmp_path) as scanner:
        settings = load(scanner.configure(**{"identity.signing": MEMORY}), scanner.files).enroll
        scanner.audit_file.parent.mkdir()
        audit = AuditTrail(scanner.audit_file, clock)
        maker = KeyMaker(SIGNING, settings.identity.signing, settings.device, scanner.keys, clock)
        with ThreadPoolExecutor(1) as thread:
            memory = MemoryIdentity(maker, scanner.identities, scanner.files, audit, thread)
            identities = Identities(scanner.identities, scanner.keys, audit, clock, in_memory={SIGNING: memory})

            def has_offered() -> bool:
                identities.refresh()
                return scanner.identities.offer(SIGNING) is not None

            for generation in range(1, ROTATIONS + 2):
                wait_until(has_offered)
                issue(
                    SIGNING,
                    settings,
                    stores=KeyStores(settings.keystore, scanner.state, scanner.files),  # of another process
                    identities=scanner.identities,
                    flow=Offered(ca),
                    clock=clock,
                )
                identities.refresh()
                active = identities.active_key(SIGNING)
                assert active.generation.number == generation
                keys.add(active.generation.key_uri)
                images.append(tmp_path / f"{generation}.dcm")
                images[-1].write_bytes(signed_by(active, clock.now()))
                clock.advance(lifetime * 0.7)
        audit.close()
        assert len(keys) == ROTATIONS + 1
        assert [line["reason"] for line in scanner.audit("memory-key-destroyed")] == ["replaced"] * ROTATIONS
        assert len(scanner.keys.list()) == 1
    for image in images:
        assert dcmsign.verify(image, ca.anchor_file).accepted
    arguments = ["verify", "--anchor", str(ca.anchor_file), *map(str, images)]
    assert run(arguments) == exits.OK


def signed_by(active: ActiveKey, now: datetime) -> bytes:
    """An image that a worker has hashed and the keyholder signed."""
    plan = SignaturePlan(load_profile(ProfileName.CREATOR_PLUS), "sha256", f"2.25.{uuid.uuid4().int}", now)
    return sign_bytes(
        ct_slice(32, 32), plan, lambda digest: active.sign(digest, HashName.SHA256, now), active.certificate
    )
