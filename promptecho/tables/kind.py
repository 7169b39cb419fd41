"""What one benchmark's table has of its own, and the columns that most tables have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from promptecho.item_columns import columns_of, groups_of, in_groups
from promptecho.scores import ScoreItem
from promptecho.shared_prompts import difference_over_shared_prompts, mean_over_shared_prompts
from promptecho.statistics import Difference, Estimate, mean_of_group_means, paired_difference, pool_seeds
from promptecho.tables.collect import ScoreFile
from promptecho.tables.table import Cell, Column, Panel

PERCENT = Column(key="", label="", decimals=1, unit="%", interval=True, best=True)
MODEL = Column("model", "Model", decimals=None)
OVERALL = replace(PERCENT, key="overall", label="Overall")
DELTA = replace(PERCENT, key="delta", label="Δ vs base", signed=True, best=False)
PROMPTS = Column("prompts", "Prompts", decimals=0)
IMAGES = Column("images", "Images", decimals=0)
FAILURES = Column("failures", "Failed", decimals=0)
# Only where seeds are taken together; after what each seed gains.
SEEDS = Column("seeds", "Seeds", decimals=0)
SEED_SD = replace(DELTA, key="seed_sd", label="s.d. over seeds", signed=False, interval=False)


def percent_columns(labels: Mapping[str, str], **changes: Any) -> list[Column]:
    """A column in percent for each key -> label; `changes` are other settings of all."""
    return [replace(PERCENT, key=key, label=label, **changes) for key, label in labels.items()]


@dataclass(frozen=True)
class RowItems:
    """What a row is made of: items, and parts with groups of their own."""

    items: Sequence[ScoreItem]
    parts: Sequence[ScoreItem]

    @classmethod
    def of(cls, files: Sequence[ScoreFile]) -> RowItems:
        """A file, or the seeds of one training as further images of the same prompts."""
        return cls(pool_seeds([f.scores.items for f in files]), pool_seeds([f.scores.parts for f in files]))


@dataclass(frozen=True)
class TableKind:
    """What one benchmark's table has of its own.

    `groups`: name -> label of those with a column; `ungrouped`: groups that count for Overall alone. `stratified`:
    Overall is the unweighted mean of the groups, otherwise the mean over all items, or `per_prompt` over the prompts.
    `shared_prompts`: a prompt has items of several groups, so that Overall's interval takes them together.
    `told`: columns whose values the scorer's summary tells (column -> key there), with an interval where the score
    files have parts of that group, whose mean the value is. `rules` is the first footnote, formatted with the
    provenance's `mode` and `judge_model`. `unit`: what an item is. `gains`: column of what a run gains -> column of its
    standard deviation over seeds. `told_gains`: column of what a run gains in a column that is told.
    """

    title: str
    groups: dict[str, str]
    columns: list[Column]
    rules: str
    stratified: bool = False
    shared_prompts: bool = False
    group_word: str = "group"
    ungrouped: tuple[str, ...] = ()
    per_prompt: bool = False
    told: dict[str, str] = field(default_factory=dict)
    unit: str = "images"
    gains: dict[str, str] = field(default_factory=lambda: {"delta": "seed_sd"})
    told_gains: dict[str, str] = field(default_factory=dict)
    has_base: bool = True
    panels: tuple[Panel, ...] = ()

    def cells(self, items: Sequence[ScoreItem], files: Sequence[ScoreFile], what: str) -> dict[str, Cell]:
        """Column -> cell of what these items, pooled from `files`, show."""
        overall, groups = self._estimates(items, what)
        cells = {**{group: cell_of(estimate) for group, estimate in groups.items()}, "overall": cell_of(overall)}
        parts = pool_seeds([file.scores.parts for file in files])
        for column, key in self.told.items():
            mine = in_groups(parts, {key}).judged()
            # Seeds whose files have no parts (older versions') would be missing from the mean without a word.
            if mine and all(key in groups_of(file.scores.parts) for file in files):
                cells[column] = cell_of(mean_of_group_means(mine, what=what)[0])
            elif all(key in file.scores.summary for file in files):
                cells[column] = Cell(100 * fmean(file.scores.summary[key] for file in files))
        return cells

    def differences(self, first: Sequence[ScoreItem], second: Sequence[ScoreItem], what: str) -> dict[str, Difference]:
        """Column -> what `second` has more than `first`, paired."""
        return {"delta": self._overall_difference(first, second, what)}

    def told_differences(self, first: RowItems, second: RowItems, what: str) -> dict[str, Difference]:
        """Column -> what `second` has more than `first` in a told column, paired; only those that can be paired."""
        pairs = {gain: self.column_difference(column, first, second, what) for gain, column in self.told_gains.items()}
        return {gain: difference for gain, difference in pairs.items() if difference is not None}

    def column_difference(self, column: str, first: RowItems, second: RowItems, what: str) -> Difference | None:
        """What `second` has more than `first` in a column of scores, paired; None where the two cannot be paired."""
        if column == "overall":
            sides = (first.items, second.items)
            return self._overall_difference(*sides, what) if pairable(*sides) else None
        group = self.group_of(column)
        before, after = (
            in_groups(judged.parts if column in self.told else judged.items, {group}) for judged in (first, second)
        )
        return paired_difference(before, after, what=what) if pairable(before, after) else None

    def _overall_difference(self, first: Sequence[ScoreItem], second: Sequence[ScoreItem], what: str) -> Difference:
        if self.stratified and self.shared_prompts:
            return difference_over_shared_prompts(first, second, what)
        return paired_difference(first, second, ungrouped=not self.stratified, per_prompt=self.per_prompt, what=what)

    def group_of(self, column: str) -> str:
        """The group of items, or of parts, whose mean a column of scores is."""
        return self.told.get(column, column)

    def absent(self, items: Sequence[ScoreItem]) -> list[str]:
        """Labels of the groups that a reader would miss: no item of theirs has an outcome, though Overall is the mean
        of the groups, or though there are items."""
        judged, asked = groups_of(items, judged=True), groups_of(items)
        missed = (name for name in self.groups if name not in judged and (self.stratified or name in asked))
        return [self.groups[name] for name in missed]

    def known_groups(self) -> set[str] | None:
        """Groups that items may have; None: any."""
        return {*self.groups, *self.ungrouped}

    def notes(self, files: Sequence[ScoreFile]) -> list[str]:
        """Footnotes of this benchmark alone, after its rules."""
        labels = {column.key: column.label for column in self.columns}
        absent = [labels[c] for c, key in self.told.items() if not all(key in file.scores.summary for file in files)]
        return [f"A dash: the scorer's summary tells no {' and no '.join(absent)}."] if absent else []

    def _estimates(self, items: Sequence[ScoreItem], what: str) -> tuple[Estimate, dict[str, Estimate]]:
        if self.stratified and self.shared_prompts:
            return mean_over_shared_prompts(items, what)
        if self.stratified:
            return mean_of_group_means(items, what=what)
        judged = groups_of(items, judged=True)
        groups = {
            group: mean_of_group_means(in_groups(items, {group}), what=what)[0]
            for group in self.groups
            if group in judged
        }
        return mean_of_group_means(items, ungrouped=True, per_prompt=self.per_prompt, what=what)[0], groups


def cell_of(estimate: Estimate | Difference, note: str = "") -> Cell:
    """An estimate in percent."""
    return Cell(100 * estimate.value, 100 * estimate.low, 100 * estimate.high, note=note)


def difference_cell(difference: Difference) -> Cell:
    """A difference in points with its p-value."""
    p_value = difference.p_value
    return cell_of(difference, "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}")


def pairable(first: Sequence[ScoreItem], second: Sequence[ScoreItem]) -> bool:
    """Whether these are the same items, and some have an outcome on both sides."""
    before, after = columns_of(first), columns_of(second)
    if before.keys.same(after.keys):
        return bool((~(before.failed | after.failed)).any())
    left, right = ({(i.prompt_id, i.image_index): i for i in items} for items in (before, after))
    return left.keys() == right.keys() and any(not (left[key].failed or right[key].failed) for key in left)
