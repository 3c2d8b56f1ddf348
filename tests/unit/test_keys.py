"""The key objects that stores hand out (`enroll.keystore.keys`): what reaches the store, and what never does."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from enroll.algorithms import KeyAlgorithm
from enroll.errors import KeyMismatch, KeyStoreError, UnsupportedKey
from enroll.keystore.base import PrivateKey
from enroll.keystore.keys import (
    CURVES,
    RSA_BITS,
    Ecdsa,
    RsaPkcs1v15,
    RsaPss,
    Scheme,
    StoredEcKey,
    StoredRsaKey,
    check_supported,
    stored_key,
)

SHA256 = hashes.SHA256()
HASHES = {one.name: one for one in (SHA256, hashes.SHA384(), hashes.SHA512())}
SECRET = "a-pin-4711"


class Recorder:
    """A store that remembers what it was asked, and signs.

    Args:
        key: What it signs with.
    """

    def __init__(self, key: PrivateKey) -> None:
        self.key = key
        self.asked: list[tuple[bytes, Scheme]] = []

    def __call__(self, digest: bytes, scheme: Scheme) -> bytes:
        self.asked.append((digest, scheme))
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            return b"signature"
        hash_algorithm = HASHES[scheme.hash_name] if not isinstance(scheme, Ecdsa) else SHA256
        padded = pss(scheme.salt_length, hash_algorithm) if isinstance(scheme, RsaPss) else padding.PKCS1v15()
        return self.key.sign(digest, padded, Prehashed(hash_algorithm))

    def __repr__(self) -> str:
        return SECRET


@pytest.fixture(scope="module")
def rsa_private() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def rsa_public(rsa_private: rsa.RSAPrivateKey) -> rsa.RSAPublicKey:
    return rsa_private.public_key()


@pytest.fixture
def recorder(rsa_private: rsa.RSAPrivateKey) -> Recorder:
    return Recorder(rsa_private)


@pytest.fixture
def rsa_key(rsa_public: rsa.RSAPublicKey, recorder: Recorder) -> StoredRsaKey:
    return StoredRsaKey(rsa_public, recorder)


@pytest.fixture
def ec_key(recorder: Recorder) -> StoredEcKey:
    recorder.key = ec.generate_private_key(ec.SECP256R1())
    return StoredEcKey(recorder.key.public_key(), recorder)


def pss(salt: object, mask_hash: hashes.HashAlgorithm = SHA256) -> padding.PSS:
    return padding.PSS(padding.MGF1(mask_hash), salt)  # type: ignore[arg-type]


def test_the_store_sees_digests_only(rsa_key: StoredRsaKey, recorder: Recorder) -> None:
    context = hashes.Hash(SHA256)
    context.update(b"message")

    rsa_key.sign(memoryview(b"message"), padding.PKCS1v15(), SHA256)

    assert recorder.asked == [(context.finalize(), RsaPkcs1v15("sha256"))]


# RFC 8017 9.1.1: for a modulus of 2048 bits the encoded message has 256 bytes: salt + hash + 2.
@pytest.mark.parametrize(
    ("salt", "length"),
    [(0, 0), (222, 222), (padding.PSS.DIGEST_LENGTH, 32), (padding.PSS.MAX_LENGTH, 222)],
    ids=["none", "longest", "digest", "max"],
)
def test_the_salt_length_of_pss_is_a_number_for_the_store(
    rsa_key: StoredRsaKey, recorder: Recorder, salt: object, length: int
) -> None:
    rsa_key.sign(b"message", pss(salt), SHA256)

    assert recorder.asked[0][1] == RsaPss("sha256", length)


@pytest.mark.parametrize("padded", [padding.PKCS1v15(), padding.PSS(padding.MGF1(SHA256), padding.PSS.MAX_LENGTH)])
@pytest.mark.parametrize("how", ["fault", "of another key", "empty", "short"])
def test_a_wrong_rsa_signature_does_not_leave(
    rsa_private: rsa.RSAPrivateKey, how: str, padded: padding.AsymmetricPadding
) -> None:
    """One that was computed wrongly with the primes tells them: the attack of Boneh, DeMillo and Lipton."""

    def signer(digest: bytes, scheme: Scheme) -> bytes:
        assert isinstance(scheme, RsaPkcs1v15 | RsaPss)
        private = rsa.generate_private_key(65537, 2048) if how == "of another key" else rsa_private
        right = private.sign(digest, padded, Prehashed(SHA256))
        return {"fault": right[:-1] + bytes([right[-1] ^ 1]), "empty": b"", "short": right[1:]}.get(how, right)

    with pytest.raises(KeyMismatch, match="not handed out") as caught:
        StoredRsaKey(rsa_private.public_key(), signer).sign(b"message", padded, SHA256)
    assert caught.value.remedy


@pytest.mark.parametrize("salt", [223, padding.PSS.AUTO], ids=["too-long", "auto"])
def test_other_salts_are_refused(rsa_key: StoredRsaKey, recorder: Recorder, salt: object) -> None:
    with pytest.raises(UnsupportedKey, match="salt"):
        rsa_key.sign(b"message", pss(salt), SHA256)

    assert recorder.asked == []


@pytest.mark.parametrize(
    "wanted",
    [pss(32, hashes.SHA384()), padding.OAEP(padding.MGF1(SHA256), SHA256, None)],
    ids=["mask of another hash", "encryption"],
)
def test_other_paddings_are_refused(
    rsa_key: StoredRsaKey, recorder: Recorder, wanted: padding.AsymmetricPadding
) -> None:
    with pytest.raises(UnsupportedKey, match="padding"):
        rsa_key.sign(b"message", wanted, SHA256)

    assert recorder.asked == []


REFUSED_HASHES: list[Callable[[], object]] = [
    hashes.SHA1,
    hashes.MD5,
    hashes.SHA224,
    hashes.SHA3_256,
    lambda: Prehashed(hashes.SHA1()),  # noqa: S303 - must be refused
    lambda: Prehashed(hashes.SHA3_256()),  # as long as SHA-256
    lambda: None,
    lambda: "sha256",
]


@pytest.mark.parametrize("make", REFUSED_HASHES)
def test_other_hashes_are_refused(
    rsa_key: StoredRsaKey, ec_key: StoredEcKey, recorder: Recorder, make: Callable[[], object]
) -> None:
    with pytest.raises(UnsupportedKey, match="hash"):
        rsa_key.sign(b"x" * 32, padding.PKCS1v15(), make())
    with pytest.raises(UnsupportedKey, match="hash"):
        ec_key.sign(b"x" * 32, ec.ECDSA(make()))  # type: ignore[arg-type]

    assert recorder.asked == []


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_digest_must_have_the_length_of_its_hash(
    rsa_key: StoredRsaKey, ec_key: StoredEcKey, recorder: Recorder, length: int
) -> None:
    with pytest.raises(KeyStoreError, match=f"{length} bytes"):
        rsa_key.sign(bytes(length), padding.PKCS1v15(), Prehashed(SHA256))
    with pytest.raises(KeyStoreError, match=f"{length} bytes"):
        ec_key.sign(bytes(length), ec.ECDSA(Prehashed(SHA256)))

    assert recorder.asked == []


def test_ecdsa_takes_the_leftmost_bits_of_a_longer_digest(ec_key: StoredEcKey, recorder: Recorder) -> None:
    """FIPS 186-5 6.4.1."""
    digest = bytes(range(64))

    ec_key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA512())))

    assert recorder.asked == [(digest[:32], Ecdsa())]


def test_a_deterministic_signature_is_refused(ec_key: StoredEcKey) -> None:
    try:
        deterministic = ec.ECDSA(SHA256, deterministic_signing=True)
    except TypeError:
        pytest.skip("this cryptography does not know deterministic signatures; from 43 on it does")

    with pytest.raises(UnsupportedKey):
        ec_key.sign(b"message", deterministic)


def test_keys_only_sign(rsa_key: StoredRsaKey, ec_key: StoredEcKey) -> None:
    refusals: list[Callable[[], object]] = [
        lambda: rsa_key.decrypt(b"", padding.PKCS1v15()),
        lambda: ec_key.exchange(ec.ECDH(), ec_key.public_key()),
        rsa_key.private_numbers,
        ec_key.private_numbers,
        lambda: pickle.dumps(rsa_key),
        lambda: pickle.dumps(ec_key),
    ]
    for refused in refusals:
        with pytest.raises(UnsupportedKey) as caught:
            refused()
        assert caught.value.remedy


def test_a_key_shows_its_kind_and_no_secret(rsa_key: StoredRsaKey, ec_key: StoredEcKey) -> None:
    assert repr(rsa_key) == "StoredRsaKey(2048 bits)"
    assert repr(ec_key) == "StoredEcKey(secp256r1)"
    assert SECRET not in f"{rsa_key} {ec_key}"


def test_every_algorithm_has_a_size_or_a_curve() -> None:
    assert set(RSA_BITS) | set(CURVES) == set(KeyAlgorithm)
    assert not set(RSA_BITS) & set(CURVES)


def test_the_key_object_fits_the_public_key(rsa_public: rsa.RSAPublicKey, recorder: Recorder) -> None:
    curve_key = ec.generate_private_key(ec.SECP384R1()).public_key()

    assert isinstance(stored_key(rsa_public, recorder), rsa.RSAPrivateKey)
    assert isinstance(stored_key(curve_key, recorder), ec.EllipticCurvePrivateKey)


@pytest.mark.parametrize(
    "key",
    [
        rsa.RSAPublicNumbers(65537, (1 << 1023) + 1).public_key(),
        rsa.RSAPublicNumbers(65537, (1 << 8191) + 1).public_key(),
        ec.generate_private_key(ec.SECP521R1()).public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
    ],
    ids=["rsa-1024", "rsa-8192", "p-521", "secp256k1"],
)
def test_other_kinds_of_key_are_refused(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> None:
    with pytest.raises(UnsupportedKey) as caught:
        check_supported(key)
    assert "rsa-3072" in caught.value.remedy
