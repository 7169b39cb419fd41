"""What a job of generation is told, and what of it decides the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptecho.config import ExperimentConfig


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

    def published(self, key: str) -> Any:
        """How a published adapter's images are made, where its entry says so; None for all others."""
        entry = self.config.adapters.get(self.run)
        return getattr(entry, key) if entry is not None else None
