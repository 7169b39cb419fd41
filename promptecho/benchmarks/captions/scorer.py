"""From a folder of images to score items: read the image, read the caption, compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from statistics import fmean
from typing import Any, Protocol

from promptecho.benchmarks.backends import READERS, find_backend, load_reader
from promptecho.benchmarks.captions.layout import CaptionImage, list_images, tag_of
from promptecho.benchmarks.captions.prompts import read_prompts
from promptecho.benchmarks.captions.rules import GROUPS, OTHER, CaptionVerdict
from promptecho.benchmarks.limit import first_prompts
from promptecho.benchmarks.listing import prompts_digest
from promptecho.benchmarks.perception import ObjectReader, PerceptionFailure
from promptecho.benchmarks.scoring import ImageFolder, Judged, Scored, ScoringOptions, judge_all
from promptecho.errors import ConfigError, DataError
from promptecho.images import load_image
from promptecho.scores import ScoreItem

GALLERY = "gallery"
MOST_FACTS = 100  # of a caption


class CaptionRules(Protocol):
    """How captions of one world are judged: `rules.py` (shapes) and `dense.py` (gallery)."""

    def claim_of(self, caption: str) -> Any: ...

    def group_of(self, claim: Any) -> str: ...

    def evaluate(self, claim: Any, found: list[Any]) -> CaptionVerdict: ...


def reader_and_rules(backend: str) -> tuple[ObjectReader, CaptionRules]:
    """What a backend reads images with, and the rules that go with it.

    Raises:
        ModelError: the name is unknown.
    """
    if backend == GALLERY:
        from promptecho.benchmarks.captions import dense

        return dense.SceneReader(), dense
    from promptecho.benchmarks.captions import rules

    return find_backend({name: partial(load_reader, name) for name in (*READERS, GALLERY)}, backend)(), rules


def judge(entry: CaptionImage, reader: ObjectReader, rules: CaptionRules) -> Judged:
    """Judge one image: its score item and its raw record (objects, reason, and where the rules tell them its facts).

    A caption that cannot be judged, an image that cannot be decoded and a reader without answer are failed items.
    """
    key: dict[str, Any] = {"prompt_id": entry.prompt.data_id, "image_index": entry.image_index, "group": OTHER}
    record: dict[str, Any] = {"caption": entry.prompt.caption, "filename": entry.path.name}
    try:
        claim = rules.claim_of(entry.prompt.caption)
        key["group"] = rules.group_of(claim)
        objects = reader(load_image(entry.path, fix="delete it and rerun the generation"))
    except (DataError, PerceptionFailure) as failure:
        return ScoreItem(**key, outcome=None, failed=True), {**key, **record, "failed": True, "reason": str(failure)}
    verdict = rules.evaluate(claim, objects)
    if facts_of := getattr(rules, "facts_of", None):
        record["facts"] = facts_of(claim, objects)
    record |= {"objects": [asdict(o) for o in objects], "correct": verdict.correct, "reason": verdict.reason}
    return ScoreItem(**key, outcome=float(verdict.correct), failed=False), {**key, **record, "failed": False}


def parts_of(raw: list[dict[str, Any]]) -> list[ScoreItem]:
    """Each fact of each caption as a part, its group the kind of fact; none where the rules tell none."""
    return [
        ScoreItem(
            prompt_id=row["prompt_id"], image_index=MOST_FACTS * row["image_index"] + k, group=f"fact {kind}",
            outcome=float(there), failed=False,
        )
        for row in raw
        for k, (kind, there) in enumerate(row.get("facts", ()))
    ]  # fmt: skip


def summary_of(items: list[ScoreItem], parts: Sequence[ScoreItem] = ()) -> dict[str, float]:
    """Name -> fraction of right images, overall and by group, and of facts shown by kind; failed items leave the
    denominators."""
    judged = [(item.group, item.outcome) for item in [*items, *parts] if item.outcome is not None]
    groups = dict.fromkeys([*GROUPS, *(group for group, _ in judged)])
    by_group = {group: [outcome for found, outcome in judged if found == group] for group in groups}
    return {
        "overall": fmean(item.outcome for item in items if item.outcome is not None),
        **{group: fmean(outcomes) for group, outcomes in by_group.items() if outcomes},
    }


class CaptionsScorer:
    """`Scorer` by what captions claim. There are no published rules with a bug, so `official` is the only mode."""

    template_digest: str | None = None

    def __init__(self, options: ScoringOptions):
        if options.mode != "official":
            raise ConfigError(f"mode {options.mode!r}: captions have only 'official'; set mode: official")
        self._reader, self._rules = reader_and_rules(options.backend)
        self.judge_model = self._reader.name

    def score(self, folder: ImageFolder) -> Scored:
        prompts = read_prompts(folder.prompts) if folder.prompts else None
        only, limit = first_prompts(prompts, tag_of, folder.limit)
        entries = list_images(folder.root, prompts, folder.images_per_prompt, only)
        items, raw = judge_all("captions", folder.root, entries, lambda entry: judge(entry, self._reader, self._rules))
        digest = prompts_digest(list(dict.fromkeys(entry.prompt for entry in entries)))
        parts = parts_of(raw)
        return Scored(items, raw, digest, summary_of(items, parts), parts, limit=limit)
