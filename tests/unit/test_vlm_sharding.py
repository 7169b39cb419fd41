"""A VLM that ranks share: its blocks are gathered ahead of the passes, and its results are those of the whole model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from forked import start


@pytest.fixture(scope="module")
def told() -> list[dict]:
    """What each of two ranks says; see sharded_ranks.py."""
    process = start([], script=Path(__file__).with_name("sharded_ranks.py"))
    stdout, stderr = process.communicate()
    facts = [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
    assert process.returncode == 0 and len(facts) == 2, stderr[-3000:]
    return facts


def test_the_next_block_is_gathered_while_a_block_computes(told):
    """All but the last of four, or of two without an image; behind the model itself, whose remainder is first."""
    expected = [["image", 1, 1], ["image", 2, 1], ["image", 3, 1], ["image", 4, 0], ["text", 1, 1], ["text", 2, 0]]
    assert [rank["ahead"] for rank in told] == [expected] * 2


def test_rewards_have_the_bits_of_the_whole_model_also_behind_a_pass_that_failed(told):
    assert [rank["said"] for rank in told] == ["half-way", ""]
    assert [rank["same"] for rank in told] == [[True, True]] * 2


def test_gathered_once_for_a_step_it_writes_the_same_and_exchanges_nothing_more(told):
    """Replies of two ranks with three and two images, also behind a pass that failed; then each has its half again."""
    assert [rank["kept"] for rank in told] == [[True, True]] * 2
    assert [rank["written"] for rank in told] == [[True, True, 3], [True, True, 2]]
    for layers, phase in (rank["exchanges"] for rank in told):
        assert phase == 5 and layers > 5 * phase  # four blocks and the remainder
    assert [rank["left"] for rank in told] == [0.5, 0.5]


def test_a_rank_that_fails_to_gather_leaves_no_other_waiting(told):
    assert [rank["lost"] for rank in told] == ["no memory", "inside"]


def test_a_rank_whose_reward_fails_takes_part_in_the_passes_of_the_vlms_that_follow(told):
    assert [rank["several"] for rank in told] == ["of the first", "6 rewards"]


def test_nothing_is_left_of_passes_that_are_over(told):
    """Neither FSDP's notes for a backward pass, nor links of another kind of pass."""
    assert [(rank["noted"], rank["links"]) for rank in told] == [(0, 0)] * 2


def test_ranks_agree_on_how_the_weights_are_gathered(told):
    assert [rank["agreed"] for rank in told] == [False, False]
