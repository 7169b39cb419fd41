"""The paper's experiments as they ship hold the numbers that it states; test_profiles.py plans their jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptecho.benchmarks.textocr.labels import reward_query
from promptecho.config import load_experiment, run_rewards, run_vlm

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("name", ["zimage", "qwenimage"])
def test_the_stated_numbers(name):
    """arXiv 2604.12652, section 4.1."""
    config = load_experiment(ROOT / f"config/experiments/{name}.yaml")
    t2i = config.models.t2i
    assert (t2i.height, t2i.width, config.models.vlm.path) == (1024, 1024, "Qwen/Qwen3-VL-32B-Instruct")
    for run, training in config.runs.items():
        assert (training.prompts_per_iteration, training.images_per_prompt, training.batch_size) == (32, 8, 128)
        assert (training.passes, training.lora.rank, training.lora.alpha, training.learning_rate) == (4, 64, 128, 5e-5)
        assert (training.sampling.num_inference_steps, training.sampling.guidance_scale) == (30, 3.5)
        expected = ("inferscore",) if run == "inferscore" else ("echo",)
        assert tuple(reward.name for reward in run_rewards(config, run)) == expected
        size = "8B" if run == "promptecho-8b" else "32B"
        assert run_vlm(config, run).path == f"Qwen/Qwen3-VL-{size}-Instruct"
    assert {entry.guidance_scale for entry in config.image_sets.values()} == {4.0}
    assert {entry.num_inference_steps for entry in config.image_sets.values()} == {50}


def test_text_rendering():
    """Section 4.4 and appendix B: the label as JSON, asked for by the reading query, and a judge that is none of its
    models; trained otherwise as qwenimage.yaml."""
    config = load_experiment(ROOT / "config/experiments/poster.yaml")
    plain = load_experiment(ROOT / "config/experiments/qwenimage.yaml")
    assert config.training == plain.training and config.models == plain.models and [*config.runs] == [*plain.runs]
    (reward,) = run_rewards(config, "promptecho")
    assert (reward.name, reward.query.strip()) == ("echo", reward_query().strip()) and reward.label is not None
    assert [entry.benchmark for entry in config.evaluate] == config.tables == ["posters"]
    benchmark = config.benchmarks["posters"]
    assert (benchmark.scorer, benchmark.backend) == ("textocr", "judge")
    assert config.judges.models[benchmark.judge].model not in (
        config.models.vlm.path,
        config.judges.models["labels"].model,
    )
