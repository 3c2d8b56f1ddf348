"""What `enroll.trust` lets through: every check of its table is broken once, and nothing else is."""

from __future__ import annotations

import re
import warnings
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID

import enroll.trust
from enroll import der
from enroll.csr import DIGITAL_SIGNATURE, DOCUMENT_SIGNING, CertificateRequest, Usage, hardware_module_name
from enroll.errors import CertificateRefused, ConfigurationError
from enroll.keystore.base import PublicKey
from enroll.statefile import StateFiles
from enroll.trust import VerifiedCertificate, check_issued, names_kept, read_anchors, verify_chain, verify_signer
from tests.support.key_usage_period import period_value, with_period
from tests.support.pki import CA_KEY_USAGE, DEVICE, NOW, REQUEST, Content, HospitalCa, certify, name, new_key

KEY = new_key()
CA = HospitalCa()
ISSUING_CA = HospitalCa("Hospital issuing CA", CA, path_length=0)


def check(
    *certificates: x509.Certificate,
    intermediates: tuple[x509.Certificate, ...] = (),
    anchors: tuple[x509.Certificate, ...] = (CA.certificate,),
    key: PublicKey | None = None,
    request: CertificateRequest = REQUEST,
    seen: tuple[x509.Certificate, ...] = (),
    usage_period: tuple[datetime, datetime] | None = None,
) -> VerifiedCertificate:
    return check_issued(
        certificates,
        intermediates,
        anchors,
        public_key=key or KEY.public_key(),
        request=request,
        now=NOW,
        seen=seen,
        usage_period=usage_period,
    )


def refused(code: str, certificate: x509.Certificate, **arguments: Any) -> None:
    with pytest.raises(CertificateRefused) as refusal:
        check(certificate, **arguments)
    assert refusal.value.code == code
    assert refusal.value.remedy


def issued(**changes: Any) -> x509.Certificate:
    return CA.issue(KEY.public_key(), **changes)


def usage(**changes: bool) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    values = {name: getattr(DIGITAL_SIGNATURE, name) for name in (*names, "key_cert_sign", "crl_sign")}
    return x509.KeyUsage(**{**values, **changes}, encipher_only=False, decipher_only=False)


def test_a_certificate_as_asked_is_let_through() -> None:
    certificate = issued()

    assert check(certificate) == VerifiedCertificate(certificate, (), CA.certificate)


def test_a_device_certificate_as_asked_is_let_through() -> None:
    request = CertificateRequest.for_device(DEVICE, Usage.DEVICE)
    certificate = issued(extended_usage=[ExtendedKeyUsageOID.CLIENT_AUTH])

    assert check(certificate, request=request).certificate == certificate


def test_the_chain_is_kept_without_leaf_and_anchor() -> None:
    certificate = ISSUING_CA.issue(KEY.public_key())

    verified = check(certificate, intermediates=(CA.certificate, ISSUING_CA.certificate))

    assert verified == VerifiedCertificate(certificate, (ISSUING_CA.certificate,), CA.certificate)


def test_intermediates_may_come_beside_the_certificate_and_in_any_order() -> None:
    certificate = ISSUING_CA.issue(KEY.public_key())

    assert check(CA.certificate, ISSUING_CA.certificate, certificate).certificate == certificate


def test_an_issuing_ca_can_be_pinned_alone() -> None:
    certificate = ISSUING_CA.issue(KEY.public_key())

    assert check(certificate, anchors=(ISSUING_CA.certificate,)).chain == ()


def test_an_old_root_without_key_usage_is_an_anchor() -> None:
    old = HospitalCa("Old root", usage=None)

    check(old.issue(KEY.public_key()), anchors=(old.certificate,))


# --- check 1: size


def test_more_than_ten_certificates_are_refused() -> None:
    many = [HospitalCa(f"CA {number}").certificate for number in range(10)]

    with pytest.raises(CertificateRefused) as refusal:
        check(issued(), *many)
    assert refusal.value.code == "certificate-too-large"


