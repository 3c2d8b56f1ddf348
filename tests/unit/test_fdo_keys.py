"""Public keys (FDO 1.1, 3.3.4) and hashes (3.3.1): each has one form, and is what it is said to be."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enroll.certificates import public_key_info
from enroll.fdo import cbor
from enroll.fdo.cose import Sign1
from enroll.fdo.fault import Fault
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.public_key import (
    CERTIFICATE_LIMIT,
    CHAIN_LIMIT,
    FdoPublicKey,
    KeyEncoding,
    KeyType,
    SignatureType,
    key_types,
    signature_type,
)
from enroll.keystore.base import PublicKey
from tests.support.fdo import reference_codec
from tests.support.fdo.vectors import Vector, vector, vectors
from tests.support.pki import HospitalCa

P_256 = ec.derive_private_key(7, ec.SECP256R1()).public_key()
P_384 = ec.derive_private_key(7, ec.SECP384R1()).public_key()
RSA_2048 = rsa.generate_private_key(65537, 2048).public_key()
RSA_3072 = rsa.generate_private_key(65537, 3072).public_key()
FIELD = 2**256 - 2**224 + 2**192 + 2**96 - 1  # of P-256: FIPS 186-4 D.1.2.3
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


def owner_key(vector: Vector) -> cbor.Item:
    return Sign1.read(cbor.read(vector.message(61))).unprotected[257]


def received(kind: int, encoding: int, body: cbor.Encodable) -> FdoPublicKey:
    return FdoPublicKey.read(cbor.read(cbor.encode([kind, encoding, body])))


def cose_key(**changes: cbor.Encodable) -> dict[int, cbor.Encodable]:
    numbers = P_256.public_numbers()
    x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
    labels = {"kty": 1, "curve": -1, "x": -2, "y": -3, "d": -4}
    values: dict[str, cbor.Encodable] = {"kty": 2, "curve": 1, "x": x, "y": y, **changes}
    return {labels[name]: value for name, value in values.items() if value is not None}


def in_certificate(key: PublicKey) -> bytes:
    return HospitalCa().issue(key).public_bytes(Encoding.DER)


def on_p_256(x: int) -> int:
    """The y of a point."""
    square = (x**3 - 3 * x + B) % FIELD
    y = pow(square, (FIELD + 1) // 4, FIELD)
    assert y * y % FIELD == square
    return y


@pytest.mark.parametrize("vector", vectors(), ids=str)
def test_a_recorded_key_is_read_and_written_again(vector: Vector) -> None:
    item = owner_key(vector)
    key = FdoPublicKey.read(item)
    assert key.raw == item.raw
    assert FdoPublicKey.make(key.chain or key.key, key.encoding, key.kind).raw == item.raw


@pytest.mark.parametrize(
    ("key", "kinds"),
    [
        (P_256, [KeyType.SECP256R1]),
        (P_384, [KeyType.SECP384R1]),
        (RSA_2048, [KeyType.RSA_2048_RESTRICTED, KeyType.RSA_PKCS, KeyType.RSA_PSS]),
        (RSA_3072, [KeyType.RSA_PKCS, KeyType.RSA_PSS]),
    ],
    ids=["P-256", "P-384", "RSA-2048", "RSA-3072"],
)
def test_a_key_is_only_of_its_own_types(key: PublicKey, kinds: list[KeyType]) -> None:
    assert list(key_types(key)) == kinds
    for kind in KeyType:
        for encoding, body in ((KeyEncoding.X509, public_key_info(key)), (KeyEncoding.X5CHAIN, [in_certificate(key)])):
            if kind in kinds:
                assert received(kind, encoding, body).key == key
            else:
                with pytest.raises(Fault, match="not of the type"):
                    received(kind, encoding, body)


def test_a_key_has_one_fingerprint_in_every_encoding() -> None:
    written = [
        FdoPublicKey.make(P_256),
        FdoPublicKey.make(P_256, KeyEncoding.COSEKEY),
        FdoPublicKey.make([HospitalCa().issue(P_256)], KeyEncoding.X5CHAIN),
    ]
    assert {key.fingerprint for key in written} == {hashlib.sha256(public_key_info(P_256)).hexdigest()}
    assert all(FdoPublicKey.read(cbor.read(key.raw)) == key for key in written)
    assert all(key.is_same_key(written[0]) for key in written)
    assert not written[0].is_same_key(FdoPublicKey.make(P_384))


@pytest.mark.parametrize(
    "key",
    [
        rsa.RSAPublicNumbers(65537, 2**1023 + 1).public_key(),
        rsa.RSAPublicNumbers(65537, 2**4095 + 1).public_key(),
        rsa.RSAPublicNumbers(3, RSA_2048.public_numbers().n).public_key(),
        ec.derive_private_key(7, ec.SECP521R1()).public_key(),
        ec.derive_private_key(7, ec.SECP256K1()).public_key(),
        ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key(),
    ],
    ids=["RSA-1024", "RSA-4096", "exponent 3", "P-521", "secp256k1", "Ed25519"],
)
def test_other_keys_are_refused(key: PublicKey) -> None:
    for kind in KeyType:
        with pytest.raises(Fault, match="neither of P-256"):
            received(kind, KeyEncoding.X509, public_key_info(key))
        with pytest.raises(Fault, match="neither of P-256"):
            received(kind, KeyEncoding.X5CHAIN, [in_certificate(key)])


@pytest.mark.parametrize(
    ("key", "encoding", "kind"),
    [
        (ec.derive_private_key(7, ec.SECP521R1()).public_key(), KeyEncoding.X509, None),
        ([HospitalCa().issue(ec.derive_private_key(7, ec.SECP521R1()).public_key())], KeyEncoding.X5CHAIN, None),
        (P_256, KeyEncoding.X5CHAIN, None),
        ([], KeyEncoding.X5CHAIN, None),
        (P_256, KeyEncoding.CRYPTO, None),
        (RSA_2048, KeyEncoding.COSEKEY, None),
        (P_256, KeyEncoding.X509, KeyType.SECP384R1),
        (P_256, KeyEncoding.COSEKEY, KeyType.SECP384R1),
        (RSA_3072, KeyEncoding.X509, KeyType.RSA_2048_RESTRICTED),
    ],
)
def test_what_would_not_be_read_is_not_written(
    key: PublicKey | list[x509.Certificate], encoding: KeyEncoding, kind: KeyType | None
) -> None:
    with pytest.raises(Fault):
        FdoPublicKey.make(key, encoding, kind)


def test_what_is_no_key_is_refused() -> None:
    info = public_key_info(P_256)
    off_curve = info[:-1] + bytes([info[-1] ^ 1])
    for body in (b"", b"\x30", info[:-1], info + b"\0", off_curve, info[:26] + b"\x04" + bytes(64)):
        with pytest.raises(Fault, match="cannot be read"):
            received(10, 1, body)


def test_a_compressed_point_is_refused() -> None:
    """RFC 5480 2.2: both sides need not know it; the hash of a key is over one form of it."""
    point = P_256.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    info = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point
    assert serialization.load_der_public_key(info) == P_256
    with pytest.raises(Fault, match="one form"):
        received(10, 1, info)


@pytest.mark.parametrize(
    ("kind", "encoding", "body"),
    [
        (0, 1, b""),
        (7, 1, b""),
        (10, 4, b""),
        (10, 0, public_key_info(P_256)),
        (10, 1, bytes(4097)),
        (10, 1, "text"),
        (10, 2, []),
        (10, 2, b""),
        (10, 2, [b""]),
        (10, 2, [bytes(CERTIFICATE_LIMIT + 1)]),
        (10, 2, [in_certificate(P_256)] * (CHAIN_LIMIT + 1)),
        (10, 3, []),
        (1, 3, cose_key()),
    ],
)
def test_a_key_that_is_not_well_formed_is_refused(kind: int, encoding: int, body: cbor.Encodable) -> None:
    with pytest.raises(Fault):
        received(kind, encoding, body)


def test_a_certificate_whose_key_cannot_be_read_is_refused() -> None:
    """The library reads the key when it is asked for, not with the certificate."""
    point = P_256.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    broken = in_certificate(P_256).replace(point, point[:-1] + bytes([point[-1] ^ 1]))
    assert x509.load_der_x509_certificate(broken).serial_number
    with pytest.raises(Fault, match="cannot be read"):
        received(10, 2, [broken])


class TestCoseKey:
    """RFC 9053 7.1.1."""

    def test_is_read_with_its_type_and_without(self) -> None:
        """One implementation leaves it out."""
        assert received(10, 3, cose_key()).key == received(10, 3, cose_key(kty=None)).key == P_256

    @pytest.mark.parametrize(
        "changes",
        [
            {"kty": 1},
            {"kty": 3},
            {"curve": 2},
            {"curve": 8},
            {"curve": None},
            {"x": None},
            {"y": None},
            {"y": True},
            {"y": False},
            {"x": bytes(31)},
            {"x": bytes(33)},
            {"x": bytes(32), "y": bytes(32)},
            {"y": bytes(32)},
        ],
        ids=str,
    )
    def test_is_refused(self, changes: dict[str, cbor.Encodable]) -> None:
        with pytest.raises(Fault):
            received(10, 3, cose_key(**changes))

    def test_is_the_same_key_with_its_leading_zeros_and_without(self) -> None:
        """One implementation leaves them out."""
        full = {"x": bytes(31) + b"\5", "y": on_p_256(5).to_bytes(32, "big")}

        assert received(10, 3, cose_key(**{**full, "x": b"\5"})).key == received(10, 3, cose_key(**full)).key

    @pytest.mark.parametrize("x", [b"", b"\0\5", bytes(30) + b"\5", bytes(32) + b"\5"], ids=bytes.hex)
    def test_is_refused_with_some_of_its_leading_zeros(self, x: bytes) -> None:
        with pytest.raises(Fault):
            received(10, 3, cose_key(x=x, y=on_p_256(5).to_bytes(32, "big")))

    def test_is_refused_with_a_coordinate_that_is_not_reduced(self) -> None:
        """SP 800-56A 5.6.2.3.3: below the prime of the field; otherwise one key has two forms."""
        x, y = 5, on_p_256(5)
        small = {"x": x.to_bytes(32, "big"), "y": y.to_bytes(32, "big")}
        assert received(10, 3, cose_key(**small)).key.public_numbers() == ec.EllipticCurvePublicNumbers(
            x, y, ec.SECP256R1()
        )
        with pytest.raises(Fault, match="not on its curve"):
            received(10, 3, cose_key(**{**small, "x": (x + FIELD).to_bytes(32, "big")}))

    def test_is_refused_on_another_curve_than_the_key_is_said_to_be(self) -> None:
        with pytest.raises(Fault):
            received(11, 3, cose_key())


@pytest.mark.parametrize(
    ("key", "kind", "signs"),
    [
        (P_256, None, SignatureType.ES256),
        (P_384, None, SignatureType.ES384),
        (RSA_2048, None, SignatureType.RS256),
        (RSA_2048, KeyType.RSA_2048_RESTRICTED, SignatureType.RS256),
        (RSA_2048, KeyType.RSA_PSS, SignatureType.PS256),
        (RSA_3072, KeyType.RSA_PKCS, SignatureType.RS384),
        (RSA_3072, KeyType.RSA_PSS, SignatureType.PS384),
    ],
)
def test_a_key_signs_in_one_way(key: PublicKey, kind: KeyType | None, signs: SignatureType) -> None:
    """The strength of the hash is that of the key; RFC 9053 2.1, RFC 8230 2 and RFC 8812 2 have the numbers."""
    assert signature_type(key, kind) is signs


class TestHash:
    """FDO 1.1, 3.3.1."""

    @pytest.mark.parametrize(
        ("algorithm", "name"), [(HashAlgorithm.SHA256, "sha256"), (HashAlgorithm.SHA384, "sha384")]
    )
    def test_is_that_of_its_data(self, algorithm: HashAlgorithm, name: str) -> None:
        made = Hash.of(algorithm, b"data")
        assert made.value == hashlib.new(name, b"data").digest()
        assert made.is_of(b"data")
        assert not made.is_of(b"date")
        assert made.raw == reference_codec.write([int(algorithm), made.value])
        assert Hash.read(cbor.read(made.raw)) == made

    @pytest.mark.parametrize("name", ["p256-ecdh256-a128gcm", "p384-ecdh384-a256gcm-x5chain"])
    def test_of_a_recorded_header_is_an_hmac_of_the_same_strength(self, name: str) -> None:
        recorded = vector(name)
        (wrapped,) = cbor.read(recorded.message(11)).array(1)
        (item,) = cbor.read(recorded.message(12)).array(1)
        mac = Hash.read(item)
        strength = {HashAlgorithm.SHA256: "sha256", HashAlgorithm.SHA384: "sha384"}[mac.plain_algorithm]
        assert mac.value == hmac.digest(recorded.hmac_secret, wrapped.bytes(), strength)
        assert mac.raw == item.raw

    def test_an_hmac_is_the_hash_of_nothing(self) -> None:
        value = hashlib.sha256(b"data").digest()
        assert not Hash(HashAlgorithm.HMAC_SHA256, value).is_of(b"data")

    @pytest.mark.parametrize(
        "encoded",
        [
            [-16, bytes(31)],
            [-16, bytes(33)],
            [-16, bytes(48)],
            [-43, bytes(32)],
            [5, bytes(48)],
            [6, bytes(32)],
            [-44, bytes(64)],
            [-14, bytes(20)],
            [0, b""],
            [-16, "text"],
            ["-16", bytes(32)],
            [-16],
            [-16, bytes(32), 0],
            {-16: bytes(32)},
            None,
        ],
    )
    def test_of_another_algorithm_or_length_is_refused(self, encoded: cbor.Encodable) -> None:
        with pytest.raises(Fault):
            Hash.read(cbor.read(cbor.encode(encoded)))
