"""Uncertainty of benchmark scores: images of one prompt are not independent, so prompts are the unit.

Intervals are those of intervals.py. The test of a difference flips signs with a fixed seed, in a fixed order (groups
and prompts sorted by name): the same items, in any order, give the same numbers to the last bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

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
from promptecho.item_columns import ItemColumns, ItemKeys, columns_of, groups_of
from promptecho.scores import ScoreItem
from promptecho.seeds import derive_seed

RESAMPLES = 10_000  # random signs of the test
SEED = 0
SMALL = 128  # prompts of a group: 1 MB of signs
CHUNK = 1000  # resamples at a time: what is multiplied stays in the processor's cache
EXACT = 1 << 24  # whole numbers up to here are exact in float32, which is faster

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
        return replace(self._moments, weight=weight)

    @functools.cached_property
    def _moments(self) -> Moments:
        n_prompts, n_items = len(self.sums), len(self.values)
        size = float((self.counts**2).sum() / n_items)
        v_items = float(((self.values - self.mean) ** 2).mean() / max(n_items - 1, 1))
        if n_prompts > 1:
            left = self.sums - self.mean * self.counts
            v_prompts = float(n_prompts / (n_prompts - 1) * (left**2).sum() / n_items**2)
        else:  # nothing tells how prompts differ: as if their images were all alike
            v_prompts = size * v_items
        plus, minus = (float(np.maximum(sign * self.values, 0).mean()) for sign in (1, -1))
        return Moments(1.0, n_prompts, n_items, size, plus, minus, v_items, v_prompts)


def _groups(items: ItemColumns, what: str, ungrouped: bool = False, per_prompt: bool = False) -> list[_GroupSums]:
    """Cluster items with outcomes by prompt, groups sorted by name.

    `ungrouped` takes them as one group. `per_prompt` counts every prompt once, with the mean of its items.
    """
    if not len(items):
        raise DataError(f"{what}: no item with an outcome; nothing to average")
    keys = items.keys
    found = keys.clusters(ALL if ungrouped else None)
    order = found.order
    if not keys.unique:  # the order of what occurs twice must not matter either
        by_group = () if ungrouped else (keys.groups.codes,)
        order = np.lexsort((items.outcomes, keys.images.codes, keys.prompts.codes, *by_group))
    values = items.outcomes[order]
    sums = np.bincount(found.cluster, weights=values, minlength=len(found.counts))  # adds one after another
    groups = []
    for name, clusters, rows in found.groups:
        mine, counts, n_items = sums[clusters].copy(), found.counts[clusters], rows.stop - rows.start
        if per_prompt:
            mine = mine / counts
            groups.append(_GroupSums(name, mine, np.ones_like(mine), mine, n_items))
        else:
            groups.append(_GroupSums(name, mine, counts, values[rows], n_items))
    return groups


def _check_range(items: ItemColumns, low: float, what: str) -> None:
    outside = ~((items.outcomes >= low - 1e-9) & (items.outcomes <= 1 + 1e-9))
    if outside.any():
        first = items[int(np.flatnonzero(outside)[0])]
        raise DataError(
            f"{what}: prompt {first.prompt_id}, image {first.image_index}: outcome {first.outcome:g} lies outside "
            f"[{low:g}, 1]; intervals are made for shares, and for differences of shares; score again"
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
    judged = columns_of(items).judged()
    _check_range(judged, -1.0 if signed else 0.0, what)
    groups = {group.name: group for group in _groups(judged, what, ungrouped, per_prompt)}
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
    lost = groups_of(items) - groups_of(items, judged=True)
    if lost and not ungrouped:
        raise DataError(f"{what}: every item of group {min(lost)!r} failed; score again")

    def columns(names: list[str]) -> dict[str, Weights]:
        return {"": equal_weights(names), **{f"={name}": {name: 1.0} for name in names}}

    estimates = weighted_means(
        items, columns, ungrouped=ungrouped, per_prompt=per_prompt, signed=signed, confidence=confidence, what=what
    )
    return estimates.pop(""), {name.removeprefix("="): estimate for name, estimate in estimates.items()}


def paired_items(
    first: Sequence[ScoreItem], second: Sequence[ScoreItem], ungrouped: bool, what: str
) -> tuple[ItemColumns, int]:
    """The differences over the same items, and the number of pairs lost to failures.

    Raises:
        DataError: an item occurs twice, or the items, or unless `ungrouped` their groups, are not the same.
    """
    before, after = columns_of(first), columns_of(second)
    if not before.keys.unique or not after.keys.unique:
        raise DataError(f"{what}: an item occurs twice; score again")
    if not before.keys.same(after.keys):
        after = _in_order_of(before.keys, after, ungrouped, what)
    pairs = ItemColumns(before.keys, after.outcomes - before.outcomes)
    return pairs.judged(), int(pairs.failed.sum())


def _in_order_of(keys: ItemKeys, items: ItemColumns, ungrouped: bool, what: str) -> ItemColumns:
    """The items in the order of `keys`.

    Raises:
        DataError: they are others, or of other groups.
    """
    left, right = (
        {
            (prompt_id, image): (row, group)
            for row, (prompt_id, image, group) in enumerate(zip(*one.columns(), strict=True))
        }
        for one in (keys, items.keys)
    )
    if left.keys() != right.keys():
        only = sorted(left.keys() ^ right.keys())
        prompt_id, image = only[0]
        side = "first" if only[0] in left else "second"
        raise DataError(
            f"{what}: the runs were judged on different items: {len(only)} in one only, e.g. prompt {prompt_id}, image "
            f"{image} only in the {side}; generate and score both on the same prompts"
        )
    for key, (_, group) in left.items():
        if group != right[key][1] and not ungrouped:
            raise DataError(
                f"{what}: prompt {key[0]} is in group {group!r} in one run and {right[key][1]!r} in the other; "
                "generate and score both on the same prompts"
            )
    return items.take(np.array([right[key][0] for key in left], np.int64))


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
        whole = np.array_equal(group.sums, np.rint(group.sums)) and np.abs(group.sums).sum() < EXACT
        factors = group.sums.astype(np.float32) if whole else group.sums
        sums = np.concatenate([signs[start : start + CHUNK] @ factors for start in range(0, resamples, CHUNK)])
        flipped += weights[group.name] * sums.astype(float) / group.counts.sum()
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
    pairs, lost = paired_items(first, second, ungrouped, what)
    _check_range(pairs, -1.0, what)
    groups = _groups(pairs, what, ungrouped, per_prompt)
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
    found = columns_of(items)
    judged = found.judged()
    _check_range(judged, -1.0, what)
    groups = _groups(judged, what, ungrouped=True)
    lost = int(found.failed.sum())
    return _difference(groups, {ALL: 1.0}, lost, resamples=resamples, confidence=confidence, seed=seed)


def pool_seeds(seeds: Sequence[Sequence[ScoreItem]]) -> Sequence[ScoreItem]:
    """The items of several training seeds as further images of the same prompts.

    With equal numbers of outcomes their mean is the mean of the seeds' means. Prompts stay the units, so that an
    interval of the pooled items counts prompts as random, each with its images of all seeds, and the seeds as fixed.
    Seeds with the same image indices, pooled in the same order, pair up with the base pooled with itself.
    """
    if len(seeds) == 1:
        return seeds[0]
    found = [columns_of(items) for items in seeds]
    if found and all(one.keys is found[0].keys for one in found):
        return ItemColumns(found[0].keys.repeated(len(found)), np.concatenate([one.outcomes for one in found]))
    stride = 1 + max((item.image_index for items in seeds for item in items), default=0)
    return [
        item.model_copy(update={"image_index": item.image_index + k * stride})
        for k, items in enumerate(seeds)
        for item in items
    ]
