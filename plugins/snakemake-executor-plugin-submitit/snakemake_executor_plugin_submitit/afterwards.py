"""Why a job has failed, asked of Slurm where the job itself can't know: one question for all that failed lately.

A command sees an exit code; that Slurm killed it at its time limit, or a step of it on another node for lack of memory,
is known to Slurm alone, and a moment after the end only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from . import queue, slurm
from .queue import State
from .task import WAITING, Task, TaskVerdict, judge_state

PATIENCE_S = 10.0  # for Slurm to notice an end
_PAUSE_S = 5.0  # between two questions
_PAUSE_AFTER_ERROR_S = 60.0
_TIMEOUT_S = 20.0  # other jobs wait for the answer too
_SAYS_MORE = {
    "OUT_OF_MEMORY", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE", "CANCELLED", "REVOKED",
    "LAUNCH_FAILED", "RECONFIG_FAIL",
}  # fmt: skip


@dataclass(frozen=True)
class End:
    """What Slurm says of a job that has failed; memory in accounting's words, empty where there is none."""

    state: State
    asked: str = ""
    used: str = ""
    signal: int = 0  # above 31: Slurm's own numbers, such as 53 where the log can't be opened

    @property
    def memory(self) -> str:
        if not self.used:
            return ""
        return f" (of {self.asked} it was seen to use {self.used})" if self.asked else f" (seen to use {self.used})"


class Afterwards:
    """Makes failures clearer, or holds them back for some seconds until Slurm knows more."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}  # when a job was first seen failed, by id
        self._not_before = -math.inf

    def settle(self, failed: Sequence[tuple[Task, TaskVerdict]], now: float, requeue_limit: int) -> list[TaskVerdict]:
        """The verdict for each, in order; WAITING for those that are to be given here again."""
        unclear = [one for one, verdict in failed if verdict.unclear]
        self._since = {one.job_id: self._since.get(one.job_id, now) for one in unclear}
        ends = self._ask(unclear, now)
        settled = []
        for one, verdict in failed:
            end = ends.get(one.job_id)
            if end is not None and not end.state.alive:
                settled.append(_clearer(one, verdict, end, now, requeue_limit))
            elif verdict.unclear and not _ended(one) and self._patient(one, now):
                settled.append(WAITING)
            else:
                settled.append(verdict)
        return settled

    def _patient(self, one: Task, now: float) -> bool:
        """Slurm can be asked, and may not have noticed the end yet."""
        return self._not_before - now <= _PAUSE_S and now - self._since[one.job_id] < PATIENCE_S

    def _ask(self, tasks: Sequence[Task], now: float) -> dict[str, End]:
        """Nothing where it is not time for a question, or Slurm does not answer."""
        wait = self._not_before - now
        # Those whose end Slurm has reported are not given here again.
        if not tasks or wait > _PAUSE_S or (wait > 0 and not any(map(_ended, tasks))):
            return {}
        self._not_before = now + _PAUSE_S
        try:
            return read_ends({one.job_id for one in tasks})
        except slurm.SlurmError:
            pass  # sites without accounting
        try:
            states = queue.read_squeue()
        except slurm.SlurmError:
            self._not_before = now + _PAUSE_AFTER_ERROR_S
            return {}
        known = {one.job_id: one.state_in(states) for one in tasks}
        return {job_id: End(state) for job_id, state in known.items() if state is not None}


def _ended(one: Task) -> bool:
    return one.state is not None and not one.state.alive


def _clearer(one: Task, verdict: TaskVerdict, end: End, now: float, requeue_limit: int) -> TaskVerdict:
    if _ended(one):  # judged by Slurm's word already
        if verdict.out_of_memory:
            return replace(verdict, reason=verdict.reason + end.memory)
        by = f"; its batch script was killed by signal {end.signal}" if 0 < end.signal < 32 else ""
        perhaps = ", perhaps for lack of memory on its node" if end.signal == 9 else ""
        return replace(verdict, reason=verdict.reason + by + perhaps)
    if end.state.state not in _SAYS_MORE:
        return verdict
    judged = judge_state(one, end.state, now, 0.0, requeue_limit)
    return replace(judged, reason=f"{verdict.reason}; {judged.reason}{end.memory if judged.out_of_memory else ''}")


def read_ends(job_ids: set[str]) -> dict[str, End]:
    """From accounting, the steps of the jobs included; those it does not know are left out.

    Raises:
        SlurmError: there is no accounting, or it does not answer.
    """
    asked = f"--jobs={','.join(sorted(job_ids))}"
    columns = "--format=JobID,State,ReqMem,MaxRSS,ExitCode"
    return parse_ends(slurm.call("sacct", "--noheader", "--parsable2", columns, asked, timeout_s=_TIMEOUT_S), job_ids)


def parse_ends(text: str, job_ids: set[str]) -> dict[str, End]:
    rows: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        cells = line.split("|")
        if len(cells) >= 5:
            rows.setdefault(cells[0].partition(".")[0].partition("+")[0], []).append(cells)
    found = {}
    for job_id in job_ids & rows.keys():
        whole, *steps = sorted(rows[job_id], key=lambda cells: "." in cells[0])
        word, _, detail = whole[1].partition(" ")
        starved = [cells[0].partition(".")[2] for cells in steps if cells[1].startswith("OUT_OF_ME")]
        if word in ("FAILED", "COMPLETED") and starved:
            word, detail = "OUT_OF_MEMORY", f"step {starved[0]}"
        used = max((cells[3] for cells in rows[job_id]), key=_bytes)
        number = whole[4].partition(":")[2]
        found[job_id] = End(State(word, detail), _request(whole[2]), used, int(number) if number.isdigit() else 0)
    return found


def _request(text: str) -> str:
    """Up to 21.08 with `n` for memory per node, `c` per CPU."""
    match = re.fullmatch(r"([\d.]+[KMGTP]?)([nc]?)", text)
    if not match or float(match[1].rstrip("KMGTP")) == 0:
        return ""
    return match[1] + (" per CPU" if match[2] == "c" else "")


def _bytes(text: str) -> float:
    match = re.fullmatch(r"([\d.]+)([KMGTP]?)", text)
    return float(match[1]) * 1024 ** " KMGTP".index(match[2] or " ") if match else 0.0


def memory_advice(resources: Mapping[str, object]) -> str:
    """What a job that ran out of memory had asked for, and what to do."""
    for key in ("mem_mb_per_cpu", "mem_mb"):
        asked = resources.get(key)
        if asked == 0:
            return f"it had all memory of its node ({key}=0); give it a larger one"
        if isinstance(asked, int | float) and asked:
            return (
                f"it asked for {key}={asked:g}; ask for more, or for more each time with "
                f"`{key}=lambda wildcards, attempt: {asked:g} * attempt` and --retries 2"
            )
    return "it did not ask for memory; give it a `mem_mb`"
