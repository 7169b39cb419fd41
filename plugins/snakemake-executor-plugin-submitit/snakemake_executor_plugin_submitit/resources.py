"""What a rule's `resources:` ask of Slurm: read, checked, and said in submitit's words. No I/O.

The names are those of snakemake-executor-plugin-slurm, so that the same rules run under both. What is decided here:

- `gpu` is the number of GPUs of the whole job, as there; with `nodes` above 1 it must divide evenly among them.
- `gpu_model` alone means one GPU per node.
- `tasks` is the number of tasks of the whole job, spread evenly over `nodes`; where `tasks_per_node` is given and
  `nodes` is not, the nodes follow from the two. A job has one node and one task otherwise.
- Of `mem_mb` and `mem_mb_per_cpu` the one counts that was said more closely: by `set-resources`, then by the rule,
  then by default. Both from one place are refused, but for defaults, where `mem_mb_per_cpu` counts, as there.
- `mem_mb=0` is all memory of each node, as sbatch has it. So is `exclusive` where memory is given by default only, or
  not at all.
- `mem_mb` goes to Slurm's M (MiB) number for number, as there.
- `mpi` says nothing here: the rule's own command starts `srun`.
- `resumable` and `requeue_limit` are not Slurm's: they decide what follows a time limit (payload.py).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from snakemake_interface_common.exceptions import WorkflowError

from . import foreign_names, slurm_extra

KNOWN = (
    "slurm_partition", "slurm_account", "slurm_extra", "qos", "constraint", "reservation", "runtime", "mem_mb",
    "mem_mb_per_cpu", "cpus_per_task", "nodes", "tasks", "tasks_per_node", "gpu", "gpu_model", "gpus_per_node", "gres",
    "exclusive", "mpi", "resumable", "requeue_limit",
)  # fmt: skip
BY_DEFAULT, BY_RULE, BY_USER = range(3)  # who gave a resource (asked.py); higher numbers go before lower ones
_DEFAULT_MEM_MB = 8000  # the most that Snakemake's own default asks for
_TBD = "<TBD>"  # how Snakemake writes what it can't know yet, in a dry run
_WORD = r"[^\s'\"\\]+"
_NAME = "a name, without spaces or quotes"


class ResourcesError(WorkflowError):
    """Resources of one rule that make no job.

    `problems` are whole lines with rule, key, value and fix. `rest` is the request without the resources in `unread`,
    so that the others can be judged in the same go. `foreign`: some are of names that are not understood.
    """

    def __init__(self, problems: list[str], unread: frozenset[str], rest: Request, foreign: bool = False) -> None:
        self.problems, self.unread, self.rest, self.foreign = tuple(problems), unread, rest, foreign
        super().__init__("\n".join(problems))


@dataclass(frozen=True)
class Request:
    """What one job asks for. Equal requests can share a job array.

    `time_min` is in minutes, memory in Slurm's M per node or per CPU; None leaves the choice to the partition, and 0
    means all that a node has. `cluster` is this cluster's own name, where it is given (checks.py sees to it).
    `gres` holds what is not a GPU. `extra` holds flags of sbatch by their long names, without dashes.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    time_min: int | None = None
    mem_mb: int | None = None
    mem_mb_per_cpu: int | None = None
    cpus_per_task: int = 1
    nodes: int = 1
    tasks_per_node: int = 1
    gpus_per_node: int = 0
    gpu_type: str | None = None
    gres: str | None = None
    exclusive: bool = False
    resumable: bool = False
    requeue_limit: int | None = None
    extra: tuple[tuple[str, str | bool], ...] = ()
    cluster: str | None = None

    @property
    def cpus_per_node(self) -> int:
        return self.cpus_per_task * self.tasks_per_node

    @property
    def cpus_asked(self) -> str:
        """How a message names the processors, by the rule's words."""
        tasks = f" x {self.tasks_per_node} tasks on a node" if self.tasks_per_node > 1 else ""
        return f"cpus_per_task (or threads)={self.cpus_per_task}{tasks}"

    def sbatch_parameters(self) -> dict[str, object]:
        """Keyword arguments for `SlurmExecutor.update_parameters`; None takes a flag (and submitit's default) out.

        Nodes and tasks go past submitit's own parameters: it would wait for a result of every task, while only the
        batch script runs Python here and the rule's command starts the other ranks.
        """
        additional: dict[str, object] = {"nodes": self.nodes, **dict(self.extra)}
        if self.tasks_per_node > 1:
            additional["ntasks-per-node"] = self.tasks_per_node
        if self.cluster is not None:
            additional["clusters"] = self.cluster
        if self.reservation is not None:
            additional["reservation"] = self.reservation
        typed = f"gpu:{self.gpu_type}:{self.gpus_per_node}" if self.gpu_type else None
        return {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "time": self.time_min,
            "mem": None if self.mem_mb is None else f"{self.mem_mb}M" if self.mem_mb else "0",
            "mem_per_cpu": None if self.mem_mb_per_cpu is None else f"{self.mem_mb_per_cpu}M",
            "cpus_per_task": self.cpus_per_task,
            "gpus_per_node": None if typed else (self.gpus_per_node or None),
            "gres": ",".join(filter(None, (typed, self.gres))) or None,
            "exclusive": True if self.exclusive else None,
            "wckey": None,
            "additional_parameters": additional,
        }


