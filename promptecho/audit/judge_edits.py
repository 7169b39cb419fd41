"""Captions with one fact changed by a judge: a language model writes each edit, and what it answered is on record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from promptecho.audit.edits import ABSENT, KINDS, CaptionEdit
from promptecho.audit.material import Captioned, Pairs
from promptecho.audit.sources import add_edit
from promptecho.config.judges import JudgeSection
from promptecho.json_reply import parse_json
from promptecho.judges.ask import ask_all
from promptecho.judges.base import Question

WHAT = {
    "object": "Replace one object by another one that could be in its place.",
    "color": "Replace one colour by another one.",
    "count": "Replace one number of things by another one.",
    "relation": "Reverse one statement of where something is, such as left and right, above and below, in front of and "
    "behind.",
    "swap": "Exchange one attribute of two things, so that each has the other's.",
    "missing": "Leave out one object with all that is said of it.",
    "letter": "Change one letter of a text that the caption quotes.",
}
QUESTION = """\
Here is the caption of an image. Change exactly one fact, so that the caption becomes false of the image and stays a
natural sentence. {what} Change nothing else. If the caption holds no such fact, answer with an empty text.

Caption: {caption}

Answer with JSON only: {{"changed": "the changed caption, or an empty text"}}"""


class ChangedCaption(BaseModel):
    """What a judge answers."""

    changed: str


def judge_pairs(captioned: Sequence[Captioned], source: str, judge: JudgeSection, answers: Path) -> Pairs:
    """Pairs as `rule_pairs` makes them, the edits written by a judge. What `answers` has on record is not asked again.

    Raises:
        JudgeError: the judge refuses, or too many of its replies are no answers.
    """
    places = [(one, kind) for one in captioned for kind in KINDS]
    questions = [
        Question(
            f"caption {one.id}, {kind}", QUESTION.format(what=WHAT[kind], caption=one.caption), (),
            lambda reply: parse_json(reply, ChangedCaption).changed.strip(), schema=ChangedCaption,
        )
        for one, kind in places
    ]  # fmt: skip
    made = Pairs(source=source, n_captions=len(captioned))
    for (one, kind), answer in zip(places, ask_all(judge, questions, answers), strict=True):
        edit: CaptionEdit | str = "no answer of the judge" if answer.failure else _edit(kind, one.caption, answer.value)
        add_edit(made, one, kind, edit)
    return made


def _edit(kind: str, caption: str, changed: str) -> CaptionEdit | str:
    """What a judge wrote, if it is a change of one fact at most: it may differ in few words."""
    if not changed:
        return ABSENT
    if changed.split() == caption.split():
        return "the judge changed nothing"
    before, after = len(caption.split()), len(changed.split())
    longest = 0 if kind == "missing" else 3
    if after > before + longest or after < (before - 3 if kind != "missing" else 1):
        return "the judge changed more than one fact"
    return CaptionEdit(kind, changed)
