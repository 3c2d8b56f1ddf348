"""Vouchers between go-fdo and ours: each verifies and passes on what the other has made.

And those that go-fdo keeps for its own tests, from two other implementations: read where they are, never copied.
"""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from enroll.certificates import pem
from enroll.fdo import cbor
from enroll.fdo.hashes import HashAlgorithm
from enroll.fdo.public_key import KeyEncoding, KeyType
from enroll.fdo.rendezvous import Directive, RendezvousProtocol, read_directives
from enroll.fdo.voucher import ENTRIES_LIMIT, Voucher
from tests.support.fdo.go_peer import run_go_voucher
from tests.support.fdo.reference_voucher import verified
from tests.support.fdo.vouchers import EVERY_KIND, KINDS, PrivateKey, factory_voucher, party, voucher_with

_MODULE = "github.com/fido-device-onboard/go-fdo"
_VERSION = "v0.0.0-20260204145003-2d3d7c734680"


@cache
def _folder() -> Path | None:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        return None
    asked = subprocess.run([go, "env", "GOMODCACHE"], check=False, capture_output=True, text=True, timeout=60)
    folder = Path(asked.stdout.strip(), f"{_MODULE}@{_VERSION}", "testdata")
    return folder if folder.is_dir() else None


def file(name: str) -> bytes:
    """One of the files of its test data."""
    folder = _folder()
    if folder is None:
        pytest.skip(f"needs go-fdo in the Go module cache: go mod download {_MODULE}@{_VERSION}")
    return (folder / name).read_bytes()


def test_a_voucher_of_the_factory_holds() -> None:
    voucher = Voucher.read(file("ov.pem"))
    header = voucher.header
    assert (header.device_info, len(voucher.entries), len(voucher.device_chain)) == ("go.fdo.example", 0, 2)
    assert (header.manufacturer.kind, header.manufacturer.encoding) == (KeyType.SECP384R1, KeyEncoding.X509)
    assert voucher.verify().owner == header.manufacturer
    assert voucher.pem == file("ov.pem").replace(b"\r\n", b"\n")


def test_a_voucher_of_six_owners_holds() -> None:
    voucher = Voucher.read(file("ov_extended.pem"))
    chain = voucher.verify()
    assert [owner.kind for owner in chain.owners] == [KeyType.RSA_2048_RESTRICTED] * 7
    assert len({owner.fingerprint for owner in chain.owners}) == 7
    assert chain.algorithm is HashAlgorithm.SHA256


@pytest.mark.parametrize("name", ["ov.pem", "ov_extended.pem"])
def test_a_second_verifier_says_the_same(name: str) -> None:
    chain, second = Voucher.read(file(name)).verify(), verified(file(name))
    assert second.owners == tuple(owner.fingerprint for owner in chain.owners)
    assert second.fingerprint == chain.fingerprint


def test_their_rendezvous_servers_are_found() -> None:
    found = [
        read_directives(cbor.read(Voucher.read(file(name)).header.rendezvous.encoded))
        for name in ("ov.pem", "ov_extended.pem")
    ]
    assert found == [
        (
            Directive(("192.168.122.1",), 8082, RendezvousProtocol.HTTP),
            Directive(("fdo.example.com",), 8082, RendezvousProtocol.HTTP),
        ),
        (Directive(("127.0.0.1",), 7777, RendezvousProtocol.HTTP),),
    ]


