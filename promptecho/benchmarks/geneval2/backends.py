"""What says how likely the right answers to GenEval 2's questions are, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from promptecho.benchmarks.backends import find_backend

if TYPE_CHECKING:
    from PIL import Image

    from promptecho.benchmarks.geneval2.prompts import PromptAtom
    from promptecho.benchmarks.scoring import ScoringOptions


class AtomJudge(Protocol):
    """Looks at an image. `name` says who looks, with revisions."""

    name: str

    def probabilities(self, image: Image.Image, atoms: Sequence[PromptAtom]) -> list[float]:
        """How likely the right answer to each atom's question is, in 0-1."""
        ...


def _oracle(_: ScoringOptions) -> AtomJudge:
    from promptecho.benchmarks.geneval2.oracle import AtomOracle

    return AtomOracle()


def _vlm(options: ScoringOptions) -> AtomJudge:
    from promptecho.benchmarks.geneval2.first_token import FirstTokenJudge
    from promptecho.benchmarks.geneval2.rules import MODEL

    return FirstTokenJudge(options.model or MODEL, options.device)


JUDGES: dict[str, Callable[[ScoringOptions], AtomJudge]] = {"oracle": _oracle, "vlm": _vlm}


def load_judge(options: ScoringOptions) -> AtomJudge:
    """The judge of `options.backend`.

    Raises:
        ModelError: the name is unknown, or the model is not available.
    """
    return find_backend(JUDGES, options.backend)(options)