def test_a_certificate_of_more_than_16_kib_is_refused() -> None:
    # 1,000 names of 20 bytes each
    names = [x509.DNSName(f"scanner-{number:05d}.example") for number in range(1000)]
    refused("certificate-too-large", issued(alternative_names=names))


def test_intermediates_have_the_same_limits() -> None:
    refused("certificate-too-large", issued(), intermediates=(CA.certificate,) * 11)


# --- check 2: key


def test_a_certificate_for_another_key_is_refused() -> None:
    refused("certificate-wrong-key", CA.issue(new_key().public_key()))


def test_two_certificates_for_our_key_are_refused() -> None:
    with pytest.raises(CertificateRefused) as refusal:
        check(issued(), issued())
    assert refusal.value.code == "certificate-wrong-key"


def test_the_same_certificate_twice_is_one_certificate() -> None:
    certificate = issued()

    assert check(certificate, certificate).certificate == certificate


# --- check 3: new


def test_a_certificate_with_the_serial_number_of_another_that_this_scanner_had_is_refused() -> None:
    seen = tuple(CA.issue(new_key().public_key(), serial=number) for number in (4710, 4711, 4712))
    refused("certificate-not-new", issued(serial=4711), seen=seen)


def test_another_ca_may_use_the_same_serial_number() -> None:
    seen = (HospitalCa("Vendor CA").issue(new_key().public_key(), serial=4711),)

    assert check(issued(serial=4711), seen=seen).certificate.serial_number == 4711


def test_the_same_certificate_again_is_that_of_a_commit_that_a_crash_cut_short() -> None:
    certificate = issued()

    assert check(certificate, seen=(certificate,)).certificate == certificate


@pytest.mark.parametrize(
    "number", [b"\x00", b"\x80", b"\xff\x01", b"\x00" + b"\xff" * 20, b"\x7f" * 21, b"\x00" + b"\xff" * 200]
)
def test_a_serial_number_that_is_not_positive_or_longer_than_20_octets_is_refused(number: bytes) -> None:
    refused("certificate-bad-serial", with_serial_number(issued(serial=0x7F), number))


def test_the_largest_serial_number_that_there_may_be_is_let_through() -> None:
    assert check(issued(serial=(1 << 159) - 1)).certificate.serial_number == (1 << 159) - 1


def test_ten_thousand_alternative_names_are_refused_by_their_size() -> None:
    many = [*REQUEST.alternative_names, *(x509.DNSName(f"host-{number}.example") for number in range(10_000))]
    refused("certificate-too-large", issued(alternative_names=many))


def test_a_certificate_that_never_expires_is_let_through() -> None:
    """IEEE 802.1AR: 99991231235959Z."""
    never = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

    assert check(issued(end=never)).certificate.not_valid_after_utc == never


