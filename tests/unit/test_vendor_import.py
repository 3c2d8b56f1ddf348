"""A certificate for all devices of a vendor: judged like any other, names no device, and says what it proves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from enroll.certificates import pem
from enroll.config import IdentitiesSettings, StoreName, VendorIdentitySettings
from enroll.csr import DOCUMENT_SIGNING, hardware_module_name, permanent_identifier
from enroll.errors import CertificateRefused, ConfigurationError, KeyMismatch, StateError
from enroll.failure import Failures
from enroll.flows.settings import VendorSettings
from enroll.identity import Generation, IdentityName
from enroll.journal import Journal, PendingRequest, Step
from enroll.proves import Proves, proves, remark
from enroll.vendor.vendor_wide import KeyInToken, KeyToImport, import_vendor_wide
from tests.support.clocks import SteppedClock
from tests.support.enrolling import Scanner, settings
from tests.support.fixed_keys import fixed_rsa_key
from tests.support.pki import NOW, Content, HospitalCa, name

KEY, OTHER_KEY = fixed_rsa_key("signer"), fixed_rsa_key("authority")
VENDOR_WIDE = Content(subject=name(ORGANIZATION_NAME="Example Imaging", COMMON_NAME="Signing"), alternative_names=())


class Vendor:
    """A scanner of a vendor, and the CA of that."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = HospitalCa()
        anchor_file = folder / "vendor-ca.pem"
        anchor_file.write_bytes(pem([self.ca.certificate]))
        configured = replace(settings(folder), vendor=VendorSettings(anchor_file=anchor_file))
        self.scanner = Scanner(configured, (), SteppedClock())

    def certificate(self, key: rsa.RSAPrivateKey = KEY, **changes: Any) -> x509.Certificate:
        return self.ca.issue(key.public_key(), replace(VENDOR_WIDE, **changes))

    def imports(self, certificate: x509.Certificate, key: rsa.RSAPrivateKey = KEY) -> Generation:
        return import_vendor_wide(KeyToImport(key), (certificate,), self.scanner.context)

    def in_use(self) -> Generation | None:
        return self.scanner.matching_pair(IdentityName.VENDOR)


@pytest.fixture
def vendor(tmp_path: Path) -> Vendor:
    return Vendor(tmp_path)


def test_it_becomes_the_identity_vendor_with_a_key_that_is_kept_encrypted(vendor: Vendor) -> None:
    generation = vendor.imports(vendor.certificate())

    assert vendor.in_use() == generation
    assert (generation.flow, generation.protection, generation.number) == ("vendor", "software", 1)
    (file,) = (vendor.folder / "state" / "keys").iterdir()
    assert file.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert vendor.scanner.identities.journal(IdentityName.VENDOR).read() is None


def test_it_proves_the_vendor_only(vendor: Vendor) -> None:
    certificate = vendor.imports(vendor.certificate()).certificate

    assert proves(certificate) is Proves.VENDOR
    assert "vendor only" in remark(certificate)


DEVICE_NAMES: dict[str, dict[str, Any]] = {
    "a serial number": {"subject": name(ORGANIZATION_NAME="Example Imaging", SERIAL_NUMBER="CT-000123")},
    "a hardware module": {"alternative_names": [hardware_module_name("1.3.6.1.4.1.32473.1.2", "CT-000123")]},
    "a permanent identifier": {"alternative_names": [permanent_identifier("CT-000123")]},
    "a device UID": {"alternative_names": [x509.UniformResourceIdentifier("urn:oid:1.2.826.0.1.3680043.8.498.1")]},
    "a UDI": {"alternative_names": [x509.UniformResourceIdentifier("https://id.gs1.org/01/09506000134352/21/12345")]},
    "a host": {"alternative_names": [x509.DNSName("ct1.hospital.example")]},
}


@pytest.mark.parametrize("changes", DEVICE_NAMES.values(), ids=DEVICE_NAMES)
def test_what_names_a_device_is_not_for_all_of_them(vendor: Vendor, changes: dict[str, Any]) -> None:
    certificate = vendor.certificate(**changes)
    assert proves(certificate) is Proves.DEVICE
    assert not remark(certificate)

    with pytest.raises(CertificateRefused) as refused:
        vendor.imports(certificate)
    assert refused.value.code == "certificate-wrong-names"


@pytest.mark.parametrize(
    "names",
    [
        [],
        [x509.UniformResourceIdentifier("https://id.gs1.org/01/09506000134352")],
        [x509.RFC822Name("signing@vendor.example")],
    ],
    ids=["none", "a trade item", "a mail address"],
)
def test_what_names_many_devices_or_a_person_names_none(vendor: Vendor, names: list[x509.GeneralName]) -> None:
    assert proves(vendor.imports(vendor.certificate(alternative_names=names)).certificate) is Proves.VENDOR


def test_a_certificate_whose_names_cannot_be_read_proves_no_device(vendor: Vendor) -> None:
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\x30\x03\x88\x01")

    assert proves(vendor.certificate(critical_extension=broken)) is Proves.VENDOR


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "for another purpose": ({"extended_usage": (ExtendedKeyUsageOID.CLIENT_AUTH,)}, "certificate-wrong-usage"),
    "for code as well": (
        {"extended_usage": (DOCUMENT_SIGNING, ExtendedKeyUsageOID.CODE_SIGNING)},
        "certificate-wrong-usage",
    ),
    "for any purpose": ({"extended_usage": (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)}, "certificate-wrong-usage"),
    "without a key usage": ({"usage": None}, "certificate-wrong-usage"),
    "a CA": ({"ca": True}, "certificate-is-ca"),
    "over": ({"end": NOW - timedelta(days=1), "begin": NOW - timedelta(days=2)}, "certificate-wrong-dates"),
    "of tomorrow": ({"begin": NOW + timedelta(days=1)}, "certificate-wrong-dates"),
}


