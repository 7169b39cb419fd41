"""The resource `slurm_extra`: flags of sbatch that neither another resource nor the executor sets."""

from __future__ import annotations

import re
import shlex

_SHORT = {
    "A": "account", "a": "array", "B": "extra-node-info", "b": "begin", "C": "constraint", "c": "cpus-per-task",
    "D": "chdir", "d": "dependency", "e": "error", "F": "nodefile", "G": "gpus", "H": "hold", "h": "help",
    "I": "immediate", "i": "input", "J": "job-name", "k": "no-kill", "L": "licenses", "M": "clusters",
    "m": "distribution", "N": "nodes", "n": "ntasks", "O": "overcommit", "o": "output", "p": "partition",
    "Q": "quiet", "q": "qos", "S": "core-spec", "s": "oversubscribe", "t": "time", "u": "usage", "V": "version",
    "v": "verbose", "W": "wait", "w": "nodelist", "x": "exclude",
}  # fmt: skip
# Flag -> the resource that sets it; None: the executor's own business.
_OWNED: dict[str, str | None] = {
    "account": "slurm_account", "constraint": "constraint", "cpus-per-gpu": "cpus_per_task",
    "cpus-per-task": "cpus_per_task", "exclusive": "exclusive", "gpus": "gpu", "gpus-per-node": "gpus_per_node",
    "gpus-per-socket": "gpus_per_node", "gpus-per-task": "gpus_per_node", "gres": "gres", "mem": "mem_mb",
    "mem-per-cpu": "mem_mb_per_cpu", "mem-per-gpu": "mem_mb", "nodefile": "nodes", "nodes": "nodes", "ntasks": "tasks",
    "ntasks-per-gpu": "tasks_per_node", "ntasks-per-node": "tasks_per_node", "partition": "slurm_partition",
    "qos": "qos", "reservation": "reservation", "time": "runtime", "time-min": "runtime",
    **dict.fromkeys((
        "array", "chdir", "clusters", "comment", "error", "export", "export-file", "help", "immediate", "job-name",
        "no-requeue", "open-mode", "output", "parsable", "quiet", "requeue", "signal", "test-only", "usage",
        "version", "wait", "wrap",
    )),
}  # fmt: skip


def parse(value: object) -> tuple[tuple[tuple[str, str | bool], ...], list[str]]:
    """Long names (without dashes) with their values, True for a flag that has none; and what is wrong with them."""
    if value is None:
        return (), []
    if not isinstance(value, str) or not value.strip():
        return (), ["must be flags of sbatch, such as '--nice=100'; leave it out if there are none"]
    try:
        words = shlex.split(value)
    except ValueError as error:
        return (), [f"can't be split into words ({error}); mend the quotes"]
    flags: dict[str, str | bool] = {}
    problems = []
    last = None
    for word in words:
        if not word.startswith("-"):
            if last is None or flags[last] is not True:
                problems.append(f"{word!r} belongs to no flag; flags begin with '-'")
            else:
                flags[last] = word
            continue
        last, argument = _flag(word)
        if last is None:
            problems.append(f"{word!r} is no flag of sbatch; leave it out")
            continue
        if last in flags:
            problems.append(f"--{last} is there twice; keep one")
        flags[last] = argument
    flags = {_clusters(name): argument for name, argument in flags.items()}
    for name, argument in flags.items():
        if (name == "mem" and re.fullmatch(r"0+[KMGT]?B?", str(argument), re.IGNORECASE)) or (
            name == "clusters" and isinstance(argument, str)
        ):
            continue  # all memory of the node; and a name that is to be compared with this cluster's
        if owner := _owner(name):
            problems.append(f"--{name} {owner}")
        if isinstance(argument, str) and (not argument.isprintable() or set(argument) & set("'\"\\")):
            problems.append(f"--{name}: quotes, backslashes and line breaks can't be passed on; leave them out")
    return tuple(sorted(flags.items())), problems


def _flag(word: str) -> tuple[str | None, str | bool]:
    """`--name=value`, `--name`, `-nVALUE` or `-n` as long name and value (True where there is none yet)."""
    if word.startswith("--"):
        name, equals, argument = word[2:].partition("=")
        return (name if re.fullmatch(r"[a-z][a-z0-9-]+", name) else None), (argument if equals else True)
    return _SHORT.get(word[1:2]), (word[2:] or True)


def _clusters(name: str) -> str:
    return "clusters" if len(name) > 2 and "clusters".startswith(name) else name


def _owner(name: str) -> str | None:
    """Why a flag is refused, or None. sbatch takes unambiguous beginnings of names too."""
    found = [name] if name in _OWNED else [flag for flag in _OWNED if flag.startswith(name)]
    if not found:
        return None
    resource = _OWNED[found[0]]
    return f"is set by the resource {resource}; use that" if resource else "is set by the executor; leave it out"
