"""`promptecho status`: all that is known of an experiment, as numbers. What is shown of them is in show.py.

Snakemake   results/E/work/jobs (what is planned), .snakemake (what has begun, its log), results/E/timings
Slurm       squeue, sacct, the executor's log folder
trainer     metrics.jsonl and live.jsonl of the runs
others      the last lines of jobs' logs, the journals of judges
"""

from __future__ import annotations

import os
import re
import shlex
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from promptecho.errors import DataError, PromptEchoError
from promptecho.status.failures import last_line
from promptecho.status.job_list import JobList, read_job_list
from promptecho.status.judge_totals import read_totals
from promptecho.status.rates import JobProgress, progress_of
from promptecho.status.standing import DONE, FAILED, INTERRUPTED, PENDING, RUNNING, JobStanding, JobStandings, stand
from promptecho.status.timings import JobTiming, read_timing, read_timings
from promptecho.train.stop_file import stop_file_of
from promptecho.train.watch import chosen_runs, view

STATES = (DONE, RUNNING, PENDING, FAILED, INTERRUPTED)
_REUSED = re.compile(r"^judge (?P<name>.+): \d+ questions, (?P<done>\d+) already done", re.MULTILINE)


@dataclass
class RuleStatus:
    """Jobs of one rule by state; `seconds`: the median of those done; `rate` of all that run, in `unit`s a second."""

    rule: str
    done: int = 0
    running: int = 0
    pending: int = 0
    failed: int = 0
    interrupted: int = 0
    seconds: float | None = None
    gpus: int = 0
    rate: float | None = None
    unit: str = ""

    @property
    def total(self) -> int:
        return self.done + self.running + self.pending + self.failed + self.interrupted


@dataclass
class RunStatus:
    """A training. `memory_gb`: peak of its last iteration; `limit`: in words, where Slurm's limit comes first."""

    run: str
    state: str
    iteration: int
    total: int | None
    segments: str  # how many are done, of how many
    reward: float | None = None
    reward_change: float | None = None
    images_per_s: float | None = None
    mfu: float | None = None
    memory_gb: float | None = None
    seconds_left: float | None = None
    seconds_since_row: float | None = None
    limit: str = ""
    stop_asked: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass
class JobStatus:
    """A job that runs, waits or has ended badly."""

    job: str
    state: str
    reason: str = ""
    slurm: str | None = None
    node: str | None = None
    elapsed: float | None = None
    limit_s: float | None = None
    progress: JobProgress | None = None
    seconds_left: float | None = None
    limit: str = ""
    start: float | None = None
    last_line: str = ""
    log: str = ""
    command: str = ""


@dataclass
class WaitingStatus:
    """Jobs that wait for the same reason; `start`: when Slurm expects to start the first of them."""

    reason: str
    jobs: int
    first: str
    start: float | None = None


@dataclass
class JudgeStatus:
    """What a judge was asked. `reused`: answers that jobs found in the record instead of asking."""

    judge: str
    calls: int
    answered: int
    failed: int
    reused: int
    under_way: int
    usd: float | None


@dataclass
class HoursStatus:
    """Hours of jobs and of their GPUs: used by ended and running ones, and to come, of as many rules as can be told."""

    used: float = 0.0
    gpu_used: float = 0.0
    to_come: float = 0.0
    gpu_to_come: float = 0.0
    unknown: list[str] = field(default_factory=list)  # rules of which no job has ended yet


