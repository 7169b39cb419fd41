"""From a folder of images to score items: does each show the text of its prompt, without any error?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

from promptecho.benchmarks.limit import first_prompts
from promptecho.benchmarks.listing import prompts_digest
from promptecho.benchmarks.perception import PerceptionFailure
from promptecho.benchmarks.scoring import ImageFolder, JudgeBackend, Judged, Scored, ScoringOptions, judge_all
from promptecho.benchmarks.templates import load_template
from promptecho.benchmarks.textocr.layout import TextOcrImage, list_images, tag_of
from promptecho.benchmarks.textocr.prompts import read_prompts
from promptecho.errors import ConfigError, DataError, ModelError
from promptecho.images import load_image
from promptecho.scores import ScoreItem

if TYPE_CHECKING:
    from promptecho.benchmarks.textocr.poster_oracle import PosterReader
    from promptecho.benchmarks.textocr.rapid import TextReader
    from promptecho.benchmarks.textocr.rules import TextComparison
    from promptecho.judges.base import Answer, CallEstimate, Question
    from promptecho.provenance import Limit

RAPIDOCR, JUDGE, GALLERY = "rapidocr", "judge", "gallery"
IMAGE_ERROR_RATE = "image_error_rate"  # of parts and summary: edits over required characters of an image
MOST_PARTS = 100  # of an image
WHAT = "text rendering"


def _begin(entry: TextOcrImage) -> tuple[dict[str, Any], dict[str, Any]]:
    """The key of an image's item, and how its raw record starts."""
    prompt = entry.prompt
    key = {"prompt_id": prompt.data_id, "image_index": entry.image_index, "group": prompt.group}
    required = None if prompt.text is None else list(prompt.text)
    return key, {**key, "length": prompt.length, "filename": entry.path.name, "required": required}


def _fail(key: dict[str, Any], record: dict[str, Any], reason: str) -> Judged:
    return ScoreItem(**key, outcome=None, failed=True), record | {"outcome": None, "failed": True, "reason": reason}


def _end(key: dict[str, Any], record: dict[str, Any], outcome: float, reason: str) -> Judged:
    return ScoreItem(**key, outcome=outcome, failed=False), record | {
        "outcome": outcome, "failed": False, "reason": reason
    }  # fmt: skip


def judged_by_reader(entry: TextOcrImage, reader: TextReader) -> Judged:
    """An image's item and raw record from the lines of text that a reader finds in it.

    An image that cannot be decoded and a reader without answer are failed items.
    """
    from promptecho.benchmarks.textocr.rules import compare

    key, record = _begin(entry)
    try:
        lines = reader(load_image(entry.path, fix="delete it and rerun the generation"))
    except (DataError, PerceptionFailure) as failure:
        return _fail(key, record, str(failure))
    record["lines"] = [asdict(line) for line in lines]
    return _compared(entry, compare(entry.prompt.text or (), [line.text for line in lines]), key, record)


def _compared(entry: TextOcrImage, comparison: TextComparison, key: dict[str, Any], record: dict[str, Any]) -> Judged:
    """An image's item and raw record, whose `lines` hold the texts read."""
    from promptecho.benchmarks.textocr.rules import language_of, longtext_recall

    required, texts = entry.prompt.text or (), [line["text"] for line in record["lines"]]
    language = language_of(required)
    recalled, of = longtext_recall(required, "\n".join(texts), language)
    record |= {
        "edits": comparison.edits,
        "characters": comparison.characters,
        "language": language,
        "recalled": recalled,
        "recall_of": of,
    }
    reason = "" if comparison.exact else f"{comparison.edits} edits from what is required; found {texts}"
    return _end(key, record, float(comparison.exact), reason)


def judged_by_oracle(entry: TextOcrImage, reader: PosterReader) -> Judged:
    """An image's item and raw record from what the gallery's oracle reads in it; failed as by `judged_by_reader`."""
    key, record = _begin(entry)
    try:
        image = load_image(entry.path, fix="delete it and rerun the generation")
        comparison, read, roles = reader.compare(entry.prompt.prompt, image)
    except DataError as failure:
        return _fail(key, record, str(failure))
    return _compared(entry, comparison, key, record | read | {"roles": roles})


def parts_of(raw: Sequence[dict[str, Any]]) -> list[ScoreItem]:
    """What raw records of a reader tell beside right and wrong: each image's edits per required character, and where
    the reader knows roles, for each text asked for whether it is right."""
    parts = []
    for row in raw:
        if row["failed"] or not row.get("characters"):
            continue
        rate = row["edits"] / row["characters"]
        found = [(IMAGE_ERROR_RATE, rate), *((role, float(right)) for role, right in row.get("roles", ()))]
        parts += [
            ScoreItem(
                prompt_id=row["prompt_id"], image_index=MOST_PARTS * row["image_index"] + k, group=group, outcome=value,
                failed=False,
            )
            for k, (group, value) in enumerate(found)
        ]  # fmt: skip
    return parts


def judged_by_model(judged: tuple[TextOcrImage, Answer]) -> Judged:
    """An image's item and raw record from a judge's answer; one without value is a failed item."""
    entry, answer = judged
    key, record = _begin(entry)
    record |= answer.record()
    if answer.failure is not None:
        return _fail(key, record, answer.failure)
    record |= answer.value.model_dump()
    return _end(key, record, answer.value.outcome, answer.value.reasoning)


