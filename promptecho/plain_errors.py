"""The workflow reports what the user has to correct in one line, without a stack of rules and functions around it.

Snakemake prints the place in the rules with each WorkflowError, wraps one that an input function raises into "Error:",
the wildcards and a traceback, and advises about input functions where a target is misspelt. All of this is about the
rules, which are right.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

from promptecho.suggest import closest


class UserError(WorkflowError):
    """A WorkflowError about what the user wrote. Snakemake finds no frames in it, so it prints its text alone."""

    @property
    def __traceback__(self) -> None:
        return None

    @__traceback__.setter
    def __traceback__(self, value: object) -> None:
        """Some libraries set it when they pass an exception on."""


UserError.__name__ = "WorkflowError"  # what Snakemake prints before the text


def in_plain_words(workflow: Any, sources: Callable[[], Mapping[str, str]] = dict) -> None:
    """Have `workflow` say in a line why it can't plan, where the reason is what the user wrote.

    Args:
        sources: gives the files and folders that the user brings, and which experiment and key name each.
    """
    build = workflow._build_dag  # the plan's own errors cannot be caught in any other place

    def build_in_plain_words() -> None:
        from snakemake.exceptions import InputFunctionException, MissingInputException, MissingRuleException

        try:
            build()
        except InputFunctionException as error:
            told = _within(error)
            if told is None:
                raise
            raise told from None
        except MissingInputException as error:
            missing = no_source(str(error), sources())
            if missing is None:
                raise
            raise UserError(missing) from None
        except MissingRuleException as error:
            target = str(error).removeprefix("No rule to produce ").partition(" (if you use input functions")[0]
            names = [rule.name for rule in workflow.rules if not rule.has_wildcards()]
            raise UserError(no_target(target, names)) from None

    workflow._build_dag = build_in_plain_words


def no_target(target: str, names: list[str]) -> str:
    """What to say of a target that no rule makes.

    Args:
        names: the rules that may be asked for by name.
    """
    if "/" in target:
        return (
            f"{target}: no rule makes a file or folder of this name; nothing was started. results/README.md lists what "
            "can be asked for by its path"
        )
    near = closest(target, names)
    known = f"did you mean {near}?" if near else f"known: {', '.join(names)}; or a path below results/"
    return f"{target}: no such target; nothing was started; {known}"


def no_source(text: str, sources: Mapping[str, str]) -> str | None:
    """What to say where Snakemake's `text` tells of a missing input; None where it is none of the sources."""
    paths = {line.strip() for line in text.splitlines()}
    found = [f"{key}: {path}: there is no such file or folder" for path, key in sources.items() if path in paths]
    if not found:
        return None
    return f"{'; '.join(found)}. Put it there, or correct the key; paths count from {Path.cwd()}. Nothing was started"


def _within(error: BaseException) -> UserError | None:
    """The UserError that an exception was raised for. It is read from the text: Snakemake keeps exceptions and raises
    them later, while it handles others, and the chain to the first one is lost."""
    found = re.match(r"Error:\n  WorkflowError:\n(.*?)\nWildcards:\n", str(error), re.DOTALL)
    return UserError(textwrap.dedent(found[1])) if found else None
