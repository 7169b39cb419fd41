"""T2I-CompBench++ from a folder of images to score items: each image by the measure of its prompt's category.

An item is one image; its group is the category, its outcome the category's score. The summary holds the mean of each
category, and as `overall` their mean, which is this project's own: the authors give no number for all categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from promptecho.benchmarks.limit import first_prompts
from promptecho.benchmarks.listing import prompts_digest
from promptecho.benchmarks.perception import PerceptionFailure
from promptecho.benchmarks.scoring import ImageFolder, Judged, Scored, ScoringOptions, judge_all
from promptecho.benchmarks.t2icompbench.backends import CompbenchEye, load_eye
from promptecho.benchmarks.t2icompbench.layout import CompbenchImage, list_images
from promptecho.benchmarks.t2icompbench.prompts import read_prompts, tag_of
from promptecho.benchmarks.t2icompbench.rules import CATEGORIES
from promptecho.errors import ConfigError, DataError
from promptecho.images import load_image
from promptecho.scores import ScoreItem


def judge(entry: CompbenchImage, eye: CompbenchEye) -> Judged:
    """Judge one image: its score item and its raw record."""
    prompt = entry.prompt
    key = {"prompt_id": prompt.data_id, "image_index": entry.image_index, "group": prompt.category}
    record: dict[str, Any] = {**key, "prompt": prompt.prompt, "filename": entry.path.name}
    try:
        image = load_image(entry.path, fix="delete it and rerun the generation")
    except DataError as error:
        return ScoreItem(**key, outcome=None, failed=True), {**record, "failed": True, "reason": str(error)}
    try:
        score, facts = eye.measures[prompt.category](image, prompt)
    except PerceptionFailure as error:
        return ScoreItem(**key, outcome=None, failed=True), {**record, "failed": True, "reason": str(error)}
    return ScoreItem(**key, outcome=score, failed=False), {**record, "failed": False, "score": score, **facts}


def summary_of(items: Sequence[ScoreItem]) -> dict[str, float]:
    """Name -> mean; failed items leave the denominators."""
    found: dict[str, list[float]] = {category: [] for category in CATEGORIES}
    for item in items:
        if item.outcome is not None:
            found[item.group].append(item.outcome)
    means = {category: fmean(values) for category, values in found.items() if values}
    return {"overall": fmean(means.values()), **means}


class CompbenchScorer:
    """`Scorer` of T2I-CompBench++. The published rules are the only ones."""

    template_digest: str | None = None

    def __init__(self, options: ScoringOptions):
        if options.mode != "official":
            raise ConfigError(f"mode {options.mode!r}: T2I-CompBench++ has only 'official'; set mode: official")
        self._eye, self._backend = load_eye(options), options.backend
        self.judge_model = self._eye.name

    def score(self, folder: ImageFolder) -> Scored:
        prompts = read_prompts(folder.prompts) if folder.prompts else None
        only, limit = first_prompts(prompts, tag_of, folder.limit)
        entries = list_images(folder.root, prompts, folder.images_per_prompt, only)
        if foreign := [one.prompt for one in entries if one.prompt.category not in self._eye.measures]:
            raise DataError(
                f"prompt {foreign[0].data_id!r} ({foreign[0].prompt!r}): backend {self._backend} has no measure for "
                f"category {foreign[0].category}, only for {', '.join(self._eye.measures)}; leave such prompts out"
            )
        items, raw = judge_all("T2I-CompBench++", folder.root, entries, lambda entry: judge(entry, self._eye))
        digest = prompts_digest(list(dict.fromkeys(entry.prompt for entry in entries)))
        return Scored(items, raw, digest, summary_of(items), limit=limit)
