"""Benchmarks by name, as `image_sets.NAME.benchmark` and `benchmarks.NAME.scorer` give them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from promptecho.errors import ConfigError

if TYPE_CHECKING:
    from promptecho.benchmarks.layout import Layout
    from promptecho.benchmarks.scoring import Scorer

NAMES = ("geneval", "captions")


def _check(name: str, what: str) -> None:
    if name not in NAMES:
        raise ConfigError(f"{what} {name!r} is unknown; known {what}s: {', '.join(NAMES)}")


def load_layout(name: str, prompts: Path, root: Path, images_per_prompt: int) -> Layout:
    """The image folder `root` of benchmark `name` for the prompts of a file.

    Raises:
        ConfigError: unknown benchmark.
        DataError: the prompt file is missing or faulty.
    """
    _check(name, "benchmark")
    from promptecho.benchmarks.captions.layout import CaptionsLayout
    from promptecho.benchmarks.geneval.layout import GenevalLayout

    layouts = {"geneval": GenevalLayout, "captions": CaptionsLayout}
    return layouts[name](prompts, root, images_per_prompt)


def load_scorer(name: str, backend: str, mode: str) -> Scorer:
    """The scorer `name`, looking through `backend`.

    Raises:
        ConfigError: unknown scorer, or a mode that it does not have.
        ModelError: unknown backend.
    """
    _check(name, "scorer")
    from promptecho.benchmarks.captions.score import CaptionsScorer
    from promptecho.benchmarks.geneval.score import GenevalScorer

    scorers = {"geneval": GenevalScorer, "captions": CaptionsScorer}
    return scorers[name](backend, mode)
