"""Writes systemd/scanseal.toml, the packaged example, from the declarations of the options.

    python -m scripts.make_example_configuration

Every option stands there with what it means, its unit, bounds and default, commented out: the file as it is packaged
changes nothing and says what is missing.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from agent.config import AgentSettings
from enroll.config import EnrollSettings
from enroll.options import choices_of

EXAMPLE = Path(__file__).parent.parent / "systemd" / "scanseal.toml"

# Options without a default need a value to show.
SAMPLES: Mapping[str, Any] = {
    "acme.anchor_file": Path("/etc/scanseal/hospital-ca.pem"),
    "acme.eab_key_file": Path("/etc/scanseal/acme-eab-key"),
    "acme.hook": Path("/usr/local/lib/scanseal/acme-hook"),
    "acme.server_anchor_file": Path("/etc/scanseal/acme-server-ca.pem"),
    "attestation.anchor_file": Path("/etc/scanseal/attestation-ca.pem"),
    "attestation.password_file": Path("/etc/scanseal/attestation-password"),
    "cmp.anchor_file": Path("/etc/scanseal/hospital-ca.pem"),
    "cmp.server_anchor_file": Path("/etc/scanseal/cmp-server-ca.pem"),
    "device.serial_number": "CT-000123",
    "est.anchor_file": Path("/etc/scanseal/hospital-ca.pem"),
    "est.password_file": Path("/etc/scanseal/est-password"),
    "fdo.anchor_file": Path("/etc/scanseal/hospital-ca.pem"),
    "fdo.owner_anchor_file": Path("/etc/scanseal/owner-root.pem"),
    "keystore.pkcs11.pin_file": Path("/etc/scanseal/token-pin"),
    "keystore.software.directory": Path("/var/lib/scanseal/keys"),
    "keystore.software.passphrase_file": Path("/etc/scanseal/key-passphrase"),
    "keystore.tpm.authorization_file": Path("/etc/scanseal/tpm-authorization"),
    "keystore.tpm.directory": Path("/var/lib/scanseal/tpm"),
    "offline.anchor_file": Path("/etc/scanseal/hospital-ca.pem"),
    "scep.anchor_file": Path("/etc/scanseal/hospital-ca.pem"),
    "scep.challenge_file": Path("/etc/scanseal/scep-challenge"),
    "scep.server_anchor_file": Path("/etc/scanseal/scep-server-ca.pem"),
    "vendor.anchor_file": Path("/etc/scanseal/vendor-ca.pem"),
}

HEAD = """\
Configuration of scanseal: /etc/scanseal/scanseal.toml

Options that are commented out show their default; those without a default show an example.
An unknown option is an error. Paths are absolute. Secrets never stand in this file, only the names of files
that hold them.
"""


@dataclasses.dataclass(frozen=True)
class Option:
    """One option as it stands in the example.

    Args:
        table: Name of its table; empty at the top of the file.
        name: Its name in the table.
        kind: The type of its value.
        default: What holds where it is not given; None where nothing does.
        required: The program does not start without it.
        declared: The words and bounds of its declaration.
    """

    table: str
    name: str
    kind: type
    default: Any
    required: bool
    declared: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Table and name."""
        return f"{self.table}.{self.name}".lstrip(".")

    @property
    def shown(self) -> Any:
        """The value that the example shows.

        Raises:
            KeyError: No default, and `SAMPLES` has no value.
        """
        return SAMPLES[self.path] if self.default is None else self.default


@dataclasses.dataclass(frozen=True)
class Table:
    """One table of the file with its options."""

    name: str
    text: str
    options: tuple[Option, ...]


def tables(settings: type, name: str = "", given: object = None) -> Iterator[Table]:
    """The table of a settings class and those below it.

    Args:
        settings: A settings class.
        name: Name of its table.
        given: The settings object that holds where the table is missing.
    """
    hints = typing.get_type_hints(settings)
    options = []
    below = []
    for declared in dataclasses.fields(settings):
        kind = hints[declared.name]
        default = _default(declared) if given is None else getattr(given, declared.name)
        if dataclasses.is_dataclass(kind):
            below.append((typing.cast("type", kind), f"{name}.{declared.name}".lstrip("."), default))
            continue
        if isinstance(kind, types.UnionType):
            kind = next(part for part in typing.get_args(kind) if part is not types.NoneType)
        kind = typing.get_origin(kind) or kind
        required = declared.default is declared.default_factory is dataclasses.MISSING
        options.append(Option(name, declared.name, kind, default, required, declared.metadata))
    if options:
        yield Table(name, _table_text(settings), tuple(options))
    for kind, path, default in below:
        yield from tables(kind, path, default)


def example(settings: Sequence[type]) -> str:
    """The text of the example for all settings classes that read the file."""
    parts = [_comment(HEAD)]
    found = [table for root in settings for table in tables(root)]
    for table in sorted(found, key=lambda table: bool(table.name)):
        if table.name:
            parts.append(f"{_comment(table.text)}\n[{table.name}]")
        parts.extend(_entry(option) for option in table.options)
    return "\n\n".join(parts) + "\n"


def settings_classes() -> tuple[type, ...]:
    """The classes that read scanseal.toml."""
    return (EnrollSettings, AgentSettings)


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, tuple):
        return f"[{', '.join(toml(entry) for entry in value)}]"
    return json.dumps(str(value) if isinstance(value, Path) else value)


def _default(declared: dataclasses.Field[Any]) -> Any:
    if declared.default_factory is not dataclasses.MISSING:
        return declared.default_factory()
    return None if declared.default is dataclasses.MISSING else declared.default


def _table_text(settings: type) -> str:
    text = re.sub(r"^`\[[^`]*\]`: ", "", inspect.getdoc(settings) or "")
    return text[0].upper() + text[1:]


def _entry(option: Option) -> str:
    return f"{_comment(' '.join([option.declared['text'], *_facts(option)]))}\n# {option.name} = {toml(option.shown)}"


def _facts(option: Option) -> Iterator[str]:
    low, high, unit = (option.declared[key] for key in ("at_least", "at_most", "unit"))
    if issubclass(option.kind, StrEnum):
        yield f"One of: {', '.join(choices_of(option.kind, option.declared))}."
    if unit:
        yield f"Unit: {unit}."
    if low is not None and high is not None:
        yield f"From {low} to {high}."
    elif low is not None:
        yield f"At least {low}."
    elif high is not None:
        yield f"At most {high}."
    if option.required:
        yield "Required."
    elif "Default:" not in option.declared["text"]:
        yield f"Default: {'none' if option.default is None else toml(option.default)}."


def _comment(text: str) -> str:
    paragraphs = (textwrap.fill(part, width=116, break_on_hyphens=False) for part in text.strip().split("\n\n"))
    return textwrap.indent("\n\n".join(paragraphs), "# ", lambda _: True).replace("# \n", "#\n")


if __name__ == "__main__":
    EXAMPLE.write_text(example(settings_classes()), encoding="utf-8")
