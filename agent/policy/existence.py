"""When a signature existed at the latest, as far as the policy believes those who say so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from agent.dicom.report import Time
from agent.policy.context import Context
from agent.policy.model import AnchorKind, Policy
from agent.policy.signer import anchor_of
from enroll.certificates import PARSE_ERRORS, public_key_info

_TIME_STAMPS = frozenset((AnchorKind.TIME_STAMP_AUTHORITY,))


@dataclass(frozen=True)
class Existence:
    """When a signature existed at the latest.

    Args:
        proof: The earlier of a certified time stamp and the recipient's own record, None where there is neither.
        latest: The same, or the receipt where that is earlier: what arrived existed.
        disbelief: Why its time stamp counts for nothing; empty where it counts or there is none.
    """

    proof: datetime | None
    latest: datetime
    disbelief: str = ""


def existence_of(time: Time, context: Context) -> Existence:
    """What a time stamp and a receipt prove together.

    Args:
        time: With the stamp, if it verifies.
        context: The policy, which may not believe the authority, and the receipt.
    """
    disbelief = "" if time.trusted is None or context.policy is None else _disbelief(time, time.trusted, context.policy)
    stamped = None if disbelief else time.trusted
    proofs = [moment for moment in (stamped, context.receipt.known_since) if moment is not None]
    return Existence(min(proofs, default=None), min([*proofs, context.receipt.received_at]), disbelief)


def named_in(certificates: Iterable[x509.Certificate]) -> frozenset[str]:
    """By what a policy can name these certificates: SHA-256 of each and of its key."""
    names = set()
    for certificate in certificates:
        names.add(certificate.fingerprint(hashes.SHA256()).hex())
        try:
            names.add(hashlib.sha256(public_key_info(certificate.public_key())).hexdigest())
        except PARSE_ERRORS:
            continue  # a kind of key that nobody here can name
    return frozenset(names)


def _disbelief(time: Time, trusted: datetime, policy: Policy) -> str:
    if not time.authority_path or anchor_of(time.authority_path, policy, _TIME_STAMPS) is None:
        return 'the policy names no [[anchor]] of kind "tsa" that its authority leads to'
    names = named_in(time.authority_path) if policy.compromises else frozenset()
    for compromise in policy.compromises:
        # With a stolen key any time can be stated; who was sold or closed down stamped well before.
        ended = compromise.by_others or trusted >= compromise.since
        if ended and {compromise.key_sha256, compromise.cert_sha256} & names:
            return f"{compromise.id} says of its authority: {compromise.kind} since {compromise.since.isoformat()}"
    return ""
