"""From the bytes of an image to its verdict: weak chains, revocation, and time stamp authorities that fell."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

import pytest
from cryptography import x509

from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.report import InstanceReport
from agent.dicom.verify import Verification, verify_instance
from agent.policy.evaluate import evaluate
from agent.policy.judgement import Judgement, Receipt
from agent.policy.verdicts import Action, Verdict
from tests.support.attacks.images import ct_slice
from tests.support.attacks.registry import report_on
from tests.support.attacks.resigning import expired_slice, resigned, stamped
from tests.support.attacks.signers import (
    LONG_AGO,
    hospital_ca,
    revoked_scanner,
    rsa_key,
    signer,
    time_stamp_authority,
    trust,
)
from tests.support.attacks.who_signed import ATTACKS
from tests.support.pki import NOW, HospitalCa
from tests.support.policies import anchor, key_sha256, policy, sha256
from tests.support.revocation import revocation_list
from tests.support.time_stamp_authority import new_tsa

PROFILE: Final = load_profile(ProfileName.CREATOR_PLUS)
CA: Final = hospital_ca()
MONTH: Final = timedelta(days=30)
Lists: TypeAlias = tuple[x509.CertificateRevocationList, ...]


def verified(data: bytes, **changes: Any) -> InstanceReport:
    """The report, by the trust of the catalogue of attacks, but for the changes."""
    return verify_instance(data, Verification(PROFILE, NOW, replace(trust(), **changes)))


def judged(report: InstanceReport, *tables: str, known_since: datetime | None = None) -> Judgement:
    """By a policy with these tables, or by none."""
    rules = policy(HOSPITAL, *tables) if tables else None
    return evaluate(report, Receipt(NOW, known_since=known_since), rules, NOW)


DEVICE: Final = """
[[device]]
id = "ct1"
match = { manufacturer = "Example Imaging", serial = "CT-000123" }
expect = "signed"
"""
HOSPITAL: Final = anchor("hospital", "owner-ca", CA.certificate, "device") + DEVICE
TSA_ANCHOR: Final = anchor("time", "tsa", time_stamp_authority().anchor)


def compromise(**named: str) -> str:
    lines = "\n".join(f'{key} = "{value}"' for key, value in named.items())
    return f'[[compromise]]\nid = "gone"\nsince = {LONG_AGO + MONTH:%Y-%m-%dT%H:%M:%SZ}\n{lines}\n'


# ---------------------------------------------------------------------------------------------- weak chains


def below(bits: int) -> tuple[bytes, HospitalCa]:
    """An image of the scanner, whose certificate comes from a CA with such a key below that of the hospital."""
    between = HospitalCa("Issuing CA", parent=CA, key=rsa_key(f"between {bits}", bits))
    return resigned(lambda: signer(issuer=between, key=rsa_key("leaf", 3072)))(ct_slice()), between


@pytest.mark.parametrize(
    ("bits", "known_since", "verdict"),
    [
        (2048, None, Verdict.VALID),
        (1024, None, Verdict.ANTIQUE_UNPROVEN),
        (1024, datetime(2010, 1, 1, tzinfo=NOW.tzinfo), Verdict.ANTIQUE_UNPROVEN),
        (1024, datetime(2009, 12, 31, tzinfo=NOW.tzinfo), Verdict.ANTIQUE_PROVEN),
    ],
)
def test_a_chain_is_as_strong_as_its_weakest_key(bits: int, known_since: datetime | None, verdict: Verdict) -> None:
    """Whoever calculates the key of an authority names himself as any scanner."""
    data, between = below(bits)
    report = verified(data, intermediates=(between.certificate,), revocation_lists=())

    assert judged(report, known_since=known_since).verdict is verdict


@pytest.mark.parametrize("name", ["intermediate-of-rsa-1024", "certificate-signed-with-sha-1"])
def test_what_could_be_forged_by_now_is_antique(name: str) -> None:
    """The attacks of docs/attacks.md, by their verdict."""
    (attack,) = (attack for attack in ATTACKS if attack.name == name)
    judgement = judged(report_on(attack.file()))

    assert (judgement.verdict, judgement.beside, judgement.exit_code) == (Verdict.ANTIQUE_UNPROVEN, (), 5)


# ---------------------------------------------------------------------------------------------- revocation


def listed(reason: x509.ReasonFlags | None) -> Lists:
    serial = revoked_scanner().certificate.serial_number
    return (revocation_list(CA.name, CA.key, NOW, {serial: NOW - MONTH}, reason),)


@pytest.mark.parametrize(
    ("reason", "known_since", "verdict"),
    [
        (x509.ReasonFlags.key_compromise, None, Verdict.KEY_COMPROMISED),
        (x509.ReasonFlags.ca_compromise, None, Verdict.KEY_COMPROMISED),
        (x509.ReasonFlags.aa_compromise, None, Verdict.KEY_COMPROMISED),
        (x509.ReasonFlags.key_compromise, NOW - timedelta(days=1), Verdict.KEY_COMPROMISED),
        (x509.ReasonFlags.key_compromise, NOW - 2 * MONTH, Verdict.VALID),
        (x509.ReasonFlags.cessation_of_operation, None, Verdict.VALID_NO_TRUSTED_TIME),
        (x509.ReasonFlags.cessation_of_operation, NOW - timedelta(days=1), Verdict.REVOKED),
        (None, None, Verdict.VALID_NO_TRUSTED_TIME),
    ],
)
def test_what_a_stolen_key_signed_is_not_valid_in_any_way(
    reason: x509.ReasonFlags | None, known_since: datetime | None, verdict: Verdict
) -> None:
    """RFC 5280 5.3.1: with a key that others have, only proof of an earlier time helps."""
    report = verified(resigned(revoked_scanner)(ct_slice()), revocation_lists=listed(reason))

    assert judged(report, known_since=known_since).verdict is verdict


@pytest.mark.parametrize("tables", [(), (TSA_ANCHOR,)], ids=["no policy", "policy"])
def test_without_a_current_list_of_the_issuer_nobody_can_say_whether_the_signer_was_revoked(
    tables: tuple[str, ...],
) -> None:
    """docs/adr/0018: who gives lists wants to know."""
    old = revocation_list(CA.name, CA.key, NOW - 2 * MONTH)

    assert judged(verified(ct_slice(), revocation_lists=(old,)), *tables).verdict is Verdict.INDETERMINATE
    judgement = judged(verified(ct_slice(), revocation_lists=(old,)), *tables)
    assert (judgement.action, judgement.exit_code) == (Action.FLAG, 7)
    assert judged(verified(ct_slice(), revocation_lists=()), *tables).exit_code == 0


# ---------------------------------------------------------------------------------------------- time stamps


def time_ca() -> HospitalCa:
    return HospitalCa("Time CA", key=rsa_key("Time CA"))


@pytest.mark.parametrize(
    ("reason", "since", "verdict"),
    [
        (x509.ReasonFlags.key_compromise, LONG_AGO + MONTH, Verdict.VALID_NO_TRUSTED_TIME),
        (x509.ReasonFlags.ca_compromise, LONG_AGO + MONTH, Verdict.VALID_NO_TRUSTED_TIME),
        (None, LONG_AGO + MONTH, Verdict.VALID_NO_TRUSTED_TIME),
        (x509.ReasonFlags.unspecified, LONG_AGO + MONTH, Verdict.VALID),
        (x509.ReasonFlags.cessation_of_operation, LONG_AGO + MONTH, Verdict.VALID),
        (x509.ReasonFlags.cessation_of_operation, LONG_AGO, Verdict.VALID_NO_TRUSTED_TIME),
    ],
)
def test_a_stamp_of_a_revoked_authority_proves_nothing(
    reason: x509.ReasonFlags | None, since: datetime, verdict: Verdict
) -> None:
    """RFC 3161 4: with its key others can stamp any time; without a reason the worst is to be assumed."""
    ca = time_ca()
    authority = new_tsa(ca)
    data = stamped(LONG_AGO + timedelta(minutes=1), by=lambda: authority)(expired_slice())
    fallen = revocation_list(ca.name, ca.key, NOW, {authority.certificate.serial_number: since}, reason)
    report = verified(data, time_stamp_anchors=(ca.certificate,), revocation_lists=(*trust().revocation_lists, fallen))

    assert judged(report).verdict is verdict


def test_a_stamp_of_an_authority_that_the_policy_does_not_name_proves_nothing() -> None:
    """docs/policy.md: it vouches for nobody, even if the verifier was given its certificate."""
    report = verified(expired_slice())

    assert judged(report, TSA_ANCHOR).verdict is Verdict.VALID_EXPECTED_SIGNER
    assert judged(report, "").verdict is Verdict.VALID_NO_TRUSTED_TIME
    assert any("proves nothing here" in line for line in judged(report, "").explanation)


def test_an_anchor_for_signers_vouches_for_no_time() -> None:
    as_signer = TSA_ANCHOR.replace('"tsa"', '"owner-ca"\nidentifies = "device"')

    assert judged(verified(expired_slice()), as_signer).verdict is Verdict.VALID_NO_TRUSTED_TIME


def test_one_authority_may_be_named_for_signers_and_for_time_stamps() -> None:
    both = TSA_ANCHOR.replace(sha256(time_stamp_authority().anchor), sha256(CA.certificate))
    named_first = policy(both, HOSPITAL)

    assert evaluate(verified(ct_slice()), Receipt(NOW), named_first, NOW).verdict is Verdict.VALID_EXPECTED_SIGNER


AUTHORITY: Final = time_stamp_authority().certificate


@pytest.mark.parametrize(
    ("table", "verdict"),
    [
        (compromise(kind="key-compromise", key_sha256=key_sha256(AUTHORITY)), Verdict.VALID_NO_TRUSTED_TIME),
        (compromise(kind="ca-compromise", cert_sha256=sha256(AUTHORITY)), Verdict.VALID_NO_TRUSTED_TIME),
        (
            compromise(kind="ca-compromise", cert_sha256=sha256(time_stamp_authority().anchor)),
            Verdict.VALID_NO_TRUSTED_TIME,
        ),
        (compromise(kind="decommissioned", cert_sha256=sha256(AUTHORITY)), Verdict.VALID_EXPECTED_SIGNER),
        (
            compromise(kind="decommissioned", cert_sha256=sha256(AUTHORITY)).replace("2021-03-31", "2021-02-28"),
            Verdict.VALID_NO_TRUSTED_TIME,
        ),
    ],
)
def test_a_compromise_of_a_time_stamp_authority_takes_its_stamps_away(table: str, verdict: Verdict) -> None:
    """Whatever time they state, where others have the key; else those from the end of its use on."""
    assert judged(verified(expired_slice()), TSA_ANCHOR, table).verdict is verdict
