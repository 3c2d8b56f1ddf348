"""What every key store must do (`enroll.keystore.base.KeyStore`); every back end runs all of it."""

from __future__ import annotations

import contextlib
import pickle
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options, PKCS7SignatureBuilder
from cryptography.x509.oid import NameOID

from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.errors import KeyNotFound, KeyStoreError, PinRefused, UnsupportedKey
from enroll.keystore.base import PrivateKey
from enroll.keystore.keys import HMAC_HASHES
from tests.support.key_stores import ALGORITHMS, WRONG_SECRET, Backend

MESSAGE = b"the bytes that are signed"
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CT 4711")])
NOW = datetime(2026, 1, 1, tzinfo=UTC)

HASHES = [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]

each_hash = pytest.mark.parametrize("hash_algorithm", HASHES, ids=lambda algorithm: algorithm.name)


def digest(message: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
    context = hashes.Hash(algorithm)
    context.update(message)
    return context.finalize()


def sign(key: PrivateKey, data: bytes, algorithm: hashes.HashAlgorithm | Prehashed) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), algorithm)
    return key.sign(data, ec.ECDSA(algorithm))


def verify(key: PrivateKey, signature: bytes, message: bytes, algorithm: hashes.HashAlgorithm) -> None:
    if isinstance(key, rsa.RSAPrivateKey):
        key.public_key().verify(signature, message, padding.PKCS1v15(), algorithm)
    else:
        key.public_key().verify(signature, message, ec.ECDSA(algorithm))


