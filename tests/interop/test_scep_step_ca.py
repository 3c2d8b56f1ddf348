"""SCEP against step-ca, which encrypts its answers by AES, and certifies what a request asks for.

Its CA has a key on a curve, as many; so it has an RSA key for SCEP beside, whose certificate is pinned as well.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from enroll.algorithms import KeyAlgorithm
from enroll.certificates import pem
from enroll.clock import SystemClock
from enroll.config import IdentitiesSettings, IdentitySettings, KeyStoreSettings, Pkcs11StoreSettings, StoreName
from enroll.enroller import Enroller
from enroll.errors import EnrollmentRefused
from enroll.flows.settings import FlowName, ScepSettings
from enroll.identity import Generation, IdentityName
from tests.support.acme.step_ca import PROVISIONER, running_step_ca
from tests.support.enrolling import Scanner, settings
from tests.support.pki import HospitalCa
from tests.support.softhsm import softhsm_of_this_process

CHALLENGE = "a challenge"
AES_256_CBC = 2
AS_ASKED = '{"subject": {{ toJson .Insecure.CR.Subject }}, "extensions": {{ toJson .Insecure.CR.Extensions }}}'


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    """RSA keys in files, hardwareModuleName and all."""
    key = rsa.generate_private_key(65537, 2048)
    begin = SystemClock().now().replace(microsecond=0) - timedelta(hours=1)
    reader = HospitalCa("SCEP", key=key, begin=begin, end=begin + timedelta(days=2)).certificate
    encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "reader.pem").write_bytes(pem([reader]))
    with running_step_ca(
        tmp_path / "ca",
        tmp_path / "reader.pem",
        type="SCEP",
        challenge=CHALLENGE,
        encryptionAlgorithmIdentifier=AES_256_CBC,
        decrypterCertificate=base64.b64encode(pem([reader])).decode("ascii"),
        decrypterKeyPEM=base64.b64encode(key.private_bytes(*encoding)).decode("ascii"),
        options={"x509": {"template": AS_ASKED}},
    ) as ca:
        plain = settings(tmp_path)
        challenge_file = tmp_path / "challenge"
        challenge_file.write_text(CHALLENGE, "ascii")
        challenge_file.chmod(0o600)
        scep = ScepSettings(
            enabled=True,
            url=f"https://127.0.0.1:{ca.port}/scep/{PROVISIONER}",
            anchor_file=tmp_path / "anchors.pem",
            challenge_file=challenge_file,
        )
        keys = IdentitiesSettings(
            device=IdentitySettings(key_algorithm=KeyAlgorithm.RSA_2048),
            signing=replace(plain.identity.signing, key_algorithm=KeyAlgorithm.RSA_2048),
        )
        root = x509.load_pem_x509_certificate(ca.anchor_file.read_bytes())
        yield Scanner(replace(plain, scep=scep, identity=keys), (root, reader), SystemClock())


def enrolled(scanner: Scanner, identity: IdentityName) -> Generation:
    with Enroller(scanner.restarted().context) as enroller:
        answer = enroller.enroll(identity, FlowName.SCEP)
    assert isinstance(answer, Generation)
    assert scanner.matching_pair(identity) == answer
    return answer


@pytest.mark.parametrize("identity", [IdentityName.DEVICE, IdentityName.SIGNING])
def test_both_identities_are_enrolled_and_renewed(
    scanner: Scanner, identity: IdentityName, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        first, second = enrolled(scanner, identity), enrolled(scanner, identity)

    assert first.certificate.serial_number != second.certificate.serial_number
    assert "not encrypted by AES" not in caplog.text


def test_a_key_on_a_curve_is_certified(scanner: Scanner) -> None:
    keys = replace(scanner.settings.identity, device=IdentitySettings(key_algorithm=KeyAlgorithm.P_256))

    enrolled(scanner.restarted(identity=keys), IdentityName.DEVICE)


def test_a_key_in_a_token_is_certified(scanner: Scanner, tmp_path_factory: pytest.TempPathFactory) -> None:
    softhsm = softhsm_of_this_process(tmp_path_factory.getbasetemp())
    token = Pkcs11StoreSettings(module=softhsm.proxy, token="through-proxy", pin_file=softhsm.pin_file)
    keystore = KeyStoreSettings(software=scanner.settings.keystore.software, pkcs11=token)
    in_token = IdentitySettings(key_store=StoreName.PKCS11, key_algorithm=KeyAlgorithm.RSA_2048)
    keys = replace(scanner.settings.identity, device=in_token)

    enrolled(scanner.restarted(identity=keys, keystore=keystore), IdentityName.DEVICE)


def test_a_wrong_challenge_is_refused(scanner: Scanner) -> None:
    assert scanner.settings.scep.challenge_file is not None
    scanner.settings.scep.challenge_file.write_text("a wrong one", "ascii")

    with pytest.raises(EnrollmentRefused, match="badRequest"):
        enrolled(scanner, IdentityName.DEVICE)
