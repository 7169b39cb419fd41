"""The command that runs one job alone again."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterable, Sequence

_FORCE = ("-F", "--forceall")  # would run again all that this job needs


def rerun_command(arguments: Sequence[str], targets: Iterable[str], target: str, python: str) -> str:
    """The command line that Snakemake was called with, for one target.

    `arguments` is sys.argv; `targets` are those that Snakemake took from it; `python` runs Snakemake now.
    """
    program, *words = arguments
    if "--" in words:
        words = words[: words.index("--")]
    elif targets := set(targets):
        words = _without(words, targets)
    words = [word for word in words if word not in _FORCE]
    start = [_short(python), "-m", "snakemake"] if program.endswith("__main__.py") else [_short(program)]
    return shlex.join([*start, *words, "--", target])


def _without(words: list[str], targets: set[str]) -> list[str]:
    """`words` less the targets. The value of an option may look like one, so no more are taken than there are: first
    those at the begin, then those after something that is no option, from the end, then the others."""
    found = [index for index, word in enumerate(words) if word in targets]
    first = [index for index in found if set(words[: index + 1]) <= targets]
    plain = [index for index in reversed(found) if index and not words[index - 1].startswith("-")]
    order = dict.fromkeys([*first, *plain, *reversed(found)])
    dropped, left = set(), set(targets)
    for index in order:
        if words[index] in left:
            left.remove(words[index])
            dropped.add(index)
    return [word for index, word in enumerate(words) if index not in dropped]


def _short(program: str) -> str:
    """Its name alone where the shell finds the same program by it."""
    name = os.path.basename(program)
    return name if shutil.which(name) == program else program
