"""When a certificate is renewed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from enroll.rotation import renewal_due, renewal_time
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
    assert not renewal_due(certificate, due - timedelta(seconds=1))
    assert renewal_due(certificate, due)


def test_an_expired_certificate_stays_due() -> None:
    certificate = CA.issue(new_key().public_key(), begin=NOW, end=NOW + timedelta(days=1))

    assert renewal_due(certificate, NOW + timedelta(days=1000))
