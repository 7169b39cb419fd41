"""A linear layer with its adapter as one operator, and the adapter folded into bfloat16: against PEFT's own layer and
against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import Linear as PeftLinear
from peft.tuners.lora import LoraLayer
from tiny_policy import FOLDERS, PROMPTS, TRAINING, adapted, batch_of
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from promptecho.t2i import lora as lora_module
from promptecho.t2i.lora import add_lora, folded_bytes, load_adapter, merged, rounded, save_adapter, trained_parameters
from promptecho.t2i.lora_linear import AdaptedWeights, lora_linear, together
from promptecho.t2i.registry import load_family
from promptecho.train.losses import loss_of

families = pytest.mark.parametrize("name", FOLDERS)


def one_layer(bias: bool = True, rank: int = 8) -> torch.nn.ModuleDict:
    """PEFT's layer in float32, its adapter no longer the identity."""
    torch.manual_seed(0)
    bare = torch.nn.ModuleDict({"to_q": torch.nn.Linear(96, 80, bias=bias)}).requires_grad_(False)
    model = get_peft_model(bare, LoraConfig(r=rank, lora_alpha=3 * rank, target_modules=["to_q"]))  # type: ignore[arg-type]
    torch.nn.init.normal_(model.base_model.model["to_q"].lora_B["default"].weight, std=0.1)
    return model.base_model.model


def results(layer, x: torch.Tensor, out: torch.Tensor) -> list[torch.Tensor]:
    """Result and gradients of x, A and B in float64, for the gradient `out` of the result."""
    x = x.detach().requires_grad_()
    a, b = (part["default"].weight for part in (layer.lora_A, layer.lora_B))
    a.grad = b.grad = None
    y = layer(x)
    y.backward(out.to(y.dtype))
    return [value.detach().double().clone() for value in (y, x.grad, a.grad, b.grad)]


def as_operator(layer) -> torch.nn.Module:
    class Operator(torch.nn.Module):
        lora_A, lora_B = layer.lora_A, layer.lora_B

        def forward(self, x):
            base, a, b = layer.base_layer, layer.lora_A["default"].weight, layer.lora_B["default"].weight
            return lora_linear(x, AdaptedWeights(base.weight, base.bias, a, b, layer.scaling["default"]))[0]

    return Operator()


def errors(found: list[torch.Tensor], exact: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([(one - truth).norm() / truth.norm() for one, truth in zip(found, exact, strict=True)])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("shape", "n"), [((7, 96), 3), ((2, 37, 96), 1)])
def test_the_operator_computes_what_pefts_layer_does(bias, shape, n):
    layer = one_layer(bias)["to_q"]
    x, out = torch.randn(shape), torch.randn(*shape[:-1], 80)
    assert errors(results(as_operator(layer), x, out), results(layer, x, out)).max() < 1e-6
    half = [layer.base_layer.weight.bfloat16(), None if not bias else layer.base_layer.bias.bfloat16()]
    a, b = (part["default"].weight for part in (layer.lora_A, layer.lora_B))
    # Schema, shapes without values, gradients and tracing, as torch checks operators of its own.
    for dtype, base in ((torch.float32, [layer.base_layer.weight, layer.base_layer.bias]), (torch.bfloat16, half)):
        biases = [one for one in base[1:] if one is not None]
        arguments = (x.to(dtype).requires_grad_(), [base[0]] * n, biases * n, [a] * n, [b] * n, 3.0)
        torch.library.opcheck(torch.ops.promptecho.lora_linear.default, arguments)


def test_in_bfloat16_it_is_nearer_to_float64_than_pefts_sum(seeds=range(8)):
    """The adapter's result is not rounded before it is scaled and added, nor is the gradient of x."""
    ours, pefts = [], []
    for seed in seeds:
        exact, layer = one_layer().double()["to_q"], one_layer()["to_q"]
        layer.base_layer.bfloat16()
        exact.base_layer.weight.data = layer.base_layer.weight.double()  # the same rounded weights
        exact.base_layer.bias.data = layer.base_layer.bias.double()
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(2, 200, 96, generator=generator).bfloat16()
        out = torch.randn(2, 200, 80, generator=generator).bfloat16()
        truth = results(exact, x.double(), out.double())
        wrapped = torch.nn.Module()
        wrapped.layer = layer
        lora_module._computing_as_the_base(wrapped)  # type: ignore[arg-type]
        assert type(layer) is lora_module._LoraLinear
        ours.append(errors(results(layer, x, out), truth))
        layer.__class__ = PeftLinear  # its products in bfloat16 as before, written out
        pefts.append(errors(results(layer, x, out), truth))
    mean, before = torch.stack(ours).mean(0), torch.stack(pefts).mean(0)
    assert (mean[:2] < 0.99 * before[:2]).all() and (mean <= 1.02 * before).all() and before.max() < 4e-3