@dataclass
class ExperimentStatus:
    """An experiment at one moment."""

    experiment: str
    time: float
    snakemake: str
    command: str
    notes: list[str]
    rules: list[RuleStatus]
    runs: list[RunStatus]
    running: list[JobStatus]
    waiting: list[WaitingStatus]
    failed: list[JobStatus]
    judges: list[JudgeStatus]
    hours: HoursStatus

    @property
    def ended(self) -> bool:
        """Nothing is left to be made, or nobody makes it any more and nothing runs."""
        open_ = any(rule.running or (rule.pending and self.snakemake != "not running") for rule in self.rules)
        return self.snakemake != "running" and not open_

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def look(results: Path, now: float | None = None) -> ExperimentStatus:
    """How results/E stands. Reads only.

    Raises:
        DataError: no such folder, or a damaged file in it.
    """
    now = time.time() if now is None else now
    if not results.is_dir():
        raise DataError(f"{results}: no such folder; give an experiment's results, such as results/shapes")
    listed = read_job_list(results)
    standings = JobStandings([]) if listed is None else stand(listed, now)
    timings = _timings(results, listed, standings)
    try:
        runs = [_run(results, metrics, total, listed, standings, now) for metrics, total in chosen_runs(results, [])]
    except PromptEchoError as error:  # the rest is to be seen all the same
        runs, unread = [], [f"runs can't be read: {error}"]
    else:
        unread = []
    running = [_running(one, listed) for one in standings.jobs if one.state == RUNNING]
    return ExperimentStatus(
        experiment=str(results),
        time=now,
        snakemake=_snakemake(listed),
        command="" if listed is None else shlex.join([*listed.command, *_targets(listed)]),
        notes=[*_notes(results, listed), *standings.notes, *unread],
        rules=_rules(listed, standings, timings, running),
        runs=runs,
        running=running,
        waiting=_waiting(standings),
        failed=[_failed(one, listed) for one in standings.jobs if one.state in (FAILED, INTERRUPTED)],
        judges=_judges(results),
        hours=_hours(listed, standings, timings, runs),
    )


def _targets(listed: JobList) -> list[str]:
    return ["--", *listed.targets] if listed.targets else []


def _snakemake(listed: JobList | None) -> str:
    if listed is None:
        return "unknown"
    return {True: "running", False: "not running", None: f"started on {listed.host}"}[listed.alive]


def _notes(results: Path, listed: JobList | None) -> list[str]:
    """What the list of jobs may not know."""
    if listed is None:
        return ["no list of jobs here (Snakemake writes one when it starts): only what is done is counted"]
    newer = [path for path in results.glob("config/*.yaml") if path.stat().st_mtime > listed.started]
    if any(path.name != listed.config for path in newer):
        return ["the configuration has changed since these jobs were planned; snakemake -n says what would run now"]
    source = listed.root / listed.source if listed.root and listed.source else None
    if source is not None and source.is_file() and source.stat().st_mtime > listed.started:
        return [f"{listed.source} was edited since these jobs were planned; snakemake -n says what would run now"]
    return []


def _timings(results: Path, listed: JobList | None, standings: JobStandings) -> dict[str, list[JobTiming]]:
    """Of finished jobs, by rule."""
    if listed is None or listed.root is None:
        return read_timings(results)
    found: dict[str, list[JobTiming]] = defaultdict(list)
    for one in standings.jobs:
        if one.state == DONE and one.job.timing and (timing := read_timing(listed.root / one.job.timing)) is not None:
            found[one.job.rule].append(timing)
    return found


def _rules(
    listed: JobList | None, standings: JobStandings, timings: dict[str, list[JobTiming]], running: list[JobStatus]
) -> list[RuleStatus]:
    found: dict[str, RuleStatus] = {}
    for standing in _in_order(standings.jobs):
        rule = found.setdefault(standing.job.rule, RuleStatus(standing.job.rule))
        setattr(rule, standing.state, getattr(rule, standing.state) + 1)
    if not standings.jobs:
        found = {rule: RuleStatus(rule, done=len(measured)) for rule, measured in timings.items()}
    for name, rule in found.items():
        rule.gpus = 0 if listed is None else listed.gpus(name)
        if measured := timings.get(name):
            rule.seconds = median(one.seconds for one in measured)
        told = [one.progress for one in running if one.job.partition(" ")[0] == name and one.progress]
        if told:
            rule.rate, rule.unit = sum(one.rate for one in told), told[0].unit
    return list(found.values())


