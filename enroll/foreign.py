"""Texts of others in messages and logs of ours."""

from __future__ import annotations

TEXT_LIMIT = 200  # characters


def printable(text: str, limit: int = TEXT_LIMIT) -> str:
    """A foreign text as it may stand in a message or a log: one line, bounded, no control characters."""
    bounded = text[:limit]
    if bounded.isprintable():
        return bounded.strip()
    return "".join(character if character.isprintable() else " " for character in bounded).strip()
