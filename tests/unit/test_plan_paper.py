"""Plans of the paper's experiments at their real sizes, from the descriptions that come with the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptecho.config import load_experiment, run_training
from promptecho.phases import Phase
from promptecho.plan.gathering import with_placement
from promptecho.plan.gpus import find_gpu, known
from promptecho.plan.phases import Clock
from promptecho.plan.plan import Planner
from promptecho.plan.remedies import _training
from promptecho.plan.result import Cluster
from promptecho.plan.settings import Settings, usual_prompt_tokens
from promptecho.plan.trace import Cost

EXPERIMENTS = Path(__file__).parents[2] / "config" / "experiments"
CLUSTER = Cluster(find_gpu("h100"), 4, 8)


@pytest.fixture(scope="module")
def zimage():
    """The experiment, and a planner that keeps what it has traced."""
    config = load_experiment(EXPERIMENTS / "zimage.yaml")
    return config, planner_of(config)


def planner_of(config) -> Planner:
    tokens = usual_prompt_tokens(config)
    return Planner(Settings(0.4, 0.7, 50.0, 5.0, tokens, 100, config.captions.query, True))


def test_every_run_of_zimage_plans_and_fits(zimage):
    config, planner = zimage
    plans = [planner.run(config, CLUSTER, run) for run in config.runs]
    assert [plan.run for plan in plans] == ["promptecho", "inferscore", "promptecho-8b"]
    assert all(planner.problem(plan.memory, CLUSTER.gpu) is None for plan in plans)
    main, inferscore, small = (plan.seconds for plan in plans)
    assert small < main < inferscore
    reward = {plan.run: next(phase for phase in plan.phases if phase.name == "reward") for plan in plans}
    assert reward["promptecho"].bound == "computing"
    assert reward["inferscore"].bound == "link"  # every token's pass gathers all layers


def test_a_vlm_that_writes_is_gathered_by_phases_where_it_fits_and_is_refused_where_not(zimage):
    config, planner = zimage
    auto = with_placement(config, "inferscore", gather="auto")
    refused = planner.refusal(planner.with_gathering(auto, CLUSTER, "inferscore"), CLUSTER, "inferscore")
    assert refused.startswith("run inferscore: inferscore lets the VLM write") and "\n" not in refused
    assert "each token brings 5" in refused and refused.endswith("gather: layer, if that may take its time")
    for way, mode in (("mode: replicated", "replicated"), ("mode: dedicated with per_node: 1", "dedicated")):
        fits = planner._lacks(with_placement(auto, "inferscore", mode=mode), cluster=CLUSTER, run="inferscore") <= 0
        assert (way in refused) == fits
    large = Cluster(find_gpu("h200"), 4, 8)
    decided = planner.with_gathering(auto, large, "inferscore")
    assert run_training(decided, "inferscore").reward_placement.gather == "phase"
    assert planner.refusal(decided, large, "inferscore") == ""
    layer, phase = (
        next(one for one in planner.run(each, large, "inferscore").phases if one.name == "reward").seconds
        for each in (config, decided)
    )
    assert phase < layer
    assert run_training(planner.with_gathering(auto, CLUSTER, "promptecho"), "promptecho").reward_placement.gather == (
        "layer"
    )


def test_advice_on_gathering_is_what_a_run_would_accept(zimage):
    config, planner = zimage
    phase = with_placement(config, "inferscore", gather="phase")
    (problem,) = (one for one in planner.plan(phase, CLUSTER, ["inferscore"]).problems if one.startswith("run "))
    assert "; set training.reward_placement.gather: layer (then" in problem
    auto = with_placement(config, "inferscore", mode="replicated", gather="auto")
    (problem,) = (one for one in planner.plan(auto, CLUSTER, ["inferscore"]).problems if one.startswith("run "))
    assert "reward VLM 66.7" in problem and "mode: colocated" not in problem


def test_published_sizes(zimage):
    config, planner = zimage
    t2i = planner.t2i(config, config.training)
    assert t2i.text_encoder_bytes == pytest.approx(2 * 4_022_468_096, rel=1e-6)  # Qwen3-4B, as published
    assert t2i.transformer_params == pytest.approx(6.15e9, rel=0.002)
    assert planner.vlms(config, "promptecho")[0].params == pytest.approx(33.36e9, rel=0.002)
    assert planner.vlms(config, "promptecho-8b")[0].params == pytest.approx(8.77e9, rel=0.002)


def test_flops_of_a_pass_by_hand(zimage):
    """Every token meets every weight of the 30 blocks once, and every other token in attention."""
    config, planner = zimage
    tokens = 64 * 64 + 288  # patches, and 278 tokens of text filled up to a multiple of 32
    per_block = 4 * 3840**2 + 3 * 3840 * 10240
    blocks = 30 * (2 * tokens * per_block + 4 * tokens**2 * 3840)
    traced = planner.t2i(config, config.training).velocity(4, config.training).flops["bfloat16"] / 4
    assert blocks < traced < 1.1 * blocks  # and two refining blocks over the patches, two over the text


def test_a_32b_vlm_on_every_80_gb_gpu_is_refused(zimage):
    config, planner = zimage
    _, change = _training("promptecho", "", reward_placement={"mode": "replicated"})
    replicated, _ = change(config, CLUSTER)
    memory = planner.memory(replicated, CLUSTER, "promptecho")
    problem = planner.problem(memory, CLUSTER.gpu)
    assert problem is not None and "reward VLM 66.7" in problem
    assert planner.problem(memory, find_gpu("b200")) is None


def test_qwenimage_plans():
    config = load_experiment(EXPERIMENTS / "qwenimage.yaml")
    planner = planner_of(config)
    t2i = planner.t2i(config, config.training)
    assert t2i.transformer_params == pytest.approx(20.43e9, rel=0.002)
    plan = planner.run(config, CLUSTER, "promptecho")
    assert planner.problem(plan.memory, CLUSTER.gpu) is None
    assert {phase.name for phase in plan.phases} >= {"encode", "sample", "decode", "reward", "precompute", "update"}


def test_a_model_that_is_only_evaluated_plans_without_a_run(zimage):
    """Z-Image-Turbo, whose images are Z-Image's but for how they are sampled; no captions, no VLM."""
    config = load_experiment(EXPERIMENTS / "zimage-turbo.yaml")
    plan, usual = planner_of(config).plan(config, CLUSTER, []), zimage[0]
    assert (plan.runs, plan.captions, plan.problems) == ([], None, [])
    turbo = {one.name: one for one in plan.evaluations}
    assert list(turbo) == ["geneval", "dpg", "tiif"] and {one.checkpoints for one in plan.evaluations} == {1}
    assert all(one.flops > 8 * 10**12 * one.images for one in plan.evaluations)
    for name, image_set in config.image_sets.items():
        own = {"num_inference_steps": 8, "guidance_scale": 0.0, "num_shards": 4}
        assert image_set == usual.image_sets[name].model_copy(update=own)
        assert config.benchmarks[name] == usual.benchmarks[name]
        assert all(getattr(config.judges.models[judge], key) == getattr(usual.judges.models[judge], key)
                   for judge in config.judges.models for key in ("kind", "model"))  # fmt: skip


