"""The GenEval 2 table: prompts by atomicity and their mean (GM), the mean of all (AM), and atoms by skill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from promptecho.benchmarks.geneval2.rules import AM, SKILLS, atom_count_of
from promptecho.tables.collect import ScoreFile
from promptecho.tables.kind import DELTA, FAILURES, IMAGES, MODEL, OVERALL, PERCENT, PROMPTS, TableKind, percent_columns

LABELS = dict(zip(SKILLS, ("Objects", "Attributes", "Counts", "Positions", "Verbs"), strict=True))
AM_DELTA = replace(DELTA, key="am_delta", label="Δ AM")


def geneval2_kind(files: Sequence[ScoreFile]) -> TableKind:
    """The table with a column for each atomicity and each skill that the files have."""
    found = {item.group for file in files for item in file.scores.items}
    groups = {group: f"{atom_count_of(group)} atoms" for group in sorted(found, key=atom_count_of)}
    skills = {key: label for key, label in LABELS.items() if any(key in file.scores.summary for file in files)}
    return TableKind(
        title="GenEval 2",
        groups=groups,
        columns=[
            MODEL,
            *percent_columns(groups),
            replace(OVERALL, label="GM"),
            DELTA,
            replace(PERCENT, key=AM, label="AM"),
            AM_DELTA,
            *percent_columns(skills),
            PROMPTS,
            IMAGES,
            FAILURES,
        ],
        rules="Percent, by Soft-TIFA: the probability of the right answer to a question about each atom of a prompt, "
        "given by: {judge_model}. GM is the mean over prompts of the geometric mean of their atoms, also by the number "
        "of atoms that a prompt has; AM is that of the arithmetic mean; skills are means over atoms.",
        group_word="number of atoms",
        per_prompt=True,
        told={AM: AM, **{skill: skill for skill in skills}},
        told_gains={AM_DELTA.key: AM},
    )
