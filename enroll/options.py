"""The strict reader of scanseal.toml, which both parts share.

A settings class is a frozen dataclass; its fields are the options. `option()` gives each its description and bounds,
which the packaged example and its test use. An unknown option is an error that names the nearest known one: a
misspelt option that is silently ignored is how a scanner ends up unprotected.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from enroll.errors import ConfigurationError, StateError, StateUnreadable
from enroll.statefile import StateFiles

CONFIGURATION_LIMIT = 256 * 1024  # bytes

Settings = TypeVar("Settings")


def option(  # noqa: PLR0913 - one keyword for each thing to say of an option
    text: str,
    *,
    default: Any = dataclasses.MISSING,
    default_factory: Any = dataclasses.MISSING,
    unit: str = "",
    at_least: int | None = None,
    at_most: int | None = None,
    pattern: str = "",
) -> Any:
    """Declare one option: what it means, its unit, its default and its bounds."""
    metadata = {"text": text, "unit": unit, "at_least": at_least, "at_most": at_most, "pattern": pattern}
    if default_factory is not dataclasses.MISSING:
        return field(default_factory=default_factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def read_toml(path: Path, files: StateFiles) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigurationError: Unreadable, too large or not TOML; the message names the line.
    """
    try:
        data = files.read(path, CONFIGURATION_LIMIT, follow=True)
    except StateUnreadable as error:
        raise ConfigurationError(error.what, remedy=error.remedy) from error
    except StateError as error:
        remedy = "Name your configuration with --config, or begin with the packaged example, systemd/scanseal.toml."
        raise ConfigurationError(error.what, remedy=remedy) from error
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}.", remedy=_toml_remedy(str(error))) from error


def read_settings(settings: type[Settings], table: Mapping[str, Any], where: str) -> Settings:
    """Turn a TOML table into a settings object.

    Args:
        settings: A frozen dataclass whose fields are declared with `option`.
        table: The table as read.
        where: Name of the table for messages, as in "[est]".

    Raises:
        ConfigurationError: An unknown option, a wrong type or a value out of bounds.
    """
    fields = {f.name: f for f in dataclasses.fields(settings)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(settings)
    for name in table:
        if name not in fields:
            raise _unknown(name, fields, where)
    values = {
        name: _convert(hints[name], value, fields[name], f"{where} {name}".strip()) for name, value in table.items()
    }
    for name, declared in fields.items():
        if name not in values and declared.default is declared.default_factory is dataclasses.MISSING:
            if dataclasses.is_dataclass(hints[name]):
                values[name] = read_settings(typing.cast("type[Any]", hints[name]), {}, f"[{name}]")
                continue
            raise ConfigurationError(
                f"{where} {name} is missing.", remedy=f"Add it. {declared.metadata.get('text', '')}"
            )
    return settings(**values)


def choices_of(kind: type[StrEnum], declared: Mapping[str, Any]) -> list[str]:
    """The values that an option takes.

    Args:
        kind: Its type.
        declared: The metadata of its field, as `option` makes it; a pattern narrows the choice.
    """
    return [member.value for member in kind if re.fullmatch(declared["pattern"] or ".*", member.value)]


def _toml_remedy(said: str) -> str:
    """What to do about what the reader of TOML said; a table that somebody has appended again is the usual fault."""
    twice = re.match(r"Cannot declare \((.*?),?\) twice", said)
    if twice is None:
        return "Correct the line that is named."
    table = ".".join(re.findall(r"'([^']*)'", twice[1]))
    return f"The table [{table}] stands there twice: merge them."


def _unknown(name: str, known: Mapping[str, Any], where: str) -> ConfigurationError:
    near = difflib.get_close_matches(name, known, n=1)
    remedy = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(sorted(known))}."
    return ConfigurationError(f"{where} has no option {name!r}.".strip(), remedy=remedy)


def _convert(hint: Any, value: Any, declared: dataclasses.Field[Any], where: str) -> Any:
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigurationError(f"{where} must be a table.", remedy=f"Write it as [{where}].")
        return read_settings(typing.cast("type[Any]", hint), value, f"[{where.replace('[', '').replace('] ', '.')}]")
    if typing.get_origin(hint) is Mapping:
        return _convert_tables(typing.get_args(hint)[1], value, where)
    if typing.get_origin(hint) is tuple:
        return _convert_list(value, where)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        choices = choices_of(hint, declared.metadata)
        if value not in choices:
            raise ConfigurationError(f"{where} is {value!r}.", remedy=f"Use one of: {', '.join(choices)}.")
        return hint(value)
    if hint is Path:
        path = Path(_checked(str, value, declared, where))
        if not path.is_absolute():
            raise ConfigurationError(
                f"{where} is {value!r}.", remedy="Give an absolute path: commands and services start in other folders."
            )
        return path
    return _checked(hint, value, declared, where)


def _convert_list(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise ConfigurationError(
            f"{where} must be a list of strings.", remedy='For example ["user:ct", "group:imaging"].'
        )
    return tuple(value)


def _convert_tables(kind: type, value: Any, where: str) -> Any:
    """Tables whose names the operator chooses."""
    table = where.replace("[", "").replace("] ", ".")
    if not isinstance(value, dict) or not all(isinstance(entry, dict) for entry in value.values()):
        raise ConfigurationError(f"{where} must hold tables.", remedy=f"Write them as [{table}.NAME].")
    return {name: read_settings(kind, entry, f"[{table}.{name}]") for name, entry in value.items()}


def _checked(kind: type, value: Any, declared: dataclasses.Field[Any], where: str) -> Any:
    # bool is an int in Python, never in TOML.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigurationError(f"{where} is {value!r}.", remedy=f"Give {_KIND_NAMES.get(kind, kind.__name__)}.")
    low, high, pattern = (declared.metadata.get(key) for key in ("at_least", "at_most", "pattern"))
    unit = declared.metadata.get("unit", "")
    if (low is not None and value < low) or (high is not None and value > high):
        raise ConfigurationError(
            f"{where} is {value}.", remedy=f"Choose a value from {low} to {high} {unit}".strip() + "."
        )
    if pattern and not re.fullmatch(pattern, str(value)):
        raise ConfigurationError(f"{where} is {value!r}.", remedy=str(declared.metadata["text"]))
    return value


_KIND_NAMES = {str: "a string in quotes", int: "a whole number", bool: "true or false", float: "a number"}