@families
def test_every_layer_of_a_model_takes_it_in_half_precision_and_none_in_float32(name):
    half, full = adapted(name, "bfloat16"), adapted(name, "float32")
    layers = [module for module in half.transformer.modules() if isinstance(module, LoraLayer)]
    assert layers and {type(one) for one in layers} == {lora_module._LoraLinear}
    x, t = batch_of(half).x0, torch.full((2,), 0.5)
    calls = []
    for family in (half, full):
        cond = family.encode_prompts(PROMPTS)
        with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as seen:
            family.velocity(x, t, cond)
        calls.append(sum(event.count for event in seen.key_averages() if event.key == "promptecho::lora_linear"))
    passes = len(set(map(len, cond))) if name == "qwenimage" else 1  # it takes prompts of one length together
    behind_another = ("to_k", "to_v", "add_k_proj", "add_v_proj", "w3")  # each shares its input, and so the operator
    names = [key.rpartition(".")[2] for key, module in half.transformer.named_modules() if module in layers]
    assert calls == [passes * sum(key not in behind_another for key in names), 0]
    with torch.no_grad():  # float32 is PEFT's own, to the bit
        ours = full.velocity(x, t, cond)
        for layer in full.transformer.modules():
            if isinstance(layer, LoraLayer):
                layer.__class__ = PeftLinear
        assert torch.equal(full.velocity(x, t, cond), ours)


def apart(x: torch.Tensor, *layers: AdaptedWeights) -> list[torch.Tensor]:
    return [lora_linear(x, layer)[0] for layer in layers]


def test_layers_with_one_input_are_as_near_to_float64_together_as_apart(seeds=range(8)):
    """The gradient of x is no sum of rounded ones; unequal ranks, and a layer whose result nothing uses."""
    found: dict[str, list[torch.Tensor]] = {"together": [], "apart": []}
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)

        def random(*shape: int, of: torch.Generator = generator) -> torch.Tensor:
            return (torch.randn(shape, generator=of) / shape[-1] ** 0.5).bfloat16()

        outs, ranks = (80, 64, 48, 8), (8, 4, 8, 8)
        x, weights = random(2, 200, 96), [random(out, 96) for out in outs]
        gradients = [random(2, 200, out) for out in outs[:3]]
        adapters = [(random(rank, 96), random(out, rank)) for out, rank in zip(outs, ranks, strict=True)]
        values = {}
        for way, dtype in (("exact", torch.float64), ("together", torch.bfloat16), ("apart", torch.bfloat16)):
            leaves = [x.to(dtype).requires_grad_()]
            layers = []
            for weight, (a, b) in zip(weights, adapters, strict=True):
                of_adapter = [part.to(max(dtype, torch.float32, key=lambda one: one.itemsize)) for part in (a, b)]
                leaves += [part.requires_grad_() for part in of_adapter]
                layers.append(AdaptedWeights(weight.to(dtype), None, *of_adapter, 1.5))
            results = (apart if way == "apart" else lora_linear)(leaves[0], *layers)[:3]
            of_leaves = torch.autograd.grad(results, leaves, [one.to(dtype) for one in gradients], allow_unused=True)
            values[way] = [one.double() for one in (*results, *of_leaves[:7])]
            assert all(one is None or not one.any() for one in of_leaves[7:])
        for way in found:
            found[way].append(errors(values[way], values["exact"]))
    one, other = (torch.stack(found[way]).mean(0) for way in ("together", "apart"))
    assert (one <= 1.02 * other).all() and one[3] < 0.95 * other[3] and other.max() < 6e-3


