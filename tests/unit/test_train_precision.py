"""bfloat16 for the frozen weights and float32 where it matters; activations computed again give the same gradients."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_qwenimage
import tiny_t2i
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from tiny_experiment import Experiment, metrics_without_times
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from promptecho import awm
from promptecho.config.training import LoraSection, TrainingConfig
from promptecho.errors import PromptEchoError
from promptecho.t2i.qwenimage import pack
from promptecho.t2i.registry import load_family
from promptecho.train.dump import load_batch
from promptecho.train.engine import Engine
from promptecho.train.failures import report_not_finite
from promptecho.train.launch import init_distributed
from promptecho.train.loop import train_segment
from promptecho.train.lora import add_lora, lora_parameters, merged
from promptecho.train.update import Batch, NotFiniteError, awm_loss, find_not_finite, velocity

pytestmark = pytest.mark.usefixtures("train_in_process")

FOLDERS = {"zimage": tiny_t2i.shared_folder, "qwenimage": tiny_qwenimage.shared_folder}
TRAINING = TrainingConfig(lora={"rank": 4, "alpha": 8}, kl_base={"weight": 0.1})
PROMPTS = ["A red circle.", "The image shows a ring and a black cross, and three blue squares."]

families = pytest.mark.parametrize("name", FOLDERS)
dtypes = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])


def adapted(name: str, dtype: str, *, checkpointing=False, lora: LoraSection = TRAINING.lora, folder=None):
    """A family with an adapter that is no longer the identity."""
    family = load_family(name, str(folder or FOLDERS[name]()), dtype=dtype)
    if checkpointing:
        family.enable_activation_checkpointing()
    family.transformer = add_lora(family.transformer, lora, 0, family.lora_targets)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in lora_parameters(family.transformer).values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return family


def batch_of(family, n: int = 2) -> Batch:
    """`n` images at one timestep each, prompts of different lengths."""
    generator = torch.Generator().manual_seed(1)
    shape = (n, *family.latent_shape(64, 64))
    x0, noise, reference = (torch.randn(shape, generator=generator) for _ in range(3))
    t, advantages = torch.linspace(0.3, 0.7, n)[None], torch.linspace(1, -0.5, n, dtype=torch.float64)
    return Batch(
        list("abcd")[:n], x0, family.encode_prompts(PROMPTS) * (n // 2), advantages, t, noise[None],
        torch.full((1, n), -1.0, dtype=torch.float64), base_velocity=reference[None],
    )  # fmt: skip


def gradients_of(loss: torch.Tensor, family) -> dict[str, torch.Tensor]:
    """Gradients but those that are 0: the text stream of Qwen-Image's last block leads nowhere."""
    parameters = lora_parameters(family.transformer)
    found = dict(zip(parameters, torch.autograd.grad(loss, [*parameters.values()], allow_unused=True), strict=True))
    used = {key: gradient for key, gradient in found.items() if gradient is not None and gradient.any()}
    last = f"transformer_blocks.{len(blocks(family)) - 1}."
    assert all(family.name == "qwenimage" and last in key for key in found.keys() - used.keys())
    return used


def blocks(family) -> list[torch.nn.Module]:
    """All transformer blocks; of Z-Image the refiners' too."""
    return [m for m in family.pipeline.transformer.modules() if type(m).__name__.endswith("TransformerBlock")]


