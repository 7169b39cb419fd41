"""What answers questions about an image with short texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from promptecho.errors import ModelError

if TYPE_CHECKING:
    from PIL import Image

    from promptecho.benchmarks.scoring import ScoringOptions


@dataclass(frozen=True)
class VqaAnswers:
    """What came back about one image: a record with `answer` per question, and where it failed, why."""

    records: list[dict[str, Any]] = field(default_factory=list)
    failure: str | None = None


class Vqa(Protocol):
    """Visual question answering. Raises PerceptionFailure where an image has no answer."""

    @property
    def name(self) -> str: ...

    def answers(self, image: Image.Image, questions: Sequence[str]) -> list[str]:
        """Raw answers, one per question; only exactly "yes" counts as yes."""
        ...


def _oracle(_: ScoringOptions) -> Vqa:
    from promptecho.benchmarks.dpg.oracle import ORACLE_VQA

    return ORACLE_VQA


def _gallery(_: ScoringOptions) -> Vqa:
    from promptecho.benchmarks.dpg.gallery_oracle import GALLERY_VQA

    return GALLERY_VQA


def _mplug(options: ScoringOptions) -> Vqa:
    from promptecho.benchmarks.dpg.mplug import MplugVqa
    from promptecho.config.defaults import MPLUG

    return MplugVqa(options.model or MPLUG, options.device)


VQAS: dict[str, Callable[[ScoringOptions], Vqa]] = {"gallery": _gallery, "mplug": _mplug, "oracle": _oracle}


def load_vqa(options: ScoringOptions) -> Vqa:
    """The model of `options.backend`.

    Raises:
        ModelError: the name is unknown or the backend is not available.
    """
    if options.backend not in VQAS:
        known = ", ".join(sorted([*VQAS, "judge"]))
        raise ModelError(f"backend {options.backend!r} is unknown; backends of DPG-Bench: {known}")
    return VQAS[options.backend](options)
