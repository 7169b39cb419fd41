"""Whether a job can be named and started by a command line: Linux limits its length, environment included."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping

from . import identity

_NEVER_TOO_LONG = 30_000
_LONGEST_WORD = 128 * 1024 - 1  # Linux: MAX_ARG_STRLEN, less the byte that ends it
_MOST = 6 * 1024 * 1024  # Linux: three quarters of a stack of 8 MiB, also where the limit of the stack is higher
_OF_SLURM = 64 * 1024  # for the variables that a job finds beside those of this process


def why_too_long(job, command: str, environment: Mapping[str, str] | None = None) -> str | None:
    """Why a node could not start the `command` of a Snakemake job, in one line; None if it can.

    The command goes to the node in a file; here it is about the program in it, Snakemake, with all its arguments.
    """
    if len(command) < _NEVER_TOO_LONG:
        return None
    words = [os.fsencode(word) for word in shlex.split(command)]
    variables = (os.environ if environment is None else environment).items()
    size = sum(len(word) + 9 for word in words)  # with its end and a pointer
    size += sum(len(os.fsencode(name)) + len(os.fsencode(value)) + 10 for name, value in variables)
    most = _limit() - _OF_SLURM
    longest = max(words, key=len)
    if len(longest) > _LONGEST_WORD:
        begin = os.fsdecode(longest[:40])
        return f"its command has an argument of {_kilobytes(len(longest))} ({begin}...), but Linux takes 131 kB for one"
    if size <= most:
        return None
    if job.is_group():
        n = len(identity.single_jobs(job))
        fit = max(n * most // size * 9 // 10, 1)
        fix = f"make the group smaller: it has {n} jobs; about {fit} fit (--group-components {job.groupid}=N)"
    else:
        fix = "shorten what Snakemake hands on to jobs, such as --config"
    return f"its command line and environment have {_kilobytes(size)}, but this system takes {_kilobytes(most)}; {fix}"


def why_not_named(job) -> str | None:
    """Why the Snakemake in a job would not understand which job it is to run, in one line; None if it would.

    The one here names it by wildcards, quoted as Python does it (`snakemake_interface_executor_plugins.utils`).
    """
    for one in identity.single_jobs(job):
        values = {name: str(value) for name, value in (one.wildcards_dict or {}).items()}
        together = "".join(values.values())
        quoted = repr(together)[1:-1] != together or ("'" in together and set(together) & set("$`"))
        wrong = [name for name, value in values.items() if "," in value or value.strip("'\"") != value]
        if quoted or wrong:
            name = wrong[0] if wrong else max(values, key=lambda name: _oddness(values[name]))
            return (
                f"wildcard {name}={values[name]!r}: Snakemake can't hand on commas, backslashes, control characters or "
                "such quotes to a job; give it another value, or make the rule a localrule"
            )
    return None


def _oddness(value: str) -> int:
    return sum(character in "'\"\\$`" or not character.isprintable() for character in value)


def _limit() -> int:
    """Bytes of arguments and environment. The stack's limit decides, and Slurm gives jobs that of this host."""
    here = os.sysconf("SC_ARG_MAX")
    return min(here, _MOST) if here > 0 else 2 * 1024 * 1024


def _kilobytes(size: int) -> str:
    return f"{size / 1000:,.0f} kB"
