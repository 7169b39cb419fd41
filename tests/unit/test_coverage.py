"""What intervals cover at a few cells of perf/coverage_of_intervals.py, which takes the package's own intervals."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from promptecho.scores import ScoreItem
from promptecho.statistics import mean_of_group_means, paired_difference

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "perf"))
import coverage_of_intervals as simulation  # noqa: E402

REPLICATES = 4000


@pytest.mark.parametrize("correlation", [0, 0.7])
@pytest.mark.parametrize(("p", "n"), [(0.5, 48), (0.9, 20), (0.95, 48), (0.99, 100)])
def test_shares_are_covered_also_near_their_end(p, n, correlation):
    sort = simulation.kinds(p, 0, correlation)
    found = simulation.cell(np.random.default_rng(1), sort, n, correlation, REPLICATES, False)
    assert found.coverage >= 0.93 and found.width < (1.7 if p == 0.99 else 1.35)


@pytest.mark.parametrize("correlation", [0, 0.7])
@pytest.mark.parametrize("gain", [0.5, 1.0])
def test_paired_differences_are_covered_where_few_pairs_differ(gain, correlation):
    sort = simulation.kinds(0.05 * gain, 0.05 * (1 - gain), correlation)
    found = simulation.cell(np.random.default_rng(2), sort, 48, correlation, REPLICATES, True)
    assert found.coverage >= 0.93 and found.width < 1.4


def test_means_of_groups_are_covered():
    for name in ("2 groups of 12 prompts, one near its end", "36 attributes of 4 prompts, differences"):
        chances, n = simulation.STRATA[name]
        found = simulation.stratified(np.random.default_rng(3), chances, n, 0.3, 1000)
        assert found.coverage >= 0.93 and found.width < 1.3


def test_known_chances_of_prompts():
    """Independent images: a binomial. All alike: only all right and all wrong."""
    independent = simulation.kinds(0.9, 0, 0)
    assert independent.chance[independent.plus == 4] == pytest.approx(0.9**4) and independent.mean == pytest.approx(0.9)
    alike = simulation.kinds(0.9, 0, 1 - 1e-9)
    assert alike.chance[alike.plus == 4] == pytest.approx(0.9) and alike.chance[alike.plus == 0] == pytest.approx(0.1)
    pairs = simulation.kinds(0.15, 0.05, 0.3)
    assert pairs.chance.sum() == pytest.approx(1) and pairs.mean == pytest.approx(0.1)
    second = pairs.chance @ (pairs.plus * (pairs.plus - 1)) / 12  # two images of a prompt both gain
    assert (second - 0.15**2) / (0.15 * 0.85) == pytest.approx(0.3)


def test_the_simulation_has_the_intervals_of_score_items():
    rng = np.random.default_rng(4)
    sort = simulation.kinds(0.15, 0.05, 0.3)
    drawn = rng.multinomial(30, sort.chance)
    rows = [r for r, times in enumerate(drawn) for _ in range(times)]
    outcomes = [[1.0] * int(sort.plus[r]) + [-1.0] * int(sort.minus[r]) for r in rows]
    outcomes = [images + [0.0] * (4 - len(images)) for images in outcomes]

    def items(of):
        return [
            ScoreItem(prompt_id=f"{p}", image_index=i, group="all", outcome=of(x), failed=False)
            for p, images in enumerate(outcomes)
            for i, x in enumerate(images)
        ]

    found = simulation.moments(drawn[None].astype(float), sort)
    low, high = (float(x[0]) for x in simulation.mean_interval([found], signed=True))
    difference = paired_difference(items(lambda x: float(x < 0)), items(lambda x: float(x > 0)))
    assert (difference.low, difference.high) == pytest.approx((low, high))
    sort = simulation.kinds(0.15, 0, 0.3)
    drawn = rng.multinomial(30, sort.chance)
    right = [int(sort.plus[r]) for r, times in enumerate(drawn) for _ in range(times)]
    outcomes = [[1.0] * k + [0.0] * (4 - k) for k in right]
    low, high = (float(x[0]) for x in simulation.mean_interval([simulation.moments(drawn[None], sort)], signed=False))
    estimate, _ = mean_of_group_means(items(lambda x: x))
    assert (estimate.low, estimate.high) == pytest.approx((low, high))
