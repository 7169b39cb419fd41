"""What a job of generation is told, and what of it decides the images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from promptecho.captions.sources import read_sources
from promptecho.config import ExperimentConfig
from promptecho.config.benchmarks import benchmark_named
from promptecho.config.families import family_named
from promptecho.source_images import SourceImage


@dataclass
class GenerateJob:
    """One shard of an image set from one checkpoint; `adapter` is None for the base model."""

    config: ExperimentConfig
    run: str
    step: int
    image_set: str
    prompts: Path
    shard: int
    num_shards: int
    out: Path
    work: Path
    adapter: Path | None = None
    device: str = "cpu"
    threads: int | None = None

    @cached_property
    def sources(self) -> dict[str, SourceImage]:
        """Source images by prompt id: {} unless the model edits images, or where other prompts than captions are.

        Raises:
            DataError: an image is missing, or its name leads out of the folder of the prompts, or the model takes none;
                all are named.
        """
        if not benchmark_named(self.config.image_sets[self.image_set].benchmark).takes_heldout:
            return {}
        return read_sources(self.prompts, family_named(self.config.models.t2i.family))

    def published(self, key: str) -> Any:
        """How a published adapter's images are made, where its entry says so; None for all others."""
        entry = self.config.adapters.get(self.run)
        return getattr(entry, key) if entry is not None else None
