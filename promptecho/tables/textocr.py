"""The text rendering table: share of images whose text is right to the character, and errors per character."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from promptecho.tables.collect import ScoreFile
from promptecho.tables.kind import DELTA, FAILURES, IMAGES, MODEL, OVERALL, PERCENT, PROMPTS, Kind

ERROR_RATE = "character_error_rate"


@dataclass(frozen=True)
class TextOcrKind(Kind):
    """Groups are whatever the prompt set tells."""

    def known_groups(self) -> None:
        return None


TEXTOCR = TextOcrKind(
    title="Text rendering",
    groups={},
    columns=[
        MODEL,
        replace(OVERALL, label="Accuracy"),
        DELTA,
        replace(PERCENT, key=ERROR_RATE, label="Character errors", interval=False, best=False),
        PROMPTS,
        IMAGES,
        FAILURES,
    ],
    rules="Percent of images in which all required text is right, character by character, read by: {judge_model}. "
    "Character errors: edits from the required to the found text per required character, in percent, where the "
    "reader tells them; fewer are better.",
    told={ERROR_RATE: ERROR_RATE},
)


def textocr_kind(files: Sequence[ScoreFile]) -> Kind:
    """The table with a column for each group that the files have, in the files' order, where there are several; and
    without that of character errors where no reader tells them (a judge answers right or wrong)."""
    groups = {item.group: item.group for file in files for item in file.scores.items}
    groups = groups if len(groups) > 1 else {}
    told = TEXTOCR.told if any(ERROR_RATE in file.scores.summary for file in files) else {}
    columns = [column for column in TEXTOCR.columns[1:] if column.key != ERROR_RATE or told]
    by_group = [replace(PERCENT, key=group, label=group.capitalize()) for group in groups]
    return replace(TEXTOCR, groups=groups, told=told, columns=[MODEL, *by_group, *columns])
