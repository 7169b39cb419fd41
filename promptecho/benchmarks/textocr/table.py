"""The text rendering table: share of images whose text is right to the character, and errors per character."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from promptecho.scores import ScoreItem
from promptecho.statistics import Estimate
from promptecho.tables.collect import ScoreFile
from promptecho.tables.kind import (
    DELTA,
    FAILURES,
    IMAGES,
    MODEL,
    OVERALL,
    PERCENT,
    PROMPTS,
    SEEDS,
    TableKind,
    percent_columns,
)
from promptecho.tables.table import Column

ERROR_RATE = "character_error_rate"
IMAGE_ERROR_RATE = "image_error_rate"  # the column has this where the files have a value for each image
ROLES = {"main_title": "Title", "subtitle": "Subtitle", "selling_points": "Selling points", "other_text": "Other text"}
ERRORS = replace(PERCENT, key=ERROR_RATE, label="Character errors", best=False)
ERRORS_DELTA = replace(DELTA, key="errors_delta", label="Δ errors")


@dataclass(frozen=True)
class TextOcrKind(TableKind):
    """Groups are those of the prompt set. `keys`: group -> column, where another column has the group's name."""

    keys: dict[str, str] = field(default_factory=dict)

    def known_groups(self) -> None:
        return None

    def group_of(self, column: str) -> str:
        return next((group for group, key in self.keys.items() if key == column), super().group_of(column))

    def _estimates(self, items: Sequence[ScoreItem], what: str) -> tuple[Estimate, dict[str, Estimate]]:
        overall, groups = super()._estimates(items, what)
        return overall, {self.keys.get(group, group): estimate for group, estimate in groups.items()}


TEXTOCR = TextOcrKind(
    title="Text rendering",
    groups={},
    columns=[
        MODEL,
        replace(OVERALL, label="Accuracy"),
        DELTA,
        replace(ERRORS, interval=False),
        PROMPTS,
        IMAGES,
        FAILURES,
    ],
    rules="Percent of images in which all required text is right, character by character, read by: {judge_model}. "
    "Character errors: edits from the required to the found text per required character, in percent, where the "
    "reader tells them; fewer are better.",
    told={ERROR_RATE: ERROR_RATE},
)


def textocr_kind(files: Sequence[ScoreFile]) -> TableKind:
    """The table with a column for each group that the files have, in the files' order, where there are several; and
    without that of character errors where no reader counts them (a judge answers right or wrong)."""
    groups = file_groups(files)
    told = TEXTOCR.told if any(ERROR_RATE in file.scores.summary for file in files) else {}
    columns = [column for column in TEXTOCR.columns[1:] if column.key != ERROR_RATE or told]
    rules, told_gains = TEXTOCR.rules, {}
    if files and all(IMAGE_ERROR_RATE in file.scores.summary for file in files):
        roles = {role: label for role, label in ROLES.items() if any(role in file.scores.summary for file in files)}
        told = {ERROR_RATE: IMAGE_ERROR_RATE, **{role: role for role in roles}}
        told_gains = {ERRORS_DELTA.key: ERROR_RATE}
        place = next(place for place, column in enumerate(columns) if column.key == ERROR_RATE)
        columns[place : place + 1] = [ERRORS, ERRORS_DELTA, *percent_columns(roles)]
        rules = TEXTOCR.rules.replace("in percent,", "in percent, mean over the images that require text,")
        if roles:
            rules += " By role: percent of the texts asked for that stand in their role, right to the character."
    keys, by_group = group_columns(groups, TEXTOCR)
    shown = [MODEL, *by_group, *columns]
    return replace(
        TEXTOCR, groups=groups, keys=keys, told=told, told_gains=told_gains, rules=rules, columns=shown
    )  # fmt: skip


def file_groups(files: Sequence[ScoreFile]) -> dict[str, str]:
    """The groups that the files have, in the files' order, as name -> name; none where there is one only."""
    groups = {item.group: item.group for file in files for item in file.scores.items}
    return groups if len(groups) > 1 else {}


def group_columns(groups: Mapping[str, str], kind: TableKind) -> tuple[dict[str, str], list[Column]]:
    """A column for each group of the prompt set in a table of `kind`, and the keys of those whose names other columns
    have."""
    taken = {column.key for column in kind.columns} | {SEEDS.key, *kind.gains.values()}
    keys = {group: f"group {group}" for group in groups if group in taken}
    labels = {group: group[:1].upper() + group[1:] for group in groups}
    plain = len(set(labels.values())) < len(labels)  # "title" and "Title" stay two
    return keys, [replace(PERCENT, key=keys.get(g, g), label=g if plain else labels[g]) for g in groups]
