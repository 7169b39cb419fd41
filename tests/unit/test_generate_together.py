"""Images of several image sets in one process: the bytes of one process each, after a kill as well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_experiment import Experiment
from typer.testing import CliRunner

import promptecho.image_maker as image_maker
from promptecho.benchmarks.geneval.shapes import geneval_prompts
from promptecho.cli import app
from promptecho.config import load_experiment
from promptecho.config.training_parts import LoraSection
from promptecho.errors import ConfigError
from promptecho.files import write_jsonl
from promptecho.generate import GenerateJob, generate_shard, make_images
from promptecho.t2i.lora import add_lora, save_adapter, trained_parameters
from promptecho.t2i.registry import load_family

torch.set_num_threads(1)
SET = {"benchmark": "geneval", "images_per_prompt": 2, "num_inference_steps": 2, "batch_size": 2}
SHARDS = [("a", 0, 1), ("b", 0, 2), ("b", 1, 2)]  # image set, shard, shards


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    experiment = Experiment(tmp_path_factory.mktemp("together"))
    write_jsonl(experiment.folder / "metadata.jsonl", geneval_prompts(1, 0)[:2])
    prompts = {"prompts": str(experiment.folder / "metadata.jsonl")}
    sets = {"a": {**SET, **prompts, "guidance_scale": 1.0}, "b": {**SET, **prompts, "seed": 3, "guidance_scale": 0.0}}
    experiment.config(sections={"image_sets": sets})
    family = load_family("zimage", str(experiment.t2i))
    model = add_lora(family.transformer, LoraSection(rank=4, alpha=8), 1, family.lora_targets)
    generator = torch.Generator().manual_seed(0)
    weights = {name: 0.2 * torch.randn(p.shape, generator=generator) for name, p in trained_parameters(model).items()}
    save_adapter(model, weights, experiment.folder / "adapter", family.descriptor)
    return experiment


def jobs(experiment: Experiment, folder: str) -> list[GenerateJob]:
    config, root = load_experiment(experiment.folder / "exp.yaml"), experiment.folder / folder
    return [
        GenerateJob(
            config=config, run="r", step=2, image_set=name, prompts=experiment.folder / "metadata.jsonl", shard=shard,
            num_shards=count, out=root / name, work=root / f"work/{name}/{shard}",
            adapter=experiment.folder / "adapter",
        )
        for name, shard, count in SHARDS
    ]  # fmt: skip


def told(jobs: list[GenerateJob], experiment: Experiment) -> list[str]:
    """The command for these jobs."""
    words = ["generate", "--config", str(experiment.folder / "exp.yaml"), "--run", "r", "--step", "2", "--threads", "1"]
    words += ["--adapter", str(experiment.folder / "adapter")]
    for job in jobs:
        words += ["--image-set", job.image_set, "--shard", str(job.shard), "--num-shards", str(job.num_shards)]
        words += ["--prompts", str(job.prompts), "--out", str(job.out), "--work", str(job.work)]
    return words


def files(folder: Path, kind: str = "[!.]*") -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob(kind))
        if path.is_file() and "work" not in path.relative_to(folder).parts
    }


@pytest.fixture(scope="module")
def alone(experiment) -> Path:
    """Each shard made by itself."""
    for job in jobs(experiment, "alone"):
        generate_shard(job)
    return experiment.folder / "alone"


def test_together_they_have_the_bytes_of_each_alone(experiment, alone, monkeypatch):
    loaded, load = [], image_maker.load_configured
    monkeypatch.setattr(image_maker, "load_configured", lambda *a, **b: loaded.append(a) or load(*a, **b))
    done = experiment.folder / "done"
    result = CliRunner().invoke(app, [*told(jobs(experiment, "together"), experiment), "--images-only", str(done)])
    assert result.exit_code == 0, result.output
    assert len(loaded) == 1 and done.read_text() == "a 0\nb 0\nb 1\n"
    together = experiment.folder / "together"
    assert files(together) == {name: made for name, made in files(alone).items() if "shards" not in name}
    result = CliRunner().invoke(app, told(jobs(experiment, "together"), experiment))
    assert result.exit_code == 0, result.output
    assert len(loaded) == 1, "what is there needs no model"
    assert files(together) == files(alone)


def test_a_complete_shard_is_listed_without_torch(experiment, alone):
    shards = [path.read_bytes() for path in sorted(alone.glob("*/shards/*.jsonl"))]
    for path in alone.glob("*/shards/*.jsonl"):
        path.unlink()
    code = "import sys; from promptecho.cli import app; app(sys.argv[1:], standalone_mode=False)"
    code += "; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, *told(jobs(experiment, "alone"), experiment)], check=True)
    assert [path.read_bytes() for path in sorted(alone.glob("*/shards/*.jsonl"))] == shards


def test_killed_between_it_keeps_what_is_done(experiment, alone, monkeypatch):
    made, sample = [], image_maker._sample_batch

    def killed(job, *rest):
        if (job.image_set, job.shard) == ("b", 1):
            os._exit(9)
        return sample(job, *rest)

    child = os.fork()
    if not child:
        monkeypatch.setattr(image_maker, "_sample_batch", killed)
        make_images(jobs(experiment, "killed"))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    there = files(experiment.folder / "killed", "*.png")
    assert there and len(there) < len(files(alone, "*.png"))
    monkeypatch.setattr(image_maker, "_sample_batch", lambda job, *rest: made.append(job.shard) or sample(job, *rest))
    make_images(jobs(experiment, "killed"))
    assert set(made) == {1}, "the finished shards are not made again"
    assert files(experiment.folder / "killed", "*.png") == files(alone, "*.png")


def test_an_option_that_is_missing_for_one_shard_is_named(experiment):
    words = told(jobs(experiment, "missing"), experiment)
    place = words.index("--shard")
    result = CliRunner().invoke(app, words[:place] + words[place + 2 :])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == "--shard: given 2 times, but --image-set 3 times"
