"""What looks at T2I-CompBench++'s images, by name, and which categories it can measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from promptecho.benchmarks.backends import find_backend

if TYPE_CHECKING:
    from promptecho.benchmarks.scoring import ScoringOptions
    from promptecho.benchmarks.t2icompbench.measures import Measure


class CompbenchEye(Protocol):
    """`name` says who looks, with revisions; `measures` has a measure for each category that it can judge."""

    name: str
    measures: Mapping[str, Measure]


def _oracle(_: ScoringOptions) -> CompbenchEye:
    from promptecho.benchmarks.t2icompbench.oracle import CompbenchOracle

    return CompbenchOracle()


def _blip(options: ScoringOptions) -> CompbenchEye:
    from promptecho.benchmarks.t2icompbench.models import BlipAndClip

    return BlipAndClip(options.model, options.device)


EYES: dict[str, Callable[[ScoringOptions], CompbenchEye]] = {"oracle": _oracle, "blip": _blip}


def load_eye(options: ScoringOptions) -> CompbenchEye:
    """The eye of `options.backend`.

    Raises:
        ModelError: the name is unknown, or its models are not available.
    """
    return find_backend(EYES, options.backend)(options)
