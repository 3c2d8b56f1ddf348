"""What a verification found: frozen facts, each with its reasons. What follows from them is the policy's to say.

Six facts stand beside each other for every signature, and none stands for another: an image may be exactly as it was
signed (integrity) by somebody whom nobody knows (chain), or signed by the right scanner with the pixels left out
(coverage).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from cryptography import x509

from enroll.certificates import name_text
from enroll.revocation.lists import Revocation


class Outcome(StrEnum):
    """What a fact, or a single finding, comes to. In order of weight, the heaviest first."""

    FAILED = "failed"
    INDETERMINATE = "indeterminate"
    FLAGGED = "flagged"
    PASSED = "passed"


@dataclass(frozen=True)
class Finding:
    """Something that was noticed.

    Args:
        code: Stable name, for programs and for docs/findings.md.
        what: For people: what was found, with tag and clause.
        outcome: How much it weighs; never PASSED.
    """

    code: str
    what: str
    outcome: Outcome = Outcome.FAILED


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One of the six; what is not listed as a finding is as it should be.

    Args:
        findings: Everything that was noticed, the heaviest need not come first.
    """

    findings: tuple[Finding, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """The heaviest finding decides."""
        if not self.findings:
            return Outcome.PASSED
        weights = {finding.outcome for finding in self.findings}
        return next(outcome for outcome in Outcome if outcome in weights)


@dataclass(frozen=True, kw_only=True)
class Integrity(Fact):
    """Whether the covered bytes are those that were signed, and the signature is well-formed."""


@dataclass(frozen=True, kw_only=True)
class Coverage(Fact):
    """What the signature covers, and exactly what it does not.

    Args:
        covered: Data Elements Signed, in order.
        missing: Tags that are there and that the expected profile demands, but that are not covered.
        excluded: Tags that are there and not covered, and that the profile leaves out on purpose.
        unsignable: Tags that no signature can cover, because they are or hold an element of unknown VR.
    """

    covered: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()
    excluded: tuple[int, ...] = ()
    unsignable: tuple[int, ...] = ()


class Grade(StrEnum):
    """What an algorithm is good for."""

    CURRENT = "current"
    ANTIQUE = "antique"  # proves something only if it is known to be old
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Algorithms(Fact):
    """What the signature was made with.

    Args:
        mac: MAC Algorithm (0400,0015) as written, such as SHA256.
        key: The kind of key, such as RSA-3072 or ECDSA-P256; empty if there is no certificate.
        grade: The worst of both.
    """

    mac: str = ""
    key: str = ""
    grade: Grade = Grade.UNKNOWN


@dataclass(frozen=True)
class KeyUsagePeriod:
    """When a key may sign, both ends included, while its certificate may be valid for much longer (RFC 3280 4.2.1.4).

    Args:
        not_before: From when on; None for no such limit.
        not_after: Until when; None for no such limit.
    """

    not_before: datetime | None = None
    not_after: datetime | None = None

    def __str__(self) -> str:
        """For people, such as "from 2026-11-15 12:00 UTC until 2026-11-22 12:00 UTC"."""
        limits = (("from", self.not_before), ("until", self.not_after))
        return " ".join(f"{word} {limit:%Y-%m-%d %H:%M} UTC" for word, limit in limits if limit is not None)


@dataclass(frozen=True, kw_only=True)
class Time(Fact):
    """When it was signed.

    Args:
        claimed: Digital Signature DateTime (0400,0105); the signer's word.
        trusted: When it existed at the latest, by a certified time stamp (0400,0310) that verifies.
        authority_path: The certificate of the time stamp authority first, the anchor last; empty if nothing is proven.
        key_usage_period: When the signer's key might sign, by its certificate; None where that says nothing of it.
    """

    claimed: datetime | None = None
    trusted: datetime | None = None
    authority_path: tuple[x509.Certificate, ...] = field(default=(), repr=False)
    key_usage_period: KeyUsagePeriod | None = None

    @property
    def authority(self) -> str:
        """The subject of the time stamp authority's certificate, RFC 4514; empty if nothing is proven."""
        return name_text(self.authority_path[0].subject) if self.authority_path else ""


@dataclass(frozen=True, kw_only=True)
class Chain(Fact):
    """Whether the signer leads to an anchor and may sign.

    Args:
        path: The signer's certificate first, the anchor last; empty if there is no path.
        revocations: Of certificates of the path, by revocation lists that verify; the earliest first.
    """

    path: tuple[x509.Certificate, ...] = field(default=(), repr=False)
    revocations: tuple[Revocation, ...] = ()


class IdentityLevel(StrEnum):
    """How closely the certificate names the signer, each closer than the one before."""

    NONE = "none"
    VENDOR = "vendor"
    SITE = "site"
    DEVICE = "device"
    DEVICE_AND_OWNER = "device-and-owner"


class MatchResult(StrEnum):
    """How what an image and a certificate say of the same thing compares."""

    MATCH = "match"
    MISMATCH = "mismatch"
    IMAGE_SILENT = "image-silent"
    CERTIFICATE_SILENT = "certificate-silent"


# The subjects of a comparison that name one single device.
NAME_ONE_DEVICE = frozenset(("serial", "hardware-serial", "permanent-identifier", "device-uid", "udi"))


@dataclass(frozen=True)
class Comparison:
    """One comparison of the image with the certificate.

    Args:
        subject: What is compared: "serial", "hardware-serial", "permanent-identifier", "device-uid", "udi",
            "manufacturer", "model", "owner" or "department".
        result: How it compares; both silent counts as IMAGE_SILENT.
        image: What the image says.
        certificate: What the certificate says.
    """

    subject: str
    result: MatchResult
    image: str = ""
    certificate: str = ""


@dataclass(frozen=True, kw_only=True)
class Identity(Fact):
    """Whether the signer is the device that the image names.

    Args:
        level: What the certificate identifies.
        matches: The comparisons.
    """

    level: IdentityLevel = IdentityLevel.NONE
    matches: tuple[Comparison, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """Under which reading a signature that fails does verify.

    Args:
        variant: Stable name of the reading, such as "lossless-recompression" or "dcmtk-buffer".
        what: For people.
        legitimate: Whether the reading restores exactly what was signed; else it only explains the failure.
    """

    variant: str
    what: str
    legitimate: bool


@dataclass(frozen=True, kw_only=True)
class SignatureReport:
    """What is known of one signature.

    Args:
        location: Empty for a signature of the data set; else the sequence item it stands in, such as
            "(0040,A730)[0]".
        mac_id: MAC ID Number; None where it cannot be read.
        uid: Digital Signature UID as written.
        signed_at: Digital Signature DateTime as written.
        purposes: Digital Signature Purpose codes, as "14^ASTM-sigpurpose^Source Signature".
        certificate: The signer's, where there is one.
        diagnosis: Why it does not verify, where a known reason fits.
    """

    location: str = ""
    mac_id: int | None = None
    uid: str = ""
    signed_at: str = ""
    purposes: tuple[str, ...] = ()
    certificate: x509.Certificate | None = field(default=None, repr=False)
    integrity: Integrity
    coverage: Coverage
    algorithms: Algorithms
    time: Time
    chain: Chain
    identity: Identity
    diagnosis: Diagnosis | None = None

    @property
    def facts(self) -> dict[str, Fact]:
        """The six facts by name."""
        return {
            "integrity": self.integrity,
            "coverage": self.coverage,
            "algorithms": self.algorithms,
            "time": self.time,
            "chain": self.chain,
            "identity": self.identity,
        }

    @property
    def signer(self) -> str:
        """The subject of the certificate, RFC 4514."""
        return name_text(self.certificate.subject) if self.certificate else ""

    @property
    def restored(self) -> bool:
        """Whether it is right only once what was signed is restored; as the instance is stored it does not verify."""
        return self.diagnosis is not None and self.diagnosis.legitimate

    @property
    def intact(self) -> bool | None:
        """Whether the covered bytes are those that were signed; None where that cannot be checked."""
        outcome = self.integrity.outcome
        return None if outcome is Outcome.INDETERMINATE else outcome is not Outcome.FAILED


@dataclass(frozen=True)
class Equipment:
    """What an instance says of where it comes from. Proven only as far as a signature covers it.

    All texts as stored, without padding; empty where the instance is silent.
    """

    manufacturer: str = ""
    model: str = ""
    device_serial: str = ""
    device_uid: str = ""
    udi: tuple[str, ...] = ()
    software_versions: tuple[str, ...] = ()
    station: str = ""
    station_ae: str = ""
    institution: str = ""
    department: str = ""
    modality: str = ""


class ContentClass(StrEnum):
    """What kind of content an instance says it holds; several may apply."""

    ORIGINAL = "ORIGINAL"
    DERIVED = "DERIVED"
    SYNTHETIC = "SYNTHETIC"
    PHANTOM = "PHANTOM"
    TEST = "TEST"  # quality control, service, training, research


@dataclass(frozen=True)
class Claim:
    """A marker that says why, or from what, an image was made.

    Args:
        tag: The attribute.
        value: Its value, as text.
        meaning: One of `agent.dicom.claims.Meaning`.
        covered: Whether an intact signature of the data set covers it, whoever made that.
        sequence: The sequence of the data set in whose items it stands; None if it stands in the data set itself.
    """

    tag: int
    value: str
    meaning: str
    covered: bool
    sequence: int | None = None

    @property
    def attribute(self) -> int:
        """The attribute of the data set that a signature has to cover: its tag, or the whole sequence it stands in."""
        return self.tag if self.sequence is None else self.sequence


@dataclass(frozen=True)
class SourceReference:
    """An instance that this one says it was made from.

    Args:
        sop_instance_uid: Referenced SOP Instance UID.
        sop_class_uid: Referenced SOP Class UID.
        attribute: The sequence that names it, such as Source Image Sequence (0008,2112).
        mac: The MAC of the source (0400,0404) that is stated with the reference, if any.
        mac_algorithm: MAC Algorithm (0400,0015) of that reference.
        covered: Whether an intact signature of the data set covers the reference, whoever made that.
    """

    sop_instance_uid: str
    sop_class_uid: str
    attribute: int
    covered: bool
    mac: bytes = field(default=b"", repr=False)
    mac_algorithm: str = ""


@dataclass(frozen=True, kw_only=True)
class InstanceReport:
    """What is known of an instance.

    Args:
        sop_class_uid: SOP Class UID.
        sop_instance_uid: SOP Instance UID.
        transfer_syntax: The UID of how it is stored.
        signatures: One report for each signature of the data set, in order.
        nested: The same for the signatures of sequence items.
        equipment: Where it says it comes from.
        content: The kinds of content it says it holds.
        claims: The markers behind that.
        sources: What it says it was made from.
        findings: What concerns the instance and no single signature, such as file meta information that contradicts
            the data set.
    """

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    transfer_syntax: str = ""
    signatures: tuple[SignatureReport, ...] = ()
    nested: tuple[SignatureReport, ...] = ()
    equipment: Equipment = field(default_factory=Equipment)
    content: frozenset[ContentClass] = frozenset()
    claims: tuple[Claim, ...] = ()
    sources: tuple[SourceReference, ...] = ()
    findings: tuple[Finding, ...] = ()
