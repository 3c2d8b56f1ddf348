"""One table of a policy, read strictly: what is not known, not of the right kind or out of bounds is an error.

An unknown key is never skipped: a misspelt key in a security file is how an archive ends up without the rule that it
believes to have.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator
from datetime import date, datetime, time
from enum import StrEnum
from typing import Any, TypeVar

from agent.errors import PolicyError
from agent.policy.toml_source import KeyPath, Source

LONGEST_TEXT = 256  # characters
LONGEST_LIST = 64  # values
MOST_TABLES = 4096  # of one name
LARGEST_NUMBER = 2**53 - 1  # what every JSON reader takes exactly
_YEARS = range(1970, 3000)
_ANY_TEXT = r"\S(.*\S)?"
_KIND_NAMES: dict[type, str] = {list: "a list", dict: "a table", bool: "true or false", time: "a time"}

Choice = TypeVar("Choice", bound=StrEnum)


class Table:
    """Gives out the values of one table, checked.

    Args:
        values: What stands there.
        path: Where.
        source: The text.
        known: The keys that may stand there.

    Raises:
        PolicyError: It is no table, or has a key that is not known.
    """

    def __init__(self, values: object, path: KeyPath, source: Source, known: Collection[str]) -> None:
        self.path = path
        self._source = source
        if not isinstance(values, dict):
            raise source.error(path, f"{self._name()} is no table.", f"Write it as [{self._name()}].")
        self._values: dict[str, Any] = values
        for key in values:
            if key not in known:
                raise self.error(
                    f"there is no key {_shown(key)}{self._where()}.", nearest(key, known), key, "unknown-key"
                )

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def error(self, what: str, remedy: str, key: str = "", code: str = "policy-invalid") -> PolicyError:
        """What to raise for a key of this table, or for the table."""
        return self._source.error((*self.path, key) if key else self.path, what, remedy, code)

    def table(self, key: str, known: Collection[str]) -> Table:
        """The table below a key; an empty one where there is none."""
        return Table(self._values.get(key, {}), (*self.path, key), self._source, known)

    def tables(self, key: str, known: Collection[str]) -> list[Table]:
        """The tables of an array of tables; none where there is none."""
        values = self._values.get(key, [])
        if not isinstance(values, list):
            raise self.error(f"{key} is a single table.", f"Write it as [[{key}]].", key)
        if len(values) > MOST_TABLES:
            raise self.error(f"there are more than {MOST_TABLES} [[{key}]].", "Put several into one entry.", key)
        return [Table(value, (*self.path, key, index), self._source, known) for index, value in enumerate(values)]

    def text(
        self, key: str, pattern: str = _ANY_TEXT, form: str = "a text in quotes", *, default: str | None = None
    ) -> str:
        """A text; without a default it must be there.

        Args:
            key: The key.
            pattern: A regular expression that it must match as a whole.
            form: The same for people.
            default: What counts where there is none.
        """
        if default is not None and key not in self:
            return default
        return self._checked_text(key, self._needed(key), pattern, form)

    def texts(
        self, key: str, pattern: str = _ANY_TEXT, form: str = "a text in quotes", *, at_least: int = 1
    ) -> tuple[str, ...]:
        """A list of texts; a single text counts as a list of one. With `at_least=0` it may be missing. See `text`."""
        values = self._needed(key) if at_least else self._values.get(key, [])
        if not isinstance(values, list):
            values = [values]
        if not at_least <= len(values) <= LONGEST_LIST:
            raise self.error(f"{key} has {len(values)} values.", f"Give {at_least} to {LONGEST_LIST}.", key)
        return tuple(self._checked_text(key, value, pattern, form) for value in values)

    def choice(self, key: str, choices: type[Choice], default: Choice | None = None) -> Choice:
        """One of the members of `choices`; without a default it must be there."""
        if default is not None and key not in self:
            return default
        return self._member(key, self._needed(key), choices)

    def choices(self, key: str, choices: type[Choice], *, at_least: int = 1) -> tuple[Choice, ...]:
        """A list of members of `choices`. See `texts`."""
        return tuple(self._member(key, text, choices) for text in self.texts(key, at_least=at_least))

    def number(self, key: str, default: int | None = None, *, at_most: int = LARGEST_NUMBER) -> int:
        """A whole number from 0 on; without a default it must be there."""
        value = self._values.get(key, default)
        if value is None:
            value = self._needed(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= at_most:
            raise self._wrong(key, value, f"a whole number from 0 to {at_most}")
        return value

    def day(self, key: str) -> date | None:
        """A date; None where there is none."""
        value = self._values.get(key)
        if value is None:
            return None
        # A datetime is a date in Python.
        if not isinstance(value, date) or isinstance(value, datetime) or value.year not in _YEARS:
            raise self._wrong(key, value, "a date without quotes and without a time, such as 2027-01-01")
        return value

    def moment(self, key: str) -> datetime:
        """A date with a time and its offset from UTC, which must be there."""
        value = self._needed(key)
        if not isinstance(value, datetime) or value.tzinfo is None or value.year not in _YEARS:
            raise self._wrong(
                key, value, "a date and a time with its offset from UTC, without quotes, such as 2027-01-01T08:00:00Z"
            )
        return value

    def _needed(self, key: str) -> Any:
        if key not in self._values:
            raise self.error(
                f"{key} is missing{self._where()}.", "Add it; docs/policy.md explains it.", code="missing-key"
            )
        return self._values[key]

    def _checked_text(self, key: str, value: object, pattern: str, form: str) -> str:
        if not isinstance(value, str) or len(value) > LONGEST_TEXT or not value.isprintable():
            raise self._wrong(key, value, f"{form}, of at most {LONGEST_TEXT} printable characters")
        if not re.fullmatch(pattern, value):
            raise self._wrong(key, value, form)
        return value

    def _member(self, key: str, value: object, choices: type[Choice]) -> Choice:
        if isinstance(value, str) and value in list(choices):
            return choices(value)
        remedy = nearest(value if isinstance(value, str) else "", list(choices))
        raise self.error(f"{key} is {_shown(value)}.", remedy, key, "unknown-value")

    def _wrong(self, key: str, value: object, form: str) -> PolicyError:
        return self.error(f"{key} is {_shown(value)}.", f"Give {form}.", key)

    def _name(self) -> str:
        return ".".join(str(part) for part in self.path if isinstance(part, str))

    def _where(self) -> str:
        return f" in [{self._name()}]" if self.path else ""


def nearest(name: str, known: Collection[str]) -> str:
    """A remedy that names the known name which was probably meant."""
    near = difflib.get_close_matches(name[:LONGEST_TEXT], known, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(sorted(known)[:LONGEST_LIST])}."


def _shown(value: object) -> str:
    """A value as it may stand in a message: a number may have too many digits to be printed."""
    if isinstance(value, str):
        return repr(value[:40])
    if isinstance(value, date):
        return value.isoformat()
    return _KIND_NAMES.get(type(value), "a number")
