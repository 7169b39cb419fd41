"""What Slurm says about jobs: one squeue for all of them, sacct for those that squeue has forgotten."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .slurm import call

SCRIPT = "submission.sh"  # the batch script, in LOGDIR/RULE/SUBMISSION
# States of a job that will go on by itself. PREEMPTED is one only while a requeue follows, and shows as PENDING then.
ALIVE = {
    "PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT",
    "REQUEUED", "REQUEUE_FED", "RESV_DEL_HOLD", "POWER_UP_NODE", "EXPEDITING", "UPDATE_DB",
}  # fmt: skip
# Held by Slurm itself: such a job never goes on unless somebody releases it.
STUCK = {"REQUEUE_HOLD", "SPECIAL_EXIT", "REVOKED"}
STUCK_REASONS = ("launch failed requeued held", "job_requeued_in_held_state", "JobHoldMaxRequeue")
# Not the job's fault; a new allocation may serve.
INFRASTRUCTURE = {"PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "TIMEOUT"}


@dataclass(frozen=True)
class State:
    """One job's state in Slurm's words, without what follows it (`CANCELLED by 0`)."""

    state: str
    detail: str = ""  # why it waits, or who cancelled it, or where it ran
    script: str = ""  # its batch script, where Slurm says so
    name: str = ""

    @property
    def stuck(self) -> bool:
        return self.state in STUCK or (
            self.state == "PENDING" and any(_plain(reason) in _plain(self.detail) for reason in STUCK_REASONS)
        )

    @property
    def alive(self) -> bool:
        return self.state in ALIVE and not self.stuck


def _plain(reason: str) -> str:
    """scontrol writes underscores where squeue has spaces."""
    return reason.lower().replace("_", " ")


def read_squeue() -> dict[str, State]:
    """State of each of this user's jobs that slurmctld knows, ended ones included, by id (`12`, `12_3`).

    Raises:
        SlurmError: squeue failed.
    """
    text = call("squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T|%r|%j|%o")
    rows = [line.split("|", 4) for line in text.splitlines() if line.count("|") >= 4]  # SLURM_CLUSTERS brings headers
    return {
        job_id: State(state, "" if reason == "None" else reason, "" if script == "(null)" else script, name)
        for job_id, state, reason, name, script in rows
    }


def is_from(script: str, folder: Path) -> bool:
    """Whether a batch script, as squeue names it, is the one of a submission's folder."""
    return script.startswith(str(folder / SCRIPT))


def read_sacct(job_ids: Iterable[str]) -> dict[str, State]:
    """The same from accounting, for the jobs asked for; those it doesn't know are left out.

    Array tasks that were cancelled before they began have one line together, with the array's id.

    Raises:
        SlurmError: there is no accounting, or it does not answer.
    """
    asked = sorted(job_ids)
    text = call(
        "sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State,NodeList",
        f"--jobs={','.join(asked)}",
    )  # fmt: skip
    states = {}
    for line in text.splitlines():
        job_id, _, rest = line.partition("|")
        state, _, nodes = rest.partition("|")
        word, _, rest = state.partition(" ")
        if word:
            states[job_id] = State(word, rest or (f"on {nodes}" if nodes else ""))
    return {one: states.get(one) or states[_array(one)] for one in asked if one in states or _array(one) in states}


def _array(job_id: str) -> str:
    return job_id.partition("_")[0]


def find_script(folder: Path) -> str | None:
    """Id of the job (array) whose batch script lies in `folder`; None if squeue lists none.

    Raises:
        SlurmError: squeue failed.
    """
    for line in call("squeue", "--me", "--noheader", "--states=all", "--format=%F|%o").splitlines():
        job_id, _, command = line.partition("|")
        if is_from(command, folder):
            return job_id
    return None
