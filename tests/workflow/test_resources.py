"""What jobs ask a cluster for: as the experiment says (`resources`), whatever its name, and a profile before it."""

from __future__ import annotations

import re

import pytest


def asked(workflow, *arguments: str, profile: str = "slurm") -> dict[str, dict[str, str]]:
    """Resources and threads by rule, as a dry run shows them; jobs of one rule ask for the same."""
    executor = ["--submitit-skip-checks"] if profile == "slurm" else []  # what this machine's Slurm has is not asked
    words = [*executor, "--cores", "64", *arguments, "--dry-run", "--quiet", "host", "--", "all"]
    shown = workflow.snakemake(*words, profile=profile).stdout
    found: dict[str, dict[str, str]] = {}
    for block in re.split(r"\n(?=rule |localrule )", shown):
        rule, resources = re.match(r"rule (\w+):", block), re.search(r"\n    resources: (.*)", block)
        if rule and resources:
            values = dict(pair.split("=", 1) for pair in resources[1].split(", "))
            threads = re.search(r"\n    threads: (\d+)", block)
            values["threads"] = threads[1] if threads else "1"
            assert found.setdefault(rule[1], values) == values
    assert {"caption_shard", "train", "generate_shard", "score"} <= set(found), shown
    return found


def numbers(values: dict[str, str], *keys: str) -> list[int]:
    return [int(values[key]) for key in keys]


@pytest.fixture
def renamed(workflow):
    """A copy of the experiment whose name says nothing."""
    folder = workflow.root / "config/experiments"
    (folder / "study.yaml").write_text((folder / "tiny.yaml").read_text())
    workflow.edit("config/config.yaml", "experiments: [tiny]", "experiments: [study]")
    for path in (workflow.root / "workflow/rules").glob("*.smk"):  # Snakemake shows resources where a rule has none
        text = re.sub(r"\n    message:\n(        .*\n)+", "\n", path.read_text())
        path.unlink()
        path.write_text(text)
    return workflow


RANKS = ("nodes", "tasks_per_node", "gpus_per_node", "mem_mb", "runtime", "threads")


def test_a_copy_under_any_name_asks_for_little_and_real_models_for_much(renamed):
    small = asked(renamed)
    assert numbers(small["train"], *RANKS) == [1, 1, 0, 6000, 240, 2]
    for rule in ("caption_shard", "generate_shard", "score"):
        assert numbers(small[rule], "gpus_per_node", "mem_mb") == [0, 4000]

    renamed.edit("config/experiments/study.yaml", "t2i: {path: shapes,", "t2i: {path: /models/real,")
    renamed.edit("config/experiments/study.yaml", "prompts_per_iteration: 6", "prompts_per_iteration: 32")
    renamed.edit("config/experiments/study.yaml", "batch_size: 24", "batch_size: 128")
    large = asked(renamed)
    assert numbers(large["train"], *RANKS) == [4, 8, 8, 800000, 1440, 8]
    assert numbers(large["generate_shard"], "gpus_per_node", "mem_mb", "threads") == [1, 64000, 8]
    # The VLM is the embedded one: captions take no GPU. Nor does the oracle.
    assert large["caption_shard"]["gpus_per_node"] == large["score"]["gpus_per_node"] == "0"


def test_what_an_experiment_says_counts_and_a_profile_goes_before_it(renamed):
    with (renamed.root / "config/experiments/study.yaml").open("a") as file:
        file.write(
            "resources:\n  size: large\n  train: {nodes: 2, tasks_per_node: 3, gpus_per_node: 3, threads: 5}\n"
            "  generate: {gpus_per_node: 1, runtime: 33}\n  guard: {gpus_per_node: 1}\nguards: [{name: echo}]\n"
        )
    told = asked(renamed)
    assert numbers(told["train"], *RANKS) == [2, 3, 3, 800000, 1440, 5]
    assert numbers(told["generate_shard"], "gpus_per_node", "mem_mb", "runtime") == [1, 64000, 33]
    words = ("--set-resources", "train:nodes=1", "train:gpu=3", "generate_shard:runtime=44", "caption_shard:gpu=1")
    told = asked(renamed, *words)
    assert numbers(told["train"], "nodes", "tasks_per_node", "gpu", "threads") == [1, 3, 3, 5]
    assert "gpus_per_node" not in told["train"]  # said in other words
    assert told["generate_shard"]["runtime"] == "44"
    assert told["guard"]["gpus_per_node"] == "1" and "gpus_per_node" not in told["caption_shard"]

    # One machine has no nodes; what concerns it counts.
    here = asked(renamed, profile="local")
    assert numbers(here["train"], "nodes", "tasks_per_node", "mem_mb", "threads") == [1, 1, 6000, 5]
    assert here["generate_shard"]["runtime"] == "33" and "gpus_per_node" not in here["generate_shard"]


def test_ranks_that_do_not_fit_their_nodes_are_refused_before_anything_starts(renamed):
    for words, said in (
        (["train:nodes=0"], "train: set-resources says nodes=0; give a whole number, at least 1"),
        (["train:gpus_per_node=2", "train:tasks_per_node=3"], "study: train: 3 processes on each node have 2 GPUs"),
    ):
        options = ["--submitit-skip-checks", "--set-resources", *words, "--dry-run", "--", "all"]
        shown = renamed.snakemake(*options, profile="slurm")
        assert shown.returncode != 0 and said in shown.stdout and "Traceback" not in shown.stdout
