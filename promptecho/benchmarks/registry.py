"""Benchmarks by name, as `image_sets.NAME.benchmark` and `benchmarks.NAME.scorer` give them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from promptecho.config.benchmarks import benchmark_named, load_part, mistakes_told

if TYPE_CHECKING:
    from promptecho.benchmarks.layout import Layout
    from promptecho.benchmarks.scoring import Scorer, ScoringOptions


def load_layout(name: str, prompts: Path, root: Path, images_per_prompt: int, limit: int | None = None) -> Layout:
    """The image folder `root` of benchmark `name` for the prompts of a file; `limit`: for the first of them alone.

    Raises:
        ConfigError: unknown benchmark.
        DataError: the prompt file is missing or faulty.
        BenchmarkError: code from outside fails.
    """
    owner = benchmark_named(name).images
    layout = load_part(owner, "layout")
    with mistakes_told(owner, "layout"):
        return layout(prompts, root, images_per_prompt, limit)


def load_scorer(name: str, options: ScoringOptions) -> Scorer:
    """The scorer of benchmark `name`.

    Raises:
        ConfigError: unknown benchmark, or a mode that it does not have.
        ModelError: unknown backend, or one that is not available.
        BenchmarkError: code from outside fails.
    """
    scorer = load_part(name, "scorer")
    with mistakes_told(name, "scorer"):
        return scorer(options)