class _ResourceReader:
    """Reads resources by name and collects what is wrong with them."""

    def __init__(self, rule: str, resources: Mapping[str, object], kind: str) -> None:
        self.whose = f"{kind} {rule}"
        self.given = {
            key: value
            for key, value in resources.items()
            if value is not None and not (isinstance(value, str) and value == _TBD)
        }
        self.problems: list[str] = []
        self.unread: set[str] = set()

    def refuse(self, key: str, problem: str) -> None:
        self.unread.add(key)
        self.problems.append(f"{self.whose}: {key}={self.given.get(key)!r}: {problem}")

    def number(self, key: str, least: int = 1) -> int | None:
        value = self.given.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            quoted = "; write it without quotes" if isinstance(value, str) and value.isdecimal() else ""
            return self.refuse(key, f"must be a whole number, at least {least}{quoted}")
        if value < least:
            every = "; mem_mb=0 is all memory of a node" if key == "mem_mb_per_cpu" else ""
            return self.refuse(key, f"must be at least {least}; leave it out for the default{every}")
        return value

    def word(self, key: str, pattern: str = _WORD, form: str = _NAME) -> str | None:
        value = self.given.get(key)
        if value is None:
            return None
        if not isinstance(value, str) or not re.fullmatch(pattern, value) or not value.isprintable():
            return self.refuse(key, f"must be {form}" + ("; leave it out for the default" if value == "" else ""))
        return value

    def switch(self, key: str) -> bool:
        value = self.given.get(key, False)
        # A group of jobs has the sum of its jobs' values.
        if isinstance(value, int) and value >= 0:
            return bool(value)
        word = value.lower() if isinstance(value, str) else ""
        if word in ("true", "yes", "on", "1"):
            return True
        if word not in ("false", "no", "off", "0"):
            self.refuse(key, "must be true or false")
        return False


