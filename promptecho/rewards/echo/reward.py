"""The PromptEcho reward: how likely a frozen vision-language model finds the prompt as its own answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from PIL import Image

from promptecho.errors import ModelError
from promptecho.rewards.base import Details, RewardContext, not_finite
from promptecho.rewards.echo.options import EchoSection
from promptecho.rewards.echo.words import read_words, token_details, told
from promptecho.video import evenly
from promptecho.vlm import TokenLogProbs, Vlm, label_log_probs

DEFAULT_QUERY = "Describe this image in detail."


class EchoReward:
    """Mean log-probability per token of the prompt, given as the answer to `query` on the image.

    Source: PromptEcho (arXiv 2604.12652), section 3.1, equation 1. One forward pass, no sampling. The end token
    is not part of the label unless `include_eos`. With `reduction` "sum" the reward is the sum over the tokens.
    """

    def __init__(
        self, vlm: Vlm, *, query: str = DEFAULT_QUERY, batch_size: int = 16, include_eos: bool = False,
        reduction: Literal["mean", "sum"] = "mean", frames: int | None = None,
    ):  # fmt: skip
        self.vlm, self.query, self.batch_size, self.include_eos = vlm, query, batch_size, include_eos
        self.reduction, self.frames = reduction, frames

    def __call__(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[float]:
        """Rewards of `images[N]` for `prompts[N]`, in nats per token or, as a sum, in nats (at most 0). The VLM sees
        the frames of a video, or `frames` of them, as images of one turn in their order.

        Raises:
            RewardError: a reward is not finite; names prompt id and image.
            DataError: a prompt is empty or longer than the model's context; names the prompt id.
        """
        return [self._reduced(detail) for detail in self.score_details(images, prompts, prompt_ids)]

    def details(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> Details:
        """As `__call__`, token by token, and word by word where the tokenizer tells where its tokens lie."""
        try:
            details = told(read_words(self, images, prompts, prompt_ids, blank=None))
        except ModelError:
            found = self.score_details(images, prompts, prompt_ids)
            details = token_details([(one.tokens, one.log_probs.tolist()) for one in found])
        return self.reduced(details)

    def reduced(self, details: Details) -> Details:
        """Details of means, as those of this reward."""
        if self.reduction == "mean":
            return details
        sums: list[float | None] = [sum(facts["log_probs"]) for facts in details.facts]
        return replace(details, rewards=sums, caption=details.caption.replace("is their mean", "is their sum"))

    def _reduced(self, detail: TokenLogProbs) -> float:
        return detail.mean if self.reduction == "mean" else float(detail.log_probs.double().sum())

    def score_details(
        self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str], names: list[str] | None = None
    ) -> list[TokenLogProbs]:
        """As `__call__`, with the log-probability of every token. Errors name `names[N]`, or else the prompt ids."""
        names = names or [f"prompt {prompt_id}" for prompt_id in prompt_ids]
        details = label_log_probs(
            self.vlm,
            [evenly(image, self.frames) for image in images],
            prompts,
            self.query,
            batch_size=self.batch_size,
            include_eos=self.include_eos,
            names=names,
        )
        for index, (detail, name, image) in enumerate(zip(details, names, images, strict=True)):
            if not detail.log_probs.isfinite().all():
                bad = int((~detail.log_probs.isfinite()).sum())
                raise not_finite(name, image, index, f"{bad} of {len(detail.tokens)} label tokens")
        return details


def build(context: RewardContext) -> EchoReward:
    """As a descriptor's `build`."""
    assert context.vlm is not None, "its descriptor says that it needs one"
    options = context.options or EchoSection()
    return EchoReward(
        context.vlm, query=context.query, batch_size=context.batch_size,
        include_eos=context.include_eos or options.include_eos, reduction=options.reduction, frames=options.frames,
    )  # fmt: skip
