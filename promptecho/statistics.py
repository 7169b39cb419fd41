"""Uncertainty of benchmark scores: images of one prompt are not independent, so prompts are the unit.

All resampling has a fixed seed and a fixed order (groups and prompts sorted by name): the same items, in any order,
give the same numbers to the last bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from promptecho.errors import DataError
from promptecho.scores import ScoreItem
from promptecho.seeds import derive_seed

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0
CHUNK = 1000  # resamples at a time: what is multiplied stays in the processor's cache

ALL = "all"  # the one group where items' own groups do not matter
Weights = Mapping[str, float]  # group -> share; they sum to 1


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
    n_items: int

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
    # Written out: scipy.stats takes longer to import than a table takes to make.
    z, share = NormalDist().inv_cdf((1 + confidence) / 2), successes / n
    center = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if successes == 0 else (center - half) / scale
    high = 1.0 if successes == n else (center + half) / scale
    return low, high


def _groups(rows: Sequence[tuple[str, str, int, float]], what: str, per_prompt: bool = False) -> list[_Group]:
    """Cluster `(group, prompt_id, image_index, value)` rows by prompt, groups sorted by name.

    `per_prompt` counts every prompt once, with the mean of its items.
    """
    if not rows:
        raise DataError(f"{what}: no item with an outcome; nothing to average")
    clusters: dict[str, dict[str, list[float]]] = {}
    for group, prompt_id, _, value in sorted(rows):
        clusters.setdefault(group, {}).setdefault(prompt_id, []).append(value)
    groups = []
    for name, prompts in clusters.items():
        sums, counts = np.array([sum(v) for v in prompts.values()]), np.array([float(len(v)) for v in prompts.values()])
        n_items = int(counts.sum())
        groups.append(_Group(name, *((sums / counts, np.ones_like(sums)) if per_prompt else (sums, counts)), n_items))
    return groups


@functools.lru_cache(maxsize=256)
def _times_drawn(name: str, n: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of n prompts is drawn, `[resamples, n]`: n - 1 draws with replacement, one where n is 1.

    n draws would give a variance too small by (n - 1) / n, which matters in groups of four prompts (Rao and Wu, 1988).
    Every run of a table needs the same draws, so they are kept.
    """
    rng = np.random.default_rng(derive_seed(seed, "bootstrap", name))
    times = np.empty((resamples, n), dtype=np.uint8)  # a prompt drawn 256 times is beyond chance
    for start in range(0, resamples, CHUNK):
        rows = min(CHUNK, resamples - start)
        drawn = rng.integers(0, n, size=(rows, max(1, n - 1))) + n * np.arange(rows)[:, None]
        times[start : start + rows] = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
    return times


@functools.lru_cache(maxsize=256)
def _signs(name: str, n: int, resamples: int, seed: int) -> np.ndarray:
    """Random signs `[resamples, n]`."""
    rng = np.random.default_rng(derive_seed(seed, "sign-flip", name))
    return rng.integers(0, 2, size=(resamples, n), dtype=np.int8) * np.int8(2) - np.int8(1)


