"""Scores of an experiment's runs at their evaluated checkpoints, with intervals: one figure for each benchmark.

Runs named NAME-s1, NAME-s2, ... are seeds of one training: they share a colour, and their mean has the interval. What
every iteration records (reward, KL, diversity) belongs to no benchmark and is in a figure of its own, training.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from promptecho.config.benchmarks import BENCHMARKS, Benchmark, Curve, benchmark_named, mistakes_told
from promptecho.errors import DataError
from promptecho.files import write_json
from promptecho.intervals import CONFIDENCE
from promptecho.item_columns import images_of
from promptecho.names import by_number
from promptecho.plugins import import_object
from promptecho.scores import ScoreItem
from promptecho.statistics import Estimate, mean_of_group_means, pool_seeds
from promptecho.tables.collect import ScoreFile
from promptecho.tables.compare import SEED_OF_RUN
from promptecho.tables.guard_columns import GuardEstimate, Guards, Place


class Point(TypedDict):
    """The score of a checkpoint with its interval."""

    iteration: int
    value: float
    low: float | None
    high: float | None
    n_items: int
    n_prompts: int


def groups_of(runs: list[str]) -> dict[str, list[str]]:
    """Runs by what they are seeds of, by name; a run without siblings is a group of its own name."""
    groups: dict[str, list[str]] = {}
    for run in sorted(runs, key=by_number):
        match = SEED_OF_RUN.fullmatch(run)
        groups.setdefault(match["name"] if match else run, []).append(run)
    return {(name if len(members) > 1 else members[0]): members for name, members in groups.items()}


def overall(file: ScoreFile, seeds: Sequence[ScoreFile] = (), curve: Curve | None = None) -> Estimate:
    """A score file's own score of `curve` (its benchmark's first) with its interval; with `seeds`, that of the seeds
    together, as in the tables.

    It is the mean of the groups' means, of all images, of the prompts, or of the group that is called as the curve's
    key, whichever the file's summary has.

    Raises:
        DataError: the file tells neither, so that the interval would belong to another number, or a seed was judged on
            other images.
    """
    benchmark = benchmark_named(file.scores.provenance.scorer)
    curve = curve or benchmark.curves[0]
    told = file.scores.summary.get(curve.key)
    unfit: DataError | None = None
    for way, tolerance in _ways(benchmark, curve):
        try:
            estimate = way(*_pooled([file]))
        except DataError as error:  # a group without a verdict has no mean: the score may be the mean of all images
            unfit = unfit or error
            continue
        if told is not None and math.isclose(estimate.value, told, rel_tol=1e-9, abs_tol=tolerance):
            return way(*_pooled(seeds)) if seeds else estimate
    if unfit is not None:
        raise unfit
    found = BENCHMARKS.find(benchmark.name)
    fix = "score again" if found.is_ours else f"score again, or give this curve of {found} an `estimate`"
    raise DataError(
        f"{file.path}: summary.{curve.key} {told} is neither the mean of the groups nor of the images; {fix}"
    )


Way = tuple[Callable[[Sequence[ScoreItem], str], Estimate], float]
# (items, what) -> estimate, and how far it may be off the summary's
WAYS: tuple[Way, ...] = (
    (lambda items, what: mean_of_group_means(items, what=what)[0], 1e-12),
    (lambda items, what: mean_of_group_means(items, ungrouped=True, what=what)[0], 1e-12),
    (lambda items, what: mean_of_group_means(items, ungrouped=True, per_prompt=True, what=what)[0], 1e-12),
)
# Outcomes of pairs are differences: +1 won, 0 tie, -1 lost.
NET: Way = (lambda items, what: mean_of_group_means(items, ungrouped=True, signed=True, what=what)[0], 1e-12)


def _ways(benchmark: Benchmark, curve: Curve) -> tuple[Way, ...]:
    """How the score may be estimated; the first that gives the summary's number does it."""
    if not curve.estimate:
        return (NET,) if benchmark.pairwise else (*WAYS, (_of_group(curve.key), 1e-12))
    function = import_object(curve.estimate, f"benchmark {benchmark.name}: curve {curve.key}")

    def estimate(items: Sequence[ScoreItem], what: str) -> Estimate:
        with mistakes_told(benchmark.name, f"curve {curve.key}"):
            return function(items, what, curve.key)

    return ((estimate, curve.tolerance),)


def _of_group(name: str) -> Callable[[Sequence[ScoreItem], str], Estimate]:
    """The mean of one group's items; of all items where no group has that name."""

    def estimate(items: Sequence[ScoreItem], what: str) -> Estimate:
        mine = [item for item in items if item.group == name]
        return mean_of_group_means(mine or items, ungrouped=True, what=what)[0]

    return estimate


def _pooled(files: Sequence[ScoreFile]) -> tuple[Sequence[ScoreItem], str]:
    """The items of a file or of several seeds, and their names."""
    keys = [images_of(file.scores.items) for file in files]
    for file, found in zip(files, keys, strict=True):
        if found != keys[0]:
            raise DataError(f"{file.path}: other images than {files[0].path}; score both on the same prompts")
    return pool_seeds([file.scores.items for file in files]), " and ".join(str(file.path) for file in files)


