"""The UniGenBench table: the ten dimensions, their mean, and the sub-dimensions, in the order of the published one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from promptecho.benchmarks.unigenbench.dimensions import DIMENSIONS, PARTS, dimension_of
from promptecho.scores import ScoreItem
from promptecho.shared_prompts import mean_over_shared_prompts
from promptecho.statistics import Estimate
from promptecho.tables.collect import ScoreFile
from promptecho.tables.kind import (
    DELTA,
    FAILURES,
    IMAGES,
    MODEL,
    OVERALL,
    PROMPTS,
    TableKind,
    percent_columns,
)
from promptecho.tables.table import Panel

POINTS = replace(IMAGES, label="Test points")
# Sub-dimensions side by side: those of the first two dimensions are as many as those of the others.
PANELS = (("Attribute", "Action"), ("Relationship", "Compound", "Grammar", "Entity Layout"))


@dataclass(frozen=True)
class UnigenbenchKind(TableKind):
    """With a note on the dimensions that no prompt asks about."""

    def notes(self, files: Sequence[ScoreFile]) -> list[str]:
        absent = [label for name, label in DIMENSIONS.items() if name not in self.groups]
        told = f"No prompt has a test point of {', '.join(absent)}: Overall is the mean of the others, and does not "
        return [*([f"{told}compare with published ones."] if absent else []), *super().notes(files)]


def overall(items: Sequence[ScoreItem], what: str, key: str) -> Estimate:
    """The overall score of curves; `key` is that of the summary."""
    return mean_over_shared_prompts(items, what)[0]


def unigenbench_kind(files: Sequence[ScoreFile]) -> TableKind:
    """The table with a column for each dimension and sub-dimension that the files have."""
    found = {item.group for file in files for item in (*file.scores.items, *file.scores.parts)}
    groups = {name: label for name, label in DIMENSIONS.items() if name in found}
    parts = {name: label for name, label in PARTS.items() if name in found}
    first = [OVERALL, DELTA, *percent_columns(groups), PROMPTS, POINTS, FAILURES]
    panels = [Panel("Dimensions", tuple(column.key for column in first))]
    for dimensions in PANELS:
        some = [name for name in parts if dimension_of(name) in dimensions]
        there = [groups[name] for name in dimensions if name in groups]
        panels += [Panel(f"Sub-dimensions of {', '.join(there)}", tuple(some))] if some else []
    return UnigenbenchKind(
        title="UniGenBench++",
        groups=groups,
        columns=[MODEL, *first, *percent_columns(parts)],
        rules="Percent of test points that are right, judged by: {judge_model}. A dimension is the share of all its "
        "test points, Overall the mean of the dimensions.",
        stratified=True,
        shared_prompts=True,
        group_word="dimension",
        unit="test points",
        told={name: name for name in parts},
        panels=tuple(panels),
    )
