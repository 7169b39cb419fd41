"""The LongText-Bench table: the share of required words or characters that were read, by category and length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from promptecho.benchmarks.textocr.table import TextOcrKind, file_groups, group_columns
from promptecho.tables.collect import ScoreFile
from promptecho.tables.kind import DELTA, FAILURES, IMAGES, MODEL, OVERALL, PERCENT, PROMPTS

LENGTHS = {"length short": "Short", "length long": "Long"}
LONGTEXT = TextOcrKind(
    title="LongText-Bench",
    groups={},
    columns=[MODEL, replace(OVERALL, label="Text"), DELTA, PROMPTS, replace(IMAGES, label="Units"), FAILURES],
    rules="Percent of the required units (words in English, characters in Chinese) that were read in the images, by "
    "LongText-Bench's {mode} rules and by: {judge_model}. Each unit counts the same, so that images of long texts "
    "count for more; intervals count prompts as random.",
    group_word="category",
    unit="units",
)


def longtext_kind(files: Sequence[ScoreFile]) -> TextOcrKind:
    """The table with a column for each category that the files have, where there are several, and for each length."""
    groups = file_groups(files)
    keys, columns = group_columns(groups, LONGTEXT)
    told = {key: key for key in LENGTHS if files and all(key in file.scores.summary for file in files)}
    lengths = [replace(PERCENT, key=key, label=LENGTHS[key], interval=False) for key in told]
    model, overall, *others = LONGTEXT.columns
    return replace(
        LONGTEXT, groups=groups, keys=keys, told=told, columns=[model, *columns, *lengths, overall, *others]
    )  # fmt: skip
