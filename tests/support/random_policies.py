"""Policies and instances by chance, for comparing two evaluators: valid files, and what the verifier may report.

Values are few, so that entries often match, and times lie about the days that the policy names, to the second.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta, timezone
from functools import cache
from typing import Any, Final, TypeAlias

from cryptography import x509

from agent.dicom.report import (
    Algorithms,
    Chain,
    Claim,
    Comparison,
    ContentClass,
    Coverage,
    Equipment,
    Finding,
    Identity,
    IdentityLevel,
    InstanceReport,
    Integrity,
    MatchResult,
    Outcome,
    SignatureReport,
    Time,
)
from agent.policy.judgement import Receipt
from agent.policy.model import MatchKey
from enroll.revocation.lists import Revocation
from tests.support.certificates import rsa_key
from tests.support.pki import HospitalCa
from tests.support.policies import ATTRIBUTES, Case, certificate
from tests.support.policy_oracle import VERDICTS, certificate_hashes

Entry: TypeAlias = dict[str, Any]
Tables: TypeAlias = dict[str, list[Entry]]

ZONE: Final = timezone(timedelta(hours=-5, minutes=-30))
NEW_YEAR: Final = date(2027, 1, 1)
DAY: Final = timedelta(days=1)
LONG_AGO: Final = datetime(2006, 1, 1, tzinfo=UTC)
WORLD: Final[dict[str, tuple[str, ...]]] = {
    "device_uid": ("1.2.3", "1.2.4"),
    "udi": ("udi-1", "udi-2"),
    "serial": ("SN123", "SN999"),
    "ae": ("CT_AE", "US_OLD"),
    "sending_ae": ("OLDPACS", "CT_AE"),
    "station": ("ROOM1", "ROOM2"),
    "model": ("CT-9000", "US-1"),
    "software_version": ("1.0", "2.0"),
    "manufacturer": ("ACME", "BETA"),
    "modality": ("CT", "US", "MG"),
    "sop_class": ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.6.1"),
    "institution": ("St Elsewhere", "Mercy"),
    "department": ("Radiology", "Cardiology"),
    "content": tuple(ContentClass),
}
ONE_VALUED: Final = frozenset(WORLD) - {"ae", "content"}  # an instance here has one value of each of these
NAMES_A_DEVICE: Final = (["manufacturer", "serial"], ["manufacturer", "serial"], ["device_uid"], ["ae"], ["udi"])
MODES: Final = ("report", "warn", "enforce", "enforce", None)
REASONS: Final = ("", "superseded", "keyCompromise", "cACompromise", "aACompromise")
MACS: Final = ("SHA384", "SHA512", "SHA1", "MD5", "RIPEMD160", "SHA3")
KEYS: Final = ("RSA-4096", "RSA-3584", "RSA-2048", "RSA-2560", "RSA-1024", "ECDSA-P256", "ECDSA-P521", "DSA")
CHANGEABLE: Final = sorted({name for name, row in VERDICTS.items() if row[0] == "flag"} - {"BROKEN"})
ANCHORS: Final = {
    "owner": ("owner-ca", "device"),
    "other": ("vendor-device-ca", "device"),
    "site": ("owner-ca", "site"),
    "vendor": ("vendor-wide", "vendor"),
    "tsa": ("tsa", None),
}
MARKERS: Final = {
    ContentClass.ORIGINAL: [(0x00080008, "original")],
    ContentClass.DERIVED: [(0x00080008, "derived"), (0x00089215, "derived")],
    ContentClass.SYNTHETIC: [(0x0008001C, "synthetic")],
    ContentClass.PHANTOM: [(0x00080008, "phantom")],
    ContentClass.TEST: [(0x00280300, "quality-control"), (0x00189004, "research")],
}


# --------------------------------------------------------------------------------------------- certificates


@cache
def authority(title: str) -> HospitalCa:
    """An authority; the key of "other" is weak."""
    return HospitalCa(title, key=rsa_key(1024) if title == "other" else None)


def signer(title: str, serial: str, end: int = 2040) -> x509.Certificate:
    """The certificate of a signer below an authority, valid until the year `end`."""
    return certificate(authority(title), serial, end)


# -------------------------------------------------------------------------------------------------- policies


def as_toml(tables: Tables) -> str:
    """The file; an entry's keys are dotted, what is None is left out."""
    lines = ['schema = "dicom-signing-policy/1"']
    for name, entries in tables.items():
        for entry in entries:
            lines.append("[policy]" if name == "policy" else f"[[{name}]]")
            for key, value in entry.items():
                if value is not None:
                    lines.append(f"{key} = {value.isoformat() if isinstance(value, date) else json.dumps(value)}")
    return "\n".join(lines) + "\n"


