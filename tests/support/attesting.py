"""A scanner with keys in a TPM, and the attestation CA of its vendor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from enroll.algorithms import KeyAlgorithm
from enroll.attestation.attest import Attestation
from enroll.clock import Clock, SystemClock
from enroll.config import (
    AttestationSettings,
    EnrollSettings,
    IdentitiesSettings,
    IdentitySettings,
    KeyStoreSettings,
    SigningIdentitySettings,
    StoreName,
    TpmStoreSettings,
)
from enroll.evaluation.attestation_ca import AttestationCa
from enroll.evaluation.attestation_server import AttestationServer
from enroll.evaluation.ca import USERNAME
from enroll.identity import Generation, IdentityName
from enroll.statefile import StateFiles
from enroll.trust import read_ca_certificates
from tests.support import enrolling
from tests.support.enrolling import CaFlow, Scanner
from tests.support.key_stores import secret_file
from tests.support.pki import HospitalCa
from tests.support.swtpm import SwTpm


@dataclass(frozen=True)
class Vendor:
    """A running attestation CA.

    Args:
        ca: It.
        url: Its server.
    """

    ca: AttestationCa
    url: str

    def settings(self) -> AttestationSettings:
        """What to write into [attestation]."""
        return AttestationSettings(self.url, self.ca.anchor_file, USERNAME, self.ca.password_file, timeout=20)


@contextmanager
def running_vendor(directory: Path, *tpms: SwTpm, clock: Clock | None = None) -> Iterator[Vendor]:
    """An attestation CA that believes the makers of these TPMs."""
    files = StateFiles()
    manufacturers = [certificate for tpm in tpms for certificate in read_ca_certificates(tpm.ek_issuer, files)]
    ca = AttestationCa.create_or_open(directory, manufacturers, clock or SystemClock())
    with AttestationServer(ca) as server:
        yield Vendor(ca, server.url)


def scanner_with_tpm(folder: Path, tcti: str, vendor: Vendor, algorithm: KeyAlgorithm = KeyAlgorithm.P_256) -> Scanner:
    """A scanner whose identities get keys in the TPM."""
    pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is missing: pip install '.[tpm]'")
    folder.mkdir(exist_ok=True)
    authorization = secret_file(folder / "tpm-authorization", "a-long-random-value")
    settings = replace(
        enrolling.settings(folder),
        keystore=KeyStoreSettings(tpm=TpmStoreSettings(tcti=tcti, authorization_file=authorization)),
        identity=IdentitiesSettings(
            device=IdentitySettings(key_store=StoreName.TPM, key_algorithm=algorithm),
            signing=SigningIdentitySettings(key_store=StoreName.TPM, key_algorithm=KeyAlgorithm.RSA_2048),
        ),
        attestation=vendor.settings(),
    )
    return scanner(settings)


def scanner(settings: EnrollSettings) -> Scanner:
    """A scanner that enrolls with a hospital's CA of its own."""
    return Scanner(settings, (HospitalCa().certificate,), SystemClock())


def enroll(scanner: Scanner, identity: IdentityName = IdentityName.DEVICE) -> Generation:
    """A new generation of an identity; the TPM is free again afterwards."""
    ca = HospitalCa()
    opened = Scanner(scanner.settings, (ca.certificate,), scanner.clock)
    try:
        issued = opened.issue(CaFlow(ca, scanner.clock), identity)
    finally:
        opened.stores.close()
    assert isinstance(issued, Generation)
    return issued


def attestation(scanner: Scanner) -> Attestation:
    """The attestation of this scanner."""
    return Attestation.configured(scanner.settings, scanner.clock, scanner.files)
