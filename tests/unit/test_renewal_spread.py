"""What is a scanner's own: the same each time, and spread evenly over a thousand scanners."""

from __future__ import annotations

from datetime import timedelta

import pytest

from enroll.renewal.due import renewal_time
from enroll.renewal.spread import earlier_by, own_number, spread_renewal_time
from tests.support.pki import NOW, HospitalCa, new_key

CA = HospitalCa()
SCANNERS = [f"CT-{number:06}" for number in range(1000)]


def test_a_scanner_has_the_same_number_for_ever() -> None:
    assert own_number("due", "CT-000123", "device") == pytest.approx(0.746998, abs=1e-6)


def test_each_thing_has_a_number_of_its_own() -> None:
    assert len({own_number(what, "CT-000123") for what in ("due", "daily", "window", "end")}) == 4


def test_the_numbers_of_a_thousand_scanners_fill_the_whole_range_evenly() -> None:
    numbers = sorted(own_number("due", scanner, "device") for scanner in SCANNERS)
    tenths = [sum(tenth / 10 <= number < (tenth + 1) / 10 for number in numbers) for tenth in range(10)]

    assert 0 <= numbers[0] < numbers[-1] < 1
    assert all(70 <= count <= 130 for count in tenths)


@pytest.mark.parametrize("lifetime", [timedelta(hours=1), timedelta(days=9), timedelta(days=90), timedelta(days=3650)])
def test_a_renewal_moves_earlier_by_up_to_a_twentieth_of_the_lifetime_and_never_later(lifetime: timedelta) -> None:
    certificate = CA.issue(new_key().public_key(), begin=NOW, end=NOW + lifetime)
    moved = [earlier_by(certificate, scanner, "device") for scanner in SCANNERS]

    assert timedelta() <= min(moved) < lifetime / 20 / 10
    assert lifetime / 20 * 0.9 < max(moved) <= lifetime / 20
    for scanner in SCANNERS:
        assert spread_renewal_time(certificate, None, scanner, "device") <= renewal_time(certificate)


def test_the_moment_that_a_ca_suggests_stays() -> None:
    certificate = CA.issue(new_key().public_key(), begin=NOW, end=NOW + timedelta(days=90))
    suggested = NOW + timedelta(days=40)

    assert spread_renewal_time(certificate, suggested, "CT-000123", "device") == suggested
