"""An ownership voucher holds, or one rule says why not: FDO 1.1, 3.4 "Ownership Voucher"."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from enroll.fdo import cbor
from enroll.fdo.cose import sign1
from enroll.fdo.fault import ErrorCode, Fault
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.public_key import FdoPublicKey, KeyEncoding, KeyType, SignatureType
from enroll.fdo.voucher import (
    DEVICE_INFO_LIMIT,
    ENTRIES_LIMIT,
    FILE_LIMIT,
    OwnerChain,
    Voucher,
    VoucherEntry,
    VoucherHeader,
)
from tests.support.fdo.vouchers import (
    DEVICE_INFO,
    EVERY_KIND,
    GUID,
    KINDS,
    RENDEZVOUS,
    Party,
    chain_hash,
    device,
    factory_voucher,
    header,
    hmac_of,
    key_of,
    party,
    payload,
    sign_entry,
    voucher_with,
)

MAKER, FIRST, SECOND = party("Maker", "P-256", 0), party("First", "P-256", 1), party("Second", "P-256", 2)
NEW = factory_voucher(MAKER)
SOLD = NEW.extend(MAKER.key, FIRST.public()).extend(FIRST.key, SECOND.public())
Parts = list[cbor.Encodable]


def parts(voucher: Voucher) -> Parts:
    """The five parts of a voucher, encoded."""
    return [cbor.Raw(part.raw) for part in cbor.read(voucher.raw).array(5)]


def header_parts(voucher: Voucher) -> Parts:
    """The six parts of its header, encoded."""
    return [cbor.Raw(part.raw) for part in cbor.read(voucher.header.raw).array(6)]


def changed(number: int, value: cbor.Encodable, voucher: Voucher = SOLD) -> bytes:
    """A voucher with another value for one of its parts."""
    changed_parts = parts(voucher)
    changed_parts[number] = value
    return cbor.encode(changed_parts)


def with_header(number: int, value: cbor.Encodable, voucher: Voucher = NEW) -> bytes:
    """A voucher with another value for one of the parts of its header."""
    changed_parts = header_parts(voucher)
    changed_parts[number] = value
    return changed(1, cbor.encode(changed_parts), voucher)


def with_entries(*entries: VoucherEntry, voucher: Voucher = NEW) -> Voucher:
    return Voucher.make(voucher.header, voucher.hmac, voucher.device_chain, entries)


def begun(voucher: Voucher = NEW) -> OwnerChain:
    return OwnerChain.begin(voucher.header, voucher.hmac)


def refused(voucher: Voucher, why: str) -> None:
    """That a voucher does not hold, and that the other side would hear that it is the voucher."""
    with pytest.raises(Fault, match=why) as fault:
        voucher.verify()
    assert fault.value.code is ErrorCode.INVALID_VOUCHER


# What holds.


@pytest.mark.parametrize("count", [0, 1, 10, ENTRIES_LIMIT])
@pytest.mark.parametrize(("kind", "encoding"), EVERY_KIND, ids=str)
def test_vouchers_of_every_kind_and_length_hold_in_pem_and_in_cbor(
    kind: str, encoding: KeyEncoding, count: int
) -> None:
    voucher, last = voucher_with(count, kind, encoding)
    assert Voucher.read(voucher.raw) == Voucher.read(voucher.pem) == voucher
    chain = Voucher.read(voucher.pem).verify()
    assert len(chain.owners) == count + 1
    assert chain.owner == last.public(encoding, KINDS[kind])
    assert {owner.encoding for owner in chain.owners} == {encoding}


@pytest.mark.parametrize(("kind", "encoding"), EVERY_KIND, ids=str)
def test_a_voucher_is_extended_in_every_kind_of_key(kind: str, encoding: KeyEncoding) -> None:
    voucher, owner = voucher_with(1, kind, encoding)
    following = party("Next", kind, 2)
    given = following.chain if encoding is KeyEncoding.X5CHAIN else following.key.public_key()
    extended = voucher.extend(owner.key, voucher.name_owner(given))
    assert extended.verify().owner == following.public(encoding, KINDS[kind])
    assert extended.entries[:-1] == voucher.entries


@pytest.mark.parametrize("kind", [KeyType.RSA_2048_RESTRICTED, KeyType.RSA_PKCS, KeyType.RSA_PSS])
def test_the_type_of_an_rsa_key_goes_from_the_manufacturer_to_all_owners(kind: KeyType) -> None:
    """FDO 1.1, 3.4: each key copies the type of OVPubKey; it says how the next owner signs (PKCS#1 v1.5 or PSS)."""
    maker, owner = party("Maker", "RSA-2048", 0), party("Owner", "RSA-2048", 1)
    voucher = factory_voucher(maker, kind=kind)
    sold = voucher.extend(maker.key, voucher.name_owner(owner.key.public_key()))
    again = sold.extend(owner.key, sold.name_owner(maker.key.public_key()))
    assert [entry.owner.kind for entry in again.entries] == [kind, kind]
    expected = SignatureType.PS256 if kind is KeyType.RSA_PSS else SignatureType.RS256
    assert {entry.signed.algorithm for entry in again.entries} == {expected}


def test_the_hashes_of_entries_may_have_another_strength_than_the_hmac() -> None:
    """FDO 1.1, 3.3.1. Implementations disagree on keys of mixed strength; the first entry says what holds for all."""
    maker, owner = party("Maker", "P-384", 0), party("Owner", "P-384", 1)
    voucher = factory_voucher(maker)
    assert voucher.hmac.algorithm is HashAlgorithm.HMAC_SHA384
    said = payload(begun(voucher), owner.public(), HashAlgorithm.SHA256)
    sold = with_entries(sign_entry(maker.key, KeyType.SECP384R1, said), voucher=voucher)
    chain = sold.verify()
    assert chain.algorithm is HashAlgorithm.SHA256
    assert sold.extend(owner.key, maker.public()).entries[-1].previous.algorithm is HashAlgorithm.SHA256


def test_the_hashes_of_all_entries_have_the_same_strength() -> None:
    said = payload(SOLD.verify(), MAKER.public(), HashAlgorithm.SHA384)
    entry = sign_entry(SECOND.key, KeyType.SECP256R1, said)
    refused(with_entries(*SOLD.entries, entry), "Entry 2 .* not over what stands before it")


def test_a_device_may_have_no_certificates() -> None:
    """FDO 1.1, 3.4.3: null, and then there is no hash of them in the header either."""
    voucher = Voucher.make(header(MAKER.public()), hmac_of(HashAlgorithm.SHA256), ())
    assert Voucher.read(voucher.pem).device_chain == ()
    voucher.verify()


@pytest.mark.parametrize("extra", [None, cbor.encode({}), cbor.encode({1: b"a"}), cbor.encode({-5: b"b", 256: b""})])
def test_what_supply_chains_add_to_an_entry_is_signed_and_means_nothing_here(extra: cbor.Encodable) -> None:
    """FDO 1.1, 3.4.4: OVEExtra is null or a map in a byte string."""
    said = payload(begun(), FIRST.public())
    said[2] = extra
    with_entries(sign_entry(MAKER.key, KeyType.SECP256R1, said)).verify()


def test_the_fingerprint_is_of_header_hmac_and_entries() -> None:
    fingerprints = [NEW.verify().fingerprint, NEW.extend(MAKER.key, FIRST.public()).verify().fingerprint]
    assert len({*fingerprints, SOLD.verify().fingerprint}) == 3
    assert Voucher.read(SOLD.pem).verify().fingerprint == SOLD.verify().fingerprint


# How it is written.


def test_pem_is_armoured_as_in_rfc_7468() -> None:
    lines = SOLD.pem.decode("ascii").splitlines()
    assert (lines[0], lines[-1]) == ("-----BEGIN OWNERSHIP VOUCHER-----", "-----END OWNERSHIP VOUCHER-----")
    assert {len(line) for line in lines[1:-2]} == {64}


def test_the_device_key_that_a_test_tool_appends_is_passed_over() -> None:
    key = device().key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert Voucher.read(SOLD.pem + key) == Voucher.read(key + SOLD.pem) == SOLD


@pytest.mark.parametrize("change", [lambda pem: pem.replace(b"\n", b"\r\n"), lambda pem: b"Voucher of CT 1\n\n" + pem])
def test_pem_may_have_other_line_ends_and_a_text_before_it(change: Callable[[bytes], bytes]) -> None:
    assert Voucher.read(change(SOLD.pem)) == SOLD


def test_cbor_is_not_taken_for_pem_whatever_its_texts_say() -> None:
    voucher = factory_voucher(device_info="-----BEGIN OWNERSHIP VOUCHER-----")
    assert Voucher.read(voucher.raw) == Voucher.read(voucher.pem) == voucher


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x85",
        b"not a voucher",
        SOLD.raw + b"\0",
        SOLD.raw[:-1],
        SOLD.pem + SOLD.pem,
        SOLD.pem.replace(b"END OWNERSHIP", b"END OTHER"),
        SOLD.pem.replace(b"OWNERSHIP VOUCHER", b"CERTIFICATE"),
        b"-----BEGIN OWNERSHIP VOUCHER-----\n-----END OWNERSHIP VOUCHER-----",
        b"-----BEGIN OWNERSHIP VOUCHER-----\nAAA\n-----END OWNERSHIP VOUCHER-----",
        b"-----BEGIN OWNERSHIP VOUCHER-----\n" * 5000,
        b"-----BEGIN OWNERSHIP VOUCHER-----\n"
        + base64.b64encode(SOLD.raw + b"\0")
        + b"-----END OWNERSHIP VOUCHER-----",
        SOLD.pem.replace(b"VOUCHER-----\nhRhl", b"VOUCHER-----\nhRhl="),
        SOLD.pem + bytes(FILE_LIMIT),
        bytes(FILE_LIMIT + 1),
    ],
    ids=range(15),
)
def test_what_is_no_voucher_is_refused(data: bytes) -> None:
    with pytest.raises(Fault):
        Voucher.read(data)


