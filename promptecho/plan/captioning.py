"""What captioning the images takes: memory and time of its jobs, one GPU for each shard."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from promptecho.config import ExperimentConfig
from promptecho.errors import DataError
from promptecho.phases import Phase
from promptecho.plan.costs import VlmCosts
from promptecho.plan.memory import GpuMemory
from promptecho.plan.phases import Clock

UNLIMITED = (4000, 3000)  # a photograph of a telephone, where captions.max_pixels is null


@dataclass(frozen=True)
class Captioning:
    """`images` None: nobody knows how many, and so no hours. Captions are as long as they may be (max_new_tokens):
    a batch lasts as long as its longest caption, so that the time is seldom exceeded."""

    images: int | None
    size: tuple[int, int]
    image_tokens: int  # with the question
    shards: int
    memory: GpuMemory
    flops_per_image: float
    images_per_s: float  # of one GPU
    by_server: bool = False  # `captions.server.command` captions, whose time nobody estimates

    @property
    def gpu_hours(self) -> float | None:
        return None if self.images is None else self.images / self.images_per_s / 3600

    @property
    def hours(self) -> float | None:
        """All shards at once."""
        return None if self.images is None else math.ceil(self.images / self.shards) / self.images_per_s / 3600

    def facts(self) -> dict[str, Any]:
        return asdict(self) | {"memory": self.memory.facts(), "gpu_hours": self.gpu_hours, "hours": self.hours}


def image_size(config: ExperimentConfig) -> tuple[int, int]:
    """Of the images that the VLM captions: squares of `captions.max_pixels`, or the rendered ones."""
    captions = config.captions
    if captions.shapes is not None:
        return config.models.t2i.width, config.models.t2i.height
    if captions.max_pixels is None:
        return UNLIMITED
    side = math.isqrt(captions.max_pixels)
    return side, side


def count_images(config: ExperimentConfig) -> int | None:
    """Images to caption; None where their folder or list is not here."""
    captions = config.captions
    if captions.shapes is not None:
        return captions.shapes.count
    if captions.images is None or not Path(captions.images).exists():
        return None
    from promptecho.captions.inputs import list_images

    try:
        return len(list_images(captions.images))
    except DataError:
        return None


def plan_captions(config: ExperimentConfig, vlm: VlmCosts, clock: Clock, images: int | None) -> Captioning:
    """The plan of an experiment's captions by its `models.vlm`, whole on one GPU.

    Args:
        vlm: for images of `image_size`.
        images: how many; None: those that are here.
    """
    captions = config.captions
    images = images if images is not None else count_images(config)
    n, tokens = min(captions.batch_size, images or captions.batch_size), captions.max_new_tokens
    length = vlm.question_tokens(captions.query)
    first = vlm.caption_start(n, captions.query)
    more = vlm.more(n, length, tokens, captions.temperature)
    cache = n * vlm.cache_bytes(length + tokens)
    half = n * vlm.cache_bytes(length + tokens // 2)
    writing = max(clock.compute(more, Phase.REWARD), (tokens - 1) * clock.read(vlm.text_bytes + half))
    seconds = max(clock.compute(first, Phase.REWARD), clock.read(vlm.bytes)) + writing
    # Keys and values of the first pass are among its activations. Later one layer's are copied when a token is added.
    layers = vlm.vlm.model.config.get_text_config().num_hidden_layers
    phases = {
        "read": {"activations": first.peak},
        "write": {"activations": 2 * cache // layers, "keys and values": cache},
    }
    memory = GpuMemory("captioning", {"VLM": vlm.bytes}, phases)
    by_server = captions.server is not None
    total = (first + more).times(1 / n).total
    return Captioning(images, image_size(config), length, captions.num_shards, memory, total, n / seconds, by_server)
