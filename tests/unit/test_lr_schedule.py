"""The learning rate as a function of the optimizer steps done, and what its schedule is bound to."""

from __future__ import annotations

import pytest
import torch
from transformers import get_scheduler

from promptecho.config import parse_experiment
from promptecho.config.changes import changes
from promptecho.config.reruns import Conflict, refusal
from promptecho.config.slices import slice_digest, slice_value
from promptecho.config.training import TrainingConfig
from promptecho.config.training_checks import training_problems

STEPS = {"prompts_per_iteration": 2, "images_per_prompt": 4, "batch_size": 4, "passes": 3}  # six an iteration
RAW = {
    "experiment": "e",
    "models": {"t2i": {"family": "zimage", "path": "org/t2i"}, "vlm": {"path": "org/vlm"}},
    "captions": {"prompts": "prompts.txt", "heldout": 0},
    "training": {**STEPS, "iterations": 5},
    "runs": {"a": {}},
}


def training(**keys) -> TrainingConfig:
    return TrainingConfig(**{**STEPS, "iterations": 5, "learning_rate": 2e-3, **keys})


@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize(
    "ours, theirs",
    [
        ({"lr_schedule": "linear"}, ("linear", {})),
        ({"lr_schedule": "cosine", "lr_floor": 0.2}, ("cosine_with_min_lr", {"min_lr_rate": 0.2})),
    ],
)
def test_behind_the_warmup_it_is_that_of_transformers(ours, theirs, warmup):
    name, more = theirs
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=2e-3)
    schedule = get_scheduler(name, optimizer, warmup, 30, scheduler_specific_kwargs=more)
    found = training(warmup_steps=warmup, **ours)
    for step in range(31):
        (rate,) = schedule.get_last_lr()
        # Theirs begins the warm-up at 0, so that the first step does nothing.
        expected = 2e-3 * (step + 1) / warmup if step < warmup else rate
        assert found.learning_rate_at(step) == pytest.approx(expected, abs=1e-15)
        optimizer.step()
        schedule.step()


def test_it_stays_at_the_floor():
    late = training(lr_schedule="cosine", lr_decay_iterations=3, lr_floor=0.1)
    assert [late.learning_rate_at(step) for step in (18, 24, 30)] == pytest.approx([2e-4] * 3)
    constant = training(lr_floor=0.1, lr_decay_iterations=3, warmup_steps=3)
    assert [constant.learning_rate_at(step) for step in (0, 2, 30)] == [2e-3 / 3, 2e-3, 2e-3]


def test_what_leaves_nothing_to_learn_is_refused():
    assert training_problems(training(lr_schedule="linear", lr_decay_iterations=9)) == []
    assert training_problems(training(lr_schedule="linear", lr_decay_iterations=3, lr_floor=0.1)) == []
    (problem,) = training_problems(training(lr_schedule="linear", lr_decay_iterations=3))
    assert problem[0] == "lr_floor" and "nothing is learned after iteration 3" in problem[1]
    (problem,) = training_problems(training(lr_schedule="linear", warmup_steps=30))
    assert problem[0] == "warmup_steps" and "5 iterations of 6 steps" in problem[1]
    assert training_problems(training(warmup_steps=30)) == []


def experiment(**keys):
    return parse_experiment({**RAW, "training": {**RAW["training"], **keys}})


def test_a_falling_schedule_binds_a_run_to_its_iterations():
    plain = slice_value(experiment(), "train", "a")
    assert not [key for key in plain["training"] if key.startswith("lr_")]
    assert slice_value(experiment(lr_floor=0.3, lr_decay_iterations=2, iterations=9), "train", "a") == plain
    short, long = experiment(lr_schedule="cosine"), experiment(lr_schedule="cosine", iterations=9)
    found = changes("train", slice_value(short, "train", "a"), slice_value(long, "train", "a"))
    assert list(map(str, found)) == ["training.lr_decay_iterations (was 5, now 9)"]
    named = {"lr_schedule": "cosine", "lr_floor": 0.1}
    goes_on = experiment(**named, iterations=9, lr_decay_iterations=5)
    assert slice_digest(goes_on, "train", "a") == slice_digest(experiment(**named), "train", "a")
    keys = [change.path for change in found]
    way = "set its lr_decay_iterations to the old value"
    assert way in refusal([Conflict("e", "w", ["a"], ["y"], keys=keys)])
    keys = [change.path for change in changes("train", plain, slice_value(short, "train", "a"))]
    assert "training.lr_decay_iterations" in keys
    assert way not in refusal([Conflict("e", "w", ["a"], ["y"], keys=keys)]), "there was no schedule"
