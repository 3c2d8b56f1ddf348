"""The text of a policy: TOML read strictly, and the line on which each key stands.

`tomllib` gives no positions, so the lines are found by a scan of its own. The scan only serves messages: it reads text
that `tomllib` has accepted, and where it finds no line for a key it names that of the table around it.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from agent.errors import PolicyError
from enroll.foreign import printable

KeyPath: TypeAlias = tuple[str | int, ...]  # such as ("device", 0, "match", "serial")

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_NAME = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_HEADER = re.compile(rf"[ \t]*(\[\[?)[ \t]*({_NAME})[ \t]*\]")
_KEY = re.compile(rf"[ \t]*({_NAME})[ \t]*=")
_MULTI_LINE_QUOTES = ('"""', "'''")


@dataclass(frozen=True)
class Source:
    """Where the parts of a policy stand.

    Args:
        name: Of the file, for messages.
        lines: The line of each key and table, counted from 1.
    """

    name: str
    lines: Mapping[KeyPath, int]

    def error(self, path: KeyPath, what: str, remedy: str, code: str = "policy-invalid") -> PolicyError:
        """What to raise for the part at `path`."""
        line = self.line(path)
        return PolicyError(f"{self.name} line {line}: {what}", remedy=remedy, code=code, line=line)

    def line(self, path: KeyPath) -> int:
        """The line of a part, or of what it stands in."""
        return next((self.lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self.lines), 1)


def read_toml(text: str, name: str) -> tuple[dict[str, Any], Source]:
    """The tables of a policy and where they stand.

    Args:
        text: The whole file.
        name: Of the file, for messages.

    Raises:
        PolicyError: It is no TOML, or nested beyond reason.
    """
    try:
        return tomllib.loads(text), Source(name, _lines(text))
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at line ([0-9]+)", str(error))
        raise _not_toml(name, int(place[1]) if place else text.count("\n") + 1, str(error)) from error
    except RecursionError as error:
        raise _not_toml(name, _line_with_most(text, r"[\[{]"), "nested too deeply") from error
    except ValueError as error:  # a whole number of thousands of digits
        raise _not_toml(name, _line_with_most(text, r"[0-9]"), "a number has too many digits") from error


def _not_toml(name: str, line: int, why: str) -> PolicyError:
    what = f"{name} line {line}: this is not valid TOML: {printable(why)}."
    return PolicyError(what, remedy="Correct the line that is named.", code="policy-not-toml", line=line)


def _line_with_most(text: str, characters: str) -> int:
    counts = [len(re.findall(characters, line)) for line in text.split("\n")]
    return counts.index(max(counts)) + 1


def _lines(text: str) -> dict[KeyPath, int]:
    """The line on which each key and table, and whatever it stands in, is first mentioned."""
    lines: dict[KeyPath, int] = {}
    for path, line in _mentions(text):
        for end in range(1, len(path) + 1):
            lines.setdefault(path[:end], line)
    return lines


def _mentions(text: str) -> Iterator[tuple[KeyPath, int]]:
    tables: Counter[KeyPath] = Counter()  # how many there are so far of each array of tables
    around: KeyPath = ()
    open_quotes = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if open_quotes:
            open_quotes = "" if line.count(open_quotes) % 2 else open_quotes
            continue
        if header := _HEADER.match(line):
            parts = _parts(header[2])
            tables[parts] += header[1] == "[["
            around = _place(parts, tables)
            yield around, number
        elif key := _KEY.match(line):
            yield (*around, *_parts(key[1])), number
        open_quotes = next((quotes for quotes in _MULTI_LINE_QUOTES if line.count(quotes) % 2), "")


def _parts(name: str) -> KeyPath:
    return tuple(part.strip("\"'") for part in re.findall(_PART, name))


def _place(parts: KeyPath, tables: Mapping[KeyPath, int]) -> KeyPath:
    """The path of a table header: in an array of tables, that of its newest table."""
    path: KeyPath = ()
    for end, part in enumerate(parts, start=1):
        count = tables.get(parts[:end], 0)
        path = (*path, part, count - 1) if count else (*path, part)
    return path
