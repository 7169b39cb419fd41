"""Entries of a list, each with the `name` of a thing that may come from outside, and that thing's settings under its
name beside it: `{name: inferscore, inferscore: {samples: 4}}`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Protocol, Self

from pydantic import ConfigDict, Field, create_model, model_validator
from pydantic.fields import FieldInfo

from promptecho.config.choices import choice_schema
from promptecho.config.fields import Section


class Optioned(Protocol):
    """What the descriptors of such things have."""

    @property
    def name(self) -> str: ...
    @property
    def options(self) -> type[Section] | None: ...


@functools.cache
def _settings_model(named: tuple[tuple[str, type[Section]], ...]) -> type[Section]:
    """What may stand beside the shared keys: the settings of each thing, under its name."""
    # By aliases, as a name may be that of an attribute of all models.
    fields: dict[str, Any] = {
        f"of_{index}": (options | None, Field(None, alias=name)) for index, (name, options) in enumerate(named)
    }
    return create_model("Settings", __base__=Section, **fields)


class ChosenSection(Section):
    """Subclasses have the key `name`, and say what can be chosen."""

    model_config = ConfigDict(extra="allow")  # the settings of each under its name; `_settings` checks them

    @classmethod
    def choices(cls, ours_only: bool = False) -> Sequence[Optioned]:
        """What can be chosen now; with `ours_only` what comes with the project."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _settings(self) -> Self:
        given = self.__pydantic_extra__ or {}
        if given:
            choices = self.choices()
            name = getattr(self, "name", "")  # unknown only where that is allowed: who uses it looks at its settings
            unknown = {name: given.pop(name)} if name in given and name not in {one.name for one in choices} else {}
            model = _settings_model(tuple((one.name, one.options) for one in choices if one.options is not None))
            checked = model.model_validate(given)
            by_name = {str(field.alias): getattr(checked, key) for key, field in model.model_fields.items()}
            given.clear()
            given.update({name: settings for name, settings in by_name.items() if settings is not None} | unknown)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> Any:
        """Of the project's own things; those from outside may stand beside them."""
        schema = handler(core_schema)
        inner = handler.resolve_ref_schema(schema)
        properties = inner["properties"]
        ours = {one.name: one.options for one in cls.choices(ours_only=True)}
        for key, field in cls.written_fields(ours_only=True).items():
            if key not in properties:
                options = ours[key].__pydantic_core_schema__  # type: ignore[union-attr]
                properties[key] = {"anyOf": [handler(options), {"type": "null"}], "default": None}
            properties[key]["description"] = field.description
        properties["name"] = choice_schema(properties["name"], list(ours))
        inner["additionalProperties"] = {"type": ["object", "null"]}
        return schema


def options_fields(things: Sequence[Optioned]) -> dict[str, FieldInfo]:
    """The keys of their settings in an entry that may name any of these things."""
    fields: dict[str, FieldInfo] = {}
    for one in things:
        if one.options is not None:
            told = f"Settings of name: {one.name}; null: its defaults."
            optional: Any = one.options | None
            fields[one.name] = FieldInfo(annotation=optional, default=None, description=told)
    return fields
