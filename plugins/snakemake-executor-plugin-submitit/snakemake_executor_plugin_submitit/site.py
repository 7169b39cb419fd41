"""What the cluster has, as far as its own commands show, and which requests can never run there.

What can't be read is unknown, not absent: without slurmdbd any account goes, without slurmctld anything does. Memory
and processors are compared with the nodes' configuration, whatever runs or is drained there now.
"""

from __future__ import annotations

import getpass
import os
import pwd
import re
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from .clusters import FEDERATION, parse_siblings
from .limits import PARTITIONS, Limits, limit_problems, parse_limits
from .resources import Request
from .slurm import environment

# With -e, nodes that differ in any of these get lines of their own; -a shows hidden partitions too.
SINFO = ("sinfo", "-h", "-a", "-e", "-o", "%P|%a|%l|%s|%D|%c|%m|%G|%f")
CONFIG = ("scontrol", "show", "config")
RESERVATIONS = ("scontrol", "-o", "show", "reservation")
_MAX_ARRAY_SIZE = 1001  # Slurm's default


def associations_command(user: str) -> tuple[str, ...]:
    columns = "format=user,defaultaccount,cluster,account,partition,qos"
    return ("sacctmgr", "-n", "-P", "show", "user", user, "withassoc", columns)


@dataclass(frozen=True)
class NodeGroup:
    """Nodes alike. `memory_mb` in Slurm's M; `gpus` by type, "" for GPUs without one; `gres` the names of all."""

    count: int
    cpus: int
    memory_mb: int
    gpus: Mapping[str, int] = field(default_factory=dict)
    gres: frozenset[str] = frozenset()
    features: frozenset[str] = frozenset()

    def gpus_of(self, kind: str | None) -> int:
        if kind is None:
            return sum(self.gpus.values())
        return sum(count for name, count in self.gpus.items() if name.lower() == kind.lower())


@dataclass(frozen=True)
class Partition:
    """A partition; limits are None where there is none."""

    name: str
    default: bool
    state: str
    max_time_min: int | None
    max_nodes: int | None
    groups: tuple[NodeGroup, ...]
    limits: Limits = Limits()


@dataclass(frozen=True)
class Association:
    """The user may charge `account`, in `partition` ("" for all), with these qos (none listed: unknown)."""

    account: str
    partition: str = ""
    qos: frozenset[str] = frozenset()


def minutes(text: str) -> int | None:
    """Slurm's [DAYS-]HOURS:MINUTES:SECONDS or MINUTES:SECONDS in whole minutes; None for no limit."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if not found:
        return None
    days, hours, mins, _ = (int(part or 0) for part in found.groups())
    return (days * 24 + hours) * 60 + mins


def parse_sinfo(text: str) -> tuple[Partition, ...]:
    """Partitions from the lines of `SINFO`, in its order."""
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) != 9:
            continue
        name, state, limit, size, count, cpus, memory, gres, features = (part.strip() for part in parts)
        gpus, kinds = _gres(gres)
        group = NodeGroup(
            _int(count), _int(cpus), _int(memory), gpus, kinds, frozenset(filter(None, _plain(features).split(",")))
        )
        most = size.rpartition("-")[2]
        key = name.rstrip("*")
        known = found.get(key)
        found[key] = Partition(
            key,
            name.endswith("*"),
            state,
            minutes(limit),
            int(most) if most.isdigit() else None,
            (*(known.groups if known else ()), *((group,) if group.count else ())),
        )
    return tuple(found.values())


def parse_config(text: str) -> dict[str, str]:
    """`scontrol show config` as a mapping."""
    pairs = (line.split("=", 1) for line in text.splitlines() if " = " in line)
    return {key.strip(): value.strip() for key, value in pairs}


def parse_associations(text: str, cluster: str | None) -> tuple[str | None, tuple[Association, ...]]:
    """The default account and the user's associations with this cluster (with any, if it has no name)."""
    default, found = None, []
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) < 6:
            continue
        _, account, where, name, partition, qos = parts[:6]
        if not name or (cluster and where != cluster):
            continue
        default = default or account or None
        allowed = frozenset(word.lstrip("+") for word in qos.split(",") if word and not word.startswith("-"))
        found.append(Association(name, partition, allowed))
    return default, tuple(found)


