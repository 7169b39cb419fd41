"""A live view of an experiment's runs: `promptecho train --watch results/E`.

`snapshot` reads files, `view` and `frame` are pure functions of rows. Nothing here imports torch.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, median

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from promptecho.config.resolved import resolved_files
from promptecho.errors import ConfigError, DataError, counted
from promptecho.phases import MEASURED
from promptecho.screen import screen, show_live
from promptecho.suggest import maybe
from promptecho.train.metrics import RunMetrics, find_runs, read_run
from promptecho.train.warning_signs import change, warning_signs

METRICS = {
    "reward_mean": "reward",
    "heldout_reward": "held-out reward",
    "kl_base": "KL to base",
    "kl_ema": "KL to moving average",
    "diversity": "image diversity",
    "clip_fraction": "clip fraction",
    "update_norm": "size of update",
    "grad_below_eps": "gradient below eps",
}
SPEED = ("tflops", "mfu", "hfu")
FIXED_NOISE = {"heldout_reward"}  # the same images every time: single values compare
BLOCKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 32
RECENT = 10  # iterations that tell the usual time of one
STALL_FACTOR = 5
STALL_FLOOR_S = 120.0  # saving a state or loading models between rows is no stall
REFRESH_S = 2.0
STYLES = {"running": "green", "waiting": "yellow", "finished": "cyan", "stalled": "bold red"}


@dataclass(frozen=True)
class Metric:
    """One metric of a run: its last value, and how far its last values lie from its first (None: too few)."""

    last: float
    iteration: int
    change: float | None
    values: list[float]


@dataclass(frozen=True)
class RunView:
    """What is shown of a run. `total` is None where no configuration names the run."""

    run: str
    state: str
    iteration: int
    total: int | None
    seconds_per_iteration: float | None
    seconds_left: float | None
    seconds_since_row: float | None
    metrics: dict[str, Metric]
    warnings: list[str]
    speed: dict[str, float] = field(
        default_factory=dict
    )  # of the last row that tells any: tflops_PHASE, mfu_PHASE, ...

    def to_json(self) -> dict:
        """The numbers, without the whole series."""
        told = asdict(self)
        for metric in told["metrics"].values():
            del metric["values"]
        return told


def view(metrics: RunMetrics, total: int | None, now: float) -> RunView:
    """What to show of a run at time `now` (seconds since the epoch)."""
    times = [value for _, value in metrics.series("seconds")][-RECENT:]
    usual = median(times) if times else None
    since = None if metrics.last_write is None else max(0.0, now - metrics.last_write)
    if total is not None and total in metrics.finished:
        state = "finished"
    elif since is None:
        state = "waiting"
    else:
        limit = math.inf if usual is None else max(STALL_FLOOR_S, STALL_FACTOR * usual)
        state = "stalled" if since > limit else "running"
    left = None
    if usual is not None and total is not None and state != "finished":
        left = max(0, total - metrics.iteration) * usual
    return RunView(
        run=metrics.run,
        state=state,
        iteration=metrics.iteration,
        total=total,
        seconds_per_iteration=usual,
        seconds_left=left,
        seconds_since_row=since,
        metrics={key: _metric(metrics, key) for key in METRICS if metrics.series(key)},
        warnings=warning_signs(metrics.rows),
        speed=_speed(metrics),
    )


def _speed(metrics: RunMetrics) -> dict[str, float]:
    """TFLOP/s, MFU and HFU of the last row that has any; rows of earlier versions, and of CPUs, have none."""
    for row in reversed(metrics.rows):
        if found := {key: value for key, value in row.items() if key.split("_")[0] in SPEED}:
            return found
    return {}


def _metric(metrics: RunMetrics, key: str) -> Metric:
    found = metrics.series(key)
    values = [value for _, value in found]
    changed = change(values, 1) if key in FIXED_NOISE else change(values)
    return Metric(last=values[-1], iteration=found[-1][0], change=changed, values=values)


def sparkline(values: list[float], width: int = SPARK_WIDTH) -> str:
    """A series as block characters, at most `width` of them: longer ones are averaged in equal parts."""
    finite = [value for value in values if math.isfinite(value)]
    parts = min(width, len(finite))
    if not parts:
        return ""
    edges = [round(i * len(finite) / parts) for i in range(parts + 1)]
    means = [fmean(finite[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    low, span = min(means), max(means) - min(means)
    if span == 0:
        return BLOCKS[3] * parts
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int((mean - low) / span * len(BLOCKS)))] for mean in means)


def frame(experiment: str, views: list[RunView]) -> RenderableType:
    """One picture of all runs."""
    parts: list[RenderableType] = [Text(f"{experiment}: {counted(len(views), 'run')}", style="bold")]
    for shown in views:
        parts += [Text(), _header(shown)]
        if shown.state == "stalled":
            assert shown.seconds_since_row is not None, "a run without a row waits"
            since = _duration(shown.seconds_since_row)
            parts.append(
                Padding(Text(f"! no new row for {since}: killed, hanging or queued again", "bold red"), (0, 0, 0, 2))
            )
        if shown.metrics:
            parts.append(Padding(_table(shown), (0, 0, 0, 2)))
        if shown.speed:
            parts.append(Padding(Text(_told_speed(shown.speed), style="dim"), (0, 0, 0, 2)))
        parts += [Padding(Text(f"! {line}", style="bold yellow"), (0, 0, 0, 2)) for line in shown.warnings]
    if any(metric.change is not None for shown in views for metric in shown.metrics.values()):
        legend = "change: mean of the last 5 iterations minus mean of the first 5; held-out: last minus first"
        parts += [Text(), Text(legend, style="dim")]
    return Group(*parts)


def _header(shown: RunView) -> RenderableType:
    line = Table.grid(padding=(0, 2))
    of = f"{shown.iteration}/{shown.total}" if shown.total is not None else f"{shown.iteration}"
    bar = ProgressBar(total=shown.total or 1, completed=shown.iteration if shown.total else 0, width=20)
    told = []
    if shown.seconds_per_iteration is not None:
        told.append(f"{_duration(shown.seconds_per_iteration)} per iteration")
    if shown.state == "running" and shown.seconds_left is not None:
        told.append(f"{_duration(shown.seconds_left)} left")
    if shown.state == "waiting":
        told.append("no segment is under way")
    line.add_row(
        Text(shown.run, style="bold"), Text(shown.state, style=STYLES[shown.state]), bar, Text(of), ", ".join(told)
    )
    return line


def _table(shown: RunView) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("", min_width=max(map(len, METRICS.values())))
    table.add_column("", no_wrap=True, min_width=SPARK_WIDTH)
    table.add_column("last", justify="right", min_width=10)
    table.add_column("change", justify="right", min_width=10)
    for key, metric in shown.metrics.items():
        changed = "" if metric.change is None else f"{metric.change:+.4g}"
        behind = f"  (at {metric.iteration})" if metric.iteration != shown.iteration else ""
        table.add_row(METRICS[key], sparkline(metric.values), f"{metric.last:.4g}", changed + behind)
    return table


def _told_speed(speed: dict[str, float]) -> str:
    """Of each phase and the whole iteration."""
    told = []
    for phase, suffix in [*((phase, f"_{phase}") for phase in MEASURED), ("iteration", "")]:
        if (rate := speed.get(f"tflops{suffix}")) is not None:
            share = speed.get(f"mfu{suffix}")
            told.append(f"{phase} {rate:.3g}" + ("" if share is None else f" (MFU {share:.0%})"))
    return f"TFLOP/s per GPU: {', '.join(told)}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def planned_runs(experiment: Path) -> dict[str, int]:
    """Total iterations by run, from the newest resolved configuration; {} where there is none.

    Read as plain YAML, not validated: a configuration that another version wrote can still be watched.

    Raises:
        ConfigError, DataError: the file is not a resolved configuration.
    """
    from promptecho.config.yaml_files import read_yaml

    files = resolved_files(experiment)
    if not files:
        return {}
    runs = read_yaml(files[-1]).get("runs") or {}
    try:
        return {str(name): int(training["iterations"]) for name, training in runs.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DataError(f"{files[-1]}: no runs.RUN.iterations in it; not a resolved configuration") from None


def snapshot(experiment: Path, runs: list[str], now: float) -> list[RunView]:
    """Read the chosen runs; by default all that are planned, and what else is under way.

    Without a configuration, all that have begun.

    Raises:
        ConfigError: no such run, or none at all.
        DataError: a damaged file.
    """
    found = chosen_runs(experiment, runs)
    if not found:
        raise ConfigError(
            f"{experiment}: no run has begun and none is planned in {experiment}/config; nothing to watch"
        )
    return [view(metrics, total, now) for metrics, total in found]


def chosen_runs(experiment: Path, runs: list[str]) -> list[tuple[RunMetrics, int | None]]:
    """The chosen runs as in `snapshot`, each with its total of iterations, if that is known; [] if there is none.

    Raises:
        ConfigError: no such run.
        DataError: a damaged file.
    """
    begun, planned = find_runs(experiment), planned_runs(experiment)
    known = list(dict.fromkeys([*planned, *begun]))
    for run in runs:
        if run not in known:
            names = f"(known: {', '.join(known) or 'none'}){maybe(run, known)}"
            raise ConfigError(f"--run {run}: no such run in {experiment} {names}")
    read = [read_run(experiment, run) for run in runs or known]
    if not runs and planned:  # runs that an earlier configuration left behind would never finish
        read = [metrics for metrics in read if metrics.run in planned or metrics.live is not None]
    return [(metrics, planned.get(metrics.run)) for metrics in read]


def watch(experiment: Path, runs: list[str], *, once: bool = False, as_json: bool = False) -> None:
    """Show the runs until all are finished, or Ctrl-C; `once` shows one frame, `as_json` prints the numbers once.

    Raises:
        ConfigError, DataError: see snapshot.
    """

    def look() -> tuple[RenderableType, bool]:
        views = snapshot(experiment, runs, time.time())
        return frame(str(experiment), views), all(shown.state == "finished" for shown in views)

    if as_json:
        views = snapshot(experiment, runs, time.time())
        print(json.dumps({"experiment": str(experiment), "runs": [shown.to_json() for shown in views]}, indent=2))
    elif once:
        screen().print(look()[0])
    else:
        show_live(look, refresh_s=REFRESH_S)
