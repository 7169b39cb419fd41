"""What does not go with a model that edits images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptecho.config.benchmarks import benchmark_named, takers_of_heldout
from promptecho.config.families import Family, family_named
from promptecho.errors import ConfigError
from promptecho.text_files import TABLES, suffix_of


def editing_problems(sections: Mapping[str, Any]) -> dict[str, str]:
    """Keys of an experiment that leave such a model without source images, or that it cannot do with them."""
    family = family_named(sections["models"].t2i.family)
    if not family.source_image:
        return {}
    found, captions = {}, sections.get("captions")
    if captions is not None and (captions.prompts is None or suffix_of(captions.prompts) not in TABLES):
        found["captions.prompts"] = (
            f"{family.title} edits images: name a {' or '.join(TABLES)} file of instructions, each with an `image`"
        )
    for name, image_set in (sections.get("image_sets") or {}).items():
        benchmark = benchmark_named(image_set.benchmark)
        if not benchmark.takes_heldout:
            told = f"{family.title} edits images, and prompts of {benchmark.name} have none"
            found[f"image_sets.{name}.benchmark"] = f"{told}; take {takers_of_heldout(videos=False)}"
    for name, training in (sections.get("runs") or {}).items():
        if training.zero_stage == 3:
            found["training.zero_stage"] = (
                f"3 does not go with {family.title}, whose source images differ in shape, while all processes make "
                f"each pass together: take 2 (run {name})"
            )
    return found


def refuse_editing(family: Family, what: str) -> None:
    """Nothing, unless the family edits images, which `what` has none of.

    Raises:
        ConfigError: it does.
    """
    if family.source_image:
        raise ConfigError(
            f"{what}: has no images for its prompts, and {family.title} edits one with each; not to be had yet: train "
            "or evaluate it with prompts from a file (docs/editing.md)"
        )
