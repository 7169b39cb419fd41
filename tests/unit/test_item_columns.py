"""Items as columns: the same items, the same numbers, whoever reads them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptecho.errors import DataError
from promptecho.item_columns import (
    columns_of,
    groups_of,
    images_of,
    in_groups,
    prompts_of,
    shared_keys,
)
from promptecho.scores import ScoreItem
from promptecho.statistics import mean_of_group_means, paired_difference, pool_seeds

PLACES = [(f"p{prompt}", image, group) for prompt, group in enumerate("aabbc") for image in range(3)]
outcome = st.none() | st.sampled_from([0.0, 1.0, 0.1, 1 / 3])
outcomes = st.lists(outcome, min_size=len(PLACES), max_size=len(PLACES))


def items_of(values, places=PLACES):
    return [
        ScoreItem(prompt_id=prompt, image_index=image, group=group, outcome=value, failed=value is None)
        for (prompt, image, group), value in zip(places, values, strict=True)
    ]


def as_read(items):
    """The same items with the keys that equal files share."""
    found = columns_of(items)
    found.keys = shared_keys(*map(tuple, found.keys.columns()))
    return found


@settings(max_examples=30, deadline=None)
@given(outcomes)
def test_columns_hold_the_items(values):
    items = items_of(values)
    found = columns_of(items)
    assert [one._asdict() for one in found] == [one.model_dump() for one in items]
    assert [one._asdict() for one in found.judged()] == [one.model_dump() for one in items if not one.failed]
    assert [one._asdict() for one in in_groups(items, {"a", "c"})] == [
        one.model_dump() for one in items if one.group in "ac"
    ]
    assert found[1:3] == list(found)[1:3] and found[-1] == list(found)[-1] and len(found) == len(items)
    for judged in (False, True):
        some = [one for one in items if not (judged and one.failed)]
        assert groups_of(items, judged=judged) == {one.group for one in some}
        assert prompts_of(items, judged=judged) == {one.prompt_id for one in some}
    assert images_of(items) == {(one.prompt_id, one.image_index) for one in items}


@settings(max_examples=30, deadline=None)
@given(outcomes, outcomes, st.permutations(range(len(PLACES))))
def test_numbers_do_not_depend_on_order_or_on_shared_keys(first, second, order):
    """Outcomes that no binary number holds exactly: sums must be made in one order."""
    lists = [items_of(values) for values in (first, second)]
    shuffled = [lists[0], [lists[1][index] for index in order]]
    shared = [as_read(items) for items in lists]
    assert shared[0].keys is shared[1].keys

    def numbers(sides):
        told = []
        for ungrouped in (True, False):
            try:
                told.append(mean_of_group_means(sides[1], ungrouped=ungrouped))
                told.append(paired_difference(*sides, ungrouped=ungrouped, resamples=50))
                pooled = [pool_seeds([side, side]) for side in sides]
                told.append(paired_difference(*pooled, ungrouped=ungrouped, per_prompt=True, resamples=50))
            except DataError as error:
                told.append(str(error))
        return told

    assert numbers(lists) == numbers(shuffled) == numbers(shared)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_a_prompts_sum_adds_its_images_one_after_another(values):
    """So a table has the same bytes with every version of numpy and Python."""
    total = 0.0
    for value in values:
        total += value
    items = items_of(values, [("p", image, "g") for image in range(len(values))])
    assert mean_of_group_means(items)[0].value == total / len(values)


def test_whole_differences_are_tested_as_others_are():
    """Whole sums go through float32: the same hits as the same differences that are no whole numbers."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 2, (2, len(PLACES))).astype(float)
    half = drawn / 2 + 0.1  # its differences are halves
    whole, other = (paired_difference(*map(items_of, two.tolist()), resamples=2000) for two in (drawn, half))
    assert whole.p_value == other.p_value and whole.value == pytest.approx(2 * other.value)


def test_an_item_that_occurs_twice_counts_twice_in_any_order():
    places = [*PLACES, PLACES[0]]
    values = [0.1, *[1.0] * (len(PLACES) - 1), 0.7]
    items = items_of(values, places)
    assert mean_of_group_means(items) == mean_of_group_means(items[::-1])
    assert not columns_of(items).keys.unique
    with pytest.raises(DataError, match="occurs twice"):
        paired_difference(items, items)
