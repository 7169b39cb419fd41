"""bfloat16 for the frozen weights and float32 where it matters; activations computed again give the same gradients."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import tiny_qwenimage
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from tiny_experiment import Experiment, metrics_without_times
from tiny_policy import FOLDERS, PROMPTS, TRAINING, adapted, batch_of, two_ranks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from promptecho import awm
from promptecho.plan.checkpointing import MODES
from promptecho.t2i.lora import merged, trained_parameters
from promptecho.t2i.patches import pack
from promptecho.train import engine as engine_module
from promptecho.train.data import Batch
from promptecho.train.engine import Engine
from promptecho.train.launch import init_distributed
from promptecho.train.loop import train_segment
from promptecho.train.losses import loss_of, velocity

pytestmark = pytest.mark.usefixtures("train_in_process")

families = pytest.mark.parametrize("name", FOLDERS)
dtypes = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])


def gradients_of(loss: torch.Tensor, family) -> dict[str, torch.Tensor]:
    """Gradients but those that are 0: the text stream of Qwen-Image's last block leads nowhere."""
    parameters = trained_parameters(family.transformer)
    found = dict(zip(parameters, torch.autograd.grad(loss, [*parameters.values()], allow_unused=True), strict=True))
    used = {key: gradient for key, gradient in found.items() if gradient is not None and gradient.any()}
    last = f"transformer_blocks.{len(blocks(family)) - 1}."
    assert all(family.descriptor.name == "qwenimage" and last in key for key in found.keys() - used.keys())
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
        loss_of(family, batch, TRAINING)
    return set(made.alive())


# Activation checkpointing.


@families
@dtypes
def test_checkpointing_gives_the_same_gradients_and_keeps_far_less(name, dtype):
    found = {}
    for mode in MODES:
        family = adapted(name, dtype, checkpointing=mode)
        batch = batch_of(family)
        known = constants(family, batch)
        with Made() as made:
            loss, _ = loss_of(family, batch, TRAINING)
        kept = sum(size for storage, size in made.alive().items() if storage not in known)
        found[mode] = loss, gradients_of(loss, family), kept
    loss, gradients, kept = found["off"]
    for loss_again, gradients_again, _ in found.values():
        assert torch.equal(loss, loss_again)
        assert gradients.keys() == gradients_again.keys()
        assert all(torch.equal(gradient, gradients_again[key]) for key, gradient in gradients.items())
    assert found["full"][2] < kept / 4
    if dtype == "bfloat16":  # in float32 the adapter's products are several, whose results count
        assert found["full"][2] < found["selective"][2] < 0.8 * kept


@families
@dtypes
def test_passes_without_gradient_run_once_keep_nothing_and_equal_those_of_training(name, dtype):
    """The ratio to the old log-probability is exactly 1 while the policy has not moved: whether a pass keeps, drops or
    needs no activations, and in train and eval mode, its numbers are the same."""
    velocities, calls = [], []
    for mode in MODES:
        family = adapted(name, dtype, checkpointing=mode)
        batch = batch_of(family)
        x_t = awm.interpolate(batch.x0, batch.noise[0], batch.t[0])
        known, counted = constants(family, batch), []
        passes = len(set(map(len, batch.cond))) if name == "qwenimage" else 1  # it takes prompts of one length together
        for block in blocks(family):
            block.register_forward_pre_hook(lambda *_, counted=counted: counted.append(1))
        for training_mode in (True, False):
            family.transformer.train(training_mode)
            with torch.no_grad(), Made() as made:
                velocities.append(velocity(family, x_t, batch.t[0], batch.cond, TRAINING))
            assert len(counted) == passes * len(blocks(family))
            counted.clear()
        outside = {StorageWeakRef(value.untyped_storage()).cdata for value in (x_t, velocities[-1])}
        assert set(made.alive()) - known <= outside
        velocities.append(velocity(family, x_t, batch.t[0], batch.cond, TRAINING))
        velocities[-1].square().mean().backward()
        velocities[-1] = velocities[-1].detach()
        calls.append(len(counted) / len(blocks(family)) / passes)
    assert calls == [1, 2, 2]
    assert all(torch.equal(velocities[0], other) for other in velocities[1:])


# bfloat16.


