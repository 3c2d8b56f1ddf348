"""Whether whoever has proved to be the owner by the voucher may have this scanner ([fdo] and docs/adr/0033)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from enroll.certificates import pem
from enroll.errors import ConfigurationError, StateError
from enroll.fdo import cbor
from enroll.fdo.credential import DeviceCredential, Owner
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.owner_policy import ApprovalAwaited, OwnerPolicy, OwnerRefused
from enroll.fdo.public_key import FdoPublicKey, KeyEncoding, KeyType
from enroll.fdo.voucher import OwnerChain, VoucherEntry, VoucherHeader
from enroll.flows.settings import FdoApproval, FdoSettings
from enroll.statefile import StateFiles
from tests.support.clocks import SteppedClock
from tests.support.fdo.scripted_owner import ScriptedDevice, ScriptedVoucher
from tests.support.pki import NOW, HospitalCa, name, new_key

MANUFACTURER, EARLIER, OWNER, STRANGER = (new_key() for _ in range(4))
DEVICE = ScriptedDevice(new_key())
ROOT = HospitalCa("Owners' root")
MIDDLE = HospitalCa("Owners' CA", ROOT)
NEVER, ALWAYS, REOWNING = FdoApproval.NEVER, FdoApproval.ALWAYS, FdoApproval.REOWNING


def shown(*owners: Any) -> OwnerChain:
    """What an owner has proved: the owners from the first to itself."""
    voucher = ScriptedVoucher.of(DEVICE, MANUFACTURER, owners)
    header = VoucherHeader.read(cbor.read(voucher.header))
    chain = OwnerChain.begin(header, Hash.read(cbor.read(cbor.encode(voucher.mac))))
    for entry in voucher.entries:
        chain = chain.extended(VoucherEntry.read(cbor.read(entry)))
    return chain


def fingerprint(key: Any) -> str:
    return FdoPublicKey.make(key.public_key()).fingerprint


def certified(*chain: Any) -> OwnerChain:
    """The owner, as a voucher shows it in the encoding X5CHAIN."""
    found = shown(OWNER)
    return replace(found, owners=(found.owners[0], FdoPublicKey.make(chain, KeyEncoding.X5CHAIN)))


NEW = DeviceCredential(
    DEVICE.guid,
    cbor.Raw(cbor.encode([])),
    "Example CT",
    Hash.of(HashAlgorithm.SHA256, b""),
    KeyType.SECP256R1,
    None,
    "software:key",
    "software:secret",
    HashAlgorithm.HMAC_SHA256,
)
RELEASED = replace(NEW, was_owned=True)
OWNED = replace(NEW, owner=Owner(fingerprint(OWNER), fingerprint(OWNER)))


class Policy:
    """The policy of a scanner with such settings."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.clock = SteppedClock()
        self.folder = folder
        self.policy = self.with_settings(**settings)

    def with_settings(self, **settings: Any) -> OwnerPolicy:
        return OwnerPolicy(FdoSettings(**settings), self.folder / "fdo", StateFiles(), self.clock)

    def allows(self, chain: OwnerChain, credential: DeviceCredential = NEW) -> None:
        self.policy.judge(chain, credential)

    def refuses(self, chain: OwnerChain, credential: DeviceCredential = NEW) -> OwnerRefused:
        with pytest.raises(OwnerRefused) as raised:
            self.policy.judge(chain, credential)
        return raised.value

    def awaits(self, chain: OwnerChain, credential: DeviceCredential = NEW) -> ApprovalAwaited:
        with pytest.raises(ApprovalAwaited) as raised:
            self.policy.judge(chain, credential)
        return raised.value


# --- lists


def test_without_a_list_whoever_the_voucher_names_may(tmp_path: Path) -> None:
    Policy(tmp_path).allows(shown(OWNER))
    Policy(tmp_path).allows(shown())


def test_an_owner_may_be_named_by_its_key(tmp_path: Path) -> None:
    grouped = fingerprint(OWNER).upper()
    written = ":".join(grouped[start : start + 2] for start in range(0, 64, 2))
    policy = Policy(tmp_path, owner_fingerprints=(fingerprint(STRANGER), written))

    policy.allows(shown(OWNER))
    policy.allows(shown(EARLIER, OWNER))
    assert fingerprint(EARLIER) in policy.refuses(shown(EARLIER)).what


def test_a_voucher_may_be_named_and_no_shorter_or_longer_one_is_meant(tmp_path: Path) -> None:
    chain = shown(EARLIER, OWNER)
    policy = Policy(tmp_path, voucher_fingerprints=(chain.fingerprint,))

    policy.allows(chain)
    policy.refuses(shown(EARLIER))
    policy.refuses(shown(EARLIER, OWNER, STRANGER))


