"""From a folder of videos to score items: read the frames, read the caption, compare."""

from __future__ import annotations

from dataclasses import asdict
from statistics import fmean
from typing import Any

from promptecho.benchmarks.captions.layout import CaptionImage, list_images, tag_of
from promptecho.benchmarks.captions.prompts import read_prompts
from promptecho.benchmarks.limit import first_prompts
from promptecho.benchmarks.listing import prompts_digest
from promptecho.benchmarks.moving_shapes.prompts import GROUPS, group_of
from promptecho.benchmarks.scoring import ImageFolder, Judged, Scored, ScoringOptions, judge_all
from promptecho.config.benchmarks import MOVING
from promptecho.errors import ConfigError, DataError, ModelError
from promptecho.moving.grammar import parse
from promptecho.moving.oracle import judge
from promptecho.scores import ScoreItem
from promptecho.video import load_video

OTHER = "other"  # captions that are not in the world's language
PARTS = ("objects", "motions", "colors", "ways")


def judged(entry: CaptionImage) -> Judged:
    """Judge one video: its score item and its raw record.

    A caption that cannot be judged, and a file that is no video, are failed items.
    """
    key: dict[str, Any] = {"prompt_id": entry.prompt.data_id, "image_index": entry.image_index, "group": OTHER}
    record: dict[str, Any] = {"caption": entry.prompt.caption, "filename": entry.path.name}
    try:
        movers = parse(entry.prompt.caption)
        key["group"] = group_of(movers)
        video = load_video(entry.path, fix="delete it and rerun the generation")
    except DataError as failure:
        return ScoreItem(**key, outcome=None, failed=True), {**key, **record, "failed": True, "reason": str(failure)}
    verdict = judge(movers, video.frames)
    wrong = "" if verdict.right else "wrong motion" if verdict.objects else "wrong objects in a frame"
    record |= {"frames": len(video.frames), **asdict(verdict), "correct": verdict.right, "reason": wrong}
    return ScoreItem(**key, outcome=float(verdict.right), failed=False), {**key, **record, "failed": False}


def parts_of(raw: list[dict[str, Any]]) -> list[ScoreItem]:
    """Of each video whether its objects are right in every frame, and, where they are, whether they go where they
    should; then, of every video, how many frames have the right colours, and how many movers go where they should."""
    return [
        ScoreItem(
            prompt_id=row["prompt_id"], image_index=len(PARTS) * row["image_index"] + k, group=f"part {part}",
            outcome=float(row[part]), failed=False,
        )
        for row in raw
        for k, part in enumerate(PARTS)
        if not row["failed"] and (part != "motions" or row["objects"])
    ]  # fmt: skip


def summary_of(items: list[ScoreItem], parts: list[ScoreItem]) -> dict[str, float]:
    """Name -> fraction of right videos, overall and by group, and of right parts; failed items leave the
    denominators."""
    found = {"overall": fmean(item.outcome for item in items if item.outcome is not None)}
    for group in (*GROUPS, OTHER, *(f"part {part}" for part in PARTS)):
        outcomes = [item.outcome for item in [*items, *parts] if item.group == group and item.outcome is not None]
        found |= {group: fmean(outcomes)} if outcomes else {}
    return found


class MovingScorer:
    """`Scorer` of videos of moving shapes. There are no published rules with a bug, so `official` is the only mode."""

    template_digest: str | None = None
    judge_model = "the oracle of moving shapes"

    def __init__(self, options: ScoringOptions):
        if options.mode != "official":
            raise ConfigError(f"mode {options.mode!r}: moving shapes have only 'official'; set mode: official")
        if options.backend != MOVING.name:
            raise ModelError(f"backend {options.backend!r}: moving shapes have only {MOVING.name!r}")

    def score(self, folder: ImageFolder) -> Scored:
        prompts = read_prompts(folder.prompts) if folder.prompts else None
        only, limit = first_prompts(prompts, tag_of, folder.limit)
        entries = list_images(folder.root, prompts, folder.images_per_prompt, only)
        items, raw = judge_all("moving_shapes", folder.root, entries, judged)
        digest = prompts_digest(list(dict.fromkeys(entry.prompt for entry in entries)))
        parts = parts_of(raw)
        return Scored(items, raw, digest, summary_of(items, parts), parts, limit=limit)