class Made(TorchDispatchMode):
    """Every storage that a pass makes or touches; tells which of them are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: list[tuple[StorageWeakRef, int]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                self.storages.append((StorageWeakRef(storage), storage.nbytes()))
        return result

    def alive(self) -> dict[int, int]:
        """Bytes of those that are still alive, by storage."""
        return {reference.cdata: size for reference, size in self.storages if not reference.expired()}


def constants(family, batch: Batch) -> set[int]:
    """Storages that outlive a pass without gradient: weights, and what the model computes once (rotary tables)."""
    with torch.no_grad(), Made() as made:
        awm_loss(family, batch, TRAINING)
    return set(made.alive())


# Activation checkpointing.


@families
@dtypes
def test_checkpointing_gives_the_same_gradients_and_keeps_far_less(name, dtype):
    found = []
    for checkpointing in (False, True):
        family = adapted(name, dtype, checkpointing=checkpointing)
        batch = batch_of(family)
        known = constants(family, batch)
        with Made() as made:
            loss, _ = awm_loss(family, batch, TRAINING)
        kept = sum(size for storage, size in made.alive().items() if storage not in known)
        found.append((loss, gradients_of(loss, family), kept))
    (loss, gradients, kept), (loss_again, gradients_again, kept_again) = found
    assert torch.equal(loss, loss_again)
    assert gradients.keys() == gradients_again.keys()
    assert all(torch.equal(gradient, gradients_again[key]) for key, gradient in gradients.items())
    assert kept_again < kept / 4


@families
@dtypes
def test_passes_without_gradient_run_once_keep_nothing_and_equal_those_of_training(name, dtype):
    """The ratio to the old log-probability is exactly 1 while the policy has not moved: whether a pass keeps, drops or
    needs no activations, and in train and eval mode, its numbers are the same."""
    velocities, calls = [], []
    for checkpointing in (False, True):
        family = adapted(name, dtype, checkpointing=checkpointing)
        batch = batch_of(family)
        x_t = awm.interpolate(batch.x0, batch.noise[0], batch.t[0])
        known, counted = constants(family, batch), []
        for block in blocks(family):
            block.register_forward_pre_hook(lambda *_, counted=counted: counted.append(1))
        for training_mode in (True, False):
            family.transformer.train(training_mode)
            with torch.no_grad(), Made() as made:
                velocities.append(velocity(family, x_t, batch.t[0], batch.cond, TRAINING))
            assert len(counted) == len(blocks(family))
            counted.clear()
        outside = {StorageWeakRef(value.untyped_storage()).cdata for value in (x_t, velocities[-1])}
        assert set(made.alive()) - known <= outside
        velocities.append(velocity(family, x_t, batch.t[0], batch.cond, TRAINING))
        velocities[-1].square().mean().backward()
        velocities[-1] = velocities[-1].detach()
        calls.append(len(counted) / len(blocks(family)))
    assert calls == [1, 2]
    assert all(torch.equal(velocities[0], other) for other in velocities[1:])


# bfloat16.


@families
def test_half_precision_is_only_where_the_frozen_weights_are(name):
    family = adapted(name, "bfloat16")
    batch, seen = batch_of(family), []

    def note(module, args, kwargs):
        seen.append(kwargs["hidden_states"] if kwargs.get("hidden_states") is not None else torch.stack(args[0]))

    family.pipeline.transformer.register_forward_pre_hook(note, with_kwargs=True)
    loss, metrics = awm_loss(family, batch, TRAINING)
    trained = lora_parameters(family.transformer)
    frozen = [p for p in family.transformer.parameters() if not p.requires_grad]
    assert {p.dtype for p in frozen} == {torch.bfloat16} and {p.dtype for p in trained.values()} == {torch.float32}
    # x_t is computed in float32 and rounded once; in bfloat16 from the start it would be another.
    x_t = awm.interpolate(batch.x0, batch.noise[0], batch.t[0])
    coarse = awm.interpolate(batch.x0.bfloat16(), batch.noise[0].bfloat16(), batch.t[0].bfloat16())
    assert x_t.dtype == torch.float32 and seen[0].dtype == torch.bfloat16

    def as_seen(value: torch.Tensor) -> torch.Tensor:
        return pack(value) if name == "qwenimage" else value.unsqueeze(2)

    assert torch.equal(seen[0], as_seen(x_t.bfloat16())) and not torch.equal(seen[0], as_seen(coarse))
    found = velocity(family, x_t, batch.t[0], batch.cond, TRAINING)
    assert found.dtype == torch.float32
    assert awm.matching_log_prob(found, batch.x0, batch.noise[0], batch.t[0]).dtype == torch.float64
    assert loss.dtype == torch.float32 and metrics["ratio_mean"].dtype == torch.float64
    assert {gradient.dtype for gradient in gradients_of(loss, family).values()} == {torch.float32}


@families
def test_in_bfloat16_sampling_folds_nothing_and_samples_in_float32(name):
    family = adapted(name, "bfloat16")
    noise, cond = batch_of(family).x0, family.encode_prompts(PROMPTS)
    before = {key: p.clone() for key, p in family.transformer.named_parameters()}
    options = {"num_inference_steps": 2, "guidance_scale": 2.0}
    plain = family.sample(noise, cond, **options)
    with merged(family.transformer):
        sampled = family.sample(noise, cond, **options)
        assert all(torch.equal(p, before[key]) for key, p in family.transformer.named_parameters())
    assert sampled.dtype == torch.float32 and torch.equal(sampled, plain)
    assert not torch.equal(sampled, sampled.bfloat16().float())  # steps add up in float32
    with family.transformer.disable_adapter():
        assert not torch.equal(family.sample(noise, cond, **options), plain)


@pytest.mark.parametrize("stage, name", [(1, "zimage"), (2, "qwenimage")])
def test_gradients_are_reduced_and_weights_stepped_in_float32(stage, name):
    family = adapted(name, "bfloat16")
    training = TRAINING.model_copy(update={"zero_stage": stage})
    device = torch.device("cpu")
    init_distributed(training, device)
    engine = Engine(family.transformer, training, device, accumulation=1)
    before = engine.weights()
    assert engine.engine.communication_data_type == torch.float32
    loss, _ = awm_loss(family, batch_of(family), training)
    engine.backward(loss)
    assert not engine.overflow and math.isfinite(engine.grad_norm) and engine.grad_norm > 0
    after = engine.weights()
    # AdamW's first step moves each weight by the learning rate, 5e-5: in bfloat16 most would stay where they were.
    moved = torch.cat([(after[key] - before[key]).flatten().abs() for key in before])
    moved = moved[moved > 0]  # of Qwen-Image's last block the text stream leads nowhere
    assert (moved > 0.5 * training.learning_rate).double().mean() > 0.95 and len(moved) > 0.75 * sum(
        value.numel() for value in before.values()
    )
    parts = [p for group in engine.engine.optimizer.optimizer.param_groups for p in group["params"]]
    assert {p.dtype for p in parts} == {torch.float32} and parts[0].numel() == sum(v.numel() for v in before.values())
    assert {p.dtype for p in family.transformer.parameters() if not p.requires_grad} == {torch.bfloat16}


# Whole iterations. With one pass of one batch each, every ratio is that of a policy to itself.

RUN = {"iterations": 3, "checkpoints": [2, 3], "batch_size": 8, "passes": 1}


def config_of(experiment: Experiment, name: str, **training) -> Path:
    t2i = {"family": "qwenimage", "path": str(experiment.t2i), "dtype": "bfloat16", "height": 64, "width": 64}
    models = {"t2i": t2i, "vlm": {"path": str(experiment.vlm), "dtype": "float32"}}
    return experiment.config(name, sections={"models": models}, **{**RUN, **training})


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    return Experiment(tmp_path_factory.mktemp("precision"), t2i=tiny_qwenimage.shared_folder())


@pytest.fixture(scope="module")
def alone(experiment) -> list[Path]:
    """Checkpoints 2 and 3 of a single process with ZeRO-1."""
    config = config_of(experiment, "alone")
    first = experiment.segment("alone", config, 2)
    second = experiment.segment("alone", config, 3, resume=first.out)
    assert train_segment(first) and train_segment(second)
    return [first.out, second.out]


@pytest.fixture(scope="module")
def partitioned(experiment) -> Path:
    """Checkpoint 2 of two processes with ZeRO-3, every weight in two parts, and activation checkpointing."""
    config = config_of(experiment, "partitioned", zero_stage=3, activation_checkpointing=True)
    torchrun(experiment.train(config, 2, "partitioned"))
    return experiment.folder / "partitioned" / "2"


def torchrun(arguments: list[str]) -> None:
    driver = str(Path(__file__).with_name("partition_everything.py"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--", driver]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run([*launcher, *arguments], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-4000:]


def test_iterations_in_bfloat16_are_finite_and_begin_with_ratios_of_one(alone, partitioned):
    rows = [row for folder in (*alone, partitioned) for row in metrics_without_times(folder)]
    assert [row["iteration"] for row in rows] == [1, 2, 3, 1, 2]
    for row in rows:
        assert all(math.isfinite(value) for value in row.values())
        # Old passes and training passes meet the same images in other company, of which the longest prompt decides how
        # far Qwen-Image pads; that much is left of float noise. Ratios are clipped at 0.2.
        assert row["ratio_mean"] == pytest.approx(1, abs=1e-4) and row["clip_fraction"] == 0 and row["grad_norm"] > 0
    assert rows[1]["kl_base"] > 0  # by now the adapter is no longer the identity


def test_states_and_adapters_are_float32_whatever_the_base_weights_are(alone, partitioned):
    for folder in (*alone, partitioned):
        files = [*(folder / "state").glob("*.safetensors"), *(folder / "adapter").glob("*.safetensors")]
        assert len(files) >= 6
        for file in files:
            tensors = load_file(file)
            assert {value.dtype for value in tensors.values()} == {torch.float32}, file
            assert all(value.isfinite().all() for value in tensors.values()), file
        weights = load_file(folder / "state" / "weights.safetensors")
        assert any(not torch.equal(value, value.bfloat16().float()) for value in weights.values())


def assert_same_run(ours: Path, theirs: Path) -> None:
    """Up to the noise of bfloat16, which Adam's first steps, all of one size, carry to the weights."""
    for a, b in zip(metrics_without_times(ours), metrics_without_times(theirs), strict=True):
        assert a.keys() == b.keys() and a["optimizer_steps"] == b["optimizer_steps"]
        assert a["reward_mean"] == pytest.approx(b["reward_mean"], rel=1e-3)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=2e-2 if a["iteration"] == 1 else 0.5)
    first, second = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (ours, theirs))
    assert {key: value.shape for key, value in first.items()} == {key: value.shape for key, value in second.items()}
    # The B matrices start at 0: all they hold was learnt.
    first, second = (torch.cat([w[k].flatten() for k in sorted(w) if "lora_B" in k]) for w in (first, second))
    assert torch.cosine_similarity(first, second, dim=0) > 0.9 and second.abs().max() > 5e-3


