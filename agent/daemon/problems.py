"""Problem documents (RFC 9457): every error that the socket can answer with, in one table.

The codes of `DicomError` are not listed: there is one for each fault an instance can have, and all of them are
status 422.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from agent.errors import DicomError
from enroll.errors import ScansealError

MEDIA_TYPE = "application/problem+json"
CODE_PREFIX = "urn:scanseal:problem:"


@dataclass(frozen=True)
class Problem:
    """The part of a problem document that is the same whenever it happens."""

    status: int
    title: str


PROBLEMS = {
    "request-malformed": Problem(400, "The request is not HTTP/1.1 as this socket speaks it"),
    "version-header-missing": Problem(400, "The header Scanseal-Version is missing or names another version"),
    "parameter-invalid": Problem(400, "A parameter is missing, unknown or out of range"),
    "body-truncated": Problem(400, "The body ended before its announced length"),
    "role-not-allowed": Problem(403, "This caller may not use this role"),
    "path-unknown": Problem(404, "There is no such call"),
    "method-not-allowed": Problem(405, "The call exists, but not with this method"),
    "not-acceptable": Problem(406, "None of the accepted media types can be answered"),
    "request-timeout": Problem(408, "The request arrived too slowly"),
    "length-required": Problem(411, "The body must announce its length"),
    "body-too-large": Problem(413, "The body is larger than this call takes"),
    "expectation-failed": Problem(417, "Only 100-continue can be expected"),
    "instance-refused": Problem(422, "The instance cannot be signed"),
    "too-many-connections": Problem(429, "This user has too many connections"),
    "head-too-large": Problem(431, "The head of the request is too large"),
    "internal-error": Problem(500, "The agent made a mistake"),
    "signing-failed": Problem(503, "The key store did not make the signature"),
    "audit-unavailable": Problem(503, "The signature could not be recorded"),
    "audit-damaged": Problem(503, "The signature could not be recorded"),
    "signing-timeout": Problem(503, "The key store does not answer"),
    "device-disabled": Problem(503, "The owner has disabled this scanner"),
    "device-needs-service": Problem(503, "Nobody knows whether the owner has disabled this scanner"),
    "not-enrolled": Problem(503, "There is no certificate yet"),
    "awaiting-certificate": Problem(503, "The key waits for its certificate"),
    "key-expired": Problem(503, "The time in which the key may sign is over"),
    "key-damaged": Problem(503, "The key is lost"),
    "key-store-unavailable": Problem(503, "The token is not there"),
    "certificate-expired": Problem(503, "The certificate has expired"),
    "certificate-not-yet-valid": Problem(503, "The certificate is not valid yet"),
    "certificate-revoked": Problem(503, "The CA has revoked the certificate"),
    "busy": Problem(503, "The agent has no room for another connection"),
    "caller-unknown": Problem(503, "The kernel does not say who the caller is"),
    "version-unsupported": Problem(505, "Only HTTP/1.1 is spoken here"),
    "spool-failed": Problem(507, "The instance could not be kept until its signature"),
}


def problem_of(error: ScansealError) -> tuple[int, bytes]:
    """Status and problem document of an error.

    Args:
        error: Any error; one without an entry in the table comes out as `internal-error`.
    """
    problem = PROBLEMS.get(error.code)
    if problem is None and isinstance(error, DicomError):
        problem = PROBLEMS[DicomError.code]
    code = error.code
    if problem is None:
        problem, code = PROBLEMS["internal-error"], "internal-error"
    document = {
        "type": CODE_PREFIX + code,
        "title": problem.title,
        "status": problem.status,
        "detail": error.what,
        "code": code,
        "remedy": error.remedy,
    }
    return problem.status, json.dumps(document).encode("ascii")
