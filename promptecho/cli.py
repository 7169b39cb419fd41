"""The command line `promptecho`: one sub-command per stage, each a thin call into the library.

Start-up stays light: the modules in `promptecho.commands` import torch, transformers and similar libraries inside
their functions only, and a line that names its command first, as those of the workflow do, imports that one alone.
"""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
import sys
import traceback

import typer

import promptecho
from promptecho import commands, plugins
from promptecho.commands import examples
from promptecho.commands.group import BESIDE, STAGES, CommandGroup
from promptecho.errors import PromptEchoError

# In the files of other names.
_PLACES = {"judge": "score", "reward-audit": "reward_audit", "try": "try_adapter"}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(promptecho.__version__)
        raise typer.Exit()


def _options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error instead of one line."),
    allow_plugins: bool = typer.Option(
        False,
        "--allow-plugins",
        help="Run the code that a configuration from outside this folder names in `plugins`.",
    ),
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    if allow_plugins:
        plugins.allow()


def make_app(command: str | None = None) -> typer.Typer:
    """All commands, or the one of this name, if there is one, with those of its file."""
    made = typer.Typer(
        name="promptecho",
        cls=CommandGroup,
        help="Make a text-to-image model follow its prompts better: a vision-language model looks at each image, and "
        "how likely it finds the prompt as the description is the reward. Each stage of the workflow is a command; "
        "Snakemake starts them, and so can you. `promptecho COMMAND --help` explains one.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # boxes cut long words off in a terminal of 80 columns
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "obj": _whole},
    )
    made.callback()(_options)
    names = sorted(module.name for module in pkgutil.iter_modules(commands.__path__))
    if command in (*STAGES, *BESIDE):
        names = [_PLACES.get(command, command)]
    for name in names:
        if hasattr(module := importlib.import_module(f"promptecho.commands.{name}"), "register"):
            module.register(made)
    for info in made.registered_groups:
        assert info.typer_instance is not None, "each is added as one"
        own = info.typer_instance.info.cls
        info.cls = own if isinstance(own, type) and issubclass(own, CommandGroup) else CommandGroup
    examples.attach(made)
    return made


@functools.cache
def _whole() -> typer.Typer:
    return make_app()


def __getattr__(name: str) -> typer.Typer:
    """`app`, all commands together."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _whole()


def main() -> None:
    """Console script. Exit codes: 0 success, 1 an error told in one line, 2 wrong usage, 130 Ctrl-C."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")  # accepted anywhere on the line
    if "--allow-plugins" in sys.argv:
        sys.argv.remove("--allow-plugins")
        plugins.allow()
    try:
        make_app(sys.argv[1] if len(sys.argv) > 1 else None)()
    except PromptEchoError as error:
        if debug:
            traceback.print_exc()
        # One write: ranks share a stderr, and torchrun's are unbuffered, where print() writes its line end separately.
        sys.stderr.write("".join(f"promptecho: {line}\n" for line in str(error).splitlines()))
        _end_at_once(error.exit_code)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            if debug:
                traceback.print_exc()
            sys.stderr.write("promptecho: interrupted; the same command goes on\n")
        if isinstance(end.code, int):
            _end_at_once(end.code)
        raise
    except Exception as error:
        _end_at_once(1, error)
        raise


def _end_at_once(code: int, untold: Exception | None = None) -> None:
    """End this process where a tracker has failed, whose package could wait for its network on Python's way out."""
    feed = sys.modules.get("promptecho.trackers.feed")
    if feed is None or not feed.abandoned:
        return
    if untold is not None:
        traceback.print_exception(untold)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
