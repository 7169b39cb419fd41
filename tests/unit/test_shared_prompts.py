"""Means of group means where prompts have items of several groups: a prompt is one unit, whatever its groups."""

from __future__ import annotations

import numpy as np
import pytest

from promptecho.scores import ScoreItem
from promptecho.shared_prompts import difference_over_shared_prompts, mean_over_shared_prompts
from promptecho.statistics import mean_of_group_means, paired_difference

GROUPS = ("color", "count", "place", "shape")


def items_of(outcomes: np.ndarray, disjoint: bool = False) -> list[ScoreItem]:
    """Outcomes [P, D] as items: of P prompts with an item of each group, or of P * D with one item."""
    return [
        ScoreItem(prompt_id=f"{p}{group if disjoint else ''}", image_index=d, group=group, outcome=float(value),
                  failed=False)
        for p, row in enumerate(outcomes)
        for d, (group, value) in enumerate(zip(GROUPS, row, strict=False))
    ]  # fmt: skip


def width(found) -> float:
    return found.high - found.low


def test_what_is_alike_in_all_groups_of_a_prompt_tells_no_more_than_one_group():
    rng = np.random.default_rng(1)
    before, after = (np.repeat(rng.random((120, 1)) < share, 4, axis=1) for share in (0.4, 0.55))
    one = mean_of_group_means(items_of(before[:, :1]), what="one")[0]
    found, groups = mean_over_shared_prompts(items_of(before), "four")
    assert found.value == pytest.approx(one.value) and found.n_prompts == 120 and len(groups) == 4
    assert width(found) == pytest.approx(width(one), rel=0.03)
    assert width(mean_of_group_means(items_of(before), what="four")[0]) < 0.6 * width(one), "as if independent"
    one_gain = paired_difference(items_of(before[:, :1]), items_of(after[:, :1]), ungrouped=True)
    gain = difference_over_shared_prompts(items_of(before), items_of(after), "gain")
    assert gain.value == pytest.approx(one_gain.value) and width(gain) == pytest.approx(width(one_gain), rel=0.03)
    assert gain.p_value == pytest.approx(one_gain.p_value)


def test_groups_with_prompts_of_their_own_have_the_interval_that_they_have_otherwise():
    rng = np.random.default_rng(2)
    before, after = (items_of(rng.random((100, 4)) < share, disjoint=True) for share in (0.4, 0.5))
    found, usual = mean_over_shared_prompts(before, "x")[0], mean_of_group_means(before, what="x")[0]
    assert found.value == usual.value and width(found) == pytest.approx(width(usual), rel=0.03)
    gain, other = difference_over_shared_prompts(before, after, "x"), paired_difference(before, after)
    assert gain.value == other.value and width(gain) == pytest.approx(width(other), rel=0.03)
    assert gain.p_value == pytest.approx(other.p_value, abs=0.02)


def test_order_does_not_matter_sides_turn_the_sign_and_equal_items_have_a_width():
    rng = np.random.default_rng(3)
    before, after = (items_of(rng.random((30, 4)) < share) for share in (0.4, 0.6))
    turned = [before[k] for k in rng.permutation(len(before))]
    assert mean_over_shared_prompts(turned, "x")[0] == mean_over_shared_prompts(before, "x")[0]
    there, back = (difference_over_shared_prompts(*sides, "x") for sides in ((before, after), (after, before)))
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low)) and there.p_value == back.p_value
    for same in (np.zeros((30, 4)), np.ones((30, 4))):
        found = mean_over_shared_prompts(items_of(same), "x")[0]
        assert 0 <= found.low < found.high <= 1 and found.value in (found.low, found.high)
    nothing = difference_over_shared_prompts(before, before, "x")
    assert nothing.low < nothing.value == 0 < nothing.high and nothing.p_value == 1
    assert mean_over_shared_prompts(items_of(np.ones((1, 4))), "one prompt")[0].high == 1


def test_the_interval_covers_where_a_prompt_is_good_or_bad_in_all_respects():
    """A prompt's four outcomes share how likely they are; a beta distribution of mean 0.5."""
    rng, covered = np.random.default_rng(4), np.zeros(2)
    for _ in range(250):
        items = items_of(rng.random((50, 4)) < rng.beta(0.7, 0.7, (50, 1)))
        both = mean_over_shared_prompts(items, "x")[0], mean_of_group_means(items, what="x")[0]
        covered += [found.low <= 0.5 <= found.high for found in both]
    shared, usual = covered / 250
    assert 0.91 < shared < 0.99 and usual < 0.88
