"""A vision-language model in place of mPLUG: yes/no questions about one image, one or several in a call.

A different metric than DPG-Bench's own, not comparable with published numbers; name it so, e.g. "DPG (VLM judge)".
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from promptecho.benchmarks.dpg.layout import DpgImage
from promptecho.benchmarks.dpg.questions import DpgQuestion
from promptecho.benchmarks.dpg.rules import Items
from promptecho.benchmarks.dpg.vqa import VqaAnswers
from promptecho.benchmarks.replies import read_yes_no, read_yes_no_list
from promptecho.benchmarks.scoring import JudgeBackend, JudgeFacts, ScoringOptions
from promptecho.benchmarks.templates import load_template
from promptecho.errors import DataError

if TYPE_CHECKING:
    from promptecho.judges.base import Answer, CallEstimate, ImageSource, Question

YES_NO = re.compile(r"\W*(yes|no)\W*", re.IGNORECASE)


def parse_yes_no(reply: str) -> str:
    """The word yes or no of a reply that is that word alone, however it is written (`parser: official`).

    Raises:
        ValueError: the reply says anything else.
    """
    match = YES_NO.fullmatch(reply)
    if match is None:
        raise ValueError(f"expected yes or no, not {reply[:80]!r}")
    return match[1].lower()


def _pixels(entry: DpgImage) -> bytes:
    # Not PNG: a record's key is made from these bytes, and those of a PNG change with the library that compresses it.
    stream = io.BytesIO()
    entry.load().save(stream, format="BMP")
    return stream.getvalue()


class VlmJudge:
    """Asks the judge of `options` every question about every image.

    Raises:
        ConfigError: no judge is given.
        DataError: the template lacks {question}.
    """

    def __init__(self, options: ScoringOptions):
        self._judge, self._per_call = JudgeBackend(options), options.questions_per_call
        self._parse = parse_yes_no if options.parser == "official" else read_yes_no
        if self._per_call > 1:
            self._template = load_template("dpg", "yes_no_list", options.templates)
            self._template.fill(questions="")
        else:
            self._template = load_template("dpg", "yes_no", options.templates)
            self._template.fill(question="")
        self.name, self.template_digest = self._judge.name, self._template.digest

    @property
    def facts(self) -> JudgeFacts | None:
        """What is known about the answers to the last `ask`."""
        return self._judge.facts

    def _questions(self, entries: Sequence[DpgImage], items: Items) -> list[list[Question] | str]:
        """Per image its calls, or why it cannot be asked about."""
        found: list[list[Question] | str] = []
        for entry in entries:
            try:
                entry.load()
            except DataError as error:
                found.append(str(error))
                continue
            image = entry.single or functools.partial(_pixels, entry)  # one for all its questions
            found.append([self._call(entry, image, chunk) for chunk in self._chunks(entry, items)])
        return found

    def _chunks(self, entry: DpgImage, items: Items) -> list[list[DpgQuestion]]:
        """An image's questions, by calls."""
        questions = list(items.get(entry.prompt.item_id, ()))
        return [questions[k : k + self._per_call] for k in range(0, len(questions), self._per_call)]

    def _call(self, entry: DpgImage, image: ImageSource, questions: list[DpgQuestion]) -> Question:
        from promptecho.judges.base import Question

        where = f"prompt {entry.prompt.item_id}, image {entry.image_index}, question"
        asking = functools.partial(Question, images=(image,), template=self._template.digest)
        if self._per_call == 1:
            text = self._template.fill(question=questions[0].text)
            return asking(f"{where} {questions[0].id}", text, parse=self._parse)
        numbered = "\n".join(f"{number}. {question.text}" for number, question in enumerate(questions, 1))
        parse = functools.partial(read_yes_no_list, questions=len(questions))
        names = ", ".join(str(question.id) for question in questions)
        return asking(f"{where}s {names}", self._template.fill(questions=numbered), parse=parse)

    def ask(self, entries: Sequence[DpgImage], items: Items) -> list[VqaAnswers]:
        """What came back about each image; an unreadable image and an unanswered question are failures.

        Raises:
            JudgeError: more questions failed than the judge's settings allow, or the budget is used up.
        """
        asked = self._questions(entries, items)
        replies = iter(self._judge.ask(_flat(asked)))
        return [
            VqaAnswers(failure=found)
            if isinstance(found, str)
            else _asked([one for chunk in self._chunks(entry, items) for one in self._each(next(replies), len(chunk))])
            for entry, found in zip(entries, asked, strict=True)
        ]

    def _each(self, answer: Answer, count: int) -> list[Answer]:
        """The answer to each question of a call; without one they all have none."""
        if self._per_call == 1 or answer.failure is not None:
            return [answer] * count
        return [replace(answer, value=value) for value in answer.value]

    def estimate(self, entries: Sequence[DpgImage], items: Items) -> CallEstimate:
        """What asking would take."""
        return self._judge.estimate(_flat(self._questions(entries, items)))


def _flat(asked: list[list[Question] | str]) -> list[Question]:
    return [question for found in asked if not isinstance(found, str) for question in found]


def _asked(replies: list[Answer]) -> VqaAnswers:
    records = [
        {"answer": reply.value, "reply": reply.text, "model_version": reply.model_version}
        | ({"failure": reply.failure} if reply.failure is not None else {})
        for reply in replies
    ]
    failed = [reply for reply in replies if reply.failure is not None]
    if not failed:
        return VqaAnswers(records)
    return VqaAnswers(
        records, f"{len(failed)} of {len(replies)} questions without answer; the first: {failed[0].failure}"
    )
