"""Whether the signer is the device that the image names: docs/signer-identity.md."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeAlias

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from agent.dicom.report import Equipment, Identity, IdentityLevel, MatchResult, Outcome
from agent.dicom.signer_identity import equipment_of, function_fault, identity_of
from enroll.csr import CertificateRequest, Usage, hardware_module_name, permanent_identifier
from enroll.der import OCTET_STRING, SEQUENCE, encode, object_identifier
from enroll.proves import Proves, proves
from tests.support.data_sets import code, data_set
from tests.support.openssl import needs_openssl, openssl
from tests.support.pki import DEVICE, HospitalCa, new_key
from tests.support.raw_dicom import NATIVE_ENCODINGS, Node, text

SERIAL = DEVICE.serial_number
OWNER, MAKER, DEPARTMENT = "St Elsewhere", "ACME Imaging", "Radiology"
DEVICE_UID = "1.2.826.0.1.3680043.8.498.1"
UDI = "(01)09506000134352(17)301231(10)A213B1(21)1234/5"
UDI_LINK = "https://id.gs1.org/01/09506000134352/10/A213B1/21/1234%2F5"
Signer: TypeAlias = Callable[[], x509.Certificate]
COVERED = frozenset((0x00080070, 0x00080080, 0x00081040, 0x00081090, 0x00181000, 0x00181002, 0x0018100A))
CT1 = Equipment(
    manufacturer=MAKER,
    model=DEVICE.model,
    device_serial=SERIAL,
    device_uid=DEVICE_UID,
    udi=(UDI,),
    institution=OWNER,
    department=DEPARTMENT,
)


@cache
def authority() -> tuple[HospitalCa, ec.EllipticCurvePrivateKey]:
    return HospitalCa(), new_key()


def attribute(oid: x509.ObjectIdentifier, value: str, kind: _ASN1Type | None = None) -> x509.NameAttribute[str]:
    return x509.NameAttribute(oid, value, _type=kind, _validate=False)


def certificate(*subject: x509.NameAttribute[str], names: tuple[x509.GeneralName, ...] = ()) -> x509.Certificate:
    ca, key = authority()
    return ca.issue(key.public_key(), subject=x509.Name(subject), alternative_names=names)


def device(*more: x509.NameAttribute[str], names: tuple[x509.GeneralName, ...] = ()) -> x509.Certificate:
    """What `enroll.csr` asks for, with what the CA adds."""
    request = CertificateRequest.for_device(DEVICE, Usage.SIGNING)
    return certificate(*more, *request.subject, names=(*request.alternative_names, *names))


def organization(value: str) -> x509.NameAttribute[str]:
    return attribute(NameOID.ORGANIZATION_NAME, value)


def serial(value: str) -> x509.NameAttribute[str]:
    return attribute(NameOID.SERIAL_NUMBER, value, _ASN1Type.UTF8String)


def uri(value: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(value)


def result(identity: Identity, subject: str) -> MatchResult:
    return next(match.result for match in identity.matches if match.subject == subject)


def codes(identity: Identity) -> list[str]:
    return [finding.code for finding in identity.findings]


# --- what the image says ---


@pytest.mark.parametrize("encoding", NATIVE_ENCODINGS)
def test_the_equipment_is_read_in_every_encoding(encoding: str) -> None:
    found = equipment_of(
        data_set(
            text(0x00080055, "AE", "CT1"),
            text(0x00080060, "CS", "CT"),
            text(0x00080070, "LO", MAKER),
            text(0x00080080, "LO", OWNER),
            text(0x00081010, "SH", "room 3"),
            text(0x00081040, "LO", DEPARTMENT),
            text(0x00081090, "LO", DEVICE.model),
            text(0x00181000, "LO", SERIAL),
            text(0x00181002, "UI", DEVICE_UID),
            Node(0x0018100A, "SQ", items=((text(0x00181009, "UT", UDI),), ())),
            text(0x00181020, "LO", "1.0\\2.1"),
            transfer_syntax=encoding,
        )
    )
    assert found == replace(CT1, station="room 3", station_ae="CT1", modality="CT", software_versions=("1.0", "2.1"))


def test_an_instance_that_says_nothing_has_empty_equipment() -> None:
    assert equipment_of(data_set()) == Equipment()


def test_a_serial_number_with_two_values_is_none_of_them() -> None:
    equipment = equipment_of(data_set(text(0x00181000, "LO", f"{SERIAL}\\SN999")))
    assert codes(identity_of(device(), equipment, COVERED)) == ["identity-mismatch", "identity-mismatch"]


# --- the levels ---


@pytest.mark.parametrize(
    ("signer", "level"),
    [
        (lambda: certificate(attribute(NameOID.COMMON_NAME, "signer")), IdentityLevel.NONE),
        (lambda: certificate(organization(MAKER)), IdentityLevel.VENDOR),
        (lambda: certificate(organization("somebody")), IdentityLevel.VENDOR),
        (lambda: certificate(organization(OWNER)), IdentityLevel.SITE),
        (device, IdentityLevel.DEVICE),
        (lambda: device(organization(MAKER)), IdentityLevel.DEVICE),
        (lambda: device(organization(OWNER)), IdentityLevel.DEVICE_AND_OWNER),
        (lambda: certificate(names=(uri(f"urn:oid:{DEVICE_UID}"),)), IdentityLevel.DEVICE),
        (lambda: certificate(names=(uri(UDI_LINK),)), IdentityLevel.DEVICE),
        (lambda: certificate(names=(permanent_identifier(SERIAL),)), IdentityLevel.DEVICE),
        (lambda: certificate(organization(OWNER), names=(permanent_identifier("7"),)), IdentityLevel.DEVICE_AND_OWNER),
        # A host is no device that an image could name.
        (lambda: certificate(names=(x509.DNSName("ct-1.example"),)), IdentityLevel.NONE),
        # GTIN alone is the type of device.
        (lambda: certificate(names=(uri("https://id.gs1.org/01/09506000134352"),)), IdentityLevel.NONE),
    ],
)
def test_the_level_is_what_the_certificate_identifies(signer: Signer, level: IdentityLevel) -> None:
    assert identity_of(signer(), CT1, COVERED).level is level


def test_each_level_is_closer_than_the_one_before() -> None:
    levels = ("none", "vendor", "site", "device", "device-and-owner")
    assert tuple(level.value for level in IdentityLevel) == levels


def test_an_organization_that_is_maker_and_institution_at_once_is_no_owner() -> None:
    identity = identity_of(device(organization(MAKER)), replace(CT1, institution=MAKER), COVERED)
    assert identity.level is IdentityLevel.DEVICE


# --- the comparisons ---


def test_a_permanent_identifier_that_is_the_serial_number_ties_the_certificate_to_the_device() -> None:
    """RFC 4043: what CAs certify that had the device attested (ACME) may hold no other name."""
    signer = certificate(names=(permanent_identifier(SERIAL.lower()),))

    identity = identity_of(signer, CT1, COVERED)

    assert result(identity, "permanent-identifier") is MatchResult.MATCH
    assert identity.findings == ()
    assert proves(signer) is Proves.DEVICE


def test_a_permanent_identifier_may_be_another_name_than_the_serial_number() -> None:
    """So it accuses nobody, and shows nothing either."""
    identity = identity_of(certificate(names=(permanent_identifier("inventory 7"),)), CT1, COVERED)

    assert result(identity, "permanent-identifier") is MatchResult.CERTIFICATE_SILENT
    assert codes(identity) == ["identity-silent"]


def test_beside_a_serial_number_of_another_device_it_helps_nobody() -> None:
    identity = identity_of(certificate(serial("SN999"), names=(permanent_identifier(SERIAL),)), CT1, COVERED)

    assert codes(identity) == ["identity-mismatch"]


def test_a_certificate_of_the_very_device_matches_in_everything_it_names() -> None:
    signer = device(
        organization(OWNER),
        attribute(NameOID.ORGANIZATIONAL_UNIT_NAME, DEPARTMENT),
        names=(uri(f"urn:oid:{DEVICE_UID}"), uri(UDI_LINK)),
    )
    identity = identity_of(signer, CT1, COVERED)
    assert identity.outcome is Outcome.PASSED
    matching = {match.subject for match in identity.matches if match.result is MatchResult.MATCH}
    assert matching == {"serial", "hardware-serial", "device-uid", "udi", "model", "owner", "department"}
    assert result(identity, "manufacturer") is MatchResult.CERTIFICATE_SILENT


@dataclass(frozen=True)
class Field:
    """A certificate that names the device of CT1 in one way, an image that is silent on it, and another device's."""

    signer: Signer
    silent: Equipment
    other: Equipment


