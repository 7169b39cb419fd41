"""What the workflow makes of a benchmark from outside: rules, inputs, commands, and a name that is taken."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "benchmark"
CONFIG = ("--config", "experiments=shapes-tint", "experiments_dir=mine", "--")


@pytest.fixture
def mine(workflow):
    """The workflow with a copy of the example beside it."""
    shutil.copytree(EXAMPLE, workflow.root / "mine")
    return workflow


def test_its_name_is_a_target_and_everything_follows(mine):
    stages = {"training_images": 1, "caption_shard": 1, "captions": 1, "train": 1}
    scores = {**stages, "benchmark_prompts": 1, "generate_shard": 2, "score": 2}
    assert without(mine.planned(*CONFIG, "tint"), "tint") == scores
    ends = {"table": 1, "curves": 1, "samples": 1, "training_curves": 1}
    assert mine.planned(*CONFIG, "all") == {**scores, **ends}

    shown = mine.snakemake("--dry-run", "--printshellcmds", *CONFIG, "all").stdout
    for command in ("shapes tint --per-tag 2", "tables --table tint", "figures curves", "figures samples"):
        [line] = [line for line in shown.splitlines() if command in line]
        assert "--config results/shapes-tint/config/" in line  # that is where they find it

    # Other experiments are not touched by it: their commands name no plugins.
    shown = mine.snakemake("--dry-run", "--printshellcmds", "tables").stdout
    assert "tables --table geneval" in shown
    assert not [line for line in shown.splitlines() if "tables --table" in line and "--config" in line]


def without(jobs: dict[str, int], name: str) -> dict[str, int]:
    return {rule: count for rule, count in jobs.items() if rule != name}


def test_a_name_that_a_rule_has_is_refused(mine):
    for path in ("mine/tint.py", "mine/shapes-tint.yaml"):
        file = mine.root / path
        text = file.read_text().replace('name="tint"', 'name="tables"')
        file.write_text(text.replace("scorer: tint", "scorer: tables"))
    mine.edit("mine/shapes-tint.yaml", "benchmark: tint\n", "benchmark: tables\n")
    result = mine.snakemake("--dry-run", *CONFIG, "all")
    assert result.returncode == 1
    assert "benchmark tables (tint:BENCHMARK of mine/shapes-tint.yaml: plugins.0): a rule has this" in result.stdout
