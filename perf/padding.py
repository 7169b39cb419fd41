"""What padding costs in an iteration of training: tokens that are computed, and how many of them are none.

    python perf/padding.py --config config/experiments/shapes.yaml --run promptecho-s1 --captions captions.h5
    python perf/padding.py ... --sizes 64x64 48x80          # the same with images of several sizes

One iteration of a run of the family zimage with one sampling step, as lengths do not depend on steps; the passes of
both models are counted as they are made. That Z-Image takes prompts and images in multiples of 32 tokens is not padding
here: these tokens take part.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from promptecho.config import load_experiment, run_training
from promptecho.config.training import SizeSection
from promptecho.t2i.zimage.model import BLOCK, ZImage
from promptecho.train.loop import train_segment
from promptecho.train.trainer import Segment
from promptecho.vlm import log_probs


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--sizes", nargs="*", default=[], help="HEIGHTxWIDTH")
    parser.add_argument("--batch-size", type=int, help="of the rewards")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    config = load_experiment(options.config)
    training = run_training(config, options.run)
    sizes = [SizeSection(height=h, width=w) for h, w in (map(int, s.split("x")) for s in options.sizes)]
    training = training.model_copy(
        update={
            "sampling": training.sampling.model_copy(update={"num_inference_steps": 1}), "iterations": 1,
            "checkpoints": [1], "heldout": training.heldout.model_copy(update={"prompts": 0}),
            "sizes": sizes or None,
        }
    )  # fmt: skip
    rewards = [
        entry if options.batch_size is None else entry.model_copy(update={"batch_size": options.batch_size})
        for entry in training.rewards or config.rewards
    ]
    training = training.model_copy(update={"rewards": rewards})
    config = config.model_copy(update={"runs": {options.run: training}})
    passes: Counter[str] = Counter()
    computed: Counter[str] = Counter()
    needed: Counter[str] = Counter()
    velocity, at = ZImage._velocity, log_probs.log_probs_at

    def counted_velocity(self: ZImage, x_t: torch.Tensor, t: torch.Tensor, cond: Any) -> torch.Tensor:
        image = -(-(x_t.shape[-2] * x_t.shape[-1] // 4) // BLOCK) * BLOCK
        tokens = [image + self.padded_length(len(one)) for one in cond]
        kind = "update" if torch.is_grad_enabled() else "sampling and references"
        passes[kind] += 1
        computed[kind] += len(cond) * max(tokens)
        needed[kind] += sum(tokens)
        return velocity(self, x_t, t, cond)

    def counted_at(vlm: Any, batch: Any, *more: Any) -> torch.Tensor:
        own = batch["attention_mask"].sum(1).tolist()
        passes["reward"] += 1
        computed["reward"] += batch["input_ids"].numel()
        needed["reward"] += sum(own)
        return at(vlm, batch, *more)

    ZImage._velocity, log_probs.log_probs_at = counted_velocity, counted_at  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        train_segment(Segment(config, options.run, 1, options.captions, Path(folder) / "1", Path(folder) / "work"))
    print(f"{'':24} passes   tokens  of padding")
    for kind in passes:
        share = 1 - needed[kind] / computed[kind]
        print(f"{kind:24} {passes[kind]:>6} {computed[kind]:>8}  {100 * share:.1f} %")


if __name__ == "__main__":
    main()
