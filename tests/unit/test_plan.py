"""The plan against what it plans: tiny models that are really loaded and run, traced in whole and in part."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest
import tiny_policy
import tiny_t2i
import tiny_vlm
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from torch.utils.flop_counter import (
    FlopCounterMode,
    register_flop_formula,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)
from typer.testing import CliRunner

from promptecho.config import load_experiment, slice_digest
from promptecho.config.models import T2iSection
from promptecho.config.rewards import GuardSection, RewardSection, VlmSection
from promptecho.config.training import TrainingConfig
from promptecho.config.training_parts import LoraSection
from promptecho.errors import ConfigError
from promptecho.models.inventory import ModelStatus
from promptecho.models.required import RequiredModel
from promptecho.plan import depth
from promptecho.plan.checkpointing import MODES
from promptecho.plan.costs import T2iCosts, VlmCosts
from promptecho.plan.gpus import find_gpu
from promptecho.plan.job import choose_checkpointing
from promptecho.plan.plan import Planner
from promptecho.plan.result import Cluster
from promptecho.plan.settings import Settings
from promptecho.plan.show import page
from promptecho.plan.stand_ins import CountingTokenizer, words
from promptecho.plan.trace import Tally
from promptecho.t2i.lora import trained_parameters
from promptecho.train.data import Batch
from promptecho.train.losses import loss_of, velocity
from promptecho.upgrade.costs import PlanFile

LORA = LoraSection(rank=4, alpha=8)
TRAINING = TrainingConfig(lora=LORA, kl_base={"weight": 0.1})
TOKENS = 9
# torch's counter knows the GPU's fused attention, not the CPU's, which is the same computation.
CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


@register_flop_formula(CPU_ATTENTION)
def _attention(query, key, value, *_, **__) -> int:
    return sdpa_flop_count(query, key, value)


@register_flop_formula(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward)
def _attention_backward(gradient, query, key, value, *_, **__) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


FAMILIES = pytest.mark.parametrize("name", ["zimage", "qwenimage"])


def found(folder: Path, kind="pipeline") -> ModelStatus:
    return ModelStatus(RequiredModel(str(folder), kind, None, ("models.t2i",)), "folder", str(folder))


def t2i_costs(name: str, *, checkpointing="off", folder: Path | None = None, **section) -> T2iCosts:
    folder = folder or tiny_policy.FOLDERS[name]()
    section = T2iSection(family=name, path=str(folder), height=64, width=64, **{"dtype": "float32", **section})
    return T2iCosts(
        found(folder), section, TrainingConfig(lora=LORA), checkpointing=checkpointing, prompt_tokens=TOKENS
    )


def real_family(name: str, dtype="float32", *, checkpointing="off", folder: Path | None = None):
    """The same model with weights, on prompts of the same number of tokens."""
    family = tiny_policy.adapted(name, dtype, checkpointing=checkpointing, lora=LORA, folder=folder)
    family.pipeline.tokenizer = CountingTokenizer(family.descriptor.reader)
    return family


def real_batch(family, n: int) -> Batch:
    x = torch.randn(n, *family.latent_shape(64, 64))
    one = torch.full((1, n), -1.0, dtype=torch.float64)
    cond = family.encode_prompts([words(TOKENS)]) * n
    return Batch(
        ["0"] * n, x, cond, torch.ones(n, dtype=torch.float64), torch.full((1, n), 0.5), torch.randn(1, *x.shape), one,
        base_velocity=torch.randn(1, *x.shape), ema_velocity=torch.randn(1, *x.shape),
    )  # fmt: skip


def counted(code) -> int:
    """FLOPs by torch's own counter."""
    with FlopCounterMode(display=False) as counter:
        code()
    return counter.get_total_flops()


