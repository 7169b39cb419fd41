"""What a judge is asked about an image: all of its questions in one call, worded by one of three templates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from promptecho.benchmarks.replies import read_yes_no_list
from promptecho.benchmarks.templates import load_template
from promptecho.benchmarks.tiif.answers import extract_yes_no
from promptecho.benchmarks.tiif.layout import TiifImage
from promptecho.files import digest
from promptecho.judges.base import Order, Question
from promptecho.seeds import derive_seed
from promptecho.templates import Template

WORDINGS = ("questions_1", "questions_2", "questions_3")
# The authors' evaluator samples at 1.0; they mean to go over to 0.
TEMPERATURE = {"official": 1.0, "fixed": 0.0}


@dataclass(frozen=True)
class Templates:
    """The texts: who the judge is, and the wordings of the task with {questions} in them."""

    system: Template
    wordings: tuple[Template, ...]

    @property
    def digest(self) -> str:
        """Of all of them."""
        return digest([template.digest for template in (self.system, *self.wordings)])


def load_templates(folder: Path | None) -> Templates:
    """The project's texts, or those of the user's `folder` in their place.

    Raises:
        DataError: as templates.load_template.
    """
    system, *wordings = (load_template("tiif", name, folder) for name in ("system", *WORDINGS))
    return Templates(system, tuple(wordings))


def wording_of(seed: int, image_id: str) -> int:
    """Which wording an image gets: drawn officially, here a function of the seed and the image."""
    return derive_seed(seed, "tiif", "wording", image_id) % len(WORDINGS)


def question_of(
    entry: TiifImage,
    templates: Templates,
    seed: int,
    mode: str,
    parser: str = "tolerant",
    order: Order = "images_first",
) -> Question:
    """The call for one image. A reply with too many or too few answers is none, so that the judge is asked again:
    a bounded number of times, officially forever.

    Raises:
        DataError: a template lacks {questions}.
    """
    wording = templates.wordings[wording_of(seed, entry.image_id)]
    read = extract_yes_no if parser == "official" else read_yes_no_list
    asked = [question.strip() for question in entry.prompt.questions]
    return Question(
        id=f"prompt {entry.image_id}",
        text=wording.fill(questions="\n".join(asked)),
        images=(entry.path,),
        parse=partial(read, questions=len(asked)),
        system=templates.system.fill(),
        template=digest([templates.system.digest, wording.digest]),
        temperature=TEMPERATURE[mode],
        order=order,  # officially the text comes before the image
    )
