"""The owner gives the scanner up (`enroll.owner_release`), and the audit trail says so."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import click

from agent.cli import exits
from agent.cli.noting import note
from enroll.device_state import DeviceEvent
from enroll.errors import KeyStoreError
from enroll.flows.base import FlowContext
from enroll.owner_release import OwnerRelease

UNFINISHED = (
    "The release of this scanner is not finished, and nothing is enrolled until it is. "
    "Run: scanseal owner release. The timer finishes it, too."
)


def release(context: FlowContext) -> tuple[str, ...]:
    """Do it, or go on with it.

    Returns:
        What people have to do now, also what was found when it began, and the keys that could not be destroyed.

    Raises:
        EnrollerBusy: An enrollment is running.
        KeyStoreError: A key store is away, or refuses.
        StateError: The disk refused.
        click.exceptions.Exit: A person has interrupted it half way, and has been told so.
    """
    owner_release = OwnerRelease(context)
    context.identities.owner_file.check_allowed(DeviceEvent.RELEASE)  # before the audit trail says that it has begun
    try:
        is_new, by_hand = not owner_release.is_under_way, owner_release.by_hand()
        _note(context, "owner-release-begun")
        for task in by_hand if is_new else ():
            _note(context, "owner-release-task", {"task": task})
        left = owner_release.run()
    except KeyStoreError as error:
        error.what_next = (
            "Nothing is enrolled until the release is over: run it again, or the timer does. Where a token is lost "
            "for good: scanseal owner release --without-token LABEL"
        )
        raise
    except KeyboardInterrupt:
        if not owner_release.is_under_way:
            raise
        click.echo(UNFINISHED, err=True)
        raise click.exceptions.Exit(exits.INTERRUPTED) from None
    for key in left:
        _note(context, "key-not-destroyed", {"key": key})
    _note(context, "owner-released")
    return (*by_hand, *(f"find and destroy {key}" for key in left if key not in by_hand))


def _note(context: FlowContext, event: str, fields: Mapping[str, str] = MappingProxyType({})) -> None:
    note(context.settings.state_directory, context.files, context.clock, event, fields)
