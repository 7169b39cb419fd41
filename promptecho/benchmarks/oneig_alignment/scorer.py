"""OneIG-Bench's alignment from a folder of pictures to score items: ask about every image, then apply the rules.

The images are those of DPG-Bench's image sets, whose questions may depend on each other in the same way. An item is one
image, its group the class of its prompt. The summary holds `overall` and the mean of each class's prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from promptecho.benchmarks.dpg.judge import VlmJudge
from promptecho.benchmarks.dpg.layout import DpgImage, list_images, lost_in_official, read_questions, tag_of
from promptecho.benchmarks.dpg.questions import QuestionRow, prompts_of, rows_digest
from promptecho.benchmarks.dpg.rules import Items, items_of
from promptecho.benchmarks.dpg.vqa import Vqa, VqaAnswers, load_vqa
from promptecho.benchmarks.limit import first_prompts
from promptecho.benchmarks.oneig_alignment.rules import MODEL, YES, class_of, counted, image_score, prompts_mean
from promptecho.benchmarks.perception import PerceptionFailure
from promptecho.benchmarks.scoring import ImageFolder, Judged, Scored, ScoringOptions, judge_all
from promptecho.errors import ConfigError, DataError, ModelError
from promptecho.scores import ScoreItem

if TYPE_CHECKING:
    from promptecho.judges.base import CallEstimate
    from promptecho.provenance import Limit

VLM, JUDGE = "vlm", "judge"
OTHERS = ("gallery", "oracle")
BLACK = "the image is black throughout"  # and stands for none, as officially


def is_black(entry: DpgImage) -> bool:
    """Whether an image is black throughout; one that cannot be read is not."""
    try:
        return entry.load().getbbox() is None
    except DataError:
        return False


def look(vqa: Vqa, entry: DpgImage, items: Items) -> VqaAnswers:
    """The answers about one image."""
    try:
        image = entry.load()
        if image.getbbox() is None:
            return VqaAnswers(failure=BLACK)
        questions = [question.text for question in items[entry.prompt.item_id]]
        return VqaAnswers([{"answer": answer} for answer in vqa.answers(image, questions)])
    except PerceptionFailure as failure:
        return VqaAnswers(failure=str(failure))


def judged(entry: DpgImage, answers: VqaAnswers, items: Items, yes: str) -> Judged:
    """An image's item and raw record; its `questions` have the answers as they came, as `answered` and as `counted`."""
    questions = items[entry.prompt.item_id]
    key = {"prompt_id": entry.prompt.item_id, "image_index": entry.image_index}
    key["group"] = class_of(entry.prompt.item_id)
    told: list[dict[str, Any]] = [
        {"id": question.id, "question": question.text, "parents": list(question.parents)} for question in questions
    ]
    for record, answer in zip(told, answers.records, strict=False):  # an unreadable image has no answers
        record |= answer
    raw: dict[str, Any] = {**key, "prompt": entry.prompt.text, "filename": entry.path.name}
    if answers.failure is not None:
        failed = {"failed": True, "reason": answers.failure, "questions": told}
        return ScoreItem(**key, outcome=None, failed=True), raw | failed
    answered = {question.id: float(record["answer"] == yes) for question, record in zip(questions, told, strict=True)}
    values = counted(questions, answered)
    for question, record, value in zip(questions, told, values, strict=True):
        record |= {"answered": answered[question.id], "counted": value}
    score = image_score(values)
    return ScoreItem(**key, outcome=score, failed=False), raw | {"failed": False, "score": score, "questions": told}


def summary_of(items: Sequence[ScoreItem]) -> dict[str, float]:
    """The published score as `overall`, and the mean of each class; images without answers leave the denominators."""
    prompts: dict[str, list[float]] = {}
    classes: dict[str, dict[str, list[float]]] = {}
    for item in items:
        if item.outcome is not None:
            prompts.setdefault(item.prompt_id, []).append(item.outcome)
            classes.setdefault(item.group, {}).setdefault(item.prompt_id, []).append(item.outcome)
    told = {f"class {name}": prompts_mean(images) for name, images in classes.items()}
    return {"overall": prompts_mean(prompts), **told}


