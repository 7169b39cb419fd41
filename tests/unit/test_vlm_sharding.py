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
    """All but the last of four; behind the model itself, whose remainder is gathered first."""
    assert [rank["ahead"] for rank in told] == [[[1, 1], [2, 1], [3, 1], [4, 0]]] * 2


def test_rewards_have_the_bits_of_the_whole_model_also_behind_a_pass_that_failed(told):
    assert [rank["said"] for rank in told] == ["half-way", ""]
    assert [rank["same"] for rank in told] == [[True, True]] * 2