class PolicyMaker:
    """Makes valid local policies."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def make(self) -> Tables:
        """One policy."""
        head = {
            "id": "st-elsewhere",
            "layer": "local",
            "issuer": "St Elsewhere",
            "serial": 1,
            "timezone": "-05:30",
            "issued": datetime(2026, 6, 1, tzinfo=UTC),
            "expires": self._midnight(),
            "mode": self.chance.choice(MODES),
            "no_match": self.chance.choice(MODES),
        }
        entries = self._entries()
        return {
            "policy": [head],
            "anchor": [self._anchor(name) for name in ANCHORS],
            "device": [entry for entry in entries if entry["id"].startswith("device")],
            "rule": [entry for entry in entries if entry["id"].startswith("rule")],
            "algorithm": self._algorithms() if self.chance.random() < 0.3 else [],
            "compromise": [self._compromise(number) for number in range(self.chance.choice((0, 1, 2, 3)))],
            "migration": [self._migration()] if self.chance.random() < 0.3 else [],
        }

    def _anchor(self, name: str) -> Entry:
        kind, identifies = ANCHORS[name]
        sha256 = certificate_hashes(authority(name).certificate)["cert_sha256"]
        return {"id": name, "kind": kind, "identifies": identifies, "sha256": sha256}

    def _entries(self) -> list[Entry]:
        entries: list[Entry] = []
        for number in range(self.chance.randint(0, 8)):
            entry = self._entry(number)
            added = [entry, self._successor(entry)] if entry["expect"] == "unsigned" else [entry]
            if not any(_may_match_the_same(one, other) for one in added for other in entries):
                entries += added
        return entries

    def _entry(self, number: int) -> Entry:
        chance = self.chance
        is_device = chance.random() < 0.6
        keys = {*chance.sample(sorted(set(WORLD) - {"serial"}), chance.choice((1, 1, 2)))}
        if is_device:
            keys |= set(chance.choice(NAMES_A_DEVICE))
        entry: Entry = {"id": f"{'device' if is_device else 'rule'}-{number}"}
        entry |= {f"match.{key}": self._value(key) for key in sorted(keys)}
        entry |= {"expect": chance.choice(("signed", "signed", "signed", "signed-with-sources", "unsigned", "any"))}
        if entry["expect"] == "unsigned" and len(keys) > 1:
            return entry | {"until": self._day(), "reason": "no update", "mode": chance.choice(MODES)}
        if entry["expect"] == "unsigned":
            entry["expect"] = "signed"
        if chance.random() < 0.6:
            entry |= {"from": self._day(), "grace_days": chance.choice((None, 0, 1, 14))}
            entry["until"] = entry["from"] + chance.randint(0, 40) * DAY if chance.random() < 0.3 else None
        entry["mode"] = chance.choice(MODES)
        if is_device and chance.random() < 0.8:
            entry["signer.anchor"] = chance.choice((None, "owner", "owner", "other"))
            entry["signer.serial_number"] = chance.choice((None, *WORLD["serial"]))
            entry["signer.require"] = chance.choice((None, ["serial"], ["manufacturer"], ["serial", "owner"]))
        if chance.random() < 0.2:
            entry["on.BROKEN"] = chance.choice((None, "quarantine", "refuse"))
            verdict = chance.choice(sorted(set(CHANGEABLE) - {"KEY_COMPROMISED", "REVOKED"}))
            entry[f"on.{verdict}"] = chance.choice(("accept", "flag", "quarantine", "refuse"))
        return entry

    def _successor(self, exemption: Entry) -> Entry:
        """What applies when an exemption ends (P6)."""
        key = self.chance.choice(sorted(_match_keys(exemption) - {"match.serial"}))
        return {
            "id": f"rule-after-{exemption['id']}",
            key: list(WORLD[key.removeprefix("match.")]),
            "expect": "signed",
            "from": min(self._day(), exemption["until"]),
            "mode": self.chance.choice(MODES),
        }

    def _value(self, key: str) -> str | list[str]:
        value = self.chance.choice(WORLD[key])
        return value if key != "content" and self.chance.random() < 0.5 else [value]

    def _day(self) -> date:
        return NEW_YEAR + self.chance.randint(-60, 60) * DAY

    def _midnight(self) -> datetime:
        return datetime.combine(self._day(), time(), ZONE)

    def _algorithms(self) -> list[Entry]:
        names = {
            "mac": ("SHA256", "SHA384", "SHA512", "SHA1", "RIPEMD160"),
            "key": ("RSA-SMALL", "RSA-2048", "RSA-3072", "RSA-4096", "ECDSA-P256"),
            "cert": ("SHA256", "SHA1"),
        }
        return [self._algorithm(use, name) for use in self.chance.sample(sorted(names), 2) for name in names[use]]

    def _algorithm(self, use: str, name: str) -> Entry:
        verify = self.chance.choice(("current", "current", "current", "deprecated", "antique", "forbidden"))
        proof = {"current": self.chance.choice((None, None, self._day())), "forbidden": None}.get(verify, self._day())
        return {"use": use, "names": [name], "verify": verify, "proof_before": proof}

    def _compromise(self, number: int) -> Entry:
        kind = self.chance.choice(("key-compromise", "ca-compromise", "superseded", "sold", "decommissioned"))
        title = self.chance.choice(("owner", "other"))
        named = authority("other").certificate if kind == "ca-compromise" else signer(title, "SN123")
        if self.chance.random() < 0.2:
            named = self.chance.choice((authority("tsa").certificate, signer("tsa", "")))
        key, value = self.chance.choice(sorted(certificate_hashes(named).items()))
        return {"id": f"compromise-{number}", key: value, "since": self._midnight(), "kind": kind}

    def _migration(self) -> Entry:
        begin = self._day()
        window = {"received.from": begin, "received.until": begin + 30 * DAY}
        return {"id": "migration", "match.sending_ae": "OLDPACS", **window, "treat_as": "history"}


def _match_keys(entry: Entry) -> set[str]:
    return {key for key in entry if key.startswith("match.")}


def _may_match_the_same(one: Entry, other: Entry) -> bool:
    """Whether two entries are of equal weight and may match one instance, which no policy may hold."""
    keys = _match_keys(one)
    apart = [key for key in keys & _match_keys(other) if set(_listed(one[key])).isdisjoint(_listed(other[key]))]
    return keys == _match_keys(other) and not any(key.removeprefix("match.") in ONE_VALUED for key in apart)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


# ------------------------------------------------------------------------------------------------- instances


class CaseMaker:
    """Makes instances as the verifier would report them, for a policy whose days are of interest."""

    def __init__(self, chance: random.Random, tables: Tables) -> None:
        self.chance = chance
        values = [value for entries in tables.values() for entry in entries for value in entry.values()]
        days = [value.date() if isinstance(value, datetime) else value for value in values if isinstance(value, date)]
        self.days = [day for day in days if day.year > 2026 or day.month > 6]

    def make(self, signatures: int, *, all_covered: bool = False) -> Case:
        """One instance with so many signatures, which may have to cover all that entries are matched by."""
        chance = self.chance
        received = self._moment()
        now = received + chance.choice((0, 0, 0, 1, 40, 400)) * DAY
        record = chance.choice((None, None, received, self._moment(), LONG_AGO))
        receipt = Receipt(
            received_at=received,
            sending_ae=chance.choice(("", *WORLD["sending_ae"])),
            first_seen_signed=chance.random() < 0.1,
            known_since=min(record, now) if record else None,
        )
        values = {key: chance.choice((*of_key, of_key[0])) for key, of_key in WORLD.items()}
        content = frozenset(chance.sample(list(ContentClass), chance.choice((0, 1, 1, 2))))
        markers = [(tag, kind, meaning) for kind in sorted(content) for tag, meaning in MARKERS[kind]]
        tags = {tag for tag, _, _ in markers}
        matched = set(ATTRIBUTES.values())
        reports = tuple(self._signature(values, tags, matched, now) for _ in range(signatures))
        if all_covered:
            reports = tuple(_covering(matched | tags, one) for one in reports)
        covered = {tag for one in reports if one.intact for tag in one.coverage.covered}
        report = InstanceReport(
            sop_class_uid=values["sop_class"],
            sop_instance_uid="1.2.3.4",
            signatures=reports,
            equipment=_equipment(values),
            content=content,
            claims=tuple(Claim(tag, kind, meaning, tag in covered) for tag, kind, meaning in markers),
        )
        return Case(report, receipt, now, chance.choice((None, None, True, False)))

    def _mostly(self, usual: Any, *others: Any) -> Any:
        return usual if self.chance.random() < 0.75 else self.chance.choice(others)

    def _moment(self) -> datetime:
        """About the beginning of a day that matters."""
        day = self.chance.choice(self.days) + self.chance.choice((-1, 0, 0, 0, 0, 1, 2, 13, 14, 15, 31)) * DAY
        seconds = self.chance.choice((-1, 0, 0, 1, 43_200))
        return datetime.combine(day, time(), ZONE).astimezone(UTC) + timedelta(seconds=seconds)

    def _signature(
        self, values: dict[str, str], markers: set[int], matched: set[int], now: datetime
    ) -> SignatureReport:
        title = self._mostly("owner", "other", "site", "vendor", "tsa", "stranger")
        number = self._mostly(values["serial"], "", *WORLD["serial"])
        leaf = signer(title, number, self._mostly(2040, 2026))
        trusted, stamper = self._mostly(None, self._moment(), LONG_AGO), self._mostly("tsa", "owner", "stranger")
        when = Time(
            claimed=self.chance.choice((None, datetime(2003, 1, 1, tzinfo=UTC), now)),
            trusted=min(trusted, now) if trusted else None,
            authority_path=(signer(stamper, ""), authority(stamper).certificate) if trusted else (),
            findings=self._mostly((), (), _found("time-in-future", Outcome.FAILED)),
        )
        when, chain = self._chain(leaf, title, when, now)
        failed = _found("signature-wrong", Outcome.FAILED)
        unknown = _found("transfer-syntax-differs", Outcome.INDETERMINATE)
        return SignatureReport(
            certificate=leaf,
            integrity=Integrity(findings=self._mostly((), failed, unknown)),
            coverage=self._coverage(markers, matched),
            algorithms=Algorithms(mac=self._mostly("SHA256", *MACS), key=self._mostly("RSA-3072", *KEYS)),
            time=when,
            chain=chain,
            identity=self._identity(number, values),
        )

    def _coverage(self, markers: set[int], matched: set[int]) -> Coverage:
        missing = self._mostly(set(), {0x7FE00010, *(tag for tag in markers if self.chance.random() < 0.5)})
        findings = _found("element-not-covered", Outcome.FLAGGED) if missing else ()
        left_out = set(self.chance.sample(sorted(matched), self._mostly(0, 1, 3, len(matched))))  # by the profile
        covered = (markers - missing) | (matched - left_out)
        return Coverage(covered=tuple(sorted(covered)), missing=tuple(sorted(missing)), findings=findings)

    def _chain(self, leaf: x509.Certificate, title: str, when: Time, now: datetime) -> tuple[Time, Chain]:
        """What the verifier makes of the signer: no path, an expired one, a revoked one."""
        end = leaf.not_valid_after_utc
        if self.chance.random() < 0.1 or (when.trusted and when.trusted > end):
            return when, Chain(findings=_found("path-not-found", Outcome.FAILED))
        if when.trusted is None and now > end:
            expired = _found("certificate-expired", Outcome.INDETERMINATE)
            when = replace(when, findings=(*when.findings, *expired))
        moments = sorted(min(self._moment(), now) for _ in range(self._mostly(0, 1, 2)))
        revocations = tuple(Revocation(moment, self.chance.choice(REASONS)) for moment in moments)
        findings = _found("chain-weak", Outcome.INDETERMINATE) if title == "other" else ()
        if any(when.trusted is None or when.trusted >= moment for moment in moments):
            findings += _found("certificate-revoked", Outcome.FAILED)
        if self.chance.random() < 0.1:
            findings += _found("revocation-unknown", Outcome.INDETERMINATE)
        return when, Chain(path=(leaf, authority(title).certificate), findings=findings, revocations=revocations)

    def _identity(self, number: str, values: dict[str, str]) -> Identity:
        serial = values["serial"]
        maker = Comparison("manufacturer", MatchResult.MATCH, "ACME", "ACME")
        if not number and self.chance.random() < 0.5:
            key = self.chance.choice(("device_uid", "udi"))
            named = Comparison(key.replace("_", "-"), MatchResult.MATCH, values[key], values[key])
            silent = Comparison("serial", MatchResult.CERTIFICATE_SILENT, serial)
            return Identity(level=IdentityLevel.DEVICE, matches=(silent, named, maker))
        if not number:
            level = self.chance.choice((IdentityLevel.NONE, IdentityLevel.VENDOR, IdentityLevel.SITE))
            return Identity(level=level, matches=(Comparison("serial", MatchResult.CERTIFICATE_SILENT, serial), maker))
        if number != serial:
            differs = Comparison("serial", MatchResult.MISMATCH, serial, number)
            findings = _found("identity-mismatch", Outcome.FAILED)
            return Identity(level=IdentityLevel.DEVICE, matches=(differs, maker), findings=findings)
        same = Comparison("serial", MatchResult.MATCH, serial, number)
        if self.chance.random() < 0.5:
            return Identity(level=IdentityLevel.DEVICE, matches=(same, maker))
        owner = Comparison("owner", MatchResult.MATCH, "St Elsewhere", "St Elsewhere")
        return Identity(level=IdentityLevel.DEVICE_AND_OWNER, matches=(same, owner))


def silent_outside_of(covered: frozenset[int], report: InstanceReport) -> InstanceReport:
    """The same instance, but it says nothing of itself outside of these attributes."""
    content = frozenset(kind for kind in report.content if covered.intersection(tag for tag, _ in MARKERS[kind]))
    fields = {tag: str(key) for key, tag in ATTRIBUTES.items() if key is not MatchKey.SOP_CLASS}
    fields[ATTRIBUTES[MatchKey.AE]] = "station_ae"
    fields[ATTRIBUTES[MatchKey.SERIAL]] = "device_serial"
    fields[ATTRIBUTES[MatchKey.SOFTWARE_VERSION]] = "software_versions"
    silence: dict[str, Any] = {name: getattr(Equipment(), name) for tag, name in fields.items() if tag not in covered}
    return replace(
        report,
        sop_class_uid=report.sop_class_uid if ATTRIBUTES[MatchKey.SOP_CLASS] in covered else "",
        equipment=replace(report.equipment, **silence),
        content=content,
        claims=tuple(claim for claim in report.claims if claim.tag in covered),
    )


def _covering(tags: set[int], one: SignatureReport) -> SignatureReport:
    covered = tags.difference(one.coverage.missing)
    return replace(one, coverage=replace(one.coverage, covered=tuple(sorted(covered))))


def _found(code: str, outcome: Outcome) -> tuple[Finding, ...]:
    return (Finding(code, "Found by chance.", outcome),)


def _equipment(values: dict[str, str]) -> Equipment:
    return Equipment(
        manufacturer=values["manufacturer"],
        model=values["model"],
        device_serial=values["serial"],
        device_uid=values["device_uid"],
        udi=(values["udi"],),
        software_versions=(values["software_version"],),
        station=values["station"],
        station_ae=values["ae"],
        institution=values["institution"],
        department=values["department"],
        modality=values["modality"],
    )
