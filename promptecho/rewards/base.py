"""What every reward looks like."""

from __future__ import annotations

from typing import Protocol

from PIL import Image


class Reward(Protocol):
    """A score of how well each image fits its prompt; higher is better."""

    name: str

    def __call__(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[float]:
        """Rewards of `images[N]` for `prompts[N]`; the ids name the culprit in errors.

        Raises:
            RewardError: a reward could not be computed or is not finite.
        """
        ...
