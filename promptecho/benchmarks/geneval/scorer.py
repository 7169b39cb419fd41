"""GenEval from a folder of images to a score file: detect, judge, summarize."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from promptecho.benchmarks.geneval.backends import load_backend
from promptecho.benchmarks.geneval.layout import GenevalImage, list_images, tag_of
from promptecho.benchmarks.geneval.prompts import GenevalPrompt, prompts_digest, read_prompts
from promptecho.benchmarks.geneval.rules import Options, evaluate_image, summarize
from promptecho.benchmarks.limit import first_prompts
from promptecho.benchmarks.perception import Detector, PerceptionFailure
from promptecho.benchmarks.scoring import ImageFolder, Judged, Scored, ScoringOptions, judge_all
from promptecho.errors import ConfigError
from promptecho.images import load_image
from promptecho.scores import ScoreItem


def check_mode(mode: str) -> None:
    """GenEval's official rules have no bug that changes a verdict, so there is nothing for `fixed` to fix.

    Raises:
        ConfigError: any mode but "official".
    """
    if mode != "official":
        raise ConfigError(
            f"mode {mode!r}: GenEval has only 'official' (no bug in its rules to fix); set mode: official"
        )


def judge(entry: GenevalImage, detector: Detector, options: Options) -> Judged:
    """Judge one image: its score item and its raw record (detections, reason, and the options that decided)."""
    metadata = entry.prompt.metadata()
    key = {"prompt_id": entry.prompt_id, "image_index": entry.image_index, "group": entry.prompt.tag}
    record: dict[str, Any] = {**key, "metadata": metadata, "options": asdict(options), "detector": detector.settings}
    try:
        boxes, colors = detector(load_image(entry.path, fix="delete it and rerun the generation"), metadata)
    except PerceptionFailure as failure:
        return ScoreItem(**key, outcome=None, failed=True), {**record, "failed": True, "reason": str(failure)}
    verdict = evaluate_image(metadata, boxes, colors, options)
    record |= {"detections": boxes, "colors": colors, "correct": verdict.correct, "reason": verdict.reason}
    return ScoreItem(**key, outcome=float(verdict.correct), failed=False), {**record, "failed": False}


def summary_of(items: list[ScoreItem]) -> dict[str, float]:
    """The official summary as name -> fraction; failed items leave the denominators.

    Names: overall (mean of the tag means), the tags, images_correct, prompts_any_correct.
    """
    summary = summarize([(item.group, item.prompt_id, bool(item.outcome)) for item in items if not item.failed])
    return {
        "overall": summary["overall"],
        **{tag: value["mean"] for tag, value in summary["tags"].items()},
        "images_correct": summary["images_correct"],
        "prompts_any_correct": summary["prompts_any_correct"],
    }


def score_folder(
    images: Path,
    detector: Detector,
    *,
    prompts: list[GenevalPrompt] | None = None,
    images_per_prompt: int | None = None,
    options: Options | None = None,
    limit: int | None = None,
) -> tuple[list[ScoreItem], list[dict], dict[str, Any]]:
    """Judge all images of a folder; with `limit` those of the first `prompts`.

    Returns:
        Score items, raw records, and {prompts_digest, options}.

    Raises:
        DataError: images are missing or damaged, or the backend failed on every image.
    """
    options = options or Options()
    entries = list_images(images, prompts, images_per_prompt, limit)
    items, raw = judge_all("GenEval", images, entries, lambda entry: judge(entry, detector, options))
    unique = {entry.prompt_index: entry.prompt for entry in entries}
    return items, raw, {"prompts_digest": prompts_digest(list(unique.values())), "options": asdict(options)}


class GenevalScorer:
    """`Scorer` by GenEval's rules; `mode` as in check_mode."""

    template_digest: str | None = None

    def __init__(self, options: ScoringOptions):
        check_mode(options.mode)
        self._detector = load_backend(options.backend, options)
        self.judge_model = self._detector.name

    def score(self, folder: ImageFolder) -> Scored:
        expected = read_prompts(folder.prompts) if folder.prompts else None
        items, raw, facts = score_folder(
            folder.root, self._detector, prompts=expected, images_per_prompt=folder.images_per_prompt,
            limit=folder.limit,
        )  # fmt: skip
        _, limit = first_prompts(expected, tag_of, folder.limit)
        return Scored(items, raw, facts["prompts_digest"], summary_of(items), limit=limit)
