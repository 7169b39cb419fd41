"""From a folder of images to score items: read the image, read the caption, compare."""

from __future__ import annotations

from dataclasses import asdict
from statistics import fmean
from typing import Any

from promptecho.benchmarks.backends import load_reader
from promptecho.benchmarks.captions.layout import CaptionImage, list_images, tag_of
from promptecho.benchmarks.captions.prompts import read_prompts
from promptecho.benchmarks.captions.rules import GROUPS, OTHER, claim_of, evaluate, group_of
from promptecho.benchmarks.limit import first_prompts
from promptecho.benchmarks.listing import prompts_digest
from promptecho.benchmarks.perception import PerceptionFailure, ShapeReader
from promptecho.benchmarks.scoring import ImageFolder, Judged, Scored, ScoringOptions, judge_all
from promptecho.errors import ConfigError, DataError
from promptecho.images import load_image
from promptecho.scores import ScoreItem


def judge(entry: CaptionImage, reader: ShapeReader) -> Judged:
    """Judge one image: its score item and its raw record (objects and reason).

    A caption that cannot be judged, an image that cannot be decoded and a reader without answer are failed items.
    """
    key: dict[str, Any] = {"prompt_id": entry.prompt.data_id, "image_index": entry.image_index, "group": OTHER}
    record: dict[str, Any] = {"caption": entry.prompt.caption, "filename": entry.path.name}
    try:
        claim = claim_of(entry.prompt.caption)
        key["group"] = group_of(claim)
        objects = reader(load_image(entry.path, fix="delete it and rerun the generation"))
    except (DataError, PerceptionFailure) as failure:
        return ScoreItem(**key, outcome=None, failed=True), {**key, **record, "failed": True, "reason": str(failure)}
    verdict = evaluate(claim, objects)
    record |= {"objects": [asdict(o) for o in objects], "correct": verdict.correct, "reason": verdict.reason}
    return ScoreItem(**key, outcome=float(verdict.correct), failed=False), {**key, **record, "failed": False}


def summary_of(items: list[ScoreItem]) -> dict[str, float]:
    """Name -> fraction of right images, overall and by group; failed items leave the denominators."""
    judged = [(item.group, item.outcome) for item in items if item.outcome is not None]
    by_group = {group: [outcome for found, outcome in judged if found == group] for group in GROUPS}
    return {
        "overall": fmean(outcome for _, outcome in judged),
        **{group: fmean(outcomes) for group, outcomes in by_group.items() if outcomes},
    }


class CaptionsScorer:
    """`Scorer` by what captions claim. There are no published rules with a bug, so `official` is the only mode."""

    template_digest: str | None = None

    def __init__(self, options: ScoringOptions):
        if options.mode != "official":
            raise ConfigError(f"mode {options.mode!r}: captions have only 'official'; set mode: official")
        self._reader = load_reader(options.backend)
        self.judge_model = self._reader.name

    def score(self, folder: ImageFolder) -> Scored:
        prompts = read_prompts(folder.prompts) if folder.prompts else None
        only, limit = first_prompts(prompts, tag_of, folder.limit)
        entries = list_images(folder.root, prompts, folder.images_per_prompt, only)
        items, raw = judge_all("captions", folder.root, entries, lambda entry: judge(entry, self._reader))
        digest = prompts_digest(list(dict.fromkeys(entry.prompt for entry in entries)))
        return Scored(items, raw, digest, summary_of(items), limit=limit)
