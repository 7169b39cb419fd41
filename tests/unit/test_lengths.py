"""Prompts of different lengths together: attention without masks, the same velocities, fewer operations."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
import tiny_experiment
import tiny_qwenimage
import tiny_t2i
import torch
from safetensors.torch import load_file
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from promptecho.config import load_experiment
from promptecho.plan.architectures import build_family, locate_or_describe
from promptecho.plan.depth import Deep
from promptecho.t2i.lengths import groups_of, sorted_by_length
from promptecho.t2i.registry import load_family
from promptecho.train.loop import train_segment

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "perf"))
FOLDERS = {"zimage": tiny_t2i.shared_folder, "qwenimage": tiny_qwenimage.shared_folder}
MIXED = [70, 20, 40, 20]  # tokens; Z-Image makes 96, 32, 64 and 32 of them
WIDTH = 32


class Attention(TorchFunctionMode):
    """Counts the calls of attention: with a mask or without, and tokens that are computed."""

    def __init__(self):
        super().__init__()
        self.calls, self.tokens = Counter(), 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        # By name it is called by diffusers alone; transformers' models have masks of their own.
        if function is torch.nn.functional.scaled_dot_product_attention and "query" in kwargs:
            self.calls["no mask" if kwargs.get("attn_mask") is None else "mask"] += 1
            self.tokens += kwargs["query"].shape[0] * kwargs["query"].shape[2]
        return function(*args, **kwargs)


@pytest.fixture(params=FOLDERS)
def family(request):
    family = load_family(request.param, str(FOLDERS[request.param]()))
    family.set_negative(torch.randn(11, WIDTH, generator=torch.Generator().manual_seed(1)))
    return family


def items(family, lengths):
    generator = torch.Generator().manual_seed(0)
    n, draw = len(lengths), torch.randn
    x = draw(n, *family.latent_shape(32, 32), generator=generator)
    return x, torch.linspace(0.2, 0.9, n), [draw(k, WIDTH, generator=generator) for k in lengths]


@pytest.mark.parametrize("guidance", [None, 3.5])
def test_mixed_lengths_need_no_mask_and_give_the_same_velocities(family, guidance):
    found = {}
    for one_pass in (False, True):
        family.one_pass = one_pass
        x, t, cond = items(family, MIXED)
        with torch.no_grad(), Attention() as seen, FlopCounterMode(display=False) as flops:
            v = family.velocity(x, t, cond) if guidance is None else family.guided_velocity(x, t, cond, guidance)
        found[one_pass] = v, seen, flops.get_total_flops()
    (cut, without, fewer), (whole, masked, more) = found[False], found[True]
    torch.testing.assert_close(cut, whole, rtol=1e-4, atol=2e-5)
    assert (whole[0] - whole[1]).abs().max() > 1e-2  # the items differ by far more than the tolerance
    assert not without.calls["mask"] and without.calls["no mask"] and masked.calls["mask"]
    assert fewer < more and without.tokens < masked.tokens


def test_of_equal_lengths_nothing_is_cut(family):
    """Not even bits change: the two halves of guidance are one pass where they are of one length, else one each."""
    x, t, cond = items(family, [20, 20, 20])
    family.set_negative(cond[0][:20] * 0.5)
    passes: list[int] = []
    family.transformer.register_forward_pre_hook(lambda *_: passes.append(1))
    with torch.no_grad():
        one = family.guided_velocity(x, t, cond, 3.5)
        assert len(passes) == 1
        family.one_pass = True
        assert torch.equal(family.guided_velocity(x, t, cond, 3.5), one)
        family.one_pass = False
        family.set_negative(torch.randn(40, WIDTH))
        family.guided_velocity(x, t, cond, 3.5)
        assert len(passes) == 4


def test_a_pass_that_is_cut_has_the_same_gradients(family):
    x, t, cond = items(family, MIXED)
    gradients = []
    for one_pass in (False, True):
        family.one_pass = one_pass
        start = x.clone().requires_grad_()
        (family.velocity(start, t, cond) ** 2 * torch.arange(1.0, 5).view(-1, 1, 1, 1)).sum().backward()
        gradients.append(start.grad)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


def test_an_item_does_not_depend_on_those_of_other_lengths(family):
    """To the bit: what shares no pass shares no rounding."""
    x, t, cond = items(family, [70, 20, 40])
    with torch.no_grad():
        together = family.velocity(x, t, cond)
        for k in range(3):
            assert torch.equal(family.velocity(x[k : k + 1], t[k : k + 1], cond[k : k + 1])[0], together[k])


def test_padding_that_the_configuration_asks_for_is_one_length():
    family = load_family("qwenimage", str(FOLDERS["qwenimage"]()), pad_prompts="unmasked")
    assert [family.padded_length(n) for n in (5, 512, 600)] == [512, 512, 600]
    x, t, cond = items(family, [20, 30])
    with torch.no_grad(), Attention() as seen:
        family.velocity(x, t, cond)
    assert set(seen.calls) == {"no mask"} and seen.calls["no mask"] == len(family.transformer.transformer_blocks)


def test_images_of_one_length_come_together_in_their_own_order(family):
    assert groups_of([96, 32, 64, 32]) == [[0], [1, 3], [2]]
    assert sorted_by_length(family, [3, 0, 2, 1], MIXED.__getitem__) == [3, 1, 2, 0]
    assert sorted_by_length(family, [2, 1, 0], lambda image: 20) == [2, 1, 0]
    assert sorted_by_length(object(), [3, 0, 2, 1], MIXED.__getitem__) == [3, 0, 2, 1]


def test_a_training_on_mixed_lengths_makes_no_mask(tmp_path, monkeypatch):
    """Micro-batches are made of one length where they can be, and the weights are those of single images."""
    long = " ".join(["There is a red circle above a blue square."] * 3)
    monkeypatch.setattr(tiny_experiment, "PROMPTS", ["A red circle.", long, "A blue star.", f"{long} A green ring."])
    experiment = tiny_experiment.Experiment(tmp_path, t2i=tiny_t2i.shallow_folder())
    adapters, seen = {}, {}
    for size in (1, 4):
        options = {"prompts_per_iteration": 4, "images_per_prompt": 2, "batch_size": 8, "micro_batch_size": size}
        config = experiment.config(f"size-{size}", iterations=1, checkpoints=[1], passes=1, **options)
        with Attention() as seen[size]:
            assert train_segment(experiment.segment(f"size-{size}", config, 1))
        adapters[size] = load_file(tmp_path / f"size-{size}/1/adapter/adapter_model.safetensors")
    assert not seen[4].calls["mask"] and seen[4].calls["no mask"] < seen[1].calls["no mask"] / 1.5
    for name, value in adapters[1].items():
        torch.testing.assert_close(adapters[4][name], value, rtol=1e-2, atol=2e-4)


def test_what_lengths_cost_is_counted_in_the_real_classes_without_values(tmp_path):
    import lengths

    t2i = tiny_t2i.build(tmp_path / "t2i", layers=3)
    config = load_experiment(tiny_experiment.Experiment(tmp_path, t2i=t2i).config())
    family = build_family(locate_or_describe(config, config.models.t2i, "models.t2i", None), config.models.t2i)
    deep, found = Deep(family.transformer, 1), {}
    for one_pass in (True, False):
        family.one_pass = one_pass
        found[one_pass] = lengths.count(family, deep, MIXED, True, (128, 128))
    (masked, _, tokens, flops), (none, passes, fewer, less) = found[True], found[False]
    image = (128 // 8) ** 2  # tokens
    assert tokens == 8 * (image + 96) and fewer == 8 * image + 96 + 64 + 2 * 32 + 4 * 32
    assert masked and not none and passes and less < flops
