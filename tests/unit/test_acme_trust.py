"""Which certificates of an ACME CA are used: it certifies the name that it has proved, and may leave out the rest."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from enroll.csr import DOCUMENT_SIGNING, CertificateRequest, Usage, permanent_identifier
from enroll.errors import CertificateRefused
from enroll.trust import check_issued
from tests.support.pki import DEVICE, NOW, Content, HospitalCa, name, new_key

CA = HospitalCa()
KEY = new_key().public_key()
HOST = CertificateRequest.for_device(DEVICE, Usage.DEVICE).for_host("ct-1.example")
IDENTIFIED = CertificateRequest.for_device(DEVICE, Usage.DEVICE).for_permanent_identifier("CT-000123")
DERIVATION = CertificateRequest.for_device(DEVICE, Usage.DERIVATION).for_permanent_identifier("CT-000123")
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


def check(request: CertificateRequest, **changes: object) -> None:
    certificate = CA.issue(KEY, replace(Content.asked(request, NOW), **changes))  # type: ignore[arg-type]
    verified = check_issued([certificate], [], [CA.certificate], public_key=KEY, request=request, now=NOW)
    assert verified.certificate == certificate


@pytest.mark.parametrize("request_", [HOST, IDENTIFIED], ids=["host", "device"])
@pytest.mark.parametrize(
    "subject",
    [
        name(),
        name(COMMON_NAME="{name}"),
        name(SERIAL_NUMBER="CT-000123"),
        name(COMMON_NAME="{name}", SERIAL_NUMBER="CT-000123", ORGANIZATION_NAME="Hospital"),
    ],
)
def test_what_was_not_proved_may_lack(request_: CertificateRequest, subject: x509.Name) -> None:
    """RFC 8555 7.4: the CA decides about the subject."""
    named = [x509.NameAttribute(part.oid, str(part.value).format(name=request_.common_name)) for part in subject]

    check(request_, subject=x509.Name(named))


@pytest.mark.parametrize("request_", [HOST, IDENTIFIED], ids=["host", "device"])
@pytest.mark.parametrize(
    "subject",
    [
        name(COMMON_NAME="other.example"),
        name(SERIAL_NUMBER="CT-2"),
        name(SERIAL_NUMBER="CT-000123", GIVEN_NAME="Somebody"),
        name(ORGANIZATIONAL_UNIT_NAME="synthesis"),
    ],
)
def test_nothing_else_may_stand_there(request_: CertificateRequest, subject: x509.Name) -> None:
    with pytest.raises(CertificateRefused) as raised:
        check(request_, subject=subject)
    assert raised.value.code == "certificate-wrong-names"


def test_what_tells_derived_images_from_originals_may_never_lack() -> None:
    with pytest.raises(CertificateRefused) as raised:
        check(DERIVATION, subject=name(COMMON_NAME="CT-000123"))
    assert raised.value.code == "certificate-wrong-names"

    check(DERIVATION, subject=name(ORGANIZATIONAL_UNIT_NAME="derivation"))


@pytest.mark.parametrize(
    "names",
    [
        (),
        (x509.DNSName("other.example"),),
        (x509.DNSName("ct-1.example"), x509.DNSName("other.example")),
        (x509.DNSName("*.example"),),
        (permanent_identifier("CT-000123"), x509.DNSName("ct-1.example")),
        (permanent_identifier("CT-000124"),),
    ],
)
@pytest.mark.parametrize("request_", [HOST, IDENTIFIED], ids=["host", "device"])
def test_the_alternative_names_are_those_of_the_order(
    request_: CertificateRequest, names: tuple[x509.GeneralName, ...]
) -> None:
    with pytest.raises(CertificateRefused) as raised:
        check(request_, alternative_names=names)
    assert raised.value.code == "certificate-wrong-names"


def test_a_host_may_be_a_server_as_well() -> None:
    """What web CAs issue."""
    for purposes in ((CLIENT,), (CLIENT, SERVER), (SERVER, CLIENT)):
        check(HOST, extended_usage=purposes)


@pytest.mark.parametrize(
    ("request_", "purposes"),
    [
        (HOST, (SERVER,)),
        (HOST, ()),
        (HOST, (CLIENT, SERVER, DOCUMENT_SIGNING)),
        (HOST, (CLIENT, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)),
        (IDENTIFIED, (CLIENT, SERVER)),
        (DERIVATION, (DOCUMENT_SIGNING, SERVER)),
    ],
)
def test_no_other_purpose_is_let_in(request_: CertificateRequest, purposes: tuple[ObjectIdentifier, ...]) -> None:
    with pytest.raises(CertificateRefused) as raised:
        check(request_, extended_usage=purposes)
    assert raised.value.code == "certificate-wrong-usage"
