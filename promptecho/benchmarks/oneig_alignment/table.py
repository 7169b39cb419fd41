"""The table of OneIG-Bench's alignment: each class of prompts, and the mean over all prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from promptecho.benchmarks.textocr.table import TextOcrKind, file_groups, group_columns
from promptecho.tables.collect import ScoreFile
from promptecho.tables.kind import DELTA, FAILURES, IMAGES, MODEL, OVERALL, PROMPTS

ALIGNMENT = TextOcrKind(
    title="OneIG-Bench alignment",
    groups={},
    columns=[MODEL, replace(OVERALL, label="Alignment"), DELTA, PROMPTS, IMAGES, FAILURES],
    rules="Percent by OneIG-Bench's rules, questions answered by: {judge_model}. Alignment is the mean over prompts of "
    "their images' shares of questions answered yes, a question counted no where one that it depends on is.",
    group_word="class",
    per_prompt=True,
)


def alignment_kind(files: Sequence[ScoreFile]) -> TextOcrKind:
    """The table with a column for each class that the files have, where there are several."""
    groups = file_groups(files)
    keys, columns = group_columns(groups, ALIGNMENT)
    model, *others = ALIGNMENT.columns
    return replace(ALIGNMENT, groups=groups, keys=keys, columns=[model, *columns, *others])