def with_serial_number(certificate: x509.Certificate, number: bytes) -> x509.Certificate:
    """The same, signed again with the octets of another serial number, as no library makes it."""
    body = certificate.tbs_certificate_bytes
    short = b"\xa0\x03\x02\x01\x02\x02\x01\x7f"  # [0] version, serialNumber
    content = body[der_head(body) :].replace(short, short[:5] + der.encode(0x02, number), 1)
    tbs = der.encode(der.SEQUENCE, content)
    signature = CA.key.sign(tbs, ec.ECDSA(hashes.SHA256()))  # type: ignore[call-arg,arg-type]
    algorithm = der.encode(der.SEQUENCE, der.object_identifier("1.2.840.10045.4.3.2"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return x509.load_der_x509_certificate(
            der.encode(der.SEQUENCE, tbs + algorithm + der.encode(0x03, b"\0" + signature))
        )


def der_head(data: bytes) -> int:
    """Octets of tag and length."""
    return 2 + (data[1] & 0x7F if data[1] & 0x80 else 0)


# --- check 4: names


@pytest.mark.parametrize(
    "subject",
    [
        name(COMMON_NAME="Example CT CT-000123"),
        name(COMMON_NAME="Example CT CT-000123", SERIAL_NUMBER="CT-000124"),
        name(COMMON_NAME="Another scanner", SERIAL_NUMBER="CT-000123"),
        x509.Name([*REQUEST.subject, *name(SERIAL_NUMBER="CT-000123")]),
        x509.Name([*REQUEST.subject, *name(COMMON_NAME="Another scanner")]),
        x509.Name([*REQUEST.subject, *name(EMAIL_ADDRESS="radiology@example.org")]),
        x509.Name([*REQUEST.subject, *name(TITLE="Chief")]),
    ],
)
def test_a_subject_other_than_asked_is_refused(subject: x509.Name) -> None:
    refused("certificate-wrong-names", issued(subject=subject))


def test_a_refused_subject_is_shown_beside_the_one_asked_for() -> None:
    with pytest.raises(CertificateRefused) as refusal:
        check(issued(subject=name(COMMON_NAME="Another scanner", SERIAL_NUMBER="CT-000123")))

    assert "Another scanner" in refusal.value.what
    assert "not as asked: 'serialNumber=CT-000123,CN=Example CT CT-000123'" in refusal.value.what


def test_where_the_serial_number_alone_lacks_the_setting_of_ad_cs_is_named() -> None:
    with pytest.raises(CertificateRefused) as without:
        check(issued(subject=name(COMMON_NAME="Example CT CT-000123")))
    with pytest.raises(CertificateRefused) as other:
        check(issued(subject=name(COMMON_NAME="Another scanner")))

    assert r"certutil -setreg CA\SubjectTemplate +DeviceSerialNumber" in without.value.remedy
    assert "certutil" not in other.value.remedy


def of_unit(*units: str) -> x509.Name:
    """The names of the device with organizational units."""
    return x509.Name([*(part for unit in units for part in name(ORGANIZATIONAL_UNIT_NAME=unit)), *REQUEST.subject])


@pytest.mark.parametrize("usage", [Usage.DERIVATION, Usage.SYNTHESIS])
@pytest.mark.parametrize("owners", [(), ("Radiology",)])
def test_the_unit_that_tells_what_is_signed_is_let_through(usage: Usage, owners: tuple[str, ...]) -> None:
    certificate = issued(subject=of_unit(*owners, usage.organizational_unit))

    assert check(certificate, request=CertificateRequest.for_device(DEVICE, usage)).certificate == certificate


@pytest.mark.parametrize(
    ("usage", "units"),
    [
        (Usage.DERIVATION, ()),
        (Usage.SYNTHESIS, ()),
        (Usage.SYNTHESIS, ("Radiology",)),
        (Usage.DERIVATION, ("synthesis",)),
        (Usage.SYNTHESIS, ("derivation", "synthesis")),
        (Usage.SYNTHESIS, ("synthesis", "synthesis")),
        (Usage.SYNTHESIS, ("Synthesis",)),
        (Usage.SIGNING, ("derivation",)),
        (Usage.SIGNING, ("synthesis",)),
        (Usage.SIGNING, (" SYNTHESIS ",)),
    ],
)
def test_a_certificate_for_what_another_role_signs_is_refused(usage: Usage, units: tuple[str, ...]) -> None:
    """One for originals above all: what a model makes must never look like an acquisition."""
    request = CertificateRequest.for_device(DEVICE, usage)

    refused("certificate-wrong-names", issued(subject=of_unit(*units)), request=request)


def test_a_device_certificate_names_no_role() -> None:
    request = CertificateRequest.for_device(DEVICE, Usage.DEVICE)
    certificate = issued(subject=of_unit("synthesis"), extended_usage=[ExtendedKeyUsageOID.CLIENT_AUTH])

    refused("certificate-wrong-names", certificate, request=request)


def test_the_owner_may_add_who_and_where_it_is() -> None:
    owner = name(
        COUNTRY_NAME="DE",
        STATE_OR_PROVINCE_NAME="Hessen",
        LOCALITY_NAME="Marburg",
        ORGANIZATION_NAME="Hospital",
        ORGANIZATIONAL_UNIT_NAME="Radiology",
        DOMAIN_COMPONENT="example",
    )
    check(issued(subject=x509.Name([*owner, *REQUEST.subject])))


@pytest.mark.parametrize(
    "names",
    [
        [],
        [hardware_module_name("1.3.6.1.4.1.32473.1.2", "CT-000124")],
        [hardware_module_name("1.3.6.1.4.1.32473.1.3", "CT-000123")],
        [*REQUEST.alternative_names, x509.DNSName("pacs.example")],
        [x509.DNSName("pacs.example")],
    ],
)
def test_alternative_names_other_than_asked_are_refused(names: list[x509.GeneralName]) -> None:
    refused("certificate-wrong-names", issued(alternative_names=names))


def test_alternative_names_that_were_not_asked_for_are_refused() -> None:
    refused("certificate-wrong-names", issued(), request=replace(REQUEST, hardware_type=""))


# --- check 5: usage


@pytest.mark.parametrize(
    "changes",
    [
        {"usage": None},
        {"usage": usage(digital_signature=False, content_commitment=True)},
        {"extended_usage": []},
        {"extended_usage": [ExtendedKeyUsageOID.CLIENT_AUTH]},
        {"extended_usage": [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]},
        {"extended_usage": [DOCUMENT_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]},
        {"extended_usage": [DOCUMENT_SIGNING, ExtendedKeyUsageOID.CLIENT_AUTH]},
    ],
)
def test_a_usage_other_than_asked_is_refused(changes: dict[str, object]) -> None:
    refused("certificate-wrong-usage", issued(**changes))


def test_content_commitment_is_the_owners_decision() -> None:
    check(issued(usage=usage(content_commitment=True)))


# --- check 6: no CA


@pytest.mark.parametrize(
    "changes",
    [{"ca": True}, {"usage": usage(key_cert_sign=True)}, {"usage": usage(crl_sign=True)}],
)
def test_a_ca_certificate_is_refused(changes: dict[str, object]) -> None:
    refused("certificate-is-ca", issued(**changes))


def test_basic_constraints_may_be_missing() -> None:
    check(issued(ca=None))


# --- check 7: dates


@pytest.mark.parametrize(
    "changes",
    [
        {"begin": NOW + timedelta(minutes=6)},
        {"end": NOW - timedelta(seconds=1)},
        {"end": NOW + timedelta(seconds=59)},
    ],
)
def test_a_certificate_of_another_time_is_refused(changes: dict[str, object]) -> None:
    refused("certificate-wrong-dates", issued(**changes))


def test_a_clock_that_is_five_minutes_slow_is_forgiven() -> None:
    check(issued(begin=NOW + timedelta(minutes=5)))


WEEK = (NOW - timedelta(minutes=5), NOW + timedelta(days=7))
MINUTE = timedelta(minutes=1)


def granted(begin: datetime | None, end: datetime | None) -> x509.Certificate:
    return with_period(issued(), CA.key, period_value(begin, end))


@pytest.mark.parametrize(
    "certificate",
    [
        issued(),
        granted(*WEEK),
        granted(NOW, NOW + timedelta(days=1)),
        granted(NOW - timedelta(days=30), NOW + MINUTE),
        granted(None, NOW + timedelta(days=3000)),
        granted(WEEK[1] - MINUTE, None),
    ],
)
def test_a_ca_may_grant_less_or_more_of_a_usage_period_or_none(certificate: x509.Certificate) -> None:
    """RFC 3280 4.2.1.4. The keyholder keeps what it asked for in any case."""
    check(certificate, usage_period=WEEK)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        pytest.param(NOW - timedelta(days=30), NOW - timedelta(seconds=1), id="over"),
        pytest.param(None, NOW + timedelta(seconds=59), id="over in a moment"),
        pytest.param(WEEK[1] - timedelta(seconds=59), None, id="after what was asked for"),
        pytest.param(NOW + timedelta(days=8), NOW + timedelta(days=9), id="much later"),
    ],
)
def test_a_usage_period_in_which_the_key_will_not_sign_is_refused(begin: datetime | None, end: datetime | None) -> None:
    """RFC 3280 4.2.1.4: every signature would be outside of it."""
    refused("certificate-wrong-dates", granted(begin, end), usage_period=WEEK)


