"""What prompts of different lengths cost in one pass with a mask, and in one pass for each length. No time is measured.

    python perf/lengths.py --config config/experiments/zimage.yaml
    python perf/lengths.py --difference            # how far the two ways' results differ: embedded model, on a CPU

The model runs in its real class and size without values (as in `promptecho plan`), so this takes no GPU and no
weights. Counted are calls of attention with a mask and without, tokens that go through the transformer, and operations.
The lengths are examples, in tokens of the text encoder: a prompt's images with guidance, as sampling has them; a
micro-batch of the update with four prompts; a batch of eight images of an evaluation, whose prompts lie close together
once the shard is in the order of their lengths, and as far apart as captions are before.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode

from promptecho.config import load_experiment
from promptecho.plan.architectures import META, build_family, locate_or_describe
from promptecho.plan.depth import Deep
from promptecho.t2i.base import T2iModel
from promptecho.t2i.registry import load_family

NEGATIVE = 11  # tokens of an empty negative prompt with its template, about
CASES = {  # title: lengths, with guidance
    "sampling, 8 images of one prompt, guided": ([272] * 8, True),
    "update, 4 images of four prompts": ([110, 180, 240, 330], False),
    "evaluation, 8 prompts by length, guided": ([201, 204, 207, 210, 213, 216, 219, 222], True),
    "evaluation, 8 prompts as they come, guided": ([272, 110, 180, 330, 222, 140, 260, 180], True),
}


class Seen(TorchDispatchMode):
    """Attention calls on images, by whether there was a mask, and their tokens in all."""

    def __init__(self, image_tokens: int) -> None:
        super().__init__()
        self.image_tokens, self.calls, self.tokens = image_tokens, Counter[str](), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name.startswith("_scaled_dot_product") and "backward" not in name and args[0].shape[-2] > self.image_tokens:
            self.calls["masked" if "efficient" in name else "free"] += 1
            self.tokens += args[0].shape[0] * args[0].shape[-2]
        return function(*args, **kwargs or {})


def count(family: T2iModel, deep: Deep, lengths: list[int], guided: bool, size: tuple[int, int]) -> tuple[int, ...]:
    """(layers' attention calls with a mask, all of them, tokens of a layer, FLOPs)."""
    width, n = deep_width(family), len(lengths)
    x, t = torch.empty((n, *family.latent_shape(*size)), device=META), torch.empty(n, device=META)
    cond = [torch.empty((length, width), device=META) for length in lengths]
    family.set_negative(torch.empty((NEGATIVE, width), device=META))
    seen = Seen((x.shape[-2] // 2) * (x.shape[-1] // 2))

    def code() -> None:
        with torch.no_grad(), seen:
            family.guided_velocity(x, t, cond, 3.5) if guided else family.velocity(x, t, cond)

    flops = deep.trace(code).total
    layers = 2 * deep.shallow + 1  # it ran twice: with one layer more, and without
    return seen.calls["masked"] // layers, seen.calls.total() // layers, seen.tokens // layers, flops


def deep_width(family: T2iModel) -> int:
    """Width of a prompt's embedding."""
    config = family.transformer.config
    return config.get("cap_feat_dim") or config["joint_attention_dim"]


def difference(dtype: str) -> str:
    """How far velocities and images of four prompts of 12 to 52 tokens differ: 30 steps, guidance 3.5, 64 pixels."""
    family = load_family("zimage", "shapes", dtype=dtype)
    far = "There is a red circle above a blue square. "
    cond = family.encode_prompts(["A red circle.", far * 4, "Three blue stars and a green ring.", far * 2])
    noise = torch.randn(4, *family.latent_shape(64, 64), generator=torch.Generator().manual_seed(0))
    found = []
    for family.one_pass in (True, False):
        with torch.no_grad():
            v = family.guided_velocity(noise, torch.full((4,), 0.7), cond, 3.5)
        latents = family.sample(noise, cond, num_inference_steps=30, guidance_scale=3.5)
        found.append((v, np.stack([np.asarray(image, dtype=int) for image in family.decode(latents)])))
    (v, images), (w, others) = found
    gap, size, apart = (v - w).abs().max(), v.square().mean().sqrt(), np.abs(images - others)
    return (
        f"{dtype}: velocities differ by at most {gap:.1e} (their root mean square is {size:.2g}), images by at most "
        f"{apart.max()} of 255, in {(apart > 0).mean():.3%} of their values"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", default="config/experiments/zimage.yaml")
    parser.add_argument("--difference", action="store_true", help="Compare results instead of counting.")
    arguments = parser.parse_args()
    if arguments.difference:
        torch.set_num_threads(1)
        print("\n".join(map(difference, ("float32", "bfloat16"))))
        return
    config = load_experiment(arguments.config)
    section = config.models.t2i
    family = build_family(locate_or_describe(config, section, "models.t2i", None), section)
    deep = Deep(family.transformer, 2)
    table = Table(title=f"{family.descriptor.title}, {section.height} x {section.width} pixels")
    for column in ("", "way", "passes", "masked", "tokens", "TFLOP", "TFLOP by length / masked"):
        table.add_column(column, justify="left" if column in ("", "way") else "right")
    for title, (lengths, guided) in CASES.items():
        before = None
        for way, family.one_pass in (("one pass", True), ("by length", False)):
            masked, calls, tokens, flops = count(family, deep, lengths, guided, (section.height, section.width))
            ratio = "" if before is None else f"{flops / before:.3f}"
            before = flops
            table.add_row(title, way, str(calls), str(masked), f"{tokens:,}", f"{flops / 1e12:.1f}", ratio)
            title = ""
    Console().print(table)


if __name__ == "__main__":
    main()
