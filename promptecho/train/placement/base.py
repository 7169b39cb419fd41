"""How the loop gets rewards, wherever the VLM sits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from PIL import Image

from promptecho.train.data import TrainingPrompt
from promptecho.train.scoring import RolloutScores


class Rewarder(Protocol):
    """Images go in as they are made, rewards come out together."""

    def submit(self, images: list[Image.Image], prompts: list[TrainingPrompt], names: list[str]) -> None:
        """Take images of the given prompts; `names` are unique in an iteration. May begin to score them."""
        ...

    def collect(self, moved: Callable[[int], None]) -> RolloutScores:
        """Scores of all images since the last call, in their order.

        Collective where ranks share a VLM. `moved` is called now and then with the number of steps done.

        Raises:
            NotFiniteRewardError: a reward failed or is not finite; carries the image.
        """
        ...

    def close(self, exit_code: int) -> None:
        """Tell whom it concerns that this rank is done, and how it ends."""
        ...
