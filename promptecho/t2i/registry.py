"""Families by name. A new family is one file and one line here."""

from __future__ import annotations

from typing import Any

import torch

from promptecho.config import ExperimentConfig
from promptecho.errors import ModelError
from promptecho.t2i.base import Family

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_family(
    name: str, path: str, *, revision: str | None = None, dtype: str = "float32", device="cpu", **options: Any
) -> Family:
    """Load a model of family `name`; `options` are those of the family's `load`.

    Raises:
        ModelError: unknown family, or a missing or unfit model folder.
    """
    from promptecho.models.place import at_hand
    from promptecho.shipped import model_path

    family = family_class(name)
    path = at_hand(model_path(path, "t2i"), revision)
    return family.load(path, revision=revision, dtype=DTYPES[dtype], device=device, **options)


def family_class(name: str) -> Any:
    """The adapter of family `name`.

    Raises:
        ModelError: unknown family.
    """
    from promptecho.t2i.qwenimage import QwenImage
    from promptecho.t2i.zimage import ZImage

    families = {family.name: family for family in (ZImage, QwenImage)}
    if name not in families:
        raise ModelError(f"models.t2i.family: {name!r} is unknown; known families: {', '.join(families)}")
    return families[name]


def load_configured(config: ExperimentConfig, device="cpu", **options: Any) -> Family:
    """The text-to-image model that a configuration names."""
    t2i = config.models.t2i
    return load_family(
        t2i.family, t2i.path, revision=t2i.revision, dtype=t2i.dtype, device=device,
        negative_prompt=t2i.negative_prompt, vae_slicing=t2i.vae_slicing, vae_tiling=t2i.vae_tiling,
        **{"pad_prompts": t2i.pad_prompts, **options},
    )  # fmt: skip
