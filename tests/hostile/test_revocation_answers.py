"""Whoever sits between the scanner and its CA can neither stop signing nor hide a revocation that was seen.

Each answer is given by a real server to the enroller, once to a scanner whose certificate was good, once to one whose
certificate was revoked, and once to one that knows nothing.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from enroll.clock import SystemClock
from enroll.config import EnrollSettings, RevocationSettings
from enroll.errors import ProtocolViolation
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.keystore.base import Protection
from enroll.revocation import ocsp
from enroll.revocation.lists import Statement
from enroll.revocation.record import RevocationRecord, RevocationRecords, RevocationState
from enroll.revocation.watch import list_statement, watch_revocations
from enroll.statefile import StateFiles
from enroll.trust import VerifiedCertificate
from tests.support.pki import DEVICE, HospitalCa, new_key
from tests.support.revocation import revocation_list
from tests.support.revocation_answers import Response
from tests.support.revoking_ca import Answering, RevokingCa, web_server

YESTERDAY = timedelta(days=-1)
KEY = new_key()


@dataclass
class Scene:
    """A scanner whose certificate names a server, and what its CA would say."""

    ca: RevokingCa
    server: Answering
    identities: IdentityStore
    generation: Generation
    settings: EnrollSettings
    good: Response
    stranger: HospitalCa

    def watch(self) -> RevocationRecord:
        """What is known after a run."""
        return watch_revocations(self.settings, SystemClock(), self.identities)[IdentityName.DEVICE]

    def revoked(self, **changes: object) -> Response:
        """A stolen key."""
        now = datetime.now(UTC)
        return self.good.but(revoked_at=now, reason=x509.ReasonFlags.key_compromise, **changes)

    def list(
        self, *, revoked: bool = False, signed_by: HospitalCa | None = None, lasts: timedelta = timedelta(days=7)
    ) -> bytes:
        """A revocation list of the CA, or one in its name."""
        numbers = {self.generation.certificate.serial_number: datetime.now(UTC)} if revoked else {}
        key = signed_by.key if signed_by else self.ca.key
        made = revocation_list(self.ca.name, key, datetime.now(UTC), numbers, x509.ReasonFlags.key_compromise, lasts)
        return made.public_bytes(serialization.Encoding.DER)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with web_server() as server:
        ca = RevokingCa(tmp_path / "ca")
        identities = IdentityStore(tmp_path / "state", StateFiles())
        certificate = ca.issue(KEY.public_key(), responder=server.url, list_at=server.url)
        generation = _committed(IdentityName.DEVICE, certificate, ca, identities)
        settings = EnrollSettings(DEVICE, tmp_path / "state", revocation=RevocationSettings(timeout=2))
        good = Response(certificate, ca.certificate, ca.certificate, ca.key)
        yield Scene(ca, server, identities, generation, settings, good, HospitalCa("Stranger"))


def _committed(
    name: IdentityName, certificate: x509.Certificate, ca: RevokingCa, identities: IdentityStore
) -> Generation:
    return identities.commit(
        name,
        VerifiedCertificate(certificate, (), ca.certificate),
        "software:key",
        protection=Protection.SOFTWARE,
        flow="est",
        now=datetime.now(UTC),
    )


def certified(scene: Scene, ca: HospitalCa | RevokingCa, usage: x509.ObjectIdentifier, **dates: datetime) -> Response:
    """An answer by a responder that a CA has certified, for this or for something else."""
    key, now = new_key(), datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(ca.name, ca.name, key.public_key())
        .serial_number(7)
        .not_valid_before(dates.get("begin", now + YESTERDAY))
        .not_valid_after(dates.get("end", now - YESTERDAY))
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    signer = builder.sign(ca.key, hashes.SHA256())
    return scene.good.but(signer=signer, key=key)


def of_another(scene: Scene) -> Response:
    return scene.good.but(certificate=scene.ca.issue(new_key().public_key()))


def by_an_impostor(scene: Scene) -> Response:
    """The same name and number, another key of the issuer."""
    impostor = HospitalCa("Revoking CA")
    return scene.good.but(issuer=impostor.certificate, signer=impostor.certificate, key=impostor.key)


def by_the_name_of_the_issuer(scene: Scene) -> Response:
    impostor = HospitalCa("Revoking CA")
    return scene.good.but(signer=impostor.certificate, key=impostor.key, by_name=True)


def ber(data: bytes) -> bytes:
    """The same with an indefinite length (X.690 8.1.3.6)."""
    return b"\x30\x80" + data[4:] + b"\0\0"


def old(response: Response) -> Response:
    return response.but(begins=timedelta(days=-9), ends=timedelta(days=-2))


def on_hold(scene: Scene) -> Response:
    return scene.good.but(revoked_at=datetime.now(UTC), reason=x509.ReasonFlags.certificate_hold)


OTHER_USE = ExtendedKeyUsageOID.CLIENT_AUTH
OCSP_USE = ExtendedKeyUsageOID.OCSP_SIGNING

# What proves nothing, whatever was known before.
WORTHLESS: dict[str, Callable[[Scene], bytes]] = {
    "nothing": lambda _: b"",
    "garbage": lambda _: bytes(range(256)) * 4,
    "a web page": lambda _: b"<html>Please log in to the hospital's guest network.</html>",
    "huge": lambda _: b"\x30\x83\x20\x00\x00" + bytes(3 << 20),
    "an error": lambda _: bytes.fromhex("30030a0106"),
    "try later": lambda _: bytes.fromhex("30030a0103"),
    "successful and empty": lambda _: bytes.fromhex("30030a0100"),
    "BER": lambda s: ber(s.good.der),
    "trailing data": lambda s: s.good.der + b"\0",
    "cut short": lambda s: s.good.der[:-1],
    "about another certificate": lambda s: of_another(s).der,
    "about another certificate, revoked": lambda s: of_another(s).but(revoked_at=datetime.now(UTC)).der,
    "by an impostor of the issuer": lambda s: by_an_impostor(s).der,
    "by an impostor of the issuer, revoked": lambda s: by_an_impostor(s).but(revoked_at=datetime.now(UTC)).der,
    "the issuer's name, a stranger's key": lambda s: by_the_name_of_the_issuer(s).der,
    "the issuer's name, a stranger's key, revoked": lambda s: (
        by_the_name_of_the_issuer(s).but(revoked_at=datetime.now(UTC)).der
    ),
    "signed by a stranger": lambda s: s.good.but(signer=s.stranger.certificate, key=s.stranger.key).der,
    "signed by the holder itself": lambda s: s.good.but(signer=s.generation.certificate, key=KEY).der,
    "a responder for something else": lambda s: certified(s, s.ca, OTHER_USE).der,
    "a responder of another CA": lambda s: certified(s, s.stranger, OCSP_USE).der,
    "a responder that has expired": lambda s: (
        certified(s, s.ca, OCSP_USE, begin=datetime.now(UTC) + 3 * YESTERDAY, end=datetime.now(UTC) + YESTERDAY).der
    ),
    "the answer to another question": lambda s: s.good.but(nonce=bytes(32)).der,
    "the answer to another question, revoked": lambda s: s.revoked(nonce=bytes(32)).der,
    "over": lambda s: old(s.good).der,
    "over, and on hold": lambda s: old(on_hold(s)).der,
    "without an end, two days old": lambda s: s.good.but(begins=timedelta(days=-2), ends=None).der,
    "from the future": lambda s: s.good.but(begins=timedelta(days=1), ends=timedelta(days=2)).der,
    "unknown to the responder": lambda s: s.good.but(unknown=True).der,
    "signed with SHA-224": lambda s: s.good.but(digest=hashes.SHA224()).der,
    "a list of a stranger": lambda s: s.list(signed_by=s.stranger),
    "a list of a stranger, revoked": lambda s: s.list(revoked=True, signed_by=s.stranger),
    "a list that is over": lambda s: s.list(lasts=timedelta(minutes=-30)),
    "a list signed with SHA-1": lambda s: s.ca.list("sha1"),
    "a list signed with SHA-224": lambda s: s.ca.list("sha224"),
    "a list that is cut short": lambda s: s.list(revoked=True)[:-1],
}


def state(scene: Scene) -> tuple[RevocationState, str]:
    """What is durable."""
    record = RevocationRecords(scene.identities).of(scene.generation)
    assert record is not None
    return record.state, record.revocation.reason if record.revocation else ""


@pytest.mark.parametrize("answer", WORTHLESS.values(), ids=WORTHLESS)
def test_an_answer_that_proves_nothing_changes_nothing(scene: Scene, answer: Callable[[Scene], bytes]) -> None:
    begin = time.monotonic()
    scene.server.body = answer(scene)
    record = scene.watch()
    assert record.state is RevocationState.UNKNOWN
    assert record.problem

    scene.server.body = scene.good.der
    assert scene.watch().state is RevocationState.GOOD
    scene.server.body = answer(scene)
    assert scene.watch().state is RevocationState.GOOD

    scene.server.body = scene.revoked().der
    assert scene.watch().state is RevocationState.REVOKED
    scene.server.body = answer(scene)
    scene.watch()
    assert state(scene) == (RevocationState.REVOKED, "keyCompromise")
    assert time.monotonic() - begin < 10


def test_the_control_group_is_believed(scene: Scene) -> None:
    """What the tests above break is right before it is broken."""
    delegated = certified(scene, scene.ca, OCSP_USE)
    for response in (
        scene.good,
        scene.good.but(by_name=True),
        scene.good.but(ends=None),
        delegated,
        scene.good.but(certificate_hash=hashes.SHA256()),
    ):
        scene.server.body = response.but(begins=timedelta(seconds=-1)).der
        record = scene.watch()
        assert (record.state, record.problem) == (RevocationState.GOOD, "")
    scene.server.body = scene.list()
    statement = list_statement(scene.list(), scene.generation.certificate, scene.ca.certificate, datetime.now(UTC))
    assert statement.revocation is None
    list_statement(scene.ca.list(), scene.generation.certificate, scene.ca.certificate, datetime.now(UTC))


def test_an_old_good_answer_does_not_hide_a_revocation_for_good(scene: Scene) -> None:
    """It is signed, of today, and was true when it was made."""
    before = scene.good.der
    scene.server.body = scene.revoked().der
    scene.watch()
    for replayed in (before, scene.good.but(begins=timedelta(minutes=1)).der, scene.list()):
        scene.server.body = replayed
        assert scene.watch().state is RevocationState.REVOKED


def test_an_old_answer_does_not_lift_a_hold_and_a_later_one_does(scene: Scene) -> None:
    scene.server.body = on_hold(scene).der
    assert scene.watch().state is RevocationState.REVOKED
    scene.server.body = scene.good.but(begins=timedelta(minutes=-30)).der
    assert scene.watch().state is RevocationState.REVOKED
    scene.server.body = scene.good.but(begins=timedelta(minutes=2)).der
    assert scene.watch().state is RevocationState.GOOD


def test_an_old_hold_does_not_stop_what_was_good_since(scene: Scene) -> None:
    scene.server.body = scene.good.der
    scene.watch()
    scene.server.body = on_hold(scene).but(begins=timedelta(minutes=-30)).der

    assert scene.watch().state is RevocationState.GOOD


def test_a_revocation_for_good_counts_however_old_its_answer_is(scene: Scene) -> None:
    """Whoever holds an answer back until it is over hides nothing."""
    scene.server.body = old(scene.revoked()).der

    assert scene.watch().state is RevocationState.REVOKED


def test_silence_and_slowness_are_bounded_and_change_nothing(scene: Scene) -> None:
    """1 byte a second, for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        over = threading.Event()
        thread = threading.Thread(target=_drip, args=(listener, over))
        thread.start()
        try:
            slow = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            revocation = replace(scene.settings.revocation, ocsp_url=slow, timeout=1)
            scene.server.status = 503
            scene.settings = replace(scene.settings, revocation=revocation)
            begin = time.monotonic()
            assert scene.watch().state is RevocationState.UNKNOWN
            assert time.monotonic() - begin < 4
        finally:
            over.set()
            thread.join()


