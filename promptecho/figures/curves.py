"""Learning curves of an experiment's runs: score, reward, KL and diversity against the iteration.

Where the reward rises and score, held-out reward or diversity do not follow, the policy has found a weakness of the
reward. Runs named NAME-s1, NAME-s2, ... are seeds of one training: they share a colour, their mean is drawn bold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from promptecho.errors import DataError
from promptecho.files import write_json
from promptecho.intervals import CONFIDENCE
from promptecho.scores import ScoreItem
from promptecho.statistics import Estimate, mean_of_group_means, pool_seeds
from promptecho.tables import tiif
from promptecho.tables.collect import ScoreFile
from promptecho.tables.compare import SEED_OF_RUN
from promptecho.train.metrics import Row, series

EVERY_ITERATION = ("reward_mean", "kl_base", "kl_ema", "diversity")  # noisy: drawn with a running mean
METRICS = (*EVERY_ITERATION, "heldout_reward")
SMOOTHING = 15  # the running mean covers one fifteenth of a run

Curve = list[list[float]]  # [[iteration, value], ...]


def groups_of(runs: list[str]) -> dict[str, list[str]]:
    """Runs by what they are seeds of; a run without siblings is a group of its own name."""
    groups: dict[str, list[str]] = {}
    for run in runs:
        match = SEED_OF_RUN.fullmatch(run)
        groups.setdefault(match["name"] if match else run, []).append(run)
    return {(name if len(members) > 1 else members[0]): members for name, members in groups.items()}


# Scorers whose tables have several overall scores: the names of these in a file's summary.
SERIES = {"tiif": ("short.overall", "long.overall")}
TITLES = {
    ("densealign", "overall"): "net preference over the baseline",
    ("textocr", "overall"): "images with all text right",
    ("tiif", "short.overall"): "overall, short prompts",
    ("tiif", "long.overall"): "overall, long prompts",
}


def overall(file: ScoreFile, seeds: Sequence[ScoreFile] = (), series: str = "overall") -> Estimate:
    """A score file's own `series` with its interval; with `seeds`, that of the seeds together, as in the tables.

    Overall is the mean of the groups' means, of all images, or of the prompts, whichever the file's summary tells.

    Raises:
        DataError: the file tells neither, so that the interval would belong to another number, or a seed was judged on
            other images.
    """
    told = file.scores.summary.get(series)
    scorer = file.scores.provenance.scorer
    ways = (tiif_way(series),) if scorer in SERIES else (NET,) if scorer == "densealign" else WAYS
    for way, tolerance in ways:
        estimate = way(*_pooled([file]))
        if told is not None and math.isclose(estimate.value, told, rel_tol=1e-9, abs_tol=tolerance):
            return way(*_pooled(seeds)) if seeds else estimate
    raise DataError(
        f"{file.path}: summary.{series} {told} is neither the mean of the groups nor of the images; score again"
    )


# (items, what) -> estimate, and how far it may be off the summary's
WAYS: tuple[tuple[Callable[[Sequence[ScoreItem], str], Estimate], float], ...] = (
    (lambda items, what: mean_of_group_means(items, what=what)[0], 1e-12),
    (lambda items, what: mean_of_group_means(items, ungrouped=True, what=what)[0], 1e-12),
    (lambda items, what: mean_of_group_means(items, ungrouped=True, per_prompt=True, what=what)[0], 1e-12),
)
# DenseAlignBench's outcomes are differences: +1 won, 0 tie, -1 lost.
NET = (lambda items, what: mean_of_group_means(items, ungrouped=True, signed=True, what=what)[0], 1e-12)


def tiif_way(series: str) -> tuple[Callable[[Sequence[ScoreItem], str], Estimate], float]:
    """TIIF-Bench's overall of one length; the official one is rounded on the way."""

    def way(items: Sequence[ScoreItem], what: str) -> Estimate:
        found = tiif.estimates(items, what, series)
        if series not in found:
            raise DataError(f"{what}: no outcome that counts for {series}; score again")
        return found[series]

    return way, tiif.ROUNDING


def _pooled(files: Sequence[ScoreFile]) -> tuple[list[ScoreItem], str]:
    """The items of a file or of several seeds, and their names."""
    keys = [{(item.prompt_id, item.image_index) for item in file.scores.items} for file in files]
    for file, found in zip(files, keys, strict=True):
        if found != keys[0]:
            raise DataError(f"{file.path}: other images than {files[0].path}; score both on the same prompts")
    return pool_seeds([file.scores.items for file in files]), " and ".join(str(file.path) for file in files)


def curve_data(files: list[ScoreFile], metrics: dict[str, list[Row]]) -> dict[str, Any]:
    """Everything that is drawn, as JSON-able numbers.

    Args:
        files: score files of one benchmark and experiment, as read_score_files returns them.
        metrics: rows by run.

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
    runs = list(dict.fromkeys([*metrics, *(one.run for one in provenance if one.step)]))
    groups = groups_of(runs)
    by_place = {(one.run, one.step): file for one, file in zip(provenance, files, strict=True)}
    scorer = provenance[0].scorer
    scores = [_series(name, scorer, groups, by_place) for name in SERIES.get(scorer, ("overall",))]
    curves = {key: {run: _curve(rows, key) for run, rows in metrics.items() if _curve(rows, key)} for key in METRICS}
    for key in EVERY_ITERATION:
        curves[f"{key}_smoothed"] = {run: smoothed(curve) for run, curve in curves[key].items()}
    return {
        "experiment": provenance[0].experiment,
        "benchmark": provenance[0].benchmark,
        "confidence": CONFIDENCE,
        "groups": groups,
        "score": scores[0],
        "further_scores": scores[1:],
        "metrics": {
            key: {"runs": found, "means": {n: m for n, g in groups.items() if (m := _mean([found.get(r) for r in g]))}}
            for key, found in curves.items()
        },
        "provenance": [one.model_dump(mode="json") for one in provenance],
    }


def _series(
    name: str, scorer: str, groups: dict[str, list[str]], by_place: dict[tuple[str, int], ScoreFile]
) -> dict[str, Any]:
    """One overall score of all runs: `base` (None where the runs are compared with it in the score itself), the points
    of each run, and those of seeds taken together."""
    title = TITLES.get((scorer, name), "overall score")
    runs = {run: [] for members in groups.values() for run in members}
    base = None
    for (run, step), file in by_place.items():
        point = _point(step, overall(file, series=name))
        if step == 0:
            base = base or point
        else:
            runs[run].append(point)
    means = {}
    for group, members in groups.items():
        if len(members) > 1:
            shared = set.intersection(*({point["iteration"] for point in runs[run]} for run in members))
            seeds = {step: [by_place[run, step] for run in members] for step in sorted(shared)}
            means[group] = [_point(step, overall(found[0], found, name)) for step, found in seeds.items()]
    return {"name": name, "title": title, "difference": scorer == "densealign", "base": base, "runs": runs,
            "means": means}  # fmt: skip


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
    """Write curves_BENCH.png, .pdf, .json and .html; returns their paths.

    Raises:
        DataError: the disk is full or not writable.
    """
    from promptecho.figures.draw_curves import draw
    from promptecho.figures.page import write_page
    from promptecho.figures.style import save, style

    stem = folder / f"curves_{data['benchmark']}"
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf", "json")]
    with style():
        figure = draw(data)
        for path in paths[:2]:
            save(figure, path)
    write_json(paths[2], data)
    return [*paths, write_page(paths[0])]
