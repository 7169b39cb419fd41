"""Rows of a run: finished segments and live files, torn and repeated rows, leftovers of other configurations."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptecho.errors import DataError
from promptecho.files import write_jsonl
from promptecho.train.metrics import find_runs, read_live, read_run


def rows(first, last, reward=0.0):
    return [{"iteration": i, "reward_mean": reward + i} for i in range(first, last + 1)]


def segment(root, step, content, run="echo-s1"):
    path = root / f"runs/{run}/{step}/metrics.jsonl"
    write_jsonl(path, content)
    return path


def live(root, step, content, digest="d1", run="echo-s1", torn=""):
    path = root / f"work/train/{run}/{step}/{digest}/live.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in content) + torn)
    return path


def iterations(run):
    return [row["iteration"] for row in run.rows]


def test_segments_and_the_live_file_are_one_run(tmp_path):
    segment(tmp_path, 5, rows(1, 5))
    path = live(tmp_path, 10, rows(6, 8))
    run = read_run(tmp_path, "echo-s1")
    assert iterations(run) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (run.finished, run.live, run.iteration) == ([5], 10, 8)
    assert run.last_write == path.stat().st_mtime
    (tmp_path / "runs/echo-s1.replaced-0123456789abcdef").mkdir(parents=True)  # moved aside
    assert find_runs(tmp_path) == ["echo-s1"]


def test_finished_row_wins_over_the_live_one(tmp_path):
    live(tmp_path, 5, rows(1, 5, reward=100))
    segment(tmp_path, 5, rows(1, 5))
    run = read_run(tmp_path, "echo-s1")
    assert run.series("reward_mean") == [(i, float(i)) for i in range(1, 6)]
    assert run.live is None and run.last_write is None


@pytest.mark.parametrize("torn", ['{"iteration": 3, "rew', "{", '{"iteration": 3, "note": "gr\u00fc'])
def test_torn_last_line_waits_for_the_next_look(tmp_path, torn):
    path = live(tmp_path, 5, rows(1, 2), torn=torn)
    path.write_bytes(path.read_bytes()[:-1] if "\u00fc" in torn else path.read_bytes())  # half a character
    assert iterations(read_run(tmp_path, "echo-s1")) == [1, 2]
    live(tmp_path, 5, rows(1, 3))
    assert iterations(read_run(tmp_path, "echo-s1")) == [1, 2, 3]


def test_last_line_without_newline_counts_once_it_is_whole(tmp_path):
    live(tmp_path, 5, rows(1, 2), torn='{"iteration": 3}')
    assert iterations(read_run(tmp_path, "echo-s1")) == [1, 2, 3]


@pytest.mark.parametrize(
    ("line", "told"), [('{"iteration": 2, "rew\n', "live.jsonl:3: not valid JSON"), ('{"a": 1}\n', "live.jsonl:3")]
)
def test_anything_else_is_loud(tmp_path, line, told):
    live(tmp_path, 5, rows(1, 2), torn=line + '{"iteration": 3}\n')
    with pytest.raises(DataError, match=told):
        read_run(tmp_path, "echo-s1")


def test_torn_finished_segment_is_loud(tmp_path):
    path = segment(tmp_path, 5, rows(1, 5))
    path.write_text(path.read_text()[:-5])
    with pytest.raises(DataError, match=r"metrics\.jsonl:5: not valid JSON"):
        read_run(tmp_path, "echo-s1")


def test_rows_of_a_resumed_segment_replace_the_lost_ones(tmp_path):
    path = live(tmp_path, 9, [*rows(1, 6), *rows(4, 5, reward=100)])
    assert [row["iteration"] for row in read_live(path)] == [1, 2, 3, 4, 5]
    assert read_run(tmp_path, "echo-s1").series("reward_mean")[-2:] == [(4, 104.0), (5, 105.0)]


def test_live_file_of_another_configuration_is_passed_over(tmp_path):
    old = live(tmp_path, 5, rows(1, 4, reward=100), digest="old")
    new = live(tmp_path, 5, rows(1, 2), digest="new")
    os.utime(old, (1000, 1000))
    os.utime(new, (2000, 2000))
    assert read_run(tmp_path, "echo-s1").series("reward_mean") == [(1, 1.0), (2, 2.0)]


def test_segments_trained_again_are_not_shown_with_their_old_successors(tmp_path):
    old = segment(tmp_path, 10, rows(6, 10, reward=100))
    new = live(tmp_path, 5, rows(1, 2))
    os.utime(old, (1000, 1000))
    os.utime(new, (2000, 2000))
    run = read_run(tmp_path, "echo-s1")
    assert iterations(run) == [1, 2] and run.finished == [] and run.live == 5


@pytest.mark.parametrize("step", [5, 20])
def test_live_file_that_the_run_has_left_behind(tmp_path, step):
    old = live(tmp_path, step, rows(1, 15, reward=100))
    os.utime(old, (1000, 1000))
    segment(tmp_path, 10, rows(1, 10))
    run = read_run(tmp_path, "echo-s1")
    assert iterations(run) == list(range(1, 11)) and run.live is None


def test_experiment_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        find_runs(tmp_path / "absent")


@given(st.lists(st.integers(1, 20), max_size=30), st.integers(0, 10))
def test_any_order_of_restarts_and_any_cut_read_as_increasing_rows(tmp_path_factory, starts, cut):
    """Whatever the trainer repeated and wherever the file ends now, rows increase and each is the last written."""
    path = tmp_path_factory.mktemp("live") / "live.jsonl"
    content = [{"iteration": i, "reward_mean": n} for n, i in enumerate(starts)]
    text = "".join(json.dumps(row) + "\n" for row in content)
    path.write_text(text[: max(0, len(text) - cut)])
    whole = [row for n, row in enumerate(content) if len("".join(json.dumps(r) + "\n" for r in content[: n + 1])) - 1
             <= len(text) - cut]  # fmt: skip
    found = read_live(path)
    assert [row["iteration"] for row in found] == sorted({row["iteration"] for row in found})
    assert found[-1:] == whole[-1:]
