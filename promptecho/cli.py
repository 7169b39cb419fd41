"""The command line `promptecho`: one sub-command per stage, each a thin call into the library.

Start-up stays light: the modules in `promptecho.commands` import torch, transformers and the like inside
their functions only.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import traceback

import typer

import promptecho
from promptecho import commands
from promptecho.errors import PromptEchoError

app = typer.Typer(
    name="promptecho",
    help="Make a text-to-image model follow prompts better: a vision-language model's log-probability is the reward.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(promptecho.__version__)
        raise typer.Exit()


@app.callback()
def _options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error instead of one line."),
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    pass


for _module in sorted(module.name for module in pkgutil.iter_modules(commands.__path__)):
    importlib.import_module(f"promptecho.commands.{_module}").register(app)


def main() -> None:
    """Console script. Exit codes: 0 success, 1 an error told in one line, 2 wrong usage."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")  # accepted anywhere on the line
    try:
        app()
    except PromptEchoError as error:
        if debug:
            traceback.print_exc()
        # One write: ranks share a stderr, and torchrun's are unbuffered, where print() writes its line end separately.
        sys.stderr.write("".join(f"promptecho: {line}\n" for line in str(error).splitlines()))
        sys.exit(1)
    except KeyboardInterrupt:
        print("promptecho: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