def parse_reservations(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"^ReservationName=(\S+)", text, re.MULTILINE))


def _plain(text: str) -> str:
    return "" if text in ("(null)", "N/A", "n/a") else text


def _int(text: str) -> int:
    digits = re.match(r"\d+", text)
    return int(digits[0]) if digits else 0


def _gres(text: str) -> tuple[dict[str, int], frozenset[str]]:
    """`gpu:a100:4(S:0-1),nvme:1` as GPUs by type and names of all generic resources."""
    gpus: dict[str, int] = {}
    names = set()
    for part in filter(None, re.sub(r"\([^)]*\)", "", _plain(text)).split(",")):
        name, *rest = part.split(":")
        names.add(name)
        if name == "gpu":
            count = int(rest.pop()) if rest and rest[-1].isdigit() else 1
            kind = rest[0] if rest else ""
            gpus[kind] = gpus.get(kind, 0) + count
    return gpus, frozenset(names)


@dataclass(frozen=True)
class Site:
    """What is known of a cluster; None means unknown, and `notes` says why, a line each."""

    partitions: tuple[Partition, ...] | None = None
    config: Mapping[str, str] = field(default_factory=dict)
    default_account: str | None = None
    associations: tuple[Association, ...] | None = None
    reservations: frozenset[str] | None = None
    siblings: tuple[str, ...] = ()
    user: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, timeout_s: float = 20, reservations: bool = False) -> Site:
        """Ask Slurm, each command once and all at the same time; `reservations` only if some request names one."""
        user = _user()
        commands = [SINFO, CONFIG, associations_command(user), *([RESERVATIONS] if reservations else [])]
        # Not even known to every version of Slurm; without an answer there is one limit less to compare with.
        more = [PARTITIONS, FEDERATION]
        with ThreadPoolExecutor(len(commands) + len(more)) as pool:
            answers = list(pool.map(lambda command: _ask(command, timeout_s), [*commands, *more]))
        notes = [note for _, note in answers[: len(commands)] if note]
        sinfo, config, assoc, *booked = (text for text, _ in answers[: len(commands)])
        shown, federation = (text or "" for text, _ in answers[len(commands) :])
        parsed = parse_config(config or "")
        default, associations = parse_associations(assoc or "", parsed.get("ClusterName"))
        limits = parse_limits(shown)
        partitions = tuple(replace(one, limits=limits.get(one.name, Limits())) for one in parse_sinfo(sinfo or ""))
        return cls(
            partitions or None,
            parsed,
            default,
            None if assoc is None else associations,
            parse_reservations(booked[0]) if booked and booked[0] is not None else None,
            parse_siblings(federation),
            user,
            tuple(notes),
        )

    @property
    def max_array_size(self) -> int:
        """How many tasks a job array may have (their numbers begin with 0); 1 where there are no arrays."""
        return max(1, _int(self.config.get("MaxArraySize", str(_MAX_ARRAY_SIZE))))

    def enforces(self, what: str) -> bool:
        """Whether jobs without a valid association (or "qos") are refused."""
        words = {word.strip().lower() for word in self.config.get("AccountingStorageEnforce", "none").split(",")}
        implied = {"associations": {"associations", "limits", "qos", "safe", "wckeys", "all"}, "qos": {"qos", "all"}}
        return bool(words & implied[what])

    def problems(self, request: Request, rule: str, unread: Collection[str] = ()) -> list[str]:
        """Why this request can never run here; one line each with rule, key and what there is instead.

        `unread`: resources that the rule names in a way that makes no sense; nothing that follows from them is said.
        """
        found = [] if {"slurm_partition", "slurm_account"}.intersection(unread) else self._account_problems(request)
        if request.reservation and self.reservations is not None and request.reservation not in self.reservations:
            there = _list(self.reservations)
            found.append(f"reservation={request.reservation!r}: does not exist; there are: {there}")
        if self.partitions is not None and "slurm_partition" not in unread:
            found += self._partition_problems(request)
        return [f"rule {rule}: {line}" for line in found]

    def _partition_names(self, request: Request) -> list[str]:
        default = [partition.name for partition in self.partitions or () if partition.default]
        return request.partition.split(",") if request.partition else default

    def _partition_problems(self, request: Request) -> list[str]:
        by_name = {partition.name: partition for partition in self.partitions or ()}
        there = ", ".join(name + (" (default)" if p.default else "") for name, p in by_name.items())
        names = self._partition_names(request)
        if not names:
            return [f"slurm_partition: none is given and this cluster has no default; there are: {there}"]
        missing = [name for name in names if name not in by_name]
        found = [f"slurm_partition={name!r}: does not exist; there are: {there}" for name in missing]
        each = [_fit(by_name[name], request) for name in names if name in by_name]
        # Of several partitions Slurm takes the one that can start the job, unless the site wants it to fit all.
        every = self.config.get("EnforcePartLimits", "").upper() in ("ALL", "YES")
        if any(not lines for lines in each) and not every:
            return found
        if not each:  # what no partition has is said now, or it would be the next try's problem
            each = sorted((_fit(partition, request) for partition in by_name.values()), key=len)[:1]
            each = [[f"no partition here can run it: {line}" for line in lines] for lines in each]
        return found + [line for lines in each for line in lines]

    def _account_problems(self, request: Request) -> list[str]:
        if self.associations is None or not self.enforces("associations"):
            return []
        there = _list({a.account for a in self.associations})
        account = request.account or self.default_account
        if not self.associations:
            return [f"slurm_account: user {self.user} has no account on this cluster; ask its administrators for one"]
        if account is None:
            return [f"slurm_account: none is given and user {self.user} has no default; there are: {there}"]
        shown = f"slurm_account={account!r}" + ("" if request.account else " (the default)")
        # Slurm keeps names of accounts in lower case.
        mine = [a for a in self.associations if a.account.lower() == account.lower()]
        names = self._partition_names(request)
        here = [a for a in mine if not a.partition or a.partition in names or not names]
        found = []
        if not mine:
            found.append(f"{shown}: user {self.user} may not use it; there are: {there}")
        elif not here:
            found.append(
                f"{shown}: user {self.user} may use it in {_list({a.partition for a in mine})} only, "
                f"not in {', '.join(names)}; set slurm_partition"
            )
        # With an account that is not available, any of the user's, so that this is not the next try's problem.
        allowed = frozenset().union(*(a.qos for a in here or mine or self.associations))
        if request.qos and self.enforces("qos") and allowed and request.qos not in allowed:
            whose = f"with {shown}" if mine else f"for user {self.user}"
            found.append(f"qos={request.qos!r}: not allowed {whose}; there are: {_list(allowed)}")
        return found