def request_of(
    rule: str,
    resources: Mapping[str, object],
    threads: int,
    *,
    kind: str = "rule",
    origin: Mapping[str, int] | None = None,
    own: Collection[str] = (),
) -> Request:
    """The request of a rule's resources.

    `kind`: what `rule` names, for the messages. `origin`: who gave the memory, as far as it is known. `own`: names that
    the user has limited.

    Raises:
        ResourcesError: with all that is wrong with them.
    """
    read = _ResourceReader(rule, resources, kind)
    foreign = False
    for key, value in read.given.items():
        if reason := foreign_names.refusal(key, value, (*KNOWN, *foreign_names.CLUSTERS), own):
            foreign = True
            read.refuse(key, reason)
    nodes, tasks_per_node = _tasks(read)
    gpus, gpu_type, gres = _gpus(read, nodes)
    read.given.setdefault("cpus_per_task", threads)
    flags, problems = slurm_extra.parse(read.given.get("slurm_extra"))
    for problem in problems:
        read.refuse("slurm_extra", problem)
    extra = dict(flags)
    exclusive = read.switch("exclusive")
    mem, mem_per_cpu = _memory(read, origin, exclusive, all_of_it=extra.pop("mem", None) is not None)
    request = Request(
        partition=read.word("slurm_partition"),
        account=read.word("slurm_account"),
        qos=read.word("qos"),
        constraint=read.word("constraint", form="an expression of features, without spaces or quotes"),
        reservation=read.word("reservation"),
        time_min=read.number("runtime"),
        mem_mb=mem,
        mem_mb_per_cpu=mem_per_cpu,
        cpus_per_task=read.number("cpus_per_task") or 1,
        nodes=nodes,
        tasks_per_node=tasks_per_node,
        gpus_per_node=gpus,
        gpu_type=gpu_type,
        gres=gres,
        exclusive=exclusive,
        resumable=read.switch("resumable"),
        requeue_limit=read.number("requeue_limit", least=0),
        cluster=_cluster(read, extra.pop("clusters", None)),
        extra=tuple(extra.items()),
    )
    if read.problems:
        raise ResourcesError(read.problems, frozenset(read.unread), request, foreign)
    return request


def _memory(
    read: _ResourceReader, origin: Mapping[str, int] | None, exclusive: bool, all_of_it: bool
) -> tuple[int | None, int | None]:
    """Memory per node and per CPU, of which at most one is asked for; 0 per node is all that it has."""
    mem, per_cpu = read.number("mem_mb", least=0), read.number("mem_mb_per_cpu")
    if origin is None:  # who set it is not known: what is no more than Snakemake's own default may be that
        small = per_cpu is not None and mem is not None and 0 < mem <= _DEFAULT_MEM_MB
        origin = {"mem_mb": BY_DEFAULT} if small else {}
    by = {key: origin.get(key, BY_RULE) for key in ("mem_mb", "mem_mb_per_cpu") if key in read.given}
    if all_of_it:
        for key, value in (("mem_mb", mem), ("mem_mb_per_cpu", per_cpu)):
            if by.get(key, BY_DEFAULT) > BY_DEFAULT and value:
                read.refuse(key, "contradicts --mem=0 of slurm_extra; keep one of the two")
        return 0, None
    if exclusive and max(by.values(), default=BY_DEFAULT) == BY_DEFAULT:
        return 0, None
    if mem is None or per_cpu is None:
        return mem, per_cpu
    if by["mem_mb"] == by["mem_mb_per_cpu"] > BY_DEFAULT:
        read.refuse("mem_mb", f"contradicts mem_mb_per_cpu={per_cpu}; keep one of the two")
    return (mem, None) if by["mem_mb"] > by["mem_mb_per_cpu"] else (None, per_cpu)


def _cluster(read: _ResourceReader, flag: str | bool | None) -> str | None:
    """The cluster by any of the names for it; which one it may be is judged by who knows the cluster."""
    found = {key: word for key in foreign_names.CLUSTERS if (word := read.word(key)) is not None}
    if isinstance(flag, str):
        found["--clusters"] = flag
    first, *rest = list(found) or [""]
    for key in rest:
        if found[key] != found[first] and key in read.given:
            read.refuse(key, f"contradicts {first}={found[first]!r}; leave all of them out")
    return found.get(first)


