"""PKCS#12 files (RFC 7292): what holds one encrypted RSA key with its certificate is opened, in bounded time."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from enroll import der
from enroll.certificates import check_pair, pem
from enroll.errors import ConfigurationError, ScansealError
from enroll.statefile import StateFiles
from enroll.vendor.pkcs12 import FILE_LIMIT, read_passphrase, read_pkcs12
from tests.support.openssl import needs_openssl
from tests.support.pki import new_key
from tests.unit.test_vendor_import import KEY, VENDOR_WIDE, Vendor

PASSPHRASE = b"the passphrase of the vendor"
DATA = der.object_identifier("1.2.840.113549.1.7.1")


@pytest.fixture
def vendor(tmp_path: Path) -> Vendor:
    return Vendor(tmp_path)


def packed(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None,
    certificate: x509.Certificate | None,
    others: list[x509.Certificate] | None = None,
    rounds: int = 2048,
) -> bytes:
    encryption = serialization.PrivateFormat.PKCS12.encryption_builder().kdf_rounds(rounds).build(PASSPHRASE)
    return pkcs12.serialize_key_and_certificates(b"vendor", key, certificate, others, encryption)


def test_a_file_gives_its_key_with_the_certificates(vendor: Vendor, tmp_path: Path) -> None:
    path = tmp_path / "vendor.p12"
    certificate = vendor.certificate()
    path.write_bytes(packed(KEY, certificate, [vendor.ca.certificate]))

    found = read_pkcs12(path, PASSPHRASE, StateFiles())
    check_pair(found.key, certificate)
    assert (found.certificate, found.others) == (certificate, (vendor.ca.certificate,))
    assert "key=" not in repr(found)


def _slow(vendor: Vendor, part: int) -> bytes:
    """The count of one part is changed afterwards, because nobody waits for such a file to be made."""
    data, count, large = packed(KEY, vendor.certificate(), rounds=0x10000), "0203010000", "0203ffffff"
    parts = data.split(bytes.fromhex(count))
    assert len(parts) == 3, "certificate and key are encrypted, each by itself"
    counts = [large if each == part else count for each in range(2)]
    return parts[0] + b"".join(bytes.fromhex(count) + rest for count, rest in zip(counts, parts[1:], strict=True))


def _in_pieces(vendor: Vendor) -> bytes:
    """BER (X.690 8.7.3): what is in the OCTET STRING can be read, though not as one value of DER."""
    data = packed(KEY, vendor.certificate())
    start = data.index(DATA) + len(DATA)
    explicit = der.announced_length(data[start:])
    assert explicit
    octets = data[start + 4 + 4 : start + explicit]
    pieces = der.encode(0x24, der.encode(0x04, octets[:1]) + der.encode(0x04, octets[1:]))
    info = der.encode(0x30, DATA + der.encode(0xA0, pieces))
    return der.encode(0x30, bytes.fromhex("020103") + info + data[start + explicit :])


def _with_scrypt(vendor: Vendor) -> bytes:
    """The object identifier of PBKDF2 in the key's part becomes that of scrypt, and nothing fits any more."""
    data = packed(KEY, vendor.certificate())
    pbkdf2, scrypt = bytes.fromhex("06092a864886f70d01050c"), bytes.fromhex("06092b06010401da47040b")
    assert data.count(pbkdf2) == 2
    return data.replace(pbkdf2, scrypt)


def _elliptic(vendor: Vendor) -> bytes:
    key = new_key()
    return packed(key, vendor.ca.issue(key.public_key(), VENDOR_WIDE))


FILES: dict[str, Callable[[Vendor], bytes]] = {
    "empty": lambda _: b"",
    "text": lambda _: b"-----BEGIN CERTIFICATE-----",
    "too large": lambda _: b"\x30\x84\x00\x01\x00\x00" + bytes(FILE_LIMIT),
    "cut off": lambda vendor: packed(KEY, vendor.certificate())[:-1],
    "with something behind it": lambda vendor: packed(KEY, vendor.certificate()) + b"\0",
    "deep": lambda _: _nested(5000),
    "without a key": lambda vendor: packed(None, None, [vendor.certificate()]),
    "without the certificate of its key": lambda vendor: packed(KEY, None, [vendor.ca.certificate]),
    "with an elliptic curve": _elliptic,
    "with too many certificates": lambda vendor: packed(KEY, vendor.certificate(), [vendor.certificate()] * 12),
    "in pieces": _in_pieces,
    "with scrypt": _with_scrypt,
    "with data that holds nothing": lambda _: der.encode(0x30, der.encode(0x30, DATA + b"\xa0\x00")),
    "with a name of data alone": lambda _: der.encode(0x30, der.encode(0x30, DATA)),
}


