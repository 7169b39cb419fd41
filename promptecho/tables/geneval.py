"""The GenEval table: sub-tasks, Overall, and each checkpoint's paired difference to its base."""

from __future__ import annotations

from dataclasses import replace

from promptecho.tables.collect import ScoreFile
from promptecho.tables.compare import MAX_FAILURE_SHARE, FailureShare, comparison
from promptecho.tables.kind import DELTA, FAILURES, IMAGES, MODEL, OVERALL, PERCENT, Kind
from promptecho.tables.table import Table

SUBTASKS = {
    "single_object": "Single Obj.",
    "two_object": "Two Obj.",
    "counting": "Counting",
    "colors": "Colors",
    "position": "Position",
    "color_attr": "Attr. Bind.",
}
GENEVAL = Kind(
    title="GenEval",
    groups=SUBTASKS,
    columns=[
        MODEL,
        *(replace(PERCENT, key=key, label=label) for key, label in SUBTASKS.items()),
        OVERALL,
        DELTA,
        IMAGES,
        FAILURES,
    ],
    rules="Percent of images right by GenEval's {mode} rules, detector: {judge_model}. Overall is the mean of the "
    "sub-tasks.",
    stratified=True,
    group_word="sub-task",
)


def geneval_table(
    files: list[ScoreFile], *, name: str = "geneval", max_failure_share: FailureShare = MAX_FAILURE_SHARE
) -> Table:
    """Build the table from score files sorted as `read_score_files` returns them; see `comparison`."""
    return comparison(GENEVAL, files, name=name, max_failure_share=max_failure_share)