def test_all_questions_of_a_run_have_one_deadline_and_each_has_its_share(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that swallows everything must not put off the renewals that come next."""
    monkeypatch.setattr("enroll.revocation.watch.ROUND_TIME", 2.0)
    scene.server.body = scene.good.der
    with socket.create_server(("127.0.0.1", 0)) as swallows:
        hole = f"http://127.0.0.1:{swallows.getsockname()[1]}/"
        certificate = scene.ca.issue(new_key().public_key(), responder=hole + "a", list_at=hole + "b")
        other = _committed(IdentityName.IDEVID, certificate, scene.ca, scene.identities)
        revocation = replace(scene.settings.revocation, ocsp_url=hole, crl_url=hole, timeout=30)
        scene.settings = replace(scene.settings, revocation=revocation)
        begin = time.monotonic()
        assert scene.watch().state is RevocationState.GOOD
        assert time.monotonic() - begin < 4
    record = RevocationRecords(scene.identities).of(other)
    assert record is not None
    assert record.state is RevocationState.UNKNOWN


def test_an_enrollment_does_not_wait_for_the_answers(scene: Scene) -> None:
    scene.server.body = scene.good.der
    with scene.identities.lock():
        assert scene.watch().state is RevocationState.GOOD


def test_two_runs_do_not_ask_at_once(scene: Scene) -> None:
    """The later one to write could put a revocation out of sight that the other has just seen."""
    with scene.identities.watch_lock():
        assert watch_revocations(scene.settings, SystemClock(), scene.identities) == {}


def _drip(listener: socket.socket, over: threading.Event) -> None:
    while not over.is_set():
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                while not over.wait(1):
                    connection.sendall(b"0")


def test_a_thousand_changed_answers_prove_nothing_else(scene: Scene) -> None:
    """What is signed cannot be changed. The count of unused bits behind a signature can, and says nothing."""
    certificate, issuer, now = scene.generation.certificate, scene.ca.certificate, datetime.now(UTC)

    def read(data: bytes) -> Statement:
        return ocsp.statement(data, certificate, issuer, bytes(32), now)

    check_mutations((scene.good.der, scene.revoked().der), read)


def test_a_thousand_changed_lists_prove_nothing_else(scene: Scene) -> None:
    certificate, issuer, now = scene.generation.certificate, scene.ca.certificate, datetime.now(UTC)

    def read(data: bytes) -> Statement:
        return list_statement(data, certificate, issuer, now)

    check_mutations((scene.list(), scene.list(revoked=True)), read)


def check_mutations(genuine: tuple[bytes, ...], read: Callable[[bytes], Statement]) -> None:
    """Change up to three bits, a thousand times: a ProtocolViolation, or what the CA has signed."""
    chance, believed, signed = random.Random(6960), 0, [read(data) for data in genuine]  # noqa: S311 - repeatable
    for _ in range(1000):
        changed = bytearray(chance.choice(genuine))
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        with suppress(ProtocolViolation):
            assert read(bytes(changed)) in signed
            believed += 1
    assert believed < 20
