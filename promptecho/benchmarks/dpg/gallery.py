"""DPG-Bench over the gallery: dense prompts of one to four clauses, in the official nine columns.

Of each group of objects its presence (entity - whole), what its prompt says of colour, size and texture (attribute) and
where there are several their number (other - count); each relation (relation - spatial); what must not be there
(other - negation); and of the whole image how many objects it shows (global). The categories are DPG-Bench's own, but
for `negation`: no official question asks whether something is absent, so that this detailed name is ours.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from promptecho.benchmarks.dpg.prompt_rows import QuestionSheet, Row, draw_rows, write_rows
from promptecho.gallery.captions import WORDINGS, DenseClaim, random_dense_claim, write_dense
from promptecho.shapes.world import COLORS

CLAUSES = ("one", "two", "three", "four")  # how many clauses the prompts of a tag have


def questions_of(claim: DenseClaim) -> list[Row]:
    """The rows of a claim whose groups differ in shape, without item_id and text.

    A question depends on the presence of what it is about; that something is not there depends on nothing.
    """
    sheet = QuestionSheet()
    present = [
        sheet.ask_group(group.count, group.shape, color=group.color, size=group.size, texture=group.texture)
        for group in claim.groups
    ]
    for a, direction, b in claim.relations:
        first, second = (claim.groups[index].shape for index in (a, b))
        sheet.ask_relation(first, direction, second, [present[a], present[b]])
    for name in claim.absent:
        what = f"{name} object" if name in COLORS else name
        sheet.ask("other", "negation", f"no {what}", [], f"Is there no {what}?")
    sheet.ask_total(sum(group.count for group in claim.groups))
    return sheet.rows


def _draw(rng: np.random.Generator, clauses: str) -> tuple[str, list[Row]]:
    wanted = CLAUSES.index(clauses) + 1
    claim = random_dense_claim(rng)
    while claim.clauses != wanted:
        claim = random_dense_claim(rng)
    return write_dense(claim, int(rng.integers(WORDINGS))), questions_of(claim)


def dpg_rows(per_tag: int, seed: int) -> list[Row]:
    """Rows of `per_tag` distinct prompts of each number of CLAUSES.

    Raises:
        DataError: the vocabulary has no more prompts of so many clauses.
    """
    return draw_rows(CLAUSES, per_tag, seed, "dpg gallery", _draw)


def write_dpg_questions(per_tag: int, seed: int, out: Path) -> int:
    """Write the questions, as CSV where `out` ends in .csv and as JSON Lines otherwise; returns how many prompts."""
    return write_rows(dpg_rows(per_tag, seed), out)