def _fit(partition: Partition, request: Request) -> list[str]:
    """What of a request a partition can't give."""
    where = f"partition {partition.name!r}"
    found = []
    if partition.state != "up":
        found.append(f"slurm_partition={partition.name!r}: is {partition.state}, not up")
    if request.time_min and partition.max_time_min is not None and request.time_min > partition.max_time_min:
        found.append(f"runtime={request.time_min}: {where} allows {partition.max_time_min} minutes at most")
    every = sum(group.count for group in partition.groups)
    if partition.max_nodes is not None and request.nodes > partition.max_nodes:
        found.append(f"nodes={request.nodes}: {where} allows at most {partition.max_nodes} per job")
    elif request.nodes > every:
        found.append(f"nodes={request.nodes}: {where} has {every}")
    memory = min((group.memory_mb for group in partition.groups), default=0)
    found += limit_problems(partition.limits, request, where, memory)
    if not every:
        return found
    least = min(request.nodes, every)
    few = "no" if least == 1 else f"fewer than {least}"
    wants = _wants(request, partition.groups)
    missing = [want for want in wants if _count(partition.groups, want) < least]
    found += [f"{want.key}: {where} has {few} such nodes; its nodes have {_list(want.there)}" for want in missing]
    rest = [want for want in wants if want not in missing]  # each by itself is there
    if _count(partition.groups, *rest) < least:
        kinds = "; ".join(_describe(group) for group in partition.groups)
        keys = ", ".join(want.key for want in rest)
        found.append(f"{keys}: {where} has {few} nodes with all of these; there are: {kinds}")
    return found


