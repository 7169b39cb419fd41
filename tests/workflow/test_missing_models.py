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


def test_a_dry_run_says_what_would_stop_its_jobs_and_only_theirs(without, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    without.edit(
        "config/experiments/tiny.yaml", "benchmarks:",
        "judges: {models: {one: {kind: openai, model: m}}}\nbenchmarks:\n"
        "  tiif: {image_set: tiif, scorer: tiif, backend: judge, judge: one}",
    )  # fmt: skip
    without.edit(
        "config/experiments/tiny.yaml", "image_sets:",
        "image_sets:\n  tiif: {benchmark: tiif, shapes: {per_tag: 1, seed: 1}, images_per_prompt: 1}",
    )  # fmt: skip
    without.edit("config/experiments/tiny.yaml", "evaluate:", "evaluate:\n  - {benchmark: tiif}")

    def told(*targets):
        done = without.snakemake("-n", "--", *targets)
        assert done.returncode == 0, done.stdout
        return [line.removeprefix("doctor: ") for line in done.stdout.splitlines() if line.startswith("doctor: ")]

    lines = told("results/tiny/scores/tiif/base/0.json")
    assert len(lines) == 3 and lines[-1].endswith("promptecho doctor --config config/experiments/tiny.yaml")
    assert lines[0].startswith("tiny: models.t2i.path: /nowhere/t2i: no such folder; ")
    assert "set the environment variable OPENAI_API_KEY" in lines[1] and "rule judge) of tiif" in lines[1]
    assert told("results/tiny/prompts/geneval/metadata.jsonl") == []
    assert any("models.vlm.path: some/vlm" in line for line in told("results/tiny/captions/captions.h5"))
