"""Jobs and the GPUs of a workstation. The machine's GPUs are what its `nvidia-smi -L` says; here a script says it."""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path

import pytest

from promptecho.cluster.leases import default_folder

ROOT = Path(__file__).resolve().parent.parent.parent
CHECKPOINT = "results/tiny/runs/echo-s1/2/adapter"


class Gpus:
    """GPUs with names that no other test and no machine has."""

    def __init__(self, folder: Path, monkeypatch, count: int):
        self.uuids = [f"GPU-{uuid.uuid4()}" for _ in range(count)]
        lines = "\n".join(f"echo 'GPU {k}: NVIDIA Test (UUID: {name})'" for k, name in enumerate(self.uuids))
        (folder / "bin").mkdir()
        (folder / "bin/nvidia-smi").write_text(f"#!/bin/sh\n{lines}\n")
        (folder / "bin/nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)


@pytest.fixture
def gpus(tmp_path_factory, monkeypatch):
    made = []

    def make(count: int) -> Gpus:
        made.append(Gpus(tmp_path_factory.mktemp("gpus"), monkeypatch, count))
        return made[-1]

    yield make
    for name in [name for one in made for name in one.uuids]:
        (default_folder() / f"gpu.{name}").unlink(missing_ok=True)


@pytest.fixture
def real(workflow):
    """The experiment with a text-to-image model that is not embedded."""
    workflow.edit("config/experiments/tiny.yaml", "t2i: {path: shapes,", "t2i: {path: /models/real,")
    return workflow


def launcher(workflow, *arguments: str) -> str:
    """What stands before the command of training in a dry run."""
    shown = workflow.snakemake("--dry-run", "--printshellcmds", CHECKPOINT, *arguments).stdout
    found = re.findall(r"^Shell command: (.*?)python -m promptecho train ", shown, re.MULTILINE)
    assert found, shown
    return found[0].replace(f"{workflow.root}/", "")


def test_without_gpus_nothing_is_added(real, gpus):
    gpus(0)
    assert launcher(real) == ""
    shown = real.snakemake("--dry-run", "--printshellcmds", CHECKPOINT).stdout
    assert "gpu" not in shown


def test_training_gets_a_gpu_per_process(real, gpus, monkeypatch):
    gpus(3)
    assert launcher(real) == "python -m promptecho gpus run --count 1 -- "
    for options in (["train:gpu=3"], ["train:tasks_per_node=3"]):
        found = launcher(real, "--set-resources", *options)
        assert found == "python -m promptecho gpus run --count 3 -- bash workflow/scripts/ranks.sh 1 3 2 "
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert launcher(real) == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set-resources", "train:gpu=4"], "4 GPUs are asked for"),
        (["--set-resources", "train:tasks_per_node=4"], "4 GPUs are asked for"),
        (["--resources", "gpu=1", "--set-resources", "train:gpu=2"], "2 GPUs are asked for"),
    ],
)
def test_more_than_there_are_is_refused(real, gpus, options, said):
    gpus(3)
    shown = real.snakemake("--dry-run", CHECKPOINT, *options).stdout
    assert f"train: {said}" in shown and "ask for fewer" in shown, shown


def test_jobs_of_the_embedded_models_see_no_gpu(workflow, gpus):
    gpus(2)
    shown = workflow.snakemake("--dry-run", "--printshellcmds").stdout
    for command in ("caption shard", "train", "generate"):
        assert f"python -m promptecho gpus run --count 0 -- python -m promptecho {command}" in shown
    assert "python -m promptecho gpus run --count 0 -- bash" in launcher(
        workflow, "--set-resources", "train:tasks_per_node=2"
    )


def test_another_number_of_gpus_reruns_nothing(finished, gpus):
    gpus(2)
    assert finished.planned("--set-resources", "train:gpu=2") == {}


def test_no_more_jobs_run_than_there_are_gpus_and_each_says_which_it_has(workflow, gpus):
    """Real captioning, on the CPU, as torch finds no such GPU."""
    one = gpus(1)
    (workflow.root / "promptecho/shapes/weights").symlink_to(ROOT / "promptecho/shapes/weights")
    workflow.edit("config/experiments/tiny.yaml", "vlm: {path: shapes,", "vlm: {path: promptecho/shapes/weights/vlm,")
    few = ("{count: 40, seed: 1}, num_shards: 3", "{count: 9, seed: 1}, max_new_tokens: 64, num_shards: 2")
    workflow.edit("config/experiments/tiny.yaml", *few)
    rule = workflow.root / "workflow/rules/captions.smk"
    rule.write_text(rule.read_text().replace(
        "{params.launcher}python -m promptecho caption shard",
        "{params.launcher}sh -c 'echo begin $CUDA_VISIBLE_DEVICES >> seen; \\\"$@\\\"; echo end >> seen' - "
        "python -m promptecho caption shard",
    ))  # fmt: skip
    shards = [f"results/tiny/captions/shards/{k:05d}.h5" for k in range(2)]
    done = workflow.snakemake("--cores", "2", *shards)
    assert done.returncode == 0, done.stdout
    assert (workflow.root / "seen").read_text() == f"begin {one.uuids[0]}\nend\n" * 2
    assert "waiting for" not in done.stdout  # Snakemake itself began the second when the first had ended
