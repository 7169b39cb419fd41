"""The T2I-CompBench++ table: a column for each category, and their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from promptecho.benchmarks.t2icompbench.rules import CATEGORIES
from promptecho.tables.collect import ScoreFile
from promptecho.tables.kind import DELTA, FAILURES, IMAGES, MODEL, OVERALL, PROMPTS, TableKind, percent_columns

MEASURES = {
    "color": "the product over a prompt's noun phrases of the probability that each is there",
    "spatial": "a quarter of each object's detection score, and half for their places",
    "non_spatial": "the cosine of image and prompt (CLIPScore)",
    "numeracy": "half for each object that is there, half for its right number",
}


def compbench_kind(files: Sequence[ScoreFile]) -> TableKind:
    """The table with a column for each category that the files have."""
    found = {item.group for file in files for item in file.scores.items}
    groups = {category: label for category, label in CATEGORIES.items() if category in found}
    attributes = [label for category, label in groups.items() if category not in MEASURES or category == "color"]
    told = [f"{', '.join(attributes)}: {MEASURES['color']}"] if attributes else []
    told += [f"{label}: {MEASURES[key]}" for key, label in groups.items() if key in MEASURES and key != "color"]
    return TableKind(
        title="T2I-CompBench++",
        groups=groups,
        columns=[
            MODEL,
            *percent_columns(groups),
            replace(OVERALL, label="Mean"),
            DELTA,
            PROMPTS,
            IMAGES,
            FAILURES,
        ],
        rules=f"Percent, each category by its own measure, looked at by: {{judge_model}}. {'. '.join(told)}. The mean "
        "of the categories is no number of the authors.",
        stratified=True,
        group_word="category",
    )
