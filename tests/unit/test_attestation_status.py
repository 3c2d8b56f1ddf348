"""`status --attestation` says what is proven now, and why nothing is, where nothing is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from agent.cli import attested
from enroll.attestation.attest import Attestation
from enroll.attestation.kept import EvidenceStore, KeptEvidence
from enroll.attestation.names import TpmDetails
from enroll.attestation.verify import identity_challenge
from enroll.certificates import pem
from enroll.config import AttestationSettings
from enroll.csr import permanent_identifier
from enroll.errors import ConfigurationError, StateError
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.keystore.base import Protection
from enroll.record import write_document
from enroll.statefile import StateFiles
from tests.support import enrolling
from tests.support import pretend_tpm as tpm
from tests.support.clocks import SteppedClock
from tests.support.pki import NOW, HospitalCa, new_key
from tests.support.pretend_tpm import AkCertificate
from tests.support.records import values_of

KEY = new_key()
CERTIFICATE = HospitalCa().issue(KEY.public_key())


def generation(
    key_uri: str = "tpm:device-1", certificate: x509.Certificate = CERTIFICATE, number: int = 1
) -> Generation:
    return Generation(
        identity=IdentityName.DEVICE,
        number=number,
        certificate=certificate,
        chain=(),
        key_uri=key_uri,
        protection=Protection.SOFTWARE,
        flow="est",
        committed_at=NOW,
    )


@pytest.fixture
def attestation(tmp_path: Path) -> Attestation:
    anchor = tmp_path / "anchor.pem"
    anchor.write_bytes(pem([tpm.root().certificate]))
    settings = replace(enrolling.settings(tmp_path), attestation=AttestationSettings(anchor_file=anchor))
    return Attestation.configured(settings, SteppedClock(), StateFiles())


def store(attestation: Attestation) -> EvidenceStore:
    return EvidenceStore(IdentityStore(attestation.settings.state_directory, StateFiles()), StateFiles())


def keep(attestation: Attestation, **changes: AkCertificate) -> None:
    evidence = tpm.tpm_evidence(KEY.public_key(), challenge=identity_challenge(CERTIFICATE), **changes)  # type: ignore[arg-type]
    store(attestation).write(generation(), KeptEvidence(evidence, NOW))


def test_what_is_proven_is_said_with_the_tpm_and_who_certified_it(attestation: Attestation) -> None:
    keep(attestation)
    record = attested.record(generation(), attestation)

    assert record["state"] == "verified"
    assert (record["format"], record["generation"], record["device"]) == ("tpm", 1, tpm.SERIAL_NUMBER)
    assert record["made_at"] == NOW.isoformat()
    assert record["tpm"] == {
        "manufacturer": "id:49465800",
        "model": "SLB9672",
        "version": "id:0010",
        "simulated": False,
    }
    assert "Attestation issuing CA" in record["certificate"]["issuer"]
    assert "in the TPM id:49465800 SLB9672" in attested.text(record)


def test_a_simulated_tpm_is_called_simulated(attestation: Attestation) -> None:
    details = TpmDetails("id:00001014", "swtpm", "id:20191023")
    names = (details.directory_name(), permanent_identifier(tpm.SERIAL_NUMBER))
    keep(attestation, certificate=AkCertificate(names=names))
    record = attested.record(generation(), attestation)

    assert record["tpm"]["simulated"]
    assert "simulated TPM" in attested.text(record)


@pytest.mark.parametrize("uri", ["software:device-1", "memory:signing-1"])
def test_a_key_in_a_file_or_in_memory_has_none(attestation: Attestation, uri: str) -> None:
    record = attested.record(generation(uri), attestation)

    assert record["state"] == "none"
    assert attested.text(record).startswith("none: ")


def test_without_an_anchor_nothing_is_said_to_be_proven() -> None:
    assert "anchor_file" in attested.record(generation(), None)["reason"]


def test_evidence_of_the_generation_before_is_none_for_this_one(attestation: Attestation) -> None:
    keep(attestation)

    assert "scanseal attest" in attested.record(generation(number=2), attestation)["reason"]


def test_evidence_is_checked_each_time_it_is_shown(attestation: Attestation) -> None:
    keep(attestation)
    path = store(attestation).path(generation())
    values = json.dumps(values_of(path))
    write_document(path, json.loads(values.replace('"certInfo": "/1RD', '"certInfo": "AAAA')), StateFiles(), 0o640)
    record = attested.record(generation(), attestation)

    assert record["state"] == "refused"
    assert record["error"]["code"] == "evidence-wrong-signature"
    assert attested.text(record).startswith("refused: ")


@pytest.mark.parametrize("content", ["", "[]", "[" * 50000, '{"made_at": 1}', '{"made_at": "2026-11-22"}', "x" * 70000])
def test_damaged_evidence_is_said_to_be_unreadable(attestation: Attestation, content: str) -> None:
    keep(attestation)
    store(attestation).path(generation()).write_text(content, "utf-8")

    assert attested.record(generation(), attestation)["state"] == "unreadable"
    with pytest.raises(StateError):
        store(attestation).read(generation())


def test_evidence_lies_beside_the_generations_for_whoever_may_read_those(attestation: Attestation) -> None:
    keep(attestation)
    path = store(attestation).path(generation())

    assert (
        path.relative_to(attestation.settings.state_directory).as_posix() == "identities/device/attestation/0001.json"
    )
    assert path.stat().st_mode & 0o777 == 0o640


def test_attestation_needs_its_anchor(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="anchor_file"):
        Attestation.configured(enrolling.settings(tmp_path), SteppedClock(), StateFiles())