def test_listed_gpus():
    for name, gpu in known().items():
        assert gpu.source and gpu.memory_gb > 0, name
        assert gpu.bfloat16 > gpu.tf32 > gpu.float32, name
    other = find_gpu("mi300x", memory_gb=192, tflops=1307)
    assert (other.name, other.memory_gb, other.bfloat16) == ("mi300x", 192, 1307)
    small = find_gpu("h100", memory_gb=24)  # no such card is known
    assert (small.name, small.bfloat16, small.devices) == ("GPU like NVIDIA H100 SXM but for memory", 989, ())
    assert small.source.startswith("memory from the command line, the rest: NVIDIA H100")
    assert "but for memory and FLOP/s" in find_gpu("l40s", memory_gb=24, tflops=100).name
    assert find_gpu("h100", memory_gb=80, tflops=989).name == find_gpu("h100").name
    clock = Clock(find_gpu("h100"), planner_of(load_experiment(EXPERIMENTS / "shapes.yaml")).settings, 1)
    one = {"bfloat16": 10**15}
    assert clock.compute(Cost(one), Phase.UPDATE) == pytest.approx(1e15 / 989e12 / 0.4)
    by_kind = [clock.compute(Cost({kind: 10**15}), Phase.UPDATE) for kind in ("float32", "convolution float32")]
    assert by_kind[0] > by_kind[1]


def test_captions_of_photographs(zimage):
    """A 32B model with 16 photographs of a megapixel fits one H100, and just so."""
    config, planner = zimage
    clock = Clock(CLUSTER.gpu, planner.settings, CLUSTER.nodes)
    found = planner.captions(config, clock, 100_000)
    assert found.images == 100_000 and found.size == (1024, 1024)
    assert found.image_tokens == pytest.approx(1024, abs=20)  # a token for 32 x 32 pixels, and the question's
    length = found.image_tokens + config.captions.max_new_tokens
    cache = 16 * length * 2 * 64 * 8 * 128 * 2  # keys and values of 64 layers, 8 heads of 128, two bytes
    assert found.memory.phases["write"]["keys and values"] == cache
    assert planner.problem([found.memory], CLUSTER.gpu) is None
    assert planner.problem([found.memory], find_gpu("l40s")) is not None
    # Writing reads all weights for each token of 16 captions.
    slowest = 16 / (512 * 66.7e9 / (0.7 * 3.35e12))
    assert 0.5 * slowest < found.images_per_s < slowest
    assert found.gpu_hours == pytest.approx(100_000 / found.images_per_s / 3600)
    assert planner.captions(config, clock, None).hours is None  # nobody knows how many
