"""slurmctld itself, asked about single jobs before an end that no outcome file describes is accepted.

squeue may answer from a cache that is a minute old, or leave jobs out; sacct may never have heard of an end.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from pathlib import Path

from . import queue
from .queue import State
from .slurm import SlurmError, SlurmUnreachableError, call

LONGEST_CACHE_S = 90  # sites keep squeue's answers for up to a minute
_MOST_CALLS = 20  # more than these: all jobs of the cluster in one
_UNKNOWN = re.compile(r"invalid job id|^(scontrol|scancel): job \S+ not found", re.IGNORECASE)
_FIELDS = re.compile(
    r"JobId=(?P<id>\d+)(?: ArrayJobId=(?P<array>\d+) ArrayTaskId=(?P<tasks>\S+))?.*? JobName=(?P<name>.*?) UserId="
    r".*? JobState=(?P<state>\w+) Reason=(?P<reason>.*?) Dependency="
    r"(?:.*? Command=(?P<command>.*?)(?: SubmitLine=.*?)? WorkDir=)?"  # SubmitLine: after 24.11
)
_SPAN = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")


def read_scontrol(job_ids: Sequence[str]) -> dict[str, State]:
    """State of jobs, by id (`12`, `12_3`); those that slurmctld does not know are left out.

    Raises:
        SlurmError: slurmctld does not answer, or does not let itself be asked.
    """
    mains = sorted({job_id.partition("_")[0] for job_id in job_ids})
    states: dict[str, State] = {}
    for words in [[]] if len(mains) > _MOST_CALLS else [[main] for main in mains]:
        try:
            text = call("scontrol", "--oneliner", "show", "job", *words)
        except SlurmUnreachableError:
            raise
        except SlurmError as error:
            if not is_unknown(error):
                raise
            continue
        for line in text.splitlines():
            states.update(_parse(line))
    found = {}
    for job_id in job_ids:
        main, _, _ = job_id.partition("_")
        state = states.get(job_id, states.get(f"{main}_*"))
        if state is not None:
            found[job_id] = state
    return found


def is_unknown(error: SlurmError) -> bool:
    """Whether slurmctld has answered that it has no such job."""
    return _UNKNOWN.search(str(error)) is not None


def _parse(line: str) -> dict[str, State]:
    fields = _FIELDS.match(line)
    if fields is None:
        return {}
    reason = fields["reason"]
    command = fields["command"] or ""
    state = State(
        fields["state"], "" if reason == "None" else reason, "" if command == "(null)" else command, fields["name"]
    )
    if fields["array"] is None:
        return {fields["id"]: state}
    return {f"{fields['array']}_{index}": state for index in _indices(fields["tasks"])}


def _indices(text: str) -> list[str]:
    """`0-2,7%256` in single numbers; `*` for a list that Slurm has cut (`1,3,5,...`, `1,27-...`)."""
    found: list[str] = []
    for part in text.partition("%")[0].split(","):
        span = _SPAN.fullmatch(part)
        if span is None:
            return ["*"]
        first, last, step = (int(number) if number else None for number in span.groups())
        found += map(str, range(first, (first if last is None else last) + 1, step or 1))
    return found


def find_submission(folder: Path, called: float) -> str | None:
    """Id of the job (array) whose batch script lies in `folder`; None if there is none, and none can come any more.

    `called` is when sbatch was called, in seconds since the epoch.

    Raises:
        SlurmUnreachableError: that can't be known yet.
        SlurmError: squeue failed.
    """
    if (pid := _caller(folder)) is not None:
        raise SlurmUnreachableError(f"sbatch of {folder.name} is still under way (process {pid})")
    if (found := queue.find_script(folder)) is not None:
        return found
    try:
        return _find_in_controller(folder)
    except SlurmUnreachableError:
        raise
    except SlurmError as error:
        with contextlib.suppress(SlurmError):
            if (found := _find_in_accounting(folder, called)) is not None:
                return found
        left = called + LONGEST_CACHE_S - time.time()
        if left > 0:
            raise SlurmUnreachableError(
                f"{error}: squeue alone does not tell whether {folder.name} was submitted, and its answer may be old; "
                f"asking it again for {left:.0f} s"
            ) from None
        return None


def _caller(folder: Path) -> int | None:
    """The process on this machine that submits `folder`'s script: sbatch survives a kill of its Snakemake."""
    script = str(folder / queue.SCRIPT).encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if script in words and any(word.endswith(b"sbatch") for word in words):
                return int(path.parent.name)
    return None


def _find_in_controller(folder: Path) -> str | None:
    try:
        text = call("scontrol", "--oneliner", "show", "job")
    except SlurmError as error:
        if not is_unknown(error):
            raise
        return None
    for line in text.splitlines():
        fields = _FIELDS.match(line)
        if fields is not None and queue.is_from(fields["command"] or "", folder):
            return fields["array"] or fields["id"]
    return None


def _find_in_accounting(folder: Path, called: float) -> str | None:
    """sacct has the command line of sbatch since Slurm 21.08."""
    start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(called - 600))
    text = call(
        "sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,SubmitLine", f"--starttime={start}"
    )  # fmt: skip
    for line in text.splitlines():
        job_id, _, words = line.partition("|")
        if str(folder / queue.SCRIPT) in words:
            return job_id.partition("_")[0]
    return None
