"""What is read from certificates."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from enroll.certificates import pem, serial_text
from tests.support.fixed_keys import fixed_ec_key
from tests.support.openssl import needs_openssl
from tests.support.pki import name


@needs_openssl
@pytest.mark.parametrize("number", [0x01, 0x0ABC, 0xABCD, 0x02E99F07E020E6D46E50EDAA732E9659BAA724F1])
def test_a_serial_number_is_shown_as_openssl_shows_it(tmp_path: Path, number: int) -> None:
    """Two digits for each byte, so that an operator finds it in the list of the CA."""
    now, key, anybody = datetime(2026, 11, 23, tzinfo=UTC), fixed_ec_key(), name(COMMON_NAME="scanner")
    builder = x509.CertificateBuilder().subject_name(anybody).issuer_name(anybody).serial_number(number)
    certificate = builder.not_valid_before(now).not_valid_after(now).public_key(key.public_key()).sign(key, SHA256())
    file = tmp_path / "certificate.pem"
    file.write_bytes(pem((certificate,)))

    said = subprocess.run(["openssl", "x509", "-noout", "-serial", "-in", file], capture_output=True, check=True).stdout

    assert said.decode().strip().lower() == f"serial={serial_text(certificate)}"
