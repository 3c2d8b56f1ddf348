"""Three times are kept apart: what the signer claims, what a time stamp proves, and now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from agent.dicom.report import Chain, Fact, Outcome, Time
from agent.dicom.signer_chain import SignerChains, TrustMaterial, claimed_time
from enroll.revocation.lists import Revocation
from tests.support.certificates import rsa_key
from tests.support.pki import NOW, HospitalCa, new_key
from tests.support.revocation import revocation_list

CA = HospitalCa()
KEY = new_key().public_key()
CERTIFICATE = CA.issue(KEY, begin=NOW - timedelta(days=300), end=NOW + timedelta(days=65))
EXPIRED = CA.issue(KEY, begin=NOW - timedelta(days=300), end=NOW - timedelta(days=100))
LAST_YEAR = NOW - timedelta(days=200)


def judge(
    certificate: x509.Certificate,
    time: Time,
    *lists: x509.CertificateRevocationList,
    anchors: tuple[x509.Certificate, ...] = (CA.certificate,),
) -> tuple[Time, Chain]:
    return SignerChains(TrustMaterial(anchors, revocation_lists=lists), NOW).judge(certificate, time)


def codes(fact: Fact) -> list[str]:
    return [finding.code for finding in fact.findings]


def test_a_certificate_that_is_valid_now_and_was_then_raises_nothing() -> None:
    time, chain = judge(CERTIFICATE, Time(claimed=LAST_YEAR))
    assert (time.outcome, chain.outcome) == (Outcome.PASSED, Outcome.PASSED)
    assert chain.path == (CERTIFICATE, CA.certificate)


def test_without_anchors_nothing_can_be_said_of_the_signer() -> None:
    _, chain = judge(CERTIFICATE, Time(claimed=LAST_YEAR), anchors=())
    assert (chain.outcome, codes(chain), chain.path) == (Outcome.INDETERMINATE, ["no-anchor"], ())


def test_a_foreign_ca_leads_nowhere() -> None:
    _, chain = judge(HospitalCa("Other CA").issue(KEY), Time(claimed=NOW))
    assert (chain.outcome, codes(chain), chain.path) == (Outcome.FAILED, ["certificate-untrusted"], ())


def test_a_ca_with_the_same_name_leads_nowhere() -> None:
    _, chain = judge(HospitalCa().issue(KEY), Time(claimed=NOW))
    assert codes(chain) == ["certificate-untrusted"]


def test_an_expired_certificate_needs_proof_of_time() -> None:
    time, chain = judge(EXPIRED, Time(claimed=LAST_YEAR))
    assert (time.outcome, codes(time)) == (Outcome.INDETERMINATE, ["certificate-expired"])
    assert chain.path == (EXPIRED, CA.certificate)


@pytest.mark.parametrize("claimed", [LAST_YEAR, NOW, NOW - timedelta(days=99), None])
def test_what_is_found_of_an_expired_certificate_does_not_depend_on_what_is_claimed(claimed: datetime | None) -> None:
    """Anybody may claim any time; docs/adr/0018."""
    time, chain = judge(EXPIRED, Time(claimed=claimed))
    assert "certificate-expired" in codes(time)
    assert chain.path == (EXPIRED, CA.certificate)


def test_a_certificate_below_an_expired_ca_has_expired_too() -> None:
    below = HospitalCa("Issuing CA", parent=CA, end=NOW - timedelta(days=1))
    leaf = below.issue(KEY, begin=NOW - timedelta(days=300), end=NOW + timedelta(days=65))
    trust = TrustMaterial((CA.certificate,), (below.certificate,))
    time, chain = SignerChains(trust, NOW).judge(leaf, Time(claimed=LAST_YEAR))
    assert codes(time) == ["certificate-expired"]
    assert chain.path == (leaf, below.certificate, CA.certificate)


def test_a_time_stamp_from_before_the_expiry_is_that_proof() -> None:
    time, chain = judge(EXPIRED, Time(claimed=LAST_YEAR, trusted=LAST_YEAR + timedelta(minutes=1)))
    assert (time.outcome, chain.outcome) == (Outcome.PASSED, Outcome.PASSED)


def test_a_time_stamp_from_after_the_expiry_is_none() -> None:
    _, chain = judge(EXPIRED, Time(claimed=LAST_YEAR, trusted=NOW - timedelta(days=1)))
    assert codes(chain) == ["certificate-untrusted"]


@pytest.mark.parametrize(
    ("claimed", "code"),
    [
        (NOW + timedelta(days=1), "time-in-future"),
        (NOW - timedelta(days=301), "time-outside-certificate"),
        (NOW + timedelta(days=66), "time-outside-certificate"),
    ],
)
def test_a_claimed_time_that_cannot_be_is_a_fault(claimed: datetime, code: str) -> None:
    time, _ = judge(CERTIFICATE, Time(claimed=claimed))
    assert time.outcome is Outcome.FAILED
    assert code in codes(time)


def test_a_slow_clock_of_ours_is_forgiven() -> None:
    time, _ = judge(CERTIFICATE, Time(claimed=NOW + timedelta(minutes=4)))
    assert time.outcome is Outcome.PASSED


def test_a_signature_is_not_younger_than_its_time_stamp() -> None:
    time, _ = judge(CERTIFICATE, Time(claimed=LAST_YEAR, trusted=LAST_YEAR - timedelta(days=1)))
    assert codes(time) == ["time-contradicted"]


def revoked(since: datetime) -> x509.CertificateRevocationList:
    return revocation_list(CA.name, CA.key, NOW, {CERTIFICATE.serial_number: since})


def test_a_revoked_certificate_vouches_for_nothing_without_proof_of_time() -> None:
    _, chain = judge(CERTIFICATE, Time(claimed=LAST_YEAR), revoked(NOW - timedelta(days=10)))
    assert (chain.outcome, codes(chain)) == (Outcome.FAILED, ["certificate-revoked"])
    assert chain.revocations == (Revocation(NOW - timedelta(days=10)),)


def test_a_revocation_after_the_trusted_time_breaks_nothing() -> None:
    _, chain = judge(CERTIFICATE, Time(claimed=LAST_YEAR, trusted=LAST_YEAR), revoked(NOW - timedelta(days=10)))
    assert (chain.outcome, chain.revocations) == (Outcome.PASSED, (Revocation(NOW - timedelta(days=10)),))


def test_a_revocation_before_the_trusted_time_does() -> None:
    stamped = Time(claimed=LAST_YEAR, trusted=NOW - timedelta(days=5))
    _, chain = judge(CERTIFICATE, stamped, revoked(NOW - timedelta(days=10)))
    assert codes(chain) == ["certificate-revoked"]


def test_lists_that_say_nothing_about_the_issuer_are_reported() -> None:
    foreign = HospitalCa("Other CA")
    _, chain = judge(CERTIFICATE, Time(claimed=LAST_YEAR), revocation_list(foreign.name, foreign.key, NOW))
    assert (chain.outcome, codes(chain)) == (Outcome.INDETERMINATE, ["revocation-unknown"])


def test_a_list_from_after_the_expiry_does_not_clear_what_was_signed_before() -> None:
    """RFC 5280 3.3: a revoked certificate may be dropped from the list once it has expired."""
    stamped = Time(claimed=LAST_YEAR, trusted=LAST_YEAR)
    _, chain = judge(EXPIRED, stamped, revocation_list(CA.name, CA.key, NOW))
    assert (chain.outcome, codes(chain)) == (Outcome.INDETERMINATE, ["revocation-unknown"])

    _, chain = judge(EXPIRED, stamped, revocation_list(CA.name, CA.key, NOW, expired_since=LAST_YEAR))
    assert chain.outcome is Outcome.PASSED


@pytest.mark.parametrize("newer_first", [True, False])
def test_the_path_of_a_signer_does_not_depend_on_what_was_judged_before(*, newer_first: bool) -> None:
    """A CA that renewed its certificate under the same name and key has two paths to choose from."""
    renewed = HospitalCa(key=CA.key, begin=LAST_YEAR + timedelta(days=1))
    anchors = (CA.certificate, renewed.certificate)
    trust = TrustMaterial(anchors[::-1] if newer_first else anchors)
    old, new = Time(claimed=LAST_YEAR, trusted=LAST_YEAR), Time(claimed=LAST_YEAR)
    alone = [SignerChains(trust, NOW).judge(CERTIFICATE, time)[1].path for time in (old, new)]
    chains = SignerChains(trust, NOW)

    assert alone[0][-1] == CA.certificate
    assert [chains.judge(CERTIFICATE, time)[1].path for time in (old, new, old)] == [*alone, alone[0]]


def test_a_path_that_is_known_holds_for_no_time_outside_the_certificate() -> None:
    chains = SignerChains(TrustMaterial((CA.certificate,)), NOW)
    assert chains.judge(CERTIFICATE, Time(claimed=LAST_YEAR))[1].path
    early = LAST_YEAR - timedelta(days=365)
    _, chain = chains.judge(CERTIFICATE, Time(claimed=early, trusted=early))
    assert codes(chain) == ["certificate-untrusted"]


def test_a_weak_link_is_reported_and_not_taken_for_a_missing_one() -> None:
    weak = CA.issue(rsa_key(1024).public_key())
    _, chain = judge(weak, Time(claimed=NOW))
    assert (chain.outcome, codes(chain)) == (Outcome.INDETERMINATE, ["chain-weak"])
    assert chain.path == (weak, CA.certificate)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20260102030405.123456+0000", datetime(2026, 1, 2, 3, 4, 5, 123456, UTC)),
        ("20260102030405-0500", datetime(2026, 1, 2, 8, 4, 5, tzinfo=UTC)),
        ("20260102030405.5+0100", datetime(2026, 1, 2, 2, 4, 5, 500000, UTC)),
    ],
)
def test_the_claimed_time_is_read_with_its_offset(text: str, expected: datetime) -> None:
    """PS3.3 C.12.1.1.3: Digital Signature DateTime holds the offset from UTC."""
    assert claimed_time(text) == Time(claimed=expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026",
        "20260102030405",
        "20261302030405+0000",
        "20260102030405+2500",
        "00010101000000+1400",
        "9" * 14 + "+0000",
    ],
)
def test_a_time_without_an_offset_is_none(text: str) -> None:
    assert codes(claimed_time(text)) == ["time-malformed"]
