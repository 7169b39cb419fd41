"""The TIIF-Bench table: the published columns for short and for long prompts, each a weighted mean of attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from promptecho.benchmarks.tiif.attributes import ATTRIBUTES, COLUMNS, LENGTHS, ROUNDING, column_weights
from promptecho.errors import DataError
from promptecho.item_columns import groups_of, in_groups
from promptecho.scores import ScoreItem
from promptecho.statistics import Difference, Estimate, Weights, paired_difference, weighted_means
from promptecho.tables.collect import ScoreFile
from promptecho.tables.kind import (
    DELTA,
    FAILURES,
    IMAGES,
    MODEL,
    PERCENT,
    PROMPTS,
    RowItems,
    TableKind,
    cell_of,
    pairable,
)
from promptecho.tables.table import Cell, Column, Panel

LABELS = {
    "overall": "Overall",
    "attr": "Attr.",
    "rela": "Rela.",
    "reas": "Reas.",
    "basic_avg": "Basic Avg",
    "attr_rela": "Attr.+Rela.",
    "attr_reas": "Attr.+Reas.",
    "rela_reas": "Rela.+Reas.",
    "style": "Style",
    "text": "Text",
    "advanced_avg": "Adv. Avg",
    "real_world": "Real World",
}  # in the order of the published table


def columns_of(names: Sequence[str]) -> dict[str, Weights]:
    """`LENGTH.COLUMN` -> group -> weight, for the groups `LENGTH:ATTRIBUTE` that have outcomes."""
    columns: dict[str, Mapping[str, float]] = {}
    for length in LENGTHS:
        present = {name.removeprefix(f"{length}:") for name in names if name.startswith(f"{length}:")}
        for column, weights in column_weights(present).items():
            columns[f"{length}.{column}"] = {f"{length}:{a}": weight for a, weight in weights.items()}
    return columns


def estimates(items: Sequence[ScoreItem], what: str, only: str = "") -> dict[str, Estimate]:
    """`LENGTH.COLUMN` -> estimate; questions about one image stay together. `only` one column of these."""

    def chosen(names: list[str]) -> dict[str, Weights]:
        return {column: weights for column, weights in columns_of(names).items() if only in ("", column)}

    return weighted_means(items, chosen, what=what)


def overall(items: Sequence[ScoreItem], what: str, key: str) -> Estimate:
    """The column `key`, LENGTH.overall, of curves.

    Raises:
        DataError: no outcome counts for it.
    """
    found = estimates(items, what, key)
    if key not in found:
        raise DataError(f"{what}: no outcome that counts for {key}; score again")
    return found[key]


def verdicts(items: Sequence[ScoreItem]) -> dict[tuple[str, int], float | None]:
    """Of each image: the share of the questions about it that were answered as expected; None where none was."""
    answers: dict[tuple[str, int], list[float]] = {}
    for item in items:
        about = answers.setdefault(_image(item.prompt_id, item.group.partition(":")[0]), [])
        about += [] if item.outcome is None else [item.outcome]
    return {key: sum(about) / len(about) if about else None for key, about in answers.items()}


def image_of(record: Mapping[str, Any]) -> tuple[str, int]:
    """Of a raw record: which image of the listing it is about."""
    return _image(record["prompt_id"], record["length"])


def _image(prompt_id: str, length: str) -> tuple[str, int]:
    """As the image's listing names it."""
    attribute, _, number = prompt_id.rpartition("/")
    return f"{attribute}/{length}/{number}", 0


def _overall_of(length: str, names: list[str]) -> Mapping[str, float]:
    """The groups' weights in the overall score of one length."""
    return columns_of(names)[f"{length}.overall"]


