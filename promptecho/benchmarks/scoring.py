"""What every scorer has in common: images in, score items and raw answers out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from promptecho.errors import DataError
from promptecho.progress import progress
from promptecho.scores import ScoreItem

Entry = TypeVar("Entry")
Judged = tuple[ScoreItem, dict[str, Any]]


@dataclass(frozen=True)
class Scored:
    """The judged images of a folder: items, one raw record each, the prompt set's digest, and name -> fraction."""

    items: list[ScoreItem]
    raw: list[dict[str, Any]]
    prompts_digest: str
    summary: dict[str, float]


class Scorer(Protocol):
    """Scores a folder of images. `judge_model` names who looked."""

    judge_model: str

    def score(self, images: Path, prompts: Path | None, images_per_prompt: int | None) -> Scored:
        """Judge all images; `prompts` None trusts the folder's own metadata, `images_per_prompt` None the most found.

        Raises:
            DataError: images are missing or not those of `prompts`, or every one failed.
        """
        ...


def judge_all(
    what: str, images: Path, entries: Sequence[Entry], judge: Callable[[Entry], Judged]
) -> tuple[list[ScoreItem], list[dict[str, Any]]]:
    """Judge every entry; its record tells `reason` where it failed.

    Raises:
        DataError: all failed, so that there is no score.
    """
    items, raw = [], []
    with progress(what, len(entries), "images") as bar:
        for entry in entries:
            item, record = judge(entry)
            items.append(item)
            raw.append(record)
            bar.advance()
    if all(item.failed for item in items):
        raise DataError(f"{images}: the backend failed on all {len(items)} images; the first time: {raw[0]['reason']}")
    return items, raw