def _in_order(standings: list[JobStanding]) -> list[JobStanding]:
    """By rules, as the jobs of one need those of another: the last job of a rule decides."""
    jobs, depth = {one.job.key: one.job for one in standings}, dict[str, int]()
    looked_at = set[str]()  # lists of several starts together may have a circle
    for key in jobs:
        ahead = [key]
        while ahead:
            top = ahead[-1]
            looked_at.add(top)
            if missing := [one for one in jobs[top].needs if one in jobs and one not in looked_at]:
                ahead += missing
            else:
                ahead.pop()
                depth.setdefault(top, 1 + max((depth[one] for one in jobs[top].needs if one in depth), default=0))
    last: dict[str, int] = defaultdict(int)
    for job in jobs.values():
        last[job.rule] = max(last[job.rule], depth[job.key])
    return sorted(standings, key=lambda one: (last[one.job.rule], one.job.rule))


def _running(standing: JobStanding, listed: JobList | None) -> JobStatus:
    told = _job(standing)
    told.progress = None if standing.log is None else progress_of(standing.log)
    if told.progress is not None and told.progress.rate > 0:
        told.seconds_left = (told.progress.total - told.progress.done) / told.progress.rate
    told.limit = _limit(standing, told.seconds_left, listed)
    return told


def _job(standing: JobStanding) -> JobStatus:
    return JobStatus(
        standing.job.label,
        standing.state,
        standing.reason,
        standing.slurm,
        standing.node,
        standing.elapsed,
        standing.limit,
        start=standing.start,
        log="" if standing.log is None else _from_here(standing.log),
    )


def _from_here(path: Path) -> str:
    """As somebody here would write it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _limit(standing: JobStanding, seconds_left: float | None, listed: JobList | None) -> str:
    """What will happen at the time limit; empty where it is not reached, or nothing is known."""
    if standing.limit is None or standing.elapsed is None or seconds_left is None:
        return ""
    if standing.elapsed + seconds_left <= standing.limit:
        return ""
    asked = {} if listed is None else listed.rules.get(standing.job.rule, {})
    most = asked.get("requeue_limit", None if listed is None else listed.requeue_limit)
    if not asked.get("resumable") or most is None:
        return "will reach its limit"
    if standing.requeues >= most:
        return f"will reach its limit, and all {most} requeues are used"
    return f"will reach its limit, requeue {standing.requeues + 1} of {most}"


def _failed(standing: JobStanding, listed: JobList | None) -> JobStatus:
    told = _job(standing)
    told.last_line = "" if standing.log is None else last_line(standing.log)
    if listed is not None:
        told.command = shlex.join([*listed.command, "--", standing.job.key])
    return told


def _waiting(standings: JobStandings) -> list[WaitingStatus]:
    found: dict[str, WaitingStatus] = {}
    for standing in standings.jobs:
        if standing.state == PENDING:
            told = found.setdefault(standing.reason, WaitingStatus(standing.reason, 0, standing.job.label))
            told.jobs += 1
            if standing.start is not None and (told.start is None or standing.start < told.start):
                told.start = standing.start
    return sorted(found.values(), key=lambda one: (not one.reason.startswith("Slurm"), -one.jobs))


def _run(
    results: Path, metrics: Any, total: int | None, listed: JobList | None, standings: JobStandings, now: float
) -> RunStatus:
    shown = view(metrics, total, now)
    segments = [one for one in standings.jobs if one.job.run == metrics.run]
    states = [one.state for one in segments]
    state = shown.state
    if shown.state != "finished" and segments:
        for worst, word in (
            (RUNNING, "running"),
            (FAILED, "failed"),
            (INTERRUPTED, "interrupted"),
            (PENDING, "waiting"),
        ):
            if worst in states:
                state = "stalled" if worst == RUNNING and shown.state == "stalled" else word
                break
    row = metrics.rows[-1] if metrics.rows else {}
    memory = [value for key, value in row.items() if key.startswith("memory_gb_")]
    reward = shown.metrics.get("reward_mean")
    told = RunStatus(
        run=metrics.run,
        state=state,
        iteration=shown.iteration,
        total=total,
        segments=f"{states.count(DONE)}/{len(states)}" if segments else f"{len(metrics.finished)}",
        reward=None if reward is None else reward.last,
        reward_change=None if reward is None else reward.change,
        images_per_s=row.get("images_per_s"),
        mfu=shown.speed.get("mfu"),
        memory_gb=max(memory, default=None),
        seconds_left=shown.seconds_left,
        seconds_since_row=shown.seconds_since_row,
        stop_asked=os.path.exists(stop_file_of(results, metrics.run)),  # False where it may not be looked for
        warnings=shown.warnings,
    )
    for one in segments:
        if one.state == RUNNING and shown.seconds_per_iteration is not None:
            ahead = max(0, int(one.job.wildcards.get("N", 0)) - shown.iteration) * shown.seconds_per_iteration
            told.limit = _limit(one, ahead, listed)
    return told


def _judges(results: Path) -> list[JudgeStatus]:
    folders = sorted(path for path in results.glob("judges/*") if path.is_dir())
    if not folders:
        return []
    settings, reused = _judge_settings(results), _reused(results)
    found = []
    for folder in folders:
        totals, about = read_totals(folder), settings.get(folder.name, {})
        answered = totals.ended.get("ok", 0)
        ended = sum(number for status, number in totals.ended.items() if status != "given_up")
        sent, received = (about.get(f"usd_per_million_{kind}_tokens") for kind in ("input", "output"))
        usd = None
        if sent is not None and received is not None:
            usd = (totals.input_tokens * sent + totals.output_tokens * received) / 1e6
        found.append(
            JudgeStatus(
                judge=folder.name,
                calls=totals.begun,
                answered=answered,
                failed=ended - answered,
                reused=reused.get(str(about.get("model")), 0),
                under_way=totals.begun - ended,
                usd=usd,
            )
        )
    return found


def _judge_settings(results: Path) -> dict[str, dict[str, Any]]:
    """By name, as the newest resolved configuration has them; nothing of one that can't be read, of which runs tell."""
    from promptecho.config.yaml_files import read_yaml

    files = sorted(results.glob("config/*.yaml"), key=lambda path: (path.stat().st_mtime, path.name))
    try:
        judges = read_yaml(files[-1]).get("judges") if files else None
    except PromptEchoError:
        return {}
    models = judges.get("models") if isinstance(judges, dict) else None
    return {name: about for name, about in (models or {}).items() if isinstance(about, dict)}


