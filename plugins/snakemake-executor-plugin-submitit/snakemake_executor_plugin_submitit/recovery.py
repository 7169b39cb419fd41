"""What an earlier Snakemake of this working directory has submitted: taken up, replaced, or recorded as done."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from snakemake.settings.types import RerunTrigger
from snakemake_interface_common.exceptions import WorkflowError

from . import controller, identity, queue, slurm, task
from .began import PROCESS_BEGAN
from .ledger import Ledger, Submission
from .marks import only_marked
from .owners import SILENCE_S, Owner, Owners
from .task import Task

_CANCEL_WAIT_S = 90
_LOOK_S = 2
_CLOCK_MARGIN_S = 5  # between this host and file servers
_PARAMETERS, _CODE = "its inputs or parameters have changed", "its code has changed"
_OTHER_GROUP = "jobs are grouped in another way now"


class Recovery:
    """Tasks that the ledger has as open and that this process does not watch, by the key of their outputs."""

    def __init__(self, ledger: Ledger, owners: Owners, patience_s: float, logger, on_wait: Callable):
        self.ledger, self.owners = ledger, owners
        self.patience_s, self.logger, self.on_wait = patience_s, logger, on_wait
        self._states: dict[str, queue.State] | None = None
        self._taken: dict[tuple[str, int], Task] = {}  # up, by submission and index
        self._made: set[tuple[str, int]] = set()  # whose outputs are whole, though Snakemake wants them again
        self._read_ledger()

    def _read_ledger(self) -> None:
        self._known = {
            key: (submission, index)
            for submission, index in self.ledger.open_tasks()
            for key in (submission.entries[index].key, *submission.entries[index].keys)
        }

    def _is_ours(self, owner: Owner | None) -> bool:
        """Whether this process may settle what belongs to `owner`."""
        return owner == self.owners.me or self.owners.gone(owner)

    def wait_for_owners(self, jobs: Sequence) -> None:
        """Until no other Snakemake can be making the outputs of `jobs`.

        Raises:
            WorkflowError: one that is there does.
        """
        if self._refresh():
            self._read_ledger()
        seen: dict[Owner, float] = {}
        while others := self._others(jobs):
            for owner, tasks in others.items():
                silence = 0.0 if self.owners.is_near(owner) else self.owners.silence(owner) or 0.0
                if self.owners.is_near(owner) or silence < seen.get(owner, 0.0):
                    raise WorkflowError(
                        f"another Snakemake ({owner}) is making {_some(tasks)}: wait for its end, or end it "
                        f"(kill {owner.pid}); nothing was submitted"
                    )
                if owner not in seen:
                    self.logger.warning(
                        f"{_some(tasks)}: submitted by a Snakemake ({owner}) that may have been killed "
                        f"{silence:.0f} s ago; waiting until it has given no sign of life for {SILENCE_S} s. If it "
                        f"does not run any more: rm '{self.owners.file(owner)}'"
                    )
                seen[owner] = silence
            time.sleep(_LOOK_S)
            self._refresh()
            self._read_ledger()

    def _others(self, jobs: Sequence) -> dict[Owner, list[Task]]:
        """Those of `jobs` that others are making, by the process that has submitted them."""
        found: dict[Owner, list[Task]] = {}
        foreign = {key: one for key, one in self._known.items() if not self._is_ours(one[0].owner_of(one[1]))}
        for job in jobs if foreign else ():
            if shared := identity.keys_of(job) & foreign.keys():
                submission, index = foreign[min(shared)]
                owner = submission.owner_of(index)
                assert owner is not None
                found.setdefault(owner, []).append(Task(submission, index, identity.label_of(job)))
        return found

    def _refresh(self) -> bool:
        try:
            return self.ledger.refresh()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WorkflowError(f"{self.ledger.path}: {error}; nothing was submitted") from None

    def resolve_intents(self) -> None:
        """Find out which submissions got through whose sbatch never answered, or was about to be called at a kill.

        Raises:
            SlurmUnreachableError: slurmctld does not answer, so that submitting now might double them.
        """
        from .submission import discard_pickles, place_pickles

        # A copy, and none whose sbatch is under way: another thread or process submits jobs.
        unknown = [
            one
            for one in list(self.ledger.submissions.values())
            if one.slurm_id is None and not one.under_way and self._is_ours(one.owner)
        ]
        for submission in unknown:
            folder = Path(submission.folder)
            slurm_id = slurm.patiently(
                lambda one=submission: controller.find_submission(Path(one.folder), one.time),
                self.patience_s,
                self.on_wait,
            )
            if slurm_id is None:
                discard_pickles(folder, len(submission.entries))  # whatever comes later has nothing to run
                for index in submission.open_indices:
                    self.ledger.ended(submission, index, "never")
            else:
                place_pickles(folder, slurm_id, len(submission.entries))
                self.ledger.submitted(submission, slurm_id)
        if unknown:
            self._read_ledger()
            self._states = None

    def record_ended(self, dag, record: Callable, forget: Callable) -> None:
        """Have Snakemake `record` jobs that ended well after it was killed, as it would have done itself.

        Without that record a later change of their parameters would go unnoticed. Those that have made something else
        than is asked for now are not recorded: Snakemake is to `forget` that they are complete.

        Raises:
            WorkflowError: there are such jobs; this start takes their outputs for finished ones.
        """
        jobs = {identity.key_of(job): job for job in dag.jobs} if self._known else {}
        unclear: list[Task] = []
        others: list[Task] = []
        for submission, index in list(self.ledger.open_tasks()):
            members = [jobs.get(key) for key in submission.entries[index].keys]
            if submission.slurm_id is None or not members or None in members:
                continue
            if not self._is_ours(submission.owner_of(index)):
                continue
            one = Task(submission, index, identity.label_of(members[-1]))
            if wanted := [job for job in members if dag.needrun(job)]:
                if _ended_well(one) and all(map(only_marked, wanted)):
                    self._made.add((submission.token, index))
                continue
            if not _ended_well(one):
                unclear.append(one)
                continue
            changed = next(filter(None, (_changed(one, job) for job in members)), None)
            anew = changed is not None and _would_run_again(changed, dag.workflow)
            for job in members:
                if changed is None:
                    record(job)
                elif anew and not _made_anew(one, job):
                    forget(job)
                    others.append(Task(submission, index, identity.label_of(job)))
            self.ledger.ended(submission, index, "success" if changed is None else "failed")
        if unclear:
            self._settle(unclear)
        self._read_ledger()
        if others:
            raise WorkflowError(
                f"{_some(others)}: ended while no Snakemake ran, and made with inputs, parameters or code that have "
                "changed since. The outputs count as incomplete now: start Snakemake again with --rerun-incomplete to "
                "have them made anew, or keep them by --cleanup-metadata FILE"
            )

    def _settle(self, unclear: Sequence[Task]) -> None:
        """Close what has ended although it is not needed: cancelled in its last moment, say, with its outputs made.

        Left open it would never be looked at again. Where Slurm does not answer now, the next start does it.
        """
        with contextlib.suppress(slurm.SlurmError):
            listed = queue.read_squeue()
            states = {one.job_id: one.state_in(listed) for one in unclear}
            silent = [job_id for job_id, state in states.items() if state is None]
            direct = controller.read_scontrol(silent) if silent else {}
            for one in unclear:
                state = states[one.job_id] or one.state_in(direct)
                if state is None or not (state.alive or state.stuck):
                    self.ledger.ended(one.submission, one.index, "failed")

    def take_up(self, wanted: Sequence[tuple[object, object]]) -> dict[object, Task]:
        """Of (job, request) pairs, those whose outputs are being made already: queued, running, or ended since this
        process began, by job.

        Tasks that would make other outputs than asked for now are cancelled, all at once; those that have made others
        don't count.

        Raises:
            SlurmError: the queue can't be read, or a task not be cancelled.
        """
        tasks: dict[tuple[str, int], Task] = {}
        known: list[tuple[object, object, Task]] = []
        for job, request in wanted:
            shared = [self._known[key] for key in sorted(identity.keys_of(job) & self._known.keys())]
            for at, (submission, index) in {(one.token, index): (one, index) for one, index in shared}.items():
                if index in submission.open_indices:  # or it has failed here, and is tried again
                    new = Task(submission, index, identity.label_of(job))
                    known.append((job, request, self._taken.get(at) or tasks.setdefault(at, new)))
        found: dict[object, Task] = {}
        replaced: dict[str, Task] = {}
        states = self._states_of([one for _, _, one in known])
        for job, request, one in known:
            state = states[one.job_id]
            reason = _reason_to_replace(one, state, job, request)
            if _goes_on(state) and not (state.state == "COMPLETING" and one.outcome.exists()):
                if reason is None:
                    found[job] = one
                elif (one.submission.token, one.index) in self._taken:
                    raise WorkflowError(
                        f"{identity.label_of(job)}: Slurm job {one.job_id} of an earlier start makes a part of it; "
                        "start Snakemake again after its end"
                    )
                elif one.job_id not in replaced:
                    self.logger.info(f"Slurm job {one.job_id}, {one.label}: cancelled and submitted again: {reason}")
                    replaced[one.job_id] = one
            elif reason is None and self._has_made(one):
                found[job] = one
            else:  # ended before this Snakemake looked at the files, which are not as wanted, or made others
                self.ledger.ended(one.submission, one.index, "failed")
        found = {job: one for job, one in found.items() if one.job_id not in replaced}
        if replaced:
            self._cancel(list(replaced.values()))
        self.ledger.take([(one.submission, one.index) for one in found.values()])
        for one in found.values():
            one.waited_for += 1
            self._taken[one.submission.token, one.index] = one
        return found

    def _has_made(self, one: Task) -> bool:
        """Whether it has ended, and not before this Snakemake looked at its outputs, or nothing is wrong with them."""
        if not one.outcome.exists():
            return False
        return (one.submission.token, one.index) in self._made or one.outcome.stat().st_mtime > PROCESS_BEGAN

    def _states_of(self, tasks: Sequence[Task]) -> dict[str, queue.State | None]:
        """By id. Where squeue and the outcome file don't agree, slurmctld itself is asked: a job that squeue leaves out
        has left none, or one that squeue has going on has left one."""
        if not tasks:
            return {}
        if self._states is None:
            self._states = self._read_queue()
        states = {one.job_id: one.state_in(self._states) for one in tasks}
        doubtful = [one for one in tasks if _goes_on(states[one.job_id]) == one.outcome.exists()]
        if doubtful:
            states |= self._look_closer(doubtful)
        return states

    def _look_closer(self, doubtful: Sequence[Task]) -> dict[str, queue.State | None]:
        try:
            ids = [one.job_id for one in doubtful]
            states = slurm.patiently(lambda: controller.read_scontrol(ids), self.patience_s, self.on_wait)
            return {one.job_id: one.state_in(states) for one in doubtful}
        except slurm.SlurmUnreachableError:
            raise
        except slurm.SlurmError as error:
            wait = max(one.submission.time for one in doubtful) + controller.LONGEST_CACHE_S - time.time()
            if wait > 0:
                self.logger.warning(
                    f"{error}: squeue alone does not tell of {_some(doubtful)}, and its answer may be old; asking it "
                    f"again in {wait:.0f} s"
                )
                time.sleep(min(wait, controller.LONGEST_CACHE_S))
            states = self._read_queue()
            try:
                sacct = queue.read_sacct(ids)
            except slurm.SlurmError:
                sacct = {}
            return {one.job_id: one.state_in(states) or sacct.get(one.job_id) for one in doubtful}

    def _cancel(self, tasks: Sequence[Task]) -> None:
        """Cancel and see them gone: two jobs must not write the same outputs."""
        slurm.cancel([one.job_id for one in tasks], self.patience_s)
        end = time.monotonic() + _CANCEL_WAIT_S
        while time.monotonic() < end:
            now = self._look_closer(tasks)
            left = [job_id for job_id, state in now.items() if _goes_on(state)]
            if not left:
                break
            time.sleep(1)
        else:
            raise slurm.SlurmError(f"scancel: still not gone after {_CANCEL_WAIT_S} s: {', '.join(left)}")
        for one in tasks:
            self.ledger.ended(one.submission, one.index, "replaced")

    def _read_queue(self) -> dict[str, queue.State]:
        return slurm.patiently(queue.read_squeue, self.patience_s, self.on_wait)


def _goes_on(state: queue.State | None) -> bool:
    return state is not None and state.alive


def _some(tasks: Sequence[Task]) -> str:
    return identity.some([_named(one.submission, one) for one in tasks])


def _named(submission: Submission, one: Task) -> str:
    return one.label + (f" (Slurm job {one.job_id})" if submission.slurm_id else "")


def _ended_well(one: Task) -> bool:
    """False too where its outcome can't be read, such as the empty file that a node leaves that lost its power."""
    try:
        return one.outcome.exists() and task.judge_outcome(one) == task.SUCCESS
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _changed(one: Task, job) -> str | None:
    """What decides the outputs of a job and is not as it was when it was submitted."""
    entry = one.submission.entries[one.index]
    by_code = RerunTrigger.CODE in job.dag.workflow.rerun_triggers
    then = {key: (fingerprint, code) for key, fingerprint, code in entry.members}
    if not then or entry.key == identity.key_of(job):
        parts, then = [job], {entry.key: (entry.fingerprint, entry.code)}
    else:  # a part of the group, since the rest is made already
        parts = identity.single_jobs(job)
    for part in parts:
        if (found := then.get(identity.key_of(part))) is None:
            return _OTHER_GROUP
        fingerprint, code = found
        if fingerprint != identity.fingerprint_of(part):
            return _PARAMETERS
        if by_code and code and code != identity.code_of(part):
            return _CODE
    return None


