"""What a certificate grants its key is kept, whatever the key store: RFC 3280 4.2.1.4, PrivateKeyUsagePeriod."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from agent.daemon.active_key import ActiveKey
from agent.daemon.wire import HashName
from agent.errors import SigningError
from enroll.algorithms import KeyAlgorithm
from enroll.config import StoreName
from enroll.identity import IdentityName
from enroll.keystore.base import Protection
from enroll.trust import VerifiedCertificate
from tests.support.agent_process import Scanner, new_scanner
from tests.support.clocks import SteppedClock
from tests.support.pki import REQUEST, Content, HospitalCa

SIGNING = IdentityName.SIGNING


@pytest.mark.parametrize(
    ("begin", "end", "code"),
    [
        (timedelta(days=-9), timedelta(days=-1), "key-expired"),
        (timedelta(days=1), timedelta(days=2), "certificate-not-yet-valid"),
        (None, timedelta(seconds=-1), "key-expired"),
        (timedelta(seconds=1), None, "certificate-not-yet-valid"),
    ],
)
def test_nothing_is_signed_outside_the_usage_period_of_the_certificate(
    tmp_path: Path, begin: timedelta | None, end: timedelta | None, code: str
) -> None:
    """RFC 3280 4.2.1.4, for a key in a file as well."""
    clock = SteppedClock()
    period = tuple(None if step is None else clock.now().replace(tzinfo=None) + step for step in (begin, end))
    with new_scanner(tmp_path) as scanner:
        active = active_with(scanner, clock, *period)

        with pytest.raises(SigningError) as refused:
            active.sign(bytes(32), HashName.SHA256, clock.now())
    assert refused.value.code == code


def test_the_last_second_of_the_usage_period_counts(tmp_path: Path) -> None:
    clock = SteppedClock()
    with new_scanner(tmp_path) as scanner:
        active = active_with(scanner, clock, None, clock.now().replace(tzinfo=None))

        active.sign(bytes(32), HashName.SHA256, clock.now() + timedelta(milliseconds=999))


def active_with(scanner: Scanner, clock: SteppedClock, begin: datetime | None, end: datetime | None) -> ActiveKey:
    """A key in a file, whose certificate grants a usage period."""
    uri = scanner.keys.generate(StoreName.SOFTWARE, "signing-1", KeyAlgorithm.RSA_2048)
    key = scanner.keys.load(uri)
    issuer = HospitalCa("Hospital")
    certificate = (
        x509.CertificateBuilder(issuer.name, REQUEST.subject, key.public_key())
        .serial_number(1)
        .not_valid_before(clock.now() - timedelta(days=100))
        .not_valid_after(clock.now() + timedelta(days=100))
        .add_extension(x509.PrivateKeyUsagePeriod(begin, end), critical=False)
        .sign(issuer.key, Content().digest)  # type: ignore[arg-type]
    )
    generation = scanner.identities.commit(
        SIGNING,
        VerifiedCertificate(certificate, ()),
        uri,
        protection=Protection.SOFTWARE,
        flow="test",
        now=clock.now(),
    )
    return ActiveKey.load(generation, scanner.keys)


def test_a_key_that_may_be_used_for_ever_signs(tmp_path: Path) -> None:
    """RFC 5280 4.1.2.5: 99991231235959Z stands for no end; there is no second after it."""
    clock = SteppedClock()
    with new_scanner(tmp_path) as scanner:
        active = active_with(scanner, clock, None, datetime(9999, 12, 31, 23, 59, 59))  # noqa: DTZ001 - as it is written

        active.sign(bytes(32), HashName.SHA256, clock.now())
    assert active.signs_until == active.generation.certificate.not_valid_after_utc
