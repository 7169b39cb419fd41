"""Uncertainty of benchmark scores: images of one prompt are not independent, so prompts are the unit.

All resampling has a fixed seed and a fixed order (groups and prompts sorted by name): the same items, in any order,
give the same numbers to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from promptecho.errors import DataError
from promptecho.scores import ScoreItem
from promptecho.seeds import derive_seed

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval. `n_items` without failed ones; `n_prompts` are the clusters."""

    value: float
    low: float
    high: float
    n_items: int
    n_prompts: int


@dataclass(frozen=True)
class Difference:
    """A paired difference (second minus first) with its interval and two-sided p-value.

    `n_lost` pairs have a failed side and are left out.
    """

    value: float
    low: float
    high: float
    p_value: float
    n_items: int
    n_prompts: int
    n_lost: int


@dataclass(frozen=True)
class _Group:
    """Per-prompt sums `sums[P]` and item counts `counts[P]` of one group, prompts sorted by id."""

    name: str
    sums: np.ndarray
    counts: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.counts.sum())


def wilson_interval(successes: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson score interval of a proportion of `n` INDEPENDENT items (Wilson, 1927), without continuity correction.

    Raises:
        DataError: `n` is 0 or `successes` lies outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise DataError(f"Wilson interval: {successes} of {n} is not a proportion")
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def _groups(rows: Sequence[tuple[str, str, int, float]], what: str) -> list[_Group]:
    """Cluster `(group, prompt_id, image_index, value)` rows by prompt, groups sorted by name."""
    if not rows:
        raise DataError(f"{what}: no item with an outcome; nothing to average")
    clusters: dict[str, dict[str, list[float]]] = {}
    for group, prompt_id, _, value in sorted(rows):
        clusters.setdefault(group, {}).setdefault(prompt_id, []).append(value)
    return [
        _Group(name, np.array([sum(v) for v in prompts.values()]), np.array([float(len(v)) for v in prompts.values()]))
        for name, prompts in clusters.items()
    ]


def _resampled_means(group: _Group, resamples: int, seed: int) -> np.ndarray:
    """Means `[resamples]` of one group, its prompts drawn with replacement."""
    rng = np.random.default_rng(derive_seed(seed, "bootstrap", group.name))
    n = len(group.sums)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)  # [resamples, P]
    return (weights @ group.sums) / (weights @ group.counts)


