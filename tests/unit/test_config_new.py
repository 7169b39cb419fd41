"""`promptecho config new`: a valid experiment of real size from a few words, and no file is overwritten."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.config import load_experiment
from promptecho.config.job_sizes import cluster_resources, takes_gpu
from promptecho.config.judge_kinds import judge_kind
from promptecho.config.new import SMALL, TEMPLATE
from promptecho.errors import ConfigError
from promptecho.plan.gpus import find_gpu
from promptecho.plan.plan import Planner
from promptecho.plan.result import Cluster
from promptecho.plan.settings import Settings, usual_prompt_tokens

WORDS = ["config", "new", "mine", "--t2i", "owner/t2i", "--vlm", "owner/vlm", "--judge", "owner/judge"]


def call(folder, *more: str):
    return CliRunner().invoke(app, [*WORDS, "--folder", str(folder), *more])


@pytest.mark.parametrize(
    ("more", "captions"),
    [
        (["--images", "my photos/#1: best"], {"images": "my photos/#1: best", "prompts": None}),
        (["--images", "2024"], {"images": "2024"}),
        (["--prompts", "ä'\"prompts.txt", "--heldout", "8"], {"prompts": "ä'\"prompts.txt", "heldout": 8}),
        (["--images", "NAME", "--family", "qwenimage"], {"images": "NAME"}),
    ],
)
def test_what_is_given_is_what_the_file_says(tmp_path, more, captions):
    result = call(tmp_path, *more)
    assert result.exit_code == 0, result.output
    config = load_experiment(tmp_path / "mine.yaml")
    assert (config.models.t2i.path, config.models.vlm.path) == ("owner/t2i", "owner/vlm")
    assert config.judges.models["judge"].model == "owner/judge"
    for key, value in captions.items():
        assert getattr(config.captions, key) == value
    assert config.models.t2i.family == ("qwenimage" if "qwenimage" in more else "zimage")
    watched = config.training.heldout.prompts
    assert config.image_sets["heldout"].heldout + watched == config.captions.heldout


def test_sizes_are_those_of_real_models(tmp_path):
    """Not the embedded experiment's 64 pixels, its learning rate, guidance 0, 48 tokens or oracle."""
    call(tmp_path, "--images", "x")
    config = load_experiment(tmp_path / "mine.yaml")
    assert (config.models.t2i.height, config.models.t2i.dtype) == (1024, "bfloat16")
    assert config.training.learning_rate == 5e-5
    assert config.training.sampling.guidance_scale == 3.5
    assert config.captions.max_new_tokens > 500
    assert "oracle" not in {benchmark.backend for benchmark in config.benchmarks.values()}


def test_refusals(tmp_path):
    call(tmp_path, "--images", "x")
    before = (tmp_path / "mine.yaml").read_text()
    assert "exists already" in str(call(tmp_path, "--images", "y").exception)
    assert (tmp_path / "mine.yaml").read_text() == before
    assert "give either --images" in str(call(tmp_path / "b").exception)
    error = call(tmp_path / "b", "--images", "x", "--family", "qwen-image").exception
    assert isinstance(error, ConfigError)
    assert "did you mean qwenimage?" in str(error)
    assert not (tmp_path / "b/mine.yaml").exists(), "what is not valid is not left behind"
    bad = CliRunner().invoke(app, ["config", "new", "My Own", *WORDS[3:], "--images", "x"])
    assert "a name has lower-case letters" in str(bad.exception)


@pytest.mark.parametrize(("size", "template"), [([], TEMPLATE), (["--small"], SMALL)])
def test_nothing_in_capitals_is_left(tmp_path, size, template):
    call(tmp_path, "--images", "x", *size)
    text = (tmp_path / "mine.yaml").read_text()
    assert not re.search(r"\b(FAMILY|T2I|VLM|SOURCE|HELDOUT|WATCHED|JUDGED|JUDGE|NAME)\b", text)
    assert "FAMILY" in template.read_text()


def test_the_small_one_needs_one_gpu_of_48_gb_and_no_key(tmp_path):
    """With the models that it names itself: of the others no size is known here."""
    made = CliRunner().invoke(app, ["config", "new", "first", "--small", "--images", "x", "--folder", str(tmp_path)])
    assert made.exit_code == 0, made.output
    config = load_experiment(tmp_path / "first.yaml")
    assert all(judge_kind(judge.kind).in_process for judge in config.judges.models.values())
    assert takes_gpu(config, "judge", "heldout") and config.judges.models["judge"].model != config.models.vlm.path
    train = cluster_resources(config, "train", on_gpu=True)
    assert (train.nodes, train.gpus_per_node) == (1, 1)
    gpu = find_gpu("l40s")
    settings = Settings(0.3, 0.7, 50.0, 5.0, usual_prompt_tokens(config), 100, config.captions.query, True)
    planner = Planner(settings)
    run = planner.run(config, Cluster(gpu, 1, 1), "promptecho-s1")
    assert planner.problem(run.memory, gpu) is None
    assert run.hours < 4
