"""Keys whose value is the name of something that may come from outside, such as a model family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic_core import PydanticCustomError

from promptecho.errors import ConfigError
from promptecho.plugins import Plugins


def name_of(plugins: Plugins[Any]) -> Callable[[str], str]:
    """A validator: the value is the name of something that is at hand and can be imported."""

    def check(name: str) -> str:
        known = plugins.names()
        if name not in known:
            hint = f"a {plugins.noun} from outside is installed, or named in `plugins` (docs/extending.md)"
            expected = f"{', '.join(map(repr, known[:-1]))} or {known[-1]!r}"
            raise PydanticCustomError("unknown", "Input should be {expected}", {"expected": expected, "hint": hint})
        try:
            plugins.find(name)
        except ConfigError as error:
            raise PydanticCustomError("plugin", "{message}", {"message": str(error)}) from None
        return name

    return check


def choice_schema(told: dict[str, Any], plugins: Plugins[Any]) -> dict[str, Any]:
    """The JSON schema `told` of such a key: the project's own names, or any other text."""
    told = {key: value for key, value in told.items() if key not in ("type", "minLength")}
    return {**told, "anyOf": [{"enum": list(plugins.built_in)}, {"type": "string", "minLength": 1}]}
