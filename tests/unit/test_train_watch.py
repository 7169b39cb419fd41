"""The live view: frames from real files, states, signs of reward hacking, and the command itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from rich.console import Console

from promptecho.errors import ConfigError
from promptecho.files import write_jsonl, write_text
from promptecho.train.warning_signs import change, rises, warning_signs
from promptecho.train.watch import BLOCKS, SPARK_WIDTH, frame, snapshot, sparkline

TOTAL = 20


def row(i, **more):
    return {"iteration": i, "reward_mean": 0.1 * i, "clip_fraction": 0.0, "kl_ema": 1e-4, "seconds": 30.0, **more}


@pytest.fixture
def experiment(tmp_path):
    """Run `a` is between checkpoints 10 and 20, run `b` has not begun."""
    folder = tmp_path / "results/tiny"
    runs = "".join(f"  {name}: {{iterations: {TOTAL}}}\n" for name in "ab")
    write_text(folder / "config/0123.yaml", f"runs:\n{runs}")
    write_jsonl(folder / "runs/a/10/metrics.jsonl", [row(i) for i in range(1, 11)])
    live = folder / "work/train/a/20/d1/live.jsonl"
    live.parent.mkdir(parents=True)
    live.write_text("".join(json.dumps(row(i, heldout_reward=float(i))) + "\n" for i in (11, 15)) + '{"iter')
    return folder


def text_of(experiment, views):
    console = Console(width=110, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(frame(str(experiment), views))
    return console.export_text()


def live_file(experiment):
    (path,) = experiment.glob("work/train/*/*/*/live.jsonl")
    return path


def test_running_and_waiting(experiment):
    now = live_file(experiment).stat().st_mtime + 5
    a, b = snapshot(experiment, [], now)
    assert (a.run, a.state, a.iteration, a.total) == ("a", "running", 15, TOTAL)
    assert (a.seconds_per_iteration, a.seconds_left, a.seconds_since_row) == (30.0, 150.0, 5.0)
    assert a.metrics["reward_mean"].last == 1.5
    assert a.metrics["reward_mean"].change == pytest.approx((0.8 + 0.9 + 1.0 + 1.1 + 1.5) / 5 - 0.3)
    assert a.metrics["heldout_reward"].change == 4.0  # fixed noise: last minus first
    assert (b.state, b.iteration, b.metrics) == ("waiting", 0, {})
    shown = text_of(experiment, [a, b])
    assert "15/20" in shown and "30 s per iteration, 2 min left" in shown and "+4" in shown
    assert "kl_base" not in a.metrics  # never measured, never shown


def test_speed_is_shown_where_rows_tell_it(experiment):
    now = live_file(experiment).stat().st_mtime
    (before,) = snapshot(experiment, ["a"], now)
    assert before.speed == {} and "TFLOP/s" not in text_of(experiment, [before])  # as earlier versions wrote
    told = {"tflops_sample": 396.04, "mfu_sample": 0.4004, "tflops_update": 237.0, "tflops": 326.0, "mfu": 0.3296}
    with live_file(experiment).open("r+") as file:
        kept = file.read().rpartition("\n")[0]
        file.seek(0)
        file.write(f"{kept}\n{json.dumps(row(16, **told))}\n")
    (shown,) = snapshot(experiment, ["a"], now)
    assert shown.speed == told == shown.to_json()["speed"]
    line = "TFLOP/s per GPU: sample 396 (MFU 40%), update 237, iteration 326 (MFU 33%)"
    assert line in text_of(experiment, [shown])


def test_no_row_for_long_is_a_stall(experiment):
    written = live_file(experiment).stat().st_mtime
    assert snapshot(experiment, ["a"], written + 149)[0].state == "running"
    (stalled,) = snapshot(experiment, ["a"], written + 151)
    assert stalled.state == "stalled"
    assert "no new row for 3 min: killed, hanging or queued again" in text_of(experiment, [stalled])


def test_last_checkpoint_means_finished(experiment):
    write_jsonl(experiment / "runs/a/20/metrics.jsonl", [row(i) for i in range(11, 21)])
    (finished,) = snapshot(experiment, ["a"], time.time() + 1e6)
    assert (finished.state, finished.iteration, finished.seconds_left) == ("finished", TOTAL, None)


def test_run_that_stopped_early_is_finished(experiment):
    """Its last segments are complete, but without rows."""
    write_jsonl(experiment / "runs/a/20/metrics.jsonl", [])
    assert snapshot(experiment, ["a"], time.time())[0].state == "finished"


def test_newest_configuration_tells_the_total(experiment):
    write_text(experiment / "config/4567.yaml", "runs: {a: {iterations: 300}}\n")
    os.utime(experiment / "config/0123.yaml", (1, 1))
    assert [(shown.run, shown.total) for shown in snapshot(experiment, [], time.time())] == [("a", 300)]


def test_run_that_no_configuration_names_is_shown_without_total(experiment):
    write_jsonl(experiment / "runs/old/7/metrics.jsonl", [row(i) for i in range(1, 8)])
    (old,) = snapshot(experiment, ["old"], time.time())
    assert (old.total, old.seconds_left, old.state) == (None, None, "waiting")
    assert "old" in text_of(experiment, [old])
    assert [shown.run for shown in snapshot(experiment, [], time.time())] == ["a", "b"]  # unless asked for


def test_unknown_run(experiment):
    with pytest.raises(ConfigError, match=r"--run c: no such run .*known: a, b"):
        snapshot(experiment, ["c"], 0.0)


def test_sparkline():
    assert sparkline([0.0, 1.0]) == BLOCKS[0] + BLOCKS[-1]
    assert sparkline([2.0] * 3) == BLOCKS[3] * 3
    assert sparkline([]) == ""
    line = sparkline([float(i) for i in range(1000)])
    assert len(line) == SPARK_WIDTH and list(line) == sorted(line)


def rows_of(**columns):
    length = len(next(iter(columns.values())))
    return [{"iteration": i + 1, **{key: values[i] for key, values in columns.items()}} for i in range(length)]


UP = [0.01 * i for i in range(20)]


def test_signs_of_reward_hacking():
    falling = [1.0 - 0.04 * i for i in range(20)]
    (sign,) = warning_signs(rows_of(reward_mean=UP, diversity=falling))
    assert "while diversity fell by 65%" in sign
    (sign,) = warning_signs(rows_of(reward_mean=UP, kl_base=[float(i**3) for i in range(20)]))
    assert sign.startswith("KL to the base is")
    heldout = [None if i % 5 else -0.1 * i for i in range(20)]
    (sign,) = warning_signs(rows_of(reward_mean=UP, heldout_reward=heldout))
    assert "held-out reward fell to -1.5 from" in sign
    (sign,) = warning_signs([*rows_of(reward_mean=UP), {"iteration": 21, "grad_norm": float("nan")}])
    assert sign == "grad_norm is nan at iteration 21: nothing after it can be trusted"


def test_gradients_below_adams_epsilon_are_a_sign_while_they_last():
    (sign,) = warning_signs(rows_of(grad_below_eps=[0.2, 0.6]))
    assert sign.startswith("60% of the gradient's elements lie below Adam's epsilon")
    assert warning_signs(rows_of(grad_below_eps=[0.6, 0.2])) == []


def test_healthy_runs_show_no_sign():
    assert warning_signs([]) == []
    assert warning_signs(rows_of(reward_mean=[0.0])) == []
    slightly = [1.0 - 0.01 * i for i in range(20)]
    growing = [0.1 * i for i in range(20)]  # a KL to the base grows as a policy learns
    assert warning_signs(rows_of(reward_mean=UP, heldout_reward=UP, diversity=slightly, kl_base=growing)) == []
    spiky = [0.005] * 15 + [0.008, 0.011, 0.047, 0.005, 0.007]  # as of a run whose prompts share few timesteps
    assert warning_signs(rows_of(reward_mean=UP, heldout_reward=UP, diversity=slightly, kl_base=spiky)) == []
    flat = [0.5, -0.5] * 10
    assert not rises(flat)
    assert warning_signs(rows_of(reward_mean=flat, diversity=[1.0 - 0.05 * i for i in range(20)])) == []


def test_change_compares_the_ends():
    assert change([1.0]) is None
    assert change([1.0, 3.0]) == 2.0
    assert change([0.0] * 5 + [9.0] * 10 + [1.0] * 5) == 1.0


def run(*arguments):
    command = [sys.executable, "-m", "promptecho", "train", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_command_prints_one_frame(experiment):
    result = run("--watch", experiment, "--once")
    assert result.returncode == 0, result.stderr
    assert "15/20" in result.stdout and "waiting" in result.stdout and result.stderr == ""
    assert "\x1b" not in result.stdout


def test_command_prints_numbers(experiment):
    told = json.loads(run("--watch", experiment, "--run", "a", "--json").stdout)
    (a,) = told["runs"]
    assert (a["run"], a["iteration"], a["total"], a["metrics"]["reward_mean"]["last"]) == ("a", 15, TOTAL, 1.5)


def test_command_ends_by_itself_when_all_runs_are_finished(experiment):
    for name in "ab":
        write_jsonl(experiment / f"runs/{name}/20/metrics.jsonl", [row(i) for i in range(11, 21)])
    result = run("--watch", experiment)
    assert result.returncode == 0 and result.stdout.count("finished") == 2


def test_watching_loads_no_torch(experiment):
    code = (
        f"import sys; sys.argv = ['promptecho', 'train', '--watch', {str(experiment)!r}, '--once']\n"
        "from promptecho.cli import app\n"
        "app(standalone_mode=False)\n"
        "print([name for name in ('torch', 'deepspeed', 'transformers', 'h5py', 'pandas') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


def test_training_without_its_options_is_one_line():
    result = run("--to", 3, "--out", "x")
    assert result.returncode == 1
    assert result.stderr == (
        "promptecho: train: missing --config, --run, --captions, --work; to look at runs instead: "
        "promptecho train --watch results/EXPERIMENT\n"
    )
    result = run(
        *("--config", "c", "--run", "a", "--run", "b", "--to", 3, "--captions", "c", "--out", "o", "--work", "w")
    )
    assert result.returncode == 1 and "one run is trained at a time" in result.stderr
