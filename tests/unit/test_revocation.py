"""Revocation lists count when the issuer signed them (RFC 5280 5 and 6.3)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from enroll.errors import ConfigurationError
from enroll.revocation.lists import Revocation, RevocationStatus, read_revocation_lists, revocation_of
from enroll.statefile import StateFiles
from tests.support.attacks.who_signed import key_usage
from tests.support.pki import CA_KEY_USAGE, NOW, HospitalCa, new_key
from tests.support.revocation import expired_certificates, revocation_list

CA = HospitalCa()
CERTIFICATE = CA.issue(new_key().public_key())
PATH = (CERTIFICATE, CA.certificate)
ONLY_CERTIFICATES = key_usage(key_cert_sign=True)
YESTERDAY = NOW - timedelta(days=1)


def test_a_listed_certificate_is_revoked_since_its_date() -> None:
    listed = revocation_list(
        CA.name, CA.key, NOW, {CERTIFICATE.serial_number: YESTERDAY}, x509.ReasonFlags.key_compromise
    )
    assert revocation_of(PATH, [listed], NOW) == RevocationStatus((Revocation(YESTERDAY, "keyCompromise"),))


def test_a_certificate_that_is_not_listed_is_not_revoked() -> None:
    assert revocation_of(PATH, [revocation_list(CA.name, CA.key, NOW, {1: YESTERDAY})], NOW) == RevocationStatus()


def test_without_a_list_nothing_is_known() -> None:
    assert revocation_of(PATH, [], NOW) == RevocationStatus(unknown=True)


def test_the_list_of_somebody_with_the_same_name_says_nothing() -> None:
    forged = revocation_list(CA.name, new_key(), NOW, {CERTIFICATE.serial_number: YESTERDAY})
    assert revocation_of(PATH, [forged], NOW) == RevocationStatus(unknown=True)


def test_an_old_list_proves_a_revocation_but_not_its_absence() -> None:
    old = NOW - timedelta(days=60)
    listed = revocation_list(CA.name, CA.key, old, {CERTIFICATE.serial_number: YESTERDAY})
    assert revocation_of(PATH, [listed], NOW) == RevocationStatus((Revocation(YESTERDAY),), unknown=True)
    assert revocation_of(PATH, [revocation_list(CA.name, CA.key, old)], NOW) == RevocationStatus(unknown=True)


def test_an_intermediate_can_be_revoked_as_well() -> None:
    below = HospitalCa("Issuing CA", parent=CA)
    leaf = below.issue(new_key().public_key())
    lists = [
        revocation_list(below.name, below.key, NOW),
        revocation_list(CA.name, CA.key, NOW, {below.certificate.serial_number: YESTERDAY}),
    ]
    found = revocation_of((leaf, below.certificate, CA.certificate), lists, NOW)
    assert found == RevocationStatus((Revocation(YESTERDAY),))


def crl(
    *extensions: tuple[x509.ExtensionType, bool], entry: Iterable[x509.ExtensionType] = (), ca: HospitalCa = CA
) -> x509.CertificateRevocationList:
    """A current list with the certificate on it, if `entry` says anything of it."""
    builder = x509.CertificateRevocationListBuilder(ca.name, YESTERDAY, NOW + timedelta(days=7))
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    if entry:
        revoked = x509.RevokedCertificateBuilder(CERTIFICATE.serial_number, YESTERDAY)
        for value in entry:
            revoked = revoked.add_extension(value, critical=False)
        builder = builder.add_revoked_certificate(revoked.build())
    return builder.sign(ca.key, hashes.SHA256())


def distribution_point(**scope: bool) -> x509.IssuingDistributionPoint:
    kinds = ("only_contains_user_certs", "only_contains_ca_certs", "indirect_crl", "only_contains_attribute_certs")
    point = [x509.UniformResourceIdentifier("http://example.org/1.crl")]
    return x509.IssuingDistributionPoint(
        full_name=point, relative_name=None, only_some_reasons=None, **{kind: scope.get(kind, False) for kind in kinds}
    )


PARTIAL: Final = {
    "delta": (x509.DeltaCRLIndicator(1), True),
    "delta, not critical": (x509.DeltaCRLIndicator(1), False),
    "distribution point": (distribution_point(), True),
    "CA certificates only": (distribution_point(only_contains_ca_certs=True), True),
    "unknown": (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.32473.9"), b"\5\0"), True),
}


@pytest.mark.parametrize("extension", PARTIAL.values(), ids=PARTIAL.keys())
def test_a_list_of_some_certificates_proves_a_revocation_but_not_its_absence(
    extension: tuple[x509.ExtensionType, bool],
) -> None:
    """RFC 5280 5.2: a list with a critical extension that is not processed must not decide that all is well."""
    listed = crl(extension, entry=[x509.CRLReason(x509.ReasonFlags.superseded)])

    assert revocation_of(PATH, [crl(extension)], NOW) == RevocationStatus(unknown=True)
    assert revocation_of(PATH, [listed], NOW) == RevocationStatus((Revocation(YESTERDAY, "superseded"),), unknown=True)
    assert revocation_of(PATH, [crl(extension), crl()], NOW) == RevocationStatus()


def test_extensions_that_are_not_critical_take_nothing_from_a_list() -> None:
    assert revocation_of(PATH, [crl((x509.CRLNumber(7), False))], NOW) == RevocationStatus()


EXPIRED_AT = NOW - timedelta(days=30)
EXPIRED_PATH = (CA.issue(new_key().public_key(), begin=NOW - timedelta(days=90), end=EXPIRED_AT), CA.certificate)


def test_a_list_from_after_the_expiry_does_not_say_that_a_certificate_was_not_revoked() -> None:
    """RFC 5280 3.3: what has expired may be dropped from the list."""
    assert revocation_of(EXPIRED_PATH, [crl()], NOW) == RevocationStatus(unknown=True)


def test_a_list_from_before_the_expiry_says_it_while_it_is_current() -> None:
    before = revocation_list(CA.name, CA.key, EXPIRED_AT, lasts=timedelta(days=31))
    assert revocation_of(EXPIRED_PATH, [before], NOW) == RevocationStatus()


@pytest.mark.parametrize(("days", "unknown"), [(-1, False), (0, False), (1, True)])
def test_a_list_that_keeps_what_has_expired_says_it_of_what_expired_since(days: int, *, unknown: bool) -> None:
    """X.509 9.5.2.9: expiredCertsOnCRL states from which expiry on."""
    kept = revocation_list(CA.name, CA.key, NOW, expired_since=EXPIRED_AT + timedelta(days=days))
    assert revocation_of(EXPIRED_PATH, [kept], NOW) == RevocationStatus(unknown=unknown)


@pytest.mark.parametrize(
    "since", ["", "20200101", "20200101000000", "20201301000000Z", "20200101000000+0000", "00000101000000Z", "2" * 9000]
)
def test_a_list_that_states_no_time_keeps_nothing(since: str) -> None:
    """DER (X.690 11.7): a GeneralizedTime ends in Z."""
    kept = crl((expired_certificates(since), False))
    assert revocation_of(EXPIRED_PATH, [kept], NOW) == RevocationStatus(unknown=True)


@pytest.mark.parametrize(("allowed", "unknown"), [(True, False), (False, True)])
def test_a_ca_that_may_not_sign_lists_signs_none(*, allowed: bool, unknown: bool) -> None:
    """RFC 5280 6.3.3 (f): keyUsage of the issuer, where it is there, has cRLSign."""
    ca = HospitalCa(usage=CA_KEY_USAGE if allowed else ONLY_CERTIFICATES)
    path = (ca.issue(new_key().public_key()), ca.certificate)

    assert revocation_of(path, [crl(ca=ca)], NOW) == RevocationStatus(unknown=unknown)


def test_a_ca_without_key_usage_may_sign_lists() -> None:
    ca = HospitalCa(usage=None)

    assert not revocation_of((ca.issue(new_key().public_key()), ca.certificate), [crl(ca=ca)], NOW).unknown


@pytest.mark.parametrize(("days", "earlier"), [(30, 30), (-1, 0)])
def test_the_earlier_of_revocation_and_invalidity_counts(days: int, earlier: int) -> None:
    """RFC 5280 5.3.2: the key may have been stolen long before somebody noticed."""
    invalid = x509.InvalidityDate((YESTERDAY - timedelta(days=days)).replace(tzinfo=None))
    listed = crl(entry=[x509.CRLReason(x509.ReasonFlags.key_compromise), invalid])

    (revocation,) = revocation_of(PATH, [listed], NOW).revocations
    assert revocation == Revocation(YESTERDAY - timedelta(days=earlier), "keyCompromise")
    assert revocation.by_others


def test_what_was_taken_from_hold_is_not_revoked() -> None:
    """RFC 5280 5.3.1: removeFromCRL, in delta CRLs."""
    taken_back = crl(entry=[x509.CRLReason(x509.ReasonFlags.remove_from_crl)])

    assert revocation_of(PATH, [taken_back], NOW) == RevocationStatus()


def test_every_revocation_of_a_path_is_told_the_earliest_first() -> None:
    below = HospitalCa("Issuing CA", parent=CA)
    leaf = below.issue(new_key().public_key())
    stolen, replaced = x509.ReasonFlags.key_compromise, x509.ReasonFlags.superseded
    lists = [
        revocation_list(below.name, below.key, NOW, {leaf.serial_number: YESTERDAY}, stolen),
        revocation_list(
            CA.name, CA.key, NOW, {below.certificate.serial_number: YESTERDAY - timedelta(days=1)}, replaced
        ),
    ]

    assert revocation_of((leaf, below.certificate, CA.certificate), lists, NOW).revocations == (
        Revocation(YESTERDAY - timedelta(days=1), "superseded"),
        Revocation(YESTERDAY, "keyCompromise"),
    )


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
