"""What a right time stamp token proves (RFC 3161), and how tokens get into an instance (PS3.3 C.12.1.1.3)."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from agent.dicom.signature_items import CERTIFIED_TIMESTAMP, CERTIFIED_TIMESTAMP_TYPE
from agent.dicom.splice import spliced
from agent.dicom.stamping import StampableInstance
from agent.dicom.timestamp import TimeStamp, verify_time_stamp
from agent.errors import DicomError
from enroll.errors import TimeStampError
from enroll.time_stamp_authority import new_query
from tests.support.certificates import Authority, Signer, rsa_key
from tests.support.dicom_samples import TRANSFER_SYNTAX_SAMPLES, ct_slice, raw_instance, sample, small_instance
from tests.support.dicom_tree import (
    DEFLATED_EXPLICIT_LITTLE_ENDIAN,
    DIGITAL_SIGNATURES,
    Elements,
    find,
    parse,
    value,
    without,
)
from tests.support.pki import NOW, HospitalCa
from tests.support.product_signing import plan, sign, sign_bytes
from tests.support.time_stamp_authority import POLICY, Tsa, TsaContent, new_tsa
from tests.support.time_stamp_tokens import Recipe, integer, sequence, token

SIGNATURE = b"the value of a signature"
CA = HospitalCa()
TSA = new_tsa(CA)
ACCURACY = sequence(integer(2), b"\x80\x02\x01\xf4")


def stamp(tsa: Tsa = TSA, at: datetime = NOW, recipe: Recipe | None = None, now: datetime = NOW) -> TimeStamp:
    return verify_time_stamp(token(tsa, SIGNATURE, at, recipe), SIGNATURE, [tsa.anchor], now)


def test_a_token_tells_when_and_by_whom_under_which_policy() -> None:
    found = stamp()

    assert (found.time, found.accuracy, found.policy) == (NOW, None, POLICY)
    assert found.authority == TSA.certificate
    assert found.path == (TSA.certificate, CA.certificate)


def test_accuracy_makes_the_proven_time_later() -> None:
    found = stamp(recipe=Recipe(accuracy=ACCURACY))

    assert found.accuracy == timedelta(seconds=2, milliseconds=500)
    assert found.latest == NOW + timedelta(seconds=2, milliseconds=500)


def test_fractions_of_a_second_are_kept() -> None:
    moment = NOW - timedelta(microseconds=1_500)

    assert stamp(at=moment).time == moment


@pytest.mark.parametrize("hash_name", ["sha256", "sha384", "sha512"])
def test_the_hashes_of_sha_2_are_accepted_everywhere(hash_name: str) -> None:
    recipe = Recipe(imprint_hash=hash_name, digest=hash_name, certificate_id=hash_name)

    assert stamp(recipe=recipe).time == NOW
    assert stamp(new_tsa(CA, rsa_key(2048)), recipe=recipe).time == NOW


def test_the_certificate_may_be_bound_by_the_older_attribute() -> None:
    """RFC 5816 leaves ESSCertID, whose hash is SHA-1, in use."""
    assert stamp(recipe=Recipe(certificate_id="sha1")).time == NOW


def test_the_signer_may_be_named_by_the_identifier_of_its_key() -> None:
    assert stamp(recipe=Recipe(by_key_identifier=True)).time == NOW


def test_a_token_outlives_the_certificate_of_its_authority() -> None:
    short = new_tsa(CA, content=TsaContent(begin=NOW - timedelta(days=1), end=NOW + timedelta(days=1)))

    assert stamp(short, now=NOW + timedelta(days=20 * 365)).time == NOW


def test_an_authority_below_an_intermediate_ca_brings_its_certificate_along() -> None:
    issuing = HospitalCa("Issuing CA", parent=CA)
    below = new_tsa(issuing, chain=(issuing.certificate,), anchor=CA.certificate)

    assert stamp(below).path == (below.certificate, issuing.certificate, CA.certificate)


def test_certificates_that_are_not_in_the_token_may_be_given() -> None:
    """`certReq` of the query may have been false (RFC 3161 2.4.1)."""
    issuing = HospitalCa("Issuing CA", parent=CA)
    below = new_tsa(issuing, anchor=CA.certificate)
    bare = token(below, SIGNATURE, NOW, Recipe(certificates=()))
    given = (issuing.certificate, below.certificate)

    assert verify_time_stamp(bare, SIGNATURE, [CA.certificate], NOW, given).authority == below.certificate


def test_an_issuing_ca_may_be_the_anchor() -> None:
    issuing = HospitalCa("Issuing CA", parent=CA)

    assert stamp(new_tsa(issuing)).path[-1] == issuing.certificate


def test_a_certificate_that_cannot_be_read_helps_nobody_and_harms_nobody() -> None:
    class Unreadable:
        def public_bytes(self, _: object) -> bytes:
            return sequence(integer(1))

    recipe = Recipe(certificates=[Unreadable(), TSA.certificate])  # type: ignore[list-item]
    assert stamp(recipe=recipe).time == NOW


def test_the_nonce_of_the_query_comes_back() -> None:
    answered = token(TSA, SIGNATURE, NOW, Recipe(nonce=2**64 - 1))

    assert verify_time_stamp(answered, SIGNATURE, [CA.certificate], NOW, nonce=2**64 - 1).time == NOW


def test_one_byte_of_padding_belongs_to_a_value_of_odd_length() -> None:
    """PS3.5 6.2, OB. An even value needs none, so that a byte behind it is something else."""
    tokens = [token(TSA, SIGNATURE, NOW, Recipe(accuracy=accuracy)) for accuracy in (b"", ACCURACY, sequence())]
    for odd in [made for made in tokens if len(made) % 2]:
        assert verify_time_stamp(odd + b"\0", SIGNATURE, [CA.certificate], NOW).time == NOW
    for even in [made for made in tokens if not len(made) % 2]:
        with pytest.raises(TimeStampError, match="follows"):
            verify_time_stamp(even + b"\0", SIGNATURE, [CA.certificate], NOW)


def test_a_query_holds_the_hash_and_nothing_else_of_the_signature() -> None:
    assert SIGNATURE not in new_query(SIGNATURE, 1)
    assert new_query(SIGNATURE, None) != new_query(SIGNATURE, 7)


# --- in an instance ---


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Authority(tmp_path_factory.mktemp("ca"), datetime.now(UTC)).issue("signer", rsa_key(2048))


def stamped(data: bytes) -> bytes:
    """The instance with time stamps on all its signatures."""
    instance = StampableInstance.read(data)
    tokens = {index: token(TSA, signature.value, NOW) for index, signature in enumerate(instance.signatures)}
    return applied(data, instance, tokens)


def applied(data: bytes, instance: StampableInstance, tokens: dict[int, bytes]) -> bytes:
    parts = spliced(len(data), instance.edits(tokens))
    return b"".join(part if isinstance(part, bytes) else data[slice(*part)] for part in parts)


def signature_items(data: bytes) -> tuple[Elements, ...]:
    found = find(parse(data).elements, DIGITAL_SIGNATURES)
    assert found is not None
    assert found.items is not None
    return found.items


def values(item: Elements) -> dict[int, bytes]:
    return {element.tag: element.value for element in item if element.items is None}


@pytest.mark.parametrize("name", TRANSFER_SYNTAX_SAMPLES.values(), ids=TRANSFER_SYNTAX_SAMPLES)
def test_a_time_stamp_is_all_that_changes_in_every_transfer_syntax(name: str, signer: Signer) -> None:
    """PS3.15 A.3: bit-preserving. The independent reader checks all lengths."""
    signed = sign(sample(name).path.read_bytes(), signer)
    result = stamped(signed)
    before, after = parse(signed), parse(result)
    (old,), (new,) = signature_items(signed), signature_items(result)
    added = {CERTIFIED_TIMESTAMP_TYPE, CERTIFIED_TIMESTAMP}

    assert after.head == before.head
    assert without(after, {DIGITAL_SIGNATURES}) == without(before, {DIGITAL_SIGNATURES})
    assert {tag: kept for tag, kept in values(new).items() if tag not in added} == values(old)
    assert value(new, CERTIFIED_TIMESTAMP_TYPE) == b"CMS_TSP "
    assert [element.tag for element in new] == sorted(element.tag for element in new)
    (signature,) = StampableInstance.read(signed).signatures
    found = verify_time_stamp(value(new, CERTIFIED_TIMESTAMP), signature.value, [CA.certificate], NOW)
    assert found.time == NOW


def test_a_stamped_signature_is_known_as_such_and_left_alone(signer: Signer) -> None:
    result = stamped(sign(ct_slice(4, 4), signer))
    instance = StampableInstance.read(result)

    assert [bool(signature.time_stamp) for signature in instance.signatures] == [True]
    assert applied(result, instance, {}) == result


def test_of_several_signatures_each_gets_its_own(signer: Signer) -> None:
    twice = sign(sign(ct_slice(4, 4), signer), signer)
    instance = StampableInstance.read(twice)
    tokens = {index: token(TSA, signature.value, NOW) for index, signature in enumerate(instance.signatures)}
    at_once = applied(twice, instance, tokens)

    for first, second in ((0, 1), (1, 0)):
        one = applied(twice, instance, {first: tokens[first]})
        again = StampableInstance.read(one)
        assert [bool(signature.time_stamp) for signature in again.signatures].index(True) == first
        assert applied(one, again, {second: tokens[second]}) == at_once


@pytest.mark.parametrize("item_length", [True, False], ids=["item-length", "item-delimiter"])
@pytest.mark.parametrize("sequence_length", [True, False], ids=["sequence-length", "sequence-delimiter"])
@pytest.mark.parametrize("deflated", [True, False], ids=["deflated", "plain"])
def test_sequences_and_items_keep_their_form_of_length(
    signer: Signer, *, item_length: bool, sequence_length: bool, deflated: bool
) -> None:
    """PS3.5 7.5: with a length or with a delimiter."""
    signed = parse(sign(sign(small_instance(), signer), signer))
    found = find(signed.elements, DIGITAL_SIGNATURES)
    assert found is not None
    old = signed.body[found.start : found.end]
    items = b"".join(
        as_item(signed.body[item[0].start : item[-1].end], with_length=item_length) for item in found.items or ()
    )
    new = as_sequence(items, with_length=sequence_length)
    body = signed.body.replace(old, new)
    data = rebuilt(signed.head, body, deflated=deflated)
    result = stamped(data)

    stored = parse(result)
    span = find(stored.elements, DIGITAL_SIGNATURES)
    assert span is not None
    expected = b"".join(
        as_item(stored.body[item[0].start : item[-1].end], with_length=item_length) for item in span.items or ()
    )
    assert stored.body[span.start : span.end] == as_sequence(expected, with_length=sequence_length)
    assert stored.body[: span.start] == body[: span.start]
    assert [bool(signature.time_stamp) for signature in StampableInstance.read(result).signatures] == [True, True]


def as_item(content: bytes, *, with_length: bool) -> bytes:
    if with_length:
        return b"\xfe\xff\x00\xe0" + len(content).to_bytes(4, "little") + content
    return b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + content + b"\xfe\xff\x0d\xe0\0\0\0\0"


def as_sequence(items: bytes, *, with_length: bool) -> bytes:
    header = b"\xfa\xff\xfa\xffSQ\0\0"
    if with_length:
        return header + len(items).to_bytes(4, "little") + items
    return header + b"\xff\xff\xff\xff" + items + b"\xfe\xff\xdd\xe0\0\0\0\0"


def rebuilt(head: bytes, body: bytes, *, deflated: bool) -> bytes:
    if not deflated:
        return head + body
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = deflater.compress(body) + deflater.flush()
    return raw_instance(packed + b"\0" * (len(packed) % 2), DEFLATED_EXPLICIT_LITTLE_ENDIAN)


def test_an_elliptic_signature_is_stamped_without_its_padding(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The value is DER of any length; (0400,0120) of an odd one has a byte more."""
    authority = Authority(tmp_path_factory.mktemp("ec"), datetime.now(UTC))
    elliptic = authority.issue("elliptic", ec.generate_private_key(ec.SECP256R1()))
    lengths: set[int] = set()
    while len(lengths) < 2:
        made = signed_by_curve(small_instance(), elliptic)
        (signature,) = StampableInstance.read(made).signatures
        lengths.add(len(signature.value) % 2)
        assert signature.value[1] + 2 == len(signature.value)