def test_a_usage_period_that_begins_at_the_last_second_there_is_is_refused() -> None:
    """RFC 5280 4.1.2.5: 99991231235959Z."""
    end_of_time = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    refused("certificate-wrong-dates", granted(end_of_time, end_of_time))
    refused("certificate-wrong-dates", granted(end_of_time, None), usage_period=WEEK)


def test_a_usage_period_that_nobody_asked_for_must_not_be_over() -> None:
    """RFC 3280 4.2.1.4."""
    check(granted(NOW, NOW + timedelta(days=30)))
    refused("certificate-wrong-dates", granted(None, NOW))


def test_a_damaged_usage_period_is_refused() -> None:
    refused("certificate-malformed", with_period(issued(), CA.key, b"\x30\x00"))


# --- check 8: chain


def test_a_certificate_of_another_ca_is_refused() -> None:
    refused("certificate-untrusted", HospitalCa().issue(KEY.public_key()))


def test_an_intermediate_is_not_an_anchor() -> None:
    foreign = HospitalCa("Foreign CA")
    refused("certificate-untrusted", foreign.issue(KEY.public_key()), intermediates=(foreign.certificate,))


def test_a_missing_intermediate_is_noticed() -> None:
    refused("certificate-untrusted", ISSUING_CA.issue(KEY.public_key()))


