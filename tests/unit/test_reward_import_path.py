"""A reward by import path: a package beside the experiment file, trained with on two ranks."""

from __future__ import annotations

import pytest
import tiny_t2i
from forked import ranks, run
from tiny_experiment import Experiment, metrics_without_times

BRIGHTNESS = """
from promptecho.rewards import Reward, Section


class Options(Section):
    darkest: float = 0.0


class Brightness:
    def __init__(self, context):
        self.darkest = context.options.darkest

    def __call__(self, images, prompts, prompt_ids):
        import numpy as np

        return [float(np.asarray(image.convert("L"), dtype=float).mean()) - self.darkest for image in images]


REWARD = Reward(
    name="brightness", summary="mean grey", build="scores.bright:Brightness", options=Options, needs_vlm=False
)
"""


def test_two_ranks_train_by_a_module_of_a_package_as_one_process_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = Experiment(tmp_path / "mine", t2i=tiny_t2i.shallow_folder())
    (tmp_path / "mine" / "scores").mkdir()
    (tmp_path / "mine" / "scores" / "__init__.py").touch()
    (tmp_path / "mine" / "scores" / "bright.py").write_text(BRIGHTNESS)
    rewards = [{"name": "brightness", "brightness": {"darkest": 3.0}}]
    config = experiment.config(
        sections={"plugins": ["scores.bright:REWARD"], "rewards": rewards},
        iterations=1, checkpoints=[1], passes=1, batch_size=8, timesteps={"per_sample": 1},
        sampling={"num_inference_steps": 1},
    )  # fmt: skip
    run(experiment.train(config, 1, "two"), ranks(2))
    run(experiment.train(config, 1, "one"))
    two, one = (metrics_without_times(experiment.folder / name / "1")[-1] for name in ("two", "one"))
    assert two["reward_mean"] == pytest.approx(one["reward_mean"], rel=1e-9) and 0 < one["reward_mean"] < 252
