"""A scanner with something of everything that its owner has, and what is left of it after a release (ADR 33)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.config import StoreName
from enroll.fdo import cbor
from enroll.fdo.credential import CredentialStore, DeviceCredential, Owner
from enroll.fdo.hand_over import write_anchors
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.public_key import KeyType
from enroll.flows.acme.account import AccountRecord
from enroll.flows.base import FlowContext
from enroll.identity import IdentityName, IdentityStore
from enroll.journal import PendingRequest, Step
from enroll.keystore import KeyStores
from enroll.owner_release import OWNERS_IDENTITIES, OwnerRelease
from enroll.record import write_record
from enroll.statefile import StateFiles
from enroll.wanted import Wish
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.pki import HospitalCa
from tests.support.records import set_key_uri

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


def snapshot(scanner: Scanner) -> dict[str, bytes]:
    root = scanner.settings.state_directory
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"}


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