def signed_by_curve(data: bytes, signer: Signer) -> bytes:
    key = signer.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    scheme = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
    return sign_bytes(data, plan(), lambda digest: key.sign(digest, scheme), signer.certificate_der)


def test_a_signature_that_does_not_verify_gets_no_time_stamp(signer: Signer) -> None:
    changed = sign(small_instance(), signer).replace(b"Maker", b"Faker")

    with pytest.raises(DicomError) as refused:
        StampableInstance.read(changed)
    assert refused.value.code == "signature-broken"


def test_an_unsigned_instance_has_nothing_to_stamp() -> None:
    instance = StampableInstance.read(small_instance())

    assert instance.signatures == ()
    assert instance.edits({}) == ()


def test_the_declarations_of_asn1_are_in_one_file_for_each_protocol() -> None:
    """Their interface may change with any release of cryptography (docs/adr/0014-time-stamps.md)."""
    root = Path(__file__).parents[2]
    users = {
        path.relative_to(root).as_posix()
        for package in ("agent", "enroll")
        for path in (root / package).rglob("*.py")
        if "cryptography.hazmat import asn1" in path.read_text("utf-8")
    }
    assert users == {
        "enroll/est/attributes.py",
        "enroll/evaluation/hardware_module.py",
        "enroll/flows/cmp/syntax.py",
        "enroll/flows/scep/messages.py",
        "enroll/flows/scep/syntax.py",
        "enroll/signed_data.py",
        "enroll/time_stamp_syntax.py",
    }
