"""The judge's reply: one JSON object, as the template asks for it (paper, Appendix A)."""

from __future__ import annotations

import json
import re

from pydantic import BaseModel, ConfigDict, Field, StrictStr

from promptecho.benchmarks.densealign.rules import PREFERENCES, Preference
from promptecho.benchmarks.replies import read_object


# The name is in the schema that judges are sent, and so in the keys of the record: another name would ask again.
class Comparison(BaseModel):
    """What the judge answers."""

    model_config = ConfigDict(frozen=True)

    reasoning: StrictStr = Field(description="What each image gets right and wrong, and how they compare.")
    preference: Preference = Field(description="The image that follows the prompt better.")


# Where the authors' evaluator looks for the object in a reply that is not one JSON object as a whole, in this order.
_PLACES = tuple(
    re.compile(pattern, re.DOTALL) for pattern in (r"```json\s*\n(.*?)\n```", r"```\s*\n(.*?)\n```", r"({.*})")
)


def parse(text: str) -> Comparison:
    """Read a reply with `parser: official`, as the authors' evaluator does (github.com/roooobotx/prompt_echo).

    The whole reply is JSON; or else the first ```json fence, the first ``` fence, or all from the first brace to the
    last. The preference is spelt exactly; of a key that is there twice the last counts; reasoning may be anything.

    Raises:
        ValueError: nothing is JSON, or it holds no such preference.
    """
    text = text.strip()
    for found in (text, *(match[1].strip() for place in _PLACES if (match := place.search(text)))):
        try:
            value = json.loads(found)
        except (ValueError, RecursionError):
            continue
        preference = value.get("preference") if isinstance(value, dict) else None
        if preference not in PREFERENCES:
            raise ValueError(f"preference: {str(preference)[:80]!r} is none of {', '.join(PREFERENCES)}")
        return Comparison(reasoning=str(value.get("reasoning", "")), preference=preference)
    raise ValueError("the reply: no JSON in it")


def read(text: str) -> Comparison:
    """Read a reply tolerantly; the preference decides, reasoning may be missing.

    Raises:
        ValueError: as `replies.read_object`.
    """
    return read_object(text, Comparison, optional=("reasoning",))
