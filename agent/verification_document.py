"""A verification as JSON, for programs: docs/verification.schema.json is its schema, and a promise."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from agent.dicom.elements import tag_name
from agent.dicom.provenance.graph import ProvenanceGraph
from agent.dicom.provenance.text import provenance_json
from agent.dicom.report import Coverage, Fact, Finding, InstanceReport, KeyUsagePeriod, SignatureReport
from agent.policy.judgement import Judgement
from enroll.certificates import name_text, serial_text

SCHEMA = "scanseal-verification/1"
MOST_TAGS = 16_384  # of a list; no signature can list more itself


def document_of(report: InstanceReport, judgement: Judgement, graph: ProvenanceGraph | None) -> dict[str, Any]:
    """What was found of one instance, and what it comes to.

    Args:
        report: The facts.
        judgement: What follows from them.
        graph: From what it was made, where that was looked up.
    """
    return {
        "schema": SCHEMA,
        **_judgement(judgement),
        "sop_class_uid": report.sop_class_uid,
        "sop_instance_uid": report.sop_instance_uid,
        "transfer_syntax": report.transfer_syntax,
        "signatures": [_signature(signature) for signature in report.signatures],
        "nested_signatures": [_signature(signature) for signature in report.nested],
        "equipment": {
            "manufacturer": report.equipment.manufacturer,
            "model": report.equipment.model,
            "device_serial": report.equipment.device_serial,
            "device_uid": report.equipment.device_uid,
            "udi": list(report.equipment.udi),
            "software_versions": list(report.equipment.software_versions),
            "station": report.equipment.station,
            "station_ae": report.equipment.station_ae,
            "institution": report.equipment.institution,
            "department": report.equipment.department,
            "modality": report.equipment.modality,
        },
        "content": sorted(report.content),
        "claims": [
            {"tag": tag_name(claim.tag), "value": claim.value, "meaning": claim.meaning, "covered": claim.covered}
            for claim in report.claims
        ],
        "sources": [
            {
                "sop_instance_uid": source.sop_instance_uid,
                "sop_class_uid": source.sop_class_uid,
                "attribute": tag_name(source.attribute),
                "covered": source.covered,
                "mac": base64.b64encode(source.mac).decode("ascii"),
                "mac_algorithm": source.mac_algorithm,
            }
            for source in report.sources
        ],
        "provenance": provenance_json(graph) if graph else None,
        "findings": _findings(report.findings),
    }


def _judgement(judgement: Judgement) -> dict[str, Any]:
    axes = judgement.axes
    return {
        "verdict": judgement.verdict,
        "action": judgement.action,
        "beside": list(judgement.beside),
        "axes": {
            "integrity": axes.integrity,
            "coverage": axes.coverage,
            "crypto": axes.crypto,
            "time": axes.time,
            "identity": axes.identity,
            "expectation": axes.expectation,
        },
        "identity_level": judgement.identity_level,
        "rule_ids": list(judgement.rule_ids),
        "explanation": list(judgement.explanation),
        "policy_stale": judgement.policy_stale,
        "not_clinical": judgement.not_clinical,
        "stripped": judgement.stripped,
        "non_profile": judgement.non_profile,
    }


def _signature(report: SignatureReport) -> dict[str, Any]:
    algorithms, time, chain = report.algorithms, report.time, report.chain
    diagnosis = report.diagnosis
    return {
        "location": report.location,
        "mac_id": report.mac_id,
        "uid": report.uid,
        "signed_at": report.signed_at,
        "purposes": list(report.purposes),
        "signer": report.signer,
        "certificate": _certificate(report.certificate) if report.certificate else None,
        "integrity": _fact(report.integrity),
        "coverage": _coverage(report.coverage),
        "algorithms": {**_fact(algorithms), "mac": algorithms.mac, "key": algorithms.key, "grade": algorithms.grade},
        "time": {
            **_fact(time),
            "claimed": _time(time.claimed),
            "trusted": _time(time.trusted),
            "authority": time.authority,
            "authority_path": [_certificate(link) for link in time.authority_path],
            "key_usage_period": _period(time.key_usage_period),
        },
        "chain": {
            **_fact(chain),
            "path": [_certificate(link) for link in chain.path],
            "revoked_at": _time(chain.revocations[0].at if chain.revocations else None),
            "revocations": [{"at": _time(each.at), "reason": each.reason} for each in chain.revocations],
        },
        "identity": {
            **_fact(report.identity),
            "level": report.identity.level,
            "matches": [
                {
                    "subject": match.subject,
                    "result": match.result,
                    "image": match.image,
                    "certificate": match.certificate,
                }
                for match in report.identity.matches
            ],
        },
        "diagnosis": diagnosis
        and {"variant": diagnosis.variant, "what": diagnosis.what, "legitimate": diagnosis.legitimate},
    }


def _coverage(coverage: Coverage) -> dict[str, Any]:
    tags = {
        "covered": coverage.covered,
        "missing": coverage.missing,
        "excluded": coverage.excluded,
        "unsignable": coverage.unsignable,
    }
    listed = {name: [tag_name(tag) for tag in each[:MOST_TAGS]] for name, each in tags.items()}
    unlisted = {name: len(each) - len(listed[name]) for name, each in tags.items()}
    return {**_fact(coverage), **listed, "unlisted": unlisted}


def _fact(fact: Fact) -> dict[str, Any]:
    return {"outcome": fact.outcome, "findings": _findings(fact.findings)}


def _findings(findings: Iterable[Finding]) -> list[dict[str, str]]:
    return [{"code": finding.code, "what": finding.what, "outcome": finding.outcome} for finding in findings]


def _certificate(certificate: x509.Certificate) -> dict[str, Any]:
    return {
        "subject": name_text(certificate.subject),
        "issuer": name_text(certificate.issuer),
        "serial_number": serial_text(certificate),
        "not_before": _time(certificate.not_valid_before_utc),
        "not_after": _time(certificate.not_valid_after_utc),
        "sha256": hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
    }


def _period(period: KeyUsagePeriod | None) -> dict[str, str | None] | None:
    return {"not_before": _time(period.not_before), "not_after": _time(period.not_after)} if period else None


def _time(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat(timespec="seconds") if moment else None