@pytest.mark.parametrize("setting", ["owner_fingerprints", "voucher_fingerprints"])
@pytest.mark.parametrize("value", ["", "abc", "g" * 64, "a" * 63, "a" * 65])
def test_a_fingerprint_that_is_none_is_said(tmp_path: Path, setting: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=setting):
        Policy(tmp_path, **{setting: (value,)}).allows(shown(OWNER))


# --- roots


def with_roots(folder: Path, **settings: Any) -> Policy:
    path = folder / "owners.pem"
    path.write_bytes(pem([ROOT.certificate]))
    return Policy(folder, owner_anchor_file=path, **settings)


def test_an_owner_whose_certificates_lead_to_a_root_may(tmp_path: Path) -> None:
    policy, key = with_roots(tmp_path), OWNER.public_key()

    policy.allows(certified(ROOT.issue(key)))
    policy.allows(certified(MIDDLE.issue(key), MIDDLE.certificate))


def test_an_owner_whose_certificates_do_not_lead_to_a_root_may_not(tmp_path: Path) -> None:
    policy, key = with_roots(tmp_path), OWNER.public_key()
    same_name = HospitalCa("Owners' root")

    policy.refuses(shown(OWNER))
    policy.refuses(certified(MIDDLE.issue(key)))
    policy.refuses(certified(same_name.issue(key), same_name.certificate))
    policy.refuses(certified(ROOT.issue(key, begin=NOW - timedelta(days=9), end=NOW - timedelta(days=1))))
    # Below a certificate that is none of a CA.
    other = new_key()
    leaf = ROOT.issue(other.public_key(), subject=name(COMMON_NAME="A clinic"))
    own = HospitalCa("A clinic", key=other)
    policy.refuses(certified(own.issue(key), leaf))


def test_lists_and_roots_each_suffice(tmp_path: Path) -> None:
    policy = with_roots(tmp_path, owner_fingerprints=(fingerprint(STRANGER),))

    policy.allows(shown(STRANGER))
    policy.allows(certified(ROOT.issue(OWNER.public_key())))
    policy.refuses(shown(OWNER))


def test_a_clock_that_is_behind_refuses_no_owner(tmp_path: Path) -> None:
    """Nobody has set the clock of a scanner that comes from its factory."""
    policy = with_roots(tmp_path)
    policy.clock.moment = datetime(1970, 1, 1, tzinfo=UTC)

    policy.allows(certified(MIDDLE.issue(OWNER.public_key()), MIDDLE.certificate))


# --- a scanner that has an owner


def test_the_owner_comes_back_whatever_the_lists_say(tmp_path: Path) -> None:
    policy = Policy(tmp_path, owner_fingerprints=(fingerprint(STRANGER),), approval=ALWAYS)

    policy.allows(shown(EARLIER, OWNER), OWNED)
    policy.allows(shown(OWNER), OWNED)


def test_a_key_that_the_owner_named_for_the_next_time_needs_leave_like_any_other(tmp_path: Path) -> None:
    """Owner2Key: otherwise an owner on the list could pass the scanner on to one that is not."""
    owned = replace(NEW, owner=Owner(fingerprint(EARLIER), fingerprint(OWNER)))

    Policy(tmp_path, approval=NEVER).allows(shown(OWNER), owned)
    Policy(tmp_path, approval=NEVER, owner_fingerprints=(fingerprint(OWNER),)).allows(shown(OWNER), owned)
    Policy(tmp_path, owner_fingerprints=(fingerprint(EARLIER),)).refuses(shown(OWNER), owned)
    Policy(tmp_path, approval=ALWAYS).awaits(shown(OWNER), owned)
    Policy(tmp_path, approval=REOWNING).awaits(shown(OWNER), owned)


@pytest.mark.parametrize("owners", [(STRANGER,), (), (EARLIER,), (OWNER, STRANGER)], ids=len)
def test_another_owner_has_to_wait_until_it_is_released(tmp_path: Path, owners: tuple[Any, ...]) -> None:
    """Not even the owner before, with a shorter voucher, nor whom the owner has sold it to."""
    listed = tuple(fingerprint(key) for key in (STRANGER, EARLIER, MANUFACTURER))
    policy = Policy(tmp_path, approval=NEVER, owner_fingerprints=listed)

    assert "owner release" in policy.refuses(shown(*owners), OWNED).remedy
    policy.allows(shown(*owners), RELEASED)


