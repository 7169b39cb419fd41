"""What does not go with samples of so many frames: what reads images with videos, what reads videos with images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from promptecho.config.benchmarks import available_benchmarks, benchmark_named
from promptecho.config.descriptors import available_rewards
from promptecho.config.families import Family, family_named
from promptecho.errors import ConfigError

Problems = dict[str, str]


def video_problems(sections: dict[str, Any], problems: Problems) -> None:
    """Add what cannot read the samples of `models.t2i.frames`: images where it is above 1, or videos where it is not;
    sections that could not be built are left out."""
    t2i = sections["models"].t2i
    _frames_of_echo(sections, t2i.frames, problems)
    readers = [one.thing.name for one in available_benchmarks() if one.thing.reads_videos]
    if t2i.frames == 1:
        _readers_of_videos(sections, readers, problems)
        return
    made = f"reads images, and models.t2i.frames makes videos of {t2i.frames} frames"
    able = " or ".join(found.thing.name for found in available_rewards() if found.thing.reads_videos)
    for key, entry in _rewards(sections):
        if not entry.reward.reads_videos:
            problems.setdefault(f"{key}.name", f"{entry.name} {made}; take {able}")
    for index in range(len(sections.get("guards") or [])):
        problems.setdefault(f"guards.{index}.name", f"a guard {made}; remove it")
    if sections.get("words"):
        problems.setdefault("words", f"the page of words {made}; remove it")
    for name, image_set in (sections.get("image_sets") or {}).items():
        if image_set.benchmark not in readers:
            told = f"{image_set.benchmark} {made}; take {' or '.join(readers)}"
            problems.setdefault(f"image_sets.{name}.benchmark", told)
    for name, section in (sections.get("benchmarks") or {}).items():
        backends = {one.name: one for one in benchmark_named(section.scorer).backends}
        if section.backend in backends and not backends[section.backend].videos:
            problems.setdefault(f"benchmarks.{name}.backend", f"{section.backend} of {section.scorer} {made}")


def _rewards(sections: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each entry of `rewards` with its key, once: runs have the rewards of `training`, too."""
    training = sections.get("training")
    lists = {"rewards": sections.get("rewards"), "training.rewards": training.rewards if training else None}
    lists |= {f"runs.{name}.rewards": run.rewards for name, run in (sections.get("runs") or {}).items()}
    told = []
    for key, entries in lists.items():
        for index, entry in enumerate(entries or []):
            if (index, entry) not in told:
                told.append((index, entry))
                yield f"{key}.{index}", entry


def _frames_of_echo(sections: dict[str, Any], frames: int, problems: Problems) -> None:
    """More frames than a sample has mean nothing, but would make a training another one."""
    guards = [(f"guards.{index}", entry) for index, entry in enumerate(sections.get("guards") or [])]
    for key, entry in [*_rewards(sections), *guards]:
        seen = entry.options.frames if entry.name == "echo" else None
        if seen is not None and seen > frames:
            has = "are images" if frames == 1 else f"have {frames} frames"
            problems.setdefault(
                f"{key}.echo.frames", f"{seen}, but samples {has} (models.t2i.frames); remove it, then all are seen"
            )


def _readers_of_videos(sections: dict[str, Any], readers: list[str], problems: Problems) -> None:
    family = family_named(sections["models"].t2i.family)
    fix = "raise models.t2i.frames" if family.makes_videos else "take another benchmark, or a family that makes videos"
    made = f"reads videos, and {family.title} makes images here; {fix}"
    for name, image_set in (sections.get("image_sets") or {}).items():
        if image_set.benchmark in readers:
            problems.setdefault(f"image_sets.{name}.benchmark", f"{image_set.benchmark} {made}")


def refuse_videos(family: Family, what: str, instead: str) -> None:
    """Nothing, unless the family makes videos, while `what` is for images.

    Raises:
        ConfigError: it does; `instead` says what to do then.
    """
    if family.makes_videos:
        raise ConfigError(f"{what}: is for images, and {family.title} makes videos; {instead}")
