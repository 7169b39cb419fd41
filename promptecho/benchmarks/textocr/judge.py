"""The judge's part: the strict question of the paper's Appendix B.3, and its reply."""

from __future__ import annotations

from functools import partial

from pydantic import BaseModel, ConfigDict, Field, StrictStr

from promptecho.benchmarks.replies import read_object
from promptecho.benchmarks.textocr.layout import TextOcrImage
from promptecho.json_reply import parse_json
from promptecho.judges.base import Question
from promptecho.templates import Template

TEMPERATURE = 0.0  # B.3 tells none


# The name is in the schema that judges are sent, and so in the keys of the record: another name would ask again.
class Verdict(BaseModel):
    """What the judge answers."""

    model_config = ConfigDict(frozen=True)

    expected_text: StrictStr = Field(description="All text that the prompt requires; empty where it requires none.")
    found_text: StrictStr = Field(description="All text read in the image.")
    reasoning: StrictStr = Field(description="What the comparison showed, character by character.")
    score: int = Field(strict=True, ge=0, le=1, description="1: no error at all; 0: any error.")

    @property
    def outcome(self) -> float:
        """The image's score. Where no text is required it is 1 by B.3's rule, whatever score the judge gave."""
        return 1.0 if not self.expected_text.strip() else float(self.score)


def question_of(entry: TextOcrImage, template: Template, parser: str = "tolerant") -> Question:
    """The question about an image; the template holds {prompt}."""
    read = parse_json if parser == "official" else partial(read_object, optional=("found_text", "reasoning"))
    return Question(
        id=f"prompt {entry.prompt.data_id}, image {entry.image_index}",
        text=template.fill(prompt=entry.prompt.prompt),
        images=(entry.path,),
        parse=partial(read, model=Verdict),
        schema=Verdict,
        template=template.digest,
        temperature=TEMPERATURE,
    )
