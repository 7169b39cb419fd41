"""What a reward is built from, and what every built one looks like."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from promptecho.errors import RewardError

if TYPE_CHECKING:  # what only reads an experiment needs none of it
    import torch
    from PIL import Image

    from promptecho.templates import Template
    from promptecho.vlm import Vlm


@dataclass(frozen=True)
class RewardContext:
    """What a reward is built from.

    `vlm` is None for a reward that says `needs_vlm=False`. Where several GPUs share a VLM, each pass is an exchange
    between them: call it through `promptecho.vlm` only. `device` is where this process computes; `options` the reward's
    settings; `query` what an entry of `rewards` asks the VLM (its own, or `captions.query`); `template` the question of
    a reward that has a template; `batch_size` how many images to take together; `seed` that of the run, for what is
    sampled; `include_eos` whether the token that ends an answer counts (`promptecho reward --include-eos`).
    """

    vlm: Vlm | None = None
    device: torch.device | None = None
    options: Any = None
    query: str = "Describe this image in detail."
    template: Template | None = None
    batch_size: int = 16
    seed: int = 0
    include_eos: bool = False


@dataclass(frozen=True)
class ImageScore:
    """One image's reward, NaN where it has none.

    For rewards that are read from a model's replies: how many `replies` were asked for, and for each that could not
    be read what it said and why not. `measures` are further numbers by the names of the descriptor's `measures`.
    """

    reward: float
    replies: int = 0
    failures: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Details:
    """What `promptecho reward` prints of N images beside their names.

    Args:
        rewards: N numbers; None for an image that has none.
        facts: N mappings for `--json`.
        caption: line below the table.
        columns: heads of the columns after image and reward.
        rows: for each image the lines of the table, each with a text for each of `columns`.
    """

    rewards: list[float | None]
    facts: list[dict[str, Any]]
    caption: str = ""
    columns: tuple[str, ...] = ()
    rows: Sequence[Sequence[tuple[str, ...]]] | None = None


class RewardFunction(Protocol):
    """A score of how well each image fits its prompt; higher is better. This is what a descriptor's `build` returns.

    An image's reward is a function of image, prompt and, where sampling is involved, of a seed, the prompt's id and
    `image.info["path"]`; never of its neighbours in a call.

    A plain function of (images, prompts, prompt_ids) will do: only the call is needed. It may also have
    `may_be_missing = True` (NaN then means "no reward"; otherwise it is an error like infinity), `score` (as the call,
    but a list of ImageScore) and `details` (the same arguments, to a Details).
    """

    def __call__(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[float]:
        """Rewards of `images[N]` for `prompts[N]`; the ids name the culprit in errors.

        Raises:
            RewardError: a reward could not be computed or is not finite.
        """
        ...


def image_name(image: Image.Image, index: int) -> str:
    """What an image is called: the file it was read from or the name it was given, else its index in the call."""
    return str(image.info.get("path") or getattr(image, "filename", "") or index)


def not_finite(name: str, image: Image.Image, index: int, told: str) -> RewardError:
    """The error of the `index`-th image of a call, whose reward for what is called `name` is no finite number."""
    return RewardError(
        f"{name}, image {image_name(image, index)}: the reward is not finite ({told}); look at the image, and try "
        "dtype float32 or bfloat16",
        index=index,
    )


def finite(
    name: str, rewards: Sequence[float], images: Sequence[Image.Image], prompt_ids: Sequence[str]
) -> list[float]:
    """The rewards of `images` by the reward `name`.

    Raises:
        RewardError: one is not finite; names prompt id and image.
    """
    for index, (reward, image, prompt_id) in enumerate(zip(rewards, images, prompt_ids, strict=True)):
        if not math.isfinite(reward):
            raise not_finite(f"prompt {prompt_id}", image, index, f"{name} {reward}")
    return list(rewards)


def in_batches(values: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """The values, at most `size` at a time."""
    for start in range(0, len(values), size):
        yield list(values[start : start + size])
