"""Keys whose value is the name of something that may come from outside, such as a model family."""

from __future__ import annotations

import contextlib
import typing
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from pydantic_core import PydanticCustomError

from promptecho.config.fields import Section
from promptecho.errors import ConfigError
from promptecho.plugins import Plugins

_may_be_unknown: ContextVar[frozenset[str]] = ContextVar("kinds of plugins that may be unknown", default=frozenset())


@contextlib.contextmanager
def unknown_allowed(*kinds: Plugins[Any]) -> Iterator[None]:
    """Inside, a name of these kinds may be one that is not at hand; who uses it then refuses it."""
    token = _may_be_unknown.set(frozenset(kind.kind for kind in kinds))
    try:
        yield
    finally:
        _may_be_unknown.reset(token)


def name_of(plugins: Plugins[Any]) -> Callable[[str], str]:
    """A validator: the value is the name of something that is at hand and can be imported."""

    def check(name: str) -> str:
        if plugins.kind in _may_be_unknown.get():
            return name
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


def choice_schema(told: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The JSON schema `told` of such a key: the project's own names, or any other text."""
    told = {key: value for key, value in told.items() if key not in ("type", "minLength")}
    return {**told, "anyOf": [{"enum": list(names)}, {"type": "string", "minLength": 1}]}


class OpenSection(Section):
    """A section some of whose keys, and what is told of them, depend on what is at hand."""

    @classmethod
    def open_choices(cls) -> tuple[str, ...]:
        """Keys whose value may also be the name of something from outside."""
        return ()

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> Any:
        """With the project's own names; others may be written, too."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema)["properties"]
        for key, field in cls.written_fields(ours_only=True).items():
            properties[key]["description"] = field.description
            if key in cls.open_choices():
                properties[key] = choice_schema(properties[key], typing.get_args(field.annotation))
        return schema
