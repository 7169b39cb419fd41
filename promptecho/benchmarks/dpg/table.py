"""The DPG-Bench table: Overall, and the five categories as means over the questions of each."""

from __future__ import annotations

from dataclasses import replace

from promptecho.tables.kind import DELTA, FAILURES, IMAGES, MODEL, OVERALL, PROMPTS, TableKind, percent_columns

CATEGORIES = {
    "global": "Global",
    "entity": "Entity",
    "attribute": "Attribute",
    "relation": "Relation",
    "other": "Other",
}
DPG = TableKind(
    title="DPG-Bench",
    groups={},
    ungrouped=("all",),
    columns=[
        MODEL,
        *percent_columns(CATEGORIES, decimals=2),  # as published
        replace(OVERALL, decimals=2),
        replace(DELTA, decimals=2),
        PROMPTS,
        IMAGES,
        FAILURES,
    ],
    rules="Percent by DPG-Bench's {mode} rules, questions answered by: {judge_model}. Overall is the mean over "
    "prompts of their images' shares of right answers, a question counted wrong where one that it depends on is; it "
    "is not the mean of the categories. Categories are shares of right answers, in mode official of each prompt's last "
    "image alone and before that rule, so that they lie above Overall.",
    per_prompt=True,
    told={key: key for key in CATEGORIES},
)
