"""Whether the signer is the device that the image names: the certificate against the equipment attributes.

| subject           | the certificate names it in                                     | the image in                   |
|-------------------|-----------------------------------------------------------------|--------------------------------|
| `serial`          | subject serialNumber                                            | Device Serial Number           |
| `hardware-serial` | subjectAltName hardwareModuleName, hwSerialNum (RFC 4108 5)     | Device Serial Number           |
| `permanent-identifier` | subjectAltName permanentIdentifier (RFC 4043 2)            | Device Serial Number           |
| `device-uid`      | subjectAltName URI `urn:oid:UID` (RFC 3061)                     | Device UID                     |
| `udi`             | subjectAltName URI, a GS1 Digital Link `https://id.gs1.org/01/` | UDI Sequence                   |
| `model`           | subject CN, in front of the serial number                       | Manufacturer's Model Name      |
| `manufacturer`    | subject O, where a manufacturer's CA issued it                  | Manufacturer                   |
| `owner`           | subject O, where the owner's CA issued it                       | Institution Name               |
| `department`      | subject OU                                                      | Institutional Department Name  |

Nothing in a certificate tells whose name O is, so it is compared with both, and only where it is neither does it
differ. Texts are compared without regard to case and to spaces that tell nothing (RFC 4518 2.6), UIDs as they are.
What is stated several times and differently is reported and matches nothing. A permanentIdentifier may be another name
of the device than its serial number, so it matches or tells nothing. Why, is in docs/signer-identity.md.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from urllib.parse import unquote

from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

from agent.dicom.content import LOOKED_AT, check_role
from agent.dicom.data_set import DataSet
from agent.dicom.elements import DEVICE_SERIAL_NUMBER, DEVICE_UID, tag_name
from agent.dicom.report import (
    NAME_ONE_DEVICE,
    Comparison,
    Equipment,
    Finding,
    Identity,
    IdentityLevel,
    MatchResult,
    Outcome,
)
from agent.errors import DicomError
from enroll import der
from enroll.attestation.names import permanent_identifiers
from enroll.certificates import PARSE_ERRORS, alternative_names
from enroll.csr import HARDWARE_MODULE_NAME, RESERVED_UNITS
from enroll.foreign import printable

STATION_AE_TITLE = 0x00080055
MODALITY = 0x00080060
MANUFACTURER = 0x00080070
INSTITUTION_NAME = 0x00080080
STATION_NAME = 0x00081010
INSTITUTIONAL_DEPARTMENT_NAME = 0x00081040
MANUFACTURERS_MODEL_NAME = 0x00081090
UNIQUE_DEVICE_IDENTIFIER = 0x00181009
UDI_SEQUENCE = 0x0018100A
SOFTWARE_VERSIONS = 0x00181020

PERMANENT = "permanent-identifier"
_ATTRIBUTES = {
    "serial": DEVICE_SERIAL_NUMBER,
    "hardware-serial": DEVICE_SERIAL_NUMBER,
    PERMANENT: DEVICE_SERIAL_NUMBER,
    "device-uid": DEVICE_UID,
    "udi": UDI_SEQUENCE,
    "manufacturer": MANUFACTURER,
    "model": MANUFACTURERS_MODEL_NAME,
    "owner": INSTITUTION_NAME,
    "department": INSTITUTIONAL_DEPARTMENT_NAME,
}
_MOST_UDIS = 16  # of one instance
_LONGEST_NAME = 1_024  # characters
_MOST_NAMES = 16  # of one kind in one certificate
_COMPARED = frozenset((MatchResult.MATCH, MatchResult.MISMATCH))

_OID_URN = "urn:oid:"
_GS1_LINK = "https://id.gs1.org/01/"
# GS1 General Specifications 3.3.2 and 3.5.2: the trade item is 14 digits, its serial number at most 20 characters.
_LINKED_UDI = re.compile(r"https://id\.gs1\.org/01/(\d{14})(?:/22/[^/?#]+)?(?:/10/[^/?#]+)?/21/([^/?#]+)", re.ASCII)
_PRINTED_UDI = re.compile(r"\(01\)(\d{14})((?:\(\d{2,4}\)[^()]+)*)", re.ASCII)
_PRINTED_SERIAL = re.compile(r"\(21\)([^()]+)", re.ASCII)


def equipment_of(data_set: DataSet) -> Equipment:
    """What an instance says of where it comes from (PS3.3 C.7.5.1, C.7.3.1)."""
    items = islice(data_set.items(UDI_SEQUENCE), _MOST_UDIS)
    identifiers = (_whole(item, UNIQUE_DEVICE_IDENTIFIER) for item in items)
    return Equipment(
        manufacturer=_whole(data_set, MANUFACTURER),
        model=_whole(data_set, MANUFACTURERS_MODEL_NAME),
        device_serial=_whole(data_set, DEVICE_SERIAL_NUMBER),
        device_uid=_whole(data_set, DEVICE_UID),
        udi=tuple(filter(None, identifiers)),
        software_versions=data_set.texts(SOFTWARE_VERSIONS),
        station=_whole(data_set, STATION_NAME),
        station_ae=_whole(data_set, STATION_AE_TITLE),
        institution=_whole(data_set, INSTITUTION_NAME),
        department=_whole(data_set, INSTITUTIONAL_DEPARTMENT_NAME),
        modality=_whole(data_set, MODALITY),
    )


def _whole(data_set: DataSet, tag: int) -> str:
    """An attribute of one value; where it has several, none of them is taken for the one."""
    return "\\".join(data_set.texts(tag))


def identity_of(certificate: x509.Certificate | None, equipment: Equipment, covered_tags: frozenset[int]) -> Identity:
    """Compare what a certificate and an instance say of the device.

    Args:
        certificate: The signer's; None where it cannot be read.
        equipment: Of the instance.
        covered_tags: What the signature covers. Anybody could have changed the rest, so it never counts as a match.
    """
    if certificate is None:
        return Identity(findings=(_unreadable("There is no certificate to go by."),))
    try:
        names = _names_in(certificate)
    except PARSE_ERRORS:
        return Identity(findings=(_unreadable("The names in the certificate cannot be read."),))
    matches = {
        subject: _compared(subject, names.of(subject), _image_values(subject, equipment), covered=tag in covered_tags)
        for subject, tag in _ATTRIBUTES.items()
    }
    _settle_organization(matches)
    level = _level(names, matches)
    findings = (
        *_ambiguities(names),
        *_devices_of(equipment),
        *_not_covered(names, equipment, covered_tags),
        *_conclusions(matches, level),
    )
    return Identity(findings=findings, level=level, matches=tuple(matches.values()))


def function_fault(certificate: x509.Certificate, data_set: DataSet, covered_tags: Collection[int]) -> Finding | None:
    """Whether the instance is something else than what the certificate is for (`enroll.csr.Usage`).

    Args:
        certificate: The signer's.
        data_set: The data set of the instance.
        covered_tags: What the signature covers.
    """
    try:
        units = {_normalized(unit) for unit in _attribute(certificate.subject, NameOID.ORGANIZATIONAL_UNIT_NAME)}
    except PARSE_ERRORS:
        return None  # reported by the comparison
    for role in sorted(RESERVED_UNITS & units):
        try:
            check_role(role, {tag: data_set.value(tag) for tag in LOOKED_AT if tag in data_set}, covered_tags)
        except DicomError as error:
            return Finding("function-mismatch", f"The certificate is for {role} only. {error.what}")
    return None


@dataclass(frozen=True)
class _Names:
    """What a certificate names, by subject of the comparison; several values contradict each other."""

    values: dict[str, tuple[str, ...]]

    def of(self, subject: str) -> tuple[str, ...]:
        return self.values.get(subject, ())

    @property
    def name_one_device(self) -> bool:
        """Whether at least one unambiguous name is that of a single device."""
        return any(len(self.of(subject)) == 1 and _key(subject, self.of(subject)[0]) for subject in NAME_ONE_DEVICE)


def _names_in(certificate: x509.Certificate) -> _Names:
    """The names, each distinct value once.

    Raises:
        ValueError: The certificate cannot be parsed; or another of `PARSE_ERRORS`.
    """
    subject = certificate.subject
    serials = _attribute(subject, NameOID.SERIAL_NUMBER)
    organizations = _attribute(subject, NameOID.ORGANIZATION_NAME)
    units = _attribute(subject, NameOID.ORGANIZATIONAL_UNIT_NAME)
    found = {
        "serial": serials,
        "manufacturer": organizations,
        "owner": organizations,
        # These say what is signed (enroll.csr), and no department.
        "department": [unit for unit in units if _normalized(unit) not in RESERVED_UNITS],
        "model": [_model_in(name, serials) for name in _attribute(subject, NameOID.COMMON_NAME)],
        "hardware-serial": [],
        PERMANENT: list(permanent_identifiers(certificate)),
        "device-uid": [],
        "udi": [],
    }
    for name in alternative_names(certificate):
        if isinstance(name, x509.OtherName) and name.type_id == HARDWARE_MODULE_NAME:
            found["hardware-serial"].append(_hardware_serial(name.value))
        elif isinstance(name, x509.UniformResourceIdentifier) and name.value.casefold().startswith(_OID_URN):
            found["device-uid"].append(name.value[len(_OID_URN) :])
        elif isinstance(name, x509.UniformResourceIdentifier) and name.value.startswith(_GS1_LINK):
            found["udi"].append(name.value)
    return _Names({subject: _distinct(values) for subject, values in found.items()})


def _attribute(subject: x509.Name, oid: ObjectIdentifier) -> list[str]:
    values = (attribute.value for attribute in subject.get_attributes_for_oid(oid))
    return [value if isinstance(value, str) else value.hex() for value in values]


def _distinct(values: list[str]) -> tuple[str, ...]:
    return tuple({_normalized(value): value for value in values}.values())[:_MOST_NAMES]


def _normalized(text: str) -> str:
    """As X.520 caseIgnoreMatch compares, but nothing that only looks alike is taken for the same."""
    if len(text) > _LONGEST_NAME:
        return text  # no name, and normalizing takes time with the square of its length
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def _model_in(common_name: str, serials: list[str]) -> str:
    """The model, where the common name is "MODEL SERIAL" as in the requests of `enroll.csr`."""
    name, ending = " ".join(common_name.split()), " " + " ".join(serials[0].split()) if len(serials) == 1 else ""
    return name[: -len(ending)] if ending.strip() and name.casefold().endswith(ending.casefold()) else ""


def _hardware_serial(encoded: bytes) -> str:
    """The hwSerialNum of HardwareModuleName ::= SEQUENCE { hwType OBJECT IDENTIFIER, hwSerialNum OCTET STRING }."""
    if not der.is_one_value(encoded) or encoded[0] != der.SEQUENCE:
        raise ValueError("not a HardwareModuleName")
    content = encoded[_head(encoded) :]
    serial = content[der.announced_length(content) :] if content[:1] == bytes([der.OBJECT_IDENTIFIER]) else b""
    if serial[:1] != bytes([der.OCTET_STRING]) or der.announced_length(serial) != len(serial):
        raise ValueError("not a HardwareModuleName")
    value = serial[_head(serial) :]
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.hex()


def _head(encoded: bytes) -> int:
    """Bytes of tag and length (X.690 8.1.3)."""
    return 2 + (encoded[1] & 0x7F if encoded[1] & 0x80 else 0)


def _image_values(subject: str, equipment: Equipment) -> tuple[str, ...]:
    values: dict[str, tuple[str, ...]] = {
        "serial": (equipment.device_serial,),
        "hardware-serial": (equipment.device_serial,),
        PERMANENT: (equipment.device_serial,),
        "device-uid": (equipment.device_uid,),
        "udi": equipment.udi,
        "manufacturer": (equipment.manufacturer,),
        "model": (equipment.model,),
        "owner": (equipment.institution,),
        "department": (equipment.department,),
    }
    return tuple(filter(None, values[subject]))


def _compared(subject: str, stated: tuple[str, ...], image: tuple[str, ...], *, covered: bool) -> Comparison:
    """One comparison; `image` has several values only where each of them names the whole device (UDI).

    Where these are different devices, they match nothing.
    """
    from_image = {_key(subject, value) for value in image} - {""}
    from_certificate = {_key(subject, value) for value in stated}
    silent = Comparison(
        subject,
        MatchResult.IMAGE_SILENT,
        image=printable(" | ".join(image)),
        certificate=printable(" | ".join(stated)),
    )
    if not from_image:
        return silent
    if not from_certificate - {""}:
        return replace(silent, result=MatchResult.CERTIFICATE_SILENT)
    if not from_image & from_certificate:
        unequal = MatchResult.CERTIFICATE_SILENT if subject == PERMANENT else MatchResult.MISMATCH
        return replace(silent, result=unequal)
    if len(from_certificate) > 1:
        return replace(silent, result=MatchResult.CERTIFICATE_SILENT)
    return replace(silent, result=MatchResult.MATCH) if covered and len(from_image) == 1 else silent


def _key(subject: str, value: str) -> str:
    """What of a value is compared; empty where nothing can be."""
    if subject == "udi":
        return _udi_key(value)
    if "\N{REPLACEMENT CHARACTER}" in value:
        return ""  # characters that could not be decoded
    return value.strip() if subject == "device-uid" else _normalized(value)


def _udi_key(value: str) -> str:
    """Trade item and serial number of a GS1 identifier, printed or as a Digital Link; empty where it has not both."""
    if linked := _LINKED_UDI.fullmatch(value):
        return f"{linked[1]} {unquote(linked[2])}"
    printed = _PRINTED_UDI.fullmatch(value)
    serials = _PRINTED_SERIAL.findall(printed[2]) if printed else []
    return f"{printed[1]} {serials[0]}" if printed and len(serials) == 1 else ""


def _settle_organization(matches: dict[str, Comparison]) -> None:
    """O names the manufacturer or the owner: it differs only where it is neither, and both are known."""
    pair = ("manufacturer", "owner")
    results = [matches[subject].result for subject in pair]
    if results == [MatchResult.MISMATCH] * 2:
        return
    for subject in pair:
        if matches[subject].result is MatchResult.MISMATCH:
            matches[subject] = replace(matches[subject], result=MatchResult.CERTIFICATE_SILENT)


def _level(names: _Names, matches: dict[str, Comparison]) -> IdentityLevel:
    """How closely the certificate names the signer. That O is the owner, only the image can tell."""
    maker, owner = (matches[subject].result is MatchResult.MATCH for subject in ("manufacturer", "owner"))
    owned = owner and not maker
    if names.name_one_device:
        return IdentityLevel.DEVICE_AND_OWNER if owned else IdentityLevel.DEVICE
    if owned:
        return IdentityLevel.SITE
    return IdentityLevel.VENDOR if any(names.of("manufacturer")) else IdentityLevel.NONE


def _ambiguities(names: _Names) -> Iterator[Finding]:
    for subject, values in names.values.items():
        if len(values) > 1 and subject != "manufacturer":  # the same values as of the owner
            what = f"The certificate names the {subject} {len(values)} times, differently: none of them counts."
            yield Finding("identity-ambiguous", what, Outcome.FLAGGED)


def _devices_of(equipment: Equipment) -> Iterator[Finding]:
    """That an image names several devices, so that each of their signers would fit."""
    keys = {_udi_key(value) for value in equipment.udi} - {""}
    if len(keys) > 1:
        what = f"The image names {len(keys)} devices by {tag_name(UDI_SEQUENCE)}: none of them counts."
        yield Finding("identity-ambiguous", what, Outcome.FLAGGED)


def _not_covered(names: _Names, equipment: Equipment, covered_tags: frozenset[int]) -> Iterator[Finding]:
    tags = {
        tag
        for subject, tag in _ATTRIBUTES.items()
        if tag not in covered_tags and any(names.of(subject)) and _image_values(subject, equipment)
    }
    if tags:
        listed = ", ".join(map(tag_name, sorted(tags)))
        what = f"The signature does not cover {listed}: anybody can have written what the image says there."
        yield Finding("identity-not-covered", what, Outcome.FLAGGED)


def _conclusions(matches: dict[str, Comparison], level: IdentityLevel) -> Iterator[Finding]:
    differing = [match for match in matches.values() if match.result is MatchResult.MISMATCH]
    for match in differing:
        said = f"The image says {match.subject} {match.image!r}, the certificate {match.certificate!r}"
        if match.subject in NAME_ONE_DEVICE:
            yield Finding("identity-mismatch", f"{said}: another device signed it.")
        else:
            yield Finding("identity-differs", f"{said}.", Outcome.FLAGGED)
    compared = {match.subject for match in matches.values() if match.result in _COMPARED}
    if level in (IdentityLevel.DEVICE, IdentityLevel.DEVICE_AND_OWNER):
        compared &= NAME_ONE_DEVICE
    if not compared:
        what = (
            "Nothing that the certificate names the signer by is said in the image as well, so it cannot be compared."
        )
        yield Finding("identity-silent", what, Outcome.FLAGGED)


def _unreadable(what: str) -> Finding:
    return Finding("identity-unreadable", what, Outcome.INDETERMINATE)