def test_together_is_each_layer_by_itself_where_one_cannot():
    layer, plain, x = one_layer()["to_q"], torch.nn.Linear(96, 80), torch.randn(7, 96)
    found = together(x, layer, plain)
    assert torch.equal(found[0], layer(x)) and torch.equal(found[1], plain(x))


@families
def test_in_float32_and_without_an_adapter_blocks_compute_the_bits_of_diffusers_own(name):
    shared, own = (adapted(name, "float32") for _ in range(2))
    for module in own.pipeline.transformer.modules():
        for part in (module, getattr(module, "processor", module)):
            if "SharedInput" in type(part).__name__:
                part.__class__ = type(part).__base__
    batch = batch_of(shared)
    for with_adapter in (True, False):
        values = []
        for family in (shared, own):
            weights = [*trained_parameters(family.transformer).values()]
            if with_adapter:
                loss = loss_of(family, batch, TRAINING)[0]
                values.append([loss, *torch.autograd.grad(loss, weights, allow_unused=True)])
            else:
                with family.transformer.disable_adapter(), torch.no_grad():
                    values.append([family.velocity(batch.x0, batch.t[0], batch.cond)])
        assert all(a is b or torch.equal(a, b) for a, b in zip(*values, strict=True))
    kinds = {type(getattr(m, "processor", m)).__name__ for m in shared.pipeline.transformer.modules()}
    assert any("SharedInput" in kind for kind in kinds)


@families
def test_a_models_gradients_are_as_near_to_float64_as_pefts(name):
    truth, ours, pefts = adapted(name, "float32"), adapted(name, "bfloat16"), adapted(name, "bfloat16")
    rounded_weights = dict(ours.transformer.named_parameters())
    with torch.no_grad():
        for key, parameter in truth.transformer.named_parameters():
            parameter.copy_(rounded_weights[key])
    truth.transformer.double()
    for layer in pefts.transformer.modules():
        if isinstance(layer, LoraLayer):
            layer.__class__ = PeftLinear
    batch, gradients, work = batch_of(ours), [], []
    for family in (truth, ours, pefts):
        one = batch_of(ours)
        one.cond = [cond.to(family.transformer.dtype) for cond in batch.cond]
        with FlopCounterMode(display=False) as flops:
            loss_of(family, one, TRAINING)[0].backward()
        work.append(flops.get_total_flops())
        found = trained_parameters(family.transformer).values()
        gradients.append(torch.cat([p.grad.double().flatten() for p in found if p.grad is not None]))
    exact, ours_found, pefts_found = gradients
    assert work[1] == work[2]  # the operator's FLOPs count as its products do
    assert (ours_found - exact).norm() < 1.1 * (pefts_found - exact).norm() < 0.3 * exact.norm()


def test_other_kinds_of_adapters_are_left_to_peft():
    for options in ({"use_dora": True}, {"lora_bias": True}, {"lora_dropout": 0.1}):
        bare = torch.nn.ModuleDict({"to_q": torch.nn.Linear(16, 16)})
        model = get_peft_model(bare, LoraConfig(r=2, target_modules=["to_q"], **options))
        layer = lora_module._computing_as_the_base(model).base_model.model["to_q"]
        assert type(layer) is PeftLinear, options


def test_adapters_are_saved_as_pefts_own_are(tmp_path):
    family = load_family("zimage", str(FOLDERS["zimage"]()), dtype="bfloat16")
    config = TRAINING.lora
    ours = add_lora(family.transformer, config, 0, family.lora_targets)
    plain = load_family("zimage", str(FOLDERS["zimage"]()), dtype="bfloat16").transformer
    theirs = get_peft_model(
        plain, LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=list(family.lora_targets["all"]))
    )
    expected = {key: value.shape for key, value in get_peft_model_state_dict(theirs).items()}
    assert {key: value.shape for key, value in get_peft_model_state_dict(ours).items()} == expected
    save_adapter(
        ours, {key: p.detach() for key, p in trained_parameters(ours).items()}, tmp_path / "a", family.descriptor
    )
    again = load_adapter(load_family("zimage", str(FOLDERS["zimage"]()), dtype="bfloat16").transformer, tmp_path / "a")
    assert any(type(module) is lora_module._LoraLinear for module in again.modules())


# Folding.


