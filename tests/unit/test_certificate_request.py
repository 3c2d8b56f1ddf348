"""What a certificate request asks for, and the DER that is written by hand for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enroll import der
from enroll.certificates import alternative_names, decode_base64, private_key_usage_period
from enroll.csr import (
    DOCUMENT_SIGNING,
    UNSTRUCTURED_NAME,
    CertificateRequest,
    Usage,
    build,
    hardware_module_name,
    stated_protection,
)
from enroll.keystore.base import PrivateKey, Protection
from tests.support.key_usage_period import period_value, with_period
from tests.support.pki import DEVICE, NOW, REQUEST, HospitalCa, name, new_key

CA = HospitalCa()
KEY = new_key()


@pytest.mark.parametrize(
    ("usage", "unit", "purpose"),
    [
        (Usage.DEVICE, {}, ExtendedKeyUsageOID.CLIENT_AUTH),
        (Usage.SIGNING, {}, DOCUMENT_SIGNING),
        (Usage.DERIVATION, {"ORGANIZATIONAL_UNIT_NAME": "derivation"}, DOCUMENT_SIGNING),
        (Usage.SYNTHESIS, {"ORGANIZATIONAL_UNIT_NAME": "synthesis"}, DOCUMENT_SIGNING),
    ],
)
def test_a_request_names_the_device_what_is_signed_and_one_purpose(
    usage: Usage, unit: dict[str, str], purpose: x509.ObjectIdentifier
) -> None:
    key = new_key()

    request = build(key, CertificateRequest.for_device(DEVICE, usage))

    assert request.is_signature_valid
    assert request.public_key() == key.public_key()
    assert request.subject == name(**unit, COMMON_NAME="Example CT CT-000123", SERIAL_NUMBER="CT-000123")
    assert list(request.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [purpose]
    key_usage = request.extensions.get_extension_for_class(x509.KeyUsage)
    assert key_usage.critical
    assert key_usage.value.digital_signature
    assert not key_usage.value.content_commitment
    assert alternative_names(request) == (hardware_module_name("1.3.6.1.4.1.32473.1.2", "CT-000123"),)


def test_without_a_hardware_type_there_is_no_alternative_name() -> None:
    request = build(new_key(), CertificateRequest.for_device(replace(DEVICE, hardware_type=""), Usage.SIGNING))

    assert alternative_names(request) == ()


@pytest.mark.parametrize(
    ("model", "common_name"),
    [
        ("", "CT-000123"),
        ("Example CT", "Example CT CT-000123"),
        ("x" * 54, f"{'x' * 54} CT-000123"),
        ("x" * 55, "CT-000123"),
    ],
)
def test_the_common_name_is_model_and_serial_number_where_both_fit(model: str, common_name: str) -> None:
    """64 characters, RFC 5280 appendix A.1."""
    assert CertificateRequest.for_device(replace(DEVICE, model=model), Usage.DEVICE).common_name == common_name


def test_a_renewal_repeats_the_names_to_the_letter() -> None:
    """RFC 7030 4.2.2."""
    subject = x509.Name([*name(ORGANIZATION_NAME="Hospital"), *REQUEST.subject])
    old = CA.issue(new_key().public_key(), subject=subject)

    request = build(new_key(), REQUEST, old)

    assert request.subject == subject
    assert alternative_names(request) == alternative_names(old)


# --- where the key lives, and how long it is used


@pytest.mark.parametrize("protection", list(Protection))
def test_a_request_says_where_its_key_lives(protection: Protection) -> None:
    """An attribute (RFC 2986 4.1), not an extension: a CA that refuses unknown extensions still issues."""
    request = build(KEY, REQUEST, protection=protection)

    assert stated_protection(request) is protection
    assert {extension.oid for extension in request.extensions} == {
        extension.oid for extension in build(KEY, REQUEST).extensions
    }


def test_without_better_knowledge_it_says_the_least() -> None:
    assert stated_protection(build(KEY, REQUEST)) is Protection.SOFTWARE


def stating(*values: bytes) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder(REQUEST.subject)
    for value in values:
        builder = builder.add_attribute(UNSTRUCTURED_NAME, value)
    return builder.sign(KEY, hashes.SHA256())


def test_the_requests_of_others_say_nothing_of_it() -> None:
    assert stated_protection(stating()) is None
    assert stated_protection(stating(b"ct-4711.radiology.example")) is None


@pytest.mark.parametrize("value", [b"", b"Hardware", b"hardware\n", "hardw\u00e4re".encode(), b"\xff"])
def test_another_word_for_it_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        stated_protection(stating(b"key protection: " + value))


def test_a_usage_period_is_asked_for_only_where_there_is_one() -> None:
    """RFC 3280 4.2.1.4."""
    asked = (NOW, NOW + timedelta(days=7))
    request = build(KEY, REQUEST, usage_period=asked)

    assert private_key_usage_period(request) == asked
    assert not request.extensions.get_extension_for_class(x509.PrivateKeyUsagePeriod).critical
    assert private_key_usage_period(build(KEY, REQUEST)) is None


def test_a_usage_period_is_written_in_utc() -> None:
    """RFC 5280 4.1.2.5.2: GeneralizedTime is expressed in Greenwich Mean Time."""
    summer = timezone(timedelta(hours=2))
    asked = (datetime(2026, 7, 1, 1, 0, tzinfo=summer), datetime(2026, 7, 8, 1, 0, tzinfo=summer))

    request = build(KEY, REQUEST, usage_period=asked)

    assert private_key_usage_period(request) == asked
    extension = request.extensions.get_extension_for_class(x509.PrivateKeyUsagePeriod).value
    assert b"20260630230000Z" in extension.public_bytes()


def certificate_with(value: bytes) -> x509.Certificate:
    return with_period(CA.issue(KEY.public_key()), CA.key, value)


@pytest.mark.parametrize(
    ("value", "period"),
    [
        (period_value(NOW, NOW + timedelta(days=7)), (NOW, NOW + timedelta(days=7))),
        (period_value(NOW), (NOW, None)),
        (period_value(None, NOW), (None, NOW)),
        (period_value(NOW, NOW), (NOW, NOW)),
        (period_value(None, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)), (None, datetime.max.replace(tzinfo=UTC))),
    ],
)
def test_a_granted_usage_period_is_read(value: bytes, period: tuple[datetime | None, datetime | None]) -> None:
    """RFC 3280 4.2.1.4: either end may be missing."""
    read = private_key_usage_period(certificate_with(value))

    assert read == tuple(moment and moment.replace(microsecond=0) for moment in period)


NOT_BEFORE = period_value(NOW)[2:]
NOT_AFTER = period_value(None, NOW + timedelta(days=7))[2:]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x30\x00", id="no end at all"),
        pytest.param(der.encode(der.SEQUENCE, NOT_AFTER + NOT_BEFORE), id="in the wrong order"),
        pytest.param(der.encode(der.SEQUENCE, NOT_BEFORE + NOT_BEFORE), id="the same end twice"),
        pytest.param(period_value(NOW + timedelta(seconds=1), NOW), id="ends before it begins"),
        pytest.param(period_value(NOW) + b"\x00", id="something behind it"),
        pytest.param(b"\x30\x13\x80\x1120261122120000.5Z", id="fractions of a second"),
        pytest.param(b"\x30\x15\x80\x1320261122120000+0100", id="a zone"),
        pytest.param(b"\x30\x11\x80\x0f20260230000000Z", id="30 February"),
        pytest.param(b"\x30\x0f\x80\x0d261122120000Z", id="UTCTime"),
    ],
)
def test_a_usage_period_is_read_strictly(value: bytes) -> None:
    """RFC 3280 4.2.1.4, RFC 5280 4.1.2.5.2."""
    with pytest.raises(ValueError, match=r"."):
        private_key_usage_period(certificate_with(value))


@pytest.mark.parametrize(
    ("key", "digest"),
    [
        (rsa.generate_private_key(65537, 2048), hashes.SHA256),
        (ec.generate_private_key(ec.SECP256R1()), hashes.SHA256),
        (ec.generate_private_key(ec.SECP384R1()), hashes.SHA384),
    ],
    ids=["rsa-2048", "p-256", "p-384"],
)
def test_the_hash_fits_the_key(key: PrivateKey, digest: type[hashes.HashAlgorithm]) -> None:
    assert isinstance(build(key, REQUEST).signature_hash_algorithm, digest)


@pytest.mark.parametrize(
    ("dotted", "encoded"),
    [
        ("1.2.840.113549", "06062a864886f70d"),  # X.690 8.19, as RSA Security uses it
        ("2.999.3", "0603883703"),  # the example of X.690 8.19.5
        ("1.3.6.1.5.5.7.8.4", "06082b06010505070804"),
        ("2.5.4.3", "0603550403"),
        ("0.0", "060100"),
    ],
)
def test_object_identifiers_are_encoded(dotted: str, encoded: str) -> None:
    assert der.object_identifier(dotted).hex() == encoded


@pytest.mark.parametrize(
    ("length", "head"),
    [(0, "0400"), (127, "047f"), (128, "048180"), (255, "0481ff"), (256, "04820100"), (65536, "0483010000")],
)
def test_lengths_are_as_short_as_possible(length: int, head: str) -> None:
    """X.690 10.1."""
    encoded = der.encode(der.OCTET_STRING, bytes(length))

    assert encoded == bytes.fromhex(head) + bytes(length)
    assert der.is_one_value(encoded)


@pytest.mark.parametrize(
    "data",
    [
        *(
            "",
            "30",
            "3001",
            "300000",
            "30020500ff",
            "30800000",
            "30810100",
            "3082000100",
            "3084ffffffff",
            "30ff",
            "3080",
        ),
        *("30020580", "300405800000", "30043080" + "0000", "30040581" + "0100", "1f8100", "30031f8100"),
    ],
)
def test_what_is_not_exactly_one_der_value_is_noticed(data: str) -> None:
    assert not der.is_one_value(bytes.fromhex(data))


def test_nesting_costs_no_stack() -> None:
    data = b""
    for _ in range(5000):
        data = der.encode(der.SEQUENCE, data)

    assert der.is_one_value(data)
    assert not der.is_one_value(data[:-2] + b"\x30\x80")


def test_what_is_asked_for_is_said_in_one_line() -> None:
    plain = CertificateRequest("CT 9000 CT-0001", "CT-0001", "", Usage.DEVICE)
    told = "certificate request for device: serialNumber=CT-0001,CN=CT 9000 CT-0001"

    assert plain.text == f"{told}, clientAuth"
    assert replace(plain, hardware_type="1.2.3").text == f"{told}, hardwareModuleName 1.2.3 CT-0001, clientAuth"
    assert "host name ct.example, clientAuth" in plain.for_host("ct.example").text
    assert "permanentIdentifier CT-0001, clientAuth" in plain.for_permanent_identifier("CT-0001").text
    assert replace(plain, usage=Usage.SIGNING).text.endswith(", documentSigning")


def test_the_name_of_the_serial_number_is_the_one_of_the_type_plate() -> None:
    (attribute,) = build(new_key(), REQUEST).subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)

    assert attribute.value == DEVICE.serial_number


@pytest.mark.parametrize(
    "body",
    [
        b"MAMCAQU=",
        b"MAMC\r\nAQU=\r\n",
        b" MAMC\tAQU=\n\n",
        b"-----BEGIN PKCS7-----\nMAMCAQU=\n-----END PKCS7-----\n",
    ],
)
def test_base64_is_read_tolerantly(body: bytes) -> None:
    """RFC 8951 3.1."""
    assert decode_base64(body) == bytes.fromhex("3003020105")


@pytest.mark.parametrize(
    "body", [b"", b"MAMCAQU", b"MAMCAQUA", b"M!AMCAQU=", b"\x30\x03\x02\x01\x05", "MAMCAQ\u00fc=".encode()]
)
def test_what_is_not_base64_of_one_der_value_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_base64(body)
