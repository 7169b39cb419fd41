"""The table of moving shapes: how many videos show what their caption claims, and which part of it."""

from __future__ import annotations

from promptecho.tables.kind import DELTA, FAILURES, IMAGES, MODEL, OVERALL, PROMPTS, TableKind, percent_columns

GROUPS = {"one": "One mover", "two": "Two movers"}
PARTS = {"objects": "Objects", "motions": "Motions"}
MOVING = TableKind(
    title="Moving shapes",
    groups=GROUPS,
    columns=[MODEL, *percent_columns(GROUPS), OVERALL, DELTA, *percent_columns(PARTS), PROMPTS, IMAGES, FAILURES],
    rules="Percent of videos that show what their caption claims, read by: {judge_model}. Objects: every frame shows "
    "exactly the caption's; Motions: of the videos whose objects are right, those in which each goes where it should. "
    "Overall is the mean over videos, of which both must be right.",
    stratified=False,
    ungrouped=("other",),
    unit="videos",
    told={part: f"part {part}" for part in PARTS},
)
