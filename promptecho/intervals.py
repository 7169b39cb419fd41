"""Score intervals of means of clustered outcomes: of values in [0, 1], and of differences in [-1, 1].

Images of one prompt resemble each other, so that N of them tell as much as N / deff independent ones (the design
effect, Kish, 1965). The intervals are those of that many independent items: Wilson's (1927) for means of values in
[0, 1], modified at its ends, and that of Bonett and Price (2012) for differences of pairs. Where the variance is
estimated, the effective number is reduced by (z / t)^2 (Korn and Graubard, 1998). All have a width where all items are
equal.

Everything here is elementwise: the fields of `Moments` are numbers, or arrays of one shape, such as the replicates of
the simulation that shows what the intervals cover (perf/coverage_of_intervals.py, docs/coverage.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from promptecho.errors import DataError

CONFIDENCE = 0.95
EQUAL = 1e-12
FEW = 3  # items that differ from all others
# Images of one prompt count as one until they show otherwise, as firmly as half an image that differs from the others
# would; with less, the intervals of perf/coverage_of_intervals.py do not cover enough between 95 and 98 %.
FIRMNESS = 0.5


@dataclass(frozen=True)
class Moments:
    """What an interval needs of one group of items.

    `weight`: the group's share in the mean. `cluster_size`: of the prompt of an average item, sum of squared counts /
    sum of counts. `plus`, `minus`: means of max(x, 0) and max(-x, 0), of all items. `v_items`: variance of the group's
    mean if its items were independent; `v_prompts`: that with prompts as units.
    """

    weight: Any
    n_prompts: Any
    n_items: Any
    cluster_size: Any
    plus: Any
    minus: Any
    v_items: Any
    v_prompts: Any

    @property
    def mean(self) -> Any:
        return self.plus - self.minus

    @property
    def spread(self) -> Any:
        """Variance of one item if it could only be -1, 0 and 1: 0 where all items are the same one of these."""
        return np.maximum(self.plus + self.minus - self.mean**2, 0.0)


def wilson_interval(successes: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson score interval of a proportion of `n` INDEPENDENT items (Wilson, 1927), without continuity correction.

    Raises:
        DataError: `n` is 0 or `successes` lies outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise DataError(f"Wilson interval: {successes} of {n} is not a proportion")
    low, high = wilson(successes / n, n, normal_quantile(confidence))
    return float(low), float(high)


def normal_quantile(confidence: float) -> float:
    """Of a two-sided interval: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def wilson(mean: Any, n: Any, z: float) -> tuple[Any, Any]:
    """Wilson's limits of a mean in [0, 1] of `n` independent items, which need not be a whole number."""
    center, half = mean + z * z / (2 * n), z * np.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    low, high = (center - half) / (1 + z * z / n), (center + half) / (1 + z * z / n)
    return np.where(mean <= 0, 0.0, np.clip(low, 0, mean)), np.where(mean >= 1, 1.0, np.clip(high, mean, 1))


def modified_wilson(mean: Any, n: Any, z: float) -> tuple[Any, Any]:
    """Wilson's limits, with the nearer end of the range brought closer where three items or fewer differ.

    Wilson's interval of one wrong item leaves out the smallest shares that make one likely, and covers 84 % there. The
    limit is then that of a Poisson count (Brown, Cai and DasGupta, 2001, the modified Wilson interval).
    """
    from scipy.special import gammaincinv  # scipy.stats takes longer to import than a table takes to make

    low, high = wilson(mean, n, z)
    alpha = 2 * (1 - NormalDist().cdf(z))

    def nearer(share: Any) -> Any:
        few = n * share
        return np.where(few <= FEW, gammaincinv(np.clip(few, EQUAL, FEW), alpha) / n, 1.0)

    return np.minimum(low, nearer(mean)), np.maximum(high, 1 - nearer(1 - mean))


def bonett_price(plus: Any, minus: Any, n: Any, z: float) -> tuple[Any, Any]:
    """Limits of plus - minus, the shares of `n` independent pairs that gain and that lose (Bonett and Price, 2012).

    The usual interval of a difference of paired proportions, after one pair more that gains and one more that loses.
    Widened to hold the difference itself.
    """
    gains, losses = (n * plus + 1) / (n + 2), (n * minus + 1) / (n + 2)
    center, half = gains - losses, z * np.sqrt((gains + losses - (gains - losses) ** 2) / (n + 2))
    value = plus - minus
    return np.clip(center - half, -1, value), np.clip(center + half, value, 1)


