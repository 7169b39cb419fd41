"""A run that is asked to stop leaves in any phase, on all ranks together, and ends as one that was not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_t2i
from forked import start
from tiny_experiment import Experiment, metrics_without_times, same_bytes

# Long enough that a run which heard of a request only at the end of its phase would make all of the slow passes.
TRAINING = {
    "iterations": 2, "checkpoints": [2], "sampling": {"num_inference_steps": 12, "batch_size": 2},
    "heldout": {"prompts": 3, "every": 2}, "timesteps": {"per_sample": 2},
}  # fmt: skip
REWARDS = {"rewards": [{"name": "echo", "batch_size": 1}] * 4}
SERVING = {"reward_placement": {"mode": "dedicated"}}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    experiment = Experiment(tmp_path_factory.mktemp("stop"), t2i=tiny_t2i.shallow_folder())
    rows = [{"data_id": f"h{i}", "caption": text} for i, text in enumerate(["A red star.", "Two rings.", "A cross."])]
    (experiment.folder / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return experiment


def case(experiment, config: Path, name: str, slow: str | None, iteration: int, request: str | None) -> dict:
    arguments = experiment.train(config, 2, name, "--heldout", experiment.folder / "heldout.jsonl")
    return {"arguments": arguments, "world": 2, "slow": slow, "iteration": iteration, "request": request}


@pytest.fixture(scope="module")
def ended(experiment) -> dict[str, dict]:
    """How all runs ended, by name."""
    captions = {"captions": {"prompts": "unused.txt", "heldout": 3}}
    config = experiment.config("plain", sections={**captions, **REWARDS}, **TRAINING)
    three = experiment.config("three", sections={**captions, **REWARDS}, zero_stage=3, **TRAINING)
    serving = experiment.config("serving", sections={**captions, **REWARDS}, **SERVING, **TRAINING)
    cases = {
        "undisturbed": case(experiment, config, "undisturbed", None, 0, None),
        # One run, asked again and again.
        "in heldout": case(experiment, config, "again", "heldout", 0, "file"),
        "in sample": case(experiment, config, "again", "sample", 2, "file"),
        "in sample, one frozen": case(experiment, config, "again", "sample", 2, "frozen"),
        "in reward": case(experiment, config, "again", "reward", 2, "term1"),
        "in precompute": case(experiment, config, "again", "precompute", 2, "term"),
        "at last": case(experiment, config, "again", None, 0, None),
        "in step": case(experiment, three, "three", "sample", 1, "file"),
        "while served": case(experiment, serving, "serving", "serve", 0, "file"),
        "while loading, file": case(experiment, config, "loading", "load", 0, "file"),
        "while loading, signal": case(experiment, config, "loading", "load", 0, "term1"),
        "while the server loads": case(experiment, serving, "loading", "load", 0, "file"),
    }
    path = experiment.folder / "cases.json"
    path.write_text(json.dumps(list(cases.values())))
    stdout = of_script("slow_ranks.py", str(path))
    return dict(zip(cases, json.loads(stdout.splitlines()[-1]), strict=True))


def of_script(name: str, *arguments: str) -> str:
    process = start([*arguments], script=Path(__file__).with_name(name))
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr[-3000:]
    return stdout


# Passes of a rank in the whole phase: images x steps (no guidance at scale 1 for this family means two passes in one),
# rewards, or timesteps x images in micro-batches, for the policy and the base model.
WHOLE = {
    "in heldout": 12, "in sample": 24, "in sample, one frozen": 24, "in reward": 16, "in precompute": 8, "in step": 24,
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_a_request_is_heard_inside_a_phase(ended, name):
    found = ended[name]
    assert found["codes"] == [75, 75], found["stderr"][-3000:]
    iteration = {"in heldout": 0, "in step": 0}.get(name, 1)
    assert found["stderr"].count(f"asked to stop; state of iteration {iteration} saved") == 1, found["stderr"][-3000:]
    assert 0 < max(found["passes"]) < WHOLE[name], found["passes"]
    assert "Traceback" not in found["stderr"]


def test_asked_again_and_again_the_run_ends_with_the_bits_of_one_that_was_not(experiment, ended):
    assert ended["undisturbed"]["codes"] == ended["at last"]["codes"] == [0, 0], ended["at last"]["stderr"][-3000:]
    again, straight = experiment.folder / "again" / "2", experiment.folder / "undisturbed" / "2"
    assert same_bytes(again, straight) == []
    assert metrics_without_times(again) == metrics_without_times(straight)


def test_trainers_do_not_wait_for_the_answers_of_a_server(ended):
    found = ended["while served"]
    assert found["codes"] == [75, 75], found["stderr"][-3000:]
    assert found["passes"][1] <= 2 and "Traceback" not in found["stderr"]


@pytest.mark.parametrize("name", ["while loading, file", "while loading, signal", "while the server loads"])
def test_asked_while_models_load_all_ranks_end_at_once(experiment, ended, name):
    found = ended[name]
    assert found["codes"] == [75, 75], found["stderr"][-3000:]
    assert found["stderr"].count("asked to stop while loading: nothing is lost") == 1
    assert not (experiment.folder / "loading" / "work" / "2" / "states").exists()


def test_ranks_when_one_leaves_or_fails_before_the_others():
    """The store goes with the first; a pass is made for others; what two say alike is said once, and the third, which
    the launcher ends for it, does not say that it was asked to stop."""
    told = [line for line in of_script("stop_ranks.py").splitlines() if not line.startswith("[")]  # DeepSpeed's log
    assert told == ["told 75", "1 1 1 captions.h5: prompt 7 is too long", "1 5"]
