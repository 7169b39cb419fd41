"""Score files read for a table: hundreds of them, whose items are columns (item_columns.py)."""

from __future__ import annotations

import math
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic_core import from_json

from promptecho.item_columns import ItemColumns, shared_keys
from promptecho.provenance import Provenance
from promptecho.scores import SCHEMA_VERSION, Scores, read_scores

TYPES: dict[str, set[type]] = {
    "prompt_id": {str}, "image_index": {int}, "group": {str}, "outcome": {float, type(None)}, "failed": {bool},
}  # fmt: skip


def read_light(path: str | Path) -> Scores:
    """`read_scores` with lighter items. What is not exactly as scorers write it goes through `read_scores`, which says
    what is wrong, or takes it after all.

    Raises:
        DataError: as `read_scores`.
    """
    found = _as_written(path)
    return read_scores(path) if found is None else found


def _as_written(path: str | Path) -> Scores | None:
    try:
        value = from_json(Path(path).read_bytes())  # pydantic's own parser is the fastest at hand
        told, summary = Provenance.model_validate(value.pop("provenance")), value.pop("summary")
        items, parts = _light(value.pop("items")), _light(value.pop("parts", []))
    except (OSError, ValueError, TypeError, AttributeError, KeyError, OverflowError):
        return None
    if items is None or parts is None or not items or value != {"schema_version": SCHEMA_VERSION}:
        return None
    if not isinstance(summary, dict) or not all(type(one) is float and math.isfinite(one) for one in summary.values()):
        return None
    if not all(some.keys.unique for some in (items, parts)):
        return None
    if (len(items), int(items.failed.sum())) != (told.n, told.failures):
        return None
    return Scores.model_construct(
        schema_version=SCHEMA_VERSION, provenance=told, summary=summary, items=cast(Any, items), parts=cast(Any, parts)
    )


def _light(values: list[dict[str, Any]]) -> ItemColumns | None:
    """The items, if each is as a scorer writes it."""
    if set(map(len, values)) - {len(TYPES)}:
        return None
    columns = list(zip(*map(itemgetter(*TYPES), values), strict=True)) or [()] * len(TYPES)
    if any(set(map(type, column)) - allowed for column, allowed in zip(columns, TYPES.values(), strict=True)):
        return None
    names, images, groups, outcomes, failed = columns
    if not all(names) or not all(groups) or min(images, default=0) < 0:
        return None
    found = ItemColumns(shared_keys(names, images, groups), np.array(outcomes, float))  # None becomes NaN
    if found.failed.tolist() != list(failed) or np.isinf(found.outcomes).any():
        return None
    return found