@pytest.mark.parametrize(
    "data",
    [
        changed(0, 100),
        changed(0, 200),
        changed(0, "101"),
        changed(1, cbor.Raw(SOLD.header.raw)),  # not in a byte string
        changed(1, SOLD.header.raw + b"\0"),
        changed(2, None),
        changed(2, b"hmac"),
        changed(2, [5, bytes(31)]),
        changed(2, [6, bytes(32)]),
        changed(2, [7, bytes(32)]),
        changed(2, [-16, bytes(32)]),  # a hash, which anybody can make, is no HMAC
        changed(3, []),
        changed(3, [b"certificate"]),
        changed(3, [device().chain[0].public_bytes(serialization.Encoding.DER)] * 9),
        changed(4, None),
        changed(4, {}),
        changed(4, [b"entry"]),
        changed(4, [cbor.Raw(SOLD.entries[0].signed.raw[1:])]),  # without its tag
        cbor.encode(parts(SOLD)[:4]),
        cbor.encode([*parts(SOLD), None]),
        with_header(0, 102),
        with_header(1, GUID[:15]),
        with_header(1, GUID.hex()),
        with_header(3, "x" * (DEVICE_INFO_LIMIT + 1)),
        with_header(3, b"CT"),
        with_header(4, None),
        with_header(4, [10, 0, b""]),
        with_header(5, [5, bytes(32)]),  # an HMAC, which nobody could verify
        with_header(5, b"hash"),
    ],
    ids=range(29),
)
def test_what_is_not_built_as_a_voucher_is_none(data: bytes) -> None:
    """FDO 1.1, 3.4.1 and 3.4.2."""
    with pytest.raises(Fault):
        Voucher.read(data)


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (0, b"hash"),
        (0, [-16, bytes(31)]),
        (0, [5, bytes(32)]),
        (1, [6, bytes(48)]),
        (1, None),
        (2, {}),
        (2, b""),
        (2, cbor.encode([])),
        (2, cbor.encode({}) + b"\0"),
        (3, None),
        (3, [10, 1, b"key"]),
        (3, [11, 1, b""]),
    ],
    ids=str,
)
def test_an_entry_of_which_a_part_is_something_else_is_none(number: int, value: cbor.Encodable) -> None:
    """FDO 1.1, 3.4.4."""
    said = payload(begun(), FIRST.public())
    said[number] = value
    with pytest.raises(Fault):
        sign_entry(MAKER.key, KeyType.SECP256R1, said)


