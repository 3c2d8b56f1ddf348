"""Whatever stands in evidence, the answer is a verdict: no other error, no wait, and nothing forged is believed."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from enroll.attestation.evidence import evidence_from_json, evidence_to_json
from enroll.attestation.tpm_structures import read_certification, read_public_area, read_signature
from enroll.attestation.verify import verify_evidence
from enroll.errors import EvidenceRefused
from tests.support import pretend_tpm as tpm
from tests.support.certificates import rsa_key
from tests.support.pki import NOW, new_key

MUTANTS = 3000
KEY = new_key()
GENUINE = (tpm.tpm_evidence(KEY.public_key()), tpm.step_evidence(KEY))


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The same with a bit flipped, a part cut out, doubled or overwritten."""
    start = chance.randrange(len(data) + 1)
    end = min(len(data), start + chance.choice((1, 2, 4, 32)))
    part = chance.choice((b"", data[start:end] * 2, chance.randbytes(end - start), b"\xff" * (end - start)))
    if start < len(data) and chance.random() < 0.3:
        part = bytes([data[start] ^ 1 << chance.randrange(8)]) + data[start + 1 : end]
    return data[:start] + part + data[end:]


@pytest.mark.parametrize(
    ("read", "whole"),
    [
        (read_certification, GENUINE[0].cert_info),
        (read_signature, GENUINE[0].signature),
        (read_public_area, GENUINE[0].public_area),
        (read_public_area, tpm.public_area(rsa_key(2048).public_key())),
    ],
    ids=["certInfo", "sig", "pubArea", "pubArea of RSA"],
)
def test_a_damaged_structure_is_read_or_refused(read: Callable[[bytes], object], whole: bytes) -> None:
    chance = random.Random(1)  # noqa: S311 - damage shall be repeatable
    for _ in range(MUTANTS):
        with contextlib.suppress(EvidenceRefused):
            read(damaged(whole, chance))


@pytest.mark.parametrize("genuine", GENUINE, ids=["tpm", "step"])
def test_damaged_evidence_speaks_of_the_genuine_key_or_is_refused(genuine: Any) -> None:
    chance = random.Random(2)  # noqa: S311 - the same
    roots = [tpm.root().certificate]
    for _ in range(MUTANTS // 10):
        values = evidence_to_json(genuine)
        field = chance.choice(sorted(values.keys() - {"format"}))
        if field == "x5c":
            place = chance.randrange(len(values["x5c"]))
            values["x5c"][place] = _text(damaged(genuine.x5c[place], chance))
        else:
            values[field] = _text(damaged(_bytes(values[field]), chance))
        try:
            attested = verify_evidence(
                evidence_from_json(values), challenge=tpm.CHALLENGE, identifier=tpm.SERIAL_NUMBER, roots=roots, now=NOW
            )
        except EvidenceRefused:
            continue
        assert attested.public_key == KEY.public_key()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 60000,
        "{}",
        "[]",
        "null",
        '{"format": "tpm"}',
        '{"format": {}, "x5c": []}',
        '{"format": "step", "x5c": [[]]}',
    ],
)
def test_json_that_is_no_evidence_is_refused(text: str) -> None:
    try:
        values = json.loads(text)
    except RecursionError:
        return  # who reads JSON catches it: enroll/attestation/kept.py
    if isinstance(values, dict):
        with pytest.raises(EvidenceRefused):
            evidence_from_json(values)


def test_a_modulus_that_is_no_modulus_costs_no_time() -> None:
    """Even, tiny, and with an exponent of 1: what `cryptography` refuses, or computes with for long."""
    began = time.monotonic()
    for modulus, exponent in ((2**2047 + 2, 3), (2**2047 + 1, 1), (2**2047 + 1, 2**32 - 1), (2**16000 + 1, 3)):
        size = (modulus.bit_length() + 7) // 8
        area = tpm.number(tpm.RSA) + tpm.number(tpm.SHA256) + tpm.number(tpm.GOOD_ATTRIBUTES, 4) + tpm.sized(b"")
        area += tpm.number(tpm.NULL) * 2 + tpm.number(modulus.bit_length()) + tpm.number(exponent, 4)
        try:
            read_public_area(area + tpm.sized(modulus.to_bytes(size, "big")))
        except EvidenceRefused:
            continue
    assert time.monotonic() - began < 1


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)
