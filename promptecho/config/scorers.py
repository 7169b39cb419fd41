"""What each scorer can be combined with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptecho.config.models import BenchmarkSection, ExperimentConfig

MAX_FAILED_SHARE = 0.01  # where nothing else is said

# Whose images a scorer reads: pairs of images are compared on DenseAlignBench's captions.
BENCHMARK_OF = {
    "geneval": "geneval",
    "captions": "captions",
    "densealign": "captions",
    "dpg": "dpg",
    "tiif": "tiif",
    "textocr": "textocr",
}
BACKENDS = {
    "geneval": ("oracle", "mask2former"),
    "captions": ("oracle",),
    "densealign": ("oracle", "judge"),
    "dpg": ("oracle", "mplug", "judge"),
    "tiif": ("oracle", "judge"),
    "textocr": ("rapidocr", "judge"),
}
WITH_FIXED_MODE = ("dpg", "tiif")
PAIRWISE = ("densealign",)
USES_DEVICE = ("mask2former", "mplug")  # backends that are models of torch


def image_set_limit(config: ExperimentConfig, image_set: str) -> int | None:
    """How many of an image set's prompts its benchmarks look at; None: all. The largest limit, since what a smaller one
    takes a larger one takes too."""
    limits = [benchmark.limit for benchmark in config.benchmarks.values() if benchmark.image_set == image_set]
    return None if None in limits else max(limits, default=None)


def max_failed_share(config: ExperimentConfig, benchmark: BenchmarkSection) -> float:
    """The largest share of failed items of a benchmark: its own key, or that of its judge."""
    if benchmark.max_failed_share is not None:
        return benchmark.max_failed_share
    judge = config.judges.models.get(benchmark.judge or "")
    return MAX_FAILED_SHARE if judge is None else judge.max_failed_share