def test_an_entry_has_four_parts() -> None:
    said = payload(begun(), FIRST.public())
    for wrong in (said[:3], [*said, None]):
        with pytest.raises(Fault):
            sign_entry(MAKER.key, KeyType.SECP256R1, wrong)


def test_a_voucher_has_at_most_255_entries() -> None:
    """A device counts them in a byte: TO2.GetOVNextEntry, FDO 1.1, 5.5.4."""
    full, owner = voucher_with(ENTRIES_LIMIT)
    for key in (owner.key, key_of("P-384")):  # whose key it is does not matter any more
        with pytest.raises(Fault, match="255 entries"):
            full.extend(key, MAKER.public())
    entries = [cbor.Raw(entry.signed.raw) for entry in (*full.entries, full.entries[-1])]
    with pytest.raises(Fault, match="255 entries"):
        Voucher.read(changed(4, entries, full))
    with pytest.raises(Fault, match="255 entries"):
        full.verify().extended(full.entries[-1])


# What does not hold.


def test_the_first_entry_is_signed_by_the_manufacturer() -> None:
    """FDO 1.1, 3.4.6."""
    entry = sign_entry(FIRST.key, KeyType.SECP256R1, payload(begun(), FIRST.public()))
    refused(with_entries(entry), "Entry 0 .* not signed by the owner before")


