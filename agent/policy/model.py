"""What a policy says, as frozen data. One `Policy` is one file: one layer of what applies to a recipient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, tzinfo
from enum import StrEnum

from agent.policy.verdicts import Action, Mode, Verdict

SCHEMA = "dicom-signing-policy/1"


class Layer(StrEnum):
    """Who speaks. The lowest layer first."""

    LOCAL = "local"
    REGIONAL = "regional"
    NATIONAL = "national"


class AnchorKind(StrEnum):
    """What an anchor is."""

    OWNER_CA = "owner-ca"
    VENDOR_DEVICE_CA = "vendor-device-ca"
    VENDOR_WIDE = "vendor-wide"
    FDO_OWNER = "fdo-owner"
    FRAMEWORK = "framework"
    SOFTWARE_CA = "software-ca"
    TIME_STAMP_AUTHORITY = "tsa"


class Identifies(StrEnum):
    """What the certificates below an anchor identify at most."""

    DEVICE = "device"
    SITE = "site"
    VENDOR = "vendor"
    SOFTWARE = "software"


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """`[[anchor]]`: a CA that this recipient trusts.

    Args:
        id: Its name in this policy.
        kind: What it is.
        identifies: What its certificates identify; None for a time stamp authority.
        sha256: SHA-256 of the DER certificate, in lower-case hexadecimal digits.
        policy_oids: Every certificate below it must assert one of these, if there are any.
    """

    id: str
    kind: AnchorKind
    identifies: Identifies | None
    sha256: str
    policy_oids: tuple[str, ...] = ()


class MatchKey(StrEnum):
    """What an entry can be matched by. In order of weight, the heaviest first."""

    DEVICE_UID = "device_uid"
    UDI = "udi"
    SERIAL = "serial"
    AE = "ae"
    SENDING_AE = "sending_ae"
    STATION = "station"
    MODEL = "model"
    SOFTWARE_VERSION = "software_version"
    MANUFACTURER = "manufacturer"
    MODALITY = "modality"
    SOP_CLASS = "sop_class"
    INSTITUTION = "institution"
    DEPARTMENT = "department"
    CONTENT = "content"

    @property
    def weight(self) -> int:
        """A power of two of its own, so that a sum of weights names the set of keys."""
        keys = list(MatchKey)
        return 1 << (len(keys) - 1 - keys.index(self))


@dataclass(frozen=True)
class Match:
    """`match`: which instances an entry speaks of: those that have one of the values for each key.

    Args:
        values: The values by key, the heaviest key first; none matches every instance.
    """

    values: tuple[tuple[MatchKey, frozenset[str]], ...] = ()

    @property
    def keys(self) -> tuple[MatchKey, ...]:
        """The keys, the heaviest first."""
        return tuple(key for key, _ in self.values)

    @property
    def weight(self) -> int:
        """How specific it is."""
        return sum(key.weight for key in self.keys)


@dataclass(frozen=True)
class Period:
    """The days on which an entry applies, in the policy's time zone.

    Args:
        first: The first day; None if it always applied.
        last: The last day; None if it has no end.
    """

    first: date | None = None
    last: date | None = None

    def begun(self, day: date) -> bool:
        """Whether the first day has come."""
        return self.first is None or self.first <= day

    def ended(self, day: date) -> bool:
        """Whether the last day is over."""
        return self.last is not None and self.last < day

    def __contains__(self, day: date) -> bool:
        return self.begun(day) and not self.ended(day)


class Expect(StrEnum):
    """What an entry expects of an instance. In order of strictness, the mildest first."""

    UNSIGNED = "unsigned"  # an exemption: it needs an end and a reason
    ANY = "any"
    SIGNED = "signed"
    SIGNED_WITH_SOURCES = "signed-with-sources"


class Named(StrEnum):
    """What a signer's certificate can be required to name, in the words of `agent.dicom.report.Comparison`."""

    MANUFACTURER = "manufacturer"
    MODEL = "model"
    SERIAL = "serial"
    DEVICE_UID = "device-uid"
    UDI = "udi"
    OWNER = "owner"
    DEPARTMENT = "department"


