"""The state files that flows, people and servers leave behind, made by the product, and what its loaders say of them.

`tests/support/whole_state.py` has those of the one transaction, which every flow has.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from enroll.anchors import KeptAnchors
from enroll.attestation.evidence import TpmEvidence
from enroll.attestation.kept import EvidenceStore, KeptEvidence
from enroll.certificates import check_pair, read_kept
from enroll.clock import Clock
from enroll.config import EnrollSettings, StoreName
from enroll.errors import KeyStoreUnavailable, PinRefused, ScansealError, ServerUnreachable
from enroll.fdo.credential import CredentialStore, fdo_directory
from enroll.fdo.di import Initialization, Product
from enroll.fdo.hand_over import anchors_file, write_anchors
from enroll.fdo.onboard import NoOwnerYet, OwnerSearch
from enroll.fdo.owner_policy import Candidate, OwnerPolicy
from enroll.fdo.public_key import KeyEncoding
from enroll.flows.acme.account import Account
from enroll.flows.base import FlowContext
from enroll.generation_files import read_generation
from enroll.identity import IdentityName, IdentityStore
from enroll.keystore import KeyStores
from enroll.owner_release import OwnerRelease
from enroll.renewal.alarms import _told, raise_alarm
from enroll.renewal.silence import Purpose, Silences
from enroll.statefile import STATE_FILE_LIMIT, StateFiles
from enroll.vendor.case import ServiceCase
from enroll.vendor.ticket import ServiceTicket, read_ticket, sign_ticket
from tests.support.clocks import SteppedClock
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.pki import DEVICE, NOW, HospitalCa

if TYPE_CHECKING:
    from enroll.keystore.pkcs11.refused import RefusedPins

HAS_PKCS11 = importlib.util.find_spec("pkcs11") is not None  # an optional extra, which tokens/ is of
ENROLLMENT_URL, REVOCATION_URL = "https://ca.example/est", "http://ocsp.example:8080/"
_PIN_FILE = Path(__file__)  # some file that nobody changes meanwhile

_Row = tuple[str, dict[str, Callable[[], object]]]


class CrashError(Exception):
    """A process ends here."""


class _Token:
    """What the notes of refused PINs ask of a token."""

    label, serial = "scanseal", b"0001"


def disable(scanner: Scanner) -> None:
    """The owner has disabled the scanner."""
    scanner.identities.owner_file.disable(0, "it was stolen", NOW)


def make_released(folder: Path, ca: HospitalCa) -> Scanner:
    """A scanner whose owner gives it up; the power went as soon as that was written down."""
    folder.mkdir(exist_ok=True)
    scanner = Scanner(settings(folder), (ca.certificate,))
    scanner.issue(CaFlow(ca, scanner.clock), IdentityName.DEVICE)

    class Crashing(IdentityStore):
        def retract(self, name: IdentityName) -> None:
            raise CrashError

    identities = Crashing(scanner.identities.root, scanner.files)
    context = FlowContext(scanner.settings, scanner.stores, identities, scanner.clock, scanner.files)
    with contextlib.suppress(CrashError):
        OwnerRelease(context).run()
    return scanner


def add_state_of_flows(scanner: Scanner, ca: HospitalCa) -> None:
    """Everything else that the life of a scanner brings: an ACME account, an onboarding under way, a service case."""
    root, files, identities = scanner.identities.root, scanner.files, scanner.identities
    current = identities.current(IdentityName.DEVICE)
    assert current is not None
    account = Account(cast("Any", None), scanner.context)
    account._key(account._read())
    raise_alarm(current, current.certificate.not_valid_after_utc - timedelta(days=1), identities, "No answer.")
    evidence = TpmEvidence((ca.certificate.public_bytes(serialization.Encoding.DER),), b"info", b"signature", b"area")
    EvidenceStore(identities, files).write(current, KeptEvidence(evidence, NOW))
    silences = Silences(root, files)
    silences.note(ENROLLMENT_URL, Purpose.ENROLLMENT, NOW, timedelta(hours=2))
    silences.note(REVOCATION_URL, Purpose.REVOCATION, NOW)
    _roll_over(ca, root, files)
    _service_case(root, files)
    _onboarding(scanner, ca)
    if HAS_PKCS11:
        _pins(root, files).note(cast("Any", _Token()), _PIN_FILE)


def _roll_over(ca: HospitalCa, root: Path, files: StateFiles) -> None:
    """The CA has a new key, which it has signed with the old one."""
    new = HospitalCa()
    link = HospitalCa(parent=ca, key=new.key)
    KeptAnchors(root / "anchors", files).roll_over("est", [ca.certificate], [link.certificate, new.certificate], NOW)


def _service_case(root: Path, files: StateFiles) -> None:
    case = ServiceCase(root, files)
    identities = frozenset({IdentityName.IDEVID, IdentityName.VENDOR})
    number, end = DEVICE.serial_number, NOW + timedelta(hours=24)
    said = ServiceTicket("the vendor", "its service", number, case.nonce(), "0001", NOW, NOW, end, identities)
    text = sign_ticket(said, ec.generate_private_key(ec.SECP256R1()))
    case.accept(text, read_ticket(text))
    case.nonce()  # of the next case


def _onboarding(scanner: Scanner, ca: HospitalCa) -> None:
    root, files = scanner.identities.root, scanner.files
    credentials = CredentialStore(fdo_directory(root), scanner.stores, files)
    candidates = credentials.candidates()
    owner = candidates[0].owner
    assert owner is not None
    write_anchors(owner, root, files)
    with contextlib.suppress(NoOwnerYet, ServerUnreachable):
        _search(root, files).run(candidates, cast("Any", None))
    policy = _policy(root, files)
    policy._note(Candidate("a" * 64, "b" * 64, "The hospital"), ())
    policy.approve("a" * 64)
    policy._note(Candidate("c" * 64, "d" * 64, "Somebody else"), policy.candidates())
    _crash_in_factory(scanner)


def _crash_in_factory(scanner: Scanner) -> None:
    """DI on a token that goes away when it should make the first key: what was begun stays for the next run."""

    class Away(KeyStores):
        def check(self, store: StoreName, token: str = "") -> None:
            raise KeyStoreUnavailable("The token is away.", remedy="Put it back.")

    root, files = scanner.identities.root, scanner.files
    away = Away(scanner.settings.keystore, root, files)
    nothing = CredentialStore(root / "nothing", away, files)
    with contextlib.suppress(KeyStoreUnavailable):
        _factory(root, away, nothing, files).run(cast("Any", None))


def _factory(root: Path, stores: KeyStores, credentials: CredentialStore, files: StateFiles) -> Initialization:
    algorithm = EnrollSettings(DEVICE).identity.device.key_algorithm
    product = Product("CT-1", "Example CT", StoreName.SOFTWARE, "", algorithm, KeyEncoding.X509)
    return Initialization(product, stores, credentials, fdo_directory(root), files)


def _search(root: Path, files: StateFiles) -> OwnerSearch:
    class Nowhere:
        where = "nowhere"

        def close(self) -> None:
            pass

    def find_owner(*_: object) -> NoReturn:
        raise ServerUnreachable("There is no network.", remedy="Plug it in.")

    def connect(*_: object) -> Any:
        return Nowhere()

    return OwnerSearch(fdo_directory(root), files, SteppedClock(), connect, find_owner, lambda: 0.0)


def _policy(root: Path, files: StateFiles) -> OwnerPolicy:
    return OwnerPolicy(EnrollSettings(DEVICE).fdo, fdo_directory(root), files, SteppedClock())


def _pins(root: Path, files: StateFiles) -> RefusedPins:
    from enroll.keystore.pkcs11.refused import RefusedPins  # noqa: PLC0415 - an optional extra

    return RefusedPins(root, files)


class _OnlyRead(StateFiles):
    """A state directory that is only looked at by what would tidy it up."""

    def __init__(self, files: StateFiles) -> None:
        self._files = files

    def read(self, path: Path, limit: int = STATE_FILE_LIMIT, *, follow: bool = False) -> bytes:
        return self._files.read(path, limit, follow=follow)

    def remove(self, path: Path) -> None:
        pass


class AnswersOfFlows:
    """What the loaders of the product say of these files.

    Args:
        root: The state directory.
        stores: Its key stores.
        files: Reads.
    """

    def __init__(self, root: Path, stores: KeyStores, files: StateFiles) -> None:
        self.root, self.stores, self.files = root, stores, files
        self.identities = IdentityStore(root, files)
        self.credentials = CredentialStore(fdo_directory(root), stores, files)
        clock: Clock = SteppedClock()
        self.context = FlowContext(EnrollSettings(DEVICE, root), stores, self.identities, clock, files)

    def rows(self, path: Path) -> list[_Row]:
        """Patterns of paths below the root, and what reads them."""
        credentials, silences = self.credentials, Silences(self.root, self.files)
        secret: dict[str, Callable[[], object]] = {
            "credential": credentials.current,
            "next credential": credentials.pending,
        }
        return [
            ("release.json", {"release": OwnerRelease(self.context)._kept, "kept": self._is_kept}),
            ("acme/account.json", {"account": Account(cast("Any", None), self.context)._read}),
            ("servers/*.json", {"silence": lambda: self._silence(path, silences)}),
            ("vendor/ticket.json", {"ticket": ServiceCase(self.root, self.files).ticket}),
            ("tokens/*.json", {"pin": self._pin}),
            ("fdo/attempt.json", {"attempt": lambda: _search(self.root, self.files)._kept(self._devices)}),
            ("fdo/approval.json", {"approval": _policy(self.root, self.files).candidates}),
            ("fdo/initializing.json", {"begun": self._begun}),
            ("fdo/anchors.pem", {"owner's anchors": lambda: read_kept(anchors_file(self.root), self.files)}),
            ("identities/*/alarm.json", {"alarm": lambda: _told(self._current(path), self.identities)}),
            ("identities/*/attestation/*.json", {"evidence": lambda: self._evidence(path)}),
            ("keys/fdo-*.pem", secret),
            ("keys/*.pem", {"key": lambda: self._key(f"software:{path.stem}")}),
        ]

    def _is_kept(self) -> str:
        try:
            self.identities.check_kept()
        except ScansealError as error:
            return f"refused: {error.code}"
        return "nothing is against it"

    def _silence(self, path: Path, silences: Silences) -> object:
        of_ca = path == silences._path("ca.example:443", Purpose.ENROLLMENT)
        url, purpose = (ENROLLMENT_URL, Purpose.ENROLLMENT) if of_ca else (REVOCATION_URL, Purpose.REVOCATION)
        said = silences.of(url, purpose)
        assert said == silences.newest(purpose)
        return said

    def _pin(self) -> object:
        try:
            _pins(self.root, self.files).check(cast("Any", _Token()), _PIN_FILE)
        except PinRefused:
            return "not sent again"
        return None

    @cached_property
    def _devices(self) -> Any:
        return self.credentials.candidates()

    def _begun(self) -> str:
        _factory(self.root, self.stores, self.credentials, _OnlyRead(self.files))._clean_up()
        return "cleaned up"

    def _current(self, path: Path) -> Any:
        current = self.identities.current(IdentityName(path.relative_to(self.root).parts[1]))
        assert current is not None
        return current

    def _evidence(self, path: Path) -> object:
        return EvidenceStore(self.identities, self.files).read(self._current(path))

    def _key(self, uri: str) -> str:
        """Whose key it is, as whoever uses it finds out. One without a certificate is what the CA will certify."""
        key = self.stores.load(uri)
        certificate = self._certificates.get(uri)
        if certificate is None:
            return "a key"
        check_pair(key, certificate)
        return "the key of its certificate"

    @cached_property
    def _certificates(self) -> dict[str, x509.Certificate]:
        """By the key that they belong to."""
        found: dict[str, x509.Certificate] = {}
        for name in IdentityName:
            for number in self.identities.generations(name):
                directory = self.identities.directory(name) / "generations" / f"{number:04d}"
                found[self.identities.key_uri(name, number)] = read_generation(directory, self.files).certificate
            with contextlib.suppress(ScansealError):
                journal = self.identities.journal(name)
                pending = journal.read()
                found |= {pending.key_uri: journal.read_issued()[0][0]} if pending else {}
        return found
