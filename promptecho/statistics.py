"""Uncertainty of benchmark scores: images of one prompt are not independent, so prompts are the unit.

Intervals are those of intervals.py. The test of a difference flips signs with a fixed seed, in a fixed order (groups
and prompts sorted by name): the same items, in any order, give the same numbers to the last bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptecho.errors import DataError
from promptecho.intervals import (
    CONFIDENCE,
    Moments,
    bonett_price,
    mean_interval,
    modified_wilson,
    normal_quantile,
)
from promptecho.scores import ScoreItem
from promptecho.seeds import derive_seed

RESAMPLES = 10_000  # random signs of the test
SEED = 0
SMALL = 128  # prompts of a group: 1 MB of signs
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
class _GroupSums:
    """Per-prompt sums `sums[P]` and item counts `counts[P]` of one group, prompts sorted by id; `values`: of its items,
    or its prompts' means where every prompt counts once."""

    name: str
    sums: np.ndarray
    counts: np.ndarray
    values: np.ndarray
    n_items: int

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.counts.sum())

    @property
    def independent(self) -> bool:
        """One item per prompt, and each all or nothing: the mean gives the variance."""
        return len(self.values) == len(self.sums) and bool(np.isin(self.values, (-1.0, 0.0, 1.0)).all())

    def moments(self, weight: float) -> Moments:
        """What an interval needs, see intervals.py."""
        n_prompts, n_items = len(self.sums), len(self.values)
        size = float((self.counts**2).sum() / n_items)
        v_items = float(((self.values - self.mean) ** 2).mean() / max(n_items - 1, 1))
        if n_prompts > 1:
            left = self.sums - self.mean * self.counts
            v_prompts = float(n_prompts / (n_prompts - 1) * (left**2).sum() / n_items**2)
        else:  # nothing tells how prompts differ: as if their images were all alike
            v_prompts = size * v_items
        plus, minus = (float(np.maximum(sign * self.values, 0).mean()) for sign in (1, -1))
        return Moments(weight, n_prompts, n_items, size, plus, minus, v_items, v_prompts)


def _groups(rows: Sequence[tuple[str, str, int, float]], what: str, per_prompt: bool = False) -> list[_GroupSums]:
    """Cluster `(group, prompt_id, image_index, value)` rows by prompt, groups sorted by name.

    `per_prompt` counts every prompt once, with the mean of its items.
    """
    if not rows:
        raise DataError(f"{what}: no item with an outcome; nothing to average")
    clusters: dict[str, dict[str, list[float]]] = {}
    last: tuple[str, str] | None = None
    for group, prompt_id, _, value in sorted(rows):  # those of a prompt come one after another
        if last != (group, prompt_id):
            last = (group, prompt_id)
            mine = clusters.setdefault(group, {}).setdefault(prompt_id, [])
        mine.append(value)
    groups = []
    for name, prompts in clusters.items():
        sums, counts = np.array([sum(v) for v in prompts.values()]), np.array([float(len(v)) for v in prompts.values()])
        values, n_items = np.array([value for v in prompts.values() for value in v]), int(counts.sum())
        if per_prompt:
            values = sums = sums / counts
            counts = np.ones_like(sums)
        groups.append(_GroupSums(name, sums, counts, values, n_items))
    return groups


def _check_range(rows: Sequence[tuple[str, str, int, float]], low: float, what: str) -> None:
    values = [row[3] for row in rows]
    if values and low - 1e-9 <= min(values) and max(values) <= 1 + 1e-9:
        return
    for _, prompt_id, image, value in rows:
        if not low - 1e-9 <= value <= 1 + 1e-9:
            raise DataError(
                f"{what}: prompt {prompt_id}, image {image}: outcome {value:g} lies outside [{low:g}, 1]; intervals "
                "are made for shares, and for differences of shares; score again"
            )


def _interval(
    groups: Sequence[_GroupSums], weights: Weights, value: float, signed: bool, confidence: float
) -> tuple[float, float]:
    """(low, high), widened by float rounding to hold `value`."""
    chosen = [group for group in groups if group.name in weights]
    if len(chosen) == 1 and chosen[0].independent:
        found, n, z = chosen[0].moments(1.0), len(chosen[0].values), normal_quantile(confidence)
        low, high = bonett_price(found.plus, found.minus, n, z) if signed else modified_wilson(found.plus, n, z)
    else:
        moments = [group.moments(weights[group.name]) for group in chosen]
        low, high = mean_interval(moments, signed=signed, confidence=confidence)
    return min(float(low), value), max(float(high), value)


def _signs(name: str, n: int, resamples: int, seed: int) -> np.ndarray:
    """Random signs `[resamples, n]`; many small ones are kept, such as those of attributes, and two large ones."""
    return (_small_signs if n <= SMALL else _large_signs)(name, n, resamples, seed)


