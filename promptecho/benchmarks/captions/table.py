"""The captions table: how many images show what their held-out caption claims, overall and by kind of claim."""

from __future__ import annotations

from collections.abc import Sequence

from promptecho.tables.collect import ScoreFile
from promptecho.tables.kind import DELTA, FAILURES, IMAGES, MODEL, OVERALL, PROMPTS, TableKind, percent_columns

GROUPS = {"single": "Single", "count": "Count", "relation": "Relation", "pair": "Pair"}
CLAUSES = {"one": "1 clause", "two": "2 clauses", "three": "3 clauses", "more": "4 and more"}
FACTS = {
    "object": "Objects", "count": "Counts", "color": "Colours", "size": "Sizes", "texture": "Textures",
    "relation": "Relations", "negation": "Negations",
}  # fmt: skip
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
DENSE_CAPTIONS = TableKind(
    title="Dense captions",
    groups=CLAUSES,
    columns=[MODEL, *percent_columns(CLAUSES), OVERALL, DELTA, *percent_columns(FACTS), PROMPTS, IMAGES, FAILURES],
    rules="Percent of images that show all that their caption claims and nothing else, read by: {judge_model}. By the "
    "caption's clauses: groups of objects, relations, and what is not there. Overall is the mean over images. By kind "
    "of fact: percent of the facts that captions state and images show, whatever else these show.",
    stratified=False,
    ungrouped=("other",),
    told={fact: f"fact {fact}" for fact in FACTS},
)


def captions_kind(files: Sequence[ScoreFile]) -> TableKind:
    """The table of the world that the images were read in."""
    dense = any(file.scores.provenance.backend == "gallery" for file in files)
    return DENSE_CAPTIONS if dense else CAPTIONS