def _would_run_again(changed: str, workflow) -> bool:
    """Whether Snakemake makes a finished job again for such a change."""
    triggers = {RerunTrigger.CODE} if changed == _CODE else {RerunTrigger.PARAMS, RerunTrigger.INPUT}
    return bool(triggers & set(workflow.rerun_triggers))


def _made_anew(one: Task, job) -> bool:
    """Whether an output is newer than the job's end, as by another executor."""
    end = one.outcome.stat().st_mtime + _CLOCK_MARGIN_S
    paths = filter(os.path.lexists, identity.outputs_to_check(job))
    return any(os.lstat(path).st_mtime > end for path in paths)


def _reason_to_replace(one: Task, state: queue.State | None, job, request) -> str | None:
    entry = one.submission.entries[one.index]
    if one.index in one.submission.cancelled:
        return "a Ctrl-C has cancelled it, and it has not ended yet"
    if (changed := _changed(one, job)) is not None:
        return changed
    if identity.newest_input(job, {key for key, _, _ in entry.members}) > one.submission.time + _CLOCK_MARGIN_S:
        return "its inputs are newer than it"
    whole = entry.key == identity.key_of(job)  # a part of a group asks for less
    if whole and state is not None and state.state == "PENDING" and entry.request != repr(request):
        return "its resources have changed"
    return None
