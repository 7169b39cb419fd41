"""The expected score: the mean of the scores that a frozen vision-language model could begin its answer with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from PIL import Image

from promptecho.rewards.base import Details, ImageScore, RewardContext, not_finite
from promptecho.rewards.expected_score.options import MASS, QUESTION, ExpectedScoreSection
from promptecho.templates import Template, read_template
from promptecho.vlm.first_number import first_number_log_probs
from promptecho.vlm.inputs import check_plain
from promptecho.vlm.model import Vlm


@dataclass(frozen=True)
class Expected:
    """One image: the reward from 0 to 1, the probability `mass` of all scores together, and of that the share of each
    score from the lowest on."""

    reward: float
    mass: float
    shares: tuple[float, ...]


def expected_score(log_probs: torch.Tensor) -> Expected:
    """From the log-probabilities [n] of the scores in their order, which need not add up to 1: their mean by the
    probabilities divided by the sum of these, with 0 for the lowest score and 1 for the highest."""
    shares = log_probs.double().softmax(0)
    steps = torch.arange(len(shares), dtype=torch.float64) / (len(shares) - 1)
    reward = float((shares * steps).sum())
    return Expected(reward, float(log_probs.double().exp().sum()), tuple(shares.tolist()))


class ExpectedScoreReward:
    """The mean score that the model would give, by the probabilities of the answer's first number, brought to 0 to 1.

    Ours: InferScore (PromptEcho, arXiv 2604.12652, section 4.3.1) without the writing. One pass, no sampling, no reply
    that could be unreadable.

    Raises:
        DataError: the template is unreadable, lacks {prompt} or has another placeholder, or `opening` holds control
            tokens.
    """

    def __init__(
        self, vlm: Vlm, settings: ExpectedScoreSection | None = None, *, template: Template | None = None,
        batch_size: int = 16,
    ):  # fmt: skip
        self.vlm, self.settings, self.batch_size = vlm, settings or ExpectedScoreSection(), batch_size
        self.template = template or read_template(self.settings.template or QUESTION)
        self.template.fill(prompt="")
        check_plain(vlm, self.settings.opening, "expected_score.opening:")

    def __call__(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[float]:
        """Rewards of `images[N]` for `prompts[N]`, from 0 to 1.

        Raises:
            RewardError: a reward or its mass is not finite; names prompt id and image.
            DataError: a prompt holds control tokens, or does not fit into the context; names the prompt id.
            ModelError: a digit is not one token of the model.
        """
        return [one.reward for one in self.expected(images, prompts, prompt_ids)]

    def score(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[ImageScore]:
        """As `__call__`, with the mass."""
        found = self.expected(images, prompts, prompt_ids)
        return [ImageScore(one.reward, measures={MASS: one.mass}) for one in found]

    def details(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> Details:
        """As `__call__`, with the share of each score."""
        found, lowest = self.expected(images, prompts, prompt_ids), self.settings.lowest
        shares = [{str(lowest + n): share for n, share in enumerate(one.shares)} for one in found]
        return Details(
            [one.reward for one in found],
            [{MASS: one.mass, "shares": some} for one, some in zip(found, shares, strict=True)],
            f"the reward is the mean score by the shares, {lowest} as 0 and {self.settings.highest} as 1; mass: "
            "probability that the answer begins with a score",
            ("mass", "share of each score"),
            [
                [(f"{one.mass:.4f}", "  ".join(f"{score}: {share:.3f}" for score, share in some.items()))]
                for one, some in zip(found, shares, strict=True)
            ],
        )

    def expected(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[Expected]:
        """As `__call__`, with all that is known."""
        names = [f"prompt {prompt_id}" for prompt_id in prompt_ids]
        for prompt, name in dict(zip(prompts, names, strict=True)).items():
            check_plain(self.vlm, prompt, f"{name}:")
        log_probs = first_number_log_probs(
            self.vlm, images, [self.template.fill(prompt=prompt) for prompt in prompts], opening=self.settings.opening,
            batch_size=self.batch_size, names=names,
        )  # fmt: skip
        lowest, highest = self.settings.lowest, self.settings.highest
        found = [expected_score(row[lowest : highest + 1]) for row in log_probs]
        for index, (one, name, image) in enumerate(zip(found, names, images, strict=True)):
            if not (math.isfinite(one.reward) and math.isfinite(one.mass)):
                raise not_finite(name, image, index, f"{one.reward}, with a mass of {one.mass}")
        return found


def build(context: RewardContext) -> ExpectedScoreReward:
    """As a descriptor's `build`."""
    assert context.vlm is not None, "its descriptor says that it needs one"
    return ExpectedScoreReward(context.vlm, context.options, template=context.template, batch_size=context.batch_size)