def test_an_expired_intermediate_is_refused() -> None:
    expired = HospitalCa("Expired CA", CA, end=NOW - timedelta(days=1))
    refused("certificate-untrusted", expired.issue(KEY.public_key()), intermediates=(expired.certificate,))


def test_a_certificate_that_is_no_ca_issues_nothing() -> None:
    scanner_key = new_key()
    scanner = CA.issue(scanner_key.public_key())
    forged = certify(Content(), KEY.public_key(), scanner.subject, scanner_key)
    refused("certificate-untrusted", forged, intermediates=(scanner,))


def test_the_path_length_is_obeyed() -> None:
    too_deep = HospitalCa("Too deep", ISSUING_CA)
    refused(
        "certificate-untrusted",
        too_deep.issue(KEY.public_key()),
        intermediates=(ISSUING_CA.certificate, too_deep.certificate),
    )


def test_an_unknown_critical_extension_is_refused() -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.32473.9"), b"\x05\x00")
    refused("certificate-untrusted", issued(critical_extension=unknown))


# --- check 9: strength


# `cryptography` no longer makes signatures with SHA-1; tests/interop/test_est.py has one from openssl.


def test_a_signature_with_a_short_hash_is_refused() -> None:
    refused("certificate-weak", issued(digest=hashes.SHA224()))


def test_an_intermediate_signed_with_a_short_hash_is_refused() -> None:
    weak = HospitalCa("Weak CA", CA, digest=hashes.SHA224())
    refused("certificate-weak", weak.issue(KEY.public_key()), intermediates=(weak.certificate,))


WEAK_RSA = rsa.generate_private_key(65537, 1024)  # noqa: S505 - this is what is refused