@FAMILIES
def test_flops_are_those_of_the_code_that_runs(name):
    costs, family = t2i_costs(name), real_family(name)
    batch = real_batch(family, 2)
    cond = batch.cond
    family.negative(1)

    def steps():
        with torch.no_grad():
            family.sample(batch.x0, cond, num_inference_steps=3, guidance_scale=3.5)

    def without_gradient():
        with torch.no_grad():
            velocity(family, batch.x0, batch.t[0], cond, TRAINING)

    assert costs.encode().total == counted(lambda: family.encode_prompts([words(TOKENS)]))
    assert costs.velocity(2, TRAINING).total == counted(without_gradient)
    assert costs.decode(2).total == counted(lambda: family.decode(batch.x0))
    assert costs.loss(2, TRAINING).total == counted(lambda: loss_of(family, batch, TRAINING)[0].backward())
    # Sampling in float32 folds the adapter in, which the plan does not count for each step.
    from promptecho.t2i.lora import merged

    with merged(family.transformer):
        assert 3 * costs.sample_step(2, 3.5).total == counted(steps)


@FAMILIES
def test_guidance_counts_where_the_family_guides(name):
    costs = t2i_costs(name)
    plain, at_one, above = (costs.sample_step(2, scale).total for scale in (0.0, 1.0, 3.5))
    assert above == pytest.approx(2 * plain, rel=0.2)  # the negative prompt is shorter
    assert at_one == (above if name == "zimage" else plain)
    guided = TrainingConfig(lora=LORA, train_guidance=True)
    assert costs.loss(2, guided).total > 1.5 * costs.loss(2, TRAINING).total


@FAMILIES
def test_modes_of_checkpointing_compute_again_what_they_say(name):
    """In bfloat16, as on GPUs: `full` one more forward pass of the blocks, `selective` no product at all."""
    work = {}
    for mode in MODES:
        family = real_family(name, "bfloat16", checkpointing=mode)
        batch = real_batch(family, 2)
        tally = Tally()  # torch's counter does not see what is computed again
        with tally:
            loss_of(family, batch, TRAINING)[0].backward()
        costs = t2i_costs(name, checkpointing=mode, dtype="bfloat16")
        assert costs.loss(2, TRAINING).total == sum(tally.flops.values())
        work[mode] = costs.loss(2, TRAINING), costs.velocity(2, TRAINING)
    (off, plain), (selective, _), (full, _) = work["off"], work["selective"], work["full"]
    assert off.total == selective.total < full.total < off.total + plain.total
    assert off.peak > selective.peak > full.peak
    assert all(without_gradient == plain for _, without_gradient in work.values())


@FAMILIES
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_those_of_the_loaded_model(name, dtype):
    costs, family = t2i_costs(name, dtype=dtype), real_family(name, dtype)

    def size(module, names=lambda name: True) -> int:
        tensors = [*module.named_parameters(), *module.named_buffers()]
        return sum(t.numel() * t.element_size() for key, t in tensors if names(key))

    assert costs.transformer_bytes == size(family.transformer, lambda key: "lora_" not in key)
    assert costs.trained_params == sum(p.numel() for p in trained_parameters(family.transformer).values())
    assert costs.text_encoder_bytes == size(family.pipeline.text_encoder)
    assert costs.vae_bytes == size(family.pipeline.vae)  # in float32 whatever the others are


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", MODES)
def test_peak_of_the_update_against_live_tensors_of_the_real_one(checkpointing, dtype):
    """Bytes that lived at once in the real forward and backward pass on the CPU, counted by storage."""
    costs = t2i_costs("zimage", checkpointing=checkpointing, dtype=dtype)
    family = real_family("zimage", dtype, checkpointing=checkpointing)
    batch = real_batch(family, 4)
    for parameter in trained_parameters(family.transformer).values():
        parameter.grad = torch.zeros_like(parameter)
    gc.collect()
    tally = Tally()
    with tally:
        loss_of(family, batch, TRAINING)[0].backward()
    assert costs.loss(4, TRAINING).peak == pytest.approx(tally.peak, rel=0.02)


