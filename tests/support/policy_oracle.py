"""A second opinion on the transition policy, for a single local layer.

Written from the rules of the format dicom-signing-policy/1 alone and sharing nothing with the product: it reads the
TOML itself, asks every entry about every instance and collects every verdict that can be said. Nothing here is clever
enough to be wrong as a fast evaluator may be. The files must be valid; what a loader refuses is not its business.

    opinion = PolicyOracle(text).judge(report, receipt, now)

The comments say which requirement (P1 to P15), which property (a to f) or which step of the format's rules they follow:
1 integrity, 2 coverage, 3 algorithms, 4 chain, 5 identity, 6 content class, 7 expectation, 8 action.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cache
from hashlib import sha256
from typing import Any, Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from agent.dicom.report import (
    Claim,
    ContentClass,
    Fact,
    IdentityLevel,
    InstanceReport,
    MatchResult,
    Outcome,
    SignatureReport,
    Time,
)
from agent.policy.judgement import Receipt

Table: TypeAlias = Mapping[str, Any]
Observed: TypeAlias = Mapping[str, frozenset[str]]
Saying: TypeAlias = tuple[str, str]  # a verdict, and the id of the entry that it names, if it names one

# The table of verdicts, in its order: the action in the modes report, warn and enforce, and the exit code.
VERDICTS: Final[dict[str, tuple[str, str, str, int]]] = {
    "BROKEN": ("flag", "flag", "quarantine", 1),
    "KEY_COMPROMISED": ("flag", "flag", "quarantine", 5),
    "REVOKED": ("flag", "flag", "quarantine", 5),
    "ALGORITHM_FORBIDDEN": ("flag", "flag", "quarantine", 5),
    "ANTIQUE_UNPROVEN": ("flag", "flag", "quarantine", 5),
    "UNSIGNED_VIOLATION": ("flag", "flag", "quarantine", 2),
    "VALID_WRONG_SIGNER": ("flag", "flag", "quarantine", 3),
    "VALID_UNKNOWN_SIGNER": ("flag", "flag", "quarantine", 3),
    "INDETERMINATE": ("flag", "flag", "flag", 7),
    "DERIVED_UNVERIFIED_SOURCE": ("flag", "flag", "flag", 6),
    "SYNTHETIC_UNVERIFIED": ("flag", "flag", "flag", 6),
    "VALID_NO_TRUSTED_TIME": ("flag", "flag", "flag", 3),
    "VALID_PARTIAL_COVERAGE": ("flag", "flag", "flag", 3),
    "VALID_VENDOR_ONLY": ("accept", "flag", "flag", 3),
    "VALID_UNLISTED_DEVICE": ("accept", "flag", "flag", 3),
    "ANTIQUE_PROVEN": ("accept", "flag", "flag", 3),
    "UNSIGNED_IN_GRACE": ("accept", "accept", "accept", 4),
    "UNSIGNED_NOT_YET_EXPECTED": ("accept", "accept", "accept", 4),
    "UNSIGNED_EXEMPT": ("accept", "accept", "accept", 4),
    "UNSIGNED_NOT_COVERED": ("accept", "accept", "accept", 4),
    "DERIVED_VERIFIED_SOURCES": ("accept", "accept", "accept", 0),
    "VALID_EXPECTED_SIGNER": ("accept", "accept", "accept", 0),
}
ORDER: Final = list(VERDICTS)
CONTENT_VERDICTS: Final = frozenset({"DERIVED_UNVERIFIED_SOURCE", "SYNTHETIC_UNVERIFIED", "DERIVED_VERIFIED_SOURCES"})
# With one of these a signature proves nothing, or not what it should: the instance has no signature of its own.
WORTHLESS: Final = frozenset(ORDER[: ORDER.index("INDETERMINATE")])
MODES: Final = ["report", "warn", "enforce"]
ACTIONS: Final = ["accept", "flag", "quarantine", "refuse"]
NO_MATCH: Final = {"report": "accept", "warn": "flag", "enforce": "quarantine"}
LEVELS: Final = list(IdentityLevel)
NOT_CLINICAL: Final = frozenset({"phantom", "quality-control", "service", "research", "training"})
# From the most specific to the least: each key counts more than all behind it together.
MATCH_KEYS: Final = [
    *("device_uid", "udi", "serial", "ae", "sending_ae", "station", "model", "software_version", "manufacturer"),
    *("modality", "sop_class", "institution", "department", "content"),
]
# Where an instance says what it is matched by. The sending AE is in no attribute, and of content the markers are meant.
WRITTEN_IN: Final = {
    "device_uid": 0x00181002,
    "udi": 0x0018100A,
    "serial": 0x00181000,
    "ae": 0x00080055,
    "station": 0x00081010,
    "model": 0x00081090,
    "software_version": 0x00181020,
    "manufacturer": 0x00080070,
    "modality": 0x00080060,
    "sop_class": 0x00080016,
    "institution": 0x00080080,
    "department": 0x00081040,
}
NO_SIGNATURE_ASKED: Final = ("any", "unsigned")
PROPOSED_ALGORITHMS: Final = tomllib.loads("""
algorithm = [
  { use = "mac", names = ["MD5", "RIPEMD160"], verify = "antique", proof_before = 2010-01-01 },
  { use = "mac", names = ["SHA1"], verify = "antique", proof_before = 2017-02-23 },
  { use = "mac", names = ["SHA256", "SHA384", "SHA512"], verify = "current" },
  { use = "key", names = ["RSA-SMALL"], verify = "antique", proof_before = 2010-01-01 },
  { use = "key", names = ["RSA-2048"], verify = "deprecated", proof_before = 2035-12-31 },
  { use = "key", names = ["RSA-3072", "RSA-4096"], verify = "current", proof_before = 2035-12-31 },
  { use = "key", names = ["ECDSA-P256", "ECDSA-P384", "ECDSA-P521", "ED25519", "ED448"], verify = "current" },
  { use = "cert", names = ["MD5"], verify = "antique", proof_before = 2010-01-01 },
  { use = "cert", names = ["SHA1"], verify = "antique", proof_before = 2017-02-23 },
  { use = "cert", names = ["SHA256", "SHA384", "SHA512"], verify = "current" },
]
""")["algorithm"]


@dataclass(frozen=True)
class Opinion:
    """What an instance comes to."""

    verdict: str
    action: str
    exit_code: int
    beside: tuple[str, ...]  # the worst first
    rule_ids: frozenset[str]  # the entries that the verdicts themselves name
    stripped: bool  # recorded as signed, and not signed now
    policy_stale: bool
    non_profile: bool  # an intact signature was made with a kind of key other than RSA
    not_clinical: bool  # a good signature covers a marker such as phantom


@dataclass(frozen=True)
class Moment:
    """When a signature is judged."""

    now: datetime
    known_by: datetime  # since when it is known to exist (P8); never what it claims
    trusted: bool  # a time stamp or a record says so, and not only the receipt


class PolicyOracle:
    """Judges instances by one local policy, given in TOML."""

    def __init__(self, text: str) -> None:
        self.tables = tomllib.loads(text)
        self.policy: Table = self.tables["policy"]
        self.zone = datetime.fromisoformat(f"2000-01-01T00:00:00{self.policy.get('timezone', 'Z')}").tzinfo
        self.devices: list[Table] = self.tables.get("device", [])
        self.entries: list[Table] = [*self.devices, *self.tables.get("rule", [])]

    def judge(
        self, report: InstanceReport, receipt: Receipt, now: datetime, *, sources_verified: bool | None = None
    ) -> Opinion:
        """The stricter of two opinions: by what the signatures cover of the instance, and by all that it says."""
        everything = _observed(report, receipt)
        covered = [_observed(report, receipt, frozenset(one.coverage.covered)) for one in report.signatures]
        opinions = [
            self._opinion(report, receipt, now, views, sources=sources_verified)
            for views in (covered, [everything] * len(report.signatures))
        ]
        return min(opinions, key=lambda opinion: (-ACTIONS.index(opinion.action), ORDER.index(opinion.verdict)))

    def _opinion(
        self, report: InstanceReport, receipt: Receipt, now: datetime, views: list[Observed], *, sources: bool | None
    ) -> Opinion:
        """Collect every verdict that can be said; the one with the strictest action is the headline.

        Each signature is judged by its own view of what the instance can be matched by. Of a good one this view counts
        for the instance; where there is none, everything that the instance says does.
        """
        judged = [
            (one, set(self._signature(one, receipt, now, self._listed_device(view, receipt))))
            for one, view in zip(report.signatures, views, strict=True)
        ]
        good = [
            one
            for one, of_one in judged
            if one.intact and one.chain.path and not {verdict for verdict, _ in of_one} & WORTHLESS
        ]
        seen_by_good = [view for one, view in zip(report.signatures, views, strict=True) if one in good]
        observed = next(iter(seen_by_good), _observed(report, receipt))
        applying = self._applying(self.entries, observed, receipt)
        in_force = _most_specific(applying)
        of_content = _most_specific([entry for entry in applying if entry["expect"] not in NO_SIGNATURE_ASKED])
        device = self._listed_device(observed, receipt)
        signed_tags = frozenset(tag for one in good for tag in one.coverage.covered)
        lifted = self._migration(observed, receipt) or _in_grace(of_content, self._day(receipt))
        demanded = of_content.get("expect") == "signed-with-sources" and not lifted
        unsigned = self._unsigned(observed, receipt, in_force)

        sayings = {saying for _, of_one in judged for saying in of_one} if judged else {unsigned}
        sayings |= {(verdict, "") for verdict in _content(report, signed_tags, sources=sources, demanded=demanded)}
        unnamed = any(_unnamed(one, device) for one in report.signatures)
        actions = {verdict: self._action(verdict, in_force, unnamed=unnamed) for verdict in ORDER}
        overridden = set(self._overrides(in_force))
        for verdict in CONTENT_VERDICTS & {"DERIVED_UNVERIFIED_SOURCE", "SYNTHETIC_UNVERIFIED"} if of_content else ():
            demand = self._action(verdict, of_content, unnamed=unnamed)  # what an exemption does not lift
            if ACTIONS.index(demand) > ACTIONS.index(actions[verdict]):
                actions[verdict] = demand
                overridden = overridden - {verdict} | ({verdict} & set(self._overrides(of_content)))
        said = [verdict for verdict in ORDER if verdict in {verdict for verdict, _ in sayings}]
        headline = max(said, key=lambda verdict: ACTIONS.index(actions[verdict]))  # the first of equals
        action = actions[headline]
        if not good and headline not in overridden:
            # What proves nothing is not treated better than nothing: to add a signature is as easy as to strip one.
            action = max(action, actions[unsigned[0]], key=ACTIONS.index)
        return Opinion(
            verdict=headline,
            action=action,
            exit_code=VERDICTS[headline][3],
            beside=tuple(verdict for verdict in said if verdict != headline),
            rule_ids=frozenset(entry for _, entry in sayings if entry),
            stripped=not report.signatures and receipt.first_seen_signed,
            policy_stale=now > self.policy["expires"],  # P13: a mark and nothing else
            non_profile=any(one.intact and not one.algorithms.key.startswith("RSA-") for one in report.signatures),
            not_clinical=any(claim.tag in signed_tags for claim in report.claims if claim.meaning in NOT_CLINICAL),
        )

    # ------------------------------------------------------------------------------------------ steps 1 to 5

    def _signature(self, one: SignatureReport, receipt: Receipt, now: datetime, device: Table) -> Iterator[Saying]:
        if one.integrity.outcome is Outcome.FAILED:  # step 1: this ends the other questions
            yield "BROKEN", ""
            return
        proofs = [proof for proof in (self._stamped(one.time), receipt.known_since) if proof]
        moment = Moment(now, min([*proofs, receipt.received_at, now]), trusted=bool(proofs))
        algorithms = [(verdict, "") for verdict in self._algorithms(one, moment)]
        if one.integrity.outcome is Outcome.INDETERMINATE:  # nor can any be answered here, but for what is forbidden
            yield next((saying for saying in algorithms if saying[0] == "ALGORITHM_FORBIDDEN"), ("INDETERMINATE", ""))
            return
        sayings = [*algorithms, *self._chain(one, moment)]
        sayings += [(verdict, "") for verdict in self._identity(one, device)]
        if one.coverage.outcome is not Outcome.PASSED:  # step 2
            sayings.append(("VALID_PARTIAL_COVERAGE", ""))
        if one.time.outcome is Outcome.FAILED:  # a clock is suspect
            sayings.append(("INDETERMINATE", ""))
        yield from sayings or [("VALID_EXPECTED_SIGNER", "")]

    def _algorithms(self, one: SignatureReport, moment: Moment) -> Iterator[str]:
        """Step 3, P9: what is named in no entry is forbidden."""
        for use, name in _made_with(one):
            written = [entry for entry in self.tables.get("algorithm", []) if entry["use"] == use]
            entries = written or [entry for entry in PROPOSED_ALGORITHMS if entry["use"] == use]
            forbidden: Table = {"verify": "forbidden"}
            entry = next((entry for entry in entries if name in entry["names"]), forbidden)
            end = self._time(entry.get("proof_before", date.max))
            if entry["verify"] == "forbidden":
                yield "ALGORITHM_FORBIDDEN"
            elif entry["verify"] == "antique" or moment.now >= end:
                yield "ANTIQUE_PROVEN" if moment.known_by < end else "ANTIQUE_UNPROVEN"

    def _chain(self, one: SignatureReport, moment: Moment) -> Iterator[Saying]:
        """Step 4, P10: whether the path held when the signature is known to have existed."""
        certificates = [*one.chain.path, *filter(None, [one.certificate])]
        hashes = {hashed for certificate in certificates for hashed in certificate_hashes(certificate).items()}
        ended = "REVOKED" if moment.trusted else "VALID_NO_TRUSTED_TIME"
        for entry in self.tables.get("compromise", []):
            named = any((key, entry.get(key)) in hashes for key in ("key_sha256", "cert_sha256"))
            if named and moment.known_by >= self._time(entry["since"]):
                leaked = entry["kind"] in ("key-compromise", "ca-compromise")
                yield "KEY_COMPROMISED" if leaked else ended, entry["id"]
        for revocation in one.chain.revocations:
            if moment.known_by >= revocation.at:
                yield ("KEY_COMPROMISED" if "ompromise" in revocation.reason else ended), ""
        if "revocation-unknown" in _codes(one.chain):
            yield "INDETERMINATE", ""
        if any(moment.known_by > certificate.not_valid_after_utc for certificate in one.chain.path):
            yield "VALID_NO_TRUSTED_TIME", ""

    def _stamped(self, when: Time) -> datetime | None:
        """The certified time, where the policy trusts the authority for it."""
        anchors = {entry["sha256"] for entry in self.tables.get("anchor", []) if entry["kind"] == "tsa"}
        hashes = [certificate_hashes(certificate) for certificate in when.authority_path]
        if when.trusted is None or not hashes or hashes[-1]["cert_sha256"] not in anchors:
            return None
        for entry in self.tables.get("compromise", []):
            named = any(item in of_one.items() for of_one in hashes for item in entry.items())
            if named and (entry["kind"].endswith("-compromise") or when.trusted >= self._time(entry["since"])):
                return None
        return when.trusted

    def _identity(self, one: SignatureReport, device: Table) -> Iterator[str]:
        """Step 5, P11: the anchor says how far a signer can be known, image and list whether it is the right one."""
        if not one.chain.path:
            yield "INDETERMINATE" if one.chain.outcome is Outcome.INDETERMINATE else "VALID_UNKNOWN_SIGNER"
            return
        root = certificate_hashes(one.chain.path[-1])["cert_sha256"]
        anchors = [entry for entry in self.tables.get("anchor", []) if entry["kind"] != "tsa"]
        anchor = next((entry for entry in anchors if entry["sha256"] == root), None)
        if anchor is None:
            yield "VALID_UNKNOWN_SIGNER"
        elif one.identity.outcome is Outcome.FAILED:
            yield "VALID_WRONG_SIGNER"
        elif min(LEVELS.index(one.identity.level), LEVELS.index(anchor["identifies"])) < LEVELS.index(
            IdentityLevel.DEVICE
        ):
            yield "VALID_VENDOR_ONLY"
        elif device and (_unnamed(one, device) or not _is_signer_of(device, one, anchor)):
            yield "VALID_WRONG_SIGNER"
        elif not device or device["expect"] in NO_SIGNATURE_ASKED or not _is_known_by_its_list(device, one):
            yield "VALID_UNLISTED_DEVICE"

    def _listed_device(self, observed: Observed, receipt: Receipt) -> Table:
        """The entry that names the device; where none applies yet, one that will."""
        coming = [entry for entry in self.devices if entry.get("from", date.min) > self._day(receipt)]
        coming = [entry for entry in coming if _matches(entry, observed)]
        return _most_specific(self._applying(self.devices, observed, receipt) or coming)

    # ------------------------------------------------------------------------------------------------ step 7

    def _applying(self, entries: list[Table], observed: Observed, receipt: Receipt) -> list[Table]:
        """Those that match and apply on the day of receipt (P7), from the first day to the last."""
        day = self._day(receipt)
        return [
            entry
            for entry in entries
            if _matches(entry, observed) and entry.get("from", day) <= day <= entry.get("until", day)
        ]

    def _migration(self, observed: Observed, receipt: Receipt) -> Table:
        """What lifts the expectation for a source and a time; it proves nothing (P9)."""
        migrations: list[Table] = self.tables.get("migration", [])
        for entry in migrations:
            window = entry["received"]
            if _matches(entry, observed) and window["from"] <= self._day(receipt) <= window["until"]:
                return entry
        return {}

    def _unsigned(self, observed: Observed, receipt: Receipt, in_force: Table) -> Saying:
        """What the lack of any signature comes to."""
        day = self._day(receipt)
        if receipt.first_seen_signed:  # (d): to strip a signature that was seen never improves anything
            return "UNSIGNED_VIOLATION", ""
        if migration := self._migration(observed, receipt):
            return "UNSIGNED_EXEMPT", migration["id"]
        if in_force and not in_force["expect"].startswith("signed"):
            return "UNSIGNED_EXEMPT", in_force["id"]
        if in_force:
            return "UNSIGNED_IN_GRACE" if _in_grace(in_force, day) else "UNSIGNED_VIOLATION", in_force["id"]
        expecting = [entry for entry in self.entries if entry["expect"].startswith("signed")]
        if any(_matches(entry, observed) and entry.get("from", day) > day for entry in expecting):
            return "UNSIGNED_NOT_YET_EXPECTED", ""
        return "UNSIGNED_NOT_COVERED", ""

    # ------------------------------------------------------------------------------------------------ step 8

    def _mode(self, in_force: Table) -> str:
        return str(in_force.get("mode", self.policy.get("mode", "report")))

    def _overrides(self, in_force: Table) -> Table:
        return in_force.get("on", {}) if self._mode(in_force) == "enforce" else {}

    def _action(self, verdict: str, in_force: Table, *, unnamed: bool) -> str:
        if verdict == "UNSIGNED_NOT_COVERED":
            return NO_MATCH[self.policy.get("no_match", "report")]
        if verdict in self._overrides(in_force):
            return str(self._overrides(in_force)[verdict])
        mode = self._mode(in_force)
        if mode == "enforce" and verdict == "VALID_VENDOR_ONLY" and unnamed:
            return "quarantine"
        return str(VERDICTS[verdict][MODES.index(mode)])

    def _day(self, receipt: Receipt) -> date:
        return receipt.received_at.astimezone(self.zone).date()

    def _time(self, value: date) -> datetime:
        return value if isinstance(value, datetime) else datetime.combine(value, time(), self.zone)


def _observed(report: InstanceReport, receipt: Receipt, covered: frozenset[int] | None = None) -> Observed:
    """What can be matched (P4), each as the set of all that is said of it, or of what a signature covers of that."""
    said = report.equipment
    kinds = report.content
    if covered is not None:
        kinds = frozenset(kind for kind in kinds if any(claim.tag in covered for claim in _markers(report, kind)))
    values = {
        "device_uid": {said.device_uid},
        "udi": set(said.udi),
        "serial": {said.device_serial},
        "ae": {said.station_ae},
        "station": {said.station},
        "model": {said.model},
        "software_version": set(said.software_versions),
        "manufacturer": {said.manufacturer},
        "modality": {said.modality},
        "sop_class": {report.sop_class_uid},
        "institution": {said.institution},
        "department": {said.department},
    }
    for key, tag in WRITTEN_IN.items():
        if covered is not None and tag not in covered:
            values[key] = set()
    values["ae"].add(receipt.sending_ae)  # what the recipient sees needs no signature
    values |= {"sending_ae": {receipt.sending_ae}, "content": {kind.value for kind in kinds}}
    return {key: frozenset(of_key - {""}) for key, of_key in values.items()}


def _markers(report: InstanceReport, kind: ContentClass) -> list[Claim]:
    """What says that an instance is of some kind of content."""
    meanings = {
        "ORIGINAL": {"original"},
        "DERIVED": {"derived", "artificial-intelligence"},
        "SYNTHETIC": {"synthetic"},
        "PHANTOM": {"phantom"},
        "TEST": NOT_CLINICAL - {"phantom"},
    }
    return [claim for claim in report.claims if claim.meaning in meanings[kind.value]]


def _matches(entry: Table, observed: Observed) -> bool:
    return all(
        observed[key] & ({wanted} if isinstance(wanted, str) else set(wanted)) for key, wanted in entry["match"].items()
    )


def _most_specific(entries: list[Table]) -> Table:
    return max(entries, key=lambda entry: sum(2.0 ** -MATCH_KEYS.index(key) for key in entry["match"]), default={})


def _in_grace(entry: Table, day: date) -> bool:
    begin: date = entry.get("from", date.min)
    return day < begin + timedelta(days=entry.get("grace_days", 0))


def _key_class(key: str) -> str:
    """RSA keys between two named sizes belong to the smaller one, those below 2048 bits are small."""
    bits = int(key.removeprefix("RSA-")) if key.startswith("RSA-") else 0
    return next((f"RSA-{size}" for size in (4096, 3072, 2048) if bits >= size), "RSA-SMALL") if bits else key


def _codes(fact: Fact) -> set[str]:
    return {finding.code for finding in fact.findings}


def _made_with(one: SignatureReport) -> Iterator[tuple[str, str]]:
    """The algorithms of a signature, and those of the path; keys of authorities if one is said to be weak."""
    yield "mac", one.algorithms.mac
    yield "key", _key_class(one.algorithms.key)
    for certificate in one.chain.path[:-1]:
        yield "cert", str(certificate.signature_hash_algorithm and certificate.signature_hash_algorithm.name).upper()
    for authority in one.chain.path[1:] if "chain-weak" in _codes(one.chain) else ():
        key = authority.public_key()
        if isinstance(key, rsa.RSAPublicKey):
            yield "key", _key_class(f"RSA-{key.key_size}")
        elif isinstance(key, ec.EllipticCurvePublicKey):
            yield "key", f"ECDSA-P{key.curve.key_size}"


@cache
def certificate_hashes(certificate: x509.Certificate) -> dict[str, str]:
    """The names of a certificate in a policy."""
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    whole = certificate.public_bytes(Encoding.DER)
    return {"key_sha256": sha256(key).hexdigest(), "cert_sha256": sha256(whole).hexdigest()}


def _is_signer_of(device: Table, one: SignatureReport, anchor: Table) -> bool:
    signer = device.get("signer", {})
    subject = [name.value for name in one.chain.path[0].subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)]
    return signer.get("anchor", anchor["id"]) == anchor["id"] and signer.get("serial_number") in [None, *subject]


def _is_known_by_its_list(device: Table, one: SignatureReport) -> bool:
    """Whether the entry fixes the certificate, or image and certificate share the very value that the entry lists."""
    if "serial_number" in device.get("signer", {}):
        return True
    same = {(match.subject, match.image) for match in one.identity.matches if match.result is MatchResult.MATCH}
    for key, subjects in {
        "serial": ("serial", "hardware-serial", "permanent-identifier"),
        "device_uid": ("device-uid",),
        "udi": ("udi",),
    }.items():
        wanted = device["match"].get(key, [])
        values = [wanted] if isinstance(wanted, str) else wanted
        if any((subject, value) in same for subject in subjects for value in values):
            return True
    return False


def _unnamed(one: SignatureReport, device: Table) -> bool:
    """Whether the certificate fails to name something that the entry of the device requires."""
    named = {match.subject for match in one.identity.matches if match.certificate}
    return not named.issuperset(device.get("signer", {}).get("require", []))


def _content(
    report: InstanceReport, signed_tags: frozenset[int], *, sources: bool | None, demanded: bool
) -> Iterator[str]:
    """Step 6: what is derived or synthetic needs a signature that covers the markers, and sources that hold."""
    unverified = sources is False or (sources is None and demanded)
    kinds = {"DERIVED": "DERIVED_UNVERIFIED_SOURCE", "SYNTHETIC": "SYNTHETIC_UNVERIFIED"}
    kinds = {kind: verdict for kind, verdict in kinds.items() if kind in report.content}
    lacking = set()
    for kind, verdict in kinds.items():
        markers = {claim.tag for claim in report.claims if claim.meaning == kind.lower()}
        if unverified or not markers or not markers <= signed_tags:
            lacking.add(verdict)
    yield from lacking
    if kinds and not lacking and sources:
        yield "DERIVED_VERIFIED_SOURCES"
