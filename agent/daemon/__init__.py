"""The signing agent: a keyholder that parses nothing, and workers that hold no key.

`run` puts the keyholder together. It imports what it needs when it is called, because the workers, which must not load
`cryptography`, are modules of this package too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.config import Configuration
    from enroll.clock import Clock
    from enroll.statefile import StateFiles


def run(configuration: Configuration, clock: Clock, files: StateFiles, renewal_command: Sequence[str] = ()) -> int:
    """Run the agent until it is told to stop (SIGTERM, SIGINT).

    Args:
        configuration: scanseal.toml.
        clock: The clocks.
        files: Reads and writes the state directory.
        renewal_command: Starts the enroller, where the agent has to; empty where something else does.

    Returns:
        0.

    Raises:
        ScansealError: The agent cannot start; the message says what to do.
    """
    from agent.daemon.compose import run_keyholder  # noqa: PLC0415 - see above

    return run_keyholder(configuration, clock, files, renewal_command)
