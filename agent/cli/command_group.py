"""Groups of commands of which only the one that is asked for is imported: `scanseal sign` must start quickly."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from agent.cli.exits import check_command_name


class CommandGroup(click.Group):
    """A group of commands.

    Args:
        modules: Name of a command -> module that has it as `command`.
        described: Name -> what it is for, where nothing is to be imported to say so.
        title: Of the list of what is described.
        options: See `click.Group`.
    """

    def __init__(
        self, *, modules: Mapping[str, str], described: Mapping[str, str] | None = None, title: str = "", **options: Any
    ) -> None:
        super().__init__(**options)
        self.modules = modules
        self._described = described
        self._title = title

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """In the order in which they are listed here."""
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import it."""
        if cmd_name not in self.modules:
            return None
        command: click.Command = importlib.import_module(self.modules[cmd_name]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Say which command was probably meant."""
        check_command_name(args[0], self.modules)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in the help."""
        if self._described is None:
            super().format_commands(ctx, formatter)
            return
        with formatter.section(self._title):
            formatter.write_dl(list(self._described.items()))
