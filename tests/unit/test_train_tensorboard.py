"""TensorBoard events read back with TensorBoard's own reader."""

from __future__ import annotations

import pytest

from promptecho.train.tensorboard import TensorBoardLog, tag_of

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def row(iteration, reward):
    return {
        "iteration": iteration, "reward_mean": reward, "reward_0_echo": reward, "heldout_reward": reward - 1,
        "kl_ema": 0.25, "optimizer_steps": 4 * iteration, "seconds_update": 2.0, "seconds": 3.0, "images_per_s": 8.0,
        "memory_gb_sample": 1.5, "note": "text is not a scalar",
    }  # fmt: skip


def read(folder):
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in sorted(events.Tags()["scalars"])
    }


def write(folder, start, rows):
    log = TensorBoardLog(folder, start)
    for item in rows:
        log.add(item)
    log.close()


def test_rows_come_back_grouped(tmp_path):
    write(tmp_path, 0, [row(1, -0.5), row(2, -0.25)])
    found = read(tmp_path)
    assert found["reward/mean"] == [(1, -0.5), (2, -0.25)]
    assert found["reward/heldout"] == [(1, -1.5), (2, -1.25)]
    assert sorted(found) == [
        "memory/gb_sample", "policy/kl_ema", "policy/optimizer_steps", "reward/0_echo", "reward/heldout",
        "reward/mean", "speed/images_per_s", "speed/seconds", "speed/seconds_update",
    ]  # fmt: skip


def test_resumed_run_takes_back_the_rows_that_it_repeats(tmp_path):
    write(tmp_path, 0, [row(1, 0.5), row(2, 0.75), row(3, 9.0), row(4, 9.0)])
    write(tmp_path, 2, [row(3, 1.0)])
    assert read(tmp_path)["reward/mean"] == [(1, 0.5), (2, 0.75), (3, 1.0)]


def test_run_that_starts_over_leaves_nothing_double(tmp_path):
    for _ in range(2):
        write(tmp_path, 0, [{"iteration": 0, "heldout_reward": 0.5, "heldout_reward_0_echo": 0.5}, row(1, 0.25)])
    found = read(tmp_path)
    assert found["reward/heldout"] == [(0, 0.5), (1, -0.75)]
    assert found["reward/heldout_0_echo"] == [(0, 0.5)]


def test_unknown_metric_belongs_to_the_policy():
    assert tag_of("ratio_mean") == "policy/ratio_mean"
    assert tag_of("diversity") == "policy/diversity"
