"""GenEval 2 from a folder of images to score items: ask about every atom, then take the means.

An item is one image: its outcome is Soft-TIFA GM, its group the prompt's atomicity ("atoms 3"). Its parts are its
atoms, by skill, and once Soft-TIFA AM. The summary holds `overall` (GM) and `am`, means over prompts of their images;
and the means of the groups and skills.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from promptecho.benchmarks.geneval2.backends import AtomJudge, load_judge
from promptecho.benchmarks.geneval2.layout import Geneval2Image, list_images
from promptecho.benchmarks.geneval2.prompts import read_prompts, tag_of
from promptecho.benchmarks.geneval2.rules import (
    AM,
    SKILLS,
    arithmetic_mean,
    atom_count_of,
    geometric_mean,
    prompts_mean,
)
from promptecho.benchmarks.limit import first_prompts
from promptecho.benchmarks.listing import prompts_digest
from promptecho.benchmarks.scoring import ImageFolder, Judged, Scored, ScoringOptions, judge_all
from promptecho.errors import ConfigError, DataError
from promptecho.images import load_image
from promptecho.scores import ScoreItem


def judge(entry: Geneval2Image, looking: AtomJudge) -> Judged:
    """Judge one image: its score item and its raw record, whose `atoms` have the probability of each right answer."""
    prompt = entry.prompt
    key = {"prompt_id": prompt.data_id, "image_index": entry.image_index, "group": prompt.group}
    atoms = [{"skill": atom.skill, "question": atom.question, "answer": atom.answer} for atom in prompt.atoms]
    record: dict[str, Any] = {**key, "prompt": prompt.prompt, "filename": entry.path.name, "atoms": atoms}
    try:
        image = load_image(entry.path, fix="delete it and rerun the generation")
    except DataError as error:
        return ScoreItem(**key, outcome=None, failed=True), {**record, "failed": True, "reason": str(error)}
    scores = looking.probabilities(image, prompt.atoms)
    record["atoms"] = [atom | {"probability": score} for atom, score in zip(atoms, scores, strict=True)]
    gm = geometric_mean(scores)
    record |= {"failed": False, "gm": gm, "am": arithmetic_mean(scores)}
    return ScoreItem(**key, outcome=gm, failed=False), record


def parts_of(raw: Sequence[dict[str, Any]]) -> list[ScoreItem]:
    """Soft-TIFA AM of each image, and each of its atoms; those of a failed image have failed."""
    parts = []
    for row in raw:
        values = [(AM, row.get("am")), *((atom["skill"], atom.get("probability")) for atom in row["atoms"])]
        parts += [
            ScoreItem(
                prompt_id=row["prompt_id"], image_index=len(values) * row["image_index"] + k, group=group,
                outcome=value, failed=value is None,
            )
            for k, (group, value) in enumerate(values)
        ]  # fmt: skip
    return parts


def summary_of(items: Sequence[ScoreItem], parts: Sequence[ScoreItem]) -> dict[str, float]:
    """Name -> mean; failed items leave the denominators."""
    judged = [(item, item.outcome) for item in items if item.outcome is not None]
    gm: dict[str, list[float]] = {}
    am: dict[str, list[float]] = {}
    groups: dict[str, list[float]] = {}
    skills: dict[str, list[float]] = {skill: [] for skill in SKILLS}
    for item, outcome in judged:
        gm.setdefault(item.prompt_id, []).append(outcome)
        groups.setdefault(item.group, []).append(outcome)
    for part in parts:
        if part.outcome is not None:
            values = am.setdefault(part.prompt_id, []) if part.group == AM else skills[part.group]
            values.append(part.outcome)
    named = {**dict(sorted(groups.items(), key=lambda group: atom_count_of(group[0]))), **skills}
    return {
        "overall": prompts_mean(gm),
        AM: prompts_mean(am),
        **{name: fmean(values) for name, values in named.items() if values},
    }


class Geneval2Scorer:
    """`Scorer` by Soft-TIFA. The published rules are the only ones."""

    template_digest: str | None = None

    def __init__(self, options: ScoringOptions):
        if options.mode != "official":
            raise ConfigError(f"mode {options.mode!r}: GenEval 2 has only 'official'; set mode: official")
        self._judge = load_judge(options)
        self.judge_model = self._judge.name

    def score(self, folder: ImageFolder) -> Scored:
        prompts = read_prompts(folder.prompts) if folder.prompts else None
        only, limit = first_prompts(prompts, tag_of, folder.limit)
        entries = list_images(folder.root, prompts, folder.images_per_prompt, only)
        items, raw = judge_all("GenEval 2", folder.root, entries, lambda entry: judge(entry, self._judge))
        parts, digest = parts_of(raw), prompts_digest(list(dict.fromkeys(entry.prompt for entry in entries)))
        return Scored(items, raw, digest, summary_of(items, parts), parts, limit=limit)
