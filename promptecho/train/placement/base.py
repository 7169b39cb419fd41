"""How the loop gets rewards, independent of where the VLM is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from PIL import Image

from promptecho.train.data import TrainingPrompt
from promptecho.train.scoring import RolloutScores


class Rewarder(Protocol):
    """Takes images as soon as they are made, and returns all rewards together."""

    def submit(self, images: list[Image.Image], prompts: list[TrainingPrompt], names: list[str]) -> None:
        """Take images of the given prompts; `names` are unique in an iteration. May start to score them."""
        ...

    def collect(self, moved: Callable[[int], None]) -> RolloutScores:
        """Scores of all images since the last call, in their order.

        Collective where ranks share a VLM. `moved` is called now and then with the number of steps done.

        Raises:
            NotFiniteRewardError: a reward failed or is not finite; carries the image.
        """
        ...

    def abandon(self) -> None:
        """Begin to score nothing more: an error ends the run, which must not wait for what it will not use."""
        ...

    def close(self, exit_code: int) -> None:
        """Notify the reward server, if there is one, that this rank has finished, and with which exit code."""
        ...
