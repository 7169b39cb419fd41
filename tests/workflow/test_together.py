"""Image sets that are made by one job (`image_sets.NAME.job`), as dry runs."""

from __future__ import annotations

import re

TINY = "config/experiments/tiny.yaml"
# The held-out captions are judged at the last checkpoint alone.
TWO_SETS = {
    "num_shards: 2}": "num_shards: 2, job: both}\n"
    "  heldout: {benchmark: captions, heldout: 6, num_shards: 1, job: both}",
    "benchmarks:": "benchmarks:\n  heldout: {image_set: heldout, scorer: captions, backend: oracle}",
    "evaluate:": "evaluate:\n  - {benchmark: heldout, at: last}",
    "tables: [geneval]": "tables: [geneval, heldout]",
}


def test_one_job_makes_all_images_of_a_checkpoint_that_are_asked_for(workflow):
    for old, new in TWO_SETS.items():
        workflow.edit(TINY, old, new)
    planned = workflow.planned("tables")
    assert {rule: planned[rule] for rule in ("generate_together", "generate_shard")} == {
        "generate_together": 3,
        "generate_shard": 8,
    }
    shown = workflow.snakemake("--dry-run", "--printshellcmds", "tables").stdout
    commands = [line for line in shown.splitlines() if "--images-only" in line]
    assert len(commands) == 3
    made = {
        tuple(re.search(r"--run (\S+) --step (\S+)", line).groups()): re.findall(
            r"--image-set (\S+) --shard (\S+) --num-shards (\S+) --prompts results/tiny/prompts/(\S+)/metadata", line
        )
        for line in commands
    }
    geneval = [("geneval", "0", "2", "geneval"), ("geneval", "1", "2", "geneval")]
    both = [*geneval, ("heldout", "0", "1", "heldout")]
    assert made == {("base", "0"): both, ("echo-s1", "2"): geneval, ("echo-s1", "4"): both}
    # Each shard's own job looks in the same folder for what is made.
    works = re.findall(r"--work (\S+)", "\n".join(line for line in shown.splitlines() if "promptecho generate" in line))
    assert len(works) == 16 and all(works.count(work) == 2 for work in works)


def test_once_made_it_makes_no_other_shard_run(workflow):
    workflow.edit(TINY, "num_shards: 2}", "num_shards: 2, job: both}")
    workflow.finish()
    made = workflow.root / "results/tiny/work/generate_together/base/0/both.done"
    made.touch()  # newer than the shards
    assert workflow.planned() == {}
    made.unlink()
    assert workflow.planned() == {}
    made.touch()
    score = "results/tiny/scores/geneval/base/0.json"
    (workflow.root / score).unlink()
    (workflow.root / "results/tiny/images/base/0/geneval/shards/1.jsonl").unlink()
    assert workflow.planned(score) == {"generate_shard": 1, "score": 1}


def test_what_is_made_together_stays_loose(workflow):
    workflow.edit(TINY, "num_shards: 2}", "num_shards: 2, job: both, keep: packed}")
    shown = workflow.snakemake("--dry-run").stdout
    assert "image_sets.geneval.job: images that are made together" in shown
    assert "set image_sets.geneval.keep to loose, or job to null" in shown
