"""The images that the update trains on: which they are, that all ranks choose alike, and what it changes."""

from __future__ import annotations

from itertools import combinations
from statistics import pvariance

import pytest
import torch
from forked import ranks, run
from hypothesis import given
from hypothesis import strategies as st
from test_train_resume import assert_close
from tiny_experiment import Experiment, metrics_without_times, same_bytes

from promptecho.config.training import TrainingConfig
from promptecho.config.training_checks import training_problems
from promptecho.train.data import Rollout, TrainingPrompt, batches_of
from promptecho.train.loop import train_segment
from promptecho.train.selection import chosen_images, most_varied, narrowed

ONE = {"iterations": 1, "checkpoints": [1]}
SOME = {
    "update_images_per_prompt": 2, "prompts_per_iteration": 3, "batch_size": 6, "learning_rate": 1e-3,
    "timesteps": {"shared_by": "prompt"},
}  # fmt: skip


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=8), st.data())
def test_no_other_choice_has_a_larger_variance(values, data):
    n = data.draw(st.integers(2, len(values)))
    found = most_varied(values, n)
    assert found == sorted(set(found)) and len(found) == n
    best = max(pvariance(chosen) for chosen in combinations(values, n))
    assert pvariance([values[i] for i in found]) == pytest.approx(best)


def test_equal_values_are_taken_in_a_fixed_order():
    assert most_varied([0.5] * 5, 2) == [3, 4]  # nothing to tell them apart
    assert most_varied([1.0, 0.0, 1.0, 0.0, 1.0], 2) == [1, 4]
    assert most_varied([3.0, 2.0, 1.0, 0.0], 3) == [0, 1, 3]  # as good as 0, 2, 3, with fewer low ones


def test_images_are_chosen_within_their_prompts():
    advantages = torch.tensor([[0.0, -1.0, 0.2, 0.8], [0.0, 0.0, 0.5, -0.5]], dtype=torch.float64)  # 0: none, perhaps
    assert chosen_images(advantages, 2) == [1, 3, 6, 7]
    assert chosen_images(advantages, None) is None


def test_the_chosen_images_keep_their_numbers_and_their_advantages_sum_to_zero(monkeypatch):
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    advantages = torch.tensor([[0.0, -1.0, 0.2, 0.8], [0.1, 0.0, 0.5, -0.6]], dtype=torch.float64)
    held = [5, 4, 7, 6, 0, 1, 2, 3]  # as a process has sampled them
    rollout = Rollout(
        [TrainingPrompt("a", ""), TrainingPrompt("b", "")], [], held, torch.tensor(held).float().view(8, 1),
        torch.zeros(1, 2, 4), advantages.flatten(), chosen=chosen_images(advantages, 2),
    )  # fmt: skip
    found = narrowed(rollout)
    assert found.latents.flatten().tolist() == [1, 3, 6, 7] and found.share == [0, 1, 2, 3] and found.total == 4
    assert [found.number_of(image) for image in found.share] == [1, 3, 2, 3]
    assert [found.prompt_of(image) for image in found.share] == [0, 0, 1, 1]
    assert found.advantages.tolist() == pytest.approx([-0.9, 0.9, 0.55, -0.55])


@given(st.integers(1, 4), st.integers(2, 4), st.integers(1, 3))
def test_optimizer_steps_take_whole_prompts_of_the_chosen(prompts, kept, steps):
    training = TrainingConfig(
        prompts_per_iteration=prompts * steps, images_per_prompt=8, update_images_per_prompt=kept,
        batch_size=prompts * kept, timesteps={"shared_by": "prompt"},
    )  # fmt: skip
    assert training_problems(training) == []
    found = batches_of(training.update_images, training, 0, 0)
    assert sorted(sum(found, [])) == list(range(prompts * steps * kept))
    assert all(len(batch) == kept * len({image // kept for image in batch}) for batch in found)


@pytest.mark.parametrize(
    ("training", "key", "message"),
    [
        ({"update_images_per_prompt": 1}, "update_images_per_prompt", "1 must lie between 2 and images_per_prompt 8"),
        ({"update_images_per_prompt": 9}, "update_images_per_prompt", "null takes all"),
        (
            {"update_images_per_prompt": 3}, "batch_size",
            "128 does not divide the 96 update images of an iteration "
            "(prompts_per_iteration 32 x update_images_per_prompt 3)",
        ),
        (
            {"update_images_per_prompt": 3, "batch_size": 32, "timesteps": {"shared_by": "prompt"}}, "batch_size",
            "32 is not a multiple of update_images_per_prompt 3",
        ),
    ],
)  # fmt: skip
def test_impossible_numbers_are_named(training, key, message):
    found = dict(training_problems(TrainingConfig(**training)))
    assert message in found[key]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    return Experiment(tmp_path_factory.mktemp("selection"))


def test_two_processes_choose_and_train_as_one(experiment, train_in_process):
    """Of twelve images six are chosen: not those that a process has sampled, and of some prompts from both."""
    config = experiment.config("some", **ONE, **SOME)
    one = experiment.segment("one", config, 1)
    assert train_segment(one)
    run(experiment.train(config, 1, "two"), ranks(2))
    other = experiment.folder / "two" / "1"
    assert_close(other, one.out)
    (row,), (two,) = metrics_without_times(one.out), metrics_without_times(other)
    assert two["update_advantage_abs_mean"] == pytest.approx(row["update_advantage_abs_mean"], rel=1e-6)
    assert row["update_advantage_abs_mean"] > row["advantage_abs_mean"] > 0  # of all
    assert row["optimizer_steps"] == 2  # two passes over six images


def test_all_images_are_all_images(experiment, train_in_process):
    """The number of all images chooses nothing: the same bytes as without the key. Fewer give others."""
    all_of_them = experiment.segment("null", experiment.config("null", **ONE), 1)
    named = experiment.segment("named", experiment.config("named", **ONE, update_images_per_prompt=4), 1)
    fewer = experiment.segment("fewer", experiment.config("fewer", **ONE, update_images_per_prompt=2), 1)
    assert all(train_segment(job) for job in (all_of_them, named, fewer))
    assert same_bytes(named.out, all_of_them.out) == []
    assert "adapter/adapter_model.safetensors" in same_bytes(fewer.out, all_of_them.out)
    assert "update_advantage_abs_mean" not in metrics_without_times(all_of_them.out)[0]
