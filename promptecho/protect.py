"""How the workflow protects finished trainings: Snakemake deletes the outputs of a job before it starts.

Once Snakemake knows which jobs it would run, and before any starts, the main process looks whether a finished
checkpoint, or captions that finished checkpoints were trained on, would be made again, and refuses; also in a dry run,
and whatever the reason is: an edited key, other inputs, newer files, --force. A run that `--config retrain=` names is
made again, and its old results are moved aside first. What is said and moved is in config/reruns.py.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from promptecho.config import run_rewards, run_training
from promptecho.config.changes import Change, assignments, changes, record_slice, recorded_slice
from promptecho.config.inputs import Inputs, inputs_of
from promptecho.config.reruns import (
    INITIAL,
    SLICE,
    Conflict,
    finished_checkpoints,
    named_runs,
    refusal,
    set_captions_aside,
    set_run_aside,
    state_digests,
)
from promptecho.config.slices import slice_digest, slice_value
from promptecho.errors import DataError, PromptEchoError
from promptecho.files import digest
from promptecho.status.record import record_jobs
from promptecho.train.labels import prompt_use
from promptecho.train.prompt_sizes import SIZES, SIZES_FILE
from promptecho.train.prompts import CAPTIONS, captions_problem

# The rules are known by the names of their outputs: a workflow that takes ours as a module may rename rules.
TRAINING, MERGE = {"adapter", "state", "metrics"}, {"captions", "heldout"}
# What looks at a plan in place of the guard: `promptecho upgrade` reads it, in a process that starts nothing.
READER: Callable[[Protection], None] | None = None


def protect(
    workflow: Any, experiments: Any, inputs: Callable[[str], Inputs], placed: Callable[[str], str] = str
) -> None:
    """Have `workflow` look before it runs.

    Args:
        experiments: name -> validated configuration; its `retrain` is what `--config retrain=` says, or None, and
            `unwritten` says why resolved configurations could not be written.
        inputs: name of an experiment -> what is known of its inputs.
        placed: where a path of ours lies in a workflow that takes us as a module.
    """
    build = workflow._build_dag  # Snakemake has no hook between its plan and the first job that also runs for `-n`

    def build_and_look() -> None:
        from promptecho.plain_errors import UserError

        build()
        if workflow.dryrun:  # a plan can be made of results that may only be read
            workflow.dag._checked_needrun_jobs.update(workflow.dag.needrun_jobs())
        if workflow.is_main_process and workflow.executor_plugin is not None and not workflow.touch:
            try:
                (READER or Protection.look)(Protection(workflow, experiments, inputs, placed))
            except PromptEchoError as error:
                raise UserError(str(error)) from None

    workflow._build_dag = build_and_look


class Protection:
    """One look at one plan."""

    def __init__(self, workflow: Any, experiments: Any, inputs: Callable[[str], Inputs], placed: Callable[[str], str]):
        from snakemake.settings.types import RerunTrigger

        self.workflow, self.experiments, self.inputs, self.placed = workflow, experiments, inputs, placed
        self.dag, self.persistence = workflow.dag, workflow.persistence
        # Without this trigger the user wants to use what is there, whatever it was made from.
        self.by_content = RerunTrigger.PARAMS in workflow.rerun_triggers
        jobs = [job for job in self.dag.jobs if self._is_ours(job)]
        self.merges = [job for job in jobs if set(job.output.keys()) == MERGE]
        self.trainings: dict[tuple[str, str], list[Any]] = {}
        for job in sorted(jobs, key=lambda job: int(job.wildcards_dict.get("N", 0))):
            if set(job.output.keys()) == TRAINING:
                self.trainings.setdefault((job.wildcards.E, job.wildcards.R), []).append(job)

    def _is_ours(self, job: Any) -> bool:
        """Whether it is a training or a merge of captions, and not another module's."""
        if set(job.output.keys()) not in (TRAINING, MERGE):
            return False
        return str(_results(job)) == str(Path(self.placed(f"results/{job.wildcards.E}")))

    def look(self) -> None:
        """Refuse to make finished results again, or move aside those that the user wants made again, and captions
        that will be made again.

        Raises:
            DataError: what is finished and would be made again, and the ways on; or results can't be written.
            ConfigError: `retrain` names something that is not there.
        """
        if self.experiments.unwritten and not self.workflow.dryrun and any(True for _ in self.dag.needrun_jobs()):
            raise DataError("\n".join(self.experiments.unwritten))
        conflicts, again = self.find()
        for name in self.experiments:
            self.inputs(name).save()
        if conflicts:
            raise DataError(refusal(conflicts))
        for name, run in sorted(self._named() - set(again)):
            print(f"retrain: {name}/{run}: nothing of it that is finished would be made again", file=sys.stderr)
        if again:
            self._make_again(again)
        if not (self.workflow.dryrun or self._others_run):  # if another Snakemake is running here, this one ends
            self._keep_captions()
            record_jobs(self.workflow, self.experiments, self.placed)

    @property
    def _others_run(self) -> bool:
        """Whether another Snakemake holds the lock, so that this one ends; with --nolock it goes on."""
        return bool(self.persistence.locked) and self.persistence.lock != self.persistence.noop

    def find(self) -> tuple[list[Conflict], dict[tuple[str, str], list[Any]]]:
        """What is finished and would be made again, and the trainings among it that `retrain` names.

        Raises:
            ConfigError: `retrain` names something that is not there.
        """
        chosen = self._named()
        self._adopt([job for jobs in self.trainings.values() for job in jobs])
        conflicts = [found for job in self.merges if (found := self._captions(job)) is not None]
        conflicts = [one for one in conflicts if not {(one.experiment, run) for run in one.runs} <= chosen]
        told = {(one.experiment, run): one.keys for one in conflicts for run in one.runs}
        again = {}
        for key, jobs in self.trainings.items():
            self._record(jobs[0], "train", key[1])
            conflict = self._run(*key, jobs)
            if conflict is not None and key in chosen:
                again[key] = jobs
            elif conflict is not None:
                follows = conflict.shared and key in told and set(conflict.keys) <= set(told[key])
                conflicts += [] if follows else [conflict]
        return conflicts, again

    def _named(self) -> set[tuple[str, str]]:
        if self.experiments.retrain is None:
            return set()
        known = {
            name: list(dict.fromkeys([*config.runs, *finished_checkpoints(self.placed(f"results/{name}"))]))
            for name, config in self.experiments.items()
        }
        return named_runs(self.experiments.retrain, known)

    def _adopt(self, trainings: list[Any]) -> None:
        """Have checkpoints recorded that were complete before a Snakemake that was killed could do it.

        Snakemake takes their files for half-written, and deletes them with --rerun-incomplete. But these have their
        names only when they are complete, and the state says what it was made from.
        """
        named = {str(file) for file in self.workflow.dag_settings.forcerun or ()}
        adopted = [job for job in trainings if self._incomplete(job) and self._is_what_is_asked_for(job)]
        if not adopted or self._others_run:  # the Snakemake that is running here may be the one that makes them
            return
        for job in adopted:
            self.workflow.async_run(self.persistence.finished(job))
            self.dag.forcefiles.difference_update(file for file in job.output if str(file) not in named)
        for job in self.dag.jobs:  # what follows from the force
            self.dag.reason(job).clear()
        self.workflow.async_run(self.dag.update_needrun())

    def _is_what_is_asked_for(self, job: Any) -> bool:
        """Whether a checkpoint has all its parts, and its state is of this configuration and of the same inputs."""
        if not _all_there(job):
            return False
        name, run = job.wildcards.E, job.wildcards.R
        config = self.experiments[name]
        made = state_digests(Path(job.output.adapter).parent).get(SLICE)
        replaced = self.inputs(name).changed(inputs_of(config, "train", run))
        return made == slice_digest(config, "train", run) and not replaced

    def plan_again(self, jobs: Iterable[Any]) -> None:
        """Have Snakemake plan these jobs, and all that follows from them."""
        self.dag.forcefiles.update(file for job in jobs for file in job.output)
        self.workflow.async_run(self.dag.update_needrun())

    def _make_again(self, again: dict[tuple[str, str], list[Any]]) -> None:
        """Have the runs planned whole and, unless this is a dry run, move their old results aside."""
        self.plan_again(job for jobs in again.values() for job in jobs)
        if self.workflow.dryrun or self._others_run:
            return
        for (name, run), jobs in again.items():
            aside = set_run_aside(_results(jobs[0]), run)
            if aside is not None:
                print(f"{name}: the old run {run}, its images and its scores are {aside.name} now", file=sys.stderr)
        self.workflow.iocache.deactivate()  # or what was moved would count as there, and as write-protected

    def _keep_captions(self) -> None:
        """Move finished captions aside that will be made again: a shard may have cost hours on a GPU. One that fits is
        taken from there when its turn comes (captions/shard.py)."""
        jobs = list(self.dag.needrun_jobs())
        for name in self.experiments:
            folder = Path(self.placed(f"results/{name}")) / "captions"
            own = [job for job in jobs if any(Path(file).is_relative_to(folder) for file in job.output)]
            # Snakemake takes all that a killed one has left for half-written; of our files none is.
            files = [file for job in own for file in job.output if os.path.isfile(file) or not self._incomplete(job)]
            made = [recorded for job in own if os.path.exists(job.output[0]) and (recorded := self.recorded(job))]
            aside = set_captions_aside(folder.parent, map(str, files), made[0] if made else "unknown")
            if aside is not None:
                print(f"{name}: captions are made again; the old ones are in {aside} now", file=sys.stderr)
                self.workflow.iocache.deactivate()

    def _captions(self, job: Any) -> Conflict | None:
        """Finished trainings whose captions would be made again."""
        self._record(job, "merge", None)
        users = finished_checkpoints(_results(job))
        if not (users and self.dag.needrun(job) and self._finished(job)):
            return None
        keys, why = self.changed(job, "merge", None, self.recorded(job))
        name = job.wildcards.E
        if why and not keys and not self.dag.reason(job).forced and {"prompts"} <= set(job.input.keys()):
            # A corrected line must not cost a run that has not used it yet: a state knows the prompts that it has used.
            print(f"{name}: {why[0]}: captions are made again; runs are compared with them then", file=sys.stderr)
            return None
        why = [f"finished runs were trained on it ({', '.join(users)})", *(why or [self._reason(job)])]
        paths = [key.path for key in keys]
        return Conflict(name, str(job.output.captions), list(users), why, shared=True, keys=paths)

    def _run(self, name: str, run: str, jobs: list[Any]) -> Conflict | None:
        """Finished checkpoints of a run that would be made again, or are not what is asked for."""
        why: list[str] = []
        keys: list[Change] = []
        absent: list[str] = []  # checkpoints that come before a finished one
        added = False
        for job in jobs:
            if not self._finished(job):
                absent.append(job.wildcards.N)
                continue
            found_keys, found = self._stale(job) if self.by_content else ([], [])
            if not found and self.dag.needrun(job):
                added = bool(absent) and not self.dag.reason(job).forced
                found = [_comes_before(absent)] if added else [self._reason(job)]
            why += [reason for reason in found if reason not in why]
            keys += [key for key in found_keys if key not in keys]
        if not why:
            return None
        training = run_training(self.experiments[name], run)
        texts = assignments(keys, training)
        if added and not keys:
            texts = [f"checkpoints=[{','.join(map(str, training.checkpoint_steps))}]"]
        results = _results(jobs[0])
        return Conflict(
            name,
            str(results / "runs" / run),
            [run],
            why,
            finished_checkpoints(results).get(run, []),
            shared=not texts,
            assignments=texts,
            keys=[key.path for key in keys],
        )

    def _stale(self, job: Any) -> tuple[list[Change], list[str]]:
        """(changed keys, reasons in words) why a finished checkpoint is not what the configuration asks for."""
        run = job.wildcards.R
        digests = state_digests(Path(job.output.adapter).parent)
        config, recorded = self.experiments[job.wildcards.E], self.recorded(job)
        of_state, now = digests.get(SLICE), slice_digest(config, "train", run)
        keys, why = self.changed(job, "train", run, recorded if of_state in (None, now) else of_state)
        if of_state == now and why:  # the configuration is the same, so the cause is outside of it
            replaced = self.inputs(job.wildcards.E).changed(inputs_of(config, "train", run))
            why = [_replaced(key, path) for key, path in replaced.items()]
            why = why or ["its models do not hold what they held when it was trained"]
        made = {str(file) for other in self.dag.needrun_jobs() for file in other.output}
        for key, (told, file) in self._read_by(job).items():
            if key not in digests or file in made or not os.path.isfile(file):
                continue
            if self.inputs(job.wildcards.E).hashes.sha256(file) != digests[key]:
                why += [other] if (other := self._other_prompts(job, key, told, file)) else []
        return keys, why

    def _other_prompts(self, job: Any, key: str, told: str, file: str) -> str | None:
        """What is different for a checkpoint whose captions, held-out captions or labels are in another file now; None
        where the prompts that it has used are the same."""
        config, run = self.experiments[job.wildcards.E], job.wildcards.R
        if run_training(config, run).accept_captions and key != INITIAL:
            return None
        if key in (CAPTIONS, SIZES) or key.startswith("label"):
            with contextlib.suppress(DataError, ImportError):  # a file that can't be read here is another one
                use = prompt_use(config, run, str(job.input.captions), self.placed)
                return captions_problem(Path(job.output.adapter).parent, use)
        return f"it was trained with another {told} than {file} is now"

    def _read_by(self, job: Any) -> dict[str, tuple[str, str]]:
        """Names of files in a state's digests -> (what they are, where they are)."""
        config, run = self.experiments[job.wildcards.E], job.wildcards.R
        files = {CAPTIONS: ("captions.h5", str(job.input.captions))}
        if run_training(config, run).heldout.patience is not None:
            files["held-out captions file"] = ("heldout.jsonl", str(job.input.heldout))
        if "image_sizes" in set(job.input.keys()):
            files[SIZES] = (SIZES_FILE, str(job.input.image_sizes))
        if "initial" in set(job.input.keys()):
            files[INITIAL] = ("adapter to begin with", f"{job.input.initial}/adapter_model.safetensors")
        for index, entry in enumerate(run_rewards(config, run)):
            if entry.label is not None:
                files[f"label file of rewards.{index}"] = (f"rewards.{index}.label", self.placed(entry.label))
        return files

    def changed(self, job: Any, stage: str, run: str | None, made: str | None) -> tuple[list[Change], list[str]]:
        """(changed keys, reasons in words) between the slice with digest `made` and the one of now."""
        config = self.experiments[job.wildcards.E]
        now, inputs = slice_value(config, stage, run), inputs_of(config, stage, run)
        known = self.inputs(job.wildcards.E)
        if made is None or made == known.marked(digest(now), inputs):
            return [], []
        if made == digest(now):
            return [], [_replaced(key, path) for key, path in known.changed(inputs).items()]
        old = recorded_slice(_results(job) / "config", stage, run, made)
        keys = [] if old is None else changes(stage, old, now)
        why = [f"changed since: {', '.join(map(str, keys))}"] if keys else []
        why += [_replaced(key, path) for key, path in known.changed(inputs).items()]
        return keys, why or [f"made from another configuration (digest {made}), of which there is no record"]

    def _finished(self, job: Any) -> bool:
        """Whether some of the job's outputs are there, and no interrupted job left them; a checkpoint that has all its
        parts is finished in any case."""
        if set(job.output.keys()) == TRAINING and _all_there(job):
            return True
        return any(os.path.exists(file) for file in job.output) and not self._incomplete(job)

    def _incomplete(self, job: Any) -> bool:
        """Whether Snakemake has begun to make the job's outputs, and has not recorded their end."""
        return bool(self.workflow.async_run(self.persistence.incomplete(job)))

    def recorded(self, job: Any) -> str | None:
        """The digest that Snakemake recorded when it made the job's outputs."""
        for text in self.persistence.params(job.output[0]) or ():
            if len(text) == 18 and text[0] == text[-1] == "'":
                return text[1:-1]
        return None

    def _reason(self, job: Any) -> str:
        return " ".join(str(self.dag.reason(job)).split()) or "it would be made again"

    def _record(self, job: Any, stage: str, run: str | None) -> None:
        """Keep the slice that the job is made from, for the day when its keys have changed."""
        with contextlib.suppress(DataError):  # results that may only be read; the resolved configuration says the same
            record_slice(_results(job) / "config", slice_value(self.experiments[job.wildcards.E], stage, run))


def _all_there(job: Any) -> bool:
    """Each output of ours gets its name when it is complete, so a job that has all of them has ended well."""
    return all(os.path.exists(file) for file in job.output)


def _results(job: Any) -> Path:
    """`results/E`."""
    if set(job.output.keys()) == TRAINING:
        return Path(job.output.adapter).parents[3]
    return Path(job.output.captions).parents[1]


def _comes_before(steps: list[str]) -> str:
    what = f"checkpoints {', '.join(steps)} are" if len(steps) > 1 else f"checkpoint {steps[0]} is"
    return f"{what} asked for (training.checkpoints) and not there, and later ones would be made again from it"


def _replaced(key: str, path: str) -> str:
    return f"{key}: {path} does not hold what it held then"
