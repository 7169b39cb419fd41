"""The judge's part: the published question, and its reply, which is the text that was read."""

from __future__ import annotations

from functools import partial

from promptecho.benchmarks.longtext.rules import without_stock_phrases
from promptecho.benchmarks.replies import spoken
from promptecho.benchmarks.textocr.layout import TextOcrImage
from promptecho.judges.base import Question
from promptecho.templates import Template


def parse_reading(reply: str, mode: str, parser: str) -> str:
    """The text that a judge read; with `parser` tolerant without what its model only thought. No text is taken for a
    refusal: "we cannot help you" may be what the image says."""
    return without_stock_phrases(reply if parser == "official" else spoken(reply), mode)


def question_of(entry: TextOcrImage, template: Template, mode: str, parser: str) -> Question:
    """The question about an image."""
    return Question(
        id=f"prompt {entry.prompt.data_id}, image {entry.image_index}",
        text=template.fill(),
        images=(entry.path,),
        parse=partial(parse_reading, mode=mode, parser=parser),
        template=template.digest,
    )
