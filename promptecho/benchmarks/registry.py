"""Benchmarks by name, as `image_sets.NAME.benchmark` and `benchmarks.NAME.scorer` give them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptecho.errors import ConfigError

if TYPE_CHECKING:
    from promptecho.benchmarks.layout import Layout
    from promptecho.benchmarks.scoring import Scorer, ScoringOptions

# Module and class, relative to this package: imported when asked for.
LAYOUTS = {
    "geneval": "geneval.layout.GenevalLayout",
    "captions": "captions.layout.CaptionsLayout",
    "dpg": "dpg.layout.DpgLayout",
    "tiif": "tiif.layout.TiifLayout",
    "textocr": "textocr.layout.TextOcrLayout",
}
SCORERS = {
    "geneval": "geneval.score.GenevalScorer",
    "captions": "captions.score.CaptionsScorer",
    "densealign": "densealign.score.DenseAlignScorer",
    "dpg": "dpg.score.DpgScorer",
    "tiif": "tiif.score.TiifScorer",
    "textocr": "textocr.score.TextOcrScorer",
}


def _load(known: dict[str, str], name: str, what: str) -> Any:
    if name not in known:
        raise ConfigError(f"{what} {name!r} is unknown; known {what}s: {', '.join(known)}")
    module, _, attribute = known[name].rpartition(".")
    return getattr(importlib.import_module(f"promptecho.benchmarks.{module}"), attribute)


def load_layout(name: str, prompts: Path, root: Path, images_per_prompt: int, limit: int | None = None) -> Layout:
    """The image folder `root` of benchmark `name` for the prompts of a file; `limit`: for the first of them alone.

    Raises:
        ConfigError: unknown benchmark.
        DataError: the prompt file is missing or faulty.
    """
    return _load(LAYOUTS, name, "benchmark")(prompts, root, images_per_prompt, limit)


def load_scorer(name: str, options: ScoringOptions) -> Scorer:
    """The scorer `name`.

    Raises:
        ConfigError: unknown scorer, or a mode that it does not have.
        ModelError: unknown backend, or one that is not available.
    """
    return _load(SCORERS, name, "scorer")(options)
