"""Models of text-to-image families, by the family's name."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch

from promptecho.cluster.attention import check_attention, use_attention
from promptecho.compute.mode import current
from promptecho.config import ExperimentConfig
from promptecho.config.families import FAMILIES, family_named
from promptecho.errors import ModelError, PromptEchoError
from promptecho.plugins import MISTAKES, import_object
from promptecho.t2i.base import T2iModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
NEEDED = (
    "latent_shape", "encode_prompts", "negative", "velocity", "guided_velocity", "timesteps", "sample", "decode",
    "enable_activation_checkpointing", "move_text_encoder", "set_negative",
)  # fmt: skip


def load_family(
    name: str, path: str, *, revision: str | None = None, dtype: str = "float32", device="cpu", **options: Any
) -> T2iModel:
    """Load a model of family `name`; `options` are those of the family's `load`.

    Raises:
        ConfigError: unknown family, or its code cannot be imported.
        ModelError: a missing or unfit model folder, or code from outside fails.
    """
    from promptecho.models.locate import stage_model
    from promptecho.shipped import model_path

    model_class = family_class(name)
    path = stage_model(model_path(path, "t2i"), revision)
    load = guarded(name, model_class.load)
    descriptor = FAMILIES.find(name).thing
    return as_built(name, load(descriptor, path, revision=revision, dtype=DTYPES[dtype], device=device, **options))


def family_class(name: str) -> Any:
    """The class of models of family `name`.

    Raises:
        ConfigError: unknown family, or its code cannot be imported.
    """
    found = FAMILIES.find(name)
    return import_object(found.thing.model, f"family {name} ({found})")


def as_built(name: str, model: Any) -> T2iModel:
    """A model of family `name`, so that mistakes in code from outside are reported as such.

    Raises:
        ModelError: it lacks something that all models have.
    """
    if missing := [one for one in NEEDED if not callable(getattr(model, one, None))]:
        raise ModelError(f"family {name} ({FAMILIES.find(name)}): its models lack {', '.join(missing)}")
    if not FAMILIES.find(name).is_ours:
        for one in NEEDED:
            setattr(model, one, guarded(name, getattr(model, one)))
    return model


def guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of family `name`; where it is from outside, with one line in place of what its mistakes raise."""
    found = FAMILIES.find(name)
    if found.is_ours:
        return function

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except PromptEchoError:
            raise
        except MISTAKES as error:
            what = f"{function.__name__} fails: {type(error).__name__}: {error}"
            raise ModelError(f"family {name} ({found}): {what}; --debug shows where") from error

    return call


def load_configured(config: ExperimentConfig, device="cpu", **options: Any) -> T2iModel:
    """The text-to-image model that a configuration names.

    Raises:
        ModelError: also where `compute.attention` is not available here.
    """
    t2i, attention = config.models.t2i, config.compute.attention
    check_attention(attention, device)
    model = load_family(
        t2i.family, t2i.path, revision=t2i.revision, dtype=t2i.dtype, device=device,
        negative_prompt=t2i.negative_prompt, vae_slicing=t2i.vae_slicing, vae_tiling=t2i.vae_tiling,
        **({"frames": t2i.frames} if family_named(t2i.family).makes_videos else {}),
        **{"pad_prompts": t2i.pad_prompts, **options},
    )  # fmt: skip
    use_attention(model.transformer, attention)
    if current().compile and not (hasattr(model, "compile_blocks") and model.compile_blocks()):
        print(f"compute.compile: family {t2i.family} has no blocks that can be compiled", file=sys.stderr, flush=True)
    return model