@pytest.mark.parametrize("key", [WEAK_RSA, ec.generate_private_key(ec.SECP224R1())], ids=["rsa", "ec"])
def test_a_weak_key_is_refused_in_leaf_and_ca(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    refused("certificate-weak", CA.issue(key.public_key()), key=key.public_key())
    weak = HospitalCa("Weak CA", key=key)
    refused("certificate-weak", weak.issue(KEY.public_key()), anchors=(weak.certificate,))


def test_the_signature_on_an_anchor_is_of_no_interest() -> None:
    old = HospitalCa("Old root", digest=hashes.SHA224())
    check(old.issue(KEY.public_key()), anchors=(old.certificate,))


def test_every_chain_is_strong_whoever_asks() -> None:
    weak = HospitalCa("Weak CA", CA, digest=hashes.SHA224())

    with pytest.raises(CertificateRefused) as refusal:
        verify_chain(weak.issue(KEY.public_key()), (weak.certificate,), (CA.certificate,), NOW)
    assert refusal.value.code == "certificate-weak"


# --- who signed an image


def signer(certificate: x509.Certificate, at: datetime = NOW) -> tuple[x509.Certificate, ...]:
    return verify_signer(certificate, (ISSUING_CA.certificate,), (CA.certificate,), at)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"usage": None},
        {"usage": usage(content_commitment=True)},
        {"extended_usage": []},
        {"extended_usage": [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]},
        {"extended_usage": [ExtendedKeyUsageOID.CLIENT_AUTH, DOCUMENT_SIGNING]},
        {"ca": None, "subject": name(COMMON_NAME="A scanner of another vendor"), "alternative_names": ()},
    ],
)
def test_the_signer_of_an_image_may_have_any_name_and_no_restriction(changes: dict[str, Any]) -> None:
    """RFC 5280 4.2.1.12: without extendedKeyUsage a key is for everything; RFC 9336 for document signing."""
    certificate = ISSUING_CA.issue(KEY.public_key(), **changes)

    assert signer(certificate) == (certificate, ISSUING_CA.certificate, CA.certificate)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"usage": usage(digital_signature=False, content_commitment=True)}, "certificate-wrong-usage"),
        ({"extended_usage": [ExtendedKeyUsageOID.CLIENT_AUTH]}, "certificate-wrong-usage"),
        ({"ca": True}, "certificate-is-ca"),
        ({"usage": usage(key_cert_sign=True)}, "certificate-is-ca"),
        ({"end": NOW - timedelta(seconds=1)}, "certificate-untrusted"),
    ],
)
def test_a_certificate_that_is_not_for_signing_signs_no_image(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(CertificateRefused) as refusal:
        signer(ISSUING_CA.issue(KEY.public_key(), **changes))
    assert refusal.value.code == code
    assert refusal.value.remedy


@pytest.mark.parametrize(
    ("purposes", "allowed"),
    [
        ([], True),
        ([DOCUMENT_SIGNING, ExtendedKeyUsageOID.CLIENT_AUTH], True),
        ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], True),
        ([ExtendedKeyUsageOID.SERVER_AUTH], False),
    ],
)
@pytest.mark.parametrize("own_purposes", [[], [DOCUMENT_SIGNING]])
def test_a_ca_for_other_purposes_certifies_no_signer(
    purposes: list[x509.ObjectIdentifier], own_purposes: list[x509.ObjectIdentifier], *, allowed: bool
) -> None:
    """RFC 5280 4.2.1.12 restricts the key of the certificate it stands in, so that of an authority as well."""
    issuing = HospitalCa("Issuing CA", parent=CA, extended_usage=purposes)
    certificate = issuing.issue(KEY.public_key(), extended_usage=own_purposes)

    with nullcontext() if allowed else pytest.raises(CertificateRefused, match=r"Issuing CA.*document signing"):
        verify_signer(certificate, (issuing.certificate,), (CA.certificate,), NOW)


