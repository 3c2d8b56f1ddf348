"""A state directory with all that the product keeps, made by the product, and what its loaders say of it."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from enroll.algorithms import HmacAlgorithm
from enroll.certificates import read_kept, serial_text
from enroll.clock_record import read_seen
from enroll.config import StoreName
from enroll.errors import ScansealError, ServerUnreachable
from enroll.est.first_trust import FirstTrust
from enroll.failure import Failures
from enroll.fdo.credential import CredentialStore, fdo_directory
from enroll.flows.base import Enrollment, Issued, OfferedEnrollment, Pending
from enroll.flows.offline.ended import End, Ended, EndedRequests
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.journal import PendingRequest, Step
from enroll.keystore import KeyStores
from enroll.keystore.ledger import Ledger
from enroll.revocation.lists import Revocation
from enroll.revocation.record import RevocationRecord, RevocationRecords, RevocationState
from enroll.statefile import StateFiles
from enroll.suggestion import Suggestion, Window, read_suggestion, write_suggestion
from enroll.vendor.case import ServiceCase
from enroll.wanted import Wish
from tests.support.enrolling import CaFlow, Keyholder, Scanner, settings
from tests.support.fdo.credentials import credential, owned
from tests.support.pki import NOW, HospitalCa
from tests.support.state_of_flows import AnswersOfFlows, add_state_of_flows, disable

DEVICE, SIGNING, DERIVATION, SYNTHESIS, VENDOR = (
    IdentityName.DEVICE,
    IdentityName.SIGNING,
    IdentityName.DERIVATION,
    IdentityName.SYNTHESIS,
    IdentityName.VENDOR,
)
REQUEST = "20261122-0a1b2c"
NOT_READ = frozenset({"enroll.lock", "watch.lock", "owner.lock", "clock.lock"})
DAY = timedelta(days=1)

_Row = tuple[str, dict[str, Callable[[], object]]]


class _CrashError(Exception):
    """Whoever enrolls ends here."""


def make_state(folder: Path, ca: HospitalCa) -> Scanner:
    """A scanner in use: enrolled, renewed, with requests under way, one revocation, failures, wishes."""
    folder.mkdir(exist_ok=True)
    scanner = Scanner(settings(folder), (ca.certificate,))
    flow = CaFlow(ca, scanner.clock)
    for name in (DEVICE, DEVICE, SIGNING, SIGNING, SIGNING):
        scanner.issue(flow, name)
    scanner.issue(replace(flow, answer=lambda _: Pending(NOW + DAY, "a person decides")), DERIVATION)
    _crash_after_issuing(scanner, flow)
    _revoke(scanner)
    identities, files = scanner.identities, scanner.files
    _fail(scanner)
    identities.wanted(VENDOR).write(Wish("vendor", NOW))
    key = "signing-0123456789abcdef"
    by_hand = PendingRequest(Step.SENT, key, f"software:{key}", '{"flow": "offline"}', NOW, reason="by mail")
    identities.journal_by_hand(SIGNING, REQUEST).write(by_hand)
    EndedRequests(identities.directory(SIGNING), files).add(
        Ended("20261101-000000", "ab" * 32, End.CANCELLED, NOW, NOW)
    )
    current = identities.current(DEVICE)
    assert current is not None
    write_suggestion(Suggestion(NOW + DAY, Window(NOW, NOW + DAY), NOW + DAY), current, identities, files)
    Keyholder(scanner).offer()
    fingerprint = ca.certificate.fingerprint(hashes.SHA256()).hex()
    est = replace(scanner.settings.est, anchor_file=None, anchor_fingerprint=fingerprint)
    FirstTrust(est, identities.root / "anchors", files).pin([ca.certificate])
    ServiceCase(identities.root, files).nonce()
    stores = scanner.stores
    secret = stores.generate_secret(StoreName.SOFTWARE, "fdo-0123456789abcdef", HmacAlgorithm.SHA256)
    credentials = CredentialStore(fdo_directory(identities.root), stores, files)
    credentials.commit(credential(secret))
    credentials.propose(owned(credential(secret, 2)))
    add_state_of_flows(scanner, ca)
    disable(scanner)
    return scanner


def _crash_after_issuing(scanner: Scanner, flow: CaFlow) -> None:
    @dataclass
    class Crashing(CaFlow):
        def confirm(self, handle: object, certificate: object) -> bool:
            raise _CrashError

    def issued(enrollment: Enrollment | OfferedEnrollment) -> Issued:
        answer = flow.enroll(enrollment)
        assert isinstance(answer, Issued)
        return answer

    try:
        scanner.issue(Crashing(flow.ca, scanner.clock, answer=issued), SYNTHESIS)
    except _CrashError:
        return
    raise AssertionError("it did not come so far")


def _revoke(scanner: Scanner) -> None:
    records = RevocationRecords(scanner.identities)
    for name, revocation in ((DEVICE, None), (SIGNING, Revocation(NOW, "keyCompromise"))):
        current = scanner.identities.current(name)
        assert current is not None
        state = RevocationState.REVOKED if revocation else RevocationState.GOOD
        record = RevocationRecord(
            current.number,
            serial_text(current.certificate),
            NOW,
            state,
            revocation,
            NOW,
            NOW + DAY,
            NOW,
            "http://crl.example",
        )
        records.write(current, record)


def _fail(scanner: Scanner) -> None:
    for name in (DEVICE, SIGNING):
        error = ServerUnreachable(f"The CA of {name} does not answer.", remedy="Ask for it.")
        with contextlib.suppress(ServerUnreachable), Failures(scanner.identities).noted(name, "est", scanner.clock):
            raise error


class Answers:
    """What the loaders of the product say of a state directory.

    Args:
        root: The state directory.
        stores: Its key stores.
        files: Reads.
    """

    def __init__(self, root: Path, stores: KeyStores, files: StateFiles) -> None:
        self.root, self.files = root, files
        self.identities = IdentityStore(root, files)
        self.credentials = CredentialStore(fdo_directory(root), stores, files)
        self.of_flows = AnswersOfFlows(root, stores, files)

    def loaders(self, path: Path) -> dict[str, Callable[[], object]]:
        """Those that read a file of the directory, by name; a test fails where a new kind of file has none."""
        relative = path.relative_to(self.root).as_posix()
        rows = (*self._of_scanner(path), *self._of_identity(path), *self.of_flows.rows(path))
        return next((loaders for pattern, loaders in rows if fnmatch.fnmatchcase(relative, pattern)), {})

    def _of_scanner(self, path: Path) -> list[_Row]:
        case = ServiceCase(self.root, self.files)
        return [
            ("owner.json", {"owner": self.identities.owner_file.read}),
            ("clock.json", {"clock": lambda: read_seen(self.root, self.files)}),
            ("fdo/credential.current", {"credential": self.credentials.current}),
            ("fdo/credential.pending", {"next credential": self.credentials.pending}),
            ("ledger/*.json", {"ledger": lambda: Ledger(self.root, self.files).place(path.stem)}),
            ("vendor/nonce.json", {"nonce": case._shown}),
            ("anchors/*.pem", {"anchor": lambda: read_kept(path, self.files)}),
        ]

    def _of_identity(self, path: Path) -> list[_Row]:
        parts = path.relative_to(self.root).parts
        if parts[0] != "identities":
            return []
        identities, name = self.identities, IdentityName(parts[1])
        journal = identities.journal(name)
        current: dict[str, Callable[[], object]] = {"current": lambda: identities.current(name)}
        records = RevocationRecords(identities)

        def of_current(read: Callable[[Generation], object]) -> Callable[[], object]:
            def load() -> object:
                generation = identities.current(name)
                return generation and read(generation)

            return load

        revocation = {"revocation": of_current(records.of)}
        table: list[_Row] = [
            ("current", current),
            ("newest.json", current),
            ("generations/*", current | {"key": lambda: identities.key_uri(name, int(parts[3]))}),
            ("pending/request.json", {"journal": journal.read}),
            ("pending/*.pem", {"issued": journal.read_issued}),
            ("pending/offer.json", {"offer": lambda: identities.offer(name)}),
            ("offline/*", {"by hand": lambda: identities.journal_by_hand(name, parts[3]).read()}),
            ("offline-ended.json", {"ended": EndedRequests(identities.directory(name), self.files).read}),
            ("wanted.json", {"wish": identities.wanted(name).read}),
            ("last-failure.json", {"failure": lambda: Failures(identities).last(name)}),
            ("revocation.json", revocation),
            ("revoked/*", revocation),
            ("renewal-info.json", {"plan": of_current(lambda each: read_suggestion(each, identities, self.files))}),
        ]
        return [(f"identities/{name}/{pattern}", loaders) for pattern, loaders in table]


def answer_of(load: Callable[[], object]) -> str:
    """What a loader says, or how it refuses; any other exception goes on to whoever asks."""
    try:
        return told(load())
    except ScansealError as error:
        return f"error {error.code}"


def told(value: object) -> str:
    """A value as text that is the same wherever the directory lies, and in every process."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (f"{field.name}={told(getattr(value, field.name))}" for field in dataclasses.fields(value))
        return f"{type(value).__name__}({', '.join(fields)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(told, value))})"
    if isinstance(value, x509.Certificate):
        return f"certificate {value.fingerprint(hashes.SHA256()).hex()[:16]}"
    if isinstance(value, x509.CertificateSigningRequest):
        return f"request {value.signature.hex()[:16]}"
    return repr(value)


def files_of(root: Path, *, keys: bool = False) -> list[Path]:
    """Every state file that holds something, and every link, sorted; with the files of keys or without them."""
    found = (path for path in root.rglob("*") if path.is_symlink() or path.is_file())
    left_out = NOT_READ if keys else NOT_READ | {"keys"}
    return sorted(path for path in found if left_out.isdisjoint(path.relative_to(root).parts))


def unread(paths: Iterable[Path], answers: Answers) -> list[Path]:
    """Those that no loader reads."""
    return [path for path in paths if not answers.loaders(path)]


def answers_of(answers: Answers) -> dict[str, dict[str, str]]:
    """What every loader says, by file."""
    return {
        path.relative_to(answers.root).as_posix(): {
            name: answer_of(load) for name, load in answers.loaders(path).items()
        }
        for path in files_of(answers.root)
    }