@dataclass(frozen=True)
class TiifKind(TableKind):
    """TIIF-Bench's weighted means."""

    def cells(self, items: Sequence[ScoreItem], files: Sequence[ScoreFile], what: str) -> dict[str, Cell]:
        cells = {}
        for column, estimate in estimates(items, what).items():
            cell = cells[column] = cell_of(estimate)
            told = 100 * files[0].scores.summary.get(column, float("nan"))
            # The official number, rounded twice.
            if len(files) == 1 and abs(told - 100 * estimate.value) <= 100 * ROUNDING:
                cell.value = told
                cell.low, cell.high = min(100 * estimate.low, told), max(100 * estimate.high, told)
        return cells

    def differences(self, first: Sequence[ScoreItem], second: Sequence[ScoreItem], what: str) -> dict[str, Difference]:
        found = {}
        for length in LENGTHS:
            sides = [
                in_groups(items, {group for group in groups_of(items) if group.startswith(f"{length}:")})
                for items in (first, second)
            ]
            if sides[1].judged():
                found[f"{length}.delta"] = paired_difference(*sides, weigh=partial(_overall_of, length), what=what)
        return found

    def column_difference(self, column: str, first: RowItems, second: RowItems, what: str) -> Difference | None:
        length = column.partition(".")[0]
        groups = groups_of(first.items, judged=True) | groups_of(second.items, judged=True)
        groups = {group for group in groups if group.startswith(f"{length}:")}
        weights = columns_of(sorted(groups)).get(column, {})
        sides = [in_groups(judged.items, weights) for judged in (first, second)]
        if not pairable(*sides):
            return None
        return paired_difference(*sides, weigh=lambda names: columns_of(names)[column], what=what)

    def absent(self, items: Sequence[ScoreItem]) -> list[str]:
        return []  # told in a footnote: prompt sets need not have all attributes

    def notes(self, files: Sequence[ScoreFile]) -> list[str]:
        """Which attributes have no outcome, and in which rows."""
        rows: dict[str, list[str]] = {}
        for file in files:
            there = groups_of(file.scores.items, judged=True)
            absent = {length: [a for a in ATTRIBUTES if f"{length}:{a}" not in there] for length in LENGTHS}
            if absent["short"] == absent["long"]:
                told = ", ".join(absent["short"])
            else:
                told = "; ".join(f"{length}: {', '.join(names)}" for length, names in absent.items() if names)
            if told:
                rows.setdefault(told, []).append(file.label)
        return [
            f"Without outcomes in {'all rows' if len(labels) == len(files) else ', '.join(labels)}: {told}. Columns "
            "are means over the attributes that are there, and a dash where none is; such rows do not compare with "
            "published ones."
            for told, labels in rows.items()
        ] + ["Prompts, Questions and Failed count short and long prompts together; one prompt has both lengths."]


def _column(length: str, key: str) -> Column:
    return replace(PERCENT, key=f"{length}.{key}", label=LABELS[key])


def _panels() -> tuple[Panel, ...]:
    basic, advanced = ("attr", "rela", "reas", "basic_avg"), tuple(LABELS)[5:]
    panels = []
    for length in LENGTHS:
        first = (f"{length}.overall", f"{length}.delta", *(f"{length}.{key}" for key in basic))
        counts = ("prompts", "images", "failures") if length == "short" else ()
        panels.append(Panel(f"{length.capitalize()} prompts, overall and basic following", (*first, *counts)))
        title = f"{length.capitalize()} prompts, advanced and real-world following"
        panels.append(Panel(title, tuple(f"{length}.{key}" for key in advanced)))
    return tuple(panels)


assert sorted(LABELS) == sorted(COLUMNS)
TIIF = TiifKind(
    title="TIIF-Bench",
    groups={f"{length}:{attribute}": attribute for length in LENGTHS for attribute in ATTRIBUTES},
    columns=[
        MODEL,
        *(
            column
            for length in LENGTHS
            for column in (
                _column(length, "overall"),
                replace(DELTA, key=f"{length}.delta"),
                *(_column(length, key) for key in LABELS if key != "overall"),
            )
        ),
        PROMPTS,
        replace(IMAGES, label="Questions"),
        FAILURES,
    ],
    rules="Percent of questions answered as expected, by TIIF-Bench's {mode} rules, asked of: {judge_model}. Overall "
    "is the mean of the nine sub-scores, a sub-score the mean of its attributes, Basic and Adv. Avg the means of the "
    "12 basic and the 26 advanced attributes.",
    stratified=True,
    group_word="attribute",
    unit="questions",
    gains={f"{length}.delta": f"{length}.seed_sd" for length in LENGTHS},
    panels=_panels(),
)
