"""The encrypted part of TO2 (FDO 1.1, 3.6.4 and 4.4): its keys, COSE_Encrypt0 and COSE_Mac0 (RFC 9052 5.2 and 6.2)."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.padding import PKCS7

from enroll.fdo import cbor
from enroll.fdo.fault import Fault
from enroll.fdo.key_exchange import SharedSecret
from enroll.fdo.tunnel import USUAL_SUITES, CipherSuite, Tunnel, open_tunnel
from tests.support.fdo import reference_codec
from tests.support.fdo.vectors import Vector, vectors

SHARED = SharedSecret(bytes(range(64)), b"context of both")
AUTHENTICATED = [
    CipherSuite.A128GCM,
    CipherSuite.A256GCM,
    CipherSuite.AES_CCM_64_128_128,
    CipherSuite.AES_CCM_64_128_256,
]
COMPOSED = [CipherSuite.AES128_CBC, CipherSuite.AES128_CTR, CipherSuite.AES256_CBC, CipherSuite.AES256_CTR]
IV_BYTES = {
    CipherSuite.A128GCM: 12,
    CipherSuite.A256GCM: 12,
    CipherSuite.AES_CCM_64_128_128: 7,
    CipherSuite.AES_CCM_64_128_256: 7,
}
# Algorithm (RFC 9459), of the HMAC (RFC 9053 3.1), bytes of the key and of that of the HMAC, hash.
INNER = {
    CipherSuite.AES128_CBC: (-65531, 5, 16, 16, "sha256"),
    CipherSuite.AES128_CTR: (-65534, 5, 16, 16, "sha256"),
    CipherSuite.AES256_CBC: (-65529, 6, 32, 32, "sha384"),
    CipherSuite.AES256_CTR: (-65532, 6, 32, 32, "sha384"),
}


def cipher(suite: CipherSuite, shared: SharedSecret = SHARED) -> AESGCM | AESCCM:
    """The cipher with the key of the session, both from elsewhere."""
    size = 16 if suite in (CipherSuite.A128GCM, CipherSuite.AES_CCM_64_128_128) else 32
    key = reference_codec.derived(shared.secret, shared.context, size)
    return AESGCM(key) if IV_BYTES[suite] == 12 else AESCCM(key, tag_length=16)


def inner_cipher(suite: CipherSuite, key: bytes, iv: bytes) -> Cipher[Any]:
    return Cipher(AES(key), modes.CBC(iv) if "CBC" in suite.name else modes.CTR(iv))


def composed(suite: CipherSuite, plaintext: bytes, **changes: Any) -> bytes:
    """A COSE_Encrypt0 in a COSE_Mac0, made by hand; `changes` are made before the HMAC."""
    algorithm, mac_algorithm, size, mac_size, digest = INNER[suite]
    keys = reference_codec.derived(SHARED.secret, SHARED.context, size + mac_size, digest)
    iv = changes.get("iv", secrets.token_bytes(16))
    padder = PKCS7(128).padder()
    padded = padder.update(plaintext) + padder.finalize() if "CBC" in suite.name else plaintext
    encryptor = inner_cipher(suite, keys[:size], iv).encryptor()
    ciphertext = changes.get("ciphertext", encryptor.update(padded) + encryptor.finalize())
    inner = cbor2.dumps(
        changes.get("inner", [changes.get("protected", b""), changes.get("headers", {1: algorithm, 5: iv}), ciphertext])
    )
    outer = cbor2.dumps({1: changes.get("mac_algorithm", mac_algorithm)})
    mac = reference_codec.mac0(keys[size:], outer, inner, digest)
    return cbor2.dumps(cbor2.CBORTag(17, [outer, {}, inner, mac]))


@pytest.fixture(params=CipherSuite, ids=[suite.name for suite in CipherSuite])
def suite(request: pytest.FixtureRequest) -> CipherSuite:
    suite: CipherSuite = request.param
    return suite


@pytest.fixture
def device(suite: CipherSuite) -> Tunnel:
    return open_tunnel(suite, SHARED)


@pytest.fixture
def owner(suite: CipherSuite) -> Tunnel:
    return open_tunnel(suite, SHARED)


class TestKeys:
    """SP 800-108 4.1, in counter mode with HMAC."""

    @pytest.mark.parametrize("vector", vectors(), ids=str)
    def test_are_the_recorded_ones(self, vector: Vector) -> None:
        recorded = vector.key_exchange
        assert recorded.session_key == reference_codec.derived(
            recorded.shared_secret, recorded.context_random, len(recorded.session_key)
        )
        tunnel = open_tunnel(CipherSuite(vector.cipher), SharedSecret(recorded.shared_secret, recorded.context_random))
        algorithm, plaintext = reference_codec.open0(AESGCM(recorded.session_key), tunnel.encrypt(b"plaintext"))
        assert (algorithm, plaintext) == (vector.cipher, b"plaintext")

    @pytest.mark.parametrize("suite", AUTHENTICATED)
    @pytest.mark.parametrize(
        "shared",
        [
            SharedSecret(bytes(range(64))),
            SharedSecret(bytes(144)),
            SharedSecret(b"\0" + bytes(range(255))),
            SharedSecret(bytes(384)),
            SharedSecret(bytes(32), bytes(32)),
            SharedSecret(bytes(96), bytes(range(96))),
        ],
        ids=["ECDH256", "ECDH384", "DHKEXid14", "DHKEXid15", "ASYMKEX2048", "ASYMKEX3072"],
    )
    def test_come_out_as_elsewhere_for_every_suite_and_exchange(self, suite: CipherSuite, shared: SharedSecret) -> None:
        body = open_tunnel(suite, shared).encrypt(b"plaintext")
        assert reference_codec.open0(cipher(suite, shared), body) == (suite, b"plaintext")

    def test_depend_on_leading_zeros(self, suite: CipherSuite) -> None:
        """Without the zero that one implementation takes away the other side cannot decrypt."""
        padded, stripped = SharedSecret(b"\0" + bytes(range(1, 64))), SharedSecret(bytes(range(1, 64)))
        with pytest.raises(Fault, match="cannot be decrypted"):
            open_tunnel(suite, stripped).decrypt(open_tunnel(suite, padded).encrypt(b"plaintext"))

    @pytest.mark.parametrize("other", [SharedSecret(bytes(64), SHARED.context), SharedSecret(SHARED.secret, b"other")])
    def test_depend_on_secret_and_context(self, suite: CipherSuite, device: Tunnel, other: SharedSecret) -> None:
        with pytest.raises(Fault, match="cannot be decrypted"):
            open_tunnel(suite, other).decrypt(device.encrypt(b"plaintext"))

    def test_are_not_shown(self, suite: CipherSuite, device: Tunnel) -> None:
        size = 64 if suite in (CipherSuite.AES256_CBC, CipherSuite.AES256_CTR) else 32
        digest = "sha384" if size == 64 else "sha256"
        keys = reference_codec.derived(SHARED.secret, SHARED.context, size, digest)
        assert repr(keys[:8])[2:-1] not in repr(device)
        assert "key" not in repr(device).replace("key_size", "")


@pytest.mark.parametrize("vector", vectors(), ids=str)
def test_every_recorded_message_is_decrypted_and_encrypted_again(vector: Vector) -> None:
    recorded = vector.key_exchange
    shared = SharedSecret(recorded.shared_secret, recorded.context_random)
    encrypted = [body for number, body in vector.all_messages() if number >= 65]
    ivs = [cbor.read(body).tagged(16).array(3)[1].map()[5].bytes() for body in encrypted]
    tunnel, writer = (open_tunnel(CipherSuite(vector.cipher), shared, lambda _: ivs.pop(0)) for _ in range(2))
    for body, plain in zip(encrypted, vector.plaintexts, strict=True):
        assert tunnel.decrypt(body) == plain.content
        assert writer.encrypt(plain.content) == body


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1300, 60_000])
def test_each_side_decrypts_what_the_other_encrypts(device: Tunnel, owner: Tunnel, size: int) -> None:
    plaintext = bytes(size)
    assert owner.decrypt(device.encrypt(plaintext)) == plaintext
    assert device.decrypt(owner.encrypt(plaintext)) == plaintext


@pytest.mark.parametrize("suite", AUTHENTICATED)
def test_what_is_encrypted_elsewhere_is_decrypted(suite: CipherSuite, device: Tunnel) -> None:
    iv = bytes(range(IV_BYTES[suite]))
    assert device.decrypt(reference_codec.seal0(cipher(suite), suite, iv, b"plaintext")) == b"plaintext"


@pytest.mark.parametrize("suite", COMPOSED)
def test_what_is_encrypted_and_authenticated_elsewhere_is_decrypted(suite: CipherSuite, device: Tunnel) -> None:
    for size in (0, 1, 16, 100):
        assert device.decrypt(composed(suite, bytes(size))) == bytes(size)


@pytest.mark.parametrize("suite", COMPOSED)
def test_what_we_encrypt_and_authenticate_is_made_so_elsewhere(suite: CipherSuite) -> None:
    iv = bytes(range(16))
    assert open_tunnel(suite, SHARED, lambda _: iv).encrypt(b"plaintext") == composed(suite, b"plaintext", iv=iv)


def test_the_suites_that_no_two_implementations_share_are_not_usual() -> None:
    assert set(AUTHENTICATED) == USUAL_SUITES


class TestInitializationVectors:
    """SP 800-38D 8, SP 800-38C 5.3, SP 800-38A 6.5: with one key each is used once."""

    def test_are_new_with_every_message(self, device: Tunnel) -> None:
        bodies = [device.encrypt(b"plaintext") for _ in range(100)]
        assert len(set(bodies)) == len(bodies)

    def test_are_not_used_twice_where_the_random_fails(self, suite: CipherSuite) -> None:
        stuck = open_tunnel(suite, SHARED, bytes)
        stuck.encrypt(b"plaintext")
        with pytest.raises(Fault, match="used before"):
            stuck.encrypt(b"another")

    def test_of_the_other_side_are_not_used_again(self, suite: CipherSuite) -> None:
        """Both directions have one key."""
        stuck = open_tunnel(suite, SHARED, bytes)
        stuck.decrypt(open_tunnel(suite, SHARED, bytes).encrypt(b"plaintext"))
        with pytest.raises(Fault, match="used before"):
            stuck.encrypt(b"another")

    def test_tell_a_message_that_is_sent_again(self, device: Tunnel, owner: Tunnel) -> None:
        """The messages have no numbers: whoever is between the two could give an old one for a new one."""
        first, second = owner.encrypt(b"first"), owner.encrypt(b"second")
        assert [device.decrypt(first), device.decrypt(second)] == [b"first", b"second"]
        for again in (first, second):
            with pytest.raises(Fault, match="used before"):
                device.decrypt(again)

    def test_of_a_message_that_is_not_authentic_do_not_count(self, device: Tunnel, owner: Tunnel) -> None:
        body = owner.encrypt(b"plaintext")
        with pytest.raises(Fault, match="cannot be decrypted"):
            device.decrypt(body[:-1] + bytes([body[-1] ^ 1]))
        assert device.decrypt(body) == b"plaintext"


def test_every_byte_counts(device: Tunnel, owner: Tunnel) -> None:
    """Header, initialization vector, ciphertext and what authenticates them."""
    body = owner.encrypt(b"plaintext")
    for at in range(len(body)):
        with pytest.raises(Fault):
            device.decrypt(body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :])
    for end in range(len(body)):
        with pytest.raises(Fault):
            device.decrypt(body[:end])
    with pytest.raises(Fault):
        device.decrypt(body + b"\0")


def test_a_message_of_another_suite_is_refused(suite: CipherSuite, device: Tunnel) -> None:
    """FDO 1.1, 4.4: the suite is agreed on in message 60."""
    for other in set(CipherSuite) - {suite}:
        with pytest.raises(Fault):
            device.decrypt(open_tunnel(other, SHARED).encrypt(b"plaintext"))


Change = Callable[[list[Any]], Any]


@pytest.mark.parametrize("suite", AUTHENTICATED)
@pytest.mark.parametrize(
    "change",
    [
        lambda parts: parts,
        lambda parts: cbor2.CBORTag(96, parts),
        lambda parts: cbor2.CBORTag(17, parts),
        lambda parts: cbor2.CBORTag(16, parts[:2]),
        lambda parts: cbor2.CBORTag(16, [*parts, b""]),
        lambda parts: cbor2.CBORTag(16, [b"", {1: 1, **parts[1]}, parts[2]]),
        lambda parts: cbor2.CBORTag(16, [b"\xa0", *parts[1:]]),
        lambda parts: cbor2.CBORTag(16, [parts[0], {}, parts[2]]),
        lambda parts: cbor2.CBORTag(16, [parts[0], {5: b""}, parts[2]]),
        lambda parts: cbor2.CBORTag(16, [parts[0], {5: parts[1][5][1:]}, parts[2]]),
        lambda parts: cbor2.CBORTag(16, [parts[0], {5: parts[1][5] + b"\0"}, parts[2]]),
        lambda parts: cbor2.CBORTag(16, [parts[0], {6: parts[1][5]}, parts[2]]),
        lambda parts: cbor2.CBORTag(16, [parts[0], {5: "text"}, parts[2]]),
        lambda parts: cbor2.CBORTag(16, [parts[0], {1: 1, **parts[1]}, parts[2]]),
        lambda parts: cbor2.CBORTag(16, [parts[0], parts[1], None]),
        lambda parts: cbor2.CBORTag(16, [parts[0], parts[1], b""]),
        lambda parts: cbor2.CBORTag(16, [parts[0], parts[1], parts[2][:15]]),
    ],
)
def test_a_message_of_another_form_is_refused(device: Tunnel, owner: Tunnel, change: Change) -> None:
    """RFC 9052 3.1 and 5.2."""
    with pytest.raises(Fault):
        device.decrypt(cbor2.dumps(change(cbor2.loads(owner.encrypt(b"plaintext")).value)))


@pytest.mark.parametrize("suite", AUTHENTICATED)
def test_another_header_that_is_authenticated_is_refused(suite: CipherSuite, device: Tunnel) -> None:
    """RFC 9052 3.1: a critical header that is not understood. FDO has the algorithm alone."""
    protected, iv = cbor2.dumps({1: int(suite), 2: [99]}), bytes(IV_BYTES[suite])
    ciphertext = cipher(suite).encrypt(iv, b"plaintext", cbor2.dumps(["Encrypt0", protected, b""]))
    with pytest.raises(Fault, match="in another way"):
        device.decrypt(cbor2.dumps(cbor2.CBORTag(16, [protected, {5: iv}, ciphertext])))


@pytest.mark.parametrize("suite", COMPOSED)
@pytest.mark.parametrize(
    "changes",
    [
        {"mac_algorithm": 4},
        {"mac_algorithm": 7},
        {"inner": b""},
        {"inner": [b"", {}]},
        {"protected": b"\xa1\x01\x01"},
        {"protected": "text"},
        {"headers": {}},
        {"headers": {1: 1, 5: bytes(16)}},
        {"headers": {5: bytes(16)}},
        {"ciphertext": None},
    ],
    ids=str,
)
def test_what_is_authentic_but_not_well_formed_is_refused(
    suite: CipherSuite, device: Tunnel, changes: dict[str, Any]
) -> None:
    with pytest.raises(Fault):
        device.decrypt(composed(suite, b"plaintext", **changes))


@pytest.mark.parametrize("suite", [CipherSuite.AES128_CBC, CipherSuite.AES256_CBC])
def test_wrong_padding_is_refused_as_everything_else_that_cannot_be_decrypted(
    suite: CipherSuite, device: Tunnel
) -> None:
    for ciphertext in (b"", bytes(16), bytes(17)):
        with pytest.raises(Fault, match="cannot be decrypted"):
            device.decrypt(composed(suite, b"", ciphertext=ciphertext))


@pytest.mark.parametrize("suite", COMPOSED)
def test_a_header_that_nobody_authenticated_is_refused(device: Tunnel, owner: Tunnel) -> None:
    """FDO 1.1, 4.4: there is none."""
    protected, _, payload, mac = cbor2.loads(owner.encrypt(b"plaintext")).value
    for headers in ({5: bytes(16)}, {1: 5}, {"x": 0}, b"", None):
        with pytest.raises(Fault):
            device.decrypt(cbor2.dumps(cbor2.CBORTag(17, [protected, headers, payload, mac])))


@pytest.mark.parametrize("suite", COMPOSED)
def test_a_shortened_hmac_is_refused(device: Tunnel, owner: Tunnel) -> None:
    """RFC 9053 3.1: 256/256 and 384/384, not shortened."""
    protected, headers, payload, mac = cbor2.loads(owner.encrypt(b"plaintext")).value
    for shorter in (mac[:8], mac[:16], mac[:-1], b"", mac + b"\0"):
        with pytest.raises(Fault, match="cannot be decrypted"):
            device.decrypt(cbor2.dumps(cbor2.CBORTag(17, [protected, headers, payload, shorter])))