# --- approval


@pytest.mark.parametrize(
    ("approval", "credential", "is_awaited"),
    [
        (NEVER, NEW, False),
        (NEVER, RELEASED, False),
        (REOWNING, NEW, False),
        (REOWNING, RELEASED, True),
        (ALWAYS, NEW, True),
        (ALWAYS, RELEASED, True),
    ],
)
def test_when_a_person_has_to_approve(
    tmp_path: Path, approval: FdoApproval, credential: DeviceCredential, *, is_awaited: bool
) -> None:
    policy = Policy(tmp_path, approval=approval)

    if is_awaited:
        awaited = policy.awaits(shown(OWNER), credential)
        assert fingerprint(OWNER) in awaited.what
        # Whoever types it has to read it somewhere else than here.
        assert fingerprint(OWNER) not in awaited.remedy
        assert "scanseal fdo approve FINGERPRINT" in awaited.remedy
    else:
        policy.allows(shown(OWNER), credential)
        assert policy.policy.candidates() == ()


def test_without_an_option_only_the_first_owner_needs_nobodys_leave(tmp_path: Path) -> None:
    """Who sold the scanner has its voucher still, and may be the first that answers."""
    policy = Policy(tmp_path)

    policy.allows(shown(OWNER), NEW)
    policy.awaits(shown(OWNER), RELEASED)


def test_a_name_that_is_too_long_is_shown_without_another_word(tmp_path: Path) -> None:
    """Commands say nothing on standard error but what somebody has to know; here a warning would be an error."""
    with pytest.warns(UserWarning, match="length"):
        long = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A clinic " * 9, _validate=False)])
    certificate = ROOT.issue(OWNER.public_key(), subject=long)
    encoded = x509.load_der_x509_certificate(certificate.public_bytes(Encoding.DER))

    assert "A clinic A clinic" in Policy(tmp_path, approval=ALWAYS).awaits(certified(encoded)).what


def test_who_is_on_no_list_is_not_put_before_a_person(tmp_path: Path) -> None:
    policy = Policy(tmp_path, approval=ALWAYS, owner_fingerprints=(fingerprint(STRANGER),))

    policy.refuses(shown(OWNER))
    assert policy.policy.candidates() == ()


@pytest.mark.parametrize("by", ["owner", "voucher"])
def test_an_owner_is_approved_by_its_fingerprint_or_that_of_its_voucher(tmp_path: Path, by: str) -> None:
    policy = Policy(tmp_path, approval=ALWAYS)
    chain = certified(ROOT.issue(OWNER.public_key(), subject=name(COMMON_NAME="Clinic")))
    policy.awaits(chain)
    policy.awaits(chain)

    approved = policy.policy.approve({"owner": chain.owner.fingerprint, "voucher": chain.fingerprint}[by].upper())

    assert approved.is_approved
    assert approved.name == "CN=Clinic"
    policy.allows(chain)
    policy.policy.forget()
    policy.awaits(chain)


@pytest.mark.parametrize(
    ("approved", "comes"),
    [
        ((EARLIER, OWNER), (STRANGER,)),
        ((EARLIER, OWNER), (EARLIER,)),
        ((EARLIER, OWNER), (OWNER,)),
        ((OWNER,), (EARLIER, OWNER)),
    ],
    ids=["another owner", "an earlier owner", "shorter voucher", "longer voucher"],
)
def test_an_approval_is_for_one_owner_by_one_voucher(
    tmp_path: Path, approved: tuple[Any, ...], comes: tuple[Any, ...]
) -> None:
    policy, chain = Policy(tmp_path, approval=ALWAYS), shown(*approved)
    policy.awaits(chain)
    policy.policy.approve(chain.owner.fingerprint)
    policy.allows(chain)

    policy.awaits(shown(*comes))
    policy.allows(chain)  # and that the other one asked has undone nothing


def test_an_approval_is_for_one_device(tmp_path: Path) -> None:
    """After a change of owner the header is another one, and so is the fingerprint of the voucher."""
    policy, chain = Policy(tmp_path, approval=ALWAYS), shown(OWNER)
    policy.awaits(chain)
    policy.policy.approve(chain.owner.fingerprint)

    policy.awaits(replace(chain, fingerprint="0" * 64))


