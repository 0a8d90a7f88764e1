"""Help in titled groups, and the options that every command takes.

Typer knows such groups as the panels of rich, which takes long to import. These print them as text.
"""

import functools
from typing import Annotated, Any, Final

from typer import Option, Typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

# The groups that several commands share. An option without one stands under "Options".
PROGRAM: Final = "Sampler"
SAMPLES: Final = "Which samples"
OUTPUT: Final = "Output"
MACHINE: Final = "How to run it"
LIMITS: Final = "Limits"
DATA: Final = "Samples against data"
EVERYWHERE: Final = "In every command"

DEBUG: Final = "Print a traceback with an error."
VERBOSE: Final = "Print what is done on the way, and the whole report."
QUIET: Final = "Print no progress, notes or warnings; errors and the result only."


class Command(TyperCommand):
    """A command whose help has its options in groups; those of every command come last."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, with those of every command."""
        *own, help_option = super().get_params(ctx)
        return [*own, *_everywhere(), help_option]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options."""
        _write(self, ctx, formatter)


class Group(TyperGroup):
    """A group of commands, whose help has options and commands in groups."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, with those of every command."""
        *own, help_option = super().get_params(ctx)
        return [*own, *_everywhere(), help_option]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, then the commands."""
        _write(self, ctx, formatter)
        self.format_commands(ctx, formatter)


@functools.cache
def _everywhere() -> tuple[Any, ...]:
    """Return the flags that `difftool.cli.command` takes from the line: for help and shells."""
    app = Typer(add_completion=False)

    @app.command()
    def flags(
        verbose: Annotated[bool, Option("--verbose", help=VERBOSE)] = False,
        quiet: Annotated[bool, Option("--quiet", help=QUIET)] = False,
        debug: Annotated[bool, Option("--debug", help=DEBUG)] = False,
    ) -> None:
        """Take them."""

    found: tuple[Any, ...] = tuple(get_command(app).params)
    for flag in found:
        flag.expose_value = False  # the commands themselves take none of them
        flag.rich_help_panel = EVERYWHERE
    return found


def _write(command: Any, ctx: Any, formatter: Any) -> None:
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        if parameter.param_type_name == "argument":
            title = "Arguments"
        elif parameter.name == "help":
            title = EVERYWHERE
        else:
            title = parameter.rich_help_panel or "Options"
        sections.setdefault(title, []).append(record)
    last = sections.pop(EVERYWHERE)
    for title, records in (*sections.items(), (EVERYWHERE, last)):
        if records:
            with formatter.section(title):
                formatter.write_dl(records)