def _draw_signs(name: str, n: int, resamples: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(derive_seed(seed, "sign-flip", name))
    return rng.integers(0, 2, size=(resamples, n), dtype=np.int8) * np.int8(2) - np.int8(1)


_small_signs = functools.lru_cache(maxsize=256)(_draw_signs)
_large_signs = functools.lru_cache(maxsize=2)(_draw_signs)  # of 9,000 prompts: 90 MB each


def _weighted(weights: Weights, values: Mapping[str, float]) -> float:
    return math.fsum(weight * values[name] for name, weight in weights.items())


def equal_weights(names: Sequence[str]) -> Weights:
    """Every group counts the same."""
    return {name: 1 / len(names) for name in names}


def weighted_means(
    items: Sequence[ScoreItem],
    columns: Callable[[list[str]], Mapping[str, Weights]],
    *,
    ungrouped: bool = False,
    per_prompt: bool = False,
    signed: bool = False,
    confidence: float = CONFIDENCE,
    what: str = "scores",
) -> dict[str, Estimate]:
    """Weighted means of group means with intervals: any number that is aggregated from groups.

    Args:
        columns: from the names of the groups that have outcomes to column -> group -> weight. It leaves out columns
            that have no data.
        ungrouped: all items are one group, "all".
        per_prompt: a group's mean is that over its prompts, not over its items.
        signed: outcomes are differences in [-1, 1], else values in [0, 1].

    The method is that of `mean_of_group_means`.

    Raises:
        DataError: no items with an outcome, or an outcome out of range (named by `what`).
    """
    rows = [
        (ALL if ungrouped else i.group, i.prompt_id, i.image_index, float(i.outcome))
        for i in items
        if i.outcome is not None
    ]
    _check_range(rows, -1.0 if signed else 0.0, what)
    groups = {group.name: group for group in _groups(rows, what, per_prompt)}
    means = {name: group.mean for name, group in groups.items()}

    def estimate(weights: Weights) -> Estimate:
        chosen = [groups[name] for name in weights]
        value = _weighted(weights, means)
        n_items, n_prompts = sum(g.n_items for g in chosen), sum(len(g.sums) for g in chosen)
        return Estimate(value, *_interval(chosen, weights, value, signed, confidence), n_items, n_prompts)

    return {column: estimate(weights) for column, weights in columns(list(groups)).items()}


def mean_of_group_means(
    items: Sequence[ScoreItem],
    *,
    ungrouped: bool = False,
    per_prompt: bool = False,
    signed: bool = False,
    confidence: float = CONFIDENCE,
    what: str = "scores",
) -> tuple[Estimate, dict[str, Estimate]]:
    """Overall (unweighted mean of the group means) and each group's mean, with intervals.

    Method: Wilson's score interval at the effective number of items, which the variance between prompts gives, with
    Student's t (intervals.py says more). It has a width where all items are equal. A group with one prompt counts as
    one item or fewer.

    Failed items are left out of sums and counts. `ungrouped`, `per_prompt` and `signed` as in weighted_means.

    Raises:
        DataError: no items with an outcome, or one out of range (named by `what`), or all items of a group failed.
    """
    lost = {item.group for item in items} - {item.group for item in items if not item.failed}
    if lost and not ungrouped:
        raise DataError(f"{what}: every item of group {min(lost)!r} failed; score again")

    def columns(names: list[str]) -> dict[str, Weights]:
        return {"": equal_weights(names), **{f"={name}": {name: 1.0} for name in names}}

    estimates = weighted_means(
        items, columns, ungrouped=ungrouped, per_prompt=per_prompt, signed=signed, confidence=confidence, what=what
    )
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
    groups: list[_GroupSums], weights: Weights, lost: int, *, resamples: int, confidence: float, seed: int
) -> Difference:
    """Weighted mean of the groups' mean differences, with score interval and sign-flip p-value."""
    chosen = [group for group in groups if group.name in weights]
    value = _weighted(weights, {group.name: group.mean for group in chosen})
    low, high = _interval(chosen, weights, value, True, confidence)
    flipped = np.zeros(resamples)
    for group in chosen:
        signs = _signs(group.name, len(group.sums), resamples, seed)
        sums = np.concatenate([signs[start : start + CHUNK] @ group.sums for start in range(0, resamples, CHUNK)])
        flipped += weights[group.name] * sums / group.counts.sum()
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
    as in weighted_means. Interval: that of Bonett and Price for paired proportions at the effective number of pairs,
    which the variance between prompts gives, with Student's t (intervals.py says more); it has a width where all pairs
    are equal, and turns its sign where the sides are exchanged. p-value: sign-flip permutation test with prompts as
    units (under the null hypothesis of no difference a prompt's difference is as likely as its negative), two-sided,
    (1 + hits) / (1 + resamples). Test and interval are separate methods: close to the threshold they may disagree.

    Raises:
        DataError: the items or their groups are not the same, no pair is left, or a difference is larger than 1 (named
            by `what`).
    """
    rows, lost = _pairs(first, second, ungrouped, what)
    _check_range(rows, -1.0, what)
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

    Raises:
        DataError: no items with an outcome, or one outside [-1, 1] (named by `what`).
    """
    rows = [(ALL, i.prompt_id, i.image_index, float(i.outcome)) for i in items if i.outcome is not None]
    _check_range(rows, -1.0, what)
    groups = _groups(rows, what)
    lost = sum(item.failed for item in items)
    return _difference(groups, {ALL: 1.0}, lost, resamples=resamples, confidence=confidence, seed=seed)


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
