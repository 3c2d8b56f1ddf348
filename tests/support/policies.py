"""A hospital for tests of policies: its authorities, reports on what its scanners sent, and its policy files."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.dicom.claims import QUALITY_CONTROL_IMAGE, QUALITY_CONTROL_SUBJECT
from agent.dicom.content import IMAGE_TYPE, SYNTHETIC_DATA
from agent.dicom.elements import DEVICE_SERIAL_NUMBER, PIXEL_DATA
from agent.dicom.report import (
    Algorithms,
    Chain,
    Claim,
    Comparison,
    ContentClass,
    Coverage,
    Equipment,
    Finding,
    Grade,
    Identity,
    IdentityLevel,
    InstanceReport,
    Integrity,
    MatchResult,
    Outcome,
    SignatureReport,
    Time,
)
from agent.policy.evaluate import evaluate
from agent.policy.judgement import Judgement, Receipt
from agent.policy.model import MatchKey, Policy
from agent.policy.parse import parse_policy
from enroll.revocation.lists import Revocation
from tests.support.pki import HospitalCa, name, new_key

ROOT: Final = Path(__file__).parents[2]
GUIDE: Final = ROOT / "docs/policy.md"

OWNER_CA: Final = HospitalCa("Owner CA")
VENDOR_WIDE_CA: Final = HospitalCa("Vendor-wide CA")
VENDOR_DEVICE_CA: Final = HospitalCa("Vendor device CA")
SITE_CA: Final = HospitalCa("Site CA")
SOFTWARE_CA: Final = HospitalCa("Software CA")
FOREIGN_CA: Final = HospitalCa("Foreign CA")
TIME_CA: Final = HospitalCa("Time CA")

# What the two kinds of instance come from.
CT1: Final = Equipment(manufacturer="ACME", model="CT-9000", device_serial="SN123", modality="CT")
US_OLD: Final = Equipment(manufacturer="Elder", station_ae="US_OLD", modality="US")
MAMMOGRAPH: Final = Equipment(manufacturer="ACME", model="MG-1", device_serial="MG7", modality="MG")

# The attributes that entries are matched by (docs/policy.md); creator-plus leaves out Station AE Title.
ATTRIBUTES: Final[Mapping[MatchKey, int]] = {
    MatchKey.DEVICE_UID: 0x00181002,
    MatchKey.UDI: 0x0018100A,
    MatchKey.SERIAL: DEVICE_SERIAL_NUMBER,
    MatchKey.AE: 0x00080055,
    MatchKey.STATION: 0x00081010,
    MatchKey.MODEL: 0x00081090,
    MatchKey.SOFTWARE_VERSION: 0x00181020,
    MatchKey.MANUFACTURER: 0x00080070,
    MatchKey.MODALITY: 0x00080060,
    MatchKey.SOP_CLASS: 0x00080016,
    MatchKey.INSTITUTION: 0x00080080,
    MatchKey.DEPARTMENT: 0x00081040,
}
COVERED: Final = (
    *(IMAGE_TYPE, SYNTHETIC_DATA, QUALITY_CONTROL_IMAGE, PIXEL_DATA),
    *(tag for key, tag in ATTRIBUTES.items() if key is not MatchKey.AE),
)

MARKERS: Final[Mapping[ContentClass, Claim]] = {
    ContentClass.ORIGINAL: Claim(IMAGE_TYPE, "ORIGINAL", "original", covered=True),
    ContentClass.DERIVED: Claim(IMAGE_TYPE, "DERIVED", "derived", covered=True),
    ContentClass.SYNTHETIC: Claim(SYNTHETIC_DATA, "YES", "synthetic", covered=True),
    ContentClass.PHANTOM: Claim(QUALITY_CONTROL_SUBJECT, "YES", "phantom", covered=True),
    ContentClass.TEST: Claim(QUALITY_CONTROL_IMAGE, "YES", "quality-control", covered=True),
}


def day(text: str) -> dt.datetime:
    """Noon of a day, such as "2027-01-05", an hour ahead of UTC."""
    return dt.datetime.fromisoformat(f"{text}T12:00:00+01:00")


def sha256(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


@cache
def certificate(ca: HospitalCa, serial: str, end: int = 2040) -> x509.Certificate:
    """That of the device with a serial number, valid until the year `end`; each certificate has a key of its own."""
    subject = name(COMMON_NAME=f"Scanner {serial}", SERIAL_NUMBER=serial) if serial else name(COMMON_NAME="Vendor key")
    begin, over = (dt.datetime(year, 1, 1, tzinfo=dt.UTC) for year in (2000, end))
    return ca.issue(new_key().public_key(), subject=subject, begin=begin, end=over)


@dataclass(frozen=True, kw_only=True)
class Signed:
    """What a test wants a signature to be; the defaults are those of CT1's own, with nothing wrong."""

    ca: HospitalCa = OWNER_CA
    serial: str = "SN123"
    owner: str = "St Elsewhere"
    mac: str = "SHA256"
    key: str = "RSA-3072"
    integrity: Outcome = Outcome.PASSED
    covered: tuple[int, ...] = COVERED
    missing: tuple[int, ...] = ()
    claimed: str = ""
    certified: str = ""
    trusted: bool = True
    revoked: str = ""
    why_revoked: str = ""
    doubts: tuple[str, ...] = ()  # what is found of the chain
    clock: Outcome = Outcome.PASSED

    def report(self, equipment: Equipment) -> SignatureReport:
        """The report on such a signature of an instance of some equipment."""
        leaf = certificate(self.ca, self.serial)
        return SignatureReport(
            uid="1.2.3",
            certificate=leaf,
            integrity=Integrity(findings=_findings("signature-wrong", self.integrity)),
            coverage=Coverage(covered=self.covered, missing=self.missing),
            algorithms=Algorithms(mac=self.mac, key=self.key, grade=Grade.CURRENT),
            time=Time(
                findings=_findings("time-in-future", self.clock),
                claimed=day(self.claimed) if self.claimed else None,
                trusted=day(self.certified) if self.certified else None,
                authority_path=(certificate(TIME_CA, ""), TIME_CA.certificate) if self.certified else (),
            ),
            chain=Chain(
                findings=tuple(Finding(code, code, Outcome.INDETERMINATE) for code in self.doubts),
                path=(leaf, self.ca.certificate) if self.trusted else (),
                revocations=(Revocation(day(self.revoked), self.why_revoked),) if self.revoked else (),
            ),
            identity=_identity(self.serial, self.owner, equipment),
        )


