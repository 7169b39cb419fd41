"""The echo of content words: PromptEcho with weights for words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

from promptecho.rewards.base import Details, RewardContext
from promptecho.rewards.echo.reward import DEFAULT_QUERY, EchoReward
from promptecho.rewards.weighted_echo.options import WeightedEchoSection
from promptecho.rewards.weighted_echo.stop_words import STOP_WORDS, is_stop_word
from promptecho.vlm import TokenLogProbs, Vlm
from promptecho.vlm.words import label_words


def weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """sum(weight x value) / sum(weight); the plain mean where all weights are 0."""
    if not any(weights):
        weights = [1.0] * len(values)
    return math.fsum(w * x for w, x in zip(weights, values, strict=True)) / math.fsum(weights)


class WeightedEchoReward:
    """The mean log-probability of the prompt's tokens, in which those of stop words and signs have less weight.

    Ours: PromptEcho (arXiv 2604.12652, equation 1) with weights, which follow from the prompt alone. One pass.
    """

    def __init__(
        self, vlm: Vlm, settings: WeightedEchoSection | None = None, *, query: str = DEFAULT_QUERY, batch_size: int = 16
    ):  # fmt: skip
        self.settings = settings or WeightedEchoSection()
        words = self.settings.stop_words
        self.stop_words = STOP_WORDS if words is None else frozenset(words)
        self.echo = EchoReward(vlm, query=query, batch_size=batch_size)

    def __call__(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[float]:
        """Rewards of `images[N]` for `prompts[N]`, in nats per token (at most 0).

        Raises:
            RewardError: a reward is not finite; names prompt id and image.
            DataError: a prompt is empty or longer than the model's context; names the prompt id.
            ModelError: the tokenizer does not say where its tokens lie.
        """
        found = self._read(images, prompts, prompt_ids)
        return [weighted_mean(one.log_probs.tolist(), weights) for one, weights in found]

    def details(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> Details:
        """As `__call__`, token by token."""
        read = self._read(images, prompts, prompt_ids)
        found = [(one.tokens, one.log_probs.tolist(), weights) for one, weights in read]
        return Details(
            [weighted_mean(values, weights) for _, values, weights in found],
            [{"tokens": tokens, "log_probs": values, "weights": weights} for tokens, values, weights in found],
            "log-probability per token (natural log) x weight; the reward is their mean by the weights",
            ("tokens",),
            [[("  ".join(f"{t!r} {x:.2f} x {w:g}" for t, x, w in zip(*one, strict=True)),)] for one in found],
        )

    def weights(self, prompt: str, name: str) -> list[float]:
        """The weight of each of the prompt's tokens."""
        weights: list[float] = []
        for word in label_words(self.echo.vlm, self.echo.query, prompt, name=name):
            stop = is_stop_word(prompt[word.start : word.end], self.stop_words)
            weights += [self.settings.stop_weight if stop else 1.0] * (word.last - word.first)
        return weights

    def _read(
        self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]
    ) -> list[tuple[TokenLogProbs, list[float]]]:
        known = {}
        for prompt, prompt_id in zip(prompts, prompt_ids, strict=True):
            if prompt not in known:
                known[prompt] = self.weights(prompt, f"prompt {prompt_id}")
        details = self.echo.score_details(images, prompts, prompt_ids)
        return [(one, known[prompt]) for one, prompt in zip(details, prompts, strict=True)]


def build(context: RewardContext) -> WeightedEchoReward:
    """As a descriptor's `build`."""
    assert context.vlm is not None, "its descriptor says that it needs one"
    return WeightedEchoReward(context.vlm, context.options, query=context.query, batch_size=context.batch_size)