def test_rounding_by_chance_is_right_on_average_and_the_same_each_time():
    values = torch.full((100_000,), 1 + 0.3 / 128)  # bfloat16 has 1 and 1 + 1/128
    found = rounded(values, 5)
    assert found.dtype == torch.bfloat16 and set(found.double().tolist()) == {1.0, 1 + 1 / 128}
    assert float((found > 1).double().mean()) == pytest.approx(0.3, abs=0.01)
    assert torch.equal(found, rounded(values, 5)) and not torch.equal(found, rounded(values, 6))
    exact = torch.tensor([0.0, -0.0, 1.5, -2.0, 3e38, -1e-38]).bfloat16().float()
    assert torch.equal(rounded(exact, 0).float(), exact)


SHAPES_PROMPTS = ["A red circle.", "Two blue squares and a green triangle.", "A yellow star above a purple ring."]


@pytest.mark.parametrize("strength", [1.0, 0.05])
def test_folded_into_bfloat16_images_change_by_no_more_than_bfloat16_changes_them(strength, tmp_path):
    """The embedded model, adapted as much as its training does (the velocities by a seventh), and by a twentieth of it.
    float32 with the same base weights is the truth."""
    half, full = (load_family("zimage", "shapes", dtype="bfloat16") for _ in range(2))
    full.transformer.float()
    for family in (half, full):
        family.transformer = add_lora(family.transformer, TRAINING.lora, 0, family.lora_targets)
        generator = torch.Generator().manual_seed(0)
        for key, parameter in trained_parameters(family.transformer).items():
            if "lora_B" in key:
                parameter.data = strength * 0.02 * torch.randn(parameter.shape, generator=generator)
    noise = torch.randn(3, *half.latent_shape(64, 64), generator=torch.Generator().manual_seed(3))
    cond = half.encode_prompts(SHAPES_PROMPTS)
    before = {key: value.clone() for key, value in half.transformer.state_dict().items()}

    def images(family) -> np.ndarray:
        latents = family.sample(
            noise, [one.to(family.transformer.dtype) for one in cond], num_inference_steps=3, guidance_scale=2.0
        )
        return np.stack([np.asarray(image) for image in family.decode(latents)]).astype(float)

    def velocities(family) -> torch.Tensor:
        found = []
        for seed in range(4):
            x_t = torch.randn(noise.shape, generator=torch.Generator().manual_seed(seed))
            with torch.no_grad():
                one = [cond_of.to(family.transformer.dtype) for cond_of in cond]
                found.append(family.velocity(x_t, torch.full((3,), 0.6), one))
        return torch.stack(found)

    truth, plain = images(full), images(half)
    exact, unfolded = velocities(full), velocities(half)
    updates = {
        f"{name}.base_layer.weight": module.get_delta_weight("default").detach().float()
        for name, module in half.transformer.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    with merged(half.transformer, half=True):
        folded, found = images(half), velocities(half)
        after = half.transformer.state_dict()
        changes = {name: after[name].float() - before[name].float() for name in updates}
    of_bfloat16 = np.sqrt(np.square(plain - truth).mean())
    # About as much as bfloat16; these three images by 1.7 times with AVX-512, which rounds in other places.
    assert np.sqrt(np.square(folded - plain).mean()) < 2 * of_bfloat16 and of_bfloat16 > 0
    assert (found - exact).norm() < 1.15 * (unfolded - exact).norm()
    # And the adapter is not lost in the rounding, however small it is: on average the weights change as it says.
    kept = sum(float((changes[name] * update).sum()) for name, update in updates.items())
    assert kept == pytest.approx(sum(float(update.square().sum()) for update in updates.values()), rel=0.1)
    assert all(torch.equal(value, before[key]) for key, value in half.transformer.state_dict().items())


@families
def test_what_folding_takes(name):
    half, full = adapted(name, "bfloat16"), adapted(name, "float32")
    layers = [module for module in half.transformer.modules() if isinstance(module, LoraLayer)]
    size = sum(layer.get_base_layer().weight.numel() for layer in layers)
    assert folded_bytes(half.transformer, half=False) == 0
    assert folded_bytes(half.transformer, half=True) == 2 * size
    assert folded_bytes(full.transformer, half=False) == folded_bytes(full.transformer, half=True) == 4 * size
