"""The CA certificate that everything begins with: never on first use (RFC 7030 4.1.1)."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from enroll.certificates import pem
from enroll.errors import CertificateRefused, ConfigurationError
from enroll.est.first_trust import FirstTrust
from enroll.flows.settings import EstSettings
from enroll.statefile import StateFiles
from tests.support.pki import HospitalCa

CA, STRANGER = HospitalCa(), HospitalCa("Stranger")
FINGERPRINT = CA.certificate.fingerprint(hashes.SHA256()).hex()


def trust(tmp_path: Path, fingerprint: str = FINGERPRINT, anchor_file: Path | None = None) -> FirstTrust:
    settings = EstSettings(anchor_file=anchor_file, anchor_fingerprint=fingerprint)
    return FirstTrust(settings, tmp_path / "anchors", StateFiles())


def shown(*certificates: HospitalCa) -> tuple[x509.Certificate, ...]:
    return tuple(ca.certificate for ca in certificates)


def test_without_file_and_fingerprint_nothing_is_trusted(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Neither"):
        trust(tmp_path, "").pinned()


def test_two_pins_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Both"):
        trust(tmp_path, anchor_file=tmp_path / "anchor.pem").pinned()


def test_a_file_is_pinned_as_it_is(tmp_path: Path) -> None:
    anchor_file = tmp_path / "anchor.pem"
    anchor_file.write_bytes(pem([CA.certificate]))

    assert trust(tmp_path, "", anchor_file).pinned() == (CA.certificate,)


@pytest.mark.parametrize("form", [str, str.upper, lambda digits: " ".join(digits[i : i + 2] for i in range(0, 64, 2))])
def test_what_has_the_fingerprint_is_kept(tmp_path: Path, form: type[str]) -> None:
    fingerprint = form(FINGERPRINT)
    assert trust(tmp_path, fingerprint).pinned() == ()

    assert trust(tmp_path, fingerprint).pin(shown(STRANGER, CA)) == (CA.certificate,)

    assert trust(tmp_path, fingerprint).pinned() == (CA.certificate,)


PAIRS = ":".join(FINGERPRINT[place : place + 2] for place in range(0, 64, 2)).upper()


@pytest.mark.parametrize("typed", [f"sha256 Fingerprint={PAIRS}", f"SHA256 Fingerprint={PAIRS}", f"SHA-256: {PAIRS}"])
def test_what_openssl_prints_can_be_pasted(tmp_path: Path, typed: str) -> None:
    assert trust(tmp_path, typed).pin(shown(STRANGER, CA)) == (CA.certificate,)
    assert trust(tmp_path, typed).pinned() == (CA.certificate,)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (FINGERPRINT[:40], "40 digits: that is a SHA-1"),
        (FINGERPRINT[:-1], "63 digits; 64 are needed"),
        ("sha1 Fingerprint=15:B1", "is 'sha1 Fingerprint=15:B1'"),
        ("paper", "is 'paper'"),
    ],
    ids=["sha-1", "too-short", "sha-1-of-openssl", "no-digits"],
)
def test_what_is_no_sha_256_says_what_it_is(tmp_path: Path, typed: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        trust(tmp_path, typed).pinned()
    assert "SHA-256" in caught.value.remedy or "digit" in caught.value.remedy


def test_a_server_without_it_is_not_trusted(tmp_path: Path) -> None:
    with pytest.raises(CertificateRefused, match="no CA certificate with the fingerprint"):
        trust(tmp_path).pin(shown(STRANGER))
    assert trust(tmp_path).pinned() == ()


def test_with_another_fingerprint_what_was_kept_does_not_count(tmp_path: Path) -> None:
    trust(tmp_path).pin(shown(CA))

    other = STRANGER.certificate.fingerprint(hashes.SHA256()).hex()
    assert trust(tmp_path, other).pinned() == ()


@pytest.mark.parametrize("damage", [b"", b"garbage", pem([STRANGER.certificate])])
def test_what_was_changed_on_the_disk_is_fetched_anew(tmp_path: Path, damage: bytes) -> None:
    trust(tmp_path).pin(shown(CA))
    (tmp_path / "anchors" / "est-by-fingerprint.pem").write_bytes(damage)

    assert trust(tmp_path).pinned() == ()
    assert trust(tmp_path).pin(shown(CA)) == (CA.certificate,)
