"""The table of moving shapes: how many videos show what their caption claims, and which part of it."""

from __future__ import annotations

from dataclasses import replace

from promptecho.tables.kind import DELTA, FAILURES, IMAGES, MODEL, OVERALL, PROMPTS, TableKind, percent_columns

GROUPS = {"one": "One mover", "two": "Two movers"}
PARTS = {"objects": "Objects", "motions": "Motions"}
LESS_STRICT = {"colors": "Colours", "ways": "Ways"}
GAINS = {f"{part}_delta": part for part in LESS_STRICT}
MOVING = TableKind(
    title="Moving shapes",
    groups=GROUPS,
    columns=[
        MODEL,
        *percent_columns(GROUPS),
        OVERALL,
        DELTA,
        *percent_columns(PARTS),
        *(
            column
            for part, label in LESS_STRICT.items()
            for column in (*percent_columns({part: label}), replace(DELTA, key=f"{part}_delta", label=f"Δ {label}"))
        ),
        PROMPTS,
        IMAGES,
        FAILURES,
    ],
    rules="Percent of videos that show what their caption claims, read by: {judge_model}. Objects: every frame shows "
    "exactly the caption's; Motions: of the videos whose objects are right, those in which each goes where it should. "
    "Overall is the mean over videos, of which both must be right. Less strict, of all videos: Colours, the frames "
    "with as many objects of the caption's colours and no others; Ways, the movers that go where they should, known by "
    "their colour.",
    stratified=False,
    ungrouped=("other",),
    unit="videos",
    told={part: f"part {part}" for part in (*PARTS, *LESS_STRICT)},
    told_gains=GAINS,
)