def test_a_voucher_of_the_factory_is_extended_with_the_key_of_its_manufacturer() -> None:
    """Its device has a weaker key than its manufacturer; the HMAC says how strong the hashes are."""
    voucher = Voucher.read(file("ov.pem"))
    key = serialization.load_pem_private_key(file("mfg_key.pem"), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    following = ec.generate_private_key(ec.SECP384R1())
    extended = voucher.extend(key, voucher.name_owner(following.public_key()))
    assert extended.verify().algorithm is HashAlgorithm.SHA384
    assert verified(extended.pem).owners[-1] == extended.verify().owner.fingerprint


def written(folder: Path, content: bytes, name: str = "voucher.pem") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def key_file(folder: Path, key: PrivateKey) -> Path:
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return written(folder, encoded, "key.pem")


def public_file(folder: Path, key: PrivateKey) -> Path:
    encoded = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return written(folder, encoded, "next.pem")


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize(("kind", "encoding"), EVERY_KIND, ids=str)
def test_go_fdo_verifies_what_we_have_extended(kind: str, encoding: KeyEncoding, count: int, tmp_path: Path) -> None:
    voucher, owner = voucher_with(count, kind, encoding)
    extended = voucher.extend(owner.key, voucher.name_owner(party("Next", kind, 2).chain))
    said = run_go_voucher(written(tmp_path, extended.pem))
    assert (said.returncode, said.stderr) == (0, b"")


@pytest.mark.parametrize("kind", [KeyType.RSA_PKCS, KeyType.RSA_PSS])
def test_go_fdo_verifies_both_kinds_of_rsa_signatures(kind: KeyType, tmp_path: Path) -> None:
    maker, owner = party("Maker", "RSA-2048", 0), party("Owner", "RSA-2048", 1)
    sold = factory_voucher(maker, kind=kind).extend(maker.key, owner.public(kind=kind))
    again = sold.extend(owner.key, maker.public(kind=kind))
    assert run_go_voucher(written(tmp_path, again.pem)).returncode == 0


def test_go_fdo_verifies_a_full_voucher_of_ours(tmp_path: Path) -> None:
    voucher, _ = voucher_with(ENTRIES_LIMIT)
    assert run_go_voucher(written(tmp_path, voucher.pem)).returncode == 0


def test_go_fdo_refuses_what_we_refuse(tmp_path: Path) -> None:
    voucher, _ = voucher_with(3)
    wrong = Voucher.make(voucher.header, voucher.hmac, voucher.device_chain, voucher.entries[1:])
    assert run_go_voucher(written(tmp_path, wrong.pem)).returncode == 1


@pytest.mark.parametrize(("kind", "encoding"), EVERY_KIND, ids=str)
def test_we_verify_what_go_fdo_has_extended(kind: str, encoding: KeyEncoding, tmp_path: Path) -> None:
    """What the supply chain adds to an entry is passed over."""
    voucher, owner = voucher_with(1, kind, encoding)
    following = party("Next", kind, 2)
    following_file = (
        written(tmp_path, pem(following.chain), "next.pem")
        if encoding is KeyEncoding.X5CHAIN
        else public_file(tmp_path, following.key)
    )
    said = run_go_voucher(written(tmp_path, voucher.pem), key_file(tmp_path, owner.key), following_file)
    assert said.stderr == b""
    assert Voucher.read(said.stdout).verify().owners[-1] == following.public(encoding, KINDS[kind])


def test_we_verify_hashes_that_are_weaker_than_the_hmac(tmp_path: Path) -> None:
    """FDO 1.1, 3.3.1. This device has P-256 and its manufacturer P-384; go-fdo takes the weaker hash of the two."""
    voucher = written(tmp_path, file("ov.pem"))
    maker = serialization.load_pem_private_key(file("mfg_key.pem"), None)
    assert isinstance(maker, ec.EllipticCurvePrivateKey)
    following = party("Next", "P-384")
    said = run_go_voucher(voucher, key_file(tmp_path, maker), public_file(tmp_path, following.key))
    extended = Voucher.read(said.stdout)
    assert extended.hmac.algorithm is HashAlgorithm.HMAC_SHA384
    assert extended.verify().algorithm is HashAlgorithm.SHA256
    again = extended.extend(following.key, extended.name_owner(following.key.public_key()))
    assert run_go_voucher(written(tmp_path, again.pem)).returncode == 0
