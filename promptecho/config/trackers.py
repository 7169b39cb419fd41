"""Entries of `training.trackers`: where a run's metrics and sample images go besides its own files."""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic.fields import FieldInfo

from promptecho.config.choices import name_of
from promptecho.config.chosen import ChosenSection, options_fields
from promptecho.config.fields import Text
from promptecho.config.tracker_kinds import TRACKERS, TrackerKind, available_trackers, tracker_kind
from promptecho.errors import bug_line


class TrackerSection(ChosenSection):
    """One tracker. A name alone stands for an entry with the tracker's defaults."""

    name: Annotated[Text, AfterValidator(name_of(TRACKERS))] = Field("tensorboard", description="Which tracker")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given

    @classmethod
    def choices(cls, ours_only: bool = False) -> list[TrackerKind]:
        return [found.thing for found in available_trackers(ours_only)]

    @property
    def tracker(self) -> TrackerKind:
        """What is said of this tracker."""
        return tracker_kind(self.name)

    @property
    def options(self) -> Any:
        """Its settings, those that are not written at their defaults; None for a tracker without any."""
        model = self.tracker.options
        return (self.model_extra or {}).get(self.name) or (None if model is None else model())

    def missing(self) -> str:
        """What else its settings need and this machine lacks, with the fix behind a colon; "": nothing. A plugin whose
        own answer fails is told by its name."""
        options = self.options
        if options is None:
            return ""
        try:
            return options.missing()
        except (Exception, SystemExit) as error:  # whatever code from outside may do
            where = f"{type(options).__module__}.{type(options).__qualname__}.missing()"
            return f"{where} fails: correct that plugin ({bug_line(error)})"

    @classmethod
    def written_fields(cls, ours_only: bool = False) -> dict[str, FieldInfo]:
        return _written_fields(tuple(cls.choices(ours_only)))

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> Any:
        schema = super().__get_pydantic_json_schema__(core_schema, handler)
        inner = handler.resolve_ref_schema(schema)
        section = dict(inner)
        inner.clear()
        inner["anyOf"] = [section, {"type": "string", "minLength": 1}]
        return schema


@functools.cache
def _written_fields(trackers: tuple[TrackerKind, ...]) -> dict[str, FieldInfo]:
    """The keys of an entry that may name any of these trackers."""
    told = ", ".join(f"{one.name} ({one.summary})" for one in trackers)
    name = FieldInfo(
        annotation=Literal[tuple(one.name for one in trackers)],  # type: ignore[arg-type]  # made when asked for
        default="tensorboard",
        description=f"Which tracker: {told}; or one from outside (docs/extending.md).",
    )
    return {"name": name, **options_fields(trackers)}


def tracker_problems(trackers: list[TrackerSection]) -> list[tuple[str, str]]:
    """Impossible combinations: (key within the list, what is wrong and how to fix it)."""
    problems, names = [], [entry.name for entry in trackers]
    for index, entry in enumerate(trackers):
        if entry.name in names[:index]:
            problems.append((f"{index}.name", f"{entry.name} stands here twice; remove one of them"))
        for other in entry.model_extra or {}:
            if other != entry.name:
                message = f"{entry.name} has no such settings; remove it, or set name: {other}"
                problems.append((f"{index}.{other}", message))
    return problems