FIELDS = {
    "serial": Field(
        lambda: certificate(serial(SERIAL)), replace(CT1, device_serial=""), replace(CT1, device_serial="SN999")
    ),
    "hardware-serial": Field(
        lambda: certificate(names=(hardware_module_name("1.3.6.1.4.1.32473.1", SERIAL),)),
        replace(CT1, device_serial=""),
        replace(CT1, device_serial="SN999"),
    ),
    "device-uid": Field(
        lambda: certificate(names=(uri(f"URN:OID:{DEVICE_UID}"),)),
        replace(CT1, device_uid=""),
        replace(CT1, device_uid="1.2.3"),
    ),
    "udi": Field(
        lambda: certificate(names=(uri(UDI_LINK),)),
        replace(CT1, udi=()),
        replace(CT1, udi=("(01)09506000134352(21)9999",)),
    ),
}


@pytest.mark.parametrize("subject", FIELDS)
def test_a_name_of_the_device_matches_differs_or_finds_the_image_silent(subject: str) -> None:
    field = FIELDS[subject]
    same = identity_of(field.signer(), CT1, COVERED)
    assert (result(same, subject), same.findings) == (MatchResult.MATCH, ())

    nothing = identity_of(field.signer(), field.silent, COVERED)
    assert result(nothing, subject) is MatchResult.IMAGE_SILENT
    assert (codes(nothing), nothing.outcome) == (["identity-silent"], Outcome.FLAGGED)

    wrong = identity_of(field.signer(), field.other, COVERED)
    assert result(wrong, subject) is MatchResult.MISMATCH
    assert (codes(wrong), wrong.outcome) == (["identity-mismatch"], Outcome.FAILED)


