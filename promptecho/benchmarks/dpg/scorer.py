"""DPG-Bench from a folder of pictures to score items: ask about every image, then apply the rules.

Backends: `mplug` is the official model. `judge` asks a vision-language model instead, one question a call; that is a
different metric, not comparable with published DPG numbers: name it so, e.g. "DPG (VLM judge)". `oracle` reads images
of the shapes world, `gallery` those of the gallery.

An item is one image: its outcome is the mean over its questions (0-1), its group `all`, since a prompt has questions of
many categories. The summary holds `overall`, the L1 categories by name (entity, ...) and L2 as "l2:entity - whole".
Its raw record holds the questions, so that categories can be aggregated again without asking (see `records_of`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from promptecho.benchmarks.dpg.judge import VlmJudge
from promptecho.benchmarks.dpg.layout import DpgImage, list_images, lost_in_official, read_questions, tag_of
from promptecho.benchmarks.dpg.questions import DpgQuestion, QuestionRow, prompts_of, rows_digest
from promptecho.benchmarks.dpg.rules import (
    DpgScore,
    ItemFailure,
    Items,
    Summary,
    categorized,
    check_mode,
    items_of,
    score_image,
    summarize,
)
from promptecho.benchmarks.dpg.vqa import Vqa, VqaAnswers, load_vqa
from promptecho.benchmarks.limit import first_prompts
from promptecho.benchmarks.perception import PerceptionFailure
from promptecho.benchmarks.scoring import ImageFolder, Scored, ScoringOptions
from promptecho.errors import ConfigError, DataError
from promptecho.progress import progress
from promptecho.provenance import Limit
from promptecho.scores import ScoreItem

if TYPE_CHECKING:
    from promptecho.judges.base import CallEstimate

GROUP = "all"


def ask_vqa(vqa: Vqa, entries: Sequence[DpgImage], items: Items) -> list[VqaAnswers]:
    """Ask about every image. An unreadable one, and one without answer, is a failure."""
    found = []
    with progress("DPG-Bench", len(entries), "images") as bar:
        for entry in entries:
            questions = [question.text for question in items.get(entry.prompt.item_id, ())]
            try:
                image = entry.load()
            except DataError as error:
                found.append(VqaAnswers(failure=str(error)))
            else:
                try:
                    found.append(VqaAnswers([{"answer": answer} for answer in vqa.answers(image, questions)]))
                except PerceptionFailure as failure:
                    found.append(VqaAnswers(failure=str(failure)))
            bar.advance()
    return found


def _score_prompt(questions: list[DpgQuestion], asked: list[VqaAnswers], mode: str) -> list[DpgScore | str]:
    """The images of one prompt: scores, or why there is none. Officially one failure fails the whole prompt."""
    found: list[DpgScore | str] = []
    for one in asked:
        try:
            found.append(one.failure or score_image(questions, [record["answer"] for record in one.records], mode))
        except ItemFailure as failure:
            found.append(str(failure))
    bad = next((i for i, score in enumerate(found) if isinstance(score, str)), None)
    if mode != "official" or bad is None:
        return found
    return [score if isinstance(score, str) else f"image {bad} of the prompt failed: {found[bad]}" for score in found]


def records_of(
    entries: Sequence[DpgImage], items: Items, asked: Sequence[VqaAnswers], mode: str
) -> tuple[list[ScoreItem], list[dict[str, Any]], list[ScoreItem], Summary]:
    """Items, raw records, the answers that count for categories, and summary of what came back about all images.

    A raw record: {prompt_id, image_index, group, prompt, filename, failed, score | reason, questions: [{id, question,
    category (L2), broad (L1), parents, answer, answered, counted}]}. `answer` is as it came (of a judge with reply,
    model_version and where there is none failure), `answered` and `counted` are 1.0 or 0.0 before and after zeroing.
    Records of failed images lack these two, and `answer` where nothing was asked.

    Raises:
        DataError: every image failed.
    """
    scores: list[DpgScore | str] = []
    by_prompt: dict[str, list[VqaAnswers]] = {}
    for entry, one in zip(entries, asked, strict=True):
        by_prompt.setdefault(entry.prompt.item_id, []).append(one)
    scored: dict[str, list[DpgScore]] = {}
    for item_id, images in by_prompt.items():  # entries lie prompt by prompt, so `scores` is in their order
        found = _score_prompt(items.get(item_id, []), images, mode)
        scores += found
        scored[item_id] = [score for score in found if isinstance(score, DpgScore)]
    results, raw = [], []
    for entry, one, score in zip(entries, asked, scores, strict=True):
        key = {"prompt_id": entry.prompt.item_id, "image_index": entry.image_index, "group": GROUP}
        questions = [_question_record(q) for q in items.get(entry.prompt.item_id, ())]
        for record, answer in zip(questions, one.records, strict=False):  # an unreadable image has no answers
            record |= answer
        if isinstance(score, str):
            outcome, verdict = None, {"failed": True, "reason": score}
        else:
            for record, answered, counted in zip(questions, score.answered, score.counted, strict=True):
                record |= {"answered": answered, "counted": counted}
            outcome, verdict = score.score, {"failed": False, "score": score.score}
        raw.append({**key, "prompt": entry.prompt.text, "filename": entry.path.name, **verdict, "questions": questions})
        results.append(ScoreItem(**key, outcome=outcome, failed=outcome is None))
    if all(item.failed for item in results):
        raise DataError(
            f"{entries[0].path.parent}: all {len(results)} images failed; the first time: {raw[0]['reason']}"
        )
    parts = [
        ScoreItem(prompt_id=item_id, image_index=k, group=question.broad, outcome=value, failed=False)
        for item_id, scores in scored.items()
        for k, (question, value) in enumerate(categorized(items.get(item_id, []), scores, mode))
    ]
    return results, raw, parts, summarize(items, scored, mode)


def _question_record(question: DpgQuestion) -> dict[str, Any]:
    return {
        "id": question.id,
        "question": question.text,
        "category": question.category,
        "broad": question.broad,
        "parents": list(question.parents),
    }


class DpgScorer:
    """`Scorer` by DPG-Bench's rules; modes as in rules.py, backends as above."""

    template_digest: str | None = None

    def __init__(self, options: ScoringOptions):
        check_mode(options.mode)
        self._mode = options.mode
        self._looking: VlmJudge | Vqa = VlmJudge(options) if options.backend == "judge" else load_vqa(options)
        self._judge = self._looking if isinstance(self._looking, VlmJudge) else None
        self.judge_model = self._looking.name
        self.template_digest = self._judge.template_digest if self._judge else None

    def _read(self, folder: ImageFolder) -> tuple[list[QuestionRow], Items, list[DpgImage], Limit | None]:
        """With a limit, the rows of the chosen prompts alone; what mode official does to the file is done before."""
        rows = read_questions(folder.root, folder.prompts)
        items = items_of(rows, self._mode)
        only, limit = first_prompts(prompts_of(rows), tag_of, folder.limit, last=lost_in_official(rows))
        entries = list_images(folder.root, rows, folder.images_per_prompt, only)
        if only is not None:
            chosen = {prompt.item_id for prompt in only}
            rows = [row for row in rows if row.item_id in chosen]
        return rows, items, entries, limit

    def estimate(self, folder: ImageFolder) -> CallEstimate:
        """What scoring would cost, for the backend `judge`.

        Raises:
            ConfigError: the backend makes no calls.
            DataError: as `score`.
        """
        if self._judge is None:
            raise ConfigError(f"backend {self.judge_model}: makes no calls, so there is nothing to estimate")
        _, items, entries, _ = self._read(folder)
        return self._judge.estimate(entries, items)

    def score(self, folder: ImageFolder) -> Scored:
        rows, items, entries, limit = self._read(folder)
        if isinstance(self._looking, VlmJudge):
            asked = self._looking.ask(entries, items)
        else:
            asked = ask_vqa(self._looking, entries, items)
        results, raw, parts, summary = records_of(entries, items, asked, self._mode)
        detailed = {f"l2:{name}": value for name, value in summary.detailed.items()}
        values = {"overall": summary.overall, **summary.broad, **detailed}
        facts = self._judge.facts if self._judge else None
        return Scored(results, raw, rows_digest(rows), values, parts, facts, limit)
