"""Which values of a table are bold: the best of a column, where it is significantly better than the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptecho.intervals import CONFIDENCE
from promptecho.scores import ScoreItem
from promptecho.statistics import Difference, pool_seeds
from promptecho.tables.collect import ScoreFile
from promptecho.tables.table import Column

if TYPE_CHECKING:
    from promptecho.tables.compare import Kind


@dataclass(frozen=True)
class Judged:
    """What a row is made of: items, and parts with groups of their own."""

    items: list[ScoreItem]
    parts: list[ScoreItem]

    @classmethod
    def of(cls, files: Sequence[ScoreFile]) -> Judged:
        """A file, or the seeds of one training as further images of the same prompts."""
        return cls(pool_seeds([f.scores.items for f in files]), pool_seeds([f.scores.parts for f in files]))


@dataclass(frozen=True)
class Compared:
    """A row and the base that it is compared with; `base` None where there is none, or it saw other prompts."""

    row: Judged
    base: Judged | None
    what: str


def significant(difference: Difference | None) -> bool:
    """Whether a difference is a gain that both the test and the interval show."""
    return difference is not None and difference.low > 0 and difference.p_value < 1 - CONFIDENCE


def is_significant(kind: Kind, compared: Compared, column: Column) -> bool:
    """Whether a row's value in `column` is significantly better than its base's."""
    if compared.base is None and kind.has_base:
        return False
    return significant(kind.column_difference(column.key, compared.base or compared.row, compared.row, compared.what))


def pairable(first: Sequence[ScoreItem], second: Sequence[ScoreItem]) -> bool:
    """Whether these are the same items, and some have an outcome on both sides."""
    left, right = ({(i.prompt_id, i.image_index): i for i in items} for items in (first, second))
    return left.keys() == right.keys() and any(not (left[key].failed or right[key].failed) for key in left)


def bold_note(kind: Kind, rows: Sequence[Compared]) -> str:
    """What bold means in this table."""
    level = f"p < {1 - CONFIDENCE:.2f} by sign-flip test over prompts, and an interval above 0"
    if not kind.has_base:
        return f"Bold: the best value of a column, where the row's net is significantly above 0 ({level})."
    if all(compared.base is None for compared in rows):
        return "Nothing is bold: no row can be compared with its base."
    return (
        "Bold: the best value of a column, where it is significantly better than the base's: their paired difference "
        f"has {level}, not corrected for the number of columns and rows. Otherwise nothing in the column is bold."
    )
