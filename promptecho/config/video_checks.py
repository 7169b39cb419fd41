"""What an experiment of videos cannot have: rewards, benchmarks and guards that read images."""

from __future__ import annotations

from typing import Any

from promptecho.config.benchmarks import available_benchmarks, benchmark_named
from promptecho.config.descriptors import available_rewards
from promptecho.config.families import Family
from promptecho.errors import ConfigError

Problems = dict[str, str]


def video_problems(sections: dict[str, Any], problems: Problems) -> None:
    """Add what cannot read videos, where `models.t2i.frames` is above 1; sections that could not be built are left
    out."""
    frames = sections["models"].t2i.frames
    made = f"reads images, and models.t2i.frames makes videos of {frames} frames"
    able = " or ".join(found.thing.name for found in available_rewards() if found.thing.reads_videos)
    training = sections.get("training")
    lists = {"rewards": sections.get("rewards"), "training.rewards": training.rewards if training else None}
    lists |= {f"runs.{name}.rewards": run.rewards for name, run in (sections.get("runs") or {}).items()}
    told = set()  # runs have the rewards of `training`, too
    for key, entries in lists.items():
        for index, entry in enumerate(entries or []):
            if not entry.reward.reads_videos and (index, entry.name) not in told:
                told.add((index, entry.name))
                problems.setdefault(f"{key}.{index}.name", f"{entry.name} {made}; take {able}")
    for index in range(len(sections.get("guards") or [])):
        problems.setdefault(f"guards.{index}.name", f"a guard {made}; remove it")
    readers = [one.thing for one in available_benchmarks() if any(backend.videos for backend in one.thing.backends)]
    others = " or ".join(one.name for one in readers)
    for name, image_set in (sections.get("image_sets") or {}).items():
        if benchmark_named(image_set.benchmark) not in readers:
            problems.setdefault(f"image_sets.{name}.benchmark", f"{image_set.benchmark} {made}; take {others}")
    for name, section in (sections.get("benchmarks") or {}).items():
        backends = {one.name: one for one in benchmark_named(section.scorer).backends}
        if section.backend in backends and not backends[section.backend].videos:
            problems.setdefault(f"benchmarks.{name}.backend", f"{section.backend} of {section.scorer} {made}")


def refuse_videos(family: Family, what: str, instead: str) -> None:
    """Nothing, unless the family makes videos, while `what` is for images.

    Raises:
        ConfigError: it does; `instead` says what to do then.
    """
    if family.makes_videos:
        raise ConfigError(f"{what}: is for images, and {family.title} makes videos; {instead}")
