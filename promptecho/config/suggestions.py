"""What an unknown key, or a choice that there is not, was meant to be: always something that can be written there."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

from promptecho.config.fields import Section
from promptecho.config.models import NOT_WRITTEN, AdapterSection, ExperimentConfig
from promptecho.suggest import closest, likeness

Path = tuple[Any, ...]
UNKNOWN = "is not a known key"


def unknown_key(path: Path, root: type[Section] = ExperimentConfig) -> str:
    """The message about the key at the end of `path`: the likeliest key, or a list of those that there are."""
    meant = meant_keys(path, root)
    if meant:
        return f"{UNKNOWN}; did you mean {' or '.join(meant)}?"
    here = keys_at(path[:-1], root)
    return f"{UNKNOWN}; known here: {', '.join(here)}" if here else f"{UNKNOWN}; remove it"


def meant_keys(path: Path, root: type[Section] = ExperimentConfig) -> list[str]:
    """Keys that the last of `path` may stand for: one beside it, by its name; or up to three elsewhere, by paths."""
    *place, key = path
    near = closest(key, here := keys_at(tuple(place), root), 0.8)
    if near is not None:
        return [near]
    # The same name elsewhere: below this section first, then below the one around it, and so on.
    for depth in range(len(place), -1, -1):
        around = tuple(place[:depth])
        below = [found for found in _below(around, root) if likeness(str(key), found[-1]) == 1.0]
        if below:
            shortest = min(map(len, below))
            return [dotted((*around, *found)) for found in below if len(found) == shortest][:3]
    near = closest(key, here)
    if near is not None:
        return [near]
    everywhere = [(likeness(str(key), found[-1]), found) for found in _below((), root)]
    best = max((rated for rated, _ in everywhere), default=0.0)
    return [dotted(found) for rated, found in everywhere if rated == best][:3] if best >= 0.8 else []


def dotted(path: Path) -> str:
    return ".".join(map(str, path))


def keys_at(place: Path, root: type[Section] = ExperimentConfig) -> list[str]:
    """Keys that may be written in the section at `place`; none where it holds entries by name or a value."""
    section = section_at(place, root)
    if section is None:
        return []
    keys = [key for key in section.written_fields() if not (section is ExperimentConfig and key in NOT_WRITTEN)]
    return [*keys, "adapter"] if root is ExperimentConfig and len(place) == 2 and place[0] == "runs" else keys


def section_at(place: Path, root: type[Section] = ExperimentConfig) -> type[Section] | None:
    annotation: Any = root
    for part in place:
        annotation = _inner(annotation, part)
        if annotation is None:
            return None
    return next((one for one in _alternatives(annotation) if _is_section(one)), None)


def choices_at(place: Path, root: type[Section] = ExperimentConfig) -> list[str]:
    """The words that the key at `place` takes, where it is a choice of words."""
    annotation: Any = root
    for part in place:
        annotation = _inner(annotation, part)
        if annotation is None:
            return []
    return [
        word
        for one in _alternatives(annotation)
        if typing.get_origin(one) is typing.Literal
        for word in typing.get_args(one)
        if isinstance(word, str)
    ]


def _alternatives(annotation: Any) -> list[Any]:
    """An annotation without Annotated, as the list of what a union offers."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _alternatives(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [found for part in typing.get_args(annotation) for found in _alternatives(part)]
    return [annotation]


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _inner(annotation: Any, part: Any) -> Any:
    """The annotation of key, entry or position `part`; None where there is no such thing."""
    for one in _alternatives(annotation):
        if _is_section(one) and part in (fields := one.written_fields()):
            return fields[part].annotation
        if typing.get_origin(one) is dict:
            return typing.get_args(one)[1]
        if typing.get_origin(one) is list:
            return typing.get_args(one)[0]
    return None


def _below(place: Path, root: type[Section]) -> Iterator[Path]:
    """Every key that can be written below the section, the mapping or the list at `place`, relative to it."""
    section = section_at(place, root)
    if section is None:
        return
    fields = section.written_fields()
    for key in keys_at(place, root):
        if key == "adapter" and key not in fields:
            yield (key,)
            continue
        yield (key,)
        if section is ExperimentConfig and key == "runs":
            yield (key, "NAME", "adapter")
            continue  # the others are those of `training`
        for one in _alternatives(fields[key].annotation):
            kind = typing.get_origin(one)
            inner = () if _is_section(one) else ("NAME",) if kind is dict else ("0",) if kind is list else None
            if inner is not None:
                yield from ((key, *inner, *found) for found in _below((*place, key, *inner), root))


def is_adapter(own: Any) -> bool:
    """Whether an entry of `runs` is meant as a published adapter, its key misspelt perhaps."""
    if not isinstance(own, dict):
        return False
    known = [*AdapterSection.model_fields]
    return (
        "adapter" in own
        or all(closest(key, known, 0.8) for key in own)
        and any(closest(key, ["adapter"], 0.8) for key in own)
    )
