"""Key files (`enroll.keystore.software`) beyond the contract of all stores."""

from __future__ import annotations

import hmac
import os
import ssl
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x448, x25519
from cryptography.x509.oid import NameOID

from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.errors import (
    KeyDamaged,
    KeyNotFound,
    KeyStoreError,
    KeyStoreUnavailable,
    PinRefused,
    StateError,
    UnsupportedKey,
)
from enroll.keystore import software
from enroll.keystore.software import SoftwareKeyStore
from enroll.statefile import StateFiles
from tests.support.mislabelled_key import mislabelled
from tests.support.other_user import error_of

PASSPHRASE = b"a passphrase"


@pytest.fixture
def passphrase_file(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_bytes(PASSPHRASE + b"\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "keys"


@pytest.fixture
def store(directory: Path, passphrase_file: Path) -> SoftwareKeyStore:
    return SoftwareKeyStore(directory, passphrase_file, StateFiles())


def write_key(path: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> None:
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(PASSPHRASE),
        )
    )


def test_the_file_is_encrypted_and_ours_alone(store: SoftwareKeyStore, directory: Path) -> None:
    old = os.umask(0)
    try:
        assert store.generate("device-1", KeyAlgorithm.P_256) == "software:device-1"
    finally:
        os.umask(old)

    path = directory / "device-1.pem"
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert list(directory.iterdir()) == [path]


def test_the_key_is_an_ordinary_key(store: SoftwareKeyStore) -> None:
    key = store.load(store.generate("signing-1", KeyAlgorithm.RSA_4096))

    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.private_numbers().public_numbers.n.bit_length() == 4096


def test_the_key_serves_tls(store: SoftwareKeyStore, tmp_path: Path) -> None:
    uri = store.generate("device-1", KeyAlgorithm.P_256)
    key = store.load(uri)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CT")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + timedelta(days=1)).sign(
        key, hashes.SHA256()
    )
    (tmp_path / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    for_tls = store.tls_key_file(uri)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(tmp_path / "certificate.pem", for_tls.path, for_tls.passphrase)
    assert PASSPHRASE.decode() not in repr(for_tls)
    with pytest.raises(KeyNotFound):
        store.tls_key_file("software:missing")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n",
        b"\x00" * 100,
        b"x" * 20_000,
    ],
    ids=["empty", "unencrypted", "old format", "noise", "huge"],
)
def test_a_file_that_is_no_key_file_is_refused(store: SoftwareKeyStore, directory: Path, content: bytes) -> None:
    directory.mkdir(parents=True)
    (directory / "k.pem").write_bytes(content)

    with pytest.raises(KeyDamaged, match=r"k\.pem") as caught:
        store.load("software:k")
    assert caught.value.code == "key-damaged"
    assert caught.value.remedy


@pytest.mark.parametrize("cut", [60, 200, -2])
def test_a_file_that_was_cut_is_damaged(store: SoftwareKeyStore, directory: Path, cut: int) -> None:
    uri = store.generate("k", KeyAlgorithm.P_256)
    path = directory / "k.pem"
    path.write_bytes(path.read_bytes()[:cut] + b"\n")

    with pytest.raises(KeyDamaged, match=r"k\.pem"):
        store.load(uri)


@pytest.mark.parametrize("changed", ["p", "q", "d", "dmp1", "dmq1", "iqmp", "n", "e"])
def test_a_key_whose_numbers_do_not_belong_together_is_refused(changed: str) -> None:
    """RFC 8017 3.2. OpenSSL is not asked to check them, because that would hold up whatever signs meanwhile."""
    numbers = rsa.generate_private_key(65537, 2048).private_numbers()
    public = numbers.public_numbers
    values = {name: getattr(numbers, name) for name in ("p", "q", "d", "dmp1", "dmq1", "iqmp")}
    values |= {"e": public.e, "n": public.n}
    values[changed] += 2
    public = rsa.RSAPublicNumbers(values.pop("e"), values.pop("n"))
    software._check_numbers(numbers)

    with pytest.raises(ValueError, match="no RSA key"):
        software._check_numbers(rsa.RSAPrivateNumbers(**values, public_numbers=public))


def test_loading_a_long_key_takes_no_time_from_those_that_sign(store: SoftwareKeyStore) -> None:
    """Whatever this thread computes then, it may compute with the lock of the interpreter held."""
    uri = store.generate("k", KeyAlgorithm.RSA_4096)
    store.load(uri)
    before = time.thread_time()
    store.load(uri)

    assert time.thread_time() - before < 0.05


