"""The packaged scanseal.toml says everything about every option, and the reader takes it."""

from __future__ import annotations

import dataclasses
import re
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.config import AgentSettings, load
from enroll.config import EnrollSettings
from enroll.errors import ConfigurationError
from enroll.statefile import StateFiles
from scripts.make_example_configuration import EXAMPLE, SAMPLES, example, settings_classes

OPTION_LINE = re.compile(r"^# (?=[a-z0-9_]+ = )", re.MULTILINE)


@pytest.fixture(scope="module")
def packaged() -> str:
    return EXAMPLE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def uncommented(packaged: str) -> str:
    return OPTION_LINE.sub("", packaged)


def option_paths(settings: type, name: str = "") -> Iterator[str]:
    hints = typing.get_type_hints(settings)
    for declared in dataclasses.fields(settings):
        path = f"{name}.{declared.name}".lstrip(".")
        kind: Any = hints[declared.name]
        if dataclasses.is_dataclass(kind):
            yield from option_paths(typing.cast("type", kind), path)
        else:
            yield path


def toml_paths(table: dict[str, Any], name: str = "") -> Iterator[str]:
    for key, value in table.items():
        path = f"{name}.{key}".lstrip(".")
        if isinstance(value, dict) and value:  # an empty one is an option: tables that the operator names
            yield from toml_paths(value, path)
        else:
            yield path


def write(directory: Path, text: str) -> Path:
    path = directory / "scanseal.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_packaged_example_is_what_the_declarations_give(packaged: str) -> None:
    assert packaged == example(settings_classes()), "Run: python -m scripts.make_example_configuration"


def test_every_option_is_in_the_example_and_nothing_else(uncommented: str) -> None:
    declared = sorted([*option_paths(EnrollSettings), *option_paths(AgentSettings)])

    assert sorted(toml_paths(tomllib.loads(uncommented))) == declared


def test_every_option_is_explained(packaged: str) -> None:
    blocks = packaged.split("\n\n")
    options = [block for block in blocks if OPTION_LINE.search(block)]

    assert [block for block in options if not re.match(r"# [A-Z].*\.\n", block, re.DOTALL)] == []


def test_samples_are_given_for_known_options_only(uncommented: str) -> None:
    assert set(SAMPLES) <= set(toml_paths(tomllib.loads(uncommented)))


def test_the_reader_takes_every_option_of_the_example(tmp_path: Path, uncommented: str) -> None:
    load(write(tmp_path, uncommented), StateFiles())


def test_the_values_shown_are_the_defaults(tmp_path: Path, uncommented: str) -> None:
    optional_samples = {path.rpartition(".")[2] for path in SAMPLES} - {"serial_number"}
    shown = "\n".join(line for line in uncommented.splitlines() if line.partition(" = ")[0] not in optional_samples)
    least = '[device]\nserial_number = "CT-000123"\n'

    assert load(write(tmp_path, shown), StateFiles()) == load(write(tmp_path, least), StateFiles())


def test_the_example_as_packaged_names_the_option_that_must_be_set(tmp_path: Path, packaged: str) -> None:
    with pytest.raises(ConfigurationError, match=r"serial_number is missing"):
        load(write(tmp_path, packaged), StateFiles())


@pytest.mark.parametrize("path", [*option_paths(EnrollSettings), *option_paths(AgentSettings)])
def test_a_misspelt_option_names_the_right_one(tmp_path: Path, uncommented: str, path: str) -> None:
    table, _, name = path.rpartition(".")
    start = uncommented.index(f"\n[{table}]\n") if table else 0
    misspelt = uncommented[:start] + uncommented[start:].replace(f"\n{name} = ", f"\n{name}z = ", 1)

    with pytest.raises(ConfigurationError, match=f"Did you mean {name}[?]"):
        load(write(tmp_path, misspelt), StateFiles())


def test_only_rsa_is_offered_for_signing_keys(packaged: str) -> None:
    """PS3.15 C.2."""
    signing = packaged[packaged.index("[identity.signing]") :]

    assert "One of: rsa-2048, rsa-3072, rsa-4096. Default" in " ".join(signing.split()).replace(" # ", " ")