@dataclass(frozen=True, kw_only=True)
class ExpectedSigner:
    """`signer`: who signs for a device.

    Args:
        anchors: Ids of the anchors that the certificate may lead to; any if there are none.
        serial_number: The serialNumber attribute of the certificate's subject; any if empty.
        require: What the certificate must name.
    """

    anchors: frozenset[str] = frozenset()
    serial_number: str = ""
    require: frozenset[Named] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Entry:
    """`[[device]]` or `[[rule]]`: what is expected of the instances that match.

    Args:
        id: Its name in this policy.
        is_device: Whether it names a device, which then counts as listed, or is a general rule.
        match: Which instances it speaks of.
        expect: What it expects of them.
        period: When.
        grace_days: How many days from the first on a missing signature is only counted.
        mode: What follows from a breach.
        reason: Why, where it is an exemption.
        on: Actions instead of the default ones, in the mode enforce.
        signer: Who signs for the device.
    """

    id: str
    is_device: bool
    match: Match
    expect: Expect
    period: Period = Period()
    grace_days: int = 0
    mode: Mode = Mode.REPORT
    reason: str = ""
    on: Mapping[Verdict, Action] = field(default_factory=dict)
    signer: ExpectedSigner = ExpectedSigner()

    @property
    def expects_signature(self) -> bool:
        """Whether a signature must be there."""
        return self.expect in {Expect.SIGNED, Expect.SIGNED_WITH_SOURCES}


class AlgorithmUse(StrEnum):
    """What an algorithm is used for."""

    MAC = "mac"  # MAC Algorithm (0400,0015)
    KEY = "key"  # the signer's key
    CERTIFICATE = "cert"  # the hash under the signatures of the certificates


class AlgorithmStatus(StrEnum):
    """What a verifier makes of an algorithm."""

    CURRENT = "current"
    DEPRECATED = "deprecated"
    ANTIQUE = "antique"
    FORBIDDEN = "forbidden"


@dataclass(frozen=True, kw_only=True)
class AlgorithmRule:
    """`[[algorithm]]`: what signatures with some algorithms are worth.

    Args:
        use: What they are used for.
        names: Their names.
        status: What a verifier makes of them.
        sign_until: The last day on which a signer may use them; None if there is no end. For signers only.
        proof_before: Before this day they proved something; None if they still do.
    """

    use: AlgorithmUse
    names: frozenset[str]
    status: AlgorithmStatus
    sign_until: date | None = None
    proof_before: date | None = None


class CompromiseKind(StrEnum):
    """Why a key or certificate must not be relied on any more."""

    KEY_COMPROMISE = "key-compromise"
    CA_COMPROMISE = "ca-compromise"
    SUPERSEDED = "superseded"
    SOLD = "sold"
    DECOMMISSIONED = "decommissioned"


@dataclass(frozen=True, kw_only=True)
class Compromise:
    """`[[compromise]]`: a key or certificate that must not be relied on from some time on.

    Args:
        id: Its name in this policy.
        kind: Why.
        since: From when on, aware.
        key_sha256: SHA-256 of the DER SubjectPublicKeyInfo; empty if a certificate is meant.
        cert_sha256: SHA-256 of the DER certificate; empty if a key is meant.
    """

    id: str
    kind: CompromiseKind
    since: datetime
    key_sha256: str = ""
    cert_sha256: str = ""

    @property
    def by_others(self) -> bool:
        """Whether others can sign with the key or issue certificates: then only proof of an earlier time helps."""
        return self.kind in {CompromiseKind.KEY_COMPROMISE, CompromiseKind.CA_COMPROMISE}


@dataclass(frozen=True, kw_only=True)
class Migration:
    """`[[migration]]`: instances of before that come in now, of which no signature is expected.

    Args:
        id: Its name in this policy.
        match: Which instances; among the keys is the sending AE, which the recipient observes itself.
        received: In which window.
    """

    id: str
    match: Match
    received: Period


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One file.

    Args:
        id: Its name.
        layer: Who speaks.
        issuer: The same for people.
        serial: Grows with every version; nothing here remembers the last one.
        issued: When it was made, aware.
        expires: After this it is stale, aware.
        mode: What entries without a mode of their own have, and what applies where none speaks.
        no_match: What follows for an unsigned instance that no entry speaks of.
        timezone: How dates without a time are read.
        report_to: Where reports go.
        anchors: Who is trusted.
        entries: What is expected of whom.
        algorithms: What signatures are worth; the built-in rules for each use that the file is silent about.
        compromises: What must not be relied on.
        migrations: What comes in from before.
    """

    id: str
    layer: Layer
    issuer: str
    serial: int
    issued: datetime
    expires: datetime
    mode: Mode = Mode.REPORT
    no_match: Mode = Mode.REPORT
    timezone: tzinfo = UTC
    report_to: tuple[str, ...] = ()
    anchors: tuple[Anchor, ...] = ()
    entries: tuple[Entry, ...] = ()
    algorithms: tuple[AlgorithmRule, ...]
    compromises: tuple[Compromise, ...] = ()
    migrations: tuple[Migration, ...] = ()

    def day(self, moment: datetime) -> date:
        """The day of a moment, in the policy's time zone."""
        return moment.astimezone(self.timezone).date()

    def begin(self, day: date) -> datetime:
        """The moment in which a day begins, in the policy's time zone."""
        return datetime.combine(day, time(), self.timezone)
