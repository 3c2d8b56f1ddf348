"""Revocation lists count when the issuer signed them (RFC 5280 5 and 6.3)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from enroll.errors import ConfigurationError
from enroll.revocation import Revocation, read_revocation_lists, revocation_of
from enroll.statefile import StateFiles
from tests.support.pki import NOW, HospitalCa, new_key
from tests.support.revocation import revocation_list

CA = HospitalCa()
CERTIFICATE = CA.issue(new_key().public_key())
PATH = (CERTIFICATE, CA.certificate)
YESTERDAY = NOW - timedelta(days=1)


def test_a_listed_certificate_is_revoked_since_its_date() -> None:
    listed = revocation_list(
        CA.name, CA.key, NOW, {CERTIFICATE.serial_number: YESTERDAY}, x509.ReasonFlags.key_compromise
    )
    assert revocation_of(PATH, [listed], NOW) == Revocation(YESTERDAY, "keyCompromise")


def test_a_certificate_that_is_not_listed_is_not_revoked() -> None:
    assert revocation_of(PATH, [revocation_list(CA.name, CA.key, NOW, {1: YESTERDAY})], NOW) == Revocation()


def test_without_a_list_nothing_is_known() -> None:
    assert revocation_of(PATH, [], NOW) == Revocation(unknown=True)


def test_the_list_of_somebody_with_the_same_name_says_nothing() -> None:
    forged = revocation_list(CA.name, new_key(), NOW, {CERTIFICATE.serial_number: YESTERDAY})
    assert revocation_of(PATH, [forged], NOW) == Revocation(unknown=True)


def test_an_old_list_proves_a_revocation_but_not_its_absence() -> None:
    old = NOW - timedelta(days=60)
    listed = revocation_list(CA.name, CA.key, old, {CERTIFICATE.serial_number: YESTERDAY})
    assert revocation_of(PATH, [listed], NOW) == Revocation(YESTERDAY, "unspecified", unknown=True)
    assert revocation_of(PATH, [revocation_list(CA.name, CA.key, old)], NOW) == Revocation(unknown=True)


def test_an_intermediate_can_be_revoked_as_well() -> None:
    below = HospitalCa("Issuing CA", parent=CA)
    leaf = below.issue(new_key().public_key())
    lists = [
        revocation_list(below.name, below.key, NOW),
        revocation_list(CA.name, CA.key, NOW, {below.certificate.serial_number: YESTERDAY}),
    ]
    found = revocation_of((leaf, below.certificate, CA.certificate), lists, NOW)
    assert (found.revoked_at, found.unknown) == (YESTERDAY, False)


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_lists_are_read_from_files(tmp_path: Path, encoding: Encoding) -> None:
    listed = revocation_list(CA.name, CA.key, NOW)
    (tmp_path / "ca.crl").write_bytes(listed.public_bytes(encoding))
    assert read_revocation_lists(tmp_path / "ca.crl", StateFiles()) == (listed,)


def test_a_file_may_hold_several_lists(tmp_path: Path) -> None:
    listed = revocation_list(CA.name, CA.key, NOW).public_bytes(Encoding.PEM)
    (tmp_path / "ca.crl").write_bytes(b"text in front\n" + listed + listed)
    assert len(read_revocation_lists(tmp_path / "ca.crl", StateFiles())) == 2


@pytest.mark.parametrize("content", [b"", b"nothing", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"])
def test_a_file_without_a_list_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ca.crl").write_bytes(content)
    with pytest.raises(ConfigurationError, match="no certificate revocation list"):
        read_revocation_lists(tmp_path / "ca.crl", StateFiles())
