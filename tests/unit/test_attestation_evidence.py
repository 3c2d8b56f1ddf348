"""Evidence proves what it says, and nothing else is believed: each requirement broken once is refused.

The requirements are those of step-ca for ACME device-attest-01, formats tpm and step, and of WebAuthn Level 2, 8.3.1.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from enroll import der
from enroll.attestation.evidence import (
    CHAIN_LIMIT,
    Evidence,
    StepEvidence,
    TpmEvidence,
    evidence_from_json,
    evidence_to_json,
)
from enroll.attestation.names import (
    AK_CERTIFICATE,
    MANAGED_DEVICE,
    TpmDetails,
    managed_device,
)
from enroll.attestation.verify import Attested, identity_challenge, verify_evidence, verify_identity_evidence
from enroll.csr import PERMANENT_IDENTIFIER, permanent_identifier
from enroll.errors import EvidenceRefused
from enroll.keystore.base import PrivateKey
from tests.support import pretend_tpm as tpm
from tests.support.certificates import rsa_key
from tests.support.pki import ENCIPHERS, NOW, HospitalCa, name, new_key
from tests.support.pretend_tpm import AkCertificate, number, sized, step_evidence, tpm_evidence

KEY = new_key()
OTHER = new_key()
OTHER_RSA = rsa_key(2048)
PUBLIC = KEY.public_key()


def verify(evidence: Evidence, *, now: datetime = NOW, identifier: str = tpm.SERIAL_NUMBER) -> Attested:
    return verify_evidence(
        evidence, challenge=tpm.CHALLENGE, identifier=identifier, roots=[tpm.root().certificate], now=now
    )


def refusal(evidence: Evidence, **context: object) -> EvidenceRefused:
    with pytest.raises(EvidenceRefused) as refused:
        verify(evidence, **context)  # type: ignore[arg-type]
    assert refused.value.remedy
    return refused.value


# --- what is believed


@pytest.mark.parametrize(
    "key", [KEY, rsa_key(2048), ec.generate_private_key(ec.SECP384R1())], ids=["256", "rsa", "384"]
)
def test_a_key_that_its_tpm_certifies_is_proven(key: PrivateKey) -> None:
    attested = verify(tpm_evidence(key.public_key()))

    assert attested.public_key == key.public_key()
    assert attested.tpm == tpm.DETAILS
    assert attested.chain[-1] == tpm.root().certificate


@pytest.mark.parametrize("key", [KEY, rsa_key(2048)], ids=["p-256", "rsa"])
def test_a_key_that_its_maker_certifies_is_proven(key: PrivateKey) -> None:
    attested = verify(step_evidence(key))

    assert attested.public_key == key.public_key()
    assert attested.tpm is None


def test_the_device_may_be_named_as_a_printable_string() -> None:
    value = der.encode(der.SEQUENCE, der.encode(0x13, tpm.SERIAL_NUMBER.encode()))

    verify(step_evidence(KEY, extension=x509.UnrecognizedExtension(MANAGED_DEVICE, value)))


def test_an_ak_certificate_may_have_more_purposes_and_names() -> None:
    names = (*AkCertificate().names, permanent_identifier("another"), x509.DNSName("tpm.example"))
    purposes = (AK_CERTIFICATE, ExtendedKeyUsageOID.CLIENT_AUTH)
    certificate = AkCertificate(purposes=purposes, names=names, ca=None, usage=None)

    verify(tpm_evidence(PUBLIC, certificate=certificate))


@pytest.mark.parametrize("evidence", [tpm_evidence(PUBLIC), step_evidence(KEY)], ids=["tpm", "step"])
def test_evidence_is_the_same_after_json(evidence: Evidence) -> None:
    assert evidence_from_json(json.loads(json.dumps(evidence_to_json(evidence)))) == evidence


# --- the certificate of the attestation key (check 3, step-ca validateAKCertificate)


def details_without(oid: str) -> x509.DirectoryName:
    kept = [attribute for attribute in tpm.DETAILS.directory_name().value if attribute.oid.dotted_string != oid]
    return x509.DirectoryName(x509.Name(kept))


def named(*names: x509.GeneralName) -> AkCertificate:
    return AkCertificate(names=(*names, permanent_identifier(tpm.SERIAL_NUMBER)))


WRONG_CERTIFICATES = {
    "subject": (AkCertificate(subject=name(COMMON_NAME="a TPM")), "has a subject"),
    "ca": (AkCertificate(ca=True), "one of a CA"),
    "no purpose": (AkCertificate(purposes=()), "no extended key usage"),
    "another purpose": (AkCertificate(purposes=(ExtendedKeyUsageOID.CLIENT_AUTH,)), "not for attestation first"),
    "purpose is second": (
        AkCertificate(purposes=(ExtendedKeyUsageOID.CLIENT_AUTH, AK_CERTIFICATE)),
        "not for attestation first",
    ),
    "purpose of an EK": (AkCertificate(purposes=(ObjectIdentifier("2.23.133.8.1"),)), "not for attestation first"),
    "no TPM": (named(), "manufacturer, model and version"),
    "no manufacturer": (named(details_without("2.23.133.2.1")), "manufacturer, model and version"),
    "no model": (named(details_without("2.23.133.2.2")), "manufacturer, model and version"),
    "no version": (named(details_without("2.23.133.2.3")), "manufacturer, model and version"),
    "blank model": (named(TpmDetails("id:1", " ", "id:2").directory_name()), "manufacturer, model and version"),
    "model of control characters": (
        named(TpmDetails("id:1", "\x01", "id:2").directory_name()),
        "manufacturer, model and version",
    ),
    "key that does not sign": (AkCertificate(usage=ENCIPHERS), "is not for signatures"),
    "two TPMs": (named(*[tpm.DETAILS.directory_name()] * 2), "manufacturer, model and version"),
}


@pytest.mark.parametrize("broken", WRONG_CERTIFICATES)
def test_an_ak_certificate_with_one_requirement_broken_is_refused(broken: str) -> None:
    certificate, why = WRONG_CERTIFICATES[broken]
    error = refusal(tpm_evidence(PUBLIC, certificate=certificate))

    assert error.code == "evidence-wrong-certificate"
    assert why in error.what


def test_an_ak_certificate_of_version_1_is_refused() -> None:
    error = refusal(tpm_evidence(PUBLIC, chain=[version_1(AkCertificate().issue()), tpm.issuing().certificate]))

    assert error.code == "evidence-wrong-certificate"
    assert "version 3" in error.what


def version_1(certificate: x509.Certificate) -> x509.Certificate:
    """The same certificate as X.509 had it first: without version and extensions, signed anew."""
    fields, rest = [], certificate.tbs_certificate_bytes[4:]  # after tag and length
    while rest:
        length = der.announced_length(rest) or len(rest)
        fields.append(rest[:length])
        rest = rest[length:]
    to_be_signed = der.encode(der.SEQUENCE, b"".join(field for field in fields if field[0] not in {0xA0, 0xA3}))
    signed = b"\0" + tpm.issuing().key.sign(to_be_signed, ec.ECDSA(hashes.SHA256()))  # type: ignore[call-arg, arg-type]
    algorithm = fields[2]
    return x509.load_der_x509_certificate(der.encode(der.SEQUENCE, to_be_signed + algorithm + der.encode(0x03, signed)))


UNTRUSTED = {
    "expired": lambda: tpm_evidence(PUBLIC, certificate=AkCertificate(end=NOW - timedelta(seconds=1))),
    "not begun": lambda: tpm_evidence(PUBLIC, certificate=AkCertificate(begin=NOW + timedelta(seconds=1))),
    "no intermediate": lambda: tpm_evidence(PUBLIC, chain=[AkCertificate().issue()]),
    "another root": lambda: tpm_evidence(PUBLIC, chain=[AkCertificate().issue(HospitalCa("Somebody"))]),
    "unknown critical extension": lambda: tpm_evidence(
        PUBLIC,
        certificate=AkCertificate(
            critical_extension=x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")
        ),
    ),
    "weak attestation key": lambda: tpm_evidence(
        PUBLIC, certificate=AkCertificate(key=rsa_key(1024)), signer=rsa_key(1024)
    ),
}


@pytest.mark.parametrize("broken", UNTRUSTED)
def test_a_certificate_that_leads_to_no_root_is_refused(broken: str) -> None:
    assert refusal(UNTRUSTED[broken]()).code == "evidence-untrusted"


WRONG_DEVICES = {
    "none": (tpm.DETAILS.directory_name(),),
    "another": (tpm.DETAILS.directory_name(), permanent_identifier("CT-000999")),
    "begins with it": (tpm.DETAILS.directory_name(), permanent_identifier(f"{tpm.SERIAL_NUMBER}4")),
    "not a string": (tpm.DETAILS.directory_name(), x509.OtherName(PERMANENT_IDENTIFIER, b"\x30\x02\x05\x00")),
    "bytes after it": (
        tpm.DETAILS.directory_name(),
        x509.OtherName(PERMANENT_IDENTIFIER, permanent_identifier(tpm.SERIAL_NUMBER).value[:-1] + b"4"),
    ),
}


@pytest.mark.parametrize("broken", WRONG_DEVICES)
def test_an_ak_certificate_of_another_device_is_refused(broken: str) -> None:
    certificate = AkCertificate(names=WRONG_DEVICES[broken])

    assert refusal(tpm_evidence(PUBLIC, certificate=certificate)).code == "evidence-wrong-device"


# --- what the TPM says (go-attestation CertificationParameters.Verify)


def signed_by_pss() -> bytes:
    info = tpm_evidence(PUBLIC).cert_info
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    return tpm.signature(tpm.RSAPSS, tpm.SHA256, tpm.attestation_key().sign(info, pss, hashes.SHA256()))


def by_elliptic_curve() -> TpmEvidence:
    return tpm_evidence(PUBLIC, certificate=AkCertificate(key=OTHER))


def other_area() -> TpmEvidence:
    return tpm_evidence(PUBLIC, area_name=tpm.key_name(tpm.public_area(OTHER.public_key())))


WRONG_STATEMENTS: dict[str, tuple[Callable[[], Evidence], str]] = {
    "another challenge": (lambda: tpm_evidence(PUBLIC, challenge=b"another"), "wrong-challenge"),
    "challenge itself": (lambda: tpm_evidence(PUBLIC, extra_data=tpm.CHALLENGE), "wrong-challenge"),
    "no challenge": (lambda: tpm_evidence(PUBLIC, extra_data=b""), "wrong-challenge"),
    "another key": (other_area, "wrong-key"),
    "name without algorithm": (
        lambda: tpm_evidence(PUBLIC, area_name=tpm.key_name(tpm.public_area(PUBLIC))[2:]),
        "malformed",
    ),
    "not written by a TPM": (lambda: tpm_evidence(PUBLIC, magic=0x12345678), "wrong-signature"),
    "a quote": (lambda: tpm_evidence(PUBLIC, kind=0x8018), "malformed"),
    "signed by another key": (lambda: tpm_evidence(PUBLIC, signer=OTHER_RSA), "wrong-signature"),
    "PSS": (lambda: tpm_evidence(PUBLIC, changed={"signature": signed_by_pss()}), "wrong-signature"),
    "SHA-384": (
        lambda: tpm_evidence(PUBLIC, changed={"signature": tpm.signature(tpm.RSASSA, tpm.SHA384, b"")}),
        "wrong-signature",
    ),
    "SHA-1": (
        lambda: tpm_evidence(PUBLIC, changed={"signature": tpm.signature(tpm.RSASSA, tpm.SHA1, b"")}),
        "malformed",
    ),
    "ECDSA": (
        lambda: tpm_evidence(PUBLIC, changed={"signature": tpm.signature(tpm.ECDSA, tpm.SHA256, b"")}),
        "malformed",
    ),
    "AK on a curve": (by_elliptic_curve, "wrong-signature"),
    "restricted": (lambda: tpm_evidence(PUBLIC, attributes=tpm.GOOD_ATTRIBUTES | tpm.RESTRICTED), "not-bound"),
    "not fixedTPM": (lambda: tpm_evidence(PUBLIC, attributes=tpm.GOOD_ATTRIBUTES & ~tpm.FIXED_TPM), "not-bound"),
    "not fixedParent": (lambda: tpm_evidence(PUBLIC, attributes=tpm.GOOD_ATTRIBUTES & ~tpm.FIXED_PARENT), "not-bound"),
    "imported": (lambda: tpm_evidence(PUBLIC, attributes=tpm.GOOD_ATTRIBUTES & ~tpm.ORIGIN), "not-bound"),
    "weak key": (lambda: tpm_evidence(rsa_key(1024).public_key()), "weak-key"),
}


@pytest.mark.parametrize("broken", WRONG_STATEMENTS)
def test_a_statement_with_one_requirement_broken_is_refused(broken: str) -> None:
    make, check = WRONG_STATEMENTS[broken]

    assert refusal(make()).code == f"evidence-{check}"


NO_NAMES = {
    "text": b"signer",
    "of SHA-1": number(tpm.SHA1) + bytes(20),
    "too short": tpm.key_name(b"")[:-1],
    "too long": tpm.key_name(b"") + b"\0",
    "none": b"",
}


@pytest.mark.parametrize("which", ["qualified_signer", "qualified_name"])
@pytest.mark.parametrize("broken", NO_NAMES)
def test_what_is_no_name_of_a_key_is_refused_where_one_belongs(which: str, broken: str) -> None:
    """TPM2B_NAME (Part 2, 10.5.3): the library of step-ca reads nothing else."""
    said: dict[str, Any] = {which: NO_NAMES[broken]}

    assert refusal(tpm_evidence(PUBLIC, **said)).code == "evidence-malformed"


GOOD = tpm_evidence(PUBLIC)
GOOD_AREA = tpm.public_area(PUBLIC)
MALFORMED = {
    "certInfo, byte after": {"cert_info": GOOD.cert_info + b"\0"},
    "certInfo, with its size": {"cert_info": sized(GOOD.cert_info)},
    "certInfo, empty": {"cert_info": b""},
    "certInfo, huge": {"cert_info": GOOD.cert_info + bytes(4096)},
    "certInfo, neither safe nor not": {"cert_info": GOOD.cert_info.replace(number(3, 4) + b"\1", number(3, 4) + b"\2")},
    "sig, byte after": {"signature": GOOD.signature + b"\0"},
    "sig, without its head": {"signature": GOOD.signature[6:]},
    "pubArea, byte after": {"public_area": GOOD_AREA + b"\0"},
    "pubArea, with its size": {"public_area": sized(GOOD_AREA)},
    "pubArea, SHA-1 name": {"public_area": tpm.public_area(PUBLIC, name_hash=tpm.SHA1)},
    "pubArea, reserved attribute": {"public_area": tpm.public_area(PUBLIC, tpm.GOOD_ATTRIBUTES | 1 << 31)},
    "pubArea, point off the curve": {"public_area": GOOD_AREA[:-1] + bytes([GOOD_AREA[-1] ^ 1])},
    "pubArea, unknown curve": {"public_area": GOOD_AREA.replace(number(3) + number(16) + number(32), number(9) * 3)},
    "pubArea, RSA scheme on a curve": {
        "public_area": tpm.public_area(PUBLIC, scheme=number(tpm.RSASSA) + number(tpm.SHA256))
    },
    "pubArea, short modulus": {
        "public_area": tpm.public_area(OTHER_RSA.public_key()).replace(
            number(2048) + number(0, 4), number(3072) + bytes(4)
        )
    },
}


@pytest.mark.parametrize("broken", MALFORMED)
def test_structures_have_one_reading(broken: str) -> None:
    assert refusal(tpm_evidence(PUBLIC, changed=MALFORMED[broken])).code == "evidence-malformed"


@pytest.mark.parametrize("part", ["cert_info", "signature", "public_area"])
def test_a_structure_that_ends_early_is_refused_wherever_it_ends(part: str) -> None:
    whole = getattr(GOOD, part)
    for length in range(len(whole)):
        assert refusal(tpm_evidence(PUBLIC, changed={part: whole[:length]})).code == "evidence-malformed"


@pytest.mark.parametrize(
    "chain", [(), (b"",), (b"junk",), (GOOD.x5c[0] + b"\0",), GOOD.x5c * CHAIN_LIMIT, (bytes(20000),)]
)
def test_certificates_that_cannot_be_read_are_refused(chain: tuple[bytes, ...]) -> None:
    assert refusal(TpmEvidence(chain, b"", b"", b"")).code == "evidence-malformed"


def test_a_certificate_that_is_only_tolerated_cannot_be_read() -> None:
    """RFC 5280 4.1.2.2: a serial number is positive; `cryptography` only warns, on standard error."""
    negative = bytearray(GOOD.x5c[0])
    negative[negative.index(b"\xa0\x03\x02\x01\x02\x02") + 7] |= 0x80  # tag and length of the number come before

    assert refusal(TpmEvidence((bytes(negative),), b"", b"", b"")).code == "evidence-malformed"


# --- format step


WRONG_STEPS: dict[str, tuple[Callable[[], StepEvidence], str]] = {
    "another challenge": (lambda: step_evidence(KEY, b"another"), "wrong-signature"),
    "signed by another key": (lambda: step_evidence(KEY, signer=OTHER), "wrong-signature"),
    "another device": (lambda: step_evidence(KEY, serial_number="CT-000999"), "wrong-device"),
    "no device": (
        lambda: step_evidence(KEY, extension=x509.UnrecognizedExtension(ObjectIdentifier("1.2.3"), b"\x05\x00")),
        "wrong-device",
    ),
    "device is no string": (
        lambda: step_evidence(KEY, extension=x509.UnrecognizedExtension(MANAGED_DEVICE, b"\x04\x01A")),
        "wrong-device",
    ),
    "a CA": (lambda: step_evidence(KEY, ca=True), "wrong-certificate"),
    "key that does not sign": (lambda: step_evidence(KEY, usage=ENCIPHERS), "wrong-certificate"),
    "P-384": (lambda: step_evidence(ec.generate_private_key(ec.SECP384R1())), "weak-key"),
}


@pytest.mark.parametrize("broken", WRONG_STEPS)
def test_what_a_maker_says_with_one_requirement_broken_is_refused(broken: str) -> None:
    make, check = WRONG_STEPS[broken]

    assert refusal(make()).code == f"evidence-{check}"


def test_nothing_is_no_device() -> None:
    """Whoever compares with an empty serial number must not believe evidence that names no device."""
    nameless = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3"), b"\x05\x00")

    assert refusal(step_evidence(KEY, extension=nameless), identifier="").code == "evidence-wrong-device"


# --- evidence for an identity


def test_evidence_is_bound_to_one_certificate() -> None:
    first, renewed, other = (HospitalCa().issue(key) for key in (PUBLIC, PUBLIC, OTHER.public_key()))
    evidence = tpm_evidence(PUBLIC, challenge=identity_challenge(first))
    context = {"identifier": tpm.SERIAL_NUMBER, "roots": [tpm.root().certificate], "now": NOW}

    assert verify_identity_evidence(evidence, first, **context).public_key == PUBLIC  # type: ignore[arg-type]
    for certificate in (renewed, other):
        with pytest.raises(EvidenceRefused) as refused:
            verify_identity_evidence(evidence, certificate, **context)  # type: ignore[arg-type]
        assert refused.value.code == "evidence-wrong-challenge"


def test_evidence_for_a_certificate_speaks_of_its_key() -> None:
    certificate = HospitalCa().issue(PUBLIC)
    evidence = tpm_evidence(OTHER.public_key(), challenge=identity_challenge(certificate))

    with pytest.raises(EvidenceRefused) as refused:
        verify_identity_evidence(
            evidence, certificate, identifier=tpm.SERIAL_NUMBER, roots=[tpm.root().certificate], now=NOW
        )
    assert refused.value.code == "evidence-wrong-key"


# --- JSON from anywhere


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "packed"},
        {"format": ["tpm"]},
        {"more": "1"},
        {"x5c": []},
        {"x5c": "AAAA"},
        {"x5c": [1]},
        {"x5c": ["AAAA"] * 6},
        {"sig": None},
        {"sig": "?"},
        {"sig": "é"},
        {"certInfo": "A" * 9000},
    ],
)
def test_json_of_another_shape_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(EvidenceRefused) as refused:
        evidence_from_json({**evidence_to_json(GOOD), **changes})
    assert refused.value.code == "evidence-malformed"


@pytest.mark.parametrize(
    ("details", "simulated"),
    [
        (TpmDetails("id:00001014", "swtpm", "id:20191023"), True),
        (TpmDetails("id:564D5700", "VMware TPM2", "id:00020065"), True),
        (tpm.DETAILS, False),
    ],
)
def test_simulated_tpms_are_called_simulated(details: TpmDetails, *, simulated: bool) -> None:
    assert details.simulated is simulated


def test_the_device_that_a_key_certificate_names_is_a_sequence_of_one_string() -> None:
    assert managed_device("CT 1").value == bytes.fromhex("30060c0443542031")