class OneIgAlignmentScorer:
    """`Scorer` by OneIG-Bench's alignment rules. The published ones are the only ones."""

    template_digest: str | None = None

    def __init__(self, options: ScoringOptions):
        """
        Raises:
            ConfigError: a mode but "official", or no judge for `judge`.
            ModelError: the backend is unknown or not available.
            DataError: the user's template is faulty.
        """
        if options.mode != "official":
            raise ConfigError(f"mode {options.mode!r}: OneIG-Bench has only 'official'; set mode: official")
        self._judge: VlmJudge | None = None
        self._vqa: Vqa | None = None
        self._yes = "yes"
        if options.backend == JUDGE:
            self._judge = VlmJudge(options)
            self.judge_model, self.template_digest = self._judge.name, self._judge.template_digest
            return
        if options.backend == VLM:
            from promptecho.benchmarks.oneig_alignment.yes_no import YesNoVqa

            self._vqa, self._yes = YesNoVqa(options.model or MODEL, options.device), YES
        elif options.backend in OTHERS:
            self._vqa = load_vqa(options)
        else:
            known = ", ".join(sorted([*OTHERS, JUDGE, VLM]))
            raise ModelError(f"backend {options.backend!r} is unknown; known backends: {known}")
        self.judge_model = self._vqa.name

    def _read(self, folder: ImageFolder) -> tuple[list[QuestionRow], Items, list[DpgImage], Limit | None]:
        rows = read_questions(folder.root, folder.prompts)
        only, limit = first_prompts(prompts_of(rows), tag_of, folder.limit, last=lost_in_official(rows))
        entries = list_images(folder.root, rows, folder.images_per_prompt, only)
        if only is not None:
            chosen = {prompt.item_id for prompt in only}
            rows = [row for row in rows if row.item_id in chosen]
        return rows, items_of(rows, "fixed"), entries, limit

    def estimate(self, folder: ImageFolder) -> CallEstimate:
        """What asking the judge would take.

        Raises:
            ConfigError: the backend is no judge.
            DataError: as `score`.
        """
        if self._judge is None:
            raise ConfigError(f"backend {self.judge_model}: makes no calls, so there is nothing to estimate")
        _, items, entries, _ = self._read(folder)
        return self._judge.estimate([entry for entry in entries if not is_black(entry)], items)

    def score(self, folder: ImageFolder) -> Scored:
        """Raises:
        DataError: images are missing or not those of the prompt set, questions are faulty, or every image failed.
        JudgeError: more questions than allowed stayed without answer, or the budget is used up.
        """
        rows, items, entries, limit = self._read(folder)
        asked = self._ask(self._judge, entries, items) if self._judge else [None] * len(entries)

        def judge(pair: tuple[DpgImage, VqaAnswers | None]) -> Judged:
            entry, answers = pair
            if answers is None:
                answers = self._look(entry, items)
            return judged(entry, answers, items, self._yes)

        results, raw = judge_all("OneIG-Bench", folder.root, list(zip(entries, asked, strict=True)), judge)
        facts = self._judge.facts if self._judge else None
        return Scored(results, raw, rows_digest(rows), summary_of(results), judge=facts, limit=limit)

    @staticmethod
    def _ask(judge: VlmJudge, entries: Sequence[DpgImage], items: Items) -> list[VqaAnswers]:
        """The judge's answers; it is not asked, and paid, about images that are black throughout."""
        black = [is_black(entry) for entry in entries]
        replies = iter(judge.ask([entry for entry, dark in zip(entries, black, strict=True) if not dark], items))
        return [VqaAnswers(failure=BLACK) if dark else next(replies) for dark in black]

    def _look(self, entry: DpgImage, items: Items) -> VqaAnswers:
        assert self._vqa is not None, "a judge is asked about all images at once"
        try:
            entry.load()
        except DataError as error:
            return VqaAnswers(failure=str(error))
        return look(self._vqa, entry, items)
