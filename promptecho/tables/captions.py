"""The captions table: how many images show what their held-out caption claims, overall and by kind of claim."""

from __future__ import annotations

from dataclasses import replace

from promptecho.tables.collect import ScoreFile
from promptecho.tables.compare import MAX_FAILURE_SHARE, FailureShare, comparison
from promptecho.tables.kind import DELTA, FAILURES, IMAGES, MODEL, OVERALL, PERCENT, PROMPTS, Kind
from promptecho.tables.table import Table

GROUPS = {"single": "Single", "count": "Count", "relation": "Relation", "pair": "Pair"}
CAPTIONS = Kind(
    title="Captions",
    groups=GROUPS,
    columns=[
        MODEL,
        *(replace(PERCENT, key=key, label=label) for key, label in GROUPS.items()),
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


def captions_table(
    files: list[ScoreFile], *, name: str = "captions", max_failure_share: FailureShare = MAX_FAILURE_SHARE
) -> Table:
    """Build the table from score files sorted as `read_score_files` returns them; see `comparison`."""
    return comparison(CAPTIONS, files, name=name, max_failure_share=max_failure_share)
