"""What the embedded text-to-image model makes at several sizes, without and with adapters, by the oracle.

    python perf/image_sizes.py --captions heldout.jsonl --limit 100 64x64 48x48 56x72
    python perf/image_sizes.py --captions heldout.jsonl 64x64 --adapter runs/a/20/adapter --adapter runs/b/20/adapter
    python perf/image_sizes.py --captions heldout.jsonl --image-sizes image_sizes.jsonl own 64x64

Sizes are height x width; `own` is the size of each caption's image, as `promptecho caption sizes` wrote it. The images
are those of an image set `captions` of these held-out captions at its defaults but guidance 0 and 8 steps. Printed for
each size and adapter: the images that show what their caption says, with a 95 % Wilson interval, and of an adapter the
difference to the model without one, paired by caption, with a 95 % interval; of further ones that to the first, too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from promptecho.captions.image_sizes import read_sizes
from promptecho.captions.prompts import read_prompts
from promptecho.intervals import wilson_interval
from promptecho.shapes.grammar import parse
from promptecho.shapes.oracle import detect, judge
from promptecho.t2i.lora import load_adapter
from promptecho.t2i.registry import load_family
from promptecho.train.data import normal

BATCH, STEPS = 16, 8


def outcomes(
    captions: list[tuple[str, str]], size: str, adapter: Path | None, own: dict[str, tuple[int, int]]
) -> np.ndarray:
    """Whether the image of each caption (its id, its text) shows what it says; `own`: width and height by id."""
    family = load_family("zimage", "shapes")
    if adapter is not None:
        family.transformer = load_adapter(family.transformer, adapter)
    shapes: dict[tuple[int, int], list[int]] = {}
    for index, (name, _) in enumerate(captions):
        height, width = reversed(own[name]) if size == "own" else map(int, size.split("x"))
        shapes.setdefault((height, width), []).append(index)
    right = np.zeros(len(captions))
    batches = [
        (family.latent_shape(*shape), places[start : start + BATCH])
        for shape, places in sorted(shapes.items()) for start in range(0, len(places), BATCH)
    ]  # fmt: skip
    for shape, places in batches:
        part = [captions[index] for index in places]
        noise = torch.stack([normal(shape, 0, "generate", name, 0) for name, _ in part])
        cond = family.encode_prompts([text for _, text in part])
        images = family.decode(family.sample(noise, cond, num_inference_steps=STEPS, guidance_scale=0.0))
        right[places] = [judge(parse(text), detect(image)) for (_, text), image in zip(part, images, strict=True)]
    return right


def difference(these: np.ndarray, others: np.ndarray) -> str:
    """In points, with half of the width of its 95 % interval."""
    apart = these - others
    return f"{100 * apart.mean():+.1f} +- {100 * 1.96 * apart.std(ddof=1) / len(apart) ** 0.5:.1f}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="+", help="HEIGHTxWIDTH, or own")
    parser.add_argument("--captions", type=Path, required=True, help="heldout.jsonl of the embedded experiment")
    parser.add_argument("--limit", type=int, default=400, help="captions, from the first on")
    parser.add_argument("--image-sizes", type=Path, help="image_sizes.jsonl, for `own`")
    parser.add_argument("--adapter", type=Path, action="append", default=[])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    captions = [(row.image_id, row.caption) for row in read_prompts(options.captions)[: options.limit]]
    n, own = len(captions), {} if options.image_sizes is None else read_sizes(options.image_sizes)
    for size in options.sizes:
        base = first = None
        for adapter in (None, *options.adapter):
            right = outcomes(captions, size, adapter, own)
            low, high = wilson_interval(int(right.sum()), n)
            share = f"{100 * right.mean():5.1f} % ({100 * low:.1f}-{100 * high:.1f})"
            line = f"{size:>8}  {int(right.sum()):>4} of {n}  {share}"
            if base is None:
                base = right
            else:
                line += f"  {difference(right, base)}"
                if first is None:
                    first = right
                else:
                    line += f"  to the first {difference(right, first)}"
            print(f"{line}  {adapter or 'base'}", flush=True)


if __name__ == "__main__":
    main()
