"""Families by name. A new family is one file and one line here."""

from __future__ import annotations

import torch

from promptecho.config import ExperimentConfig
from promptecho.errors import ModelError
from promptecho.t2i.base import Family

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_family(name: str, path: str, *, revision: str | None = None, dtype: str = "float32", device="cpu") -> Family:
    """Load a model of family `name`.

    Raises:
        ModelError: unknown family, or a missing or unfit model folder.
    """
    from promptecho.shipped import model_path
    from promptecho.t2i.zimage import ZImage

    families = {ZImage.name: ZImage}
    if name not in families:
        raise ModelError(f"models.t2i.family: {name!r} is unknown; known families: {', '.join(families)}")
    return families[name].load(model_path(path, "t2i"), revision=revision, dtype=DTYPES[dtype], device=device)


def load_configured(config: ExperimentConfig, device="cpu") -> Family:
    """The text-to-image model that a configuration names."""
    t2i = config.models.t2i
    return load_family(t2i.family, t2i.path, revision=t2i.revision, dtype=t2i.dtype, device=device)