def test_a_key_of_another_passphrase_names_the_ways_out(
    store: SoftwareKeyStore, directory: Path, passphrase_file: Path
) -> None:
    uri = store.generate("k", KeyAlgorithm.P_256)
    passphrase_file.write_bytes(b"another passphrase")

    with pytest.raises(PinRefused, match="passphrase") as caught:
        store.load(uri)
    assert str(directory / "k.pem") in caught.value.what
    assert f"all key files in {directory}" in caught.value.remedy
    assert "[est] username and password_file" in caught.value.remedy
    with pytest.raises(PinRefused, match=r"k\.pem"):
        store.tls_key_file(uri)


def test_a_secret_whose_file_says_another_kind_is_refused(store: SoftwareKeyStore, directory: Path) -> None:
    uri, path = store.generate_secret("s", HmacAlgorithm.SHA256), directory / "s.pem"
    path.write_bytes(mislabelled(path.read_bytes()))

    with pytest.raises(PinRefused, match=r"s\.pem"):
        store.load_secret(uri)


def test_what_the_caller_may_not_read_is_not_called_missing(
    store: SoftwareKeyStore, directory: Path, tmp_path: Path
) -> None:
    store.generate("k", KeyAlgorithm.P_256)
    of_this_store = "SoftwareKeyStore(folder / 'state' / 'keys', folder / 'passphrase', StateFiles())"

    for call in ("load('software:k')", "protection('software:k')", "tls_key_file('software:k')", "list()"):
        said = error_of(f"{of_this_store}.{call}", directory, tmp_path)
        assert said.startswith("KeyStoreUnavailable key-store-unavailable"), said
        assert "cannot be read: Permission denied." in said


def test_keys_of_other_kinds_are_refused(store: SoftwareKeyStore, directory: Path) -> None:
    directory.mkdir(parents=True)
    for name, key in (
        ("short", rsa.generate_private_key(65537, 1024)),  # noqa: S505 - must be refused
        ("curve", ec.generate_private_key(ec.SECP521R1())),
        ("edwards", ed25519.Ed25519PrivateKey.generate()),
    ):
        write_key(directory / f"{name}.pem", key)
        with pytest.raises(UnsupportedKey):
            store.load(f"software:{name}")
        with pytest.raises(KeyNotFound, match="no secret"):
            store.load_secret(f"software:{name}")


def test_a_secret_is_in_the_file_as_it_is_and_computes_the_hmac_of_rfc_2104(
    store: SoftwareKeyStore, directory: Path
) -> None:
    for algorithm, hash_name, length in ((HmacAlgorithm.SHA256, "sha256", 32), (HmacAlgorithm.SHA384, "sha384", 56)):
        uri = store.generate_secret(f"s-{length}", algorithm)
        data = (directory / f"s-{length}.pem").read_bytes()

        inside = serialization.load_pem_private_key(data, PASSPHRASE)

        assert data.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
        assert isinstance(inside, x25519.X25519PrivateKey | x448.X448PrivateKey)
        secret = inside.private_bytes_raw()
        assert len(secret) == length
        assert store.load_secret(uri).sign(b"message") == hmac.digest(secret, b"message", hash_name)


def test_the_key_may_come_from_elsewhere(store: SoftwareKeyStore, directory: Path) -> None:
    directory.mkdir(parents=True)
    key = ec.generate_private_key(ec.SECP256R1())
    write_key(directory / "imported.pem", key)

    assert store.load("software:imported").public_key() == key.public_key()


def test_only_key_files_are_listed(store: SoftwareKeyStore, directory: Path) -> None:
    assert store.list() == ()

    uri = store.generate("k", KeyAlgorithm.P_256)
    for other in (".k.pem.0123456789abcdef", "k.pem.old", "a_b.pem", "-.pem"):
        (directory / other).touch()

    assert store.list() == (uri,)


def test_without_a_passphrase_nothing_is_made(directory: Path) -> None:
    store = SoftwareKeyStore(directory, None, StateFiles())

    with pytest.raises(KeyStoreUnavailable, match="passphrase_file is not set"):
        store.generate("k", KeyAlgorithm.P_256)

    assert not directory.exists()


def test_a_disk_that_refuses_leaves_no_key(store: SoftwareKeyStore, directory: Path) -> None:
    class FullDisk(StateFiles):
        def write(self, path: Path, data: bytes, mode: int = 0o600) -> None:
            raise StateError(f"{path} cannot be written.", remedy="Check free space.")

    store._files = FullDisk()

    with pytest.raises(KeyStoreError, match="cannot be written") as caught:
        store.generate("k", KeyAlgorithm.P_256)

    assert caught.value.remedy == "Check free space."
    assert store.list() == ()