@pytest.mark.parametrize("subject", [*FIELDS, "manufacturer", "model", "owner", "department"])
def test_a_certificate_that_does_not_name_it_is_silent(subject: str) -> None:
    identity = identity_of(certificate(attribute(NameOID.COUNTRY_NAME, "CH")), CT1, COVERED)
    assert result(identity, subject) is MatchResult.CERTIFICATE_SILENT
    assert codes(identity) == ["identity-silent"]


@pytest.mark.parametrize(
    ("signer", "equipment"),
    [
        (device, replace(CT1, model="Other CT")),
        (lambda: device(attribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Surgery")), CT1),
    ],
)
def test_a_differing_model_or_department_is_flagged(signer: Signer, equipment: Equipment) -> None:
    identity = identity_of(signer(), equipment, COVERED)
    assert (codes(identity), identity.outcome) == (["identity-differs"], Outcome.FLAGGED)


def test_an_organization_differs_only_if_it_is_neither_maker_nor_owner_and_both_are_known() -> None:
    signer = device(organization("Somebody Else"))
    assert codes(identity_of(signer, CT1, COVERED)) == ["identity-differs", "identity-differs"]
    assert codes(identity_of(signer, replace(CT1, institution=""), COVERED)) == []
    assert codes(identity_of(signer, replace(CT1, manufacturer=""), COVERED)) == []


def test_the_units_that_say_what_is_signed_are_no_department() -> None:
    signer = device(attribute(NameOID.ORGANIZATIONAL_UNIT_NAME, " Derivation"))
    assert result(identity_of(signer, CT1, COVERED), "department") is MatchResult.CERTIFICATE_SILENT


def test_the_model_is_what_stands_before_the_serial_number_in_the_common_name() -> None:
    assert result(identity_of(device(), CT1, COVERED), "model") is MatchResult.MATCH
    bare = certificate(attribute(NameOID.COMMON_NAME, DEVICE.model), serial(SERIAL))
    assert result(identity_of(bare, CT1, COVERED), "model") is MatchResult.CERTIFICATE_SILENT


@pytest.mark.parametrize("written", ["ct-000123", " CT-000123", "CT-000123  ", "Ct-000123"])
def test_case_and_outer_spaces_make_no_difference(written: str) -> None:
    assert identity_of(certificate(serial(written)), CT1, COVERED).findings == ()


@pytest.mark.parametrize("written", ["CT-00123", "CT000123", "CT-0001234", "CT-OOO123", "CT-00012", "\uff23T-000123"])
def test_what_only_looks_alike_is_another_device(written: str) -> None:
    assert codes(identity_of(certificate(serial(written)), CT1, COVERED)) == ["identity-mismatch"]


def test_characters_that_could_not_be_decoded_are_compared_with_nothing() -> None:
    equipment = equipment_of(data_set(Node(0x00181000, "LO", b"\xff\xfe12")))
    signer = certificate(serial("\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}12"))
    identity = identity_of(signer, equipment, COVERED)
    assert result(identity, "serial") is MatchResult.IMAGE_SILENT


# --- what the signature does not cover ---


@pytest.mark.parametrize("subject", FIELDS)
def test_what_is_not_covered_never_counts_as_a_match(subject: str) -> None:
    identity = identity_of(FIELDS[subject].signer(), CT1, frozenset())
    assert result(identity, subject) is MatchResult.IMAGE_SILENT
    assert codes(identity) == ["identity-not-covered", "identity-silent"]


def test_what_is_not_covered_still_counts_as_another_device() -> None:
    identity = identity_of(device(), replace(CT1, device_serial="SN999"), frozenset())
    assert identity.outcome is Outcome.FAILED


def test_an_institution_that_is_not_covered_makes_nobody_the_owner() -> None:
    identity = identity_of(device(organization(OWNER)), CT1, COVERED - {0x00080080})
    assert identity.level is IdentityLevel.DEVICE


def test_the_finding_names_the_attributes_that_are_not_covered() -> None:
    identity = identity_of(device(), CT1, frozenset((0x00181000,)))
    assert [finding.what for finding in identity.findings if "(0008,1090)" in finding.what]
    assert not [finding.what for finding in identity.findings if "(0018,1000)" in finding.what]


# --- certificates that are odd, or made to deceive ---


def test_two_serial_numbers_never_match_even_if_one_of_them_fits() -> None:
    identity = identity_of(certificate(serial(SERIAL), serial("SN999")), CT1, COVERED)
    assert result(identity, "serial") is MatchResult.CERTIFICATE_SILENT
    assert codes(identity) == ["identity-ambiguous", "identity-silent"]
    assert identity.level is IdentityLevel.NONE


def test_two_serial_numbers_of_which_none_fits_name_another_device() -> None:
    identity = identity_of(certificate(serial("SN998"), serial("SN999")), CT1, COVERED)
    assert codes(identity) == ["identity-ambiguous", "identity-mismatch"]


def test_the_same_serial_number_twice_is_one() -> None:
    assert identity_of(certificate(serial(SERIAL), serial(SERIAL.lower())), CT1, COVERED).findings == ()


@pytest.mark.parametrize(
    "names",
    [
        (uri(f"urn:oid:{DEVICE_UID}"), uri("urn:oid:1.2.3")),
        (uri(UDI_LINK), uri("https://id.gs1.org/01/09506000134352/21/other")),
        (hardware_module_name("1.3.6.1", SERIAL), hardware_module_name("1.3.6.1", "SN999")),
        (permanent_identifier(SERIAL), permanent_identifier("SN999")),
    ],
)
def test_two_alternative_names_of_one_kind_never_match(names: tuple[x509.GeneralName, ...]) -> None:
    identity = identity_of(certificate(names=names), CT1, COVERED)
    assert MatchResult.MATCH not in {match.result for match in identity.matches}
    assert "identity-ambiguous" in codes(identity)


def test_an_empty_serial_number_names_nothing() -> None:
    identity = identity_of(certificate(serial("")), CT1, COVERED)
    assert result(identity, "serial") is MatchResult.CERTIFICATE_SILENT
    assert identity.level is IdentityLevel.NONE


def test_an_empty_serial_number_beside_another_one_is_ambiguous() -> None:
    identity = identity_of(certificate(serial(""), serial(SERIAL)), CT1, COVERED)
    assert "identity-ambiguous" in codes(identity)
    assert identity.level is IdentityLevel.NONE


@pytest.mark.parametrize("kind", [_ASN1Type.BMPString, _ASN1Type.T61String, _ASN1Type.UniversalString])
def test_old_string_types_are_read(kind: _ASN1Type) -> None:
    signer = certificate(attribute(NameOID.SERIAL_NUMBER, SERIAL, kind))
    assert result(identity_of(signer, CT1, COVERED), "serial") is MatchResult.MATCH


def test_a_name_that_cannot_be_decoded_leaves_the_identity_open() -> None:
    good = certificate(attribute(NameOID.SERIAL_NUMBER, SERIAL, _ASN1Type.UTF8String)).public_bytes(Encoding.DER)
    assert good.count(SERIAL.encode()) == 1
    broken = x509.load_der_x509_certificate(good.replace(SERIAL.encode(), b"\xff" * len(SERIAL)))
    identity = identity_of(broken, CT1, COVERED)
    assert (codes(identity), identity.outcome) == (["identity-unreadable"], Outcome.INDETERMINATE)


@pytest.mark.parametrize(
    "value",
    [
        encode(OCTET_STRING, b"SN"),
        encode(SEQUENCE, encode(OCTET_STRING, b"SN")),
        encode(SEQUENCE, object_identifier("1.2.3")),
        encode(SEQUENCE, object_identifier("1.2.3") + encode(OCTET_STRING, b"SN") + encode(OCTET_STRING, b"SN")),
        encode(SEQUENCE, b""),
    ],
)
def test_what_is_no_hardware_module_name_leaves_the_identity_open(value: bytes) -> None:
    name = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.4"), value)
    assert codes(identity_of(certificate(names=(name,)), CT1, COVERED)) == ["identity-unreadable"]


def test_a_binary_hardware_serial_number_is_shown_in_hexadecimal() -> None:
    value = encode(SEQUENCE, object_identifier("1.2.3") + encode(OCTET_STRING, b"\xff\x00"))
    name = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.4"), value)
    identity = identity_of(certificate(names=(name,)), CT1, COVERED)
    assert [match.certificate for match in identity.matches if match.subject == "hardware-serial"] == ["ff00"]


def test_without_a_certificate_the_identity_is_open() -> None:
    assert identity_of(None, CT1, COVERED).outcome is Outcome.INDETERMINATE


def test_hostile_names_stay_one_bounded_printable_line() -> None:
    evil = "X\n\x1b[31m\N{RIGHT-TO-LEFT OVERRIDE}" * 1000
    signer = certificate(serial(evil), organization(evil), attribute(NameOID.ORGANIZATIONAL_UNIT_NAME, evil))
    identity = identity_of(signer, CT1, COVERED)
    texts = [finding.what for finding in identity.findings] + [match.certificate for match in identity.matches]
    assert all(len(shown) < 600 and shown.isprintable() for shown in texts)
    assert identity.outcome is Outcome.FAILED


@pytest.mark.parametrize(
    "udi",
    [
        "(01)09506000134352(21)1234/5(21)9999",  # two serial numbers
        "(01)09506000134352(10)1234/5",  # a lot, no serial number
        "09506000134352",
        "+H123PARTNO1234567890120/$$420020216LOT123456789012345/SXYZ4567890123/16D20130202C",  # HIBCC
    ],
)
def test_identifiers_without_exactly_one_serial_number_cannot_be_compared(udi: str) -> None:
    identity = identity_of(certificate(names=(uri(UDI_LINK),)), replace(CT1, udi=(udi,)), COVERED)
    assert result(identity, "udi") is MatchResult.IMAGE_SILENT


@pytest.mark.parametrize("second", ["(01)00000000000000(21)1", "(01)09506000134352(21)9999"])
def test_an_image_of_two_devices_matches_the_certificate_of_neither(second: str) -> None:
    """A reader could take either, and so could two signers."""
    identity = identity_of(certificate(names=(uri(UDI_LINK),)), replace(CT1, udi=(second, UDI)), COVERED)
    assert result(identity, "udi") is MatchResult.IMAGE_SILENT
    assert codes(identity) == ["identity-ambiguous", "identity-silent"]


def test_two_identifiers_of_other_devices_are_a_mismatch() -> None:
    others = replace(CT1, udi=("(01)00000000000000(21)1", "(01)09506000134352(21)9999"))
    identity = identity_of(certificate(names=(uri(UDI_LINK),)), others, COVERED)
    assert codes(identity) == ["identity-ambiguous", "identity-mismatch"]


@pytest.mark.parametrize("second", [UDI, "(01)09506000134352(21)1234/5", "+H123PARTNO1234567890120/$$4200202"])
def test_several_identifiers_of_one_device_are_one(second: str) -> None:
    """UDI Sequence (0018,100A) may also hold what another agency issued, which cannot be compared."""
    identity = identity_of(certificate(names=(uri(UDI_LINK),)), replace(CT1, udi=(second, UDI)), COVERED)
    assert result(identity, "udi") is MatchResult.MATCH
    assert identity.findings == ()


def test_every_pair_of_certificate_and_image_has_one_of_the_four_results() -> None:
    signers = [certificate(organization(OWNER)), device(), device(organization(MAKER)), certificate(serial("SN999"))]
    images = [Equipment(), CT1, replace(CT1, device_serial="SN999"), replace(CT1, manufacturer="", institution="")]
    for signer, image in itertools.product(signers, images):
        identity = identity_of(signer, image, COVERED)
        assert len(identity.matches) == 9
        differs = {match.subject for match in identity.matches if match.result is MatchResult.MISMATCH}
        assert (identity.outcome is Outcome.FAILED) == bool(differs & set(FIELDS))


# --- the documented certificate ---


def documented(first: str, behind: str) -> list[str]:
    """The lines of the page from one that begins so to one that begins otherwise."""
    lines = (Path(__file__).parents[2] / "docs/signer-identity.md").read_text("utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(first))
    return list(itertools.takewhile(lambda line: not line.startswith(behind), lines[start:]))


@needs_openssl
def test_openssl_reads_the_documented_certificate(tmp_path: Path) -> None:
    file = tmp_path / "signer.pem"
    signer = device(
        organization(OWNER),
        attribute(NameOID.ORGANIZATIONAL_UNIT_NAME, DEPARTMENT),
        names=(uri(f"urn:oid:{DEVICE_UID}"), uri(UDI_LINK)),
    )
    file.write_bytes(signer.public_bytes(Encoding.PEM))
    shown = openssl("x509", "-in", file, "-noout", "-subject", "-ext", "subjectAltName", "-nameopt", "RFC2253")
    lines = [line.strip() for line in shown.splitlines()]
    names = [
        line.strip() for line in documented("X509v3 Subject Alternative Name:", "X509v3 Key Usage") if "URI" in line
    ]
    assert next(iter(documented("subject=", "X509v3"))) in lines
    assert len(names) == 2
    assert all(name in shown for name in names)


@needs_openssl
def test_openssl_reads_the_documented_hardware_module_name(tmp_path: Path) -> None:
    file = tmp_path / "name.der"
    file.write_bytes(hardware_module_name(DEVICE.hardware_type, SERIAL).value)
    _encoded, _blank, *parsed = documented(file.read_bytes().hex(" "), "```")
    shown = openssl("asn1parse", "-inform", "DER", "-in", file)
    assert [" ".join(line.split()) for line in shown.splitlines()] == parsed


ORIGINAL, DERIVED = (text(0x00080008, "CS", f"{kind}\\PRIMARY") for kind in ("ORIGINAL", "DERIVED"))
SYNTHETIC, NOT_SYNTHETIC = (text(0x0008001C, "CS", value) for value in ("YES", "NO"))
DESCRIPTION = text(0x00082111, "ST", "denoised")
CREATED_SYNTHETIC = Node(0x0018A001, "SQ", items=((code(0x0040A170, "109100"),),))


@pytest.mark.parametrize(
    ("unit", "content", "faulty"),
    [
        ("derivation", (DERIVED,), False),
        ("derivation", (DERIVED, NOT_SYNTHETIC), False),
        ("derivation", (), False),
        ("derivation", (ORIGINAL,), True),
        ("derivation", (ORIGINAL, DESCRIPTION), True),
        ("derivation", (ORIGINAL, code(0x00089215, "113072")), True),
        ("derivation", (DERIVED, SYNTHETIC), True),
        ("synthesis", (DERIVED, SYNTHETIC), False),
        ("synthesis", (ORIGINAL, SYNTHETIC), False),
        ("synthesis", (DERIVED,), True),
        ("synthesis", (ORIGINAL, NOT_SYNTHETIC, CREATED_SYNTHETIC), True),
        ("synthesis", (text(0x0008001C, "CS", "YES\\NO"),), True),
        ("Synthesis ", (ORIGINAL,), True),
        (DEPARTMENT, (DERIVED, SYNTHETIC), False),
    ],
)
def test_what_a_certificate_is_for_fits_what_the_image_says_it_is(
    unit: str, content: tuple[Node, ...], *, faulty: bool
) -> None:
    """docs/adr/0015: each function of a scanner has a certificate of its own, and signs what the role signs."""
    image = data_set(*content)
    fault = function_fault(device(attribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit)), image, frozenset(image.tags))
    assert (fault is not None and fault.code == "function-mismatch") == faulty


def test_a_mark_of_synthetic_data_that_is_not_covered_is_not_the_signers() -> None:
    """PS3.3 C.12.1: anybody can have put it there."""
    signer = device(attribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "synthesis"))
    fault = function_fault(signer, data_set(SYNTHETIC), frozenset())
    assert fault is not None
    assert fault.code == "function-mismatch"
