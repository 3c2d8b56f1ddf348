"""COSE_Sign1 (RFC 9052 4.2 to 4.4): our signatures pass elsewhere, those of others pass here, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator

import cbor2
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from enroll.algorithms import KeyAlgorithm
from enroll.fdo import cbor
from enroll.fdo.cose import Sign1, sign1
from enroll.fdo.fault import ErrorCode, Fault
from enroll.fdo.public_key import FdoPublicKey, KeyType, SignatureType, signature_type
from enroll.keystore.base import PrivateKey, PublicKey
from tests.support.fdo import reference_codec
from tests.support.fdo.vectors import Vector, vectors
from tests.support.key_stores import Backend, software

PAYLOAD = cbor.encode([1, b"payload"])
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256: FIPS 186-4 D.1.2.3
WAYS = [
    (KeyAlgorithm.P_256, SignatureType.ES256),
    (KeyAlgorithm.P_384, SignatureType.ES384),
    (KeyAlgorithm.RSA_2048, SignatureType.RS256),
    (KeyAlgorithm.RSA_2048, SignatureType.PS256),
    (KeyAlgorithm.RSA_3072, SignatureType.RS384),
    (KeyAlgorithm.RSA_3072, SignatureType.PS384),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    return software(tmp_path_factory.mktemp("keys"))


@pytest.fixture(params=WAYS, ids=[way.name for _, way in WAYS])
def way(request: pytest.FixtureRequest, store: Backend) -> tuple[PrivateKey, SignatureType]:
    """A key of the software key store, and how it signs."""
    algorithm, signs = request.param
    return store.store.load(store.uri(algorithm)), signs


@pytest.fixture
def key(store: Backend) -> ec.EllipticCurvePrivateKey:
    """One on P-256."""
    key = store.store.load(store.uri(KeyAlgorithm.P_256))
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def read(data: bytes) -> Sign1:
    return Sign1.read(cbor.read(data))


def parts(data: bytes) -> list[cbor.Encodable]:
    """Protected header, unprotected header, payload and signature."""
    return [cbor.Raw(part.raw) for part in cbor.read(data).tagged(18).array(4)]


def with_signature(signature: bytes, way: SignatureType = SignatureType.ES256) -> Sign1:
    return read(cbor.encode(cbor.Tagged(18, [cbor.encode({1: way}), {}, PAYLOAD, signature])))


def signed_by_device(vector: Vector) -> Iterator[bytes]:
    yield vector.message(32)
    yield vector.message(64)


def signed_by_owner(vector: Vector) -> Iterator[bytes]:
    yield vector.message(33)
    yield vector.message(61)
    yield vector.plaintext(65)


@pytest.mark.parametrize("vector", vectors(), ids=str)
def test_the_recorded_signatures_are_those_of_their_keys(vector: Vector) -> None:
    """And those of the owner are not of the device, nor the other way round."""
    owner = FdoPublicKey.read(read(vector.message(61)).unprotected[257])
    device = serialization.load_der_private_key(vector.device_key_pkcs8, None).public_key()
    assert isinstance(device, PublicKey)
    for messages, right, wrong in (
        (signed_by_owner(vector), owner.key, device),
        (signed_by_device(vector), device, owner.key),
    ):
        for message in messages:
            signed = read(message)
            signed.check(right, signature_type(right, None))
            assert reference_codec.verify1(right, message).payload == signed.payload.raw
            with pytest.raises(Fault, match="not that of its key"):
                signed.check(wrong, signature_type(wrong, None))


def test_what_we_sign_passes_elsewhere(way: tuple[PrivateKey, SignatureType]) -> None:
    key, signs = way
    signed = reference_codec.verify1(key.public_key(), sign1(key, signs, PAYLOAD, {256: b"nonce"}))
    assert (signed.algorithm, signed.payload, signed.unprotected) == (signs, PAYLOAD, {256: b"nonce"})


def test_what_is_signed_elsewhere_passes_here(way: tuple[PrivateKey, SignatureType]) -> None:
    key, signs = way
    signed = read(reference_codec.sign1(key, signs, PAYLOAD, {256: b"nonce"}))
    signed.check(key.public_key(), signs)
    assert (signed.algorithm, signed.payload.raw, signed.unprotected[256].bytes()) == (signs, PAYLOAD, b"nonce")


def test_what_is_signed_in_another_way_is_refused(way: tuple[PrivateKey, SignatureType]) -> None:
    """RFC 9052 8: the algorithm goes with the key, whatever the header says."""
    key, signs = way
    data = sign1(key, signs, PAYLOAD)
    for other in set(SignatureType) - {signs}:
        _, unprotected, payload, signature = parts(data)
        said = read(cbor.encode(cbor.Tagged(18, [cbor.encode({1: other}), unprotected, payload, signature])))
        for expected, signed in ((signs, said), (other, said), (other, read(data))):
            with pytest.raises(Fault, match="not that of its key") as refused:
                signed.check(key.public_key(), expected)
            assert refused.value.code is ErrorCode.INVALID_OWNER_SIGNATURE


def test_the_header_says_how_it_was_signed(store: Backend) -> None:
    """RFC 9052 4.4: a signature that is right, below a header that names another algorithm."""
    key = store.store.load(store.uri(KeyAlgorithm.RSA_2048))
    assert not isinstance(key, ec.EllipticCurvePrivateKey)
    protected = cbor.encode({1: SignatureType.RS256})
    data = cbor.encode(["Signature1", protected, b"", PAYLOAD])
    salted = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    signed = with_signature(key.sign(data, salted, hashes.SHA256()), SignatureType.RS256)
    for expected in (SignatureType.PS256, SignatureType.RS256):
        with pytest.raises(Fault, match="not that of its key"):
            signed.check(key.public_key(), expected)


def test_every_bit_of_what_is_signed_counts(way: tuple[PrivateKey, SignatureType]) -> None:
    key, signs = way
    data = sign1(key, signs, PAYLOAD)
    for at in (len(data) - 1, len(data) - 20, data.index(PAYLOAD) + len(PAYLOAD) - 1):
        with pytest.raises(Fault, match="not that of its key"):
            read(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]).check(key.public_key(), signs)
        with pytest.raises(InvalidSignature):
            reference_codec.verify1(key.public_key(), data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_a_signature_has_its_full_length_with_leading_zeros(key: ec.EllipticCurvePrivateKey) -> None:
    """RFC 9053 2.1: r and s at the length of the order, one after the other."""
    many = (sign1(key, SignatureType.ES256, PAYLOAD) for _ in range(10_000))
    data = next(each for each in many if read(each).signature[0] == 0)  # one of 256
    signature = read(data).signature
    assert len(signature) == 64
    read(data).check(key.public_key(), SignatureType.ES256)
    reference_codec.verify1(key.public_key(), data)
    with pytest.raises(Fault):
        with_signature(signature[1:]).check(key.public_key(), SignatureType.ES256)


def test_a_signature_in_another_form_is_refused(key: ec.EllipticCurvePrivateKey) -> None:
    """RFC 9053 2.1, FIPS 186-4 4.7: not DER, no other length, r and s from 1 to n-1."""
    signature = read(sign1(key, SignatureType.ES256, PAYLOAD)).signature
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    with_signature(signature).check(key.public_key(), SignatureType.ES256)
    others = [
        encode_dss_signature(r, s),
        signature[:-1],
        signature + b"\0",
        b"".join(b"\0" + number.to_bytes(32, "big") for number in (r, s)),
        bytes(64),
        b"\xff" * 64,
        signature[:32] + bytes(32),
        bytes(32) + signature[32:],
        ORDER.to_bytes(32, "big") + signature[32:],
        b"",
    ]
    for other in others:
        with pytest.raises(Fault, match="not that of its key"):
            with_signature(other).check(key.public_key(), SignatureType.ES256)


def test_a_curve_goes_with_one_algorithm(key: ec.EllipticCurvePrivateKey) -> None:
    """FDO 1.1, 3.3.5: ES384 is of P-384. This signature would be right as far as mathematics go."""
    protected = cbor.encode({1: SignatureType.ES384})
    signed = cbor.encode(["Signature1", protected, b"", PAYLOAD])
    numbers = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA384())))
    signature = b"".join(number.to_bytes(48, "big") for number in numbers)
    with pytest.raises(Fault, match="not that of its key"):
        with_signature(signature, SignatureType.ES384).check(key.public_key(), SignatureType.ES384)


def test_a_salt_of_another_length_is_refused(store: Backend) -> None:
    """RFC 8230 2: as long as the hash."""
    key = store.store.load(store.uri(KeyAlgorithm.RSA_2048))
    assert not isinstance(key, ec.EllipticCurvePrivateKey)
    data = cbor.encode(["Signature1", cbor.encode({1: SignatureType.PS256}), b"", PAYLOAD])
    for salt in (0, 20):
        signature = key.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), salt), hashes.SHA256())
        with pytest.raises(Fault, match="not that of its key"):
            with_signature(signature, SignatureType.PS256).check(key.public_key(), SignatureType.PS256)


def test_a_key_may_be_said_to_sign_with_pss(store: Backend) -> None:
    key = store.store.load(store.uri(KeyAlgorithm.RSA_2048))
    signed = read(reference_codec.sign1(key, -37, PAYLOAD, {}))
    signed.check(key.public_key(), signature_type(key.public_key(), KeyType.RSA_PSS))
    with pytest.raises(Fault):
        signed.check(key.public_key(), signature_type(key.public_key(), KeyType.RSA_PKCS))


ES256 = cbor2.dumps({1: -7})


@pytest.mark.parametrize(
    ("why", "value"),
    [
        ("no tag", [ES256, {}, PAYLOAD, bytes(64)]),
        ("the tag of COSE_Sign", cbor2.CBORTag(98, [ES256, {}, PAYLOAD, bytes(64)])),
        ("the tag twice", cbor2.CBORTag(18, cbor2.CBORTag(18, [ES256, {}, PAYLOAD, bytes(64)]))),
        ("no signature", cbor2.CBORTag(18, [ES256, {}, PAYLOAD])),
        ("a part too many", cbor2.CBORTag(18, [ES256, {}, PAYLOAD, bytes(64), b""])),
        ("no protected header", cbor2.CBORTag(18, [b"", {1: -7}, PAYLOAD, bytes(64)])),
        ("an empty protected header", cbor2.CBORTag(18, [b"\xa0", {1: -7}, PAYLOAD, bytes(64)])),
        ("a protected header that is not encoded", cbor2.CBORTag(18, [{1: -7}, {}, PAYLOAD, bytes(64)])),
        ("an algorithm that is a text", cbor2.CBORTag(18, [cbor2.dumps({1: "ES256"}), {}, PAYLOAD, bytes(64)])),
        ("an unknown algorithm", cbor2.CBORTag(18, [cbor2.dumps({1: -8}), {}, PAYLOAD, bytes(64)])),
        ("that of an HMAC", cbor2.CBORTag(18, [cbor2.dumps({1: 5}), {}, PAYLOAD, bytes(32)])),
        ("a critical header", cbor2.CBORTag(18, [cbor2.dumps({1: -7, 2: [99]}), {}, PAYLOAD, bytes(64)])),
        ("another header that is signed", cbor2.CBORTag(18, [cbor2.dumps({1: -7, 3: 0}), {}, PAYLOAD, bytes(64)])),
        ("the algorithm twice", cbor2.CBORTag(18, [ES256, {1: -7}, PAYLOAD, bytes(64)])),
        ("another algorithm too", cbor2.CBORTag(18, [ES256, {1: -35}, PAYLOAD, bytes(64)])),
        ("an unprotected header that is no map", cbor2.CBORTag(18, [ES256, b"", PAYLOAD, bytes(64)])),
        ("no payload", cbor2.CBORTag(18, [ES256, {}, None, bytes(64)])),
        ("an empty payload", cbor2.CBORTag(18, [ES256, {}, b"", bytes(64)])),
        ("a payload that is not encoded", cbor2.CBORTag(18, [ES256, {}, [1], bytes(64)])),
        ("bytes behind the payload", cbor2.CBORTag(18, [ES256, {}, PAYLOAD + b"\0", bytes(64)])),
        ("a signature that is too long", cbor2.CBORTag(18, [ES256, {}, PAYLOAD, bytes(513)])),
        ("a signature that is a text", cbor2.CBORTag(18, [ES256, {}, PAYLOAD, "signature"])),
    ],
)
def test_refuses(why: str, value: object) -> None:
    """RFC 9052 3 (headers) and 4.2; FDO 1.1 has one algorithm in the protected header, and nothing else."""
    with pytest.raises(Fault):
        read(cbor2.dumps(value))
