"""The evaluator of policies and a second, independent one say the same of thousands of instances.

The second one (tests/support/policy_oracle.py) has to pass the first table of the policy's rules itself. Of the 22
cases of that table two are absent: they show a floor, and one local layer has no floors.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from cryptography import x509

from agent.dicom.report import (
    Algorithms,
    Chain,
    Claim,
    ContentClass,
    Coverage,
    Equipment,
    Finding,
    Identity,
    IdentityLevel,
    InstanceReport,
    Integrity,
    SignatureReport,
    Time,
)
from agent.policy.evaluate import evaluate
from agent.policy.judgement import Judgement, Receipt
from agent.policy.parse import parse_policy
from tests.support.policy_oracle import CONTENT_VERDICTS, VERDICTS, Opinion, PolicyOracle, certificate_hashes
from tests.support.random_policies import Case, CaseMaker, PolicyMaker, as_toml, root, signer

SEEDS: Final = range(11)
POLICIES_OF_A_SEED: Final = 100
INSTANCES_OF_A_POLICY: Final = 20
IMAGE_TYPE: Final = 0x00080008
SYNTHETIC_DATA: Final = 0x0008001C

CT1 = Equipment(manufacturer="ACME", model="CT-9000", device_serial="SN123", modality="CT")
US_OLD = Equipment(manufacturer="BETA", station_ae="US_OLD", modality="US")


def policy() -> str:
    """CT1 and what the table says of it, and the exemption of the format's example with its successor."""
    owner, vendor, tsa = (certificate_hashes(root(name)[0])["cert_sha256"] for name in ("owner", "vendor", "tsa"))
    return f"""
schema = "dicom-signing-policy/1"

[policy]
id = "st-elsewhere"
layer = "local"
issuer = "St Elsewhere"
serial = 41
issued = 2026-11-20T08:00:00Z
expires = 2031-01-01T00:00:00Z
mode = "enforce"
timezone = "+01:00"

[[anchor]]
id = "owner-ca"
kind = "owner-ca"
identifies = "device"
sha256 = "{owner}"

[[anchor]]
id = "vendor-wide"
kind = "vendor-wide"
identifies = "vendor"
sha256 = "{vendor}"

[[anchor]]
id = "tsa"
kind = "tsa"
sha256 = "{tsa}"

[[device]]
id = "ct1"
match.manufacturer = "ACME"
match.serial = "SN123"
signer.anchor = "owner-ca"
signer.serial_number = "SN123"
expect = "signed"
from = 2026-12-01
grace_days = 14

[[device]]
id = "us-old"
match.ae = "US_OLD"
match.modality = ["US"]
expect = "unsigned"
until = 2029-06-30
reason = "no vendor update"

[[rule]]
id = "all-us"
match.modality = ["US"]
expect = "signed"
from = 2028-01-01
grace_days = 60

[[compromise]]
id = "leak"
key_sha256 = "{certificate_hashes(leaked())["key_sha256"]}"
since = 2027-03-10T00:00:00Z
kind = "key-compromise"
"""


def leaked() -> x509.Certificate:
    """Another key of CT1, which gets out."""
    return signer("owner", "SN123", 2041)


def signature(
    authority: str = "owner",
    certificate: x509.Certificate | None = None,
    *,
    mac: str = "SHA256",
    trusted: datetime | None = None,
    **facts: Any,
) -> SignatureReport:
    """An intact signature of CT1 that covers everything, but for the facts that are given."""
    certificate = certificate or signer(authority, "SN123")
    usual = {
        "integrity": Integrity(),
        "coverage": Coverage(covered=(IMAGE_TYPE, SYNTHETIC_DATA)),
        "chain": Chain(path=(certificate, root(authority)[0])),
        "identity": Identity(level=IdentityLevel.DEVICE),
    }
    time = Time(
        claimed=datetime(2003, 1, 1, tzinfo=UTC),
        trusted=trusted,
        authority_path=(signer("tsa", ""), root("tsa")[0]) if trusted else (),
    )
    algorithms = Algorithms(mac=mac, key="RSA-3072")
    return SignatureReport(certificate=certificate, algorithms=algorithms, time=time, **(usual | facts))