def _findings(code: str, outcome: Outcome) -> tuple[Finding, ...]:
    return () if outcome is Outcome.PASSED else (Finding(code, code, outcome),)


def _identity(serial: str, owner: str, equipment: Equipment) -> Identity:
    if not serial:
        return Identity(level=IdentityLevel.VENDOR, matches=_matches(equipment, ("manufacturer", "ACME")))
    matches = _matches(equipment, ("serial", serial), ("model", equipment.model), ("owner", owner))
    wrong = matches[0].result is MatchResult.MISMATCH
    level = IdentityLevel.DEVICE_AND_OWNER if owner else IdentityLevel.DEVICE
    return Identity(
        findings=_findings("identity-mismatch", Outcome.FAILED if wrong else Outcome.PASSED),
        level=level,
        matches=matches,
    )


def _matches(equipment: Equipment, *stated: tuple[str, str]) -> tuple[Comparison, ...]:
    images = {"serial": equipment.device_serial, "model": equipment.model, "owner": "St Elsewhere"}
    images["manufacturer"] = equipment.manufacturer
    return tuple(
        Comparison(subject, _compared(images[subject], text), images[subject], text) for subject, text in stated
    )


def _compared(image: str, stated: str) -> MatchResult:
    if not image or not stated:
        return MatchResult.CERTIFICATE_SILENT if image else MatchResult.IMAGE_SILENT
    return MatchResult.MATCH if image == stated else MatchResult.MISMATCH


def instance(
    *signatures: Signed, equipment: Equipment = CT1, content: Iterable[ContentClass] = (), **changes: Any
) -> InstanceReport:
    """The report on an instance with these signatures."""
    kinds = frozenset(content)
    return replace(
        InstanceReport(
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            sop_instance_uid="1.2.3.4",
            signatures=tuple(signature.report(equipment) for signature in signatures),
            equipment=equipment,
            content=kinds,
            claims=tuple(MARKERS[kind] for kind in ContentClass if kind in kinds),
        ),
        **changes,
    )


