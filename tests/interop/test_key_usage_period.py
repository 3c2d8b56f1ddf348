"""Plain tools take no notice of PrivateKeyUsagePeriod: an image verifies for years after its key was destroyed.

RFC 3280 4.2.1.4; RFC 5280 neither deprecates nor recommends the extension, and says nothing of how to process it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from enroll.certificates import pem
from tests.support import dcmsign
from tests.support.attacks.images import ct_slice
from tests.support.attacks.registry import found
from tests.support.attacks.resigning import resigned
from tests.support.attacks.signers import LONG_AGO, Signer, hospital_ca, scanner
from tests.support.dcmsign import needs_dcmsign
from tests.support.key_usage_period import period_value, with_period
from tests.support.openssl import needs_openssl, openssl

PERIOD: Final = period_value(LONG_AGO - timedelta(days=1), LONG_AGO + timedelta(days=6))
JUST_BEFORE_THE_CERTIFICATE_ENDS: Final = datetime(2044, 12, 31, tzinfo=UTC)


def signer(*, critical: bool = False) -> Signer:
    """The scanner with a key of one week in 2021; the certificate is valid until 2045."""
    certificate = with_period(scanner().certificate, hospital_ca().key, PERIOD, critical=critical)
    return Signer(scanner().key, certificate)


@pytest.fixture
def anchor(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(pem([hospital_ca().certificate]))
    return path


@needs_dcmsign
@pytest.mark.parametrize("signed_at", [LONG_AGO, LONG_AGO + timedelta(days=365)], ids=["in time", "too late"])
def test_dcmsign_accepts_years_later_what_was_signed_in_the_period_and_what_was_not(
    signed_at: datetime, anchor: Path, tmp_path: Path
) -> None:
    """Without a time stamp. Whether the key was used in time is for others to say."""
    file = tmp_path / "image.dcm"
    file.write_bytes(resigned(signer, signed_at)(ct_slice()))

    assert dcmsign.run("--verify", "+cf", anchor, "+rc", file).accepted
    assert found(file.read_bytes()) == (() if signed_at == LONG_AGO else ("time: time-outside-key-usage-period",))


@needs_openssl
def test_openssl_knows_the_period_and_builds_the_path_long_after_it(anchor: Path, tmp_path: Path) -> None:
    certificate = tmp_path / "signer.pem"
    certificate.write_bytes(pem([signer().certificate]))

    shown = openssl("x509", "-in", certificate, "-noout", "-ext", "privateKeyUsagePeriod")
    assert "Not Before: Feb 28 00:00:00 2021 GMT, Not After: Mar  7 00:00:00 2021 GMT" in shown
    years_later = int(JUST_BEFORE_THE_CERTIFICATE_ENDS.timestamp())
    openssl("verify", "-CAfile", anchor, "-attime", str(years_later), certificate)


@needs_openssl
def test_openssl_refuses_a_critical_period(anchor: Path, tmp_path: Path) -> None:
    """RFC 5280 4.2: who does not process a critical extension rejects the certificate."""
    certificate = tmp_path / "signer.pem"
    certificate.write_bytes(pem([signer(critical=True).certificate]))

    assert "unhandled critical extension" in openssl("verify", "-CAfile", anchor, certificate, succeeds=False)
