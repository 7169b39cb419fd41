"""The judge's reply: one JSON object, as the template asks for it (paper, Appendix A)."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError

from promptecho.benchmarks.densealign.scorer import Preference

FENCE = re.compile(r"```json[ \t]*\n(.*)\n[ \t]*```", re.DOTALL)


class Comparison(BaseModel):
    """What the judge answers."""

    model_config = ConfigDict(frozen=True)

    reasoning: StrictStr = Field(description="What each image gets right and wrong, and how they compare.")
    preference: Preference = Field(description="The image that follows the prompt better.")


def parse(text: str) -> Comparison:
    """Read a reply: the JSON object alone, or in a ```json fence. Text around it, other fences and other spellings of a
    preference are refused: guessing at what a judge meant would make its rates ours. Further keys are ignored.

    Raises:
        ValueError: it is no such object.
    """
    text = text.strip()
    fenced = FENCE.fullmatch(text)
    try:
        return Comparison.model_validate_json(fenced[1] if fenced else text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the reply"
        raise ValueError(f"{key}: {first['msg']}") from None
