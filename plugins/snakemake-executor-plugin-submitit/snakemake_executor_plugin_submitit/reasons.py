"""Why a job waits, in squeue's words, and what a person can do about it.

The names are those of Slurm's job_reason_codes (20.11 to 25.05). squeue may add details, such as the nodes in
`ReqNodeNotAvail, UnavailableNodes:n2`, so a reason is known by how it begins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .queue import State
from .task import Task

_NEVER = "can't start as it was asked for"
_STOPPED = ("RESV_DEL_HOLD", "SUSPENDED", "STOPPED")  # states of jobs that neither wait for their turn nor run


@dataclass(frozen=True)
class Advice:
    """`urgent`: somebody has to do something, or the job waits for ever."""

    text: str
    urgent: bool = True


# The first that fits counts. An empty text: nothing to report, such a job starts when its turn comes.
_REASONS: list[tuple[str, Advice]] = [
    (r"None$|Priority|Resources|Prolog|Cleaning|SchedDefer|Inva(il|li)dReason", Advice("", False)),
    (r"ReqNodeNotAvail|NodeDown|Nodes required for job|FrontEndDown|PowerNotAvail|PowerReserved",
     Advice("the nodes that it needs are down, drained or reserved; see `sinfo -R` and `scontrol show reservation`, "
            "and ask for others (nodes, `constraint`, `slurm_partition`) if they don't come back")),
    (r"ReservationDeleted|ReservationInvalid|Reservation \S+ was deleted|RESV_DEL_HOLD",
     Advice(f"it {_NEVER}: its reservation is over or gone; cancel it (`scancel JOBID`) and mend `reservation`")),
    (r"Reservation", Advice("its reservation has not begun, is over, or has no nodes free; see "
                            "`scontrol show reservation`")),
    (r"JobHeldUser", Advice("it was held by a user; let it go by `scontrol release JOBID`")),
    (r"JobHeldAdmin", Advice("it was held by an administrator, who alone can let it go; ask")),
    (r"PartitionDown|PartitionInactive", Advice("its partition is closed; see `sinfo`, and choose another "
                                                "`slurm_partition` if it stays so")),
    (r"PartitionTimeLimit", Advice(f"it {_NEVER}: `runtime` is over the partition's limit")),
    (r"PartitionNodeLimit|PartitionConfig",
     Advice(f"it {_NEVER}: `nodes` or memory are not what the partition allows, or its nodes are down; see "
            "`scontrol show partition`")),
    (r"BadConstraints|Constraints", Advice(f"it {_NEVER}: no node has these features and resources together; mend "
                                           "`constraint`, `gres` or `slurm_extra`")),
    (r"DependencyNeverSatisfied", Advice(f"it {_NEVER}: the job it depends on has ended otherwise; mend `slurm_extra` "
                                         "and cancel it (`scancel JOBID`)")),
    (r"Dependency", Advice("it waits for the end of another job, by its `--dependency`", False)),
    (r"InvalidAccount|AccountNotAllowed", Advice(f"it {_NEVER}: its account may not use this partition; mend "
                                                 "`slurm_account`")),
    (r"InvalidQOS|QOSNotAllowed", Advice(f"it {_NEVER}: its QOS may not be used here; mend `qos`")),
    (r"MaxMemPerLimit", Advice(f"it {_NEVER}: more memory than a CPU or node may have; lower `mem_mb` or raise "
                               "`cpus_per_task`")),
    (r"QOSMin", Advice(f"it {_NEVER}: the QOS wants larger jobs; ask for more, or mend `qos`")),
    (r"DeadLine", Advice(f"it {_NEVER}: its `--deadline` can't be kept")),
    (r"QOSUsageThreshold", Advice("its account has used more than the QOS allows; mend `qos` or ask")),
    # Before what counts per job: the names of budgets end alike.
    (r"(QOS|Assoc)Grp\w*Run\w*Min|Max\w+RunMinsPer",
     Advice("jobs that run have reserved the budget of minutes; it starts as they end", False)),
    (r"(QOS|Assoc)Grp(\w*Min|Wall)", Advice("the budget of minutes is used up, or would be by it; ask for a shorter "
                                            "`runtime`, another account or QOS, or wait for a new period")),
    (r"(QOS|Assoc)Max\w*(PerJob|PerNode|PerJobLimit)$|AssociationTimeLimit|QOSTimeLimit|AssociationResourceLimit"
     r"|QOSResourceLimit", Advice(f"it {_NEVER}: it is larger or longer than its account or QOS allows one job to be")),
    (r"(QOS|Assoc)(Grp|Max)(Submit)?Jobs?(Limit|Per)|Max(Submit)?JobsPer|AssociationJobLimit|QOSJobLimit",
     Advice("as many jobs as its account or QOS allows run now; it starts as others end", False)),
    (r"(QOS|Assoc)(Grp|Max)|Max\w+Per(Account|User)|AccountingPolicy",
     Advice("a limit of its account or QOS is reached; it starts as others end, unless it asks for more than the whole "
            "limit (`sacctmgr show qos`, `sacctmgr show assoc`)", False)),
    (r"Licenses", Advice("its licenses are in use; it starts when they are given back", False)),
    (r"JobArrayTaskLimit", Advice("its array may run no more tasks at a time; it starts as others end", False)),
    (r"BeginTime", Advice("its begin time has not come (after a requeue Slurm sets one)", False)),
    (r"BurstBufferOperation", Advice("its burst buffer has failed; see `scontrol show burst`")),
    (r"BurstBuffer", Advice("its burst buffer is being prepared", False)),
    (r"SystemFailure|JobLaunchFailure|InactiveLimit|OutOfMemory|NonZeroExitCode|RaisedSignal|TimeLimit",
     Advice("its last start has failed; if it goes on to wait, see `scontrol show job JOBID`")),
    (r"MaxPoweredUpNodes|MpiPortsBusy|NvidiaImexChannels",
     Advice("nodes, ports or channels that it needs are in use; it starts as others end", False)),
    (r"SUSPENDED|STOPPED", Advice("it was stopped, by an administrator or for a more urgent job; it goes on when it "
                                  "is let", False)),
    (r"FedJobLock", Advice("another cluster of the federation has it", False)),
]  # fmt: skip
_KNOWN = [(re.compile(pattern, re.IGNORECASE), advice) for pattern, advice in _REASONS]
# Limits that count jobs of this user alone, and can so be seen to be too small for even one.
_OWN = re.compile(r"(QOS|Assoc)Max\w*(PerUser|JobsLimit)", re.IGNORECASE)


def advice_on(reason: str, others_run: bool = True) -> Advice:
    """What to report about a job that waits for `reason`; `others_run`: other jobs of this user run.

    An unknown reason may be an administrator's own words; they are reported.
    """
    for pattern, advice in _KNOWN:
        if pattern.match(reason):
            if not others_run and _OWN.match(reason):
                return Advice(f"it {_NEVER}: no other job of yours runs, so it alone is over the limit; ask for less")
            return advice
    return Advice("see `scontrol show job JOBID`" if reason else "", False)


def code_of(reason: str) -> str:
    """The reason without details that change, such as names of nodes."""
    return re.split(r"[,:(]", reason)[0].strip()


def _reason_of(state: State | None) -> str:
    """Why a job does not run, in Slurm's words; empty for one that runs or ends."""
    if state is None or not state.alive:
        return ""
    if state.state == "PENDING":
        return state.detail
    return (state.detail or state.state) if state.state in _STOPPED else ""