def test_kept_activations_against_saved_tensors_hooks():
    """What the forward pass keeps for the backward pass is most of the peak without checkpointing."""
    costs, family = t2i_costs("zimage"), real_family("zimage")
    batch = real_batch(family, 4)
    gc.collect()
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage
        return tensor

    known = {t.untyped_storage().data_ptr() for t in [*family.transformer.parameters(), *family.transformer.buffers()]}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = loss_of(family, batch, TRAINING)
    kept = sum(storage.nbytes() for place, storage in saved.items() if place not in known)
    assert kept <= costs.loss(4, TRAINING).peak <= 1.3 * kept
    del loss


@pytest.mark.parametrize("checkpointing", MODES)
def test_a_deep_model_in_part_equals_the_whole(tmp_path, monkeypatch, checkpointing):
    folder = tiny_t2i.build(tmp_path / "deep", layers=9, dim=64)
    part = t2i_costs("zimage", folder=folder, checkpointing=checkpointing, dtype="bfloat16")
    monkeypatch.setattr(depth, "repeated_layers", lambda model: None)
    whole = t2i_costs("zimage", folder=folder, checkpointing=checkpointing, dtype="bfloat16")
    assert part.trained_params == whole.trained_params
    assert part.encode() == whole.encode()
    for figure in (lambda costs: costs.loss(4, TRAINING), lambda costs: costs.sample_step(4, 3.5)):
        a, b = figure(part), figure(whole)
        assert a.flops == b.flops
        # With layers this small another moment than at the real sizes may be the peak of few layers: never too little.
        assert 0.99 * b.peak <= a.peak <= 1.1 * b.peak


def test_slicing_the_vae_lowers_the_peak_and_no_flops():
    plain, sliced = t2i_costs("zimage").decode(4), t2i_costs("zimage", vae_slicing=True).decode(4)
    assert sliced.flops == plain.flops
    assert sliced.peak < plain.peak


def vlm_costs() -> VlmCosts:
    folder = tiny_vlm.shared_folder()
    section = VlmSection(path=str(folder), dtype="float32")
    return VlmCosts(found(folder, "transformers"), section, size=(32, 32), prompt_tokens=TOKENS)


def test_the_echo_reward_counts_as_it_runs():
    from promptecho.rewards.echo.reward import EchoReward
    from promptecho.vlm import load_vlm

    costs = vlm_costs()
    vlm = load_vlm(tiny_vlm.shared_folder())
    reward = EchoReward(vlm, query="Describe this image.", batch_size=4)
    label = costs._label
    images = [Image.new("RGB", (32, 32), "grey")] * 3
    real = counted(lambda: reward(images, [label] * 3, list("abc")))
    assert costs.reward(3, RewardSection(), "Describe this image.").total == real
    assert costs.bytes == sum(p.numel() * 4 for p in vlm.model.parameters()) + sum(
        b.numel() * b.element_size() for b in vlm.model.buffers()
    )
    assert costs.rest_bytes + sum(costs.block_bytes) == costs.bytes


def test_inferscore_counts_every_token_of_a_reply(tmp_path):
    """The tiny model's replies don't end by themselves: all have `max_new_tokens`."""
    from promptecho.rewards.inferscore import InferScoreSection
    from promptecho.rewards.inferscore.reward import InferScoreReward
    from promptecho.vlm import load_vlm

    costs, tokens = vlm_costs(), 7
    (tmp_path / "question.txt").write_text("Rate: {prompt}")
    asked = InferScoreSection(max_new_tokens=tokens, temperature=0, template=str(tmp_path / "question.txt"))
    entry = RewardSection(name="inferscore", inferscore=asked)
    vlm = load_vlm(tiny_vlm.shared_folder())
    vlm = type(vlm)(vlm.path, vlm.model, vlm.processor, vlm.context_length, (-1,))
    reward = InferScoreReward(vlm, entry.options, batch_size=2)
    real = counted(lambda: reward.replies([Image.new("RGB", (32, 32), "grey")] * 2, [costs._label] * 2, ["a", "b"]))
    planned = costs.reward(2, entry, "").total + costs.more_tokens(2, entry, tokens).total
    assert planned == pytest.approx(real, rel=0.01)