def test_zero_3_on_two_ranks_is_zero_1_on_one(alone, partitioned):
    assert_same_run(partitioned, alone[0])


def test_a_run_saved_by_zero_3_on_two_ranks_goes_on_with_zero_1_on_one(experiment, alone, partitioned):
    job = experiment.segment("goes_on", config_of(experiment, "goes_on"), 3, resume=partitioned)
    assert train_segment(job)
    assert_same_run(job.out, alone[1])


# ZeRO-3 in float32, where tolerances are tight: gradients, and a state that is put back.

STEPS = TRAINING.model_copy(update={"lora": LoraSection(rank=3, alpha=6), "learning_rate": 1e-3, "max_grad_norm": 1e9})


def take_steps(stage: int, folder: str, work: Path, *, checkpointing: bool) -> dict[str, torch.Tensor]:
    """Two optimizer steps on four images each, dealt to the ranks; then the second again, from the state before it.

    Weights after the second ("weights.NAME") and after it was repeated ("again.NAME"), and the norms of the gradients.
    The adapter's rank of 3 makes weights that two ranks can't share evenly. At last a step on an image of the last rank
    that is not finite.
    """
    training, device = STEPS.model_copy(update={"zero_stage": stage}), torch.device("cpu")
    init_distributed(training, device)
    rank, world_size = dist.get_rank(), dist.get_world_size()
    family = adapted("zimage", "float32", checkpointing=checkpointing, lora=training.lora, folder=folder)
    batch = batch_of(family, n=4)
    engine = Engine(family.transformer, training, device, accumulation=4 // world_size)
    norms = []

    def step() -> None:
        for image in range(rank, 4, world_size):
            with torch.no_grad():  # passes of both kinds take turns, as in an iteration
                velocity(family, batch.x0[:1], torch.ones(1), batch.cond[:1], training)
            loss, _ = awm_loss(family, batch.take([image]), training)
            engine.backward(loss)
        norms.append(engine.grad_norm)

    step()
    weights, moments, steps = engine.weights(), engine.moments(), engine.optimizer_steps
    step()
    after = engine.weights()
    engine.set_state(weights, moments, steps)
    back, kinds = engine.weights(), engine.moments()
    assert steps == engine.optimizer_steps == 1 and all(torch.equal(back[key], weights[key]) for key in weights)
    assert all(torch.equal(kinds[kind][key], moments[kind][key]) for kind in moments for key in weights)
    if stage == 3:
        frozen = [p for p in family.transformer.parameters() if not p.requires_grad]
        assert all(p.numel() == 0 and p.ds_tensor.numel() == -(-p.ds_numel // world_size) for p in frozen)
    step()
    found = {f"weights.{key}": value for key, value in after.items()}
    found |= {f"again.{key}": value for key, value in engine.weights().items()}
    found["norms"] = torch.tensor(norms)
    batch.x0[3] = float("nan")
    step()
    assert engine.overflow
    assert all(torch.equal(value, found[f"again.{key}"]) for key, value in engine.weights().items())
    own = list(range(rank, 4, world_size))
    what, guilty = find_not_finite(family, engine, batch.take(own), training, [[0]])
    assert (what, [own[index] for index in guilty]) == (("loss", [3]) if 3 in own else ("", []))
    error = NotFiniteError(what, batch.take([own[index] for index in guilty]), 0)
    with pytest.raises(PromptEchoError, match=r"the loss is not finite on prompt\(s\) d;"):
        report_not_finite(error, work, "r", 1, engine)
    return found


def partitioned_steps(folder: str, out: str) -> None:
    """On each of several ranks; in a process of its own, because DeepSpeed replaces `torch.nn.functional.linear`."""
    torch.set_num_threads(1)
    found = take_steps(3, folder, Path(out).parent, checkpointing=True)
    if dist.get_rank() == 0:
        save_file(found, out)


def test_partitioned_gradients_are_those_of_one_process_and_a_state_put_back_gives_the_same_bits(tmp_path):
    folder = str(tiny_t2i.shared_folder())
    expected = take_steps(1, folder, tmp_path / "alone", checkpointing=False)
    torchrun(["steps", folder, str(tmp_path / "found.safetensors")])
    found = load_file(tmp_path / "found.safetensors")
    assert found.keys() == expected.keys()
    for values in (found, expected):
        names = [key.removeprefix("weights.") for key in values if key.startswith("weights.")]
        assert len(names) > 50 and all(torch.equal(values[f"weights.{key}"], values[f"again.{key}"]) for key in names)
        assert values["norms"][1] == values["norms"][2]
    # What a failed step leaves holds whole weights, though no rank has them.
    (left,) = (load_batch(path)[0] for path in tmp_path.glob("not-finite-*"))
    assert all(torch.equal(left[f"weights.{key}"], found[f"again.{key}"]) for key in names)
    torch.testing.assert_close(found["norms"], expected["norms"], rtol=1e-4, atol=0)
    for key in names:
        torch.testing.assert_close(found[f"weights.{key}"], expected[f"weights.{key}"], rtol=1e-4, atol=2e-5)