def curve_data(files: list[ScoreFile], guards: Guards | None = None) -> dict[str, Any]:
    """Everything that is drawn, as JSON-able numbers.

    Args:
        files: score files of one benchmark and experiment, as read_score_files returns them.
        guards: what watches the same images; each has a panel, and its `alarms` are the points at which it falls while
            the trained reward rises.

    Raises:
        DataError: several experiments, or scores that do not belong together.
    """
    provenance = [file.scores.provenance for file in files]
    same = ("experiment", "benchmark", "scorer", "mode", "backend", "judge_model", "template_digest", "prompts_digest")
    for key in (*same, "baseline"):
        values = {getattr(one, key): file.path for one, file in zip(provenance, files, strict=True)}
        if len(values) > 1:
            told = ", ".join(f"{value!r} ({path})" for value, path in values.items())
            raise DataError(f"score files differ in {key}: {told}; draw one figure for each")
    groups = groups_of(list(dict.fromkeys(one.run for one in provenance if one.step)))
    by_place = {(one.run, one.step): file for one, file in zip(provenance, files, strict=True)}
    benchmark = benchmark_named(provenance[0].scorer)
    scores = [_series(curve, benchmark.pairwise, groups, by_place) for curve in benchmark.curves]
    if guards:
        steps = sorted({(one.experiment, one.run, one.step) for one in provenance if one.step})
        scores += [_guard_series(guards, title, groups, steps) for title in guards.titles]
    return {
        "experiment": provenance[0].experiment,
        "benchmark": provenance[0].benchmark,
        "limit": str(provenance[0].limit) if provenance[0].limit else None,
        "confidence": CONFIDENCE,
        "groups": groups,
        "score": scores[0],
        "further_scores": scores[1:],
        "provenance": [one.model_dump(mode="json") for one in provenance],
    }


def _series(
    curve: Curve, pairwise: bool, groups: dict[str, list[str]], by_place: dict[tuple[str, int], ScoreFile]
) -> dict[str, Any]:
    """One overall score of all runs: `base` (None where the runs are compared with it in the score itself), the points
    of each run, and those of seeds taken together."""
    runs: dict[str, list[Point]] = {run: [] for members in groups.values() for run in members}
    base = None
    for (run, step), file in by_place.items():
        point = _point(step, overall(file, curve=curve))
        if step == 0:
            base = base or point
        else:
            runs[run].append(point)
    means = {}
    for group, members in groups.items():
        if len(members) > 1:
            shared = set.intersection(*({point["iteration"] for point in runs[run]} for run in members))
            seeds = {step: [by_place[run, step] for run in members] for step in sorted(shared)}
            means[group] = [_point(step, overall(found[0], found, curve)) for step, found in seeds.items()]
    return {"name": curve.key, "title": curve.title, "difference": pairwise, "base": base, "runs": runs,
            "means": means}  # fmt: skip


def _guard_series(guards: Guards, title: str, groups: dict[str, list[str]], steps: list[Place]) -> dict[str, Any]:
    """As `_series`, of a guard, in its own unit."""
    experiment = steps[0][0] if steps else ""
    base = guards.value(title, [(experiment, "base", 0)])

    def points(places: list[list[Place]]) -> tuple[list[Point], list[int]]:
        found, alarms = [], []
        for some in places:
            if (one := guards.value(title, some)) is not None:
                found.append(_point(some[0][2], one))
                alarms += [some[0][2]] if title in guards.fallen(some) else []
        return found, alarms

    by_run = {run: points([[place] for place in steps if place[1] == run]) for some in groups.values() for run in some}
    means = {}
    for group, members in groups.items():
        if len(members) > 1:
            shared = sorted(set.intersection(*({step for _, run, step in steps if run == one} for one in members)))
            means[group] = points([[(experiment, run, step) for run in members] for step in shared])
    alarms = {name: found for name, (_, found) in {**by_run, **means}.items() if found}
    unit = f" ({guards.unit(title)})" if guards.unit(title) else ""
    return {"name": title, "title": f"guard {title}{unit}", "guard": True, "difference": False,
            "base": None if base is None else _point(0, base),
            "runs": {run: found for run, (found, _) in by_run.items()},
            "means": {name: found for name, (found, _) in means.items()}, "alarms": alarms}  # fmt: skip


def _point(iteration: int, estimate: Estimate | GuardEstimate) -> Point:
    return {"iteration": iteration, "value": estimate.value, "low": estimate.low, "high": estimate.high,
            "n_items": estimate.n_items, "n_prompts": estimate.n_prompts}  # fmt: skip


def write_curves(data: dict[str, Any], folder: Path) -> list[Path]:
    """Write curves_BENCH.png, .pdf, .json, .html and single_column/curves_BENCH.pdf; returns their paths.

    Raises:
        DataError: the disk is full or not writable.
    """
    from promptecho.figures.draw_curves import draw
    from promptecho.figures.page import write_page
    from promptecho.figures.style import write_widths

    stem = folder / f"curves_{data['benchmark']}"
    paths = write_widths(lambda width: draw(data, width), stem)
    told = stem.with_name(f"{stem.name}.json")
    write_json(told, data)
    return [*paths, told, write_page(paths[0], f"{data['experiment']}: scores on {data['benchmark']}")]
