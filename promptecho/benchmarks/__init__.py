"""Benchmarks: prompts, official scoring rules, perception backends, tables; one folder each.

A benchmark from outside imports what it needs from here; how to write one: docs/extending.md. Each is imported
when it is asked for, so that descriptors, which command lines read, load no images.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptecho.benchmarks.layout import Layout
    from promptecho.benchmarks.limit import first_places, first_prompts
    from promptecho.benchmarks.listing import (
        ImageEntry,
        ListedLayout,
        list_images,
        prompts_digest,
        read_id,
        read_prompts,
        read_text,
    )
    from promptecho.benchmarks.replies import read_yes_no
    from promptecho.benchmarks.scoring import (
        ImageFolder,
        JudgeBackend,
        Judged,
        Scored,
        Scorer,
        ScoringOptions,
        judge_all,
    )
    from promptecho.config.benchmarks import JUDGE, ORACLE, Backend, Benchmark, Curve
    from promptecho.config.prompt_sources import Source
    from promptecho.errors import DataError
    from promptecho.images import load_image
    from promptecho.judges.base import Answer, CallEstimate, Question
    from promptecho.judges.errors import RefusedError
    from promptecho.scores import ScoreItem

__all__ = [
    "JUDGE", "ORACLE", "Answer", "Backend", "Benchmark", "CallEstimate", "Curve", "DataError", "ImageEntry",
    "ImageFolder", "JudgeBackend", "Judged", "Layout", "ListedLayout", "Question", "RefusedError", "ScoreItem",
    "Scored", "Scorer", "ScoringOptions", "Source", "first_places", "first_prompts", "judge_all", "list_images",
    "load_image", "prompts_digest", "read_id", "read_prompts", "read_text", "read_yes_no",
]  # fmt: skip

_MODULES = (
    "promptecho.benchmarks.layout",
    "promptecho.benchmarks.limit",
    "promptecho.benchmarks.listing",
    "promptecho.benchmarks.replies",
    "promptecho.benchmarks.scoring",
    "promptecho.config.benchmarks",
    "promptecho.config.prompt_sources",
    "promptecho.errors",
    "promptecho.images",
    "promptecho.judges.base",
    "promptecho.judges.errors",
    "promptecho.scores",
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            if hasattr(found := importlib.import_module(module), name):
                return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
