"""UniGenBench prompts over the embedded worlds, in the official columns: what a caption says, as test points.

Of each group of objects its shape and, where its caption says so, its number, colour, size and texture (Material); of
several of one colour that they have it in common (Consistency); of two groups that each has what is said of it (Feature
Matching), and where the first lies (2D); and what must not be there (Negation). The six other dimensions have no test
point in these worlds. The theme is the kind of caption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from promptecho.benchmarks.unigenbench.oracle import (
    CONSISTENCY,
    FEATURES,
    LAYOUT,
    NEGATION,
    QUANTITY,
    SAID,
    SHAPE,
)
from promptecho.benchmarks.unigenbench.prompts import PromptPoint, UnigenbenchPrompt
from promptecho.errors import DataError
from promptecho.files import write_csv_or_jsonl
from promptecho.gallery.captions import WORDINGS, DenseClaim, DenseGroup, random_dense_claim, write_dense
from promptecho.seeds import derive_seed
from promptecho.shapes.grammar import PHOTO, Claim, random_claim, write
from promptecho.shapes.world import COLORS, KINDS

TRIES = 2000  # draws per prompt before the vocabulary counts as used up
CLAUSES = ("one", "two", "three", "four")  # how many clauses a gallery prompt of a theme has
Draw = Callable[[np.random.Generator, str], tuple[str, DenseClaim]]


def _phrase(*groups: DenseGroup, relation: str | None = None) -> str:
    """'three large red circles', 'a red circle left of a star'."""
    relations = ((0, relation, 1),) if relation else ()
    return write_dense(DenseClaim(groups, relations), 3).removeprefix(PHOTO)


def points_of(claim: DenseClaim) -> list[PromptPoint]:
    """The test points of a claim whose groups differ in shape."""
    return [PromptPoint(name, name, description) for name, description in _told(claim)]


def _told(claim: DenseClaim) -> Iterator[tuple[str, str]]:
    for group in claim.groups:
        phrase = _phrase(group)
        yield SHAPE, phrase
        if group.count > 1:
            yield QUANTITY, phrase
        for name, attribute in SAID.items():
            if getattr(group, attribute):
                yield name, phrase
        if group.count > 1 and group.color:
            yield CONSISTENCY, phrase
    if len(claim.groups) == 2 and all(group.color for group in claim.groups):
        yield FEATURES, _phrase(*claim.groups)
    for first, direction, second in claim.relations:
        yield LAYOUT, _phrase(claim.groups[first], claim.groups[second], relation=direction)
    for name in claim.absent:
        yield NEGATION, f"no {name} object" if name in COLORS else f"no {name}"


def dense(claim: Claim) -> DenseClaim:
    """A claim of the shapes world as one of the gallery's."""
    groups = tuple(DenseGroup(group.count, group.shape, group.color) for group in claim.groups)
    return DenseClaim(groups, ((0, claim.relation, 1),) if claim.relation else ())


def prompt_of(index: int, text: str, theme: str, claim: DenseClaim) -> UnigenbenchPrompt:
    """A claim, written as `text`, as a prompt."""
    return UnigenbenchPrompt(str(index), "en", text, theme, tuple(points_of(claim)))


def _shapes_claim(rng: np.random.Generator, kind: str) -> tuple[str, DenseClaim]:
    claim = random_claim(rng, kind)
    return write(claim, int(rng.integers(4))), dense(claim)


def _gallery_claim(rng: np.random.Generator, clauses: str) -> tuple[str, DenseClaim]:
    wanted = CLAUSES.index(clauses) + 1
    claim = random_dense_claim(rng)
    while claim.clauses != wanted:
        claim = random_dense_claim(rng)
    return write_dense(claim, int(rng.integers(WORDINGS))), claim


def draw_prompts(themes: Sequence[str], per_theme: int, seed: int, world: str, draw: Draw) -> list[UnigenbenchPrompt]:
    """`per_theme` distinct prompts of each theme.

    Raises:
        DataError: the vocabulary has no more prompts of a theme.
    """
    found: dict[str, UnigenbenchPrompt] = {}
    for theme in themes:
        rng = np.random.default_rng(derive_seed(seed, "unigenbench", world, theme))
        for n in range(per_theme):
            for _ in range(TRIES):
                text, claim = draw(rng, theme)
                if text not in found and len({group.shape for group in claim.groups}) == len(claim.groups):
                    break
            else:
                raise DataError(f"{per_theme} prompts of kind {theme!r}: the vocabulary has about {n}; ask for fewer")
            found[text] = prompt_of(len(found), text, theme, claim)
    return list(found.values())


def write_prompts(prompts: Sequence[UnigenbenchPrompt], out: Path) -> int:
    """Write prompts, as CSV where `out` ends in .csv and as JSON Lines otherwise; returns how many."""
    rows: list[dict[str, Any]] = [prompt.row() for prompt in prompts]
    write_csv_or_jsonl(out, rows)
    return len(rows)


def write_shapes_prompts(per_kind: int, seed: int, out: Path) -> int:
    """Write `per_kind` prompts of each of the four KINDS of shapes captions; returns how many."""
    return write_prompts(draw_prompts(KINDS, per_kind, seed, "shapes", _shapes_claim), out)


def write_gallery_prompts(per_clauses: int, seed: int, out: Path) -> int:
    """Write `per_clauses` prompts over the gallery of each number of CLAUSES; returns how many."""
    return write_prompts(draw_prompts(CLAUSES, per_clauses, seed, "gallery", _gallery_claim), out)
