"""Models that can't be had are all said at once, with their keys, before the first job; finished tables need none."""

from __future__ import annotations

import pytest

MODELS = "  t2i: {path: shapes, dtype: float32, height: 64, width: 64}\n  vlm: {path: shapes, dtype: float32}"


@pytest.fixture
def without(workflow):
    workflow.edit("config/experiments/tiny.yaml", MODELS, "  t2i: {path: /nowhere/t2i}\n  vlm: {path: some/vlm}")
    (workflow.root / "config/config.yaml").write_text("experiments: [tiny]\nmodels_root: models\n")
    return workflow


def test_missing_models_are_said_once_before_the_first_job(without):
    done = without.snakemake("--", "all")
    assert done.returncode != 0
    lines = [line for line in done.stdout.splitlines() if line.startswith("tiny: models.")]
    assert lines[0] == "tiny: models.t2i.path: /nowhere/t2i: no such folder"
    assert lines[1].startswith("tiny: models.vlm.path: some/vlm: neither in ") and len(lines) == 2
    assert "jobs do not ask the hub (models.offline); where there is internet: promptecho models fetch" in lines[1]
    assert not (without.root / "results/tiny/logs").exists()  # no job has begun
    # What needs no such model is made.
    done = without.snakemake("--", "results/tiny/prompts/geneval/metadata.jsonl")
    assert done.returncode == 0, done.stdout