def image(
    *signatures: SignatureReport, equipment: Equipment = CT1, content: ContentClass = ContentClass.ORIGINAL
) -> InstanceReport:
    tag = SYNTHETIC_DATA if content is ContentClass.SYNTHETIC else IMAGE_TYPE
    claim = Claim(tag, content, content.lower(), covered=bool(signatures))
    return InstanceReport(signatures=signatures, equipment=equipment, content=frozenset({content}), claims=(claim,))


def received(day: str, report: InstanceReport, *, recorded: str = "", sources: bool | None = None) -> Case:
    """An instance that is judged at noon of the day on which it is received."""
    noon = datetime.fromisoformat(f"{day}T12:00:00Z")
    known_since = datetime.fromisoformat(f"{recorded}T12:00:00Z") if recorded else None
    return Case(report, Receipt(received_at=noon, known_since=known_since), noon, sources)


MISMATCH: Final = Identity(level=IdentityLevel.DEVICE, findings=(Finding("identity-mismatch", "SN999"),))
VENDOR: Final = Identity(level=IdentityLevel.VENDOR)
WRONG: Final = Integrity(findings=(Finding("signature-wrong", "Changed."),))
IN_2006: Final = datetime(2006, 1, 1, tzinfo=UTC)
BEFORE_THE_LEAK: Final = datetime(2027, 2, 1, tzinfo=UTC)


def first_table() -> dict[str, tuple[Case, list[str]]]:
    """What is received, and the verdict with those beside it."""
    day = "2027-01-05"
    ct1, leak, md5 = signature(), signature(certificate=leaked()), signature(mac="MD5")
    other = signature(certificate=signer("owner", "SN999"), identity=MISMATCH)
    by_vendor = signature("vendor", signer("vendor", ""), identity=VENDOR)
    stamped_leak = signature(certificate=leaked(), trusted=BEFORE_THE_LEAK)
    derived = image(ct1, content=ContentClass.DERIVED)
    synthetic = image(content=ContentClass.SYNTHETIC)
    us_old = image(equipment=US_OLD)
    return {
        "signed by CT1": (received(day, image(ct1)), ["VALID_EXPECTED_SIGNER"]),
        "unsigned, before the first day": (received("2026-11-25", image()), ["UNSIGNED_NOT_YET_EXPECTED"]),
        "unsigned, in grace": (received("2026-12-05", image()), ["UNSIGNED_IN_GRACE"]),
        "unsigned": (received(day, image()), ["UNSIGNED_VIOLATION"]),
        "unsigned, header date 2020": (received(day, image()), ["UNSIGNED_VIOLATION"]),  # a report holds no such date
        "another device's key": (received(day, image(other)), ["VALID_WRONG_SIGNER"]),
        "vendor-wide key": (received(day, image(by_vendor)), ["VALID_VENDOR_ONLY"]),
        "unknown CA": (received(day, image(signature("stranger"))), ["VALID_UNKNOWN_SIGNER"]),
        "MAC wrong": (received(day, image(signature(integrity=WRONG))), ["BROKEN"]),
        "MD5, claimed 2003": (received(day, image(md5)), ["ANTIQUE_UNPROVEN"]),
        "MD5, own record of 2005": (received(day, image(md5), recorded="2005-01-01"), ["ANTIQUE_PROVEN"]),
        "MD5, stamped 2006": (received(day, image(signature(mac="MD5", trusted=IN_2006))), ["ANTIQUE_PROVEN"]),
        "leaked key, received after": (received("2027-04-01", image(leak)), ["KEY_COMPROMISED"]),
        "leaked key, received before": (received("2027-02-01", image(leak)), ["VALID_EXPECTED_SIGNER"]),
        "leaked key, stamped before": (received("2027-05-01", image(stamped_leak)), ["VALID_EXPECTED_SIGNER"]),
        "synthetic, unsigned": (received("2027-02-01", synthetic), ["UNSIGNED_VIOLATION", "SYNTHETIC_UNVERIFIED"]),
        "derived, sources not verified": (
            received(day, derived, sources=False),
            ["DERIVED_UNVERIFIED_SOURCE", "VALID_EXPECTED_SIGNER"],
        ),
        "derived, sources verified": (
            received(day, derived, sources=True),
            ["DERIVED_VERIFIED_SOURCES", "VALID_EXPECTED_SIGNER"],
        ),
        "exempt, unsigned": (received("2028-01-01", us_old), ["UNSIGNED_EXEMPT"]),
        "exempt no more, unsigned": (received("2030-01-01", us_old), ["UNSIGNED_VIOLATION"]),
    }