def test_nobody_is_approved_who_does_not_wait(tmp_path: Path) -> None:
    policy = Policy(tmp_path, approval=ALWAYS)
    with pytest.raises(ConfigurationError, match="No owner waits"):
        policy.policy.approve(fingerprint(OWNER))
    policy.awaits(shown(OWNER))
    with pytest.raises(ConfigurationError, match="No owner that waits has"):
        policy.policy.approve(fingerprint(STRANGER))
    with pytest.raises(ConfigurationError, match="no SHA-256"):
        policy.policy.approve("yes")

    policy.awaits(shown(OWNER))


@pytest.mark.parametrize("content", ["", "{", '{"owner": "x"}', "[]"])
def test_a_damaged_approval_approves_nobody_and_is_asked_for_again(tmp_path: Path, content: str) -> None:
    policy, chain = Policy(tmp_path, approval=ALWAYS), shown(OWNER)
    policy.awaits(chain)
    policy.policy.approve(chain.owner.fingerprint)
    (tmp_path / "fdo" / "approval.json").write_text(content)
    with pytest.raises(StateError):
        policy.policy.candidates()

    policy.awaits(chain)
    (waiting,) = policy.policy.candidates()
    assert not waiting.is_approved


# --- several owners wait


def test_an_owner_that_waits_does_not_displace_another_one(tmp_path: Path) -> None:
    """Who sold the scanner answers too, each time, and before the one that bought it."""
    policy, seller, buyer = Policy(tmp_path), shown(EARLIER), shown(EARLIER, OWNER)
    for chain in (seller, buyer, seller):
        policy.awaits(chain, RELEASED)
    assert {each.voucher for each in policy.policy.candidates()} == {seller.fingerprint, buyer.fingerprint}

    policy.policy.approve(buyer.owner.fingerprint)
    policy.awaits(seller, RELEASED)
    policy.allows(buyer, RELEASED)


def test_no_more_than_four_owners_wait_and_an_approved_one_is_never_the_one_that_goes(tmp_path: Path) -> None:
    policy, chains = Policy(tmp_path, approval=ALWAYS), [shown(new_key()) for _ in range(6)]
    policy.awaits(chains[0])
    policy.policy.approve(chains[0].fingerprint)
    for chain in chains[1:]:
        policy.awaits(chain)

    kept = [each.voucher for each in policy.policy.candidates()]
    assert kept == [chains[number].fingerprint for number in (0, 3, 4, 5)]
    policy.allows(chains[0])


def test_an_owner_with_many_vouchers_waits_once_and_displaces_nobody(tmp_path: Path) -> None:
    """Who sold the scanner can make its copy of the voucher out to itself as often as it likes."""
    policy, buyer = Policy(tmp_path), shown(EARLIER, OWNER)
    policy.awaits(buyer, RELEASED)
    copies = [shown(EARLIER, *[EARLIER] * more) for more in range(6)]
    for chain in copies:
        policy.awaits(chain, RELEASED)

    assert [each.voucher for each in policy.policy.candidates()] == [buyer.fingerprint, copies[-1].fingerprint]


def test_who_asks_again_is_among_the_last(tmp_path: Path) -> None:
    """Others that come with another key each time do not displace an owner that goes on to ask."""
    policy, buyer = Policy(tmp_path), shown(OWNER)
    for _ in range(6):
        policy.awaits(buyer, RELEASED)
        policy.awaits(shown(new_key()), RELEASED)

        assert buyer.fingerprint in {each.voucher for each in policy.policy.candidates()}


def test_one_approval_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    policy, one, other = Policy(tmp_path, approval=ALWAYS), shown(OWNER), shown(STRANGER)
    policy.awaits(one)
    policy.awaits(other)
    policy.policy.approve(one.fingerprint)
    policy.policy.approve(other.fingerprint)

    assert [each.voucher for each in policy.policy.candidates() if each.is_approved] == [other.fingerprint]
    policy.awaits(one)


def test_an_approval_is_taken_back(tmp_path: Path) -> None:
    policy, chain = Policy(tmp_path, approval=ALWAYS), shown(OWNER)
    policy.policy.take_back()
    assert policy.policy.candidates() == ()
    policy.awaits(chain)
    policy.policy.approve(chain.fingerprint)
    policy.policy.take_back()

    policy.awaits(chain)
    assert [each.is_approved for each in policy.policy.candidates()] == [False]


def test_an_owner_of_a_very_long_name_does_not_hide_who_else_waits(tmp_path: Path) -> None:
    policy = Policy(tmp_path, approval=ALWAYS)
    for _ in range(4):
        parts = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "A clinic" * 8) for _ in range(200)]
        policy.awaits(certified(ROOT.issue(new_key().public_key(), subject=x509.Name(parts))))

    assert len(policy.policy.candidates()) == 4
