"""TIIF-Bench from a tree of images to score items, one for each question about an image.

An item's group is `short:ATTRIBUTE` or `long:ATTRIBUTE`, its prompt_id `ATTRIBUTE/INDEX` (both images of a prompt, all
their questions), its image_index the number of the question within the prompt: first those about the image of the
short description, then the same questions about that of the long one. So an interval that takes prompts as units
holds questions about one image together. All questions of an image without answers are failed items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from promptecho.benchmarks.limit import first_prompts
from promptecho.benchmarks.perception import PerceptionFailure
from promptecho.benchmarks.scoring import ImageFolder, JudgeBackend, Scored, ScoringOptions
from promptecho.benchmarks.tiif.judge import WORDINGS, load_templates, question_of, wording_of
from promptecho.benchmarks.tiif.layout import TiifImage, check_images_per_prompt, list_images, tag_of
from promptecho.benchmarks.tiif.prompts import TiifPrompt, prompts_digest, read_prompts
from promptecho.benchmarks.tiif.rules import MODES, AnswerCount, as_expected, summarize
from promptecho.errors import ConfigError, DataError, ModelError
from promptecho.images import load_image
from promptecho.judges.base import CallEstimate, Question
from promptecho.progress import progress
from promptecho.provenance import Limit
from promptecho.scores import ScoreItem

if TYPE_CHECKING:
    from promptecho.benchmarks.tiif.forms import WorldOracle

BACKENDS = ("judge", "oracle", "gallery")


def _load_oracle(backend: str) -> WorldOracle:
    if backend == "gallery":
        from promptecho.benchmarks.tiif.gallery_oracle import GALLERY_ORACLE

        return GALLERY_ORACLE
    from promptecho.benchmarks.tiif.oracle import ORACLE

    return ORACLE


def record_of(entry: TiifImage, answers: list[str] | None, reason: str = "", **more: Any) -> dict[str, Any]:
    """The raw record of one image: all that items_of needs. `answers` None: there are none, and `reason` says why."""
    return {
        "prompt_id": entry.prompt.prompt_id,
        "length": entry.length,
        "group": entry.group,
        "questions": entry.prompt.questions,
        "expected": entry.prompt.answers,
        "answers": answers,
        "failed": answers is None,
        "reason": reason,
        **more,
    }


def items_of(record: dict[str, Any], mode: str) -> list[ScoreItem]:
    """The score items of one image from its raw record, without a call to a judge.

    Raises:
        DataError: as rules.as_expected.
    """
    count = len(record["expected"])
    outcomes: list[float | None] = [None] * count
    if not record["failed"]:
        outcomes = [float(right) for right in as_expected(record["expected"], record["answers"], mode)]
    first = count if record["length"] == "long" else 0
    return [
        ScoreItem(
            prompt_id=record["prompt_id"],
            image_index=first + number,
            group=record["group"],
            outcome=outcome,
            failed=outcome is None,
        )
        for number, outcome in enumerate(outcomes)
    ]


def summary_of(items: list[ScoreItem], mode: str) -> dict[str, float]:
    """The summary (rules.summarize) of score items; failed ones leave the denominators.

    Raises:
        DataError: as rules.summarize.
    """
    tallies: dict[tuple[str, str], AnswerCount] = {}
    for item in items:
        length, _, attribute = item.group.partition(":")
        one = AnswerCount() if item.outcome is None else AnswerCount(int(item.outcome), 1)
        tallies[length, attribute] = tallies.get((length, attribute), AnswerCount()) + one
    return summarize(tallies, mode)


class TiifScorer:
    """`Scorer` by TIIF-Bench's rules, modes as in rules.py. Backends: `judge`, a model that is asked all questions
    of an image in one call; `oracle` and `gallery`, for prompts over an embedded world."""

    template_digest: str | None = None

    def __init__(self, options: ScoringOptions):
        if options.mode not in MODES:
            raise ConfigError(f"mode {options.mode!r}: TIIF-Bench has {' and '.join(MODES)}; set mode to one of them")
        if options.backend not in BACKENDS:
            raise ModelError(f"backend {options.backend!r} is unknown; known backends: {', '.join(BACKENDS)}")
        self._mode, self._seed, self._options = options.mode, options.seed, options
        self._oracle = None
        if options.backend != "judge":
            self._oracle = _load_oracle(options.backend)
            self.judge_model = self._oracle.name
            return
        self._judge = JudgeBackend(options)
        self._templates = load_templates(options.templates)
        self.judge_model, self.template_digest = self._judge.name, self._templates.digest

    def score(self, folder: ImageFolder) -> Scored:
        prompts, entries, limit = self._list(folder)
        raw = self._look(self._oracle, entries) if self._oracle else self._ask(entries)
        if all(record["failed"] for record in raw):
            reason = raw[0]["reason"]
            raise DataError(f"{folder.root}: no answer about any of {len(raw)} images; the first time: {reason}")
        items = [item for record in raw for item in items_of(record, self._mode)]
        facts = None if self._oracle else self._judge.facts
        summary = summary_of(items, self._mode)
        return Scored(items, raw, prompts_digest(prompts), summary, judge=facts, limit=limit)

    def estimate(self, folder: ImageFolder) -> CallEstimate:
        """What asking the judge would take.

        Raises:
            ConfigError: the backend is no judge.
        """
        if self._oracle:
            raise ConfigError(f"backend {self._oracle.name}: asks no judge, so that there is nothing to estimate")
        _, entries, _ = self._list(folder)
        return self._judge.estimate(self._questions(entries))

    def _list(self, folder: ImageFolder) -> tuple[list[TiifPrompt], list[TiifImage], Limit | None]:
        check_images_per_prompt(folder.images_per_prompt)
        prompts = read_prompts(folder.prompts) if folder.prompts else None
        only, limit = first_prompts(prompts, tag_of, folder.limit)
        entries = list_images(folder.root, prompts, only)
        return [entry.prompt for entry in entries if entry.length == "short"], entries, limit

    def _look(self, oracle: WorldOracle, entries: list[TiifImage]) -> list[dict[str, Any]]:
        for entry in entries:
            oracle.check(entry.prompt)
        raw = []
        with progress("TIIF-Bench", len(entries), "images") as bar:
            for entry in entries:
                image = load_image(entry.path, fix="delete it and rerun the generation")
                try:
                    raw.append(record_of(entry, oracle.answers(image, entry.prompt.questions)))
                except PerceptionFailure as failure:
                    raw.append(record_of(entry, None, str(failure)))
                bar.advance()
        return raw

    def _questions(self, entries: list[TiifImage]) -> list[Question]:
        how = (self._mode, self._options.parser, self._options.order)
        return [question_of(entry, self._templates, self._seed, *how) for entry in entries]

    def _ask(self, entries: list[TiifImage]) -> list[dict[str, Any]]:
        answers = self._judge.ask(self._questions(entries))
        return [
            record_of(
                entry,
                None if found.failure else found.value,
                found.failure or "",
                **found.record(),
                template=WORDINGS[wording_of(self._seed, entry.image_id)],
                seed=self._seed,
            )
            for entry, found in zip(entries, answers, strict=True)
        ]
