"""What every reward looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from PIL import Image


@dataclass(frozen=True)
class ImageScore:
    """One image's reward, NaN where it has none.

    For rewards that are read from a model's replies: how many `replies` were asked for, and for each that could not
    be read what it said and why not.
    """

    reward: float
    replies: int = 0
    failures: tuple[str, ...] = ()


class Reward(Protocol):
    """A score of how well each image fits its prompt; higher is better.

    An image's reward is a function of image, prompt and, where sampling is involved, of a seed, the prompt's id and
    `image.info["path"]`; never of its neighbours in a call.
    """

    name: str
    may_be_missing: bool  # NaN then means "no reward"; otherwise it is an error like infinity

    def __call__(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[float]:
        """Rewards of `images[N]` for `prompts[N]`; the ids name the culprit in errors.

        Raises:
            RewardError: a reward could not be computed or is not finite.
        """
        ...

    def score(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[ImageScore]:
        """As `__call__`, with what became of replies."""
        ...


def image_name(image: Image.Image, index: int) -> str:
    """What an image is called: the file it was read from or the name it was given, else its index in the call."""
    return str(image.info.get("path") or getattr(image, "filename", "") or index)