SETTINGS = Settings(0.4, 0.7, 50.0, 5.0, TOKENS, 100, "Describe this image in detail.", True)
PLANNER = Planner(SETTINGS)


def experiment(tmp_path: Path, **training):
    values = {
        "prompts_per_iteration": 8, "images_per_prompt": 4, "batch_size": 32, "micro_batch_size": 1,
        "lora": {"rank": 4, "alpha": 8}, **training,
    }  # fmt: skip
    content = {
        "models": {
            "t2i": {"family": "zimage", "path": str(tiny_t2i.shared_folder()), "height": 64, "width": 64},
            "vlm": {"path": str(tiny_vlm.shared_folder())},
        },
        "captions": {"prompts": "prompts.txt", "heldout": 0},
        "training": values,
        "runs": {"r": {"seed": 1}},
    }
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_experiment(path)


@settings(max_examples=30, deadline=None)
@given(
    nodes=st.sampled_from([1, 2, 4]), per_node=st.sampled_from([2, 4]), zero=st.sampled_from([1, 2, 3]),
    mode=st.sampled_from(["colocated", "offloaded", "replicated"]),
)  # fmt: skip
def test_more_gpus_never_hold_more_each(tmp_path_factory, nodes, per_node, zero, mode):
    config = experiment(tmp_path_factory.mktemp("e"), zero_stage=zero, reward_placement={"mode": mode})
    gpu = find_gpu("h100")
    few, more, wider = (
        PLANNER.memory(config, Cluster(gpu, n, k), "r")[0]
        for n, k in ((nodes, per_node), (2 * nodes, per_node), (nodes, 2 * per_node))
    )
    for larger in (more, wider):
        assert all(larger.held.get(part, 0) <= size for part, size in few.held.items())
    if mode == "colocated":
        assert wider.held["reward VLM"] < few.held["reward VLM"] == more.held["reward VLM"]
    assert ("reward VLM" in few.held and few.held["reward VLM"] > 0) == (mode != "offloaded")
    if zero == 3:
        assert more.held["transformer"] < few.held["transformer"]


@pytest.mark.parametrize("stage", [1, 2])
def test_optimizer_memory_is_the_engines(tmp_path, stage):
    """Master weights and both moments that DeepSpeed really holds, and what a step adds of gradients."""
    from promptecho.train.engine import Engine
    from promptecho.train.launch import init_distributed

    config = experiment(tmp_path, zero_stage=stage)
    planned = PLANNER.memory(config, Cluster(find_gpu("h100"), 1, 1), "r")[0].held
    training, family = config.runs["r"], real_family("zimage", "bfloat16")
    init_distributed(training, torch.device("cpu"))
    engine = Engine(family.transformer, training, torch.device("cpu"), accumulation=1)
    masters = engine._flat_partitions()
    states = [engine._inner_optimizer().state[flat] for flat in masters]
    held = [*masters, *(state[kind] for state in states for kind in ("exp_avg", "exp_avg_sq"))]
    padding = 3 * 4 * 2 * len(masters)  # DeepSpeed aligns the flat copies
    assert 0 <= sum(t.numel() * t.element_size() for t in held) - planned["optimizer"] <= padding
    weights = sum(p.numel() * p.element_size() for p in engine.parameters.values())
    assert weights == planned["LoRA weights"] == planned["LoRA gradients"]


