"""What a worker is told when it starts: numbers and one path, no secret. Read without the configuration's modules."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from agent.daemon.connection import TimeLimits


@dataclass(frozen=True)
class WorkerOptions:
    """The options of one worker.

    Args:
        times: How long a connection may take.
        connections: The most that it may get; decides how many descriptors it may have.
        instance_bytes: Largest instance.
        memory_bytes: Its address space.
        spool_directory: Where large instances wait.
        profile: What is covered where a request does not say.
        hash_name: The hash where a request does not say.
        private_elements: Whether the profile creator-plus covers private elements.
        missing_device_identity: What happens to an instance that does not say which device made it.
    """

    times: TimeLimits
    connections: int
    instance_bytes: int
    memory_bytes: int
    spool_directory: str
    profile: str
    hash_name: str
    private_elements: bool
    missing_device_identity: str

    def encode(self) -> str:
        """As one argument of the worker's command line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def decode(cls, text: str) -> WorkerOptions:
        """The options as `encode` wrote them."""
        values = json.loads(text)
        return cls(**{**values, "times": TimeLimits(**values["times"])})
