"""Sample images for trackers: the same prompts and noise at the run's start and at every checkpoint, so that one sees
what training changes. Their noise is their own, so that a run has the same bits with and without them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
import torch.distributed as dist
from PIL import Image

from promptecho.phases import Phase
from promptecho.trackers import TrackedImage
from promptecho.train import rollout as ro
from promptecho.train.data import TrainingPrompt
from promptecho.train.trainer import Trainer

MAX_SIDE = 512  # pixels; larger images are shrunk


def wanted(trainer: Trainer) -> bool:
    """Whether there is a tracker for images; the same on all ranks."""
    training, segment = trainer.training, trainer.segment
    tracked = segment.tensorboard is not None or (segment.trackers is not None and bool(training.trackers))
    return tracked and training.tracked_images > 0


def prompts_shown(trainer: Trainer) -> list[TrainingPrompt]:
    """The first held-out captions that are watched, or else the first training prompts."""
    known: Sequence[TrainingPrompt] = trainer.heldout or trainer.prompts
    return [known[index] for index in range(min(trainer.training.tracked_images, len(known)))]


def sample_grid(trainer: Trainer, weights: dict[str, torch.Tensor]) -> list[TrackedImage]:
    """Collective: an image of each prompt by `weights`; the module keeps the weights that it has. Sampling settings are
    those of training, and every process takes its share.

    Raises:
        StopRequestedError: on all ranks together.
    """
    prompts, pngs = prompts_shown(trainer), list[bytes]()

    def keep(images: Sequence[Image.Image], *_: object) -> None:
        for image in images:
            small, file = image.convert("RGB"), io.BytesIO()
            small.thumbnail((MAX_SIDE, MAX_SIDE))
            small.save(file, "PNG")
            pngs.append(file.getvalue())

    series = ro.Series(prompts, 1, (trainer.training.seed, "tracked"), "tracked image {image}")
    with trainer.phase(Phase.HELDOUT):
        policy = trainer.engine.weights()
        sampled = ro.sample(trainer, weights, series, submit=keep)
        trainer.engine.use_weights(policy)  # not after an error, which one rank alone may have: it is collective
        shares: list[dict[int, bytes]] = [{}] * dist.get_world_size()
        dist.all_gather_object(shares, dict(zip(sampled.mine, pngs, strict=True)))
    found = {index: png for share in shares for index, png in share.items()}
    # Decoded here: trackers' threads share the images, and Pillow's decoding on first use is not made for that.
    return [
        TrackedImage(prompt.prompt_id, prompt.text, Image.open(io.BytesIO(found[index])).convert("RGB"))
        for index, prompt in enumerate(prompts)
    ]
