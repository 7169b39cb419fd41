"""Means of group means where a prompt has items of several groups, which are therefore not independent.

The value is that of statistics.py. There the groups' variances add up, as if each had prompts of its own; here a prompt
is one unit with all of its items. What one prompt adds to the error of the mean of D groups is

    e_p = 1/D sum_g (s_pg - m_g n_pg) / N_g,

with s_pg the sum and n_pg the number of its items in group g, m_g and N_g the group's mean and number of items
(linearisation; Woodruff, 1971). The variance of the mean is P / (P - 1) times the sum of e_p squared over P prompts;
it gives the effective number of items for the intervals of intervals.py. The sign-flip test turns all items of a prompt
at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from promptecho.intervals import Moments, mean_interval
from promptecho.item_columns import ItemColumns, LightItem, columns_of
from promptecho.scores import ScoreItem
from promptecho.statistics import (
    Difference,
    Estimate,
    difference_from_zero,
    mean_of_group_means,
    paired_difference,
    paired_items,
)


def mean_over_shared_prompts(items: Sequence[ScoreItem], what: str) -> tuple[Estimate, dict[str, Estimate]]:
    """As `mean_of_group_means`, with an interval of the first that takes all items of a prompt together.

    Raises:
        DataError: as `mean_of_group_means`.
    """
    overall, groups = mean_of_group_means(items, what=what)
    judged = columns_of(items).judged()
    low, high, prompts = _interval(judged, overall.value, signed=False)
    return replace(overall, low=low, high=high, n_prompts=prompts), groups


def difference_over_shared_prompts(first: Sequence[ScoreItem], second: Sequence[ScoreItem], what: str) -> Difference:
    """As `paired_difference`, with interval and p-value that take all items of a prompt together.

    Raises:
        DataError: as `paired_difference`.
    """
    found = paired_difference(first, second, what=what)
    pairs, _ = paired_items(first, second, False, what)
    sums, counts = _by_group_and_prompt(pairs, pairs.outcomes), _by_group_and_prompt(pairs, np.ones(len(pairs)))
    of_prompts = (sums / counts.sum(axis=1, keepdims=True)).mean(axis=0)  # add up to the difference
    most = max(float(np.abs(of_prompts).max()), 1e-300)
    names = [pairs.keys.prompts.names[code] for code in np.unique(pairs.keys.prompts.codes)]
    flipped = [LightItem(name, 0, "", value / most, False) for name, value in zip(names, of_prompts, strict=True)]
    p_value = difference_from_zero(flipped, what=what).p_value  # type: ignore[arg-type]
    low, high, prompts = _interval(pairs, found.value, signed=True)
    return replace(found, p_value=p_value, low=low, high=high, n_prompts=prompts)


def _by_group_and_prompt(judged: ItemColumns, values: np.ndarray) -> np.ndarray:
    """Sums of `values` [n] by group and prompt [D, P], both in the order of their names."""
    groups, prompts = (
        np.unique(one.codes, return_inverse=True)[1] for one in (judged.keys.groups, judged.keys.prompts)
    )
    shape = (int(groups.max()) + 1, int(prompts.max()) + 1)
    return np.bincount(groups * shape[1] + prompts, weights=values, minlength=shape[0] * shape[1]).reshape(shape)


def _interval(judged: ItemColumns, value: float, *, signed: bool) -> tuple[float, float, int]:
    """Low and high of the mean of the groups' means, and the number of prompts."""
    sums, counts, gains, squares = (
        _by_group_and_prompt(judged, values)
        for values in (
            judged.outcomes,
            np.ones(len(judged)),
            np.maximum(judged.outcomes, 0),
            judged.outcomes**2,
        )
    )
    n_items = counts.sum(axis=1)
    means = sums.sum(axis=1) / n_items
    errors = ((sums - means[:, None] * counts) / n_items[:, None]).mean(axis=0)
    n = len(errors)
    plus = float((gains.sum(axis=1) / n_items).mean())
    alone = (squares.sum(axis=1) / n_items - means**2) / np.maximum(n_items - 1, 1)
    v_items = max(float(alone.sum()) / len(alone) ** 2, 0.0)
    size = float((counts.sum(axis=0) ** 2).sum() / n_items.sum())  # items of the prompt of an average item
    # One prompt does not tell how prompts differ: as if its items were all alike.
    v_prompts = n / (n - 1) * float((errors**2).sum()) if n > 1 else size * v_items
    if v_items > 0:
        size = max(size, v_prompts / v_items)  # a rare group may make a prompt count for more than its items
    moments = Moments(1.0, n, float(n_items.sum()), size, plus, plus - value, v_items, v_prompts)
    low, high = mean_interval([moments], signed=signed)
    return min(float(low), value), max(float(high), value), n
