"""What a judge is asked about an image: all test points of its prompt in one call, in the prompt's language."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from promptecho.benchmarks.templates import load_template
from promptecho.benchmarks.unigenbench import reply
from promptecho.benchmarks.unigenbench.layout import UnigenbenchImage
from promptecho.benchmarks.unigenbench.prompts import UnigenbenchPrompt
from promptecho.errors import DataError
from promptecho.files import digest
from promptecho.judges.base import Order, Question
from promptecho.templates import Template

NAMES = {"en": "english", "zh": "chinese"}
PLACES = ("prompt", "checkpoints", "definitions", "descriptions")


@dataclass(frozen=True)
class Wording:
    """The texts of one language: the task, and `definitions`, which say of each sub-dimension what it means, a line
    `NAME: DEFINITION` each."""

    task: Template
    definitions: Template

    @property
    def digest(self) -> str:
        return digest([self.task.digest, self.definitions.digest])

    def text(self, prompt: UnigenbenchPrompt) -> str:
        """The question about an image of a prompt.

        Raises:
            DataError: a template lacks a placeholder, or does not define a test point.
        """
        lines = [line.partition(": ") for line in self.definitions.text.split("\n")]
        known = {name: line for name, *line in lines}
        if absent := [point.name for point in prompt.points if point.name not in known]:
            raise DataError(f"{self.definitions.source}: has no line for {absent[0]!r}; add '{absent[0]}: ...'")
        return self.task.fill(
            prompt=prompt.prompt,
            checkpoints=str([point.name for point in prompt.points]),
            definitions="\n".join("".join((point.name, *known[point.name])) for point in prompt.points),
            descriptions="\n".join(f"{point.name}: {point.description}" for point in prompt.points),
        )


def load_wordings(folder: Path | None) -> dict[str, Wording]:
    """Language -> the project's texts, or those of the user's `folder` in their place.

    Raises:
        DataError: as templates.load_template, or a text lacks a placeholder.
    """
    found = {}
    for language, name in NAMES.items():
        task, definitions = (load_template("unigenbench", one, folder) for one in (name, f"{name}_definitions"))
        task.fill(**dict.fromkeys(PLACES, ""))  # a faulty one is reported before any image is read
        found[language] = Wording(task, definitions)
    return found


def question_of(
    entry: UnigenbenchImage, wording: Wording, parser: str = "tolerant", order: Order = "images_first"
) -> Question:
    """The call for one image. The authors' client sends the image first, too, and as JPEG.

    Raises:
        DataError: as `Wording.text`.
    """
    read = reply.parse if parser == "official" else reply.read
    return Question(
        id=f"prompt {entry.prompt.data_id}, image {entry.image_index}",
        text=wording.text(entry.prompt),
        images=(entry.path,),
        parse=partial(read, points=len(entry.prompt.points)),
        template=wording.digest,
        image_format="jpeg" if order == "official" else "png",
    )
