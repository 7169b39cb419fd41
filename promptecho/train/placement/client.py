"""Rewards from ranks of their own: images are sent as they are made, and scored while the next ones are sampled."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Client

from PIL import Image

from promptecho.errors import PromptEchoError, RewardError
from promptecho.train.data import TrainingPrompt
from promptecho.train.placement.messages import receive_json, send_images, send_json
from promptecho.train.scoring import NotFiniteRewardError, RolloutScores, WeightedReward
from promptecho.train.stop import POLL_S, StopCheck

GONE = (EOFError, ConnectionError, BrokenPipeError, OSError)


class RemoteRewarder:
    """The trainer's end of a connection to the reward server of its node.

    Args:
        server: what to call it in messages.
    """

    def __init__(self, address: str, key: bytes, *, server: str, rewards: list[WeightedReward], stop: StopCheck):
        self.server, self.rewards, self.stop = server, rewards, stop
        self.sent: list[list[Image.Image]] = []
        try:
            self.connection = Client(address, family="AF_UNIX", authkey=key)
        except GONE as error:
            raise self._gone(error) from error

    def submit(self, images: list[Image.Image], prompts: list[TrainingPrompt], names: list[str]) -> None:
        try:
            send_images(self.connection, images, prompts, names)
        except GONE as error:
            raise self._gone(error) from error
        self.sent.append(images)

    def collect(self, moved: Callable[[int], None]) -> RolloutScores:
        sent, self.sent = self.sent, []
        parts, failed = [RolloutScores.none(self.rewards)], None
        for step, images in enumerate(sent, start=1):
            try:
                while not self.connection.poll(POLL_S):
                    self.stop.poll()
                answer = receive_json(self.connection)
            except GONE as error:
                raise self._gone(error) from error
            if "error" in answer:  # go on, so that the next iteration's answers are not mistaken for these
                failed = failed or (answer, images)
            else:
                parts.append(RolloutScores.from_json(answer))
            moved(step)
        if failed is not None:
            answer, images = failed
            if "facts" in answer:
                raise NotFiniteRewardError(answer["error"], images[answer["index"]], answer["facts"])
            raise RewardError(answer["error"])
        return RolloutScores.joined(parts)

    def abandon(self) -> None:
        pass  # the server notices by itself

    def close(self, exit_code: int) -> None:
        try:
            send_json(self.connection, {"exit_code": exit_code})
            self.connection.close()
        except GONE as error:
            raise self._gone(error) from error

    def _gone(self, error: Exception) -> PromptEchoError:
        return PromptEchoError(
            f"{self.server} is gone ({type(error).__name__}; its own message, or the launcher's, says why); the "
            "rolling state is good: start the same command again"
        )