def test_every_other_entry_is_signed_by_the_owner_before() -> None:
    chain = begun().extended(SOLD.entries[0])
    for signer in (MAKER, SECOND):
        entry = sign_entry(signer.key, KeyType.SECP256R1, payload(chain, SECOND.public()))
        refused(with_entries(SOLD.entries[0], entry), "Entry 1 .* not signed by the owner before")


def test_a_signature_is_of_the_algorithm_of_the_key() -> None:
    """FDO 1.1, 3.3.5; a signature that says something else is not looked at."""
    said = cbor.encode(payload(begun(), FIRST.public()))
    signed = cbor.read(sign1(MAKER.key, SignatureType.ES256, said)).tagged(18).array(4)
    other = cbor.encode({1: SignatureType.ES384})
    raw = cbor.encode(cbor.Tagged(18, [other, {}, said, signed[3].bytes()]))
    refused(with_entries(VoucherEntry.read(cbor.read(raw))), "not signed")


def test_the_first_entry_holds_the_hash_of_header_and_hmac() -> None:
    """FDO 1.1, 3.4.6: H(OVHeader || HMac)."""
    other = replace(NEW, hmac=Hash(HashAlgorithm.HMAC_SHA256, bytes(31) + b"\1"))
    refused(with_entries(*SOLD.entries, voucher=other), "Entry 0 .* not over what stands before it")
    elsewhere = factory_voucher(MAKER, rendezvous=cbor.Raw(cbor.encode([])))
    refused(with_entries(*SOLD.entries, voucher=elsewhere), "Entry 0 .* not over what stands before it")


