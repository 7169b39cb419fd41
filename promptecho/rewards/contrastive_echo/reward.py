"""The contrastive echo: how much likelier the prompt is given the image than something else is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from promptecho.errors import RewardError
from promptecho.rewards.base import Details, RewardContext
from promptecho.rewards.contrastive_echo.options import ContrastiveEchoSection
from promptecho.rewards.echo.reward import DEFAULT_QUERY, EchoReward
from promptecho.rewards.echo.words import blank_log_probs
from promptecho.vlm import Vlm
from promptecho.vlm.inputs import label_text


@dataclass(frozen=True)
class Contrast:
    """One image: its echo, and what that is compared with, in nats per token."""

    echo: float
    other: float

    @property
    def reward(self) -> float:
        return self.echo - self.other


def against_texts(echo: float, others: Sequence[float]) -> Contrast:
    """The echo of the prompt, and the logarithm of the mean of exp(echo) over the prompt and the other texts.

    The difference is at most log(1 + number of other texts), and 0 without any.
    """
    values = [echo, *others]
    highest = max(values)
    total = math.fsum(math.exp(value - highest) for value in values)
    return Contrast(echo, highest + math.log(total / len(values)))


class ContrastiveEchoReward:
    """The mean log-probability of the prompt's tokens, less that given blank images (`against: blank`), or less that of
    the prompt and other texts given this image (`against: texts`).

    Ours. The first is pointwise mutual information per token, with what blank images make likely for the text's own
    probability. The second has the form of InfoNCE (van den Oord et al. 2018, arXiv 1807.03748), with echoes as scores.

    Raises:
        DataError: one of `texts` holds control tokens or merges with the chat template; names it.
    """

    def __init__(
        self, vlm: Vlm, settings: ContrastiveEchoSection | None = None, *, query: str = DEFAULT_QUERY,
        batch_size: int = 16,
    ):  # fmt: skip
        self.settings = settings or ContrastiveEchoSection()
        self.echo = EchoReward(vlm, query=query, batch_size=batch_size)
        self.names = {text: f"contrastive_echo.{key}" for key, text in self.settings.fixed_texts.items()}
        for text, name in self.names.items():
            label_text(vlm, query, text, name=name)

    def __call__(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[float]:
        """Rewards of `images[N]` for `prompts[N]`, in nats per token.

        Raises:
            RewardError: a log-probability is not finite; names prompt id and image.
            DataError: a text is empty or longer than the model's context; names the prompt id, and which of `texts`.
        """
        return [one.reward for one in self.contrasts(images, prompts, prompt_ids)]

    def details(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> Details:
        """As `__call__`, with both parts."""
        found = self.contrasts(images, prompts, prompt_ids)
        return Details(
            [one.reward for one in found],
            [{"echo": one.echo, "other": one.other} for one in found],
            f"nats per token; the reward is the echo less that of {self.settings.against}",
            ("echo", self.settings.against),
            [[(f"{one.echo:.4f}", f"{one.other:.4f}")] for one in found],
        )

    def contrasts(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[Contrast]:
        """As `__call__`, with both parts."""
        if self.settings.against == "blank":
            details = self.echo.score_details(images, prompts, prompt_ids)
            try:
                blanks = blank_log_probs(self.echo, images, prompts, prompt_ids, self.settings.blank)
            except RewardError as error:
                raise RewardError(f"a blank image in place of the image: {error}") from error
            return [Contrast(own.mean, math.fsum(some) / len(some)) for own, some in zip(details, blanks, strict=True)]
        rows = [
            (index, text)
            for index, prompt in enumerate(prompts)
            for text in (prompt, *(text for text in self.settings.texts if text != prompt))
        ]
        try:
            details = self.echo.score_details(
                [images[index] for index, _ in rows],
                [text for _, text in rows],
                [prompt_ids[index] for index, _ in rows],
                [
                    f"prompt {prompt_ids[index]}" + (f", {self.names[text]}" if text != prompts[index] else "")
                    for index, text in rows
                ],
            )
        except RewardError as error:
            raise RewardError(str(error), index=None if error.index is None else rows[error.index][0]) from error
        found: list[list[float]] = [[] for _ in images]
        for (index, _), one in zip(rows, details, strict=True):
            found[index].append(one.mean)
        return [against_texts(own, others) for own, *others in found]


def build(context: RewardContext) -> ContrastiveEchoReward:
    """As a descriptor's `build`."""
    assert context.vlm is not None, "its descriptor says that it needs one"
    return ContrastiveEchoReward(context.vlm, context.options, query=context.query, batch_size=context.batch_size)
