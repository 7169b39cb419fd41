"""Rank correlations with intervals: reward and length, and one way of computing against another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

LEAST = 8  # values below which a correlation tells nothing


def spearman(x: Sequence[float], y: Sequence[float], given: Sequence[float] | None = None) -> dict:
    """Spearman's rank correlation of `x[N]` and `y[N]`, with `given[N]` the partial one, and its 95 % interval.

    The interval is Fisher's, with the variance (1 + r^2 / 2) / (N - 3) of Bonett and Wright (2000) and one value fewer
    for each that is given. `value` is None where there are fewer than eight values, or all of one side are equal.
    """
    n = len(x)
    result: dict = {"value": None, "low": None, "high": None, "n": n}
    columns = [rankdata(values) for values in (x, y, given) if values is not None]
    if n < LEAST or any(np.ptp(column) == 0 for column in columns[:2]):
        return result
    r = float(np.corrcoef(columns[0], columns[1])[0, 1])
    lost = 0
    if given is not None and np.ptp(columns[2]) > 0:
        a, b = (float(np.corrcoef(column, columns[2])[0, 1]) for column in columns[:2])
        if max(abs(a), abs(b)) > 1 - 1e-9:
            return result
        r, lost = (r - a * b) / math.sqrt((1 - a * a) * (1 - b * b)), 1
    r = max(-1.0, min(1.0, r))
    inner = max(-1 + 1e-12, min(1 - 1e-12, r))
    half = 1.959963984540054 * math.sqrt((1 + inner * inner / 2) / (n - 3 - lost))
    low, high = math.tanh(math.atanh(inner) - half), math.tanh(math.atanh(inner) + half)
    return {"value": r, "low": min(low, r), "high": max(high, r), "n": n}
