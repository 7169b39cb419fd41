"""Score files read for a table: hundreds of them, whose items take a fifth of the memory that the scorers' own do."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from promptecho.provenance import Provenance
from promptecho.scores import SCHEMA_VERSION, Scores, read_scores

FIELDS = {"prompt_id", "image_index", "group", "outcome", "failed"}


class LightItem(NamedTuple):
    """A `ScoreItem` of a finished file, which is never validated again."""

    prompt_id: str
    image_index: int
    group: str
    outcome: float | None
    failed: bool

    def model_copy(self, *, update: Mapping[str, Any]) -> LightItem:
        """As that of a pydantic model."""
        return self._replace(**update)


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
        value = json.loads(Path(path).read_bytes())
        told, summary = Provenance.model_validate(value.pop("provenance")), value.pop("summary")
        items, parts = _light(value.pop("items")), _light(value.pop("parts", []))
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None
    if items is None or parts is None or not items or value != {"schema_version": SCHEMA_VERSION}:
        return None
    if not isinstance(summary, dict) or not all(type(one) is float and math.isfinite(one) for one in summary.values()):
        return None
    for some in (items, parts):
        if len({(one.prompt_id, one.image_index) for one in some}) < len(some):
            return None
    if (len(items), sum(one.failed for one in items)) != (told.n, told.failures):
        return None
    return Scores.model_construct(
        schema_version=SCHEMA_VERSION, provenance=told, summary=summary, items=cast(Any, items), parts=cast(Any, parts)
    )


def _light(values: list[dict[str, Any]]) -> list[LightItem] | None:
    """The items, if each is as a scorer writes it; equal texts are one in memory, over all files."""
    found, intern = [], sys.intern
    for value in values:
        if value.keys() != FIELDS:
            return None
        name, index, group, outcome, failed = (
            value["prompt_id"], value["image_index"], value["group"], value["outcome"], value["failed"]
        )  # fmt: skip
        if type(name) is not str or type(group) is not str or not name or not group or type(failed) is not bool:
            return None
        if type(index) is not int or index < 0 or failed != (outcome is None):
            return None
        if outcome is not None and (type(outcome) is not float or not math.isfinite(outcome)):
            return None
        found.append(LightItem(intern(name), index, intern(group), outcome, failed))
    return found
