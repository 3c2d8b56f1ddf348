"""Damages bytes anywhere: one changed, some more, some fewer, some others."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator


def mutations(count: int, seed: int) -> Iterator[Callable[[bytes], bytes]]:
    """Ways to damage; the same ones in every run, and each the same whenever it is used."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    for _ in range(count):
        where, kind, what = chance.random(), chance.randrange(4), chance.randbytes(chance.randrange(1, 9))

        def mutate(data: bytes, where: float = where, kind: int = kind, what: bytes = what) -> bytes:
            at = int(where * len(data))
            if kind == 0:
                return data[:at] + bytes([data[at] ^ (what[0] or 1)]) + data[at + 1 :]
            if kind == 1:
                return data[:at] + what + data[at:]
            if kind == 2:
                return data[:at] + data[at + len(what) :]
            return data[:at] + what + data[at + len(what) :]

        yield mutate
