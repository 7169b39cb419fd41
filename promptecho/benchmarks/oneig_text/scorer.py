"""OneIG-Bench's text score from a folder of images to score items: read the text, then compare.

The images are those of text rendering. An item is one image, whose outcome is the score that it would have alone, so
that a mean has an interval; the published score, which is made of the means over all images, is `text_score` in the
summary, beside `completion` (CR, also a part of each image), `word_accuracy` (WAC) and `edits` (ED as a share of the
most that count).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from promptecho.benchmarks.listing import prompts_digest
from promptecho.benchmarks.longtext.backends import load_page_reader
from promptecho.benchmarks.longtext.page_scorer import PageScorer
from promptecho.benchmarks.longtext.rules import without_stock_phrases
from promptecho.benchmarks.oneig_text.rules import (
    MODES,
    MOST_EDITS,
    TextMatch,
    completion,
    match_texts,
    max_new_tokens,
    normalize,
    reference,
    set_language,
    text_score,
    word_accuracy,
)
from promptecho.benchmarks.perception import PerceptionFailure
from promptecho.benchmarks.scoring import ImageFolder, Judged, Scored, ScoringOptions, judge_all
from promptecho.benchmarks.textocr.layout import TextOcrImage
from promptecho.benchmarks.textocr.prompts import TextOcrPrompt
from promptecho.errors import DataError
from promptecho.images import load_image
from promptecho.scores import ScoreItem

if TYPE_CHECKING:
    from PIL import Image

    from promptecho.judges.base import Answer

CLEANED = "fixed"  # here the published code takes out all stock phrases of its model
COMPLETION = "completion"  # of parts and summary
Read = Callable[["Image.Image", int], str]  # (image, most tokens) -> its text


def judged(entry: TextOcrImage, read: str | None, reason: str, language: str, mode: str, **more: Any) -> Judged:
    """An image's item and raw record from the text read in it, or from why there is none; `more`: of a judge."""
    prompt = entry.prompt
    key = {"prompt_id": prompt.data_id, "image_index": entry.image_index, "group": prompt.group}
    texts = list(prompt.text or ())
    record: dict[str, Any] = {**key, "filename": entry.path.name, "language": language, "required": texts, **more}
    if read is None:
        return ScoreItem(**key, outcome=None, failed=True), record | {"failed": True, "reason": reason}
    match = match_texts(reference(texts, mode), read)
    score = text_score([match], language)
    facts = {"read": read, "edits": match.edits, "matched": match.matched, "of": match.required, "score": score}
    return ScoreItem(**key, outcome=score, failed=False), record | facts | {"failed": False, "reason": ""}


def parts_of(raw: Sequence[dict[str, Any]]) -> list[ScoreItem]:
    """Whether each image has all its text without an edit."""
    return [
        ScoreItem(
            prompt_id=row["prompt_id"], image_index=row["image_index"], group=COMPLETION,
            outcome=None if row["failed"] else float(row["edits"] == 0), failed=row["failed"],
        )
        for row in raw
    ]  # fmt: skip


def summary_of(raw: Sequence[dict[str, Any]], language: str) -> dict[str, float]:
    """The summary of raw records; failed ones leave the denominators."""
    rows = [row for row in raw if not row["failed"]]
    matches = [TextMatch(row["edits"], row["matched"], row["of"]) for row in rows]
    return {
        "overall": fmean(row["score"] for row in rows),
        "text_score": text_score(matches, language),
        "edits": fmean(match.edits for match in matches) / MOST_EDITS[language],
        COMPLETION: completion(matches),
        "word_accuracy": word_accuracy(matches),
    }


class OneIgTextScorer(PageScorer[Read]):
    """`Scorer` by OneIG-Bench's text rules on images of text rendering; modes as in rules.py, readers as those of
    LongText-Bench, which ask the same question."""

    def __init__(self, options: ScoringOptions):
        """Raises what PageScorer raises."""
        super().__init__(options, "OneIG-Bench's text", MODES, CLEANED, load_read)

    def _language(self, folder: ImageFolder, entries: Sequence[TextOcrImage]) -> str:
        asked = list(dict.fromkeys(entry.prompt for entry in entries))
        for prompt in asked:
            if not normalize(reference(prompt.text or (), self._mode)):
                raise DataError(
                    f"{folder.root}: prompt {prompt.data_id!r} requires no text that counts; leave such prompts out, "
                    "or use scorer textocr"
                )
        return language_of_set(asked)

    def score(self, folder: ImageFolder) -> Scored:
        """Read all images.

        Raises:
            DataError: images are missing or not those of the prompt set, prompts require no text, or every image
                failed.
            JudgeError: more questions than allowed stayed without answer, or the budget is used up.
        """
        entries, language, limit = self._entries(folder)
        found: Sequence[Answer | None] = [None] * len(entries)
        if self._reader is None:
            found = self._judge.ask(self._questions(entries))

        def judge(pair: tuple[TextOcrImage, Answer | None]) -> Judged:
            entry, answer = pair
            if answer is not None:
                text = None if answer.failure is not None else answer.value
                return judged(entry, text, answer.failure or "", language, self._mode, **answer.record())
            return judged(entry, *self._look(entry), language, self._mode)

        items, raw = judge_all("OneIG-Bench", folder.root, list(zip(entries, found, strict=True)), judge)
        prompts = prompts_digest(list(dict.fromkeys(entry.prompt for entry in entries)))
        facts = None if self._reader else self._judge.facts
        return Scored(items, raw, prompts, summary_of(raw, language), parts_of(raw), judge=facts, limit=limit)

    def _look(self, entry: TextOcrImage) -> tuple[str | None, str]:
        """The text read in an image, or None and why."""
        assert self._reader is not None, "a judge is asked about all images at once"
        tokens = max_new_tokens(reference(entry.prompt.text or (), self._mode))
        try:
            return self._reader(load_image(entry.path, fix="delete it and rerun the generation"), tokens), ""
        except (DataError, PerceptionFailure) as failure:
            return None, str(failure)


def language_of_set(prompts: Sequence[TextOcrPrompt]) -> str:
    """The language of a prompt set, which decides how many edits count."""
    return set_language([prompt.text or () for prompt in prompts])


def load_read(options: ScoringOptions) -> tuple[Read, str]:
    """What reads an image by `options.backend`, and its name.

    Raises:
        ConfigError: a model is given to a backend that has its own.
        ModelError: the name is unknown, or the backend is not available.
    """
    if options.backend == "vlm":
        from promptecho.benchmarks.longtext.defaults import MODEL
        from promptecho.benchmarks.longtext.vlm_page import VlmPage, as_jpeg

        page = VlmPage(options.model or MODEL, options.device)
        return lambda image, tokens: without_stock_phrases(page.answer(as_jpeg(image), tokens), CLEANED), page.name
    reader = load_page_reader(options)
    return lambda image, tokens: reader(image), reader.name