def example() -> str:
    """The example of the guide for archive owners, as it stands there."""
    found = re.search(r"```toml\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def with_authorities(text: str) -> str:
    """The example with the authorities of this hospital, and with the key of CT1 as the one that leaks."""
    return (
        text.replace("1" * 64, sha256(OWNER_CA.certificate))
        .replace("2" * 64, sha256(VENDOR_WIDE_CA.certificate))
        .replace("3" * 64, sha256(TIME_CA.certificate))
        .replace("4" * 64, key_sha256(certificate(OWNER_CA, "SN123")))
        .replace("5" * 64, sha256(certificate(OWNER_CA, "MR2")))
    )


def key_sha256(leaf: x509.Certificate) -> str:
    """SHA-256 of the DER SubjectPublicKeyInfo."""
    return hashlib.sha256(leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def policy(*entries: str, mode: str = "enforce", no_match: str = "report") -> Policy:
    """A policy of this hospital with these entries, in TOML."""
    return parse_policy(policy_text(*entries, mode=mode, no_match=no_match), "policy.toml")


def policy_text(*entries: str, mode: str = "enforce", no_match: str = "report") -> str:
    """The text of `policy`."""
    anchors = (
        anchor("owner-ca", "owner-ca", OWNER_CA.certificate, "device"),
        anchor("vendor-wide", "vendor-wide", VENDOR_WIDE_CA.certificate, "vendor"),
        anchor("vendor-ca", "vendor-device-ca", VENDOR_DEVICE_CA.certificate, "device"),
        anchor("site-ca", "framework", SITE_CA.certificate, "site"),
        anchor("software-ca", "software-ca", SOFTWARE_CA.certificate, "software"),
        anchor("time-ca", "tsa", TIME_CA.certificate),
    )
    return "\n".join([head(mode, no_match, "+01:00"), *anchors, *entries])


def head(mode: str = "enforce", no_match: str = "report", timezone: str = "+00:00") -> str:
    """How a policy begins."""
    return f"""
schema = "dicom-signing-policy/1"
[policy]
id = "test"
layer = "local"
issuer = "Test"
serial = 7
issued = 2026-01-01T00:00:00Z
expires = 2099-01-01T00:00:00Z
mode = "{mode}"
no_match = "{no_match}"
timezone = "{timezone}"
"""


def anchor(title: str, kind: str, ca: x509.Certificate, identifies: str = "") -> str:
    """An `[[anchor]]`; what it `identifies` may be left out for a time stamp authority."""
    table = f'[[anchor]]\nid = "{title}"\nkind = "{kind}"\nsha256 = "{sha256(ca)}"\n'
    return f'{table}identifies = "{identifies}"\n' if identifies else table


CT1_ENTRY: Final = """
[[device]]
id = "ct1"
match = { manufacturer = "ACME", serial = "SN123" }
signer = { anchor = "owner-ca", serial_number = "SN123" }
expect = "signed"
from = 2026-12-01
grace_days = 14
"""


@dataclass(frozen=True)
class Case:
    """What is judged by a policy."""

    report: InstanceReport
    receipt: Receipt
    now: dt.datetime
    sources_verified: bool | None = None


def judge(
    rules: Policy | None,
    report: InstanceReport,
    received: str = "2027-01-05",
    *,
    now: str = "",
    sources_verified: bool | None = None,
    known_since: str = "",
    sending_ae: str = "",
    first_seen_signed: bool = False,
) -> Judgement:
    """Evaluate on the day of receipt, or on that of `now`."""
    receipt = Receipt(day(received), sending_ae, first_seen_signed, day(known_since) if known_since else None)
    return evaluate(report, receipt, rules, day(now or received), sources_verified=sources_verified)


def as_json(value: Any) -> Any:
    """The canonical JSON spelling of what `tomllib` read: dates as strings, lists where a single text may stand."""
    if isinstance(value, dict):
        spelled = {key: as_json(item) for key, item in value.items()}
        lists = {"anchor", *MatchKey} if "id" not in value else {"names"}
        return {key: [item] if key in lists and isinstance(item, str) else item for key, item in spelled.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return value.isoformat() if isinstance(value, dt.date) else value
