"""The PromptEcho reward word by word: how likely each word of the prompt is given the image, and how much of that is
the image's doing rather than the language's.

log p(word | image, words before it) is low for a word that the image contradicts, but also for one that nobody could
have foreseen, and high for one that follows from grammar alone. What the model would say anyway is read from blank
images of the same size, so that the label's tokens stand at the same positions. They are black, grey and white by
default, and each token's prior is the logarithm of its mean probability over the three: one blank image alone may be
something so strange to a model that it says nothing sensible there, and a mean is not drawn down by that. Fixed colours
are the same for all images of a prompt, so that changes of two images differ exactly as their log-probabilities do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from PIL import Image

from promptecho.rewards.base import Details
from promptecho.rewards.echo.blanks import BLANK, blank_colors
from promptecho.vlm import TokenLogProbs, Vlm
from promptecho.vlm.words import label_words


class TokenReward(Protocol):
    """What reads words: a reward that is a sum or mean over a label's tokens, as `EchoReward` is."""

    vlm: Vlm
    query: str
    include_eos: bool
    reduction: Literal["mean", "sum"]

    def score_details(
        self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]
    ) -> list[TokenLogProbs]:
        """The log-probability of every token of `prompts[N]`, given `images[N]`."""
        ...


@dataclass(frozen=True)
class ReadWord:
    """One word of a label, `label[start:end]`, with the values of its `tokens` (natural logarithms).

    `blank_log_probs` are those given the blank images, None where none was asked for.
    """

    text: str
    start: int
    end: int
    tokens: tuple[str, ...]
    log_probs: tuple[float, ...]
    blank_log_probs: tuple[float, ...] | None = None

    @property
    def log_prob(self) -> float:
        """log p(word | image, words before it): the sum over its tokens."""
        return sum(self.log_probs)

    @property
    def blank_log_prob(self) -> float | None:
        """As `log_prob`, given the blank images."""
        return None if self.blank_log_probs is None else sum(self.blank_log_probs)

    @property
    def change(self) -> float | None:
        """By how much the image makes the word likelier than the blank images do; negative: less likely."""
        return None if self.blank_log_probs is None else self.log_prob - sum(self.blank_log_probs)


@dataclass(frozen=True)
class Reading:
    """A label as the VLM reads it on one image. Its words have all of the label's tokens, each once.

    `reduction` is the reward's: whether it is the mean of the tokens' values or their sum.
    """

    label: str
    words: tuple[ReadWord, ...]
    reduction: Literal["mean", "sum"] = "mean"

    @property
    def tokens(self) -> int:
        return sum(len(word.tokens) for word in self.words)

    @property
    def mean(self) -> float:
        """Mean log-probability per token: the paper's reward."""
        return self.log_prob / self.tokens

    @property
    def reward(self) -> float:
        """The reward, as its settings say."""
        return self.mean if self.reduction == "mean" else self.log_prob

    @property
    def log_prob(self) -> float:
        """log p(label | image): the sum over all tokens."""
        return sum(word.log_prob for word in self.words)

    @property
    def change(self) -> float | None:
        """By how much the image makes the whole label likelier than the blank images do."""
        changes = [word.change for word in self.words if word.change is not None]
        return sum(changes) if changes else None


def read_words(
    echo: TokenReward,
    images: Sequence[Image.Image],
    labels: Sequence[str],
    names: Sequence[str],
    *,
    blank: str | None = BLANK,
) -> list[Reading]:
    """Read `labels[N]` on `images[N]` by the reward's VLM, word by word.

    Args:
        names: prompt ids, for errors.
        blank: what the change is measured from: colours as CSS names them, with commas between them (`white`,
            `#000,#808080`), or `mean` for the grey of each image's own mean brightness; None for no change. A colour
            costs one more pass for each pair of label and image size, `mean` one for each image.

    Raises:
        ConfigError: the blank is no colour.
        RewardError: a value is not finite.
        DataError: a label is empty, or longer than the model's context.
        ModelError: the tokenizer does not say where its tokens lie.
    """
    images, labels, names = list(images), list(labels), list(names)
    cuts = {}
    for label, name in zip(labels, names, strict=True):
        if label not in cuts:
            cuts[label] = label_words(echo.vlm, echo.query, label, name=f"prompt {name}", include_eos=echo.include_eos)
    details = echo.score_details(images, labels, names)
    blanks = [None] * len(images) if blank is None else blank_log_probs(echo, images, labels, names, blank)
    readings = []
    for label, detail, without in zip(labels, details, blanks, strict=True):
        values = detail.log_probs.tolist()
        words = []
        for word in cuts[label]:
            tokens = slice(word.first, word.last)
            words.append(
                ReadWord(
                    label[word.start : word.end],
                    word.start,
                    word.end,
                    tuple(detail.tokens[tokens]),
                    tuple(values[tokens]),
                    None if without is None else tuple(without[tokens]),
                )
            )
        readings.append(Reading(label, tuple(words), echo.reduction))
    return readings


def token_details(labels: Sequence[tuple[Sequence[str], Sequence[float]]]) -> Details:
    """What `promptecho reward` prints of N labels, from the tokens and the log-probabilities of each."""
    rows = [[("  ".join(f"{token!r} {value:.2f}" for token, value in zip(*label, strict=True)),)] for label in labels]
    return Details(
        [sum(values) / len(values) for _, values in labels],
        [{"tokens": list(tokens), "log_probs": list(values)} for tokens, values in labels],
        "log-probability per token (natural log); the reward is their mean",
        ("tokens",),
        rows,
    )


def told(readings: Sequence[Reading]) -> Details:
    """As `token_details`; with `--json` word by word, too."""
    details = token_details(
        [
            ([token for word in one.words for token in word.tokens], [x for word in one.words for x in word.log_probs])
            for one in readings
        ]
    )
    for facts, reading in zip(details.facts, readings, strict=True):
        facts["words"] = [_facts(word) for word in reading.words]
    return details


def _facts(word: ReadWord) -> dict[str, Any]:
    found: dict[str, Any] = {
        "text": word.text, "start": word.start, "end": word.end, "tokens": list(word.tokens),
        "log_prob": word.log_prob,
    }  # fmt: skip
    if word.change is not None:
        found |= {"blank_log_prob": word.blank_log_prob, "change": word.change}
    return found


def blank_log_probs(
    echo: TokenReward, images: list[Image.Image], labels: list[str], names: list[str], blank: str
) -> list[Any]:
    """For each image the log-probabilities of its label, token by token, given the blank images of its size that
    `blank` names: of each token the logarithm of its mean probability over these."""
    keys = [
        [(label, image.size, color) for color in blank_colors(blank, image)]
        for image, label in zip(images, labels, strict=True)
    ]
    first = {key: index for index, some in reversed(list(enumerate(keys))) for key in some}
    pictures = [Image.new("RGB", size, color) for _, size, color in first]
    found = echo.score_details(pictures, [key[0] for key in first], [names[index] for index in first.values()])
    rows = {key: detail.log_probs.double() for key, detail in zip(first, found, strict=True)}
    return [(torch.stack([rows[key] for key in some]).logsumexp(dim=0) - math.log(len(some))).tolist() for some in keys]
