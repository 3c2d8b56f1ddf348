"""When a certificate is renewed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from enroll.renewal.due import renewal_time
from tests.support.key_usage_period import period_value, with_period
from tests.support.pki import NOW, HospitalCa, new_key

CA = HospitalCa()


@pytest.mark.parametrize(
    ("lifetime", "renewed_after"),
    [
        (timedelta(days=365), timedelta(days=365) * 2 / 3),
        (timedelta(days=90), timedelta(days=60)),
        (timedelta(days=10), timedelta(days=10) * 2 / 3),
        (timedelta(days=10, seconds=-2), timedelta(days=5, seconds=-1)),
        (timedelta(hours=8), timedelta(hours=4)),
    ],
)
def test_two_thirds_of_the_lifetime_and_half_of_a_short_one(lifetime: timedelta, renewed_after: timedelta) -> None:
    certificate = CA.issue(new_key().public_key(), begin=NOW, end=NOW + lifetime)
    due = NOW + renewed_after

    assert renewal_time(certificate) == due


@pytest.mark.parametrize(
    ("period", "renewed_after"),
    [
        (period_value(NOW, NOW + timedelta(days=30)), timedelta(days=20)),
        (period_value(None, NOW + timedelta(days=30)), timedelta(days=20)),
        (period_value(NOW - timedelta(hours=1), NOW + timedelta(days=8)), timedelta(days=4)),
        (period_value(NOW, NOW + timedelta(days=9000)), timedelta(days=3000) * 2 / 3),
        (period_value(NOW + timedelta(days=300)), timedelta(days=300) + timedelta(days=2700) * 2 / 3),
        (b"\x30\x00", timedelta(days=2000)),
    ],
)
def test_a_certificate_that_outlives_its_key_is_renewed_by_the_life_of_the_key(
    period: bytes, renewed_after: timedelta
) -> None:
    """RFC 3280 4.2.1.4."""
    issued = CA.issue(new_key().public_key(), begin=NOW, end=NOW + timedelta(days=3000))

    assert renewal_time(with_period(issued, CA.key, period)) == NOW + renewed_after


@pytest.mark.parametrize(
    ("suggested", "renewed_after"),
    [(-5, 1), (0, 1), (0.5, 1), (10, 10), (80, 80), (90, 90), (99, 90), (10_000, 90)],
)
def test_the_ca_may_suggest_another_moment_as_long_as_there_is_time_left(
    suggested: float, renewed_after: float
) -> None:
    """RFC 9773; the limits are nine tenths of the lifetime, and a day: no CA has renewals made without end."""
    certificate = CA.issue(new_key().public_key(), begin=NOW, end=NOW + timedelta(days=100))
    moment, due = NOW + timedelta(days=suggested), NOW + timedelta(days=renewed_after)

    assert renewal_time(certificate, moment) == due


def test_of_a_short_life_a_tenth_has_passed_before_the_ca_may_have_it_renewed() -> None:
    certificate = CA.issue(new_key().public_key(), begin=NOW, end=NOW + timedelta(hours=10))

    assert renewal_time(certificate, NOW - timedelta(days=1)) == NOW + timedelta(hours=1)