def _product(small: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """`small[R, P] @ columns[P, K]` in float64, without a float64 copy of all of `small`."""
    parts = [small[start : start + CHUNK].astype(np.float64) @ columns for start in range(0, len(small), CHUNK)]
    return np.concatenate(parts)


def _resampled_means(group: _Group, resamples: int, seed: int) -> np.ndarray:
    """Means `[resamples]` of one group, its prompts drawn with replacement."""
    times = _times_drawn(group.name, len(group.sums), resamples, seed)
    sums, counts = _product(times, np.stack([group.sums, group.counts], axis=1)).T
    return sums / counts


def _percentile_interval(means: np.ndarray, value: float, confidence: float) -> tuple[float, float]:
    """Percentile interval, widened to hold the point estimate (float rounding, extreme skew)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return min(float(low), value), max(float(high), value)


def _weighted(weights: Weights, values: Mapping[str, float]) -> float:
    return math.fsum(weight * values[name] for name, weight in weights.items())


def _all_equal_interval(groups: list[_Group], weights: Weights, confidence: float) -> tuple[float, float]:
    """Interval where resampling cannot move: every group is all right or all wrong (see mean_of_group_means)."""
    bounds = {g.name: wilson_interval(round(g.mean * len(g.sums)), len(g.sums), confidence) for g in groups}
    return tuple(_weighted(weights, {name: pair[side] for name, pair in bounds.items()}) for side in (0, 1))


def _all_equal(group: _Group) -> bool:
    return group.mean in (0.0, 1.0) and bool(np.all(group.sums == group.mean * group.counts))


def equal_weights(names: Sequence[str]) -> Weights:
    """Every group counts the same."""
    return {name: 1 / len(names) for name in names}


def weighted_means(
    items: Sequence[ScoreItem],
    columns: Callable[[list[str]], Mapping[str, Weights]],
    *,
    ungrouped: bool = False,
    per_prompt: bool = False,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = SEED,
    what: str = "scores",
) -> dict[str, Estimate]:
    """Weighted means of group means with intervals: any number that is aggregated from groups.

    Args:
        columns: from the names of the groups that have outcomes to column -> group -> weight. It leaves out columns
            that have no data.
        ungrouped: all items are one group, "all".
        per_prompt: a group's mean is that over its prompts, not over its items.

    The method is that of `mean_of_group_means`; the groups that two columns share are resampled alike.

    Raises:
        DataError: no items with an outcome (named by `what`).
    """
    judged = [i for i in items if i.outcome is not None]
    rows = [(ALL if ungrouped else i.group, i.prompt_id, i.image_index, float(i.outcome)) for i in judged]
    groups = {group.name: group for group in _groups(rows, what, per_prompt)}
    resampled = {name: _resampled_means(group, resamples, seed) for name, group in groups.items()}
    means = {name: group.mean for name, group in groups.items()}

    def estimate(weights: Weights) -> Estimate:
        chosen = [groups[name] for name in weights]
        value = _weighted(weights, means)
        if all(map(_all_equal, chosen)):
            low, high = _all_equal_interval(chosen, weights, confidence)
        else:
            together = sum(weight * resampled[name] for name, weight in weights.items())
            low, high = _percentile_interval(together, value, confidence)
        n_items, n_prompts = sum(g.n_items for g in chosen), sum(len(g.sums) for g in chosen)
        return Estimate(value, min(low, value), max(high, value), n_items, n_prompts)

    return {column: estimate(weights) for column, weights in columns(list(groups)).items()}


def mean_of_group_means(
    items: Sequence[ScoreItem],
    *,
    ungrouped: bool = False,
    per_prompt: bool = False,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = SEED,
    what: str = "scores",
) -> tuple[Estimate, dict[str, Estimate]]:
    """Overall (unweighted mean of the group means) and each group's mean, with intervals.

    Method: stratified cluster bootstrap. Within each group, prompts are drawn with replacement (one less than there
    are, which makes the variance unbiased) and bring all their images; 10,000 resamples; percentile interval. Where
    no resample can differ because every item of the groups involved is 0, or every item is 1, the bootstrap would
    claim certainty: the Wilson interval with the number of PROMPTS as n is given instead (for Overall the mean of the
    groups' bounds, which is wider than needed). A group with one prompt and mixed outcomes adds no uncertainty: more
    prompts are the only cure.

    Failed items are left out of sums and counts. `ungrouped` and `per_prompt` as in weighted_means.

    Raises:
        DataError: no items with an outcome (named by `what`), or all items of a group failed.
    """
    lost = {item.group for item in items} - {item.group for item in items if not item.failed}
    if lost and not ungrouped:
        raise DataError(f"{what}: every item of group {min(lost)!r} failed; score again")

    def columns(names: list[str]) -> dict[str, Weights]:
        return {"": equal_weights(names), **{f"={name}": {name: 1.0} for name in names}}

    options = {"resamples": resamples, "confidence": confidence, "seed": seed, "what": what}
    estimates = weighted_means(items, columns, ungrouped=ungrouped, per_prompt=per_prompt, **options)
    return estimates.pop(""), {name.removeprefix("="): estimate for name, estimate in estimates.items()}


def _pairs(
    first: Sequence[ScoreItem], second: Sequence[ScoreItem], ungrouped: bool, what: str
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
        if item.group != other.group and not ungrouped:
            raise DataError(
                f"{what}: prompt {key[0]} is in group {item.group!r} in one run and {other.group!r} in the other; "
                "generate and score both on the same prompts"
            )
        if item.outcome is None or other.outcome is None:
            lost += 1
        else:
            rows.append((ALL if ungrouped else item.group, *key, other.outcome - item.outcome))
    return rows, lost


def _difference(
    groups: list[_Group], weights: Weights, lost: int, *, resamples: int, confidence: float, seed: int
) -> Difference:
    """Weighted mean of the groups' mean differences, with bootstrap interval and sign-flip p-value."""
    chosen = [group for group in groups if group.name in weights]
    value = _weighted(weights, {group.name: group.mean for group in chosen})
    means, flipped = np.zeros(resamples), np.zeros(resamples)
    for group in chosen:
        means += weights[group.name] * _resampled_means(group, resamples, seed)
        signs = _signs(group.name, len(group.sums), resamples, seed)
        flipped += weights[group.name] * _product(signs, group.sums[:, None])[:, 0] / group.counts.sum()
    low, high = _percentile_interval(means, value, confidence)
    # The tolerance keeps ties ties: the same flips summed in another order differ in the last bits.
    hits = int(np.sum(np.abs(flipped) >= abs(value) - 1e-12))
    n_items, n_prompts = sum(g.n_items for g in chosen), sum(len(g.sums) for g in chosen)
    return Difference(value, low, high, (1 + hits) / (1 + resamples), n_items, n_prompts, lost)


def paired_difference(
    first: Sequence[ScoreItem],
    second: Sequence[ScoreItem],
    *,
    weigh: Callable[[list[str]], Weights] = equal_weights,
    ungrouped: bool = False,
    per_prompt: bool = False,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = SEED,
    what: str = "paired difference",
) -> Difference:
    """Overall of `second` minus Overall of `first` over the same (prompt_id, image_index) items.

    `weigh` gives the groups' weights in Overall from the names of those that have pairs; `ungrouped` and `per_prompt`
    as in weighted_means. Interval: stratified cluster bootstrap of the per-item differences, as in mean_of_group_means
    (percentile). Equal runs give exactly 0 with [0, 0]. A group in which all differences are equal adds nothing to the
    width. p-value: sign-flip permutation test with prompts as units (under the null hypothesis of no difference a
    prompt's difference is as likely as its negative), two-sided, (1 + hits) / (1 + resamples). Test and interval are
    separate methods: close to the threshold they may disagree.

    Raises:
        DataError: the items or their groups are not the same, or no pair is left (named by `what`).
    """
    rows, lost = _pairs(first, second, ungrouped, what)
    groups = _groups(rows, what, per_prompt)
    weights = weigh([group.name for group in groups])
    return _difference(groups, weights, lost, resamples=resamples, confidence=confidence, seed=seed)


def difference_from_zero(
    items: Sequence[ScoreItem],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = SEED,
    what: str = "difference",
) -> Difference:
    """Mean over all items whose outcomes are differences already (+1 won, 0 tie, -1 lost), as in paired_difference.

    Where every outcome is the same, resampling cannot move; the interval is then that of a share of 1 (for ties: of
    0, on both sides) among as many independent prompts (Wilson).

    Raises:
        DataError: no items with an outcome (named by `what`).
    """
    rows = [(ALL, i.prompt_id, i.image_index, float(i.outcome)) for i in items if i.outcome is not None]
    groups = _groups(rows, what)
    lost = sum(item.failed for item in items)
    found = _difference(groups, {ALL: 1.0}, lost, resamples=resamples, confidence=confidence, seed=seed)
    if {value for *_, value in rows} in ({-1.0}, {0.0}, {1.0}):
        room = 1 - wilson_interval(found.n_prompts, found.n_prompts, confidence)[0]
        low = found.value - (2 * room if found.value == 1 else room if found.value == 0 else 0)
        high = found.value + (2 * room if found.value == -1 else room if found.value == 0 else 0)
        return Difference(found.value, low, high, found.p_value, found.n_items, found.n_prompts, lost)
    return found


def pool_seeds(seeds: Sequence[Sequence[ScoreItem]]) -> list[ScoreItem]:
    """The items of several training seeds as further images of the same prompts.

    With equal numbers of outcomes their mean is the mean of the seeds' means. Prompts stay the units, so that an
    interval of the pooled items counts prompts as random, each with its images of all seeds, and the seeds as fixed.
    Seeds with the same image indices, pooled in the same order, pair up with the base pooled with itself.
    """
    if len(seeds) == 1:
        return list(seeds[0])
    stride = 1 + max((item.image_index for items in seeds for item in items), default=0)
    return [
        item.model_copy(update={"image_index": item.image_index + k * stride})
        for k, items in enumerate(seeds)
        for item in items
    ]
