"""What the loop says and leaves behind when a reward, a loss or a gradient is not finite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from promptecho.errors import PromptEchoError, RewardError
from promptecho.train.data import Batch, NotFiniteError
from promptecho.train.dump import dump_batch, dump_reward
from promptecho.train.engine import Engine
from promptecho.train.ranks import agree, any_rank
from promptecho.train.scoring import NotFiniteRewardError
from promptecho.train.trainer import Segment


def _folder(work: Path, iteration: int) -> Path:
    return work / f"not-finite-{iteration}-rank{dist.get_rank()}"


def report_reward(error: NotFiniteRewardError, segment: Segment, iteration: int) -> RewardError:
    """Write image, label and query; the error names them and the command that scores the image again."""
    folder = _folder(segment.work, iteration)
    command = dump_reward(folder, error.image, {**error.facts, "iteration": iteration}, error.facts.get("vlm"))
    return RewardError(f"{error}; to score it again: {command}")


def report_not_finite(error: NotFiniteError, work: Path, run: str, iteration: int, engine: Engine) -> PromptEchoError:
    """Collective: write the batch at fault; raises on every rank what the first rank at fault says.

    Returns the error to raise where no rank is at fault by itself.
    """
    own, where = None, f"iteration {iteration}, optimizer step {error.step + 1}"
    weights = engine.weights()  # on every rank: none may have them whole
    if error.batch.prompt_ids:
        folder, batch = _folder(work, iteration), error.batch
        tensors = {
            "x0": batch.x0, "advantages": batch.advantages, "t": batch.t, "noise": batch.noise,
            "old_log_prob": batch.old_log_prob,
        }  # fmt: skip
        for name in ("base_velocity", "ema_velocity"):
            if getattr(batch, name) is not None:
                tensors[name] = getattr(batch, name)
        tensors |= {f"stored.{name}": value for name, value in batch.stored.items()}
        tensors |= {f"cond.{i:05d}": cond for i, cond in enumerate(batch.cond)}
        tensors |= {f"weights.{name}": value for name, value in weights.items()}
        facts = {"kind": error.what, "iteration": iteration, "optimizer_step": error.step, "run": run}
        shapes = {} if batch.shapes is None else {"shapes": batch.shapes}
        dump_batch(folder, tensors, {**facts, **shapes, "prompt_ids": batch.prompt_ids})
        ids = ", ".join(sorted(set(batch.prompt_ids)))
        prompts = f"{'prompts' if ', ' in ids else 'prompt'} {ids}"
        own = PromptEchoError(
            f"{where}: the {error.what} is not finite on {prompts}; lower training.learning_rate, or look at it "
            f"again with: promptecho train --config ... --replay {folder}"
        )
    agree(own)
    return PromptEchoError(
        f"{where}: the gradient is not finite, although every image's own is; lower training.learning_rate"
    )


def find_not_finite(
    loss_of: Callable[[Batch], torch.Tensor],
    engine: Engine,
    batch: Batch,
    units: list[tuple[int, list[int]]],
    most: int,
) -> tuple[str, list[int]]:
    """Go through the units of a step one by one: ("loss is nan" | "gradient is not finite", images at fault).

    Nothing and no image where this rank's units are all right by themselves. Under ZeRO-3, where gradients exist in
    parts only, all of the rank's images are at fault if no single loss is, on any rank.

    Args:
        units: this rank's, as an image of `batch` and its timesteps.
        most: units of the rank that has most of them.
    """
    parameters = list(engine.parameters.values())
    guilty: dict[str, set[int]] = {"loss": set(), "gradient": set()}
    for image, times in units:
        with torch.set_grad_enabled(not engine.partitioned):
            loss = loss_of(batch.at([(image, times)]))
        if not torch.isfinite(loss):
            guilty["loss"].add(image)
        elif not engine.partitioned:
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            if not all(g is None or torch.isfinite(g).all() for g in gradients):
                guilty["gradient"].add(image)
    if engine.partitioned:
        with torch.no_grad():
            for _ in range(most - len(units)):  # their passes are common ones
                loss_of(batch.nobody(len(units[0][1]) if units else 1))
        if not any_rank(bool(guilty["loss"])):
            guilty["gradient"] = {image for image, _ in units}
    what = next((what for what, images in guilty.items() if images), "")
    return what, sorted(guilty[what]) if what else []
