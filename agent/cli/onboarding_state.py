"""What is known of FIDO Device Onboard on this scanner, for `scanseal status`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from agent.cli import exits
from enroll.clock import Clock
from enroll.config import EnrollSettings
from enroll.errors import StateError
from enroll.fdo.credential import fdo_directory, read_unauthenticated
from enroll.fdo.hand_over import renewal_flow
from enroll.fdo.owner_policy import COMPARE, OwnerPolicy
from enroll.foreign import printable
from enroll.statefile import StateFiles


def record(settings: EnrollSettings, files: StateFiles, clock: Clock) -> dict[str, Any] | None:
    """The member `fdo`; see docs/exit-codes.md. None where the factory has made no credential."""
    directory = fdo_directory(settings.state_directory)
    try:
        credentials = read_unauthenticated(directory, files)
        if not credentials:
            return None
        newest, policy = credentials[0], OwnerPolicy(settings.fdo, directory, files, clock)
        return {
            "guid": newest.guid.hex(),
            "device_info": newest.device_info,
            "owner": newest.owner.fingerprint if newest.owner else None,
            "released": newest.was_owned and newest.owner is None,
            "renewal": renewal_flow(settings, files),
            "unfinished": len(credentials) > 1,
            "approval": [asdict(candidate) for candidate in policy.candidates()],
        }
    except StateError as error:
        return {"problem": exits.described(error)}


def lines(record: dict[str, Any] | None) -> Iterator[str]:
    """The same for people."""
    if record is None:
        return
    if problem := record.get("problem"):
        first, *more = exits.told(problem)
        yield f"[{problem['code']}] {first}"
        yield from more
        return
    yield f"{_owner_text(record)}; GUID {record['guid']}, {printable(record['device_info'])}"
    if record["unfinished"]:
        yield "the last session with the owner did not come to its end; the next run tries both credentials"
    for candidate in record["approval"]:
        name = f", calls itself {printable(candidate['name'])}" if candidate["name"] else ""
        said = "is approved" if candidate["is_approved"] else "waits for approval"
        yield f"an owner {said}: fingerprint {candidate['owner']}{name}; voucher {candidate['voucher']}"
    if record["approval"] and not any(candidate["is_approved"] for candidate in record["approval"]):
        yield COMPARE


def _owner_text(record: dict[str, Any]) -> str:
    if record["owner"] is None:
        return "released by its last owner" if record["released"] else "no owner yet"
    renewal = f"renewed by {record['renewal']}" if record["renewal"] else "nobody says how it is renewed"
    return f"owned by the holder of the key {record['owner']}, {renewal}"
