"""The GenEval table: sub-tasks, Overall, and each checkpoint's paired difference to its base."""

from __future__ import annotations

from promptecho.tables.kind import DELTA, FAILURES, IMAGES, MODEL, OVERALL, TableKind, percent_columns

SUBTASKS = {
    "single_object": "Single Obj.",
    "two_object": "Two Obj.",
    "counting": "Counting",
    "colors": "Colors",
    "position": "Position",
    "color_attr": "Attr. Bind.",
}
GENEVAL = TableKind(
    title="GenEval",
    groups=SUBTASKS,
    columns=[
        MODEL,
        *percent_columns(SUBTASKS),
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