@dataclass(frozen=True)
class _Want:
    """What each node must have, as the rule says it, and what the nodes have instead."""

    key: str
    there: set[str]
    fits: Callable[[NodeGroup], bool]


def _count(groups: Sequence[NodeGroup], *wants: _Want) -> int:
    return sum(group.count for group in groups if all(want.fits(group) for want in wants))


def _wants(request: Request, groups: Sequence[NodeGroup]) -> list[_Want]:
    cpus = request.cpus_per_node
    wants = [_Want(request.cpus_asked, {f"{g.cpus} CPUs" for g in groups}, lambda g: g.cpus >= cpus)]
    memory = {f"{g.memory_mb} MB" for g in groups}
    if mem := request.mem_mb:
        wants.append(_Want(f"mem_mb={mem}", memory, lambda g: g.memory_mb >= mem))
    if (each := request.mem_mb_per_cpu) is not None:
        number = "all" if request.exclusive else str(cpus)  # an exclusive job gets, and so counts, all of them
        key = f"mem_mb_per_cpu={each} x {number} CPUs"
        wants.append(_Want(key, memory, lambda g: g.memory_mb >= each * (g.cpus if request.exclusive else cpus)))
    if request.gpus_per_node:
        kind = f" of type {request.gpu_type!r}" if request.gpu_type else ""
        key = f"gpu, gpus_per_node or gres ({request.gpus_per_node} per node{kind})"
        there = {_gpus_of(group) or "no GPU" for group in groups}
        wants.append(_Want(key, there, lambda g: g.gpus_of(request.gpu_type) >= request.gpus_per_node))
    for part in request.gres.split(",") if request.gres else ():
        name = part.split(":")[0]
        there = set().union(*(g.gres for g in groups))
        wants.append(_Want(f"gres={part!r}", there, lambda g, name=name: name in g.gres))
    # An expression is Slurm's to judge.
    if request.constraint and re.fullmatch(r"[\w.:+-]+", request.constraint):
        there = set().union(*(g.features for g in groups))
        wants.append(_Want(f"constraint={request.constraint!r}", there, lambda g: request.constraint in g.features))
    return wants


def _gpus_of(group: NodeGroup) -> str:
    return " + ".join(f"{count} {kind or 'GPUs'}" for kind, count in sorted(group.gpus.items()))


def _describe(group: NodeGroup) -> str:
    gpus = f", {_gpus_of(group)}" if group.gpus else ""
    features = f", {'/'.join(sorted(group.features))}" if group.features else ""
    return f"{group.count} with {group.cpus} CPUs, {group.memory_mb} MB{gpus}{features}"


def _list(names) -> str:
    return ", ".join(sorted(names)) or "none"


def cluster_name(timeout_s: float = 20) -> str | None:
    """What slurm.conf calls the cluster of this host; None where that can't be found out."""
    text, _ = _ask(CONFIG, timeout_s)
    return parse_config(text or "").get("ClusterName")


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container without this user
        return getpass.getuser()


def _ask(command: Sequence[str], timeout_s: float) -> tuple[str | None, str | None]:
    """Standard output, or a note that says why there is none."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="surrogateescape", timeout=timeout_s,
            stdin=subprocess.DEVNULL, env=environment(),
        )  # fmt: skip
    except FileNotFoundError:
        return None, f"{command[0]}: not on this machine"
    except OSError as error:
        return None, f"{command[0]}: can't be started: {error.strerror}"
    except subprocess.TimeoutExpired:
        return None, f"{command[0]}: no answer within {timeout_s:g} s"
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        return None, f"{' '.join(command[:3])}: {lines[-1] if lines else f'exit code {done.returncode}'}"
    return done.stdout, None
