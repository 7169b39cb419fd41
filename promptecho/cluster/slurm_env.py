"""The process group that `srun` describes, in the variables that torch and DeepSpeed know."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping

from promptecho.errors import ConfigError

NEEDED = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST")
# Steps that are no step of ranks: the batch script, external processes, an interactive shell.
FIRST_SPECIAL_STEP = 0xFFFFFFF0
# Outside Linux's ephemeral ports (32768 and up), where a client may hold any.
FIRST_PORT, PORTS = 20000, 10000


def resolves(host: str) -> bool:
    """Whether this machine knows an address of `host`."""
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


def ranks_of_step(environ: Mapping[str, str], resolves: Callable[[str], bool] = resolves) -> dict[str, str]:
    """RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT of a task that `srun` started beside
    others.

    Empty where RANK is set (another launcher started this process), and outside of a step of several tasks. The
    batch script is outside: it has SLURM_PROCID=0 and the job's SLURM_NTASKS too, but no SLURM_STEP_NUM_TASKS.

    Rank 0 is on the step's first node. Its name is MASTER_ADDR where it resolves; where it does not,
    SLURM_LAUNCH_NODE_IPADDR is: the machine of srun, which is the same one when a batch script calls srun.

    Raises:
        ConfigError: variables of the step are missing or unreadable; names them.
    """
    if "RANK" in environ or int(environ.get("SLURM_STEP_NUM_TASKS") or 1) < 2:
        return {}
    missing = [name for name in NEEDED if not environ.get(name)]
    if missing:
        raise ConfigError(
            f"started by srun with {environ['SLURM_STEP_NUM_TASKS']} tasks, but without {', '.join(missing)}: start "
            "the ranks with `srun --export=ALL`, or set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT"
        )
    numbers = {}
    for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_RESTART_COUNT"):
        value = environ.get(name) or "0"
        if not value.isdecimal():
            raise ConfigError(f"{name}={value!r} is no number; srun sets it: start the ranks with srun again")
        numbers[name] = int(value)
    if numbers["SLURM_STEP_ID"] >= FIRST_SPECIAL_STEP:
        return {}
    host = first_host(environ["SLURM_STEP_NODELIST"])
    if not resolves(host):
        address = environ.get("SLURM_LAUNCH_NODE_IPADDR")
        if not address:
            raise ConfigError(
                f"the step's first node {host} has no address here, and srun left no SLURM_LAUNCH_NODE_IPADDR: set "
                "RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT in the task"
            )
        host = address
    return {
        "RANK": str(numbers["SLURM_PROCID"]),
        "WORLD_SIZE": environ["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": str(numbers["SLURM_LOCALID"]),
        **tasks_per_node(environ.get("SLURM_STEP_TASKS_PER_NODE", "")),
        "MASTER_ADDR": host,
        "MASTER_PORT": str(
            port(numbers["SLURM_JOB_ID"], numbers["SLURM_STEP_ID"], numbers["SLURM_RESTART_COUNT"]),
        ),
    }


def tasks_per_node(counts: str) -> dict[str, str]:
    """LOCAL_WORLD_SIZE from `2(x3)` or `4`; nothing where nodes have different numbers of tasks, or the count is not
    given."""
    match = re.fullmatch(r"(\d+)(?:\(x\d+\))?", counts.strip())
    return {"LOCAL_WORLD_SIZE": match[1]} if match else {}


def port(job: int, step: int, restarts: int) -> int:
    """A port from 20000 to 29999 on which all tasks of a step agree without communication.

    Jobs with neighbouring ids on one node get different ports (101 and 10000 have no common divisor), and so does
    the same job's next step or start, in case a port is taken.
    """
    return FIRST_PORT + (101 * job + 11 * step + 1009 * restarts) % PORTS


def first_host(nodelist: str) -> str:
    """The first name of a Slurm host list: `n[01-03,7],m2` begins with n01.

    Raises:
        ConfigError: it is no host list.
    """
    entry = re.match(r"(?:[^\[\],]|\[[^\[\]]*\])+(?=,|$)", nodelist.strip())
    if entry:
        # Each bracket holds numbers and ranges; the first name takes the first number of each.
        host = re.sub(r"\[(\d+)(?:-\d+)?(?:,\d+(?:-\d+)?)*\]", r"\1", entry.group())
        if not set(host) & set("[], "):
            return host
    raise ConfigError(f"SLURM_STEP_NODELIST={nodelist!r} is no host list such as n[01-03,7],m2")
