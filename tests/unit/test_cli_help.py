"""Every command explains itself: examples that the parser takes, options with help and default, stages in order."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.commands.examples import EXAMPLES
from promptecho.commands.group import BESIDE, STAGES

ROOT = Path(__file__).resolve().parent.parent.parent
UsageError = typer.BadParameter.__bases__[0]
GROUP = typer.main.get_command(app)


def commands(command: Any = GROUP, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if words:
        yield " ".join(words), command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*words, name))


COMMANDS = dict(commands())
LEAVES = {name: command for name, command in COMMANDS.items() if not hasattr(command, "commands")}
RUNS_ALONE = {"gpus", "gpus run"}  # a group that is a command too


def parse(line: str) -> typer.Context:
    """The context of the innermost command, its arguments parsed and checked as a call would."""
    program, *arguments = shlex.split(line, comments=True)
    assert program == "promptecho", line
    context = GROUP.make_context("promptecho", arguments)
    while hasattr(context.command, "commands"):
        rest = [*context._protected_args, *context.args]
        if not rest and context.command.invoke_without_command:
            break
        name, command, rest = context.command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    return context


def test_the_examples_are_those_of_the_commands():
    assert not set(EXAMPLES) - set(COMMANDS), "examples of commands that there are not"
    missing = set(LEAVES) - set(EXAMPLES)
    assert not missing, f"write examples in promptecho/commands/examples.py: {sorted(missing)}"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_examples_and_options_with_help_and_default(name):
    command = COMMANDS[name]
    assert command.help and command.help.strip().split("\n\n")[0].endswith((".", ":")), name
    assert command.epilog and "promptecho" in command.epilog, name
    for option in command.params:
        if getattr(option, "hidden", False) or option.name == "help":
            continue
        where = f"{name}: {option.opts[-1]}"
        assert option.help, f"{where} has no help"
        assert option.help.rstrip().endswith((".", ")")), f"{where}: {option.help!r} is no sentence"
        assert option.help[0] not in ".…" and "[" not in option.help, f"{where}: {option.help!r}"
        shown = getattr(option, "show_default", False) and option.default not in (None, "", [])
        flag = getattr(option, "is_flag", False)
        if not (option.required or flag or shown or option.param_type_name == "argument"):
            told = "efault" in option.help or "Needed, except with" in option.help
            assert told, f"{where}: the help does not say what holds without it: {option.help!r}"


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_every_example_parses(name):
    lines = [line for line in EXAMPLES[name] if not line.startswith("#")]
    assert lines
    for line in lines:
        context = parse(line)
        assert context.command_path.split()[1:] == name.split(), line
        assert line in re.sub(r" \\\n +", " ", COMMANDS[name].epilog), "pasted from the help it is another command"


@pytest.mark.parametrize(
    "line", ["promptecho train --wach results/shapes", "promptecho caption merge --out x", "promptecho gpu"]
)
def test_the_parser_of_these_tests_refuses_what_a_call_would(line):
    with pytest.raises(UsageError):
        parse(line)


def test_stages_come_in_the_order_of_the_workflow():
    text = CliRunner().invoke(app, ["--help"]).output
    places = [re.search(rf"^\W*{name} ", text, re.MULTILINE).start() for name in (*STAGES, *BESIDE)]
    assert places == sorted(places)
    assert set(STAGES) | set(BESIDE) >= {name for name in COMMANDS if " " not in name}


def test_help_fits_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name in LEAVES:
        lines = CliRunner().invoke(app, [*name.split(), "--help"]).output.splitlines()
        assert max(map(len, lines)) <= 80, name
        assert not [line for line in lines if "…" in line or line.endswith(" ...")], name


WITHOUT_FILES = [
    "promptecho shapes paths --json",
    "promptecho gpus",
    "promptecho config show config/experiments/shapes.yaml",
    "promptecho config check config/experiments/shapes.yaml config/experiments/zimage.yaml",
    "promptecho config docs --check",
    "promptecho models list --config config/experiments/zimage.yaml",
    "promptecho shapes geneval --per-tag 12 --seed 5 --out geneval.jsonl",
]


@pytest.mark.parametrize("line", WITHOUT_FILES)
def test_examples_that_need_no_results_run(line, tmp_path, monkeypatch):
    assert line in [one for lines in EXAMPLES.values() for one in lines]
    for name in ("config", "workflow", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
