"""How device and owner agree on a secret (FDO 1.1, 3.6): both get the same one, and nothing that is not well formed."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning

from enroll.fdo import key_exchange
from enroll.fdo.fault import Fault
from enroll.fdo.key_exchange import KeyExchangeSuite, SharedSecret, answer, offer, suites_for
from enroll.fdo.modp_groups import PRIME_2048, PRIME_3072
from enroll.keystore.base import PrivateKey
from tests.support.fdo.vectors import Vector, vectors

with warnings.catch_warnings():
    warnings.simplefilter("ignore", CryptographyDeprecationWarning)
    from cryptography.hazmat.primitives.asymmetric.dh import DHParameterNumbers, DHPrivateNumbers, DHPublicNumbers

P_256: PrivateKey = ec.generate_private_key(ec.SECP256R1())
P_384: PrivateKey = ec.generate_private_key(ec.SECP384R1())
RSA_2048 = rsa.generate_private_key(65537, 2048)
RSA_3072 = rsa.generate_private_key(65537, 3072)
OWNER = {
    KeyExchangeSuite.ECDH256: P_256,
    KeyExchangeSuite.ECDH384: P_384,
    KeyExchangeSuite.DHKEX_ID14: RSA_2048,
    KeyExchangeSuite.DHKEX_ID15: RSA_3072,
    KeyExchangeSuite.ASYMKEX2048: RSA_2048,
    KeyExchangeSuite.ASYMKEX3072: RSA_3072,
}


class Points(NamedTuple):
    """A suite of FDO 1.1, 3.6.2: bytes of a coordinate, and of a random."""

    suite: KeyExchangeSuite
    curve: ec.EllipticCurve
    size: int
    random_size: int


CURVES = [
    Points(KeyExchangeSuite.ECDH256, ec.SECP256R1(), 32, 16),
    Points(KeyExchangeSuite.ECDH384, ec.SECP384R1(), 48, 48),
]
CURVE_NAMES = ["ECDH256", "ECDH384"]
GROUPS = [
    pytest.param(KeyExchangeSuite.DHKEX_ID14, PRIME_2048, id="DHKEXid14"),
    pytest.param(KeyExchangeSuite.DHKEX_ID15, PRIME_3072, id="DHKEXid15"),
]
FIELD = 2**256 - 2**224 + 2**192 + 2**96 - 1  # of P-256: FIPS 186-4 D.1.2.3
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def pi_times(power: int) -> int:
    """The whole part of 2^power times pi, by the formula of Machin."""
    scale = 1 << power + 64

    def arctangent_of_inverse(x: int) -> int:
        total, term = 0, scale // x
        for number in count():
            if term == 0:
                break
            total += (-1) ** number * (term // (2 * number + 1))
            term //= x * x
        return total

    return 4 * (4 * arctangent_of_inverse(5) - arctangent_of_inverse(239)) >> 64


def joined(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def coordinates(key: ec.EllipticCurvePublicKey, size: int) -> tuple[bytes, bytes]:
    numbers = key.public_numbers()
    return numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")


def split(parameter: bytes) -> list[bytes]:
    parts = []
    while parameter:
        end = 2 + int.from_bytes(parameter[:2], "big")
        parts.append(parameter[2:end])
        parameter = parameter[end:]
    return parts


def point(curve: ec.EllipticCurve, parameter: bytes) -> ec.EllipticCurvePublicKey:
    x, y, _ = (int.from_bytes(part, "big") for part in split(parameter))
    return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()


def derived_by_openssl(own: ec.EllipticCurvePrivateKey, theirs: ec.EllipticCurvePublicKey, folder: Path) -> bytes:
    (folder / "own").write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "theirs").write_bytes(theirs.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    command = ["openssl", "pkeyutl", "-derive", "-inkey", str(folder / "own"), "-peerkey", str(folder / "theirs")]
    return subprocess.run(command, check=True, capture_output=True, timeout=30).stdout


def key_with_leading_zero(theirs: ec.EllipticCurvePublicKey) -> ec.EllipticCurvePrivateKey:
    """A key that agrees with theirs on a secret that begins with a zero."""
    keys = (ec.derive_private_key(number, theirs.curve) for number in count(2))
    return next(key for key in keys if key.exchange(ec.ECDH(), theirs)[0] == 0)


def exponent_with_leading_zero(theirs: int, prime: int) -> int:
    """An exponent under which theirs becomes a secret that begins with a zero."""
    secret = theirs
    for exponent in count(2):
        secret = secret * theirs % prime
        if secret >> prime.bit_length() - 8 == 0:
            return exponent
    raise AssertionError


@pytest.mark.parametrize(
    ("prime", "bits", "added"),
    [(PRIME_2048, 2048, 124476), (PRIME_3072, 3072, 1690314)],
    ids=["RFC 3526 3", "RFC 3526 4"],
)
def test_the_primes_are_those_of_the_rfc(prime: int, bits: int, added: int) -> None:
    """Its formula: 2^n - 2^(n-64) - 1 + 2^64 * (whole part of 2^(n-130) pi + a number)."""
    assert prime == 2**bits - 2 ** (bits - 64) - 1 + 2**64 * (pi_times(bits - 130) + added)
    assert prime % 8 == 7  # so that 2 generates the subgroup of prime order


@pytest.mark.parametrize("suite", KeyExchangeSuite)
def test_both_sides_agree(suite: KeyExchangeSuite) -> None:
    lengths = {
        KeyExchangeSuite.ECDH256: (86, 86, 64, 0),
        KeyExchangeSuite.ECDH384: (150, 150, 144, 0),
        KeyExchangeSuite.DHKEX_ID14: (256, 256, 256, 0),
        KeyExchangeSuite.DHKEX_ID15: (384, 384, 384, 0),
        KeyExchangeSuite.ASYMKEX2048: (32, 256, 32, 32),
        KeyExchangeSuite.ASYMKEX3072: (96, 384, 96, 96),
    }
    owner = offer(suite, OWNER[suite])
    device = answer(suite, owner.parameter, OWNER[suite].public_key())
    assert owner.finish(device.parameter) == device.shared
    said = (owner.parameter, device.parameter, device.shared.secret, device.shared.context)
    assert tuple(len(part) for part in said) == lengths[suite]


@pytest.mark.parametrize("vector", vectors(), ids=str)
def test_the_recorded_exchanges_are_as_long_as_ours(vector: Vector) -> None:
    suite, recorded = KeyExchangeSuite(vector.kex), vector.key_exchange
    device = answer(suite, recorded.x_a, OWNER[suite].public_key())
    assert len(device.shared.secret) == len(recorded.shared_secret)
    assert device.shared.context == recorded.context_random
    assert len(device.parameter) == len(recorded.x_b)


@pytest.mark.parametrize("suite", KeyExchangeSuite)
def test_nothing_is_used_twice(suite: KeyExchangeSuite) -> None:
    """SP 800-56A 5.6.3.3: ephemeral keys."""
    owner = OWNER[suite]
    offers = [offer(suite, owner) for _ in range(2)]
    answers = [answer(suite, offers[0].parameter, owner.public_key()) for _ in range(2)]
    assert offers[0].parameter != offers[1].parameter
    assert answers[0].parameter != answers[1].parameter
    assert answers[0].shared.secret != answers[1].shared.secret


@pytest.mark.parametrize(
    ("owner", "suites"),
    [
        (P_256, ["ECDH256"]),
        (P_384, ["ECDH384"]),
        (RSA_2048, ["DHKEXid14", "ASYMKEX2048"]),
        (RSA_3072, ["DHKEXid15", "ASYMKEX3072"]),
    ],
    ids=["P-256", "P-384", "RSA-2048", "RSA-3072"],
)
def test_a_suite_fits_the_key_of_the_owner(owner: PrivateKey, suites: list[str]) -> None:
    """FDO 1.1, 3.6."""
    assert list(suites_for(owner.public_key())) == suites
    for suite in set(KeyExchangeSuite) - set(suites):
        offered = offer(suite, OWNER[suite]).parameter
        with pytest.raises(Fault, match="does not fit"):
            offer(suite, owner)
        with pytest.raises(Fault, match="does not fit"):
            answer(suite, offered, owner.public_key())


def test_a_secret_is_not_shown() -> None:
    assert "secret=" not in repr(SharedSecret(b"secret", b"context"))
    owner = offer(KeyExchangeSuite.ASYMKEX2048, RSA_2048)
    assert "finish" not in repr(owner)


class TestLeadingZeros:
    """SP 800-56A 5.7.1.1 and 5.7.1.2, appendix C.1: a secret is as long as the field. One in 256 begins with a zero."""

    @pytest.mark.parametrize("points", CURVES, ids=CURVE_NAMES)
    def test_of_the_device_stay_with_elliptic_curves(
        self,
        points: Points,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        suite, curve, size, random_size = points
        device = ec.derive_private_key(0x5CA45EA1, curve)
        owner = key_with_leading_zero(device.public_key())
        random = bytes(range(random_size))
        monkeypatch.setattr(ec, "generate_private_key", lambda _: device)
        answered = answer(suite, joined(*coordinates(owner.public_key(), size), random), OWNER[suite].public_key())
        x = derived_by_openssl(owner, device.public_key(), tmp_path)
        assert x[0] == 0
        assert len(x) == size
        assert answered.shared.secret == x + split(answered.parameter)[2] + random
        assert split(answered.parameter)[:2] == list(coordinates(device.public_key(), size))

    @pytest.mark.parametrize("points", CURVES, ids=CURVE_NAMES)
    def test_of_the_owner_stay_with_elliptic_curves(self, points: Points, tmp_path: Path) -> None:
        suite, curve, size, random_size = points
        offered = offer(suite, OWNER[suite])
        theirs = point(curve, offered.parameter)
        device = key_with_leading_zero(theirs)
        random = bytes(range(random_size))
        shared = offered.finish(joined(*coordinates(device.public_key(), size), random))
        x = derived_by_openssl(device, theirs, tmp_path)
        assert x[0] == 0
        assert shared.secret == x + random + split(offered.parameter)[2]

    @pytest.mark.parametrize("points", CURVES, ids=CURVE_NAMES)
    def test_of_a_coordinate_stay(
        self,
        points: Points,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        suite, curve, size, _ = points
        keys = (ec.derive_private_key(number, curve) for number in count(2))
        with_zero = next(key for key in keys if coordinates(key.public_key(), size)[0][0] == 0)
        monkeypatch.setattr(ec, "generate_private_key", lambda _: with_zero)
        assert split(offer(suite, OWNER[suite]).parameter)[0][0] == 0

    @pytest.mark.parametrize(("suite", "prime"), GROUPS)
    def test_of_the_device_stay_with_groups(
        self, suite: KeyExchangeSuite, prime: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exponent = 0x5CA45EA1 << 200
        public = pow(2, exponent, prime)
        owner = exponent_with_leading_zero(public, prime)
        group = DHParameterNumbers(prime, 2)
        device = DHPrivateNumbers(exponent, DHPublicNumbers(public, group)).private_key()
        monkeypatch.setattr(key_exchange._ModularGroup, "_new_key", lambda _: device)
        offered = pow(2, owner, prime).to_bytes(prime.bit_length() // 8, "big")
        answered = answer(suite, offered, OWNER[suite].public_key())
        secret = pow(int.from_bytes(answered.parameter, "big"), owner, prime)
        assert secret.bit_length() <= prime.bit_length() - 8
        assert answered.shared.secret == secret.to_bytes(prime.bit_length() // 8, "big")

    @pytest.mark.parametrize(("suite", "prime"), GROUPS)
    def test_of_the_owner_stay_with_groups(self, suite: KeyExchangeSuite, prime: int) -> None:
        offered = offer(suite, OWNER[suite])
        theirs = int.from_bytes(offered.parameter, "big")
        device = exponent_with_leading_zero(theirs, prime)
        secret = pow(theirs, device, prime)
        size = prime.bit_length() // 8
        assert secret.bit_length() <= prime.bit_length() - 8
        assert offered.finish(pow(2, device, prime).to_bytes(size, "big")).secret == secret.to_bytes(size, "big")

    @pytest.mark.parametrize(("suite", "prime"), GROUPS)
    def test_of_a_public_value_may_be_left_out(self, suite: KeyExchangeSuite, prime: int) -> None:
        """One implementation sends numbers without them. 2 to a small power is a public value too."""
        size = prime.bit_length() // 8
        for length in (2, 3, size):
            answered = answer(suite, (2**9).to_bytes(length, "big"), OWNER[suite].public_key())
            assert int.from_bytes(answered.shared.secret, "big") == pow(
                int.from_bytes(answered.parameter, "big"), 9, prime
            )
            assert (len(answered.parameter), len(answered.shared.secret)) == (size, size)


def from_both_sides(suite: KeyExchangeSuite) -> Iterator[Callable[[bytes], object]]:
    """What reads xA, and what reads xB."""
    yield lambda parameter: answer(suite, parameter, OWNER[suite].public_key())
    yield offer(suite, OWNER[suite]).finish


@pytest.mark.parametrize(("suite", "prime"), GROUPS)
def test_a_value_out_of_the_range_is_refused(suite: KeyExchangeSuite, prime: int) -> None:
    """SP 800-56A 5.6.2.3.2: from 2 to p-2."""
    size = prime.bit_length() // 8
    for read in from_both_sides(suite):
        for value in (0, 1, prime - 1, prime, prime + 1, prime + 2, 2 ** (8 * size) - 1):
            with pytest.raises(Fault, match="out of its range"):
                read(value.to_bytes(size, "big"))
        for parameter in (b"", b"\1", b"\0" + (4).to_bytes(size, "big"), bytes(2 * size)):
            with pytest.raises(Fault, match="out of its range"):
                read(parameter)


@pytest.mark.parametrize("points", CURVES, ids=CURVE_NAMES)
def test_a_parameter_that_is_not_well_formed_is_refused(
    points: Points,
) -> None:
    """FDO 1.1, 3.6.2: three lengths that fit the curve, and nothing behind them."""
    suite, curve, size, random_size = points
    x, y = coordinates(ec.derive_private_key(7, curve).public_key(), size)
    random = bytes(random_size)
    right = joined(x, y, random)
    wrong = [
        *(right[:length] for length in range(len(right))),
        right + b"\0",
        right + right,
        joined(x, y),
        joined(x, y, random, b""),
        joined(x, y, random[:-1]),
        joined(x, y, random + b"\0"),
        joined(x, y, b""),
        joined(x[1:], y, random),
        joined(b"\0" + x, y, random),
        joined(x + b"\0", y[1:], random),
        joined(x + y, random),
        b"\xff\xff" + right[2:],
        joined(b"\4" + x + y, random),
    ]
    for read in from_both_sides(suite):
        assert read(right)
        for parameter in wrong:
            with pytest.raises(Fault):
                read(parameter)


@pytest.mark.parametrize("points", CURVES, ids=CURVE_NAMES)
def test_a_point_that_is_not_on_the_curve_is_refused(
    points: Points,
) -> None:
    """SP 800-56A 5.6.2.3.3."""
    suite, curve, size, random_size = points
    x, y = coordinates(ec.derive_private_key(7, curve).public_key(), size)
    zero, ones = bytes(size), b"\xff" * size
    off = y[:-1] + bytes([y[-1] ^ 1])
    for read in from_both_sides(suite):
        for first, second in ((x, off), (y, x), (zero, zero), (zero, y), (x, zero), (ones, ones), (x, ones)):
            with pytest.raises(Fault, match="not on its curve"):
                read(joined(first, second, bytes(random_size)))


def test_a_coordinate_that_is_not_reduced_is_refused() -> None:
    """SP 800-56A 5.6.2.3.3: below the prime of the field."""
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    y = pow(5**3 - 3 * 5 + b, (FIELD + 1) // 4, FIELD).to_bytes(32, "big")
    for read in from_both_sides(KeyExchangeSuite.ECDH256):
        assert read(joined((5).to_bytes(32, "big"), y, bytes(16)))
        with pytest.raises(Fault, match="not on its curve"):
            read(joined((5 + FIELD).to_bytes(32, "big"), y, bytes(16)))


@pytest.mark.parametrize(("suite", "size"), [(KeyExchangeSuite.ASYMKEX2048, 32), (KeyExchangeSuite.ASYMKEX3072, 96)])
def test_a_random_of_another_length_is_refused(suite: KeyExchangeSuite, size: int) -> None:
    """FDO 1.1, 3.6.3: xA in clear, xB encrypted."""
    key = OWNER[suite].public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    finish = offer(suite, OWNER[suite]).finish
    assert finish(key.encrypt(bytes(size), OAEP)).secret == bytes(size)
    for length in (0, size - 1, size + 1):
        with pytest.raises(Fault, match="length"):
            answer(suite, bytes(length), key)
        with pytest.raises(Fault, match="length"):
            finish(key.encrypt(bytes(length), OAEP))


@pytest.mark.parametrize("suite", [KeyExchangeSuite.ASYMKEX2048, KeyExchangeSuite.ASYMKEX3072])
def test_what_cannot_be_decrypted_is_refused(suite: KeyExchangeSuite) -> None:
    key, size = OWNER[suite].public_key(), OWNER[suite].key_size // 8
    assert isinstance(key, rsa.RSAPublicKey)
    right = key.encrypt(bytes(32), OAEP)
    other_hash = padding.OAEP(padding.MGF1(hashes.SHA384()), hashes.SHA384(), None)
    for wrong in (b"", right[:-1], right + b"\0", bytes(size), b"\xff" * size, key.encrypt(bytes(32), other_hash)):
        with pytest.raises(Fault, match="cannot be decrypted"):
            offer(suite, OWNER[suite]).finish(wrong)