def _percentile_interval(means: np.ndarray, value: float, confidence: float) -> tuple[float, float]:
    """Percentile interval, widened to hold the point estimate (float rounding, extreme skew)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return min(float(low), value), max(float(high), value)


def _all_equal_interval(groups: list[_Group], confidence: float) -> tuple[float, float]:
    """Interval where resampling cannot move: every group is all right or all wrong (see mean_of_group_means)."""
    bounds = [wilson_interval(round(g.mean * len(g.sums)), len(g.sums), confidence) for g in groups]
    return float(np.mean([low for low, _ in bounds])), float(np.mean([high for _, high in bounds]))


def mean_of_group_means(
    items: Sequence[ScoreItem],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = SEED,
    what: str = "scores",
) -> tuple[Estimate, dict[str, Estimate]]:
    """Overall (unweighted mean of the group means) and each group's mean, with intervals.

    Method: stratified cluster bootstrap. Within each group, prompts are drawn with replacement and bring all their
    images; 10,000 resamples; percentile interval. Where no resample can differ because every item of the groups
    involved is 0, or every item is 1, the bootstrap would claim certainty: the Wilson interval with the number of
    PROMPTS as n is given instead (for Overall the mean of the groups' bounds, which is wider than needed).
    A group with one prompt and mixed outcomes adds no uncertainty: more prompts are the only cure.

    Failed items are left out of sums and counts.

    Raises:
        DataError: no items with an outcome (named by `what`), or all items of a group failed.
    """
    lost = {item.group for item in items} - {item.group for item in items if not item.failed}
    if lost:
        raise DataError(f"{what}: every item of group {min(lost)!r} failed; score again")
    rows = [(i.group, i.prompt_id, i.image_index, float(i.outcome)) for i in items if i.outcome is not None]
    groups = _groups(rows, what)
    means = {group.name: _resampled_means(group, resamples, seed) for group in groups}

    def estimate(chosen: list[_Group]) -> Estimate:
        value = float(np.mean([group.mean for group in chosen]))
        if all(group.mean in (0.0, 1.0) and np.all(group.sums == group.mean * group.counts) for group in chosen):
            low, high = _all_equal_interval(chosen, confidence)
        else:
            low, high = _percentile_interval(np.mean([means[g.name] for g in chosen], axis=0), value, confidence)
        n_items, n_prompts = sum(int(g.counts.sum()) for g in chosen), sum(len(g.sums) for g in chosen)
        return Estimate(value, min(low, value), max(high, value), n_items, n_prompts)

    return estimate(groups), {group.name: estimate([group]) for group in groups}


def _pairs(
    first: Sequence[ScoreItem], second: Sequence[ScoreItem], what: str
) -> tuple[list[tuple[str, str, int, float]], int]:
    """Rows of differences over the same items, and the number of pairs lost to failures."""
    left, right = ({(i.prompt_id, i.image_index): i for i in items} for items in (first, second))
    if len(left) != len(first) or len(right) != len(second):
        raise DataError(f"{what}: an item occurs twice; score again")
    if left.keys() != right.keys():
        only = sorted(left.keys() ^ right.keys())
        prompt_id, image = only[0]
        side = "first" if only[0] in left else "second"
        raise DataError(
            f"{what}: the runs were judged on different items: {len(only)} in one only, e.g. prompt {prompt_id}, image "
            f"{image} only in the {side}; generate and score both on the same prompts"
        )
    rows, lost = [], 0
    for key, item in left.items():
        other = right[key]
        if item.group != other.group:
            raise DataError(
                f"{what}: prompt {key[0]} is in group {item.group!r} in one run and {other.group!r} in the other; "
                "generate and score both on the same prompts"
            )
        if item.outcome is None or other.outcome is None:
            lost += 1
        else:
            rows.append((item.group, *key, other.outcome - item.outcome))
    return rows, lost


def paired_difference(
    first: Sequence[ScoreItem],
    second: Sequence[ScoreItem],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = SEED,
    what: str = "paired difference",
) -> Difference:
    """Overall of `second` minus Overall of `first` over the same (prompt_id, image_index) items.

    Interval: stratified cluster bootstrap of the per-item differences, as in mean_of_group_means (percentile). Equal
    runs give exactly 0 with [0, 0]. A group in which all differences are equal adds nothing to the width.
    p-value: sign-flip permutation test with prompts as units (under the null hypothesis of no difference a prompt's
    difference is as likely as its negative), two-sided, (1 + hits) / (1 + resamples). Test and interval are
    separate methods: close to the threshold they may disagree.

    Raises:
        DataError: the items or their groups are not the same, or no pair is left (named by `what`).
    """
    rows, lost = _pairs(first, second, what)
    groups = _groups(rows, what)
    value = float(np.mean([group.mean for group in groups]))
    means = np.mean([_resampled_means(group, resamples, seed) for group in groups], axis=0)
    low, high = _percentile_interval(means, value, confidence)
    flipped = np.zeros(resamples)
    for group in groups:
        rng = np.random.default_rng(derive_seed(seed, "sign-flip", group.name))
        signs = rng.integers(0, 2, size=(resamples, len(group.sums)), dtype=np.int8) * 2.0 - 1.0
        flipped += (signs @ group.sums) / group.counts.sum() / len(groups)
    # The tolerance keeps ties ties: the same flips summed in another order differ in the last bits.
    hits = int(np.sum(np.abs(flipped) >= abs(value) - 1e-12))
    n_items, n_prompts = sum(int(g.counts.sum()) for g in groups), sum(len(g.sums) for g in groups)
    return Difference(value, low, high, (1 + hits) / (1 + resamples), n_items, n_prompts, lost)


def pool_seeds(seeds: Sequence[Sequence[ScoreItem]]) -> list[ScoreItem]:
    """The items of several training seeds as further images of the same prompts.

    With equal numbers of outcomes their mean is the mean of the seeds' means. Prompts stay the units, so that an
    interval of the pooled items counts prompts as random, each with its images of all seeds, and the seeds as fixed.
    Seeds with the same image indices, pooled in the same order, pair up with the base pooled with itself.
    """
    stride = 1 + max((item.image_index for items in seeds for item in items), default=0)
    return [
        item.model_copy(update={"image_index": item.image_index + k * stride})
        for k, items in enumerate(seeds)
        for item in items
    ]