def test_every_other_entry_holds_the_hash_of_the_whole_entry_before_with_its_tag() -> None:
    """FDO 1.1, 3.4.6; of an entry without its tag, or of its payload alone, it is another one."""
    chain = begun().extended(SOLD.entries[0])
    for last in (chain.last[1:], SOLD.entries[0].signed.payload.raw, chain.last + b"\0"):
        said = payload(replace(chain, last=last), SECOND.public())
        entry = sign_entry(FIRST.key, KeyType.SECP256R1, said)
        refused(with_entries(SOLD.entries[0], entry), "Entry 1 .* not over what stands before it")


def test_every_entry_is_about_the_device() -> None:
    """FDO 1.1, 3.4.4: OVEHashHdrInfo is H(GUID || DeviceInfo)."""
    said = payload(begun(), FIRST.public())
    said[1] = cbor.Raw(Hash.of(HashAlgorithm.SHA256, GUID + b"another").raw)
    refused(with_entries(sign_entry(MAKER.key, KeyType.SECP256R1, said)), "Entry 0 .* another device")


@pytest.mark.parametrize("order", [(1, 0), (1,), (0, 0), (0, 1, 1), (0, 1, 0)])
def test_no_entry_is_missing_twice_there_or_at_another_place(order: Sequence[int]) -> None:
    refused(with_entries(*(SOLD.entries[number] for number in order)), "Entry")


def test_a_last_entry_that_is_taken_away_leaves_a_voucher_of_the_owner_before() -> None:
    """Nothing in a voucher says how long it is: FDO 1.1 leaves that to the message in which its owner sends it."""
    assert with_entries(SOLD.entries[0]).verify().owner == FIRST.public()


@pytest.mark.parametrize(
    ("maker_type", "owner"),
    [
        (KeyType.SECP256R1, party("Owner", "P-384").public()),
        (KeyType.SECP256R1, party("Owner", "RSA-2048").public()),
        (KeyType.RSA_PKCS, party("Owner", "RSA-2048", 1).public(kind=KeyType.RSA_PSS)),
        (KeyType.RSA_PKCS, party("Owner", "RSA-2048", 1).public(kind=KeyType.RSA_2048_RESTRICTED)),
        (KeyType.RSA_PKCS, party("Owner", "RSA-3072").public(kind=KeyType.RSA_PKCS)),
    ],
    ids=range(5),
)
def test_all_keys_are_of_the_kind_of_the_manufacturers(maker_type: KeyType, owner: FdoPublicKey) -> None:
    """FDO 1.1, 3.4: the same type and size, so that a device of little means can verify all of them."""
    maker = MAKER if maker_type is KeyType.SECP256R1 else party("Maker", "RSA-2048")
    voucher = factory_voucher(maker, kind=maker_type)
    entry = sign_entry(maker.key, maker_type, payload(begun(voucher), owner))
    refused(with_entries(entry, voucher=voucher), "Entry 0 .* another kind than the manufacturer's")
    with pytest.raises(Fault, match="same kind"):
        voucher.extend(maker.key, owner)


def test_owners_may_be_written_in_another_encoding_than_the_manufacturer() -> None:
    """FDO 1.1, 3.4 wants the same; go-fdo names an owner by its certificates whatever the manufacturer does."""
    sold = NEW.extend(MAKER.key, FIRST.public(KeyEncoding.X5CHAIN)).extend(
        FIRST.key, SECOND.public(KeyEncoding.COSEKEY)
    )
    assert sold.verify().owner.is_same_key(SECOND.public())


def test_the_certificates_of_the_device_are_those_of_the_header() -> None:
    """FDO 1.1, 3.4.3: their hash, or null where there are none."""
    certificates = device().chain
    for wrong in (certificates[:1], certificates[::-1], (), (*certificates, MAKER.anchor)):
        refused(Voucher.make(NEW.header, NEW.hmac, wrong), "certificates of the device")
    refused(Voucher.make(header(MAKER.public()), NEW.hmac, certificates), "certificates of the device")


def _with_byte(encoded: bytes, before: bytes, value: int) -> bytes:
    """A certificate with another byte behind the first place of `before`."""
    place = encoded.index(before) + len(before)
    return encoded[:place] + bytes([value]) + encoded[place + 1 :]


