"""What a running agent says of itself (docs/socket-protocol.md, `GET /v1/status`), for people.

It is the answer of another process, maybe of another release: nothing in it is taken for granted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.daemon.hardening import UNLOCKED_REMEDY
from enroll.foreign import printable

Status = Mapping[str, Any]

_READY = "ready"
_NOT_ENROLLED = "not-enrolled"
_STATES = {
    "awaiting-certificate": ("its key waits for a certificate", "It is asked for; if it lasts, run: scanseal renew"),
    "device-disabled": ("the owner has disabled the scanner", "Its owner may run: scanseal owner enable"),
    "device-needs-service": ("nobody knows whether the owner has disabled it", "Run: scanseal check"),
    "key-expired": ("its key has ended, and the next has no certificate", "Run: scanseal renew"),
    "key-store-unavailable": ("its token or TPM cannot be used", "Run: scanseal check"),
    "key-damaged": ("its key is lost", "Run: scanseal enroll, and have the CA revoke the old certificate."),
    "certificate-expired": ("its certificate has expired", "Run: scanseal renew"),
    "certificate-not-yet-valid": ("its certificate is not valid yet", "Compare the clock with that of the CA."),
    "certificate-revoked": ("the CA has revoked its certificate", "Run: scanseal check"),
    "signing-failed": ("its key does not sign", "Run: scanseal check"),
}
_UNKNOWN_STATE = ("it cannot sign", "Look into the log: journalctl --unit scanseal.service")


def signs(status: Status) -> bool:
    """Whether it can sign, with every identity that is enrolled."""
    return status.get("state") == _READY and all(state in (_READY, _NOT_ENROLLED) for state in _roles(status).values())


def text(status: Status) -> str:
    """Its state and that of each role, in one line."""
    states = [f"{role} {state}" for role, state in _roles(status).items() if state != _NOT_ENROLLED]
    seconds = status.get("first_signature_seconds")
    if isinstance(seconds, float):
        states.append(f"first signature {seconds:.1f} s after the start")
    return printable(f"{status.get('state')}: {', '.join(states)}" if states else str(status.get("state")))


def key_in_use(status: Status, identity: str, generation: int) -> dict[str, str] | None:
    """Where the key of an identity is now, and until when it signs; None where the agent does not sign with it.

    Args:
        status: The answer.
        identity: Whose key.
        generation: Of that identity.
    """
    described = _table(_table(status.get("identities")).get(identity))
    found = {name: described.get(name) for name in ("protection", "signs_until")}
    if described.get("generation") != generation or not all(isinstance(value, str) for value in found.values()):
        return None
    return {name: printable(str(value)) for name, value in found.items()}


def warnings(status: Status) -> list[dict[str, str]]:
    """What somebody should know, and what to do about it."""
    found = [
        _warning(f"Nothing can be signed as {role}: {what} ({state}).", remedy)
        for role, state in _roles(status).items()
        if state not in (_READY, _NOT_ENROLLED)
        for what, remedy in [_STATES.get(state, _UNKNOWN_STATE)]
    ]
    if refused := _table(status.get("refused_generation")):
        what = f"The newest generation of {refused.get('identity')} was refused: {refused.get('detail')}"
        found.append(_warning(what, "Run: scanseal check"))
    unsigned = _table(status.get("unsigned"))
    since_start, in_a_row = (_count(unsigned.get(name)) for name in ("since_start", "since_last_signature"))
    if since_start:
        what = f"{since_start} images or digests were not signed since the agent was started"
        what += f", the last {in_a_row} in a row." if in_a_row else "; signing goes on."
        found.append(_warning(what, "The audit trail says why (images-unsigned)."))
    if status.get("memory_locked") is False:
        found.append(_warning("The memory that holds keys may be written to swap.", UNLOCKED_REMEDY))
    return found


def _roles(status: Status) -> dict[str, str]:
    return {str(role): str(state) for role, state in _table(status.get("roles")).items()}


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def _warning(what: str, remedy: str) -> dict[str, str]:
    return {"what": printable(what), "remedy": remedy}
