"""The table of OneIG-Bench's text: the published score, what it is made of, and the mean of the images' own scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from promptecho.benchmarks.textocr.table import TextOcrKind, file_groups, group_columns
from promptecho.tables.collect import ScoreFile
from promptecho.tables.kind import DELTA, FAILURES, IMAGES, MODEL, OVERALL, PERCENT, PROMPTS

TEXT_SCORE = replace(PERCENT, key="text_score", label="Text score", interval=False)
EDITS = replace(PERCENT, key="edits", label="ED", interval=False, best=False)
COMPLETION = replace(PERCENT, key="completion", label="CR")
ACCURACY = replace(PERCENT, key="word_accuracy", label="WAC", interval=False)
COMPLETION_DELTA = replace(DELTA, key="completion_delta", label="Δ CR")
ONEIG_TEXT = TextOcrKind(
    title="OneIG-Bench text",
    groups={},
    columns=[
        MODEL,
        TEXT_SCORE,
        EDITS,
        COMPLETION,
        COMPLETION_DELTA,
        ACCURACY,
        replace(OVERALL, label="By image"),
        DELTA,
        PROMPTS,
        IMAGES,
        FAILURES,
    ],
    rules="Percent, by OneIG-Bench's {mode} rules, text read by: {judge_model}. Text score is the published one, from "
    "the means over all images: edits (ED, in percent of the most that count: 100 in English, 50 in Chinese; fewer are "
    "better), images without an edit (CR), and required words or Chinese characters that were read (WAC). By image is "
    "the mean of the scores that each image would have alone, also by category; it has an interval, and is another "
    "number.",
    group_word="category",
    told={key: key for key in ("text_score", "edits", "completion", "word_accuracy")},
    told_gains={"completion_delta": "completion"},
)


def oneig_text_kind(files: Sequence[ScoreFile]) -> TextOcrKind:
    """The table with a column for each category that the files have, where there are several."""
    groups = file_groups(files)
    keys, columns = group_columns(groups, ONEIG_TEXT)
    return replace(
        ONEIG_TEXT, groups=groups, keys=keys, columns=[*ONEIG_TEXT.columns[:6], *columns, *ONEIG_TEXT.columns[6:]]
    )  # fmt: skip