def alikeness(groups: Sequence[Moments]) -> Any:
    """Intra-class correlation of the items of one prompt, common to the groups, in [0, 1].

    What prompts add to the variance as a share of what they could add, drawn towards 1 where few items differ: one
    wrong image of a hundred does not tell whether wrong images come together.
    """
    most = sum(g.weight**2 * (g.cluster_size - 1) * g.v_items for g in groups)
    excess = sum(g.weight**2 * (g.v_prompts - g.v_items) for g in groups)
    found = np.clip(excess / np.where(most > 0, most, 1.0), 0, 1)
    told = sum(g.n_items * g.spread for g in groups) * (most > 0)
    return (told * found + FIRMNESS) / (told + FIRMNESS)


def student_quantile(groups: Sequence[Moments], confidence: float) -> Any:
    """Quantile of Student's t, degrees of freedom by Satterthwaite (1946): prompts less one for a single group."""
    from scipy.special import stdtrit  # scipy.stats takes longer to import than a table takes to make

    parts = [(g.weight**2 * g.v_prompts, np.maximum(g.n_prompts - 1, 1)) for g in groups]
    squares = sum(v**2 / df for v, df in parts)
    freedom = sum(v for v, _ in parts) ** 2 / np.where(squares > 0, squares, 1.0)
    return stdtrit(np.where(squares > 0, np.maximum(freedom, 1.0), 1e9), (1 + confidence) / 2)


def mean_interval(groups: Sequence[Moments], *, signed: bool, confidence: float = CONFIDENCE) -> tuple[Any, Any]:
    """Interval of the weighted mean of groups, elementwise.

    `signed`: the items are differences in [-1, 1], else values in [0, 1]. Groups in which some items differ are taken
    together, with their variance; those in which all items are 0, 1 or -1 are further parts, with the size that they
    have. Each part has its score interval, and the parts' distances from their means add in squares (Zou and Donner,
    2008).
    """
    rho, z = alikeness(groups), normal_quantile(confidence)
    designs = [1 + (g.cluster_size - 1) * rho for g in groups]
    below, above = 0.0, 0.0

    def total(shares: list[Any], values: list[Any]) -> Any:
        return sum(share * value for share, value in zip(shares, values, strict=True))

    for equal_at in (None, 0, 1, -1)[: 4 if signed else 3]:
        if equal_at is None:
            shares = [g.weight * (g.spread > EQUAL) for g in groups]
        else:
            shares = [g.weight * ((g.spread <= EQUAL) & (abs(g.mean - equal_at) < 0.5)) for g in groups]
        weight = sum(shares)
        if not np.any(weight):
            continue
        scale = np.where(weight > 0, weight, 1.0)  # a part without groups has any interval: it gets no weight
        plus, minus = total(shares, [g.plus for g in groups]) / scale, total(shares, [g.minus for g in groups]) / scale
        squares = [share**2 for share in shares]
        if equal_at is None:
            spread = np.maximum(plus + minus - (plus - minus) ** 2, EQUAL)
            variance = total(squares, [d * g.v_items for d, g in zip(designs, groups, strict=True)]) / scale**2
            # No less than that of one prompt more among as many: equal values between the ends have none of their own.
            least = spread * (total(squares, [1 / g.n_prompts for g in groups]) / scale**2) ** 2
            n = spread / np.maximum(np.maximum(variance, least), EQUAL**2)
            n = n * (z / student_quantile(groups, confidence)) ** 2
        else:
            inverse = total(squares, [d / g.n_items for d, g in zip(designs, groups, strict=True)]) / scale**2
            n = 1 / np.where(weight > 0, inverse, 1.0)
        low, high = bonett_price(plus, minus, n, z) if signed else modified_wilson(plus, n, z)
        below = below + (weight * (plus - minus - low)) ** 2
        above = above + (weight * (high - plus + minus)) ** 2
    value = sum(g.weight * g.mean for g in groups)
    return np.maximum(value - np.sqrt(below), -1.0 if signed else 0.0), np.minimum(value + np.sqrt(above), 1.0)
