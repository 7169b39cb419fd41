"""What several stages ask of an experiment's benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from promptecho.config.benchmarks import Backend, benchmark_named

if TYPE_CHECKING:
    from promptecho.config.evaluation import BenchmarkSection
    from promptecho.config.models import ExperimentConfig

MAX_FAILED_SHARE = 0.01  # where nothing else is said


def image_set_limit(config: ExperimentConfig, image_set: str) -> int | None:
    """How many of an image set's prompts its benchmarks look at; None: all. The largest limit, since what a smaller one
    takes a larger one takes too."""
    limits = [benchmark.limit for benchmark in config.benchmarks.values() if benchmark.image_set == image_set]
    numbers = [limit for limit in limits if limit is not None]
    return max(numbers, default=None) if len(numbers) == len(limits) else None


def max_failed_share(config: ExperimentConfig, benchmark: BenchmarkSection) -> float:
    """The largest share of failed items of a benchmark: its own key, or that of its judge."""
    if benchmark.max_failed_share is not None:
        return benchmark.max_failed_share
    judge = config.judges.models.get(benchmark.judge or "")
    return MAX_FAILED_SHARE if judge is None else judge.max_failed_share


def is_pairwise(benchmark: BenchmarkSection) -> bool:
    """Whether it compares each image with the baseline's."""
    return benchmark_named(benchmark.scorer).pairwise


def unproved_backends(benchmarks: Mapping[str, BenchmarkSection]) -> dict[str, Backend]:
    """Backends that nobody has brought to run, by the names of the benchmarks that use them."""
    found = {name: backend_of(benchmark) for name, benchmark in benchmarks.items()}
    return {name: backend for name, backend in found.items() if backend.unproved}


def backend_of(benchmark: BenchmarkSection) -> Backend:
    """What looks at its images."""
    return benchmark_named(benchmark.scorer).backend(benchmark.backend)
