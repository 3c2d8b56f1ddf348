"""Keys of the stores as other programs see them: OpenSC's pkcs11-tool and openssl."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from enroll.algorithms import KeyAlgorithm
from enroll.keystore.base import KeyStore
from enroll.keystore.software import SoftwareKeyStore
from enroll.keystore.tokenuri import TokenUri
from enroll.statefile import StateFiles
from tests.support.softhsm import PIN, SoftHsm, softhsm_of_this_process

MESSAGE = b"the bytes that are signed"
PUBLIC = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    if shutil.which("pkcs11-tool") is None:
        pytest.skip("no pkcs11-tool on the PATH: apt-get install opensc")
    return softhsm_of_this_process(tmp_path_factory.getbasetemp())


@pytest.fixture
def store(softhsm: SoftHsm) -> Iterator[KeyStore]:
    store = softhsm.store(softhsm.copy("tools"), "spare")
    yield store
    store.close()


def pkcs11_tool(softhsm: SoftHsm, *arguments: str) -> str:
    command = ["pkcs11-tool", "--module", str(softhsm.library), "--token-label", "spare", "--login", "--pin", PIN]
    run = subprocess.run([*command, *arguments], check=False, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256])
def test_pkcs11_tool_sees_a_key_that_never_was_outside(
    softhsm: SoftHsm, store: KeyStore, algorithm: KeyAlgorithm
) -> None:
    uri = store.generate(f"seen-{algorithm}", algorithm)

    listed = pkcs11_tool(softhsm, "--list-objects", "--type", "privkey").split("Private Key Object")
    shown = next(entry for entry in listed if f"scanseal-seen-{algorithm}" in entry)
    lines = dict(line.strip().split(":", 1) for line in shown.splitlines() if ":" in line)

    assert lines["Usage"].strip() == "sign"
    access = lines["Access"].replace(",", " ").split()
    assert {"sensitive", "always", "never", "extractable", "local"} <= set(access)
    store.destroy(uri)
    assert f"scanseal-seen-{algorithm}" not in pkcs11_tool(softhsm, "--list-objects")


def test_pkcs11_tool_signs_with_our_key(softhsm: SoftHsm, store: KeyStore, tmp_path: Path) -> None:
    uri = store.generate("signs-elsewhere", KeyAlgorithm.RSA_2048)
    key = store.load(uri)
    assert isinstance(key, rsa.RSAPrivateKey)
    identifier = TokenUri.parse(uri).identifier or b""
    (tmp_path / "data").write_bytes(MESSAGE)

    files = ["--input-file", str(tmp_path / "data"), "--output-file", str(tmp_path / "signature")]
    pkcs11_tool(softhsm, "--sign", "--mechanism", "SHA256-RSA-PKCS", "--id", identifier.hex(), *files)

    theirs = (tmp_path / "signature").read_bytes()
    assert theirs == key.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256())  # RFC 8017 8.2 has no randomness
    store.destroy(uri)


@pytest.mark.parametrize("kind", ["rsa:2048", "EC:secp384r1"])
def test_a_key_made_by_pkcs11_tool_loads_and_signs(softhsm: SoftHsm, store: KeyStore, kind: str) -> None:
    label = f"made by pkcs11-tool: {kind}"
    pkcs11_tool(softhsm, "--keypairgen", "--key-type", kind, "--label", label, "--id", "0a0b", "--usage-sign")
    key = store.load(str(TokenUri("spare", label, b"\x0a\x0b")))
    try:
        if isinstance(key, rsa.RSAPrivateKey):
            signature = key.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256())
            key.public_key().verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA256())
        else:
            assert key.curve.name == "secp384r1"
            key.public_key().verify(key.sign(MESSAGE, ec.ECDSA(hashes.SHA512())), MESSAGE, ec.ECDSA(hashes.SHA512()))
    finally:
        for type_ in ("privkey", "pubkey"):
            pkcs11_tool(softhsm, "--delete-object", "--type", type_, "--id", "0a0b")


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.RSA_3072, KeyAlgorithm.P_384])
def test_openssl_opens_a_key_file_and_signs_with_it(tmp_path: Path, algorithm: KeyAlgorithm) -> None:
    passphrase_file = tmp_path / "passphrase"
    passphrase_file.write_text("a passphrase\n", "utf-8")
    passphrase_file.chmod(0o600)
    store = SoftwareKeyStore(tmp_path / "keys", passphrase_file, StateFiles())
    key = store.load(store.generate("k", algorithm))
    (tmp_path / "data").write_bytes(MESSAGE)

    command = ["openssl", "dgst", "-sha256", "-sign", "keys/k.pem", "-passin", "file:passphrase", "data"]
    signature = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60).stdout

    if isinstance(key, rsa.RSAPrivateKey):
        key.public_key().verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA256())
    else:
        key.public_key().verify(signature, MESSAGE, ec.ECDSA(hashes.SHA256()))


def test_openssl_verifies_what_a_token_signed(store: KeyStore, tmp_path: Path) -> None:
    uri = store.generate("verified-elsewhere", KeyAlgorithm.P_256)
    key = store.load(uri)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    (tmp_path / "public").write_bytes(key.public_key().public_bytes(*PUBLIC))
    (tmp_path / "signature").write_bytes(key.sign(MESSAGE, ec.ECDSA(hashes.SHA384())))
    command = ["openssl", "dgst", "-sha384", "-verify", "public", "-signature", "signature", "data"]

    for data, status in ((MESSAGE, 0), (MESSAGE + b"x", 1)):
        (tmp_path / "data").write_bytes(data)
        assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, timeout=60).returncode == status
    store.destroy(uri)