class WaitingTold:
    """Tells why jobs wait: one line for all of a reason, once per job (or array); passing reasons once in a run."""

    def __init__(self, logger) -> None:
        self.logger = logger
        self._told: set[tuple[str, str]] = set()  # submission (none for what passes by itself), reason

    def tell(self, tasks: Sequence[Task], states: Mapping[str, State]) -> None:
        """`states`: of all of this user's jobs."""
        others_run = any(state.alive and state.state not in ("PENDING", *_STOPPED) for state in states.values())
        found: dict[str, list[Task]] = {}
        for one in tasks:
            if reason := _reason_of(one.state):
                found.setdefault(reason, []).append(one)
        for reason, waiting in found.items():
            advice = advice_on(reason, others_run)
            code = f"{code_of(reason)} {advice.urgent}"
            new = [one for one in waiting if (one.submission.token if advice.urgent else "", code) not in self._told]
            if not new or not advice.text:
                continue
            self._told.update((one.submission.token if advice.urgent else "", code) for one in new)
            ids, first = ", ".join(one.job_id for one in new[:2]), new[0]
            jobs = f"Slurm job {ids}, {first.label}: waits"
            if len(new) > 1:
                jobs = f"{len(new)} Slurm jobs ({ids}, ...), such as {first.label}: wait"
            say = self.logger.warning if advice.urgent else self.logger.info
            say(f"{jobs} with reason {reason}: {advice.text.replace('JOBID', first.job_id)}")