def _nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        length = len(data)
        head = b"\x30" + (bytes([length]) if length < 128 else b"\x82" + length.to_bytes(2, "big"))
        data = head + data if length < 128 or length > 255 else b"\x30\x81" + bytes([length]) + data
    return data


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_a_file_that_is_not_what_it_should_be_is_refused(
    vendor: Vendor, tmp_path: Path, content: Callable[[Vendor], bytes]
) -> None:
    path = tmp_path / "vendor.p12"
    path.write_bytes(content(vendor))

    with pytest.raises(ConfigurationError) as refused:
        read_pkcs12(path, PASSPHRASE, StateFiles())
    assert refused.value.remedy


@pytest.mark.parametrize("part", [0, 1], ids=["certificate", "key"])
def test_a_file_that_takes_minutes_to_open_is_not_opened(vendor: Vendor, tmp_path: Path, part: int) -> None:
    path = tmp_path / "vendor.p12"
    path.write_bytes(_slow(vendor, part))

    with pytest.raises(ConfigurationError, match="too long"):
        read_pkcs12(path, PASSPHRASE, StateFiles())


def test_a_passphrase_that_everybody_may_read_is_for_a_person_to_correct(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(PASSPHRASE)
    path.chmod(0o644)

    with pytest.raises(ConfigurationError, match=r"chmod o=.*run the command again"):
        read_passphrase(path, "--passphrase-file", StateFiles())


def test_a_wrong_passphrase_is_not_repeated(vendor: Vendor, tmp_path: Path) -> None:
    path = tmp_path / "vendor.p12"
    path.write_bytes(packed(KEY, vendor.certificate()))

    with pytest.raises(ScansealError) as refused:
        read_pkcs12(path, b"not this one", StateFiles())
    assert "not this one" not in str(refused.value)


def test_a_file_that_is_missing_is_no_crash(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        read_pkcs12(tmp_path / "none.p12", PASSPHRASE, StateFiles())


def _by_openssl(vendor: Vendor, *options: str) -> Path:
    """A file of the vendor's key, as `openssl pkcs12` makes it."""
    key, certificate, made = (vendor.folder / name for name in ("a.key", "a.pem", "a.p12"))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key.write_bytes(KEY.private_bytes(encoding, form, serialization.NoEncryption()))
    certificate.write_bytes(pem([vendor.certificate()]))
    files = ["-inkey", str(key), "-in", str(certificate), "-out", str(made)]
    passphrase = ["-passout", f"pass:{PASSPHRASE.decode()}"]
    subprocess.run(
        ["openssl", "pkcs12", "-export", *files, *passphrase, *options], check=True, capture_output=True, timeout=30
    )
    return made


@needs_openssl
@pytest.mark.parametrize("options", [[], ["-legacy"], ["-nomac"], ["-macalg", "sha512"]], ids=str)
def test_what_openssl_makes_is_opened_by_its_passphrase_alone(vendor: Vendor, options: list[str]) -> None:
    made = _by_openssl(vendor, *options)

    check_pair(read_pkcs12(made, PASSPHRASE, StateFiles()).key, vendor.certificate())
    with pytest.raises(ConfigurationError, match="does not open"):
        read_pkcs12(made, b"not this one", StateFiles())


@needs_openssl
@pytest.mark.parametrize("options", [[], ["-nomac"]], ids=str)
def test_a_key_that_lies_in_the_clear_is_not_imported(vendor: Vendor, options: list[str]) -> None:
    """RFC 7292 4.2.1: without a MAC such a file would open by any passphrase."""
    made = _by_openssl(vendor, "-keypbe", "NONE", "-certpbe", "NONE", *options)

    for passphrase in (PASSPHRASE, b"not this one"):
        with pytest.raises(ConfigurationError, match="not encrypted"):
            read_pkcs12(made, passphrase, StateFiles())
