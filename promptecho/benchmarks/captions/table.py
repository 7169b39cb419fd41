"""The captions table: how many images show what their held-out caption claims, overall and by kind of claim."""

from __future__ import annotations

from promptecho.tables.kind import DELTA, FAILURES, IMAGES, MODEL, OVERALL, PROMPTS, TableKind, percent_columns

GROUPS = {"single": "Single", "count": "Count", "relation": "Relation", "pair": "Pair"}
CAPTIONS = TableKind(
    title="Captions",
    groups=GROUPS,
    columns=[
        MODEL,
        *percent_columns(GROUPS),
        OVERALL,
        DELTA,
        PROMPTS,
        IMAGES,
        FAILURES,
    ],
    rules="Percent of images that show what their caption claims and nothing else, read by: {judge_model}. By kind of "
    "claim: one object, several alike, two in a relation, two or more without one. Overall is the mean over images.",
    stratified=False,
    ungrouped=("other",),
)