def summary_of(raw: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The summary of raw records; failed ones leave the denominators.

    Names: overall, the share of images without any error (paper, section 4.4); from a reader also exact_match (the
    same), character_error_rate (edits over required characters of all images; above 1 where much is added),
    image_error_rate (the same of each image that requires text, and their mean), the share of right texts in each role
    where the reader knows roles, and
    LongText-Bench's metric as word_recall (English) and character_recall (Chinese), where prompts of that language are.

    Raises:
        DataError: all failed.
    """
    judged = [row for row in raw if not row["failed"]]
    if not judged:
        raise DataError(f"{WHAT}: no image was judged")
    overall = fmean(row["outcome"] for row in judged)
    summary = {"overall": overall}
    if "edits" not in judged[0]:
        return summary
    summary["exact_match"] = overall
    rates = {"character_error_rate": ("edits", "characters", judged)}
    for name, language in (("word_recall", "en"), ("character_recall", "zh")):
        rates[name] = ("recalled", "recall_of", [row for row in judged if row["language"] == language])
    for name, (part, whole, rows) in rates.items():
        if total := sum(row[whole] for row in rows):
            summary[name] = sum(row[part] for row in rows) / total
    by_group: dict[str, list[float]] = {}
    for item in parts_of(raw):
        assert item.outcome is not None, "no part failed"
        by_group.setdefault(item.group, []).append(item.outcome)
    summary |= {group: fmean(outcomes) for group, outcomes in by_group.items()}
    return summary


class TextOcrScorer:
    """`Scorer` of text rendering: an image counts where all required text is shown and nothing else, else it does not.

    Backend `rapidocr` compares what RapidOCR reads with the prompt's `text`; its own errors count against the image.
    Backend `gallery` reads posters of the gallery, each text in its role.
    Backend `judge` asks a vision-language model the question of the paper's Appendix B.3 (the paper asks Qwen3.5-Plus),
    which finds out itself what the prompt requires. An image whose prompt requires no text counts with either.
    """

    template_digest: str | None = None

    def __init__(self, options: ScoringOptions):
        """
        Raises:
            ConfigError: a mode but "official" (there are no rules with a bug), a model for `rapidocr` or `gallery`, or
                no judge for `judge`.
            ModelError: the backend is unknown or not installed.
            DataError: the user's template is faulty.
        """
        if options.mode != "official":
            raise ConfigError(f"mode {options.mode!r}: textocr has only 'official'; set mode: official")
        self._read: Callable[[TextOcrImage], Judged] | None = None
        self._parser = options.parser
        if options.backend == JUDGE:
            self._judge = JudgeBackend(options)
            self._template = load_template("textocr", "judge", options.templates)
            self._template.fill(prompt="")  # a faulty one is reported before any image is read
            self.judge_model, self.template_digest = self._judge.name, self._template.digest
        elif options.backend in (RAPIDOCR, GALLERY):
            if options.model:
                raise ConfigError(
                    f"model {options.model!r}: {options.backend} has its model in its package; remove `model`"
                )
            self._read, self.judge_model = _reader(options.backend)
        else:
            raise ModelError(f"backend {options.backend!r} is unknown; known backends: {JUDGE}, {RAPIDOCR}, {GALLERY}")

    def _entries(self, folder: ImageFolder) -> tuple[list[TextOcrImage], Limit | None]:
        prompts = read_prompts(folder.prompts) if folder.prompts else None
        only, limit = first_prompts(prompts, tag_of, folder.limit)
        return list_images(folder.root, prompts, folder.images_per_prompt, only), limit

    def _questions(self, entries: Sequence[TextOcrImage]) -> list[Question]:
        from promptecho.benchmarks.textocr.judge import question_of

        return [question_of(entry, self._template, self._parser) for entry in entries]

    def estimate(self, folder: ImageFolder) -> CallEstimate:
        """Calls that the judge would need; none for other backends.

        Raises:
            DataError: as score, before anything is judged.
        """
        from promptecho.judges.base import CallEstimate

        entries, _ = self._entries(folder)
        if self._read is not None:
            return CallEstimate(calls=0, recorded=0, input_tokens=0, output_tokens=0, usd=0.0)
        return self._judge.estimate(self._questions(entries))

    def score(self, folder: ImageFolder) -> Scored:
        """Judge all images.

        Raises:
            DataError: images are missing or not those of the prompt set, a prompt does not tell its text to `rapidocr`,
                or every image failed.
            JudgeError: more questions than allowed stayed without answer, or the budget is used up.
        """
        entries, limit = self._entries(folder)
        if self._read is not None:
            untold = [entry.prompt.data_id for entry in entries if entry.prompt.text is None]
            if untold:
                raise DataError(
                    f"{folder.root}: prompt {untold[0]!r} has no `text`, which backend rapidocr compares with; add it "
                    "to the prompts ([] for none), or use backend judge"
                )
            items, raw = judge_all(WHAT, folder.root, entries, self._read)
        else:
            answers = self._judge.ask(self._questions(entries))
            items, raw = judge_all(WHAT, folder.root, list(zip(entries, answers, strict=True)), judged_by_model)
        prompts = prompts_digest(list(dict.fromkeys(entry.prompt for entry in entries)))
        facts = None if self._read else self._judge.facts
        return Scored(items, raw, prompts, summary_of(raw), parts_of(raw), judge=facts, limit=limit)


def _reader(backend: str) -> tuple[Callable[[TextOcrImage], Judged], str]:
    """What judges an image by a backend that reads it, and the reader's name.

    Raises:
        ModelError: it is not installed.
    """
    if backend == GALLERY:
        from promptecho.benchmarks.textocr.poster_oracle import PosterReader

        oracle = PosterReader()
        return partial(judged_by_oracle, reader=oracle), oracle.name
    from promptecho.benchmarks.textocr.rapid import RapidReader

    reader = RapidReader()
    return partial(judged_by_reader, reader=reader), reader.name
