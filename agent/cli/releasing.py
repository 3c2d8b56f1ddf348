"""The owner gives the scanner up (`enroll.owner_release`), and the audit trail says so."""

from __future__ import annotations

from agent.audit import AuditTrail, only_writer
from agent.errors import AlreadyRunning
from enroll.errors import KeyStoreError
from enroll.flows.base import FlowContext
from enroll.owner_release import OwnerRelease


def release(context: FlowContext) -> tuple[str, ...]:
    """Do it, or go on with it.

    Returns:
        What people have to do now: find the keys that could not be destroyed.

    Raises:
        EnrollerBusy: An enrollment is running.
        KeyStoreError: A key store is away, or refuses.
        StateError: The disk refused.
    """
    _note(context, "owner-release-begun")
    try:
        left = OwnerRelease(context).run()
    except KeyStoreError as error:
        error.what_next = (
            "Nothing is enrolled until the release is over: run it again, or the timer does. Where a token is lost "
            "for good: scanseal owner release --without-token LABEL"
        )
        raise
    for key in left:
        _note(context, "key-not-destroyed", key)
    _note(context, "owner-released")
    return tuple(f"find and destroy {key}" for key in left)


def _note(context: FlowContext, event: str, key: str = "") -> None:
    """Write into the audit trail; an agent that runs is its only writer, and notes each identity that goes.

    Raises:
        StateError: It cannot be written.
    """
    state, files = context.settings.state_directory, context.files
    files.make_directory(state / "audit", 0o750)
    try:
        with only_writer(state, files):
            trail = AuditTrail(state / "audit" / "audit.jsonl", context.clock)
            try:
                trail.record(event, {"key": key} if key else {}, durable=True)
            finally:
                trail.close()
    except AlreadyRunning:
        return
