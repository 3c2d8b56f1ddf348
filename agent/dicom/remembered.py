"""Answers that are asked for again and again, kept within bounds."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar, cast

ANSWERS_REMEMBERED = 4  # a series is one after the other; and a question may be as large as an instance

Answer = TypeVar("Answer", bound=Callable[..., object])


def remembered(function: Answer) -> Answer:
    """The same function, which keeps its last answers; for as long as the result is kept, and not beyond.

    Args:
        function: Pure; its arguments can be hashed.
    """
    return cast("Answer", lru_cache(maxsize=ANSWERS_REMEMBERED)(function))
