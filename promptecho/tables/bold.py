"""Which values of a table are bold: the best of a column, where it is significantly better than the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from promptecho.intervals import CONFIDENCE
from promptecho.statistics import Difference
from promptecho.tables.kind import RowItems, TableKind
from promptecho.tables.table import Column


@dataclass(frozen=True)
class Compared:
    """A row and the base that it is compared with; `base` None where there is none, or it saw other prompts."""

    row: RowItems
    base: RowItems | None
    what: str


def significant(difference: Difference | None) -> bool:
    """Whether a difference is a gain that both the test and the interval show."""
    return difference is not None and difference.low > 0 and difference.p_value < 1 - CONFIDENCE


def is_significant(kind: TableKind, compared: Compared, column: Column) -> bool:
    """Whether a row's value in `column` is significantly better than its base's."""
    if compared.base is None and kind.has_base:
        return False
    return significant(kind.column_difference(column.key, compared.base or compared.row, compared.row, compared.what))


def bold_note(kind: TableKind, rows: Sequence[Compared]) -> str:
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