@pytest.mark.parametrize(("changes", "code"), REFUSED.values(), ids=REFUSED)
def test_the_checks_are_those_of_every_certificate(vendor: Vendor, changes: dict[str, Any], code: str) -> None:
    in_use = vendor.imports(vendor.certificate())

    with pytest.raises(CertificateRefused) as refused:
        vendor.imports(vendor.certificate(OTHER_KEY, **changes), OTHER_KEY)
    assert refused.value.code == code
    assert refused.value.who_must_act == "vendor"
    assert vendor.in_use() == in_use
    assert len(vendor.scanner.stores.list()) == 1


def test_the_certificate_of_another_vendor_is_refused(vendor: Vendor) -> None:
    with pytest.raises(CertificateRefused) as refused:
        vendor.imports(HospitalCa().issue(KEY.public_key(), VENDOR_WIDE))
    assert refused.value.code == "certificate-untrusted"


def test_a_certificate_of_another_key_is_refused(vendor: Vendor) -> None:
    with pytest.raises((CertificateRefused, KeyMismatch)):
        vendor.imports(vendor.certificate(), OTHER_KEY)


def test_once_is_enough_unless_the_key_is_lost(vendor: Vendor) -> None:
    certificate = vendor.certificate()
    first = vendor.imports(certificate)
    assert vendor.imports(certificate) == first
    assert vendor.scanner.stores.list() == (first.key_uri,)

    vendor.scanner.stores.destroy(first.key_uri)
    second = vendor.imports(certificate)
    assert vendor.in_use() == second
    assert second.number == 2


def test_old_keys_go_and_the_one_before_stays(vendor: Vendor) -> None:
    generations = [vendor.imports(vendor.certificate()) for _ in range(4)]

    assert set(vendor.scanner.stores.list()) == {generation.key_uri for generation in generations[-2:]}


def test_after_a_crash_no_key_is_left_that_nobody_knows(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> None:
        raise StateError("the power went", remedy="")

    with monkeypatch.context() as faults:
        faults.setattr(vendor.scanner.identities, "commit", crash)
        with pytest.raises(StateError):
            vendor.imports(vendor.certificate())
    assert vendor.in_use() is None
    assert len(vendor.scanner.stores.list()) == 1

    generation = vendor.imports(vendor.certificate())
    assert vendor.scanner.stores.list() == (generation.key_uri,)


def test_a_crash_after_the_commit_leaves_no_request_that_costs_the_key(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_: Journal) -> None:
        raise StateError("the power went", remedy="")

    certificate = vendor.certificate()
    with monkeypatch.context() as faults:
        commit = vendor.scanner.identities.commit

        def commit_and_crash(*given: Any, **named: Any) -> Generation:
            generation = commit(*given, **named)
            faults.setattr(Journal, "clear", crash)
            return generation

        faults.setattr(vendor.scanner.identities, "commit", commit_and_crash)
        with pytest.raises(StateError):
            vendor.imports(certificate)

    left = vendor.scanner.identities.journal(IdentityName.VENDOR).read()
    in_use = vendor.in_use()
    assert in_use is not None
    assert left is not None
    assert left.key_uri == in_use.key_uri  # so every transaction knows that it is done
    assert vendor.imports(certificate) == in_use
    assert vendor.scanner.identities.journal(IdentityName.VENDOR).read() is None


def test_the_last_failure_is_kept_until_an_import_succeeds(vendor: Vendor) -> None:
    failures = Failures(vendor.scanner.identities)
    with pytest.raises(CertificateRefused):
        vendor.imports(vendor.certificate(ca=True))
    last = failures.last(IdentityName.VENDOR)
    assert last is not None
    assert (last.code, last.who_must_act) == ("certificate-is-ca", "vendor")

    vendor.imports(vendor.certificate())
    assert failures.last(IdentityName.VENDOR) is None


def test_a_request_under_way_is_given_up(vendor: Vendor) -> None:
    stores, journal = vendor.scanner.stores, vendor.scanner.identities.journal(IdentityName.VENDOR)
    uri = stores.generate(StoreName.SOFTWARE, "vendor-0123456789abcdef", VendorIdentitySettings().key_algorithm)
    journal.write(PendingRequest(Step.SENT, "vendor-0123456789abcdef", uri, '{"flow": "vendor"}', NOW))

    generation = vendor.imports(vendor.certificate())
    assert stores.list() == (generation.key_uri,)
    assert journal.read() is None


def test_a_key_in_a_file_does_not_become_one_in_a_token(vendor: Vendor) -> None:
    in_token = IdentitiesSettings(vendor=VendorIdentitySettings(key_store=StoreName.PKCS11))
    vendor.scanner = vendor.scanner.restarted(identity=in_token)

    with pytest.raises(ConfigurationError, match="--key-uri"):
        vendor.imports(vendor.certificate())


def test_only_a_token_is_named_by_a_uri(vendor: Vendor) -> None:
    with pytest.raises(ConfigurationError, match="pkcs11:"):
        import_vendor_wide(KeyInToken("software:vendor"), (vendor.certificate(),), vendor.scanner.context)
