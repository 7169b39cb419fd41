"""An experiment's status as tables and lines of words, from which the screen and the page are made alike."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from promptecho.errors import counted
from promptecho.status.efficiency import Efficiency, snippet
from promptecho.status.kinds import (
    ExperimentStatus,
    JobStatus,
    JudgeStatus,
    RuleStatus,
    RunStatus,
    WaitingStatus,
)

MOST_RUNNING, MOST_WAITING, MOST_FAILED, MOST_UNKNOWN = 12, 8, 5, 4
STYLES = {
    "running": "green", "done": "cyan", "finished": "cyan", "failed": "bold red", "stalled": "bold red",
    "interrupted": "yellow", "waiting": "yellow",
}  # fmt: skip


@dataclass(frozen=True)
class BlockColumn:
    """`number`: to the right; `word`: one of STYLES in each row."""

    label: str
    number: bool = False
    word: bool = False


@dataclass(frozen=True)
class Block:
    """A table and lines below it. A line has a kind: a key of STYLES; `copy` where somebody will copy it; `log` for the
    words and path of one; or empty."""

    title: str
    columns: list[BlockColumn] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    lines: list[tuple[str, str]] = field(default_factory=list)


def blocks(status: ExperimentStatus, *, whole: bool = False) -> list[Block]:
    """What is shown, from top to bottom; `whole`: every job, not the first of many."""
    head = [("copy", f"Snakemake: {status.snakemake}" + (f"   ({status.command})" if status.command else ""))]
    head += [("waiting", note) for note in status.notes]
    found = [
        Block(f"{status.experiment}   {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(status.time))}", lines=head)
    ]
    if status.rules:
        found.append(_rules(status.rules))
    if status.runs:
        found.append(_runs(status.runs))
    if status.failed:
        found.append(_failed(status, None if whole else MOST_FAILED))
    if status.running:
        found.append(_running(status.running, None if whole else MOST_RUNNING))
    if status.waiting:
        found.append(_waiting(status.waiting, status.time, None if whole else MOST_WAITING))
    if status.judges:
        found.append(_judges(status.judges))
    found.append(_hours(status))
    return found


def _rules(rules: list[RuleStatus]) -> Block:
    told = []
    for rule in rules:
        states = [rule.running, rule.pending, rule.failed, rule.interrupted]
        rate = "" if rule.rate is None else f"{rule.rate:.3g} {rule.unit}/s"
        told.append([rule.rule, str(rule.done), *map(_some, states), _duration(rule.seconds), rate])
    sums = [
        sum(getattr(rule, state) for rule in rules) for state in ("done", "running", "pending", "failed", "interrupted")
    ]
    told.append(["all", str(sums[0]), *(_some(number) for number in sums[1:]), "", ""])
    labels = ("Done", "Running", "Pending", "Failed", "Interrupted", "Median", "Rate")
    columns = [BlockColumn("Rule"), *(BlockColumn(label, number=True) for label in labels)]
    return _without_empty(Block("Jobs by rule", columns, told))


def _runs(runs: list[RunStatus]) -> Block:
    rows, lines = [], []
    for run in runs:
        of = f"{run.iteration}/{run.total}" if run.total is not None else str(run.iteration)
        change = "" if run.reward_change is None else f" ({run.reward_change:+.3g})"
        rows.append([
            run.run, run.state, of, run.segments, "" if run.reward is None else f"{run.reward:.4g}{change}",
            _number(run.images_per_s), "" if run.mfu is None else f"{run.mfu:.0%}", _number(run.memory_gb),
            _duration(run.seconds_left) if run.state != "finished" else "",
        ])  # fmt: skip
        if run.stop_asked:
            when = "; ends after the iteration under way" if run.state == "running" else ""
            told = f"asked to stop (promptecho stop){when}; the next start of Snakemake goes on"
            lines.append(("waiting", f"{run.run}: {told}"))
        if run.state == "stalled" and run.seconds_since_row is not None:
            since = _duration(run.seconds_since_row)
            lines.append(("stalled", f"{run.run}: no new row for {since}: killed, hanging or queued again"))
        if run.limit:
            lines.append(("waiting", f"{run.run}: {run.limit}"))
        lines += [("waiting", f"{run.run}: {warning}") for warning in run.warnings]
    columns = [BlockColumn("Run"), BlockColumn("State", word=True)]
    columns += [
        BlockColumn(label, number=True)
        for label in ("Iteration", "Segments", "Reward (change)", "Images/s", "MFU", "GB", "Left")
    ]
    return _without_empty(Block("Runs", columns, rows, lines))


def _running(jobs: list[JobStatus], most: int | None) -> Block:
    rows = []
    for job in jobs[:most]:
        done = "" if job.progress is None else f"{job.progress.done}/{job.progress.total} {job.progress.unit}"
        rows.append([job.job, job.slurm or "", job.node or "", _duration(job.elapsed), _duration(job.limit_s), done,
                     _duration(job.seconds_left), job.limit or job.reason])  # fmt: skip
    labels = ("Elapsed", "Limit", "Progress", "Left")
    columns = [
        BlockColumn("Running job"),
        BlockColumn("Slurm"),
        BlockColumn("Node"),
        *(BlockColumn(one, number=True) for one in labels),
    ]
    return _without_empty(Block("", [*columns, BlockColumn("")], rows, _more(jobs, most)))


def _waiting(waiting: list[WaitingStatus], now: float, most: int | None) -> Block:
    rows = [[str(one.jobs), one.reason, one.first, _moment(one.start, now)] for one in waiting[:most]]
    columns = [
        BlockColumn("Pending", number=True),
        BlockColumn("Why"),
        BlockColumn("First of them"),
        BlockColumn("Expected start"),
    ]
    return _without_empty(Block("", columns, rows, _more(waiting, most)))


def _failed(status: ExperimentStatus, most: int | None) -> Block:
    lines = []
    again = "again, when Snakemake has ended" if status.snakemake == "running" else "again"  # it locks the folder
    for job in status.failed[:most]:
        lines.append((job.state, f"{job.job} {job.state}" + (f": {job.reason}" if job.reason else "")))
        if job.last_line:
            lines.append(("log", f"  {job.last_line}"))
        if job.log:
            lines.append(("log", f"  log: {job.log}"))
        if job.command:
            lines.append(("copy", f"  {again}: {job.command}"))
    return Block("Failed or interrupted", lines=[*lines, *_more(status.failed, most)])


def _judges(judges: list[JudgeStatus]) -> Block:
    rows = [
        [one.judge, str(one.calls), str(one.answered), _some(one.failed), _some(one.under_way), _some(one.reused),
         "" if one.usd is None else f"{one.usd:.2f}"]
        for one in judges
    ]  # fmt: skip
    labels = ("Calls", "Answered", "Failed", "Open", "Reused", "USD")
    return Block("", [BlockColumn("Judge"), *(BlockColumn(label, number=True) for label in labels)], rows)


def _hours(status: ExperimentStatus) -> Block:
    hours = status.hours
    gpus = bool(hours.gpu_used or hours.gpu_to_come)
    used, to_come = (hours.gpu_used, hours.gpu_to_come) if gpus else (hours.used, hours.to_come)
    told = f"{used:.1f} GPU-hours used" if gpus else f"{used:.2f} hours of jobs used"
    if to_come or not hours.unknown and status.rules:
        told += f", {to_come:.1f} to come" if gpus else f", {to_come:.2f} to come"
    if hours.unknown and not to_come:
        told += "; how many are to come is not known before a job of each rule has ended"
    elif hours.unknown:
        rules = ", ".join(hours.unknown) if len(hours.unknown) <= MOST_UNKNOWN else counted(len(hours.unknown), "rule")
        told += f" and more for {rules}, of which no job has ended yet"
    return Block("", lines=[("", told)])


def _more(found: list, most: int | None) -> list[tuple[str, str]]:
    return [] if most is None or len(found) <= most else [("", f"and {len(found) - most} more (--json has all)")]


def _without_empty(block: Block) -> Block:
    """Without columns that say nothing in any row."""
    keep = [index for index, _ in enumerate(block.columns) if any(row[index] for row in block.rows)]
    rows = [[row[index] for index in keep] for row in block.rows]
    return Block(block.title, [block.columns[index] for index in keep], rows, block.lines)


def _some(number: int) -> str:
    return str(number) if number else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _moment(start: float | None, now: float) -> str:
    return "" if start is None else f"in {_duration(max(0.0, start - now))}"


def blocks_of_use(found: Efficiency) -> list[Block]:
    """What jobs asked for and used, and the better requests as YAML."""
    rows = []
    for use in found.rules:
        asked = use.asked
        gpus = asked.get("gpu") or asked.get("gpus_per_node")
        memory = _against(asked.get("mem_mb"), use.peak_mb, "{:.0f}")
        minutes = _against(asked.get("runtime"), use.seconds_most / 60, "{:.1f}")
        cpus = _against(asked.get("threads"), use.cpus_used, "{:.1f}")
        told = [use.rule, str(use.jobs), use.source, cpus, memory, minutes, _duration(use.seconds_mean)]
        rows.append([*told, "" if gpus is None else str(gpus), _number(use.gpu_gb), ", ".join(use.unknown)])
    labels = ("CPUs used/asked", "MB used/asked", "Minutes used/asked", "Mean", "GPUs", "GPU GB used")
    columns = [BlockColumn("Rule"), BlockColumn("Jobs", number=True), BlockColumn("By")]
    columns += [*(BlockColumn(label, number=True) for label in labels), BlockColumn("Unknown")]
    block = _without_empty(Block(f"{found.experiment}: used of what was asked for", columns, rows))
    lines = [("waiting", note) for note in found.notes]
    text = snippet(found.rules)
    if text:
        lines += [("", "Better requests, to copy into the profile:"), *(("copy", line) for line in text.split("\n"))]
    elif any(use.asked for use in found.rules):
        lines.append(("", "No request is worth changing, as far as was measured."))
    elif not found.rules:
        lines.append(("", "No job has ended yet."))
    return [block, Block("", lines=lines)]


def _against(asked: int | None, used: float | None, form: str) -> str:
    return f"{'?' if used is None else form.format(used)} / {'?' if asked is None else asked}"


def title_of(status: ExperimentStatus) -> str:
    """For a window or a page."""
    done, total = sum(rule.done for rule in status.rules), sum(rule.total for rule in status.rules)
    return f"{status.experiment}: {done} of {counted(total, 'job')}"
