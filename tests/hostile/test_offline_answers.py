"""Answers made to hurt: nothing but typed errors, in bounded time and memory, and nothing is put into use."""

from __future__ import annotations

import base64
import random
import time
import tracemalloc
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from enroll import der
from enroll.certificates import pem
from enroll.errors import CertificateRefused, EvidenceRefused, ProtocolViolation, ScansealError
from enroll.flows.offline.answers import FILE_LIMIT, read_answers
from enroll.offline_request import FILE_LIMIT as REQUEST_LIMIT
from enroll.offline_request import check_proof, read_offline_request
from enroll.trust import check_issued
from tests.support.by_hand import IDEVID, SIGNING, ByHand, granted
from tests.support.certificate_mutation import der_changed
from tests.support.pki import NOW, REQUEST, HospitalCa, new_key

CA = HospitalCa()
KEY = new_key()
LEAF = CA.issue(KEY.public_key())
ANSWER = pkcs7.serialize_certificates([LEAF, CA.certificate], Encoding.DER)
SECONDS = 5.0  # of computing, for one file of the largest size


def damaged(data: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.5:
        return der_changed(data, chance)
    mutant = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(mutant))
        match chance.randrange(4):
            case 0:
                mutant[place] ^= 1 << chance.randrange(8)
            case 1:
                del mutant[place : place + chance.randint(1, 40)]
            case 2:
                mutant[place:place] = chance.randbytes(chance.randint(1, 40))
            case _:
                mutant[place] = chance.choice((0x00, 0x30, 0x31, 0x80, 0x84, 0xA0, 0xFF))
    return bytes(mutant) or b"0"


def test_of_ten_thousand_damaged_answers_none_brings_another_certificate() -> None:
    chance = random.Random(20261122)  # noqa: S311 - the same in every run
    read = 0
    for _ in range(10_000):
        mutant = damaged(ANSWER, chance)
        file = (
            mutant
            if chance.random() < 0.7
            else b"-----BEGIN PKCS7-----\n" + base64.encodebytes(mutant) + b"-----END PKCS7-----"
        )
        try:
            certificates = read_answers({"answer": file})
            read += 1
            verified = check_issued(
                certificates, (), (CA.certificate,), public_key=KEY.public_key(), request=REQUEST, now=NOW
            )
        except (ProtocolViolation, CertificateRefused):
            continue
        assert verified.certificate == LEAF
    assert read > 100  # the damage is not always found by the first reader


def test_damaged_answers_change_nothing_at_the_scanner(tmp_path: Path) -> None:
    by_hand = ByHand(tmp_path, CA)
    request, file = by_hand.export()
    stranger = HospitalCa("Hospital CA")
    answer = pkcs7.serialize_certificates([granted(stranger, read_offline_request(file))], Encoding.DER)
    chance = random.Random(1)  # noqa: S311 - the same in every run
    for _ in range(500):
        with pytest.raises(ScansealError):
            by_hand.take_in(damaged(answer, chance))

    assert by_hand.scanner.identities.current(SIGNING) is None
    assert by_hand.out() == {request.number: "waiting"}
    assert by_hand.take_in(pem([by_hand.granted(file)]))


def nested(depth: int) -> bytes:
    value = b""
    for _ in range(depth):
        value = der.encode(der.SEQUENCE, value)
    return value


def many_certificates() -> bytes:
    values = pem([LEAF]) * (FILE_LIMIT // len(pem([LEAF])))
    assert len(values) > FILE_LIMIT // 2
    return values


def thousands_in_one_message() -> bytes:
    certificate = LEAF.public_bytes(Encoding.DER)
    body = (
        der.encode(0x02, b"\x01")
        + der.encode(0x31, b"")
        + der.encode(der.SEQUENCE, der.object_identifier("1.2.840.113549.1.7.1"))
        + der.encode(0xA0, certificate * (FILE_LIMIT // len(certificate) - 1))
        + der.encode(0x31, b"")
    )
    signed_data = der.encode(0xA0, der.encode(der.SEQUENCE, body))
    return der.encode(der.SEQUENCE, der.object_identifier("1.2.840.113549.1.7.2") + signed_data)


INDEFINITE = b"\x30\x80"
HURTING = {
    "deep DER": nested(60_000)[:FILE_LIMIT],
    "deep BER of indefinite length": INDEFINITE * (FILE_LIMIT // 2),
    "deep BER that ends": INDEFINITE * (FILE_LIMIT // 4) + b"\x00\x00" * (FILE_LIMIT // 4),
    "a length of 2**1000": b"\x30\xfe" + b"\xff" * 126 + b"\x00" * 1000,
    "empty values": b"\x30\x83\x06\x00\x00" + b"\x30\x00" * (0x60000 // 2),
    "thousands of PEM certificates": many_certificates(),
    "thousands of certificates in PKCS#7": thousands_in_one_message(),
    "beginnings only": b"-----BEGIN CERTIFICATE-----\n" * (FILE_LIMIT // 28),
    "ends only": b"-----END CERTIFICATE-----\n" * (FILE_LIMIT // 26),
    "dashes": b"-" * FILE_LIMIT,
    "quoting": b"> " * (FILE_LIMIT // 2),
    "spaces at line begins": (b" " * 4095 + b"\n") * (FILE_LIMIT // 4096),
    "zero bytes": b"\x00" * FILE_LIMIT,
    "half a UTF-16 character": b"\xff\xfe" + b"\xd8" * (FILE_LIMIT - 3),
    "trailing data": ANSWER + b"\x30\x00",
    "base64 that ends early": b"-----BEGIN PKCS7-----\nMII=MII=\n-----END PKCS7-----\n",
    "a label inside a label": b"-----BEGIN -----BEGIN PKCS7----------END PKCS7-----",
}


@pytest.mark.parametrize("data", HURTING.values(), ids=HURTING)
def test_what_is_made_to_hurt_is_refused_soon(data: bytes) -> None:
    assert len(data) <= FILE_LIMIT
    tracemalloc.start()
    begun = time.process_time()
    try:
        with pytest.raises(ProtocolViolation) as caught:
            read_answers({"answer": data})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert time.process_time() - begun < SECONDS
    assert peak < 64 << 20
    assert len(caught.value.what) < 500


def test_damaged_requests_prove_nothing_else(tmp_path: Path) -> None:
    """What a CA operator reads is as hostile as what the scanner reads."""
    vendor = HospitalCa("Vendor CA")
    by_hand = ByHand(tmp_path, CA, vendor)
    by_hand.with_identity(IDEVID, vendor)
    _, file = by_hand.export()
    statement = read_offline_request(file).statement
    chance = random.Random(7)  # noqa: S311 - the same in every run
    for _ in range(2000):
        try:
            request = read_offline_request(damaged(file, chance))
            check_proof(request, (vendor.certificate,), NOW)
        except EvidenceRefused:
            continue
        assert request.statement == statement


@pytest.mark.parametrize("data", HURTING.values(), ids=HURTING)
def test_no_request_hurts_its_reader(data: bytes) -> None:
    begun = time.process_time()
    with pytest.raises(EvidenceRefused):
        read_offline_request(data[:REQUEST_LIMIT])

    assert time.process_time() - begun < SECONDS
