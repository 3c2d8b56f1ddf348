"""Vouchers, changed anywhere: what still holds proves the same, and a second verifier says so too (FDO 1.1, 3.4)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from enroll.fdo import cbor
from enroll.fdo.fault import Fault
from enroll.fdo.public_key import KeyEncoding
from enroll.fdo.voucher import OwnerChain, Voucher, VoucherEntry
from tests.support.byte_mutation import mutations
from tests.support.fdo.reference_voucher import DoesNotHoldError, Owned, verified
from tests.support.fdo.vouchers import ENCODINGS, EVERY_KIND, KINDS, factory_voucher, parties, voucher_with

SAMPLES = [(kind, encoding) for kind, encoding in EVERY_KIND if kind in {"P-256", "RSA-2048"}]


def owned(data: bytes) -> Owned | None:
    """What the product says that a voucher proves; None where it proves nothing."""
    try:
        chain = Voucher.read(data).verify()
    except Fault:
        return None
    return Owned(tuple(owner.fingerprint for owner in chain.owners), chain.fingerprint)


def by_reference(data: bytes) -> Owned | None:
    """What the second verifier says."""
    try:
        return verified(data)
    except DoesNotHoldError:
        return None


def proved(voucher: Owned | None) -> tuple[str, ...] | None:
    """Which owners, in whichever voucher."""
    return None if voucher is None else voucher.owners


@pytest.mark.parametrize(("kind", "encoding"), EVERY_KIND, ids=str)
@pytest.mark.parametrize("count", [0, 1, 10])
def test_both_verifiers_find_the_same_owners(kind: str, encoding: KeyEncoding, count: int) -> None:
    voucher, last = voucher_with(count, kind, encoding)
    found = owned(voucher.pem)
    assert found is not None
    assert found == by_reference(voucher.pem) == by_reference(voucher.raw)
    assert found.owners[-1] == last.public().fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_extended_again_and_again_holds_and_every_owner_is_found(kind: str) -> None:
    """In encodings that take turns, as far as there are any."""
    line = parties(kind)
    owner = next(line)
    voucher = factory_voucher(owner, kind=KINDS[kind])
    expected, encodings = [owner.public().fingerprint], ENCODINGS[kind]
    for number in range(8):
        following = next(line)
        written = following.public(encodings[number % len(encodings)], KINDS[kind])
        voucher, owner = voucher.extend(owner.key, written), following
        expected.append(following.public().fingerprint)
        found = owned(voucher.pem)
        assert found == by_reference(voucher.pem)
        assert found is not None
        assert list(found.owners) == expected


def test_a_voucher_with_a_bit_changed_anywhere_proves_nothing() -> None:
    """Where it has an entry; the header and the HMAC of one without are for the device alone to check."""
    voucher, _ = voucher_with(2)
    for position in range(len(voucher.raw)):
        for bit in (0x01, 0x80):
            changed = bytearray(voucher.raw)
            changed[position] ^= bit
            assert owned(bytes(changed)) is by_reference(bytes(changed)) is None, position


def test_a_letter_changed_anywhere_in_pem_is_refused_or_changes_nothing() -> None:
    voucher, _ = voucher_with(1)
    before = owned(voucher.pem)
    chance = random.Random(6)  # noqa: S311 - not for secrets
    for position in range(0, len(voucher.pem), 3):
        changed = bytearray(voucher.pem)
        changed[position] = chance.randrange(256)
        found = owned(bytes(changed))
        assert found == by_reference(bytes(changed)), position
        assert found in (None, before)


@pytest.mark.parametrize(("kind", "encoding"), SAMPLES, ids=str)
def test_both_verifiers_agree_on_whatever_bytes_do(kind: str, encoding: KeyEncoding) -> None:
    voucher, _ = voucher_with(2, kind, encoding)
    before, seed = owned(voucher.raw), EVERY_KIND.index((kind, encoding))
    for number, mutate in enumerate(mutations(400, seed)):
        changed = mutate(voucher.raw)
        found = owned(changed)
        assert found == by_reference(changed), number
        assert found is None or proved(found) == proved(before), number


def test_both_verifiers_agree_on_whatever_happens_to_parts() -> None:
    """Parts that are missing, twice there, exchanged, or those of another voucher."""
    one, _ = voucher_with(3)
    other, _ = voucher_with(3, "P-256", KeyEncoding.COSEKEY)
    verdicts = []
    for changed in _rebuilt(one, other):
        found = owned(changed)
        assert found == by_reference(changed)
        verdicts.append(found is not None)
    assert len(verdicts) > 300
    assert any(verdicts)
    assert not all(verdicts)


def _rebuilt(one: Voucher, other: Voucher) -> Iterator[bytes]:
    chance = random.Random(7)  # noqa: S311 - not for secrets
    for _ in range(400):
        parts = [chance.choice([one, one, one, one, other]) for _ in range(4)]
        entries: list[VoucherEntry] = list(parts[3].entries)
        for _ in range(chance.randrange(3)):
            action, place = chance.randrange(4), chance.randrange(len(entries) + 1)
            if action == 0:
                del entries[place:]
            elif action == 1 and entries:
                entries.insert(place, chance.choice(entries))
            elif action == 2:
                entries.insert(place, chance.choice(other.entries))
            else:
                chance.shuffle(entries)
        chain = parts[2].device_chain[: chance.choice([2, 2, 2, 1, 0])]
        yield Voucher.make(parts[0].header, parts[1].hmac, chain, entries).raw


def test_the_other_signature_of_the_same_numbers_is_another_voucher() -> None:
    """ECDSA lets anybody turn (r, s) into (r, n - s): owners stay the same, the fingerprint does not."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    voucher, _ = voucher_with(1)
    protected, _, said, signature = cbor.read(voucher.entries[0].signed.raw).tagged(18).array(4)
    r, s = (int.from_bytes(part, "big") for part in (signature.bytes()[:32], signature.bytes()[32:]))
    turned = r.to_bytes(32, "big") + (order - s).to_bytes(32, "big")
    raw = cbor.encode(cbor.Tagged(18, [protected.bytes(), {}, said.bytes(), turned]))
    chain = OwnerChain.begin(voucher.header, voucher.hmac).extended(VoucherEntry.read(cbor.read(raw)))
    assert chain.owners == voucher.verify().owners
    assert chain.fingerprint != voucher.verify().fingerprint