def public_bytes(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def self_issued(key: PrivateKey) -> x509.Certificate:
    builder = x509.CertificateBuilder(NAME, NAME, key.public_key(), 1, NOW, NOW + timedelta(days=1))
    return builder.sign(key, hashes.SHA256())


class TestLife:
    def test_a_key_is_of_the_kind_that_was_asked_for(self, backend: Backend, algorithm: KeyAlgorithm) -> None:
        key = backend.key(algorithm)

        kind = "rsa" if isinstance(key, rsa.RSAPrivateKey) else "p"
        assert f"{kind}-{key.key_size}" == algorithm
        assert key.public_key().key_size == key.key_size

    def test_a_store_without_its_secret_says_so_before_a_key_is_made(self, lasting: Backend, tmp_path: Path) -> None:
        lasting.store.check()

        without = lasting.make(tmp_path / "missing")
        with pytest.raises(KeyStoreError, match="missing"):
            without.check()
        without.close()

    def test_the_uri_names_its_store_and_the_key(self, backend: Backend) -> None:
        name = backend.new_name()

        uri = backend.store.generate(name, KeyAlgorithm.P_256)

        assert uri.startswith(f"{backend.store.scheme}:")
        assert name in uri

    def test_every_key_is_a_new_one(self, backend: Backend) -> None:
        uris = [backend.store.generate(backend.new_name(), KeyAlgorithm.P_256) for _ in range(2)]

        assert len({public_bytes(backend.store.load(uri)) for uri in uris}) == 2

    def test_a_name_is_given_once(self, backend: Backend) -> None:
        name = backend.new_name()
        uri = backend.store.generate(name, KeyAlgorithm.P_256)
        before = public_bytes(backend.store.load(uri))

        with pytest.raises(KeyStoreError, match="already"):
            backend.store.generate(name, KeyAlgorithm.P_256)

        assert public_bytes(backend.store.load(uri)) == before

    def test_the_list_is_sorted_and_complete(self, backend: Backend) -> None:
        made = {backend.store.generate(backend.new_name(), KeyAlgorithm.P_256) for _ in range(3)}

        listed = backend.store.list()

        assert made <= set(listed)
        assert list(listed) == sorted(listed)
        assert all(backend.store.load(uri) for uri in made)

    def test_a_destroyed_key_is_gone_and_its_name_is_free(self, backend: Backend) -> None:
        name = backend.new_name()
        uri = backend.store.generate(name, KeyAlgorithm.P_256)
        backend.store.load(uri)

        backend.store.destroy(uri)

        assert uri not in backend.store.list()
        for use in (backend.store.load, backend.store.protection):
            with pytest.raises(KeyNotFound) as caught:
                use(uri)
            assert caught.value.remedy
        backend.store.destroy(uri)  # nothing happens
        backend.store.generate(name, KeyAlgorithm.P_256)

    def test_another_process_finds_the_same_key(self, lasting: Backend) -> None:
        uri = lasting.uri(KeyAlgorithm.P_256)
        other = lasting.make(lasting.right)
        try:
            assert public_bytes(other.load(uri)) == public_bytes(lasting.store.load(uri))
            assert uri in other.list()
        finally:
            other.close()

    def test_after_close_a_new_store_goes_on(self, lasting: Backend) -> None:
        name = lasting.new_name()
        first = lasting.make(lasting.right)
        uri = first.generate(name, KeyAlgorithm.P_256)
        first.close()
        first.close()

        second = lasting.make(lasting.right)
        key = second.load(uri)

        verify(key, sign(key, MESSAGE, hashes.SHA256()), MESSAGE, hashes.SHA256())
        second.close()

    def test_a_key_in_memory_is_nobody_elses(self, in_memory: Backend) -> None:
        uri = in_memory.store.generate(in_memory.new_name(), KeyAlgorithm.P_256)
        other = in_memory.make(in_memory.right)

        assert other.list() == ()
        with pytest.raises(KeyNotFound, match="in memory"):
            other.load(uri)

    def test_nothing_here_is_hardware(self, backend: Backend) -> None:
        """SoftHSM, a simulated TPM, files: protection is never better than what is shown."""
        assert backend.store.protection(backend.uri(KeyAlgorithm.P_256)) is backend.traits.protection

    def test_other_kinds_of_key_are_refused_and_leave_nothing(self, backend: Backend) -> None:
        before = backend.store.list()

        for algorithm in set(ALGORITHMS) - set(backend.traits.algorithms):
            with pytest.raises(UnsupportedKey) as caught:
                backend.store.generate(backend.new_name(), algorithm)
            assert caught.value.remedy
        for hmac_algorithm in set(HmacAlgorithm) - set(backend.traits.hmacs):
            with pytest.raises(UnsupportedKey) as caught:
                backend.store.generate_secret(backend.new_name(), hmac_algorithm)
            assert caught.value.remedy

        assert backend.store.list() == before


class TestSecrets:
    """Message authentication with a secret that stays in its store (RFC 2104)."""

    def test_the_code_depends_on_every_byte_and_on_nothing_else(
        self, backend: Backend, hmac_algorithm: HmacAlgorithm
    ) -> None:
        secret = backend.secret(hmac_algorithm)
        of_message = secret.sign(MESSAGE)

        assert len(of_message) == HMAC_HASHES[hmac_algorithm].digest_size
        assert secret.sign(MESSAGE) == backend.secret(hmac_algorithm).sign(MESSAGE) == of_message
        others = {secret.sign(data) for data in (b"", MESSAGE[:-1], MESSAGE + b"\0", b"x" * 5000)}
        assert len(others | {of_message}) == 5

    def test_every_secret_is_a_new_one(self, backend: Backend, hmac_algorithm: HmacAlgorithm) -> None:
        uris = [backend.store.generate_secret(backend.new_name(), hmac_algorithm) for _ in range(2)]

        codes = {backend.store.load_secret(uri).sign(MESSAGE) for uri in uris}
        for uri in uris:
            backend.store.destroy(uri)

        assert len(codes) == 2

    def test_another_process_computes_the_same(self, lasting: Backend, hmac_algorithm: HmacAlgorithm) -> None:
        expected = lasting.secret(hmac_algorithm).sign(MESSAGE)
        other = lasting.make(lasting.right)
        try:
            assert other.load_secret(lasting.uris[hmac_algorithm]).sign(MESSAGE) == expected
        finally:
            other.close()

    def test_keys_and_secrets_share_their_names(self, backend: Backend, hmac_algorithm: HmacAlgorithm) -> None:
        name = backend.new_name()
        uri = backend.store.generate_secret(name, hmac_algorithm)
        with pytest.raises(KeyStoreError, match="already"):
            backend.store.generate(name, KeyAlgorithm.P_256)
        with pytest.raises(KeyStoreError, match="already"):
            backend.store.generate_secret(name, hmac_algorithm)

        assert uri in backend.store.list()
        assert backend.store.protection(uri) is backend.traits.protection
        backend.store.destroy(uri)
        assert uri not in backend.store.list()
        with pytest.raises(KeyNotFound):
            backend.store.load_secret(uri)
        backend.store.destroy(backend.store.generate(name, KeyAlgorithm.P_256))

    def test_a_secret_is_no_key_and_a_key_no_secret(self, backend: Backend, hmac_algorithm: HmacAlgorithm) -> None:
        backend.secret(hmac_algorithm)

        with pytest.raises(KeyNotFound):
            backend.store.load(backend.uris[hmac_algorithm])
        with pytest.raises(KeyNotFound):
            backend.store.load_secret(backend.uri(KeyAlgorithm.P_256))

    def test_a_secret_shows_its_kind_and_nothing_else(self, backend: Backend, hmac_algorithm: HmacAlgorithm) -> None:
        secret = backend.secret(hmac_algorithm)

        assert re.fullmatch(r"\w+HmacKey\([\w-]*\)", repr(secret))
        with pytest.raises((UnsupportedKey, TypeError)):
            pickle.dumps(secret)


class TestSigning:
    @each_hash
    def test_a_message_and_its_digest_give_valid_signatures(
        self, backend: Backend, algorithm: KeyAlgorithm, hash_algorithm: hashes.HashAlgorithm
    ) -> None:
        key = backend.key(algorithm)

        of_message = sign(key, MESSAGE, hash_algorithm)
        of_digest = sign(key, digest(MESSAGE, hash_algorithm), Prehashed(hash_algorithm))

        verify(key, of_message, MESSAGE, hash_algorithm)
        verify(key, of_digest, MESSAGE, hash_algorithm)
        with pytest.raises(InvalidSignature):
            verify(key, of_message, MESSAGE + b"x", hash_algorithm)

    @each_hash
    @pytest.mark.parametrize(
        "salt", [0, 20, padding.PSS.DIGEST_LENGTH, padding.PSS.MAX_LENGTH], ids=["0", "20", "digest", "max"]
    )
    def test_pss_uses_exactly_the_salt_that_was_asked_for(
        self, backend: Backend, rsa_algorithm: KeyAlgorithm, hash_algorithm: hashes.HashAlgorithm, salt: object
    ) -> None:
        key = backend.key(rsa_algorithm)
        assert isinstance(key, rsa.RSAPrivateKey)
        pss = padding.PSS(padding.MGF1(hash_algorithm), salt)  # type: ignore[arg-type]

        if not (backend.traits.any_salt or salt is padding.PSS.DIGEST_LENGTH):
            with pytest.raises(UnsupportedKey):
                key.sign(MESSAGE, pss, hash_algorithm)
            return
        of_message = key.sign(MESSAGE, pss, hash_algorithm)
        of_digest = key.sign(digest(MESSAGE, hash_algorithm), pss, Prehashed(hash_algorithm))

        key.public_key().verify(of_message, MESSAGE, pss, hash_algorithm)
        key.public_key().verify(of_digest, MESSAGE, pss, hash_algorithm)

    def test_a_digest_of_the_wrong_length_is_refused(self, backend: Backend) -> None:
        for algorithm in (KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256):
            with pytest.raises((KeyStoreError, ValueError)):
                sign(backend.key(algorithm), b"x" * 31, Prehashed(hashes.SHA256()))

    @pytest.mark.parametrize("one_of_each", [KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256])
    def test_threads_share_a_key(self, backend: Backend, one_of_each: KeyAlgorithm) -> None:
        key = backend.key(one_of_each)
        messages = [number.to_bytes(2, "big") for number in range(100)]

        with ThreadPoolExecutor(4) as pool:
            signatures = list(pool.map(lambda message: sign(key, message, hashes.SHA256()), messages))

        for message, signature in zip(messages, signatures, strict=True):
            verify(key, signature, message, hashes.SHA256())


class TestBuilders:
    """Everything of `cryptography` that takes a private key."""

    def test_certificate_request(self, backend: Backend, algorithm: KeyAlgorithm) -> None:
        builder = x509.CertificateSigningRequestBuilder(NAME)

        assert builder.sign(backend.key(algorithm), hashes.SHA256()).is_signature_valid

    def test_certificate(self, backend: Backend, algorithm: KeyAlgorithm) -> None:
        certificate = self_issued(backend.key(algorithm))

        certificate.verify_directly_issued_by(certificate)

    def test_revocation_list(self, backend: Backend, algorithm: KeyAlgorithm) -> None:
        key = backend.key(algorithm)
        builder = x509.CertificateRevocationListBuilder(NAME, NOW, NOW + timedelta(days=1))

        assert builder.sign(key, hashes.SHA384()).is_signature_valid(key.public_key())

    @pytest.mark.parametrize("options", [[PKCS7Options.NoAttributes], []], ids=["plain", "attributes"])
    def test_cms(
        self,
        backend: Backend,
        algorithm: KeyAlgorithm,
        options: list[PKCS7Options],
        openssl_cms: Callable[[bytes, x509.Certificate], bytes],
    ) -> None:
        key = backend.key(algorithm)
        builder = PKCS7SignatureBuilder().set_data(MESSAGE).add_signer(self_issued(key), key, hashes.SHA256())

        message = builder.sign(serialization.Encoding.DER, [*options, PKCS7Options.Binary])

        assert openssl_cms(message, self_issued(key)) == MESSAGE

    @pytest.mark.parametrize("salt", [padding.PSS.DIGEST_LENGTH, padding.PSS.MAX_LENGTH], ids=["digest", "max"])
    def test_pss_in_a_certificate_request_says_what_was_signed(self, backend: Backend, salt: object) -> None:
        key = backend.key(KeyAlgorithm.RSA_2048)
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt)  # type: ignore[arg-type]
        builder = x509.CertificateSigningRequestBuilder(NAME)

        if not (backend.traits.any_salt or salt is padding.PSS.DIGEST_LENGTH):
            with pytest.raises(UnsupportedKey):
                builder.sign(key, hashes.SHA256(), rsa_padding=pss)
            return
        request = builder.sign(key, hashes.SHA256(), rsa_padding=pss)

        assert request.is_signature_valid


