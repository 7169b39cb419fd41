"""Blocks of docs/results-shapes.md on what trainings cost, and on which of them came to the same adapter: made of what
docs/results keeps of their metrics and adapters, and of nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from promptecho.files import read_json, write_json
from promptecho.train.metrics import RunMetrics, find_runs

PHASES = {
    "sample": "sample", "reward": "reward", "precompute": "passes without gradient", "update": "update",
    "heldout": "watch on held-out captions",
}  # fmt: skip


def keep_runs(place: Path, found: Mapping[str, Any]) -> None:
    """Keep what was found of runs beside what is kept of others, which may have been trained elsewhere."""
    if found:
        known = read_json(place) if place.is_file() else {}
        write_json(place, dict(sorted({**known, **found}.items())))


def keep_costs(source: Path, kept: Path, every: Sequence[RunMetrics]) -> None:
    """Keep of each run of results/E the seconds of every phase, iteration by iteration, and the most memory in GB."""
    runs = {}
    for metrics in every:
        phases = {}
        for phase in PHASES:
            seconds = [value for _, value in metrics.series(f"seconds_{phase}")]
            memory = [value for _, value in metrics.series(f"memory_gb_{phase}")]
            if seconds:
                phases[phase] = {"seconds": seconds, "memory_gb": max(memory, default=None)}
        if phases:
            runs[metrics.run] = phases
    keep_runs(kept / source.resolve().name / "phases.json", runs)


def keep_adapters(source: Path, kept: Path) -> None:
    """Keep the SHA-256 of every adapter of results/E: run -> iteration -> hash."""
    found: dict[str, dict[str, str]] = {}
    runs = find_runs(source)
    for path in sorted(source.glob("runs/*/[0-9]*/adapter/adapter_model.safetensors")):
        step, run = path.parents[1].name, path.parents[2].name
        if run in runs and step.isdecimal():
            found.setdefault(run, {})[step] = hashlib.sha256(path.read_bytes()).hexdigest()
    keep_runs(kept / source.resolve().name / "adapters.json", found)


def costs_block(kept: Path, experiment: str, run: str) -> list[str]:
    """The phases of an iteration: median, range and memory, of one run."""
    place = kept / experiment / "phases.json"
    phases = read_json(place).get(run, {}) if place.is_file() else {}
    if not phases:
        return [f"{run}: no metrics are kept yet.", ""]
    lines = ["| Phase | Iterations | Median s | Range | Peak GB |", "| :--- | ---: | ---: | ---: | ---: |"]
    for phase, title in PHASES.items():
        if phase in phases:
            seconds, memory = phases[phase]["seconds"], phases[phase]["memory_gb"]
            spread = f"{min(seconds):.2f} - {max(seconds):.2f}"
            told = "–" if memory is None else f"{memory:.2f}"
            lines.append(f"| {title} | {len(seconds)} | {median(seconds):.2f} | {spread} | {told} |")
    return [*lines, ""]


def adapters_block(kept: Path, experiment: str, step: str) -> list[str]:
    """Which runs of an experiment came to the same adapter at an iteration, byte for byte."""
    place = kept / experiment / "adapters.json"
    found = read_json(place) if place.is_file() else {}
    alike: dict[str, list[str]] = {}
    for run, steps in found.items():
        if step in steps:
            alike.setdefault(steps[step], []).append(run)
    if not alike:
        return [f"{experiment}: no adapters of iteration {step} are kept yet.", ""]
    lines = ["| Adapter, SHA-256 | Runs |", "| :--- | :--- |"]
    lines += [f"| {digest[:16]}... | {', '.join(runs)} |" for digest, runs in alike.items()]
    told = [f"- {', '.join(runs)}: the same file, byte for byte." for runs in alike.values() if len(runs) > 1]
    return [*lines, "", *told, *([""] if told else [])]
