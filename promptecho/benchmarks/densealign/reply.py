"""The judge's reply: one JSON object, as the template asks for it (paper, Appendix A)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, StrictStr

from promptecho.benchmarks.densealign.scorer import Preference
from promptecho.benchmarks.json_reply import parse_json
from promptecho.benchmarks.replies import read_object


class Comparison(BaseModel):
    """What the judge answers."""

    model_config = ConfigDict(frozen=True)

    reasoning: StrictStr = Field(description="What each image gets right and wrong, and how they compare.")
    preference: Preference = Field(description="The image that follows the prompt better.")


def parse(text: str) -> Comparison:
    """Read a reply with `parser: official`: the JSON object alone, or in a ```json fence.

    Text around it, other fences and other spellings of a preference are refused. Further keys are ignored.

    Raises:
        ValueError: it is no such object.
    """
    text = text.strip()
    if text.startswith("```") and not text.startswith("```json"):
        raise ValueError("the reply: in a fence that is not ```json")
    return parse_json(text, Comparison)


def read(text: str) -> Comparison:
    """Read a reply tolerantly; the preference decides, reasoning may be missing.

    Raises:
        ValueError: as `replies.read_object`.
    """
    return read_object(text, Comparison, optional=("reasoning",))