def _reused(results: Path) -> dict[str, int]:
    """Answers that the last start of each job has found in the record, by the judge's model."""
    found: dict[str, int] = defaultdict(int)
    for path in (results / "logs" / "judge").rglob("*.log"):
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        for told in _REUSED.finditer(text):
            found[told["name"]] += int(told["done"])
    return found


def _hours(
    listed: JobList | None, standings: JobStandings, timings: dict[str, list[JobTiming]], runs: list[RunStatus]
) -> HoursStatus:
    hours = HoursStatus()

    def gpus(rule: str) -> int:
        return 0 if listed is None else listed.gpus(rule)

    for rule, measured in timings.items():
        used = sum(one.seconds for one in measured) / 3600
        hours.used, hours.gpu_used = hours.used + used, hours.gpu_used + used * gpus(rule)
    usual = {rule: median(one.seconds for one in measured) for rule, measured in timings.items()}
    left: dict[str, float] = defaultdict(float)
    unknown, trainings = set(), dict[str, str]()
    for standing in standings.jobs:
        rule = standing.job.rule
        if standing.state == RUNNING and standing.elapsed is not None:
            hours.used += standing.elapsed / 3600
            hours.gpu_used += standing.elapsed / 3600 * gpus(rule)
        if standing.state == DONE:
            continue
        if standing.job.run is not None:
            trainings[standing.job.run] = rule
        elif rule not in usual:
            unknown.add(rule)
        else:
            left[rule] += max(0.0, usual[rule] - (standing.elapsed or 0.0)) / 3600
    for run in runs:
        if run.run not in trainings or run.state == "finished":
            continue
        if run.seconds_left is None:
            unknown.add(trainings[run.run])
        else:
            left[trainings[run.run]] += run.seconds_left / 3600
    hours.to_come = sum(left.values())
    hours.gpu_to_come = sum(value * gpus(rule) for rule, value in left.items())
    hours.unknown = sorted(unknown)
    return hours