def _tasks(read: _ResourceReader) -> tuple[int, int]:
    """Nodes, and tasks on each."""
    nodes, tasks, per_node = read.number("nodes"), read.number("tasks"), read.number("tasks_per_node")
    if tasks is None:
        return nodes or 1, per_node or 1
    if nodes is None and per_node is not None:
        if tasks % per_node:
            read.refuse("tasks", f"does not divide by tasks_per_node={per_node}; give nodes and tasks_per_node alone")
        return max(1, tasks // per_node), per_node
    nodes = nodes or 1
    if per_node is not None and tasks != nodes * per_node:
        read.refuse("tasks", f"contradicts nodes={nodes} x tasks_per_node={per_node}; leave tasks out")
    elif tasks % nodes:
        read.refuse("tasks", f"does not divide by nodes={nodes}; give tasks_per_node")
    return nodes, per_node or max(1, tasks // nodes)


def _gpus(read: _ResourceReader, nodes: int) -> tuple[int, str | None, str | None]:
    """GPUs per node, their type, and other generic resources, from up to four resources that must agree."""
    counts: dict[str, int] = {}
    types: dict[str, str] = {}
    total = read.number("gpu", least=0)
    if total is not None:
        if total % nodes:
            read.refuse("gpu", f"counts the whole job and does not divide by nodes={nodes}; give gpus_per_node")
        else:
            counts["gpu"] = total // nodes
    _gpus_per_node(read, counts, types)
    if model := read.word("gpu_model", r"[A-Za-z0-9_.-]+", "a GPU type as in `sinfo -o %G`, such as 'a100'"):
        types["gpu_model"] = model
    others = _gres(read, counts, types)
    if not counts and "gpu_model" in types:
        counts["gpu_model"] = 1
    for found, what in ((counts, "GPUs per node"), (types, "type of GPU")):
        first, *rest = found or [""]
        for key in rest:
            if found[key] != found[first]:
                read.refuse(key, f"{what} {found[key]}, but {first}={read.given[first]!r}: {found[first]}; keep one")
    count = max(counts.values(), default=0)
    if types and not count:
        read.refuse(next(iter(types)), "names a type of GPU, but there are 0 GPUs; leave it out, or ask for some")
    return count, next(iter(types.values()), None), others


def _gpus_per_node(read: _ResourceReader, counts: dict[str, int], types: dict[str, str]) -> None:
    """`gpus_per_node`: a number, or, as sbatch has it, TYPE:NUMBER."""
    value = read.given.get("gpus_per_node")
    if not isinstance(value, str):
        if (number := read.number("gpus_per_node", least=0)) is not None:
            counts["gpus_per_node"] = number
    elif typed := re.fullmatch(r"([A-Za-z0-9_.-]+):(\d{1,6})", value, re.ASCII):
        types["gpus_per_node"], counts["gpus_per_node"] = typed[1], int(typed[2])
    else:
        quoted = "; write a number without quotes" if value.isdecimal() else ""
        read.refuse("gpus_per_node", f"must be a whole number or TYPE:NUMBER, such as 'a100:4'{quoted}")


def _gres(read: _ResourceReader, counts: dict[str, int], types: dict[str, str]) -> str | None:
    """`gres` is per node. Its GPUs go to `counts` and `types`; returns the rest."""
    one = r"[A-Za-z_][A-Za-z0-9_/.-]*(:[A-Za-z0-9_.-]+)?(:[0-9]+[KMGT]?)?"
    value = read.word("gres", f"{one}(,{one})*", "NAME, NAME:NUMBER or NAME:TYPE:NUMBER, joined by commas")
    others = []
    for part in value.split(",") if value else ():
        name, *rest = part.split(":")
        if name != "gpu":
            others.append(part)
            continue
        number = rest.pop() if rest and re.fullmatch(r"[0-9]{1,6}", rest[-1]) else "1"
        if len(rest) > 1:
            read.refuse("gres", "must have GPUs as gpu, gpu:NUMBER or gpu:TYPE:NUMBER")
        elif "gres" in counts:
            read.refuse("gres", "names GPUs twice; one kind per rule")
        else:
            counts["gres"] = int(number)
            if rest:
                types["gres"] = rest[0]
    return ",".join(others) or None
