"""The command line `promptecho`: one sub-command per stage, each a thin call into the library.

Start-up stays light: the modules in `promptecho.commands` import torch, transformers and similar libraries inside
their functions only.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import traceback

import typer

import promptecho
from promptecho import commands, plugins
from promptecho.commands import examples
from promptecho.commands.group import CommandGroup
from promptecho.errors import PromptEchoError

app = typer.Typer(
    name="promptecho",
    cls=CommandGroup,
    help="Make a text-to-image model follow its prompts better: a vision-language model looks at each image, and how "
    "likely it finds the prompt as the description is the reward. Each stage of the workflow is a command; Snakemake "
    "starts them, and so can you. `promptecho COMMAND --help` explains one.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # boxes cut long words off in a terminal of 80 columns
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
    allow_plugins: bool = typer.Option(
        False,
        "--allow-plugins",
        help="Run the code that a configuration from outside this folder names in `plugins`.",
    ),
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    if allow_plugins:
        plugins.allow()


for _module in sorted(module.name for module in pkgutil.iter_modules(commands.__path__)):
    if hasattr(_loaded := importlib.import_module(f"promptecho.commands.{_module}"), "register"):
        _loaded.register(app)
for _info in app.registered_groups:
    assert _info.typer_instance is not None, "each is added as one"
    _own = _info.typer_instance.info.cls
    _info.cls = _own if isinstance(_own, type) and issubclass(_own, CommandGroup) else CommandGroup
examples.attach(app)


def main() -> None:
    """Console script. Exit codes: 0 success, 1 an error told in one line, 2 wrong usage, 130 Ctrl-C."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")  # accepted anywhere on the line
    if "--allow-plugins" in sys.argv:
        sys.argv.remove("--allow-plugins")
        plugins.allow()
    try:
        app()
    except PromptEchoError as error:
        if debug:
            traceback.print_exc()
        # One write: ranks share a stderr, and torchrun's are unbuffered, where print() writes its line end separately.
        sys.stderr.write("".join(f"promptecho: {line}\n" for line in str(error).splitlines()))
        sys.exit(1)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            if debug:
                traceback.print_exc()
            sys.stderr.write("promptecho: interrupted; the same command goes on\n")
        raise


if __name__ == "__main__":
    main()
