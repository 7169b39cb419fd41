"""DPG-Bench over the shapes vocabulary: prompts in the official nine columns, with questions that the oracle reads.

Of each object its presence (entity), colour (attribute) and where there are several their number (other), of a pair the
direction (relation); and of the whole image how many objects it shows (global), so that things added count.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from promptecho.benchmarks.dpg.prompt_rows import QuestionSheet, Row, draw_rows, write_rows
from promptecho.shapes.grammar import Claim, random_claim, write
from promptecho.shapes.world import KINDS


def questions_of(claim: Claim) -> list[Row]:
    """The rows of a claim without item_id and text; a question depends on the presence of what it is about."""
    sheet = QuestionSheet()
    present = [sheet.ask_group(group.count, group.shape, color=group.color) for group in claim.groups]
    if claim.relation:
        first, second = (group.shape for group in claim.groups)
        sheet.ask_relation(first, claim.relation, second, present)
    sheet.ask_total(sum(group.count for group in claim.groups))
    return sheet.rows


def _draw(rng: np.random.Generator, kind: str) -> tuple[str, list[Row]]:
    claim = random_claim(rng, kind)
    return write(claim, int(rng.integers(4))), questions_of(claim)


def dpg_rows(per_kind: int, seed: int) -> list[Row]:
    """Rows of `per_kind` distinct prompts of each of the four KINDS of claims.

    Raises:
        DataError: the vocabulary has no more prompts of a kind.
    """
    return draw_rows(KINDS, per_kind, seed, "dpg", _draw)


def write_dpg_questions(per_kind: int, seed: int, out: Path) -> int:
    """Write the questions, as CSV where `out` ends in .csv and as JSON Lines otherwise; returns how many prompts."""
    return write_rows(dpg_rows(per_kind, seed), out)
