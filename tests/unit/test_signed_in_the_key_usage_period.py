"""A key may sign for days while its certificate is valid for years: PrivateKeyUsagePeriod, RFC 3280 4.2.1.4.

The document signers of ICAO 9303-12 work so. A signature has to be of the time of its key; the certificate is valid for
as long as it is to be checked.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from agent.dicom.report import KeyUsagePeriod, Outcome, Time
from agent.dicom.signer_chain import SignerChains, TrustMaterial
from agent.policy.evaluate import evaluate
from agent.policy.judgement import Judgement, Receipt, TimeAxis
from agent.policy.verdicts import Action, Verdict
from enroll import der
from tests.support.attacks.images import ct_slice
from tests.support.attacks.registry import found, report_on
from tests.support.attacks.resigning import resigned, slice_of_a_former_key, stamped
from tests.support.attacks.signers import (
    FORMER_KEY_FROM,
    FORMER_KEY_UNTIL,
    Signer,
    former_key,
    hospital_ca,
    scanner,
)
from tests.support.key_usage_period import period_value, with_period
from tests.support.pki import NOW, HospitalCa, new_key

CA: Final = HospitalCa()
CERTIFICATE: Final = CA.issue(new_key().public_key(), begin=NOW - timedelta(days=300), end=NOW + timedelta(days=3650))
BEGIN: Final = NOW - timedelta(days=200)
END: Final = BEGIN + timedelta(days=7)
INSIDE: Final = BEGIN + timedelta(days=3)
OUTSIDE: Final = ["time-outside-key-usage-period"]
ONE_DAY, SECOND = timedelta(days=1), timedelta(seconds=1)


def time_of(
    claimed: datetime,
    trusted: datetime | None = None,
    limits: tuple[datetime | None, datetime | None] = (BEGIN, END),
    chains: SignerChains | None = None,
) -> Time:
    certificate = with_period(CERTIFICATE, CA.key, period_value(*limits))
    chains = chains or SignerChains(TrustMaterial((CA.certificate,)), NOW)
    time, chain = chains.judge(certificate, Time(claimed=claimed, trusted=trusted))
    assert chain.outcome is Outcome.PASSED
    return time


def codes(time: Time) -> list[str]:
    return [finding.code for finding in time.findings]


def judged(data: bytes) -> Judgement:
    return evaluate(report_on(data), Receipt(NOW), None, NOW)


@pytest.mark.parametrize("claimed", [BEGIN, INSIDE, END, END + timedelta(microseconds=999_999)])
def test_what_was_signed_in_the_period_holds_long_after_it(claimed: datetime) -> None:
    """Both ends are included, the last second in full."""
    time = time_of(claimed)

    assert time.outcome is Outcome.PASSED
    assert time.key_usage_period == KeyUsagePeriod(BEGIN, END)


@pytest.mark.parametrize("claimed", [BEGIN - ONE_DAY, END + SECOND, NOW])
def test_a_date_outside_of_the_period_is_named_while_the_certificate_is_valid(claimed: datetime) -> None:
    time = time_of(claimed)

    assert (time.outcome, codes(time)) == (Outcome.FAILED, OUTSIDE)
    assert "from 2026-05-06 12:00 UTC until 2026-05-13 12:00 UTC" in time.findings[0].what


def test_a_certificate_without_a_period_sets_no_other_limit_than_its_own() -> None:
    time, _ = SignerChains(TrustMaterial((CA.certificate,)), NOW).judge(CERTIFICATE, Time(claimed=NOW))
    assert (time.outcome, time.key_usage_period) == (Outcome.PASSED, None)


@pytest.mark.parametrize(
    ("limits", "claimed", "expected"),
    [
        ((None, END), BEGIN - ONE_DAY, []),
        ((None, END), END + ONE_DAY, OUTSIDE),
        ((BEGIN, None), END + ONE_DAY, []),
        ((BEGIN, None), BEGIN - ONE_DAY, OUTSIDE),
    ],
)
def test_each_of_the_two_limits_may_be_missing(
    limits: tuple[datetime | None, datetime | None], claimed: datetime, expected: list[str]
) -> None:
    assert codes(time_of(claimed, limits=limits)) == expected


def test_the_clock_of_a_ca_may_be_a_little_fast_and_no_end_is_put_off() -> None:
    assert codes(time_of(BEGIN - timedelta(minutes=4))) == []
    assert codes(time_of(BEGIN - timedelta(minutes=6))) == OUTSIDE
    assert codes(time_of(END + timedelta(minutes=4))) == OUTSIDE


@pytest.mark.parametrize("stamped_at", [INSIDE, END + ONE_DAY, NOW])
def test_a_time_stamp_from_after_the_period_contradicts_nothing(stamped_at: datetime) -> None:
    """It proves that the signature existed by then, and archives stamp what they have had for long."""
    assert codes(time_of(INSIDE, trusted=stamped_at)) == []


def test_a_time_stamp_from_before_the_period_proves_that_the_key_was_used_too_early() -> None:
    assert codes(time_of(INSIDE, trusted=BEGIN - ONE_DAY)) == ["time-contradicted", *OUTSIDE]


def test_who_is_proven_to_have_signed_in_time_did_so_whatever_his_clock_said() -> None:
    assert codes(time_of(END + timedelta(minutes=4), trusted=END)) == []
    assert codes(time_of(END + ONE_DAY, trusted=END)) == ["time-contradicted"]


@pytest.mark.parametrize("moment", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)])
def test_neither_the_first_nor_the_last_time_there_is_goes_wrong(moment: datetime) -> None:
    assert codes(time_of(INSIDE, limits=(None, moment))) == (OUTSIDE if moment < INSIDE else [])
    assert codes(time_of(INSIDE, limits=(moment, None))) == (OUTSIDE if moment > INSIDE else [])
    assert OUTSIDE[0] in codes(time_of(moment))


def test_the_period_of_an_authority_says_nothing_of_what_the_scanner_signs() -> None:
    """Of the key of a CA it says when that may issue certificates."""
    ended = with_period(CA.certificate, CA.key, period_value(not_after=BEGIN - ONE_DAY))
    assert codes(time_of(INSIDE, chains=SignerChains(TrustMaterial((ended,)), NOW))) == []


# ----------------------------------------------------------------------------------------------- what follows from it


def test_an_image_of_a_key_that_is_gone_is_valid_without_a_time_stamp() -> None:
    """By the word of the signer; the same with a time stamp is certified."""
    with_stamp = judged(stamped(FORMER_KEY_FROM + 2 * ONE_DAY)(slice_of_a_former_key()))

    assert judged(slice_of_a_former_key()).verdict is Verdict.VALID
    assert judged(slice_of_a_former_key()).axes.time is TimeAxis.NONE
    assert (with_stamp.verdict, with_stamp.axes.time) == (Verdict.VALID, TimeAxis.CERTIFIED)


def test_a_date_outside_of_the_period_weighs_as_much_as_one_outside_of_the_certificate() -> None:
    of_the_period = judged(resigned(former_key, at=FORMER_KEY_UNTIL + ONE_DAY)(ct_slice()))
    of_the_certificate = judged(resigned(scanner, at=datetime(2003, 1, 1, tzinfo=UTC))(ct_slice()))

    assert (of_the_period.verdict, of_the_period.action) == (Verdict.INDETERMINATE, Action.FLAG)
    assert (of_the_certificate.verdict, of_the_certificate.action) == (Verdict.INDETERMINATE, Action.FLAG)
    assert any("(time-outside-key-usage-period)" in line for line in of_the_period.explanation)


# -------------------------------------------------------------------------------------------------- odd certificates


def signed_under(value: bytes, *, critical: bool = False) -> bytes:
    """The image under a certificate with this PrivateKeyUsagePeriod."""
    honest = scanner()
    odd = Signer(honest.key, with_period(honest.certificate, hospital_ca().key, value, critical=critical))
    return resigned(lambda: odd)(ct_slice())


def test_a_critical_period_is_refused_as_a_condition_that_cannot_be_checked() -> None:
    """RFC 3280 4.2.1.4: not critical. RFC 5280 4.2: who does not process a critical extension rejects."""
    good = period_value(FORMER_KEY_FROM, FORMER_KEY_UNTIL)
    assert found(signed_under(good)) == ()
    assert found(signed_under(good, critical=True)) == ("chain: certificate-untrusted",)


FROM, UNTIL = b"20261022120000Z", b"20261029120000Z"
MALFORMED: Final = {
    "neither limit": (),
    "the end before the begin": ((0x80, UNTIL), (0x81, FROM)),
    "the end in front": ((0x81, UNTIL), (0x80, FROM)),
    "the end twice": ((0x81, UNTIL), (0x81, UNTIL)),
    "a third limit": ((0x80, FROM), (0x81, UNTIL), (0x82, UNTIL)),
    "the tag of a time instead of its own": ((0x18, UNTIL),),
    "two digits for the year": ((0x81, UNTIL[2:]),),
    "no seconds": ((0x81, b"202610291200Z"),),
    "fractions of a second": ((0x81, b"20261029120000.5Z"),),
    "a local time": ((0x81, UNTIL[:-1]),),
    "an offset from UTC": ((0x81, UNTIL[:-1] + b"+0100"),),
    "the thirteenth month": ((0x81, b"20261329120000Z"),),
    "the year 0": ((0x81, b"00000101000000Z"),),
}


@pytest.mark.parametrize("limits", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_period_makes_a_malformed_certificate(limits: tuple[tuple[int, bytes], ...]) -> None:
    """RFC 3280 4.2.1.4: at least one limit, each a GeneralizedTime as in 4.1.2.5.2."""
    value = der.encode(der.SEQUENCE, b"".join(der.encode(tag, limit) for tag, limit in limits))
    assert "integrity: certificate-malformed" in found(signed_under(value))


def test_something_behind_the_period_makes_a_malformed_certificate() -> None:
    assert "integrity: certificate-malformed" in found(signed_under(period_value(not_after=FORMER_KEY_UNTIL) + b"\0"))
