"""Intervals and paired differences with prompts as units."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from promptecho.errors import DataError
from promptecho.intervals import wilson_interval
from promptecho.scores import ScoreItem
from promptecho.statistics import (
    difference_from_zero,
    equal_weights,
    mean_of_group_means,
    paired_difference,
    pool_seeds,
    weighted_means,
)

FEW = {"resamples": 200}


def items_of(outcomes):
    """`{group: [[outcome or None per image] per prompt]}` -> score items."""
    return [
        ScoreItem(prompt_id=f"{group}{p}", image_index=i, group=group, outcome=value, failed=value is None)
        for group, prompts in outcomes.items()
        for p, images in enumerate(prompts)
        for i, value in enumerate(images)
    ]


outcome = st.sampled_from([0.0, 1.0])
groups = st.dictionaries(
    st.sampled_from(["counting", "colors", "position"]),
    st.lists(st.lists(outcome, min_size=1, max_size=4), min_size=1, max_size=8),
    min_size=1,
)


@settings(max_examples=60, deadline=None)
@given(groups)
def test_intervals_hold_the_estimate_and_stay_in_range(outcomes):
    overall, parts = mean_of_group_means(items_of(outcomes))
    for estimate in [overall, *parts.values()]:
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert overall.value == pytest.approx(np.mean([part.value for part in parts.values()]))
    for name, prompts in outcomes.items():
        assert parts[name].value == pytest.approx(np.mean([v for images in prompts for v in images]))
        assert parts[name].n_prompts == len(prompts)


@settings(max_examples=40, deadline=None)
@given(groups, st.randoms(use_true_random=False))
def test_the_order_of_items_does_not_matter(outcomes, random):
    items = items_of(outcomes)
    other = [item.model_copy(update={"outcome": 1.0 - item.outcome}) for item in items]
    shuffled, shuffled_other = random.sample(items, len(items)), random.sample(other, len(other))
    assert mean_of_group_means(items) == mean_of_group_means(shuffled)
    assert paired_difference(items, other, **FEW) == paired_difference(shuffled, shuffled_other, **FEW)


@settings(max_examples=40, deadline=None)
@given(groups)
def test_identical_runs_differ_by_nothing_but_not_with_certainty(outcomes):
    items = items_of(outcomes)
    difference = paired_difference(items, items, **FEW)
    assert (difference.value, difference.p_value) == (0.0, 1.0)
    assert difference.low < 0 < difference.high and difference.low == pytest.approx(-difference.high)


@settings(max_examples=40, deadline=None)
@given(groups, st.data())
def test_swapping_the_runs_turns_the_sign(outcomes, data):
    first = items_of(outcomes)
    second = [item.model_copy(update={"outcome": data.draw(outcome)}) for item in first]
    there, back = paired_difference(first, second, **FEW), paired_difference(second, first, **FEW)
    assert there.value == -back.value
    assert (there.low, there.high) == (pytest.approx(-back.high, abs=1e-12), pytest.approx(-back.low, abs=1e-12))
    assert there.p_value == back.p_value
    assert there.value == pytest.approx(mean_of_group_means(second)[0].value - mean_of_group_means(first)[0].value)
    assert there.low <= there.value <= there.high


def test_images_of_one_prompt_move_together():
    """Four equal images of a prompt tell as much as one: the interval must not shrink."""
    single = [[1.0]] * 12 + [[0.0]] * 8
    fourfold = [images * 4 for images in single]
    one, four = (mean_of_group_means(items_of({"colors": prompts}))[0] for prompts in (single, fourfold))
    assert one.high - one.low < four.high - four.low < 1.15 * (one.high - one.low)  # its variance is estimated
    independent = [[1.0, 1.0, 1.0, 0.0, 0.0]] * 16  # the same mean, all spread inside prompts: 80 images
    spread = mean_of_group_means(items_of({"colors": independent}))[0]
    low, high = wilson_interval(48, 80)
    assert (spread.low, spread.high) == (pytest.approx(low, abs=0.015), pytest.approx(high, abs=0.015))


def test_all_right_is_not_certainty():
    overall, parts = mean_of_group_means(items_of({"colors": [[1.0] * 4] * 10, "counting": [[0.0] * 4] * 5}))
    assert (parts["colors"].low, parts["colors"].high) == pytest.approx(wilson_interval(10, 10))
    assert (parts["counting"].low, parts["counting"].high) == pytest.approx(wilson_interval(0, 5))
    assert overall.low == pytest.approx(0.5 - (1 - parts["colors"].low) / 2)  # two parts, each at one end
    assert overall.high == pytest.approx(0.5 + parts["counting"].high / 2)


def test_equal_differences_are_not_certainty():
    """48 pairs without a change, three of three that gained, and all equally better."""

    def difference(first, second, n, images=1):
        runs = [items_of({"all": [[outcome] * images] * n}) for outcome in (first, second)]
        return paired_difference(*runs)

    same = difference(1.0, 1.0, 48)
    assert (same.value, same.p_value) == (0, 1) and same.low == pytest.approx(-0.0554, abs=1e-4) == -same.high
    gained = difference(0.0, 1.0, 3)
    assert (gained.value, gained.high) == (1, 1) and gained.low == pytest.approx(-0.1012, abs=1e-4)
    assert gained.p_value == pytest.approx(0.25, abs=0.02)
    lost = difference(1.0, 0.0, 3)
    assert (lost.low, lost.high) == (-1, pytest.approx(0.1012, abs=1e-4))
    half = difference(0.25, 0.75, 48)
    assert 0.4 < half.low < 0.49 and 0.51 < half.high < 0.6
    # equal images of the same prompts tell nothing more
    assert difference(1.0, 1.0, 48, images=4).high == pytest.approx(same.high)
    assert difference(0.0, 1.0, 3, images=4).low == pytest.approx(gained.low)


def test_equal_values_between_the_ends_are_not_certainty():
    estimate, _ = mean_of_group_means(items_of({"all": [[0.6] * 2] * 20}))
    assert 0.5 < estimate.low < 0.59 and 0.61 < estimate.high < 0.7
    lone, _ = mean_of_group_means(items_of({"all": [[0.6] * 40]}))
    assert lone.low < 0.1 and lone.high > 0.9  # one prompt is one item


def test_intervals_shrink_with_prompts():
    pattern = [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    for once in (pattern, [[1.0] * 3] * 4, [[0.4] * 3] * 4):
        changed = [[1.0 - value if k == 0 else value for value in images] for k, images in enumerate(once)]
        widths, gaps = [], []
        for times in (1, 3, 10, 40):
            first, second = items_of({"all": once * times}), items_of({"all": changed * times})
            found, gap = mean_of_group_means(first)[0], paired_difference(first, second, **FEW)
            widths.append(found.high - found.low)
            gaps.append(gap.high - gap.low)
        for found in (widths, gaps):
            assert all(more < 0.8 * less for less, more in zip(found, found[1:], strict=False)), found


def test_outcomes_out_of_range_are_refused():
    wide = items_of({"all": [[3.0], [1.0]]})
    with pytest.raises(DataError, match=r"x: prompt all0, image 0: outcome 3 lies outside \[0, 1\]"):
        mean_of_group_means(wide, what="x")
    with pytest.raises(DataError, match=r"outcome 3 lies outside \[-1, 1\]"):
        difference_from_zero(wide)
    net = items_of({"all": [[-1.0], [1.0], [0.0]] * 5})
    with pytest.raises(DataError, match=r"outcome -1 lies outside \[0, 1\]"):
        mean_of_group_means(net)
    estimate, found = mean_of_group_means(net, signed=True)[0], difference_from_zero(net)
    assert (estimate.value, estimate.low, estimate.high) == (found.value, found.low, found.high)


def test_failed_items_leave_the_denominator():
    whole, _ = mean_of_group_means(items_of({"colors": [[1.0, None], [0.0, 1.0], [None, None]]}))
    assert whole.value == pytest.approx(2 / 3)
    assert (whole.n_items, whole.n_prompts) == (3, 2)
    with pytest.raises(DataError, match="every item of group 'colors' failed"):
        mean_of_group_means(items_of({"colors": [[None]], "counting": [[1.0]]}))


def test_pairs_with_a_failed_side_are_left_out_and_counted():
    first = items_of({"colors": [[1.0, None], [0.0, 0.0]]})
    second = items_of({"colors": [[1.0, 1.0], [1.0, None]]})
    difference = paired_difference(first, second, **FEW)
    assert (difference.n_lost, difference.n_items) == (2, 2)
    assert difference.value == 0.5
    with pytest.raises(DataError, match="no item with an outcome"):
        paired_difference(items_of({"colors": [[None]]}), items_of({"colors": [[1.0]]}))


def test_different_items_are_refused_loudly():
    first = items_of({"colors": [[1.0, 0.0]]})
    with pytest.raises(DataError, match="1 in one only, e.g. prompt colors0, image 1 only in the first"):
        paired_difference(first, first[:1])
    moved = [item.model_copy(update={"group": "counting"}) for item in first]
    with pytest.raises(DataError, match="is in group 'colors' in one run and 'counting' in the other"):
        paired_difference(first, moved)
    with pytest.raises(DataError, match="occurs twice"):
        paired_difference([*first, first[0]], first)


def test_wilson_interval_against_the_formula():
    z, n, k = 1.959963984540054, 50, 37
    center, half = k / n + z * z / (2 * n), z * np.sqrt(k / n * (1 - k / n) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    assert wilson_interval(k, n) == (pytest.approx((center - half) / scale), pytest.approx((center + half) / scale))
    for bad in ((0, 0), (3, 2), (-1, 5)):
        with pytest.raises(DataError, match="not a proportion"):
            wilson_interval(*bad)


def test_one_group_agrees_with_scipy():
    """Independent implementations: Student's t over the prompts' means, and scipy's exact paired permutation test."""
    rng = np.random.default_rng(11)
    many = rng.integers(3, 8, (60, 3)) / 10  # far from the ends: nearly normal
    estimate, _ = mean_of_group_means(items_of({"colors": many.tolist()}), per_prompt=True)
    means = many.mean(axis=1)
    low, high = scipy.stats.t.interval(0.95, 59, means.mean(), scipy.stats.sem(means))
    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=0.001), pytest.approx(high, abs=0.001))
    first, second = rng.random((14, 3)).round(2), rng.random((14, 3)).round(2)
    difference = paired_difference(*(items_of({"colors": run.tolist()}) for run in (first, second)))
    exact = scipy.stats.permutation_test(
        (second.mean(axis=1), first.mean(axis=1)),
        lambda a, b: np.mean(a - b),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    assert difference.value == pytest.approx(exact.statistic)
    assert difference.p_value == pytest.approx(exact.pvalue, abs=0.02)


def _simulated_run(rng, chances, images):
    """Outcomes of `images` per prompt where each prompt has its own chance `chances[group][p]`."""
    return items_of({g: (rng.random((len(c), images)) < c[:, None]).astype(float).tolist() for g, c in chances.items()})


def test_coverage_of_interval_and_level_of_test():
    """Prompts drawn from a population: 95 % intervals hold its mean in about 95 % of the trials."""
    rng = np.random.default_rng(3)
    trials, covered, rejected, difference_covered = 300, 0, 0, 0
    shapes = {"colors": (4.0, 1.5), "counting": (1.0, 1.5)}
    truth = np.mean([a / (a + b) for a, b in shapes.values()])
    for _ in range(trials):
        chances = {g: rng.beta(a, b, size=30) for g, (a, b) in shapes.items()}
        first, second = _simulated_run(rng, chances, 4), _simulated_run(rng, chances, 4)
        overall, _ = mean_of_group_means(first)
        covered += overall.low <= truth <= overall.high
        difference = paired_difference(first, second, resamples=400)
        difference_covered += difference.low <= 0 <= difference.high
        rejected += difference.p_value < 0.05
    assert 0.90 <= covered / trials <= 0.98
    assert 0.90 <= difference_covered / trials <= 0.98
    assert 0.01 <= rejected / trials <= 0.09


def test_a_real_difference_is_found():
    rng = np.random.default_rng(5)
    base = {"colors": rng.beta(2, 2, size=60)}
    better = {"colors": np.minimum(base["colors"] + 0.2, 1.0)}
    difference = paired_difference(_simulated_run(rng, base, 4), _simulated_run(rng, better, 4))
    assert difference.low > 0
    assert difference.p_value < 0.001


@settings(max_examples=20, deadline=None)
@given(groups, st.integers(1, 3), st.randoms(use_true_random=False))
def test_pooled_seeds_gain_the_mean_of_their_gains(outcomes, n_seeds, random):
    base = items_of(outcomes)
    seeds = [
        [item.model_copy(update={"outcome": float(random.random() < 0.6)}) for item in base] for _ in range(n_seeds)
    ]
    pooled = paired_difference(pool_seeds([base] * n_seeds), pool_seeds(seeds), **FEW)
    assert pooled.value == pytest.approx(np.mean([paired_difference(base, seed, **FEW).value for seed in seeds]))
    assert pooled.low <= pooled.value <= pooled.high
    assert pooled.n_prompts == len({item.prompt_id for item in base}) and pooled.n_items == n_seeds * len(base)
    overall, _ = mean_of_group_means(pool_seeds(seeds))
    assert overall.value == pytest.approx(np.mean([mean_of_group_means(seed)[0].value for seed in seeds]))


def test_a_seed_taken_again_is_no_further_evidence():
    rng = np.random.default_rng(8)
    base, seed = (items_of({"all": rng.integers(0, 2, (30, 2)).astype(float).tolist()}) for _ in range(2))
    three, once = paired_difference(pool_seeds([base] * 3), pool_seeds([seed] * 3)), paired_difference(base, seed)
    assert three.value == pytest.approx(once.value)
    assert three.high - three.low == pytest.approx(once.high - once.low, rel=0.1)


def test_intervals_of_weighted_means_hold_those_of_their_groups():
    """A column's width is that of independent groups put together."""
    rng = np.random.default_rng(2)
    outcomes = {name: rng.integers(0, 2, (6, 2)).astype(float).tolist() for name in ("colors", "counting", "position")}

    def columns(names):
        assert names == ["colors", "counting", "position"]
        return {"mean": equal_weights(names), "two": {"colors": 0.75, "position": 0.25}, "one": {"counting": 1.0}}

    found = weighted_means(items_of(outcomes), columns)
    overall, parts = mean_of_group_means(items_of(outcomes))
    assert (found["mean"], found["one"]) == (overall, parts["counting"])
    assert found["two"].value == pytest.approx(0.75 * parts["colors"].value + 0.25 * parts["position"].value)
    widths = {name: (parts[name].high - parts[name].low) / 2 for name in ("colors", "position")}
    expected = np.hypot(0.75 * widths["colors"], 0.25 * widths["position"])
    assert (found["two"].high - found["two"].low) / 2 == pytest.approx(expected, rel=0.15)


def test_small_groups_do_not_look_surer_than_they_are():
    """39 groups of four prompts: drawing n of n would give intervals too narrow by the square root of 3/4."""
    rng = np.random.default_rng(4)
    covered, trials = 0, 200
    for _ in range(trials):
        chances = {f"g{g}": np.full(4, 0.3 + 0.01 * g) for g in range(39)}
        overall, _ = mean_of_group_means(_simulated_run(rng, chances, 1))
        covered += overall.low <= np.mean([c[0] for c in chances.values()]) <= overall.high
    assert 0.91 <= covered / trials <= 0.99


@settings(max_examples=30, deadline=None)
@given(groups)
def test_ungrouped_means_are_those_of_one_group(outcomes):
    items = items_of(outcomes)
    alike = [item.model_copy(update={"group": "all"}) for item in items]
    other, other_alike = ([i.model_copy(update={"outcome": 1 - i.outcome}) for i in side] for side in (items, alike))
    for per_prompt in (False, True):
        how = {"per_prompt": per_prompt}
        assert mean_of_group_means(items, ungrouped=True, **how)[0] == mean_of_group_means(alike, **how)[0]
        assert paired_difference(items, other, ungrouped=True, **how, **FEW) == paired_difference(
            alike, other_alike, **how, **FEW
        )


def test_prompts_count_alike_if_asked():
    items = items_of({"colors": [[1.0, 1.0, 1.0], [0.0]]})
    assert mean_of_group_means(items)[0].value == 0.75
    estimate, _ = mean_of_group_means(items, per_prompt=True)
    assert (estimate.value, estimate.n_items, estimate.n_prompts) == (0.5, 4, 2)


def test_outcomes_that_are_differences_agree_with_pairs():
    rng = np.random.default_rng(6)
    outcomes = items_of({"all": rng.choice([-1.0, 0.0, 1.0], (40, 2)).tolist()})
    zeros = [item.model_copy(update={"outcome": 0.0}) for item in outcomes]
    assert difference_from_zero(outcomes) == paired_difference(zeros, outcomes)
    failed = [*outcomes, ScoreItem(prompt_id="x", image_index=0, group="all", outcome=None, failed=True)]
    assert difference_from_zero(failed).n_lost == 1
    ties = difference_from_zero(zeros)
    assert ties.low < 0 == ties.value < ties.high and ties.p_value == 1 and ties.low == -ties.high
    won = difference_from_zero([item.model_copy(update={"outcome": 1.0}) for item in outcomes])
    assert (won.value, won.high) == (1.0, 1.0) and 0.85 < won.low < 0.95
