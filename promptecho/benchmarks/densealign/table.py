"""The DenseAlignBench table: how often a run's image was preferred to the baseline's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from promptecho.item_columns import ItemColumns, columns_of
from promptecho.scores import ScoreItem
from promptecho.statistics import Difference, difference_from_zero, mean_of_group_means
from promptecho.tables.collect import ScoreFile
from promptecho.tables.kind import (
    FAILURES,
    IMAGES,
    MODEL,
    PERCENT,
    PROMPTS,
    RowItems,
    TableKind,
    cell_of,
    difference_cell,
)
from promptecho.tables.table import Cell, Column

SIDES = {"win": 1, "loss": -1, "tie": 0}
LABELS = {"win": "Win", "loss": "Loss", "tie": "Tie"}


@dataclass(frozen=True)
class DenseAlignKind(TableKind):
    """Outcomes 1 (win), 0 (tie), -1 (loss): the comparison with the baseline is in every file."""

    def cells(self, items: Sequence[ScoreItem], files: Sequence[ScoreFile], what: str) -> dict[str, Cell]:
        judged = columns_of(items).judged()
        cells = {}
        for side, outcome in SIDES.items():
            shares = ItemColumns(judged.keys, (judged.outcomes == outcome).astype(float))
            cells[side] = cell_of(mean_of_group_means(shares, what=what)[0])
        cells["net"] = difference_cell(difference_from_zero(items, what=what))
        bias = [file.scores.summary.get("position_bias_p") for file in files]
        if len(bias) == 1 and bias[0] is not None:
            cells["position_bias_p"] = Cell(bias[0])
        return cells

    def differences(self, first: Sequence[ScoreItem], second: Sequence[ScoreItem], what: str) -> dict[str, Difference]:
        return {}

    def column_difference(self, column: str, first: RowItems, second: RowItems, what: str) -> Difference:
        """Net, for every column: what is compared is in each file."""
        return difference_from_zero(second.items, what=what)

    def notes(self, files: Sequence[ScoreFile]) -> list[str]:
        """What the columns are."""
        baselines = ", ".join(sorted({str(file.scores.provenance.baseline or "base @ 0") for file in files}))
        return [
            f"Compared with {baselines}. Win: the row's image was preferred, loss: the baseline's. Net is win minus "
            "loss from the counts, in points, so that it can differ by 0.1 from the printed rates; its interval is "
            "that of Bonett and Price, its p for no difference from the baseline, by sign-flip test over prompts, "
            "two-sided.",
            "Position bias p: chi-square test of independence of the order in which the images were shown and the "
            "winner; a small p means that the order mattered.",
        ]


DENSEALIGN = DenseAlignKind(
    title="DenseAlignBench",
    groups={},
    ungrouped=("all",),
    columns=[
        MODEL,
        *(replace(PERCENT, key=key, label=label, best=key == "win") for key, label in LABELS.items()),
        replace(PERCENT, key="net", label="Net", signed=True),
        PROMPTS,
        replace(IMAGES, label="Pairs"),
        FAILURES,
        Column("position_bias_p", "Position bias p", decimals=3),
    ],
    rules="Percent of pairs of images, which of the two follows its prompt better, judged by: {judge_model}.",
    unit="pairs",
    gains={"net": "seed_sd"},
    has_base=False,
)
