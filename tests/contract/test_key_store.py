"""What every key store must do (`enroll.keystore.base.KeyStore`); every back end runs all of it."""

from __future__ import annotations

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

from enroll.algorithms import KeyAlgorithm
from enroll.errors import KeyNotFound, KeyStoreError, PinRefused
from enroll.keystore.base import PrivateKey, Protection
from tests.support.key_stores import WRONG_SECRET, Backend

MESSAGE = b"the bytes that are signed"
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CT 4711")])
NOW = datetime(2026, 1, 1, tzinfo=UTC)

ALGORITHMS = [KeyAlgorithm.RSA_2048, KeyAlgorithm.RSA_3072, KeyAlgorithm.P_256, KeyAlgorithm.P_384]
RSA = [KeyAlgorithm.RSA_2048, KeyAlgorithm.RSA_3072]
HASHES = [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]

each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)
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
    @each_algorithm
    def test_a_key_is_of_the_kind_that_was_asked_for(self, backend: Backend, algorithm: KeyAlgorithm) -> None:
        key = backend.key(algorithm)

        kind = "rsa" if isinstance(key, rsa.RSAPrivateKey) else "p"
        assert f"{kind}-{key.key_size}" == algorithm
        assert key.public_key().key_size == key.key_size

    def test_a_store_without_its_secret_says_so_before_a_key_is_made(self, backend: Backend, tmp_path: Path) -> None:
        backend.store.check()

        without = backend.make(tmp_path / "missing")
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

    def test_another_process_finds_the_same_key(self, backend: Backend) -> None:
        uri = backend.uri(KeyAlgorithm.P_256)
        other = backend.make(backend.right)
        try:
            assert public_bytes(other.load(uri)) == public_bytes(backend.store.load(uri))
            assert uri in other.list()
        finally:
            other.close()

    def test_after_close_a_new_store_goes_on(self, backend: Backend) -> None:
        name = backend.new_name()
        first = backend.make(backend.right)
        uri = first.generate(name, KeyAlgorithm.P_256)
        first.close()
        first.close()

        second = backend.make(backend.right)
        key = second.load(uri)

        verify(key, sign(key, MESSAGE, hashes.SHA256()), MESSAGE, hashes.SHA256())
        second.close()

    def test_nothing_here_is_hardware(self, backend: Backend) -> None:
        assert backend.store.protection(backend.uri(KeyAlgorithm.P_256)) is Protection.SOFTWARE


class TestSigning:
    @each_algorithm
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

    @pytest.mark.parametrize("algorithm", RSA)
    @each_hash
    @pytest.mark.parametrize(
        "salt", [0, 20, padding.PSS.DIGEST_LENGTH, padding.PSS.MAX_LENGTH], ids=["0", "20", "digest", "max"]
    )
    def test_pss_uses_exactly_the_salt_that_was_asked_for(
        self, backend: Backend, algorithm: KeyAlgorithm, hash_algorithm: hashes.HashAlgorithm, salt: int
    ) -> None:
        key = backend.key(algorithm)
        assert isinstance(key, rsa.RSAPrivateKey)
        pss = padding.PSS(padding.MGF1(hash_algorithm), salt)

        of_message = key.sign(MESSAGE, pss, hash_algorithm)
        of_digest = key.sign(digest(MESSAGE, hash_algorithm), pss, Prehashed(hash_algorithm))

        key.public_key().verify(of_message, MESSAGE, pss, hash_algorithm)
        key.public_key().verify(of_digest, MESSAGE, pss, hash_algorithm)

    def test_a_digest_of_the_wrong_length_is_refused(self, backend: Backend) -> None:
        for algorithm in (KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256):
            with pytest.raises((KeyStoreError, ValueError)):
                sign(backend.key(algorithm), b"x" * 31, Prehashed(hashes.SHA256()))

    @pytest.mark.parametrize("algorithm", [KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256])
    def test_threads_share_a_key(self, backend: Backend, algorithm: KeyAlgorithm) -> None:
        key = backend.key(algorithm)
        messages = [number.to_bytes(2, "big") for number in range(100)]

        with ThreadPoolExecutor(4) as pool:
            signatures = list(pool.map(lambda message: sign(key, message, hashes.SHA256()), messages))

        for message, signature in zip(messages, signatures, strict=True):
            verify(key, signature, message, hashes.SHA256())


class TestBuilders:
    """Everything of `cryptography` that takes a private key."""

    @each_algorithm
    def test_certificate_request(self, backend: Backend, algorithm: KeyAlgorithm) -> None:
        builder = x509.CertificateSigningRequestBuilder(NAME)

        assert builder.sign(backend.key(algorithm), hashes.SHA256()).is_signature_valid

    @each_algorithm
    def test_certificate(self, backend: Backend, algorithm: KeyAlgorithm) -> None:
        certificate = self_issued(backend.key(algorithm))

        certificate.verify_directly_issued_by(certificate)

    @each_algorithm
    def test_revocation_list(self, backend: Backend, algorithm: KeyAlgorithm) -> None:
        key = backend.key(algorithm)
        builder = x509.CertificateRevocationListBuilder(NAME, NOW, NOW + timedelta(days=1))

        assert builder.sign(key, hashes.SHA384()).is_signature_valid(key.public_key())

    @each_algorithm
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
    def test_pss_in_a_certificate_request_says_what_was_signed(self, backend: Backend, salt: int) -> None:
        key = backend.key(KeyAlgorithm.RSA_2048)
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt)

        request = x509.CertificateSigningRequestBuilder(NAME).sign(key, hashes.SHA256(), rsa_padding=pss)

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
        for uri in (*backend.hostile_uris, "", ":", "file:/etc/passwd", f"{backend.store.scheme}:{'a' * 5000}"):
            for use in (backend.store.load, backend.store.protection, backend.store.destroy):
                with pytest.raises(KeyNotFound):
                    use(uri)

    def test_a_wrong_secret(self, backend: Backend) -> None:
        """Checked against the store itself: in a token, the login of another store would hide it."""
        uri = backend.uri(KeyAlgorithm.P_256)
        backend.store.close()
        store = backend.make(backend.wrong)

        with pytest.raises(PinRefused) as caught:
            store.load(uri)

        for text in (str(caught.value), repr(caught.value), repr(store), str(vars(caught.value))):
            assert WRONG_SECRET not in text
        assert caught.value.remedy
        backend.store = backend.make(backend.right)
