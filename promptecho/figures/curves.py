"""Learning curves of an experiment's runs: score, reward, KL and diversity against the iteration.

Where the reward rises and score, held-out reward or diversity do not follow, the policy has found a weakness of the
reward. Runs named NAME-s1, NAME-s2, ... are seeds of one training: they share a colour, their mean is drawn bold.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from statistics import fmean
from typing import Any

from promptecho.errors import DataError
from promptecho.files import write_json
from promptecho.scores import ScoreItem
from promptecho.statistics import CONFIDENCE, Estimate, mean_of_group_means
from promptecho.tables.collect import ScoreFile
from promptecho.train.metrics import Row, series

EVERY_ITERATION = ("reward_mean", "kl_base", "kl_ema", "diversity")  # noisy: drawn with a running mean
METRICS = (*EVERY_ITERATION, "heldout_reward")
SMOOTHING = 15  # the running mean covers one fifteenth of a run
SEED = re.compile(r"(?P<name>.+)-s[0-9]+")

Curve = list[list[float]]  # [[iteration, value], ...]


def groups_of(runs: list[str]) -> dict[str, list[str]]:
    """Runs by what they are seeds of; a run without siblings is a group of its own name."""
    groups: dict[str, list[str]] = {}
    for run in runs:
        match = SEED.fullmatch(run)
        groups.setdefault(match["name"] if match else run, []).append(run)
    return {(name if len(members) > 1 else members[0]): members for name, members in groups.items()}


def overall(items: list[ScoreItem], told: float, what: str) -> Estimate:
    """The interval of a score file's own `overall`: the mean of its groups' means, or of all its images.

    Raises:
        DataError: `told` is neither, so that the interval would belong to another number.
    """
    for candidate in (items, [item.model_copy(update={"group": "all"}) for item in items]):
        estimate, _ = mean_of_group_means(candidate, what=what)
        if math.isclose(estimate.value, told, rel_tol=1e-9, abs_tol=1e-12):
            return estimate
    raise DataError(f"{what}: summary.overall {told} is neither the mean of the groups nor of the images; score again")


def mean_over_seeds(files: list[ScoreFile]) -> Estimate:
    """Overall of the seeds' mean outcome of each image; the interval holds the sampling of prompts, not of seeds.

    Images that failed for any seed are left out.

    Raises:
        DataError: the seeds were judged on different images.
    """
    first = files[0]
    outcomes = [{(i.prompt_id, i.image_index): i.outcome for i in file.scores.items} for file in files]
    for file, found in zip(files, outcomes, strict=True):
        if found.keys() != outcomes[0].keys():
            raise DataError(f"{file.path}: other images than {first.path}; score both on the same prompts")
    items = []
    for item in first.scores.items:
        values = [found[(item.prompt_id, item.image_index)] for found in outcomes]
        if None not in values:
            items.append(item.model_copy(update={"outcome": fmean(values), "failed": False}))
    what = " and ".join(str(file.path) for file in files)
    groups, _ = mean_of_group_means(items, what=what)
    images, _ = mean_of_group_means([item.model_copy(update={"group": "all"}) for item in items], what=what)
    told = fmean(file.scores.summary["overall"] for file in files)
    return min(groups, images, key=lambda estimate: abs(estimate.value - told))


def curve_data(files: list[ScoreFile], metrics: dict[str, list[Row]]) -> dict[str, Any]:
    """Everything that is drawn, as JSON-able numbers.

    Args:
        files: score files of one benchmark and experiment, as read_score_files returns them.
        metrics: rows by run.

    Raises:
        DataError: several experiments, or scores that do not belong together.
    """
    provenance = [file.scores.provenance for file in files]
    for key in ("experiment", "benchmark", "mode", "backend", "judge_model", "prompts_digest"):
        values = {getattr(one, key): file.path for one, file in zip(provenance, files, strict=True)}
        if len(values) > 1:
            told = ", ".join(f"{value!r} ({path})" for value, path in values.items())
            raise DataError(f"score files differ in {key}: {told}; draw one figure for each")
    runs = list(dict.fromkeys([*metrics, *(one.run for one in provenance if one.step)]))
    groups = groups_of(runs)
    by_place = {(one.run, one.step): file for one, file in zip(provenance, files, strict=True)}
    base = next((_point(0, _estimate(file)) for (_, step), file in by_place.items() if step == 0), None)
    scores = {run: [_point(s, _estimate(f)) for (r, s), f in by_place.items() if r == run and s] for run in runs}
    means = {}
    for name, members in groups.items():
        if len(members) > 1:
            shared = set.intersection(*({point["iteration"] for point in scores[run]} for run in members))
            means[name] = [
                _point(step, mean_over_seeds([by_place[run, step] for run in members])) for step in sorted(shared)
            ]
    curves = {key: {run: _curve(rows, key) for run, rows in metrics.items() if _curve(rows, key)} for key in METRICS}
    for key in EVERY_ITERATION:
        curves[f"{key}_smoothed"] = {run: smoothed(curve) for run, curve in curves[key].items()}
    return {
        "experiment": provenance[0].experiment,
        "benchmark": provenance[0].benchmark,
        "confidence": CONFIDENCE,
        "groups": groups,
        "score": {"base": base, "runs": scores, "means": means},
        "metrics": {
            key: {"runs": found, "means": {n: m for n, g in groups.items() if (m := _mean([found.get(r) for r in g]))}}
            for key, found in curves.items()
        },
        "provenance": [one.model_dump(mode="json") for one in provenance],
    }


def _estimate(file: ScoreFile) -> Estimate:
    if "overall" not in file.scores.summary:
        raise DataError(f"{file.path}: summary.overall is missing; score again")
    return overall(file.scores.items, file.scores.summary["overall"], str(file.path))


def _point(iteration: int, estimate: Estimate) -> dict[str, float]:
    return {"iteration": iteration, "value": estimate.value, "low": estimate.low, "high": estimate.high,
            "n_items": estimate.n_items, "n_prompts": estimate.n_prompts}  # fmt: skip


def _curve(rows: list[Row], key: str) -> Curve:
    return [[iteration, value] for iteration, value in series(rows, key)]


def _mean(curves: list[Curve | None]) -> Curve:
    """Mean of the seeds' curves where all have a value; [] for fewer than two seeds."""
    if len(curves) < 2 or None in curves:
        return []
    values = [dict(map(tuple, curve)) for curve in curves]
    shared = sorted(set.intersection(*(set(one) for one in values)))
    return [[iteration, fmean(one[iteration] for one in values)] for iteration in shared]


def smoothed(curve: Curve) -> Curve:
    """Running mean over the last n iterations, n a fifteenth of the curve; the curve itself where that is 1."""
    window = max(1, len(curve) // SMOOTHING)
    return [[curve[i][0], fmean(v for _, v in curve[max(0, i + 1 - window) : i + 1])] for i in range(len(curve))]


def write_curves(data: dict[str, Any], folder: Path) -> list[Path]:
    """Write curves_BENCH.png, .pdf and .json; returns their paths.

    Raises:
        DataError: the disk is full or not writable.
    """
    from promptecho.figures.draw_curves import draw
    from promptecho.figures.style import save, style

    stem = folder / f"curves_{data['benchmark']}"
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf", "json")]
    with style():
        figure = draw(data)
        for path in paths[:2]:
            save(figure, path)
    write_json(paths[2], data)
    return paths