class TestRefusals:
    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "a b", "a.pem", "-a", "a-", "ä", "a\n", "a" * 65])
    def test_a_name_that_could_be_more_than_a_name(self, backend: Backend, name: str) -> None:
        before = backend.store.list()

        with pytest.raises(KeyStoreError) as caught:
            backend.store.generate(name, KeyAlgorithm.P_256)

        assert caught.value.remedy
        assert backend.store.list() == before

    def test_a_uri_that_names_nothing(self, backend: Backend) -> None:
        before = backend.store.list()

        for uri in (*backend.hostile_uris, "", ":", "file:/etc/passwd", f"{backend.store.scheme}:{'a' * 5000}"):
            for use in (backend.store.load, backend.store.load_secret, backend.store.protection):
                with pytest.raises(KeyNotFound):
                    use(uri)
            with contextlib.suppress(KeyNotFound):
                backend.store.destroy(uri)
        assert backend.store.list() == before

    def test_a_wrong_secret(self, lasting: Backend) -> None:
        """Checked against the store itself: in a token, the login of another store would hide it."""
        uri = lasting.uri(KeyAlgorithm.P_256)
        lasting.store.close()
        store = lasting.make(lasting.wrong)

        with pytest.raises(PinRefused) as caught:
            store.load(uri)

        for text in (str(caught.value), repr(caught.value), repr(store), str(vars(caught.value))):
            assert WRONG_SECRET not in text
        assert caught.value.remedy
        lasting.store = lasting.make(lasting.right)
