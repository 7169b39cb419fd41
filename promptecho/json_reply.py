"""A judge's reply that is one JSON object."""

from __future__ import annotations

import re
from typing import TypeVar

from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)
FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*)\n[ \t]*```", re.DOTALL)


def parse_json(text: str, model: type[M]) -> M:
    """Read a reply: the JSON object alone, or in a ``` fence. Text around it is refused, further keys are ignored.

    Raises:
        ValueError: it is no such object (one line, names the key).
    """
    text = text.strip()
    fenced = FENCE.fullmatch(text)
    try:
        return model.model_validate_json(fenced[1] if fenced else text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the reply"
        raise ValueError(f"{key}: {first['msg']}") from None