def test_placements_hold_what_the_sharding_holds(tmp_path):
    config, gpu = experiment(tmp_path, reward_placement={"mode": "dedicated", "per_node": 2}), find_gpu("h100")
    cluster = Cluster(gpu, 1, 4)
    (vlm,) = PLANNER.vlms(config, "r")
    trainer, server = PLANNER.memory(config, Cluster(gpu, 1, 4), "r")
    assert "reward VLM" not in trainer.held and "reward" not in trainer.phases
    assert server.held == {"reward VLM": -(-vlm.bytes // 2)}
    assert server.phases["reward"]["gathered layers"] == vlm.rest_bytes + sum(vlm.block_bytes[:3])
    shared = experiment(tmp_path, reward_placement={"mode": "offloaded"})
    plan = PLANNER.run(shared, cluster, "r")
    assert plan.host_bytes == vlm.bytes
    assert {phase.name for phase in plan.phases if phase.bound in ("host", "link")} >= {"reward"}


def test_reference_passes_and_redraws_are_counted(tmp_path):
    cluster = Cluster(find_gpu("h100"), 1, 4)

    def flops(name: str = "precompute", **training) -> int:
        phases = PLANNER.run(experiment(tmp_path, **training), cluster, "r").phases
        return next(phase.flops for phase in phases if phase.name == name)

    alone = flops(kl_ema={"weight": 0.0})
    assert flops(kl_ema={"decay": 0.0}) == alone  # the average is the policy itself
    assert flops() == 2 * alone
    assert flops(kl_base={"weight": 0.1}) == 3 * alone
    assert flops(timesteps={"redraw": "pass"}, passes=2) == 4 * alone
    assert flops(timesteps={"per_sample": 8}) == 4 * alone
    # Half of the images are trained on: half of the passes, while all are sampled.
    half = {"update_images_per_prompt": 2, "batch_size": 16}
    assert 2 * flops(**half) == flops() and flops("sample", **half) == flops("sample")
    assert 2 * flops("update", **half) == flops("update")


def command(tmp_path: Path, *more: str, **training):
    from promptecho.cli import app

    experiment(tmp_path, **training)
    return CliRunner().invoke(app, ["plan", "--config", str(tmp_path / "e.yaml"), *more])


def test_json_and_page_say_the_same(tmp_path):
    result = command(tmp_path, "--gpus-per-node", "4", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    (run,) = facts["runs"]
    assert facts["fits"] and run["memory"][0]["peak_phase"] in run["memory"][0]["totals"]
    assert run["seconds_per_iteration"] == pytest.approx(
        sum(phase["seconds"] for phase in run["phases"]) + run["heldout_seconds_per_iteration"]
    )
    # What `promptecho upgrade --plan` takes from it: the share of a segment.
    file = tmp_path / "plan.json"
    file.write_text(result.stdout)
    job = {"experiment": facts["experiment"], "rule": "train", "wildcards": {"R": "r"}, "iterations": 1}
    assert PlanFile(file).gpu_hours(job) == pytest.approx(run["gpu_hours"] / run["iterations"]) and run["gpu_hours"] > 0
    assert PlanFile(file).gpu_hours(job | {"rule": "score"}) is None
    page = command(tmp_path, "--gpus-per-node", "4")
    assert page.exit_code == 0
    assert "Nothing here was measured" in page.stdout and "fits" in page.stdout
    peak = f"{run['memory'][0]['peak'] / 1e9:.1f} GB in {run['memory'][0]['peak_phase']}"
    assert peak in " ".join(page.stdout.split())


def test_what_no_figure_has_is_said(tmp_path):
    rewards = [{"name": "echo"}, {"name": "imagereward", "weight": 0.5}]
    config = experiment(tmp_path, rewards=rewards, advantage={"scale": "global_std"})
    config = config.model_copy(update={"guards": [GuardSection(name="echo"), GuardSection(name="pickscore")]})
    plan = PLANNER.plan(config, Cluster(find_gpu("h100"), 1, 2), ["r"])
    told = ["memory and time of imagereward", "guards (echo, pickscore)"]
    assert plan.facts()["not_counted"] == told
    with (console := Console(width=200)).capture() as shown:
        console.print(page(plan))
    assert f"Not in it: loading models, saving, scoring, queues, {', '.join(told)}." in shown.get()


def test_what_does_not_fit_is_refused_with_changes_that_were_tried(tmp_path):
    options = ("--gpus-per-node", "4", "--gpu-memory-gb", "2.02", "--reserve-gb", "0")
    result = command(tmp_path, *options, micro_batch_size=8)
    assert result.exit_code == 1 and isinstance(result.exception, ConfigError)
    (line,) = str(result.exception).splitlines()
    assert "GB in update on each GPU that trains" in line
    assert "activation_checkpointing: selective (then" in line or "micro_batch_size" in line
    (hopeless,) = PLANNER.plan(experiment(tmp_path), Cluster(find_gpu("h100", 0.5), 1, 4), ["r"]).problems
    assert "take GPUs with more memory" in hopeless


def test_the_own_figures_of_a_listed_gpu_change_nothing():
    """Not the rates of other number formats either, which are not in proportion on every card."""
    h20 = find_gpu("h20")
    assert find_gpu("h20", h20.memory_gb, h20.bfloat16) == h20
    assert find_gpu("h20", None, 2 * h20.bfloat16).float32 == 2 * h20.bfloat16 / 16


def test_unknown_names_are_told(tmp_path):
    for more, told in (
        (("--gpu", "v100"), "--gpu v100: not listed"),
        (("--run", "x"), "--run x: no such run"),
    ):
        result = command(tmp_path, *more)
        assert result.exit_code == 1
        assert told in str(result.exception)


def test_a_model_that_is_nowhere_is_told_with_its_key(tmp_path):
    config = experiment(tmp_path)
    t2i = config.models.t2i.model_copy(update={"path": "owner/unknown"})
    config = config.model_copy(update={"models": config.models.model_copy(update={"t2i": t2i})})
    with pytest.raises(Exception, match="models.t2i.path: owner/unknown is not on this machine"):
        Planner(SETTINGS).run(config, Cluster(find_gpu("h100"), 1, 1), "r")


def test_auto_takes_the_first_mode_whose_update_fits_and_the_job_takes_the_same(tmp_path):
    auto = experiment(tmp_path, activation_checkpointing="auto", micro_batch_size=4)
    assert auto.models.t2i.dtype == "bfloat16"
    roomy = PLANNER.run(auto, Cluster(find_gpu("h100"), 1, 1), "r")
    off, selective, full = roomy.modes
    assert roomy.checkpointing == "off" and [one.mode for one in roomy.modes] == list(MODES)
    assert off.bytes > selective.bytes > full.bytes and off.flops == selective.flops < full.flops
    assert off.again == selective.again == 0 and full.again == full.flops - off.flops
    for between, expected in (((selective, off), "selective"), ((full, selective), "full"), ((full, full), "full")):
        gb = sum(one.bytes for one in between) / 2e9 + SETTINGS.reserve_gb - (1e-3 if between[0] is between[1] else 0)
        cluster = Cluster(find_gpu("h100", gb), 1, 1)
        assert PLANNER.run(auto, cluster, "r").checkpointing == expected
    for gb, expected in ((80, "off"), (6, "full")):  # a job counts prompts by the limits of `captions`
        config, told = choose_checkpointing(auto, "r", gb * 2**30, 1, 1)
        assert config.runs["r"].activation_checkpointing == expected and told.startswith(f"{expected}: the update ")
    sharded = experiment(tmp_path, activation_checkpointing="auto", zero_stage=3)  # all ranks must take the same
    assert PLANNER.run(sharded, Cluster(find_gpu("h100"), 1, 2), "r").checkpointing == "full"


@pytest.mark.parametrize("written, meant", [(True, "full"), (False, "off"), ("selective", "selective")])
def test_activation_checkpointing_as_the_switch_that_it_was(tmp_path, written, meant):
    config = experiment(tmp_path, activation_checkpointing=written)
    assert config.runs["r"].activation_checkpointing == meant
    assert slice_digest(config, "train", run="r") == slice_digest(experiment(tmp_path), "train", run="r")


def test_selective_checkpointing_of_partitioned_weights_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="selective does not go with zero_stage 3"):
        experiment(tmp_path, activation_checkpointing="selective", zero_stage=3)