@pytest.mark.parametrize("name", list(first_table()))
def test_the_second_evaluator_passes_the_first_table(name: str) -> None:
    case, (verdict, *beside) = first_table()[name]
    opinion = PolicyOracle(policy()).judge(case.report, case.receipt, case.now, sources_verified=case.sources_verified)
    assert (opinion.verdict, opinion.beside) == (verdict, tuple(beside))
    if verdict == "UNSIGNED_VIOLATION":
        assert opinion.action == "quarantine"
        assert opinion.rule_ids == ({"all-us"} if case.report.equipment == US_OLD else {"ct1"})


def test_the_cases_reach_every_verdict() -> None:
    chance = random.Random(0)  # noqa: S311 - the same cases as below
    reached: set[str] = set()
    for _ in range(POLICIES_OF_A_SEED):
        tables = PolicyMaker(chance).make()
        oracle, _ = both(as_toml(tables))
        for number in range(INSTANCES_OF_A_POLICY):
            opinion = oracle(CaseMaker(chance, tables).make(signatures=min(number % 3, 1)))
            reached |= {opinion.verdict, *opinion.beside}
    assert reached == set(VERDICTS)


@pytest.mark.parametrize("seed", SEEDS)
def test_both_say_the_same_of_instances_with_one_signature_or_none(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - seeds are kept, so that a case can be made again
    for _ in range(POLICIES_OF_A_SEED):
        tables = PolicyMaker(chance).make()
        oracle, product = both(as_toml(tables))
        for number in range(INSTANCES_OF_A_POLICY):
            case = CaseMaker(chance, tables).make(signatures=min(number % 3, 1))
            opinion, judgement = oracle(case), product(case)
            assert as_said(judgement, opinion) == opinion, f"{case}\n{as_toml(tables)}"


@pytest.mark.parametrize("seed", [1, 2])
def test_both_find_the_same_in_each_of_two_signatures(seed: int) -> None:
    """Which of two signatures has the say is not compared, nor what follows for the content."""
    chance = random.Random(seed)  # noqa: S311 - seeds are kept, so that a case can be made again
    for _ in range(POLICIES_OF_A_SEED // 2):
        tables = PolicyMaker(chance).make()
        oracle, product = both(as_toml(tables))
        for _ in range(INSTANCES_OF_A_POLICY):
            case = CaseMaker(chance, tables).make(signatures=2)
            opinion, judgement = oracle(case), product(case)
            found = {judgement.verdict.value, *judgement.beside}
            assert found - CONTENT_VERDICTS == {opinion.verdict, *opinion.beside} - CONTENT_VERDICTS, f"{case}"


def both(text: str) -> tuple[Callable[[Case], Opinion], Callable[[Case], Judgement]]:
    """Both evaluators for one policy."""
    oracle, loaded = PolicyOracle(text), parse_policy(text, "policy.toml", last_serial=0)

    def opinion(case: Case) -> Opinion:
        return oracle.judge(case.report, case.receipt, case.now, sources_verified=case.sources_verified)

    def judgement(case: Case) -> Judgement:
        return evaluate(case.report, case.receipt, loaded, case.now, sources_verified=case.sources_verified)

    return opinion, judgement


def as_said(judgement: Judgement, opinion: Opinion) -> Opinion:
    """What the product says in the words of the second evaluator; it may name more entries that had a part in it."""
    return Opinion(
        verdict=judgement.verdict.value,
        action=judgement.action.value,
        exit_code=judgement.exit_code,
        beside=tuple(verdict.value for verdict in judgement.beside),
        rule_ids=frozenset(judgement.rule_ids) & opinion.rule_ids,
        stripped=judgement.stripped,
        policy_stale=judgement.policy_stale,
        non_profile=judgement.non_profile,
        not_clinical=judgement.not_clinical,
    )