@families
def test_half_precision_is_only_where_the_frozen_weights_are(name):
    family = adapted(name, "bfloat16")
    batch, seen = batch_of(family), []

    def note(module, args, kwargs):
        seen.append(kwargs["hidden_states"] if kwargs.get("hidden_states") is not None else torch.stack(args[0]))

    family.pipeline.transformer.register_forward_pre_hook(note, with_kwargs=True)
    loss, metrics = loss_of(family, batch, TRAINING)
    trained = trained_parameters(family.transformer)
    frozen = [p for p in family.transformer.parameters() if not p.requires_grad]
    assert {p.dtype for p in frozen} == {torch.bfloat16} and {p.dtype for p in trained.values()} == {torch.float32}
    # x_t is computed in float32 and rounded once; in bfloat16 from the start it would be another.
    x_t = awm.interpolate(batch.x0, batch.noise[0], batch.t[0])
    coarse = awm.interpolate(batch.x0.bfloat16(), batch.noise[0].bfloat16(), batch.t[0].bfloat16())
    assert x_t.dtype == torch.float32 and seen[0].dtype == torch.bfloat16

    def as_seen(value: torch.Tensor) -> torch.Tensor:
        return pack(value) if name == "qwenimage" else value.unsqueeze(2)

    # Passes hold images of one length, so the first ones together hold the batch, in an order of their own.
    images = torch.cat(seen)[: len(x_t)]

    def all_seen(value: torch.Tensor) -> bool:
        return all(any(torch.equal(image, row) for row in as_seen(value)) for image in images)

    assert len(images) == len(x_t) and all_seen(x_t.bfloat16()) and not all_seen(coarse)
    found = velocity(family, x_t, batch.t[0], batch.cond, TRAINING)
    assert found.dtype == torch.float32
    assert awm.matching_log_prob(found, batch.x0, batch.noise[0], batch.t[0]).dtype == torch.float64
    assert loss.dtype == torch.float32 and metrics["ratio_mean"].dtype == torch.float64
    assert {gradient.dtype for gradient in gradients_of(loss, family).values()} == {torch.float32}


class MatrixProducts(TorchDispatchMode):
    """Counts matrix products by the type of their factors; the operator of layers with their adapters has two for each,
    and one for all of them."""

    def __init__(self):
        super().__init__()
        self.counts: dict[torch.dtype, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm):
            self.counts[args[-1].dtype] = self.counts.get(args[-1].dtype, 0) + 1
        if func is torch.ops.promptecho.lora_linear.default:
            self.counts[args[0].dtype] = self.counts.get(args[0].dtype, 0) + 2 * len(args[1]) + 1
        return func(*args, **(kwargs or {}))


def computing_in_float32(family) -> None:
    """What PEFT does with a float32 adapter by itself."""
    for layer in family.transformer.modules():
        if isinstance(layer, LoraLayer):
            layer.cast_input_dtype_enabled = True


@families
def test_the_adapters_products_are_computed_as_the_base_layers_are(name):
    family = adapted(name, "bfloat16")
    x, t, cond = batch_of(family).x0, torch.full((2,), 0.5), family.encode_prompts(PROMPTS)
    with torch.no_grad():
        with family.transformer.disable_adapter(), MatrixProducts() as without:
            base = family.velocity(x, t, cond)
        with MatrixProducts() as products:
            found = family.velocity(x, t, cond)
        computing_in_float32(family)
        with MatrixProducts() as in_float32:
            exact = family.velocity(x, t, cond)
    adapters = sum(isinstance(module, LoraLayer) for module in family.transformer.modules())
    half, full = torch.bfloat16, torch.float32
    assert products.counts[half] >= without.counts[half] + adapters
    assert products.counts.get(full, 0) == without.counts.get(full, 0) < in_float32.counts[full]
    # Hardly more is lost than the base layers' own rounding loses, and much less than the adapter does.
    family_32 = adapted(name, "float32")
    truth = family_32.velocity(x, t, [one.float() for one in cond]).detach()
    assert (found - truth).norm() < 1.2 * (exact - truth).norm() < 0.5 * (found - base).norm()


@families
def test_in_bfloat16_sampling_folds_nothing_unless_told_and_samples_in_float32(name):
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
    loss, _ = loss_of(family, batch_of(family), training)
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


def test_the_optimizers_one_kernel_steps_as_torchs_own_loop_and_resumes(monkeypatch):
    """On GPUs AdamW is one kernel; there is one for CPUs too, which is taken here."""
    device, found = torch.device("cpu"), []
    init_distributed(TRAINING, device)
    for fused in ((), ("cpu",)):
        monkeypatch.setattr(engine_module, "FUSED", fused)
        family = adapted("zimage", "float32")
        engine = Engine(family.transformer, TRAINING, device, accumulation=1)
        assert engine._inner_optimizer().defaults["fused"] is bool(fused)
        for _ in range(3):
            weights, moments, steps = engine.weights(), engine.moments(), engine.optimizer_steps
            engine.set_state(weights, moments, steps)
            engine.backward(loss_of(family, batch_of(family), TRAINING)[0])
        assert engine.optimizer_steps == 3
        found.append(torch.cat([value.flatten() for value in engine.weights().values()]))
    loop, kernel = found
    torch.testing.assert_close(kernel, loop, rtol=1e-5, atol=1e-7)


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
    config = config_of(experiment, "partitioned", zero_stage=3, activation_checkpointing="full")
    two_ranks(experiment.train(config, 2, "partitioned"))
    return experiment.folder / "partitioned" / "2"


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
