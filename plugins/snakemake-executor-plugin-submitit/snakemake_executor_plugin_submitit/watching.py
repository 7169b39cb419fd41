"""How jobs stand: by their outcome files, and by Slurm's word where there is none. Runs in the base class's thread."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from . import controller, queue, requeues, slurm, task
from .afterwards import Afterwards
from .reasons import WaitingTold
from .task import Task, TaskVerdict


class Watcher:
    """Judges tasks; `latency_s` says how late a file of another node may show up."""

    def __init__(self, settings, logger, latency_s: Callable[[], float]):
        self.settings, self.logger, self._latency_s = settings, logger, latency_s
        self._warned: dict[str, float] = {}  # when, by subject
        self._looked_at: float | None = None
        self._afterwards = Afterwards()
        self._waiting = WaitingTold(logger)

    def judge(self, tasks: Sequence[Task]) -> dict[int, TaskVerdict]:
        """Verdicts by the ids of the tasks."""
        verdicts = {id(one): self._from_outcome(one) for one in tasks}
        waiting = [one for one in tasks if verdicts[id(one)] == task.WAITING]
        if waiting and self._time_to_look():
            verdicts.update(self._from_slurm(waiting))
        failed = [(one, verdicts[id(one)]) for one in tasks if verdicts[id(one)].kind == "failed"]
        settled = self._afterwards.settle(failed, time.monotonic(), self.settings.requeue_limit)
        verdicts.update({id(one): verdict for (one, _), verdict in zip(failed, settled, strict=True)})
        return verdicts

    def _from_outcome(self, one: Task) -> TaskVerdict:
        try:
            return task.judge_outcome(one) if one.outcome.exists() else task.WAITING
        except (OSError, ValueError, KeyError, TypeError) as error:
            if "outcome" not in one.warned:
                one.warned.add("outcome")
                self.logger.warning(f"{one.outcome}: {error}; trying again")
            return task.WAITING

    def _time_to_look(self) -> bool:
        now = time.monotonic()
        if self._looked_at is not None and now - self._looked_at < self.settings.status_interval:
            return False
        self._looked_at = now
        return True

    def _from_slurm(self, tasks: Sequence[Task]) -> dict[int, TaskVerdict]:
        """One squeue for all; sacct for those it does not know. Nothing is concluded while slurmctld does not
        answer."""
        try:
            states = queue.read_squeue()
        except slurm.SlurmError as error:
            self._warn("squeue", f"{error}; jobs go on, their state is looked up again later")
            return {}
        self._warned.pop("squeue", None)
        known = {one.job_id: one.state_in(states) for one in tasks}
        accounting: dict[str, queue.State] = {}
        unknown = {job_id for job_id, state in known.items() if state is None}
        if unknown:
            try:
                accounting = queue.read_sacct(unknown)
                known.update({job_id: state for job_id, state in accounting.items() if not state.alive})
            except slurm.SlurmError as error:
                self._warn("sacct", f"{error}; going on without accounting")
        verdicts = {id(one): self._judge(one, known[one.job_id]) for one in tasks}
        ends = [one for one in tasks if verdicts[id(one)] != task.WAITING]
        if ends:
            verdicts.update(self._confirm(ends, states, accounting))
        for one in tasks:
            requeues.tell(one, self.logger)
        self._waiting.tell(tasks, states)
        return verdicts

    def _judge(self, one: Task, state: queue.State | None) -> TaskVerdict:
        return task.judge_state(one, state, time.monotonic(), self._latency_s(), self.settings.requeue_limit)

    def _confirm(self, ends: Sequence[Task], states: dict, accounting: dict) -> dict[int, TaskVerdict]:
        """Ask slurmctld itself before an end is accepted: squeue's answer may be old, or lack jobs.

        A job whose end is not known is cancelled before it is given up: no job may run beside its retry.
        """
        asked = True
        try:
            direct = controller.read_scontrol([one.job_id for one in ends])
        except slurm.SlurmUnreachableError as error:
            self._warn("scontrol", f"{error}; jobs go on, their state is looked up again later")
            return {id(one): task.WAITING for one in ends}
        except slurm.SlurmError as error:
            self._warn("scontrol", f"{error}; an end without a word of squeue or sacct is believed later")
            direct, asked = {}, False
        verdicts: dict[int, TaskVerdict] = {}
        for one in ends:
            state = one.state_in(direct)
            if state is not None and state.alive:
                if one.state is None:
                    self._warn(
                        "cache",
                        f"squeue does not list Slurm job {one.job_id}, {one.label}, which slurmctld has as "
                        f"{state.state}; its answers may come from a cache, so scontrol is asked too",
                    )
                verdicts[id(one)] = self._judge(one, state)
            elif state is not None and one.state is None:
                verdicts[id(one)] = self._judge(one, state)
            elif one.state is None:
                known = one.job_id in states or one.job_id in direct
                running = not asked and one.job_id in accounting  # which has it as going on
                verdicts[id(one)] = self._give_up(one, asked=asked, cancel=not known) if not running else task.WAITING
            else:
                verdicts[id(one)] = self._judge(one, one.state)
        return verdicts

    def _give_up(self, one: Task, *, asked: bool, cancel: bool) -> TaskVerdict:
        """A task that no source knows. `cancel` is False where its id is another job's by now."""
        if not asked and time.monotonic() - (one.ended_since or 0) < controller.LONGEST_CACHE_S:
            return task.WAITING
        if cancel:
            try:
                slurm.cancel([one.job_id], 30)
            except slurm.SlurmError as error:
                if not controller.is_unknown(error):
                    self._warn("scancel", f"{error}; Slurm job {one.job_id}, {one.label}, is given up later")
                    return task.WAITING
        return self._judge(one, None)

    def _warn(self, subject: str, text: str) -> None:
        """At once, and now and then while it lasts."""
        now = time.monotonic()
        if now - self._warned.get(subject, -math.inf) > self.settings.command_timeout:
            self._warned[subject] = now
            self.logger.warning(text)
