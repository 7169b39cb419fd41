"""The scripts under perf/gpu run at tiny size on the CPU, through the code that a GPU would run. No times here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from forked import ended

ROOT = Path(__file__).resolve().parent.parent.parent
GPU = ROOT / "perf" / "gpu"
sys.path.insert(0, str(GPU))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("random-models")


def measure(script: str, folder: Path, *arguments: str) -> tuple[dict, str]:
    """The script's record, and what it printed."""
    out = folder / f"{script}.json"
    options = ["--tiny", "--folder", folder, "--device", "cpu", "--threads", "1", "--out", out, *arguments]
    stdout, _ = ended(options, script=GPU / f"{script}.py")
    return json.loads(out.read_text()), stdout


def test_models_that_are_there_already_are_not_told_as_written(tmp_path, monkeypatch):
    import prepare

    said = []
    for number in range(2):
        rows = tmp_path / f"rows-{number}.jsonl"
        words = ["prepare.py", "--tiny", "--folder", tmp_path, "--device", "cpu", "--rows", rows]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        prepare.main()
        facts, *told = map(json.loads, rows.read_text().splitlines())
        assert facts["facts"]["device"].startswith("CPU") and facts["facts"]["torch"] == torch.__version__
        said.append([(row["what"].split(",")[0], "seconds" in row) for row in told])
    assert said[0] == [("random zimage written", True), ("random qwen3vl-8b written", True)]
    there = "was there already"
    assert said[1] == [(f"random zimage {there}", False), (f"random qwen3vl-8b {there}", False)]


def test_rewards_equal_the_models_own_loss(folder):
    facts, table = measure("reward", folder, "--images", "4", "--batch-size", "2", "--rounds", "2", "--counts")
    assert list(facts["sides"]) == ["plain", "ours, batch 1", "ours, batch 2", "library's pass, batch 2"]
    for side in facts["sides"].values():
        assert side["gap"] < 1e-5 and len(side["plain_over_this"]) == 2 and side["share_of_matmul_peak"] > 0
    assert facts["sides"]["plain"]["plain_over_this"] == [1.0, 1.0] and "plain / side" in table
    plain, ours = (facts["counts"][side] for side in ("plain", "ours"))
    assert ours["reads"] == {"cpu": 1} and sum(plain["reads"].values()) > 40  # the result's copy, and no other
    assert ours["copies"]["bytes"] < plain["copies"]["bytes"] and ours["head_flops"] < plain["head_flops"]


def test_the_sampler_and_the_pipeline_make_the_same_images(folder):
    facts, table = measure(
        "sampler", folder, "--rounds", "2", "--rank", "4", "--per-prompt", "2", "--guidance-scale", "1.0"
    )
    assert list(facts["comparisons"]) == ["none", "rank 4"]
    for compared in facts["comparisons"].values():
        assert compared["gap"] <= 1 and len(compared["pipeline_over_ours"]) == 2
    assert "pipeline / ours" in table


def test_training_is_measured_by_phase_beside_the_plan(folder):
    facts, table = measure("train_zimage", folder, "--iterations", "2", "--set", "training.lora.rank=2")
    assert facts["config"]["runs"]["measured"]["lora"]["rank"] == 2 and len(facts["iterations"]) == 2
    once, useful = facts["flops_of_one"], facts["useful_flops_per_iteration"]
    assert useful["sample"] == 2 * once["encode"] + 8 * (3 * 2 * once["forward"] + once["decode"])
    passes = facts["config"]["runs"]["measured"]["passes"]  # each with timesteps of its own
    assert useful["precompute"] == passes * 8 * 2 * 2 * once["forward"]
    assert useful["update"] == 2 * 8 * 2 * 2 * once["forward"]
    assert useful["reward"] == 8 * once["reward"] and all(value > 0 for value in useful.values())
    assert all(phase in table for phase in ("sample", "reward", "precompute", "update", "images/s"))
    assert (facts["plan"] is None) == ("no plan beside it: promptecho plan ended with exit code" in table)


def test_phases_of_the_plan_become_those_of_the_metrics():
    from train_zimage import planned

    names = ("encode", "sample", "decode", "reward", "precompute", "update")
    totals = {"sample": 40e9, "decode": 60e9, "update": 70e9}
    plan = {"phases": [{"name": name, "seconds": 2.0} for name in names], "memory": [{"totals": totals}]}
    seconds, memory = planned(plan)
    assert seconds == {"sample": 6.0, "reward": 2.0, "precompute": 2.0, "update": 2.0}
    assert memory == {"sample": 60.0, "update": 70.0} and planned(None) == ({}, {})


def test_a_round_turns_the_order_and_a_ratio_is_of_one_round():
    import measuring

    order: list[str] = []
    sides = {name: lambda name=name: order.append(name) for name in "abc"}
    taken = measuring.in_rounds(sides, torch.device("cpu"), 3, warm_up=1)
    assert ["".join(order[i : i + 3]) for i in range(0, 12, 3)] == ["cab", "abc", "bca", "cab"]
    assert all(len(runs) == 3 for runs in taken.values())
    on = [measuring.Taken(seconds, 2 * seconds, 0.0, None) for seconds in (1.0, 2.0)]
    assert measuring.ratios(on, [on[0], on[0]], torch.device("cpu")) == [1.0, 2.0]
    assert measuring.spread([3.0, 1.0, 2.0], 1) == "2.0 (1.0 - 3.0)"


def test_operations_are_counted():
    import measuring

    a, b = torch.ones(4, 8), torch.ones(8, 16)
    assert measuring.flops(lambda: a @ b) == 2 * 4 * 8 * 16
    assert measuring.matmul_peak(torch.device("cpu"), torch.float32, tiny=True, rounds=2) > 0


@pytest.mark.parametrize("name", ["zimage", "qwen3vl-8b"])
def test_models_of_real_size_have_the_described_number_of_weights(name):
    """On torch's meta device: 6 and 8.8 billion."""
    import models
    from diffusers import ZImageTransformer2DModel
    from transformers import AutoConfig, Qwen3VLForConditionalGeneration

    parts = models.architecture(name, {}, use_tiny=False)
    with torch.device("meta"):
        if name == "zimage":
            model, expected = ZImageTransformer2DModel.from_config(parts["transformer"]), 6.2e9
        else:
            model, expected = Qwen3VLForConditionalGeneration(AutoConfig.for_model(**parts["config"])), 8.8e9
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(expected, rel=0.05)