def test_the_purposes_of_an_anchor_do_not_matter() -> None:
    """A hospital that pins a CA says itself what it trusts it for."""
    anchor = HospitalCa("Pinned CA", extended_usage=[ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = anchor.issue(KEY.public_key(), extended_usage=[DOCUMENT_SIGNING])

    assert verify_signer(certificate, (), (anchor.certificate,), NOW)[-1] == anchor.certificate


def test_the_signer_of_an_image_is_judged_at_the_time_of_the_signature() -> None:
    certificate = ISSUING_CA.issue(KEY.public_key(), end=NOW + timedelta(days=1))

    signer(certificate, NOW + timedelta(hours=23))
    with pytest.raises(CertificateRefused):
        signer(certificate, NOW + timedelta(hours=25))


# --- the rest


def test_a_certificate_that_cannot_be_read_is_refused() -> None:
    damaged_key_usage = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.15"), b"\x30\x7f")
    refused("certificate-malformed", issued(usage=None, critical_extension=damaged_key_usage))


def test_an_issuer_that_cannot_be_read_is_refused_by_a_scanner_that_has_had_a_certificate() -> None:
    """Names are parsed late by `cryptography`: whatever looks at them first must not stumble."""
    good = issued()
    data = good.public_bytes(serialization.Encoding.DER).replace(b"Hospital CA", b"Hospital \xff\xfe", 1)

    refused("certificate-malformed", x509.load_der_x509_certificate(data), seen=(good,))


def test_every_code_of_the_table_is_tested_here() -> None:
    declared = set(re.findall(r"certificate-[a-z0-9-]+", enroll.trust.__doc__ or ""))
    tested = set(re.findall(r'"(certificate-[a-z0-9-]+)"', Path(__file__).read_text(encoding="utf-8")))

    assert declared == tested


def test_a_chain_is_judged_at_the_time_that_is_asked_about() -> None:
    certificate = issued()

    assert verify_chain(certificate, (), (CA.certificate,), NOW) == (certificate, CA.certificate)
    for moment in (NOW - timedelta(days=1), NOW + timedelta(days=366)):
        with pytest.raises(CertificateRefused):
            verify_chain(certificate, (), (CA.certificate,), moment)


def test_names_are_kept_while_the_device_is_called_the_same() -> None:
    certificate = issued(subject=x509.Name([*name(ORGANIZATION_NAME="Hospital"), *REQUEST.subject]))

    assert names_kept(certificate, REQUEST)
    assert not names_kept(certificate, replace(REQUEST, common_name="New name"))


def test_anchors_come_from_a_pem_file(tmp_path: Path) -> None:
    path = tmp_path / "anchor.pem"
    path.write_bytes(CA.certificate.public_bytes(serialization.Encoding.PEM))

    assert read_anchors(path, StateFiles(), "[est]") == (CA.certificate,)


def test_an_anchor_file_may_be_a_link_as_in_etc_ssl_certs(tmp_path: Path) -> None:
    (tmp_path / "real.pem").write_bytes(CA.certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "anchor.pem").symlink_to("real.pem")

    assert read_anchors(tmp_path / "anchor.pem", StateFiles(), "[est]") == (CA.certificate,)


@pytest.mark.parametrize("content", [None, b"", b"not a certificate", b"-----BEGIN CERTIFICATE-----\nAA==\n"])
def test_a_missing_or_wrong_anchor_file_names_the_remedy(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "anchor.pem"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigurationError, match="PEM"):
        read_anchors(path, StateFiles(), "[est]")


def test_without_an_anchor_nothing_is_trusted() -> None:
    with pytest.raises(ConfigurationError, match="anchor_file"):
        read_anchors(None, StateFiles(), "[est]")
    refused("certificate-untrusted", issued(), anchors=())


def test_a_ca_key_usage_is_not_ours() -> None:
    refused("certificate-wrong-usage", issued(usage=CA_KEY_USAGE))
