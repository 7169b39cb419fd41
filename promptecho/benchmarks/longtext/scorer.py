"""LongText-Bench from a folder of images to score items: read the text, then count the required units that were read.

An item is one required word or character of one image: 1 where it was read, else 0, in the group of the prompt's
category. So the mean over items is the published score, and images of long texts count for more, as there. The summary
holds `overall`, each length of prompts that the set has (`length short`), and the means of the categories.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

from promptecho.benchmarks.listing import prompts_digest
from promptecho.benchmarks.longtext.backends import PageReader, load_page_reader
from promptecho.benchmarks.longtext.page_scorer import PageScorer
from promptecho.benchmarks.longtext.rules import matched_units, one_language, units
from promptecho.benchmarks.perception import PerceptionFailure
from promptecho.benchmarks.scoring import ImageFolder, JudgeFacts, Scored, ScoringOptions
from promptecho.benchmarks.textocr.layout import TextOcrImage
from promptecho.errors import DataError
from promptecho.images import load_image
from promptecho.progress import progress
from promptecho.scores import ScoreItem

if TYPE_CHECKING:
    from promptecho.judges.base import Answer

STRIDE = 10_000  # of the units of one image: item k of image i has the index STRIDE * i + k
Raw = dict[str, Any]


def begin(entry: TextOcrImage, language: str) -> Raw:
    """How the raw record of an image starts."""
    prompt = entry.prompt
    required = list(prompt.text or ())
    if len(units(" ".join(required), language)) >= STRIDE:
        raise DataError(f"prompt {prompt.data_id!r}: requires {STRIDE} words or characters or more; shorten it")
    key = {"prompt_id": prompt.data_id, "image_index": entry.image_index, "group": prompt.group}
    return {
        **key, "length": prompt.length, "filename": entry.path.name, "language": language, "required": required
    }  # fmt: skip


def failed(record: Raw, reason: str) -> Raw:
    """The raw record of an image whose text nobody read."""
    return record | {"failed": True, "reason": reason}


def read(record: Raw, text: str) -> Raw:
    """The raw record of an image in which `text` was read."""
    found = matched_units(record["required"], text, record["language"])
    missed = [unit for unit, there in found if not there]
    reason = f"not read: {' '.join(missed)}" if missed else ""
    counts = {"matched": len(found) - len(missed), "of": len(found)}
    return (
        record
        | {"read": text, **counts, "outcome": counts["matched"] / counts["of"], "failed": False}
        | {"reason": reason}
    )


def items_of(record: Raw) -> list[ScoreItem]:
    """An item for each unit that the image must show; all have failed where nobody read it."""
    found = matched_units(record["required"], record.get("read", ""), record["language"])
    return [
        ScoreItem(
            prompt_id=record["prompt_id"], image_index=STRIDE * record["image_index"] + k, group=record["group"],
            outcome=None if record["failed"] else float(there), failed=record["failed"],
        )
        for k, (_, there) in enumerate(found)
    ]  # fmt: skip


def verdicts(items: Sequence[ScoreItem]) -> dict[tuple[str, int], float | None]:
    """Of each image: the share of its units that were read; None where nobody read it."""
    shares: dict[tuple[str, int], list[float]] = {}
    for item in items:
        units_of = shares.setdefault((item.prompt_id, item.image_index // STRIDE), [])
        units_of += [] if item.outcome is None else [item.outcome]
    return {key: fmean(found) if found else None for key, found in shares.items()}


def summary_of(raw: Sequence[Raw]) -> dict[str, float]:
    """The published score as `overall`, and that of the prompts of each length and category. Images that nobody read
    leave the denominators."""
    judged = [row for row in raw if not row["failed"]]
    parts: dict[str, list[Raw]] = {"overall": judged}
    for row in judged:
        if row["length"] is not None:
            parts.setdefault(f"length {row['length']}", []).append(row)
    for row in judged:
        parts.setdefault(f"category {row['group']}", []).append(row)
    return {name: sum(row["matched"] for row in rows) / sum(row["of"] for row in rows) for name, rows in parts.items()}


class LongTextScorer(PageScorer[PageReader]):
    """`Scorer` of LongText-Bench on images of text rendering, whose prompts tell the `text` that they require."""

    def __init__(self, options: ScoringOptions):
        """Raises what PageScorer raises."""
        super().__init__(options, "LongText-Bench", ("official", "fixed"), options.mode, named_page_reader)

    def _language(self, folder: ImageFolder, entries: Sequence[TextOcrImage]) -> str:
        asked = {entry.prompt.data_id: entry.prompt.text or () for entry in entries}
        return one_language(list(asked.items()))

    def score(self, folder: ImageFolder) -> Scored:
        """Read all images.

        Raises:
            DataError: images are missing or not those of the prompt set, prompts require no text or are of two
                languages, or every image failed.
            JudgeError: more questions than allowed stayed without answer, or the budget is used up.
        """
        entries, language, limit = self._entries(folder)
        facts: JudgeFacts | None = None
        records = [begin(entry, language) for entry in entries]
        if self._reader is not None:
            raw = _each(folder, records, entries, partial(by_reader, reader=self._reader))
        else:
            raw = _each(folder, records, self._judge.ask(self._questions(entries)), by_judge)
            facts = self._judge.facts
        items = [item for record in raw for item in items_of(record)]
        digest = prompts_digest(list(dict.fromkeys(entry.prompt for entry in entries)))
        return Scored(items, raw, digest, summary_of(raw), judge=facts, limit=limit)


def named_page_reader(options: ScoringOptions) -> tuple[PageReader, str]:
    """The reader of `options.backend`, and its name; raises what load_page_reader raises."""
    reader = load_page_reader(options)
    return reader, reader.name


def by_reader(record: Raw, entry: TextOcrImage, reader: PageReader) -> Raw:
    """The raw record of an image that a reader reads; failed where it cannot be decoded or the reader has no answer."""
    try:
        return read(record, reader(load_image(entry.path, fix="delete it and rerun the generation")))
    except (DataError, PerceptionFailure) as failure:
        return failed(record, str(failure))


def by_judge(record: Raw, answer: Answer) -> Raw:
    """The raw record of an image that a judge read."""
    record = record | answer.record()
    return failed(record, answer.failure) if answer.failure is not None else read(record, answer.value)


def _each(
    folder: ImageFolder, records: list[Raw], looked: Sequence[Any], judge: Callable[[Raw, Any], Raw]
) -> list[Raw]:
    """The finished records.

    Raises:
        DataError: all failed, so that there is no score.
    """
    raw = []
    with progress("LongText-Bench", len(records), "images") as bar:
        for record, one in zip(records, looked, strict=True):
            raw.append(judge(record, one))
            bar.advance()
    if all(row["failed"] for row in raw):
        raise DataError(
            f"{folder.root}: the backend failed on all {len(raw)} images; the first time: {raw[0]['reason']}"
        )
    return raw
