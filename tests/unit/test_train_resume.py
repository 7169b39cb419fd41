"""`promptecho train` as processes that are killed, stopped and resumed: always the same bits in the end."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import tiny_t2i
import torch
from forked import Started, ranks, run, start
from safetensors.torch import load_file
from tiny_experiment import Experiment, metrics_without_times, same_bytes

from promptecho.files import read_json
from promptecho.train.loop import train_segment
from promptecho.train.stop import EXIT_CODE, StopCheck
from promptecho.train.stop_file import stop_file_above


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    return Experiment(tmp_path_factory.mktemp("resume"), t2i=tiny_t2i.shallow_folder())


@pytest.fixture(scope="module")
def config(experiment) -> Path:
    return experiment.config()


@pytest.fixture(scope="module")
def straight(experiment, config) -> Path:
    """The checkpoint of a run that nothing disturbed: eight iterations at one go."""
    run(experiment.train(config, 8, "straight"))
    return experiment.folder / "straight" / "8"


def newest_iteration(work: Path) -> int:
    """Iterations in the newest rolling state, 0 without one."""
    return max((int(path.name) for path in (work / "states").glob("[0-9]*")), default=0)


def wait_for_iteration(process: Started, work: Path, iteration: int) -> None:
    """Until the rolling state has so many iterations."""
    while process.poll() is None:
        if newest_iteration(work) >= iteration:
            return
        time.sleep(0.005)
    raise AssertionError(f"ended before iteration {iteration}:\n{process.communicate()[1][-4000:]}")


@pytest.fixture(scope="module")
def interrupted(experiment, config) -> dict:
    """The same run killed, terminated and stopped, each at some moment of a later iteration, then left to end."""
    arguments = experiment.train(config, 8, "interrupted")
    work, stop_file = experiment.folder / "interrupted" / "work" / "8", experiment.folder / "stop"
    facts: dict = {"work": work, "reached": []}

    def reached() -> int:
        facts["reached"].append(newest_iteration(work))
        return facts["reached"][-1]

    process = start(arguments)
    wait_for_iteration(process, work, 1)
    # At any moment of the next one: this machine's iterations take as long as the first did.
    facts["delay"] = random.random() * json.loads((work / "live.jsonl").read_text().splitlines()[0])["seconds"]
    time.sleep(facts["delay"])
    process.send_signal(signal.SIGKILL)
    process.communicate()
    facts["killed"], done = process.returncode, reached()
    shutil.copytree(work / "states", experiment.folder / "kept")

    process = start(arguments)
    wait_for_iteration(process, work, done + 1)
    process.send_signal(signal.SIGTERM)
    facts["terminated_stderr"] = process.communicate()[1]
    facts["terminated"], done = process.returncode, reached()

    process = start([*arguments, "--stop-file", str(stop_file), "--json"])
    wait_for_iteration(process, work, done + 1)
    stop_file.touch()
    facts["stopped_stdout"] = process.communicate()[0]
    facts["stopped"] = process.returncode
    reached()
    facts["last_stderr"] = run(arguments)
    facts["checkpoint"] = experiment.folder / "interrupted" / "8"
    return facts


def test_a_person_s_request_holds_until_it_is_taken_back(experiment, config, straight):
    """Between iterations and while models load, not inside an iteration (`promptecho stop`)."""
    arguments = experiment.train(config, 8, "asked")
    work = experiment.folder / "asked" / "work" / "r" / "8" / "0123"
    arguments[arguments.index("--work") + 1] = str(work)
    asked = stop_file_above(work, "r")
    assert asked == experiment.folder / "asked" / "work" / "r" / "stop" and stop_file_above(work, "s") is None
    process = start(arguments)
    wait_for_iteration(process, work, 1)
    asked.touch()
    stderr = process.communicate()[1]
    assert process.returncode == EXIT_CODE, stderr[-3000:]
    assert f"asked to stop; state of iteration {newest_iteration(work)} saved" in stderr
    again = start(arguments)
    stderr = again.communicate()[1]
    assert again.returncode == EXIT_CODE and f"start Snakemake to go on, or delete {asked}" in stderr, stderr[-3000:]
    asked.unlink()
    run(arguments)
    assert same_bytes(experiment.folder / "asked" / "8", straight) == []


def test_inside_an_iteration_a_person_s_request_is_not_heard(tmp_path):
    (tmp_path / "stop").touch()
    check = StopCheck(None, run_file=tmp_path / "stop")
    with check.listening():
        check.poll()
    assert not check.heard
    check.stop_file = tmp_path / "stop"
    check._looked = 0.0
    with check.listening():
        check.poll()
    assert check.heard


def test_killed_terminated_and_stopped_the_run_ends_with_the_same_bits(straight, interrupted):
    assert interrupted["killed"] == -signal.SIGKILL
    assert same_bytes(interrupted["checkpoint"], straight) == [], interrupted
    a, b = (read_json(folder / "state" / "state.json") for folder in (interrupted["checkpoint"], straight))
    assert a == b and a["iteration"] == 8
    assert metrics_without_times(interrupted["checkpoint"]) == metrics_without_times(straight)


def test_asked_to_stop_it_says_so_with_exit_code_75(interrupted):
    assert interrupted["terminated"] == interrupted["stopped"] == 75
    assert "asked to stop; state of iteration" in interrupted["terminated_stderr"]
    assert json.loads(interrupted["stopped_stdout"])["finished"] is False
    assert interrupted["reached"] == sorted(interrupted["reached"])


def test_finished_work_is_not_repeated(interrupted):
    assert f"from iteration {interrupted['reached'][-1]} to 8" in interrupted["last_stderr"]


def test_nothing_unfinished_stays_behind(interrupted):
    assert list(interrupted["work"].iterdir()) == []
    assert sorted(p.name for p in interrupted["checkpoint"].iterdir()) == ["adapter", "metrics.jsonl", "state"]


def test_metrics_have_a_row_for_each_iteration_and_count_every_optimizer_step(straight):
    rows = metrics_without_times(straight)
    assert [row["iteration"] for row in rows] == list(range(1, 9))
    # 8 images in batches of 4, twice: four optimizer steps an iteration.
    assert [row["optimizer_steps"] for row in rows] == list(range(4, 33, 4))
    assert len({row["reward_mean"] for row in rows}) == 8


@pytest.fixture(scope="module")
def segments(experiment, config, train_in_process) -> tuple[Path, Path]:
    """The run cut into two segments, in this process."""
    first, second = (experiment.folder / "segments" / str(n) for n in (2, 8))
    assert train_segment(experiment.segment("segments", config, 2))
    assert train_segment(experiment.segment("segments", config, 8, resume=first))
    return first, second


def test_two_segments_are_one(segments, straight):
    first, second = segments
    assert same_bytes(second, straight) == []
    assert metrics_without_times(first) + metrics_without_times(second) == metrics_without_times(straight)


def test_damaged_rolling_states_are_named_and_the_segment_starts_over(experiment, config, interrupted, straight):
    work = experiment.folder / "damaged" / "work" / "8"
    shutil.copytree(experiment.folder / "kept", work / "states")
    for path in (work / "states").glob("[0-9]*/weights.safetensors"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
    stderr = run(experiment.train(config, 8, "damaged"))
    assert f"{path}: damaged or missing" in stderr and "from iteration 0 to 8" in stderr
    assert same_bytes(experiment.folder / "damaged" / "8", straight) == []
    assert metrics_without_times(experiment.folder / "damaged" / "8") == metrics_without_times(straight)


def test_any_number_of_kills_at_any_moment_ends_in_the_same_bits(experiment, config, straight):
    """SIGKILL or SIGTERM after a random time, again and again: also while models load, states are saved, a checkpoint
    is written. The seed of the test's draws is in its output."""
    seed = random.randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    arguments = experiment.train(config, 8, "random")
    codes, seconds = [], 6.0
    for _ in range(5):
        process = start(arguments)
        try:
            process.communicate(timeout=draw.uniform(0.3, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(draw.choice([signal.SIGKILL, signal.SIGTERM]))
            process.communicate()
        codes.append(process.returncode)
        seconds *= 1.25  # however slow the machine is, later attempts reach iterations
    run(arguments)
    # A SIGTERM before the handler is there ends the process as any other.
    assert set(codes) <= {0, 75, -signal.SIGKILL, -signal.SIGTERM}, codes
    assert same_bytes(experiment.folder / "random" / "8", straight) == [], codes
    assert metrics_without_times(experiment.folder / "random" / "8") == metrics_without_times(straight)


def assert_close(folder: Path, expected: Path) -> None:
    """Two checkpoints agree to float tolerance, and saw the same prompts, images and rewards in the same order.

    Weights to 2 % of one step of learning rate 5e-3: Adam divides by the gradient's size, so where a gradient is
    nothing but rounding, rounding decides the step.
    """
    for name in ("adapter/adapter_model", "state/weights", "state/exp_avg", "state/kl_ema"):
        a, b = (load_file(path / f"{name}.safetensors") for path in (folder, expected))
        for key, value in b.items():
            torch.testing.assert_close(a[key], value, rtol=1e-3, atol=1e-4, msg=lambda text, key=key: f"{key}: {text}")
    for row, other in zip(metrics_without_times(folder), metrics_without_times(expected), strict=True):
        for key in (
            "reward_mean",
            "reward_std",
            "advantage_abs_mean",
            "diversity",
            "policy_loss",
            "kl_ema",
            "ratio_mean",
        ):
            assert row[key] == pytest.approx(other[key], rel=1e-3, abs=1e-6), key
        assert row["optimizer_steps"] == other["optimizer_steps"]


def test_two_processes_equal_one_and_states_move_between_them(experiment, train_in_process):
    """Four iterations as one process, as two, as one then two, and as two then one."""
    config = experiment.config("moving", iterations=4, checkpoints=[2, 4])
    first = {name: experiment.folder / name / "2" for name in ("one", "two")}
    assert train_segment(experiment.segment("one", config, 2))
    run(experiment.train(config, 2, "two"), ranks(2))
    assert_close(first["two"], first["one"])
    assert train_segment(experiment.segment("one", config, 4, resume=first["one"]))
    run(experiment.train(config, 4, "one_then_two", "--resume", first["one"]), ranks(2))
    assert train_segment(experiment.segment("two_then_one", config, 4, resume=first["two"]))
    for name in ("one_then_two", "two_then_one"):
        assert_close(experiment.folder / name / "4", experiment.folder / "one" / "4")