@pytest.mark.parametrize(
    ("before", "value"),
    [(b"\xa0\x03\x02\x01\x02\x02\x14", 0x80), (b"\x55\x04\x03\x0c\x06", 0xFF)],
    ids=["negative serial number", "name that is not UTF-8"],
)
def test_a_certificate_that_cannot_be_read_to_its_end_is_refused_at_once(before: bytes, value: int) -> None:
    """Later, where somebody looks at its name or number, nobody would expect that."""
    good = party("Worker", "P-256", 7).chain[0].public_bytes(serialization.Encoding.DER)
    Voucher.read(changed(3, [good]))
    with pytest.raises(Fault, match="certificate"):
        Voucher.read(changed(3, [_with_byte(good, before, value)]))


@pytest.mark.parametrize("algorithm", [HashAlgorithm.SHA256, HashAlgorithm.SHA384])
def test_the_certificates_may_be_hashed_in_either_strength(algorithm: HashAlgorithm) -> None:
    certificates = device().chain
    Voucher.make(header(MAKER.public(), chain_hash(certificates, algorithm)), NEW.hmac, certificates).verify()


# Who may extend it, and to whom.


@pytest.mark.parametrize("key", [MAKER.key, FIRST.key, key_of("P-384"), key_of("RSA-2048")], ids=range(4))
def test_nobody_but_its_last_owner_extends_a_voucher(key: object) -> None:
    with pytest.raises(Fault, match="not the key of the last owner"):
        SOLD.extend(key, FIRST.public())  # type: ignore[arg-type]


def test_a_voucher_that_does_not_hold_is_not_extended() -> None:
    with pytest.raises(Fault, match="Entry 0"):
        with_entries(SOLD.entries[1]).extend(SECOND.key, FIRST.public())


def test_an_owner_may_extend_to_itself() -> None:
    assert SOLD.extend(SECOND.key, SECOND.public()).verify().owner == SECOND.public()


def test_the_next_owner_is_named_as_the_manufacturer_is() -> None:
    """FDO 1.1, 3.4: "must copy the public key type ... and encoding"."""
    for encoding in (KeyEncoding.X509, KeyEncoding.COSEKEY):
        voucher = factory_voucher(MAKER, encoding)
        for given in (FIRST.key.public_key(), FIRST.chain):
            assert voucher.name_owner(given) == FIRST.public(encoding)
    by_chain = factory_voucher(MAKER, KeyEncoding.X5CHAIN)
    assert by_chain.name_owner(FIRST.chain) == FIRST.public(KeyEncoding.X5CHAIN)
    with pytest.raises(Fault, match="by their certificates"):
        by_chain.name_owner(FIRST.key.public_key())


@pytest.mark.parametrize("other", [party("Owner", "P-384"), party("Owner", "RSA-2048")], ids=["P-384", "RSA"])
def test_a_next_owner_of_another_kind_of_key_is_not_named(other: Party) -> None:
    with pytest.raises(Fault, match="same kind"):
        NEW.name_owner(other.key.public_key())


@pytest.mark.parametrize("curve", [ec.BrainpoolP256R1(), ec.SECP256K1()], ids=lambda curve: str(curve.name))
def test_a_next_owner_of_another_curve_of_the_same_size_is_not_named(curve: ec.EllipticCurve) -> None:
    with pytest.raises(Fault, match="same kind"):
        NEW.name_owner(ec.generate_private_key(curve).public_key())


def test_the_rendezvous_information_is_kept_byte_for_byte() -> None:
    """It is hashed; even what nobody understands must not be encoded again."""
    strange = cbor.Raw(bytes.fromhex("81828218ff4101811863"))
    made = VoucherHeader.make(GUID, strange, DEVICE_INFO, MAKER.public(), None)
    assert VoucherHeader.read(cbor.read(made.raw)) == made
    assert NEW.header.rendezvous == RENDEZVOUS
