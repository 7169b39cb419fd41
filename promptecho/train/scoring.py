"""Images to rewards, rewards to advantages; no collectives here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from PIL import Image

from promptecho import awm
from promptecho.config.descriptors import given_settings
from promptecho.config.training import TrainingConfig
from promptecho.errors import RewardError
from promptecho.rewards.base import ImageScore, RewardContext
from promptecho.rewards.make import BuiltReward
from promptecho.seeds import derive_seed
from promptecho.train.data import TrainingPrompt
from promptecho.train.sizes import by_shape
from promptecho.vlm import Vlm


@dataclass
class WeightedReward:
    """One entry of the config's `rewards`. `labels` by prompt id; None: the prompts themselves.

    `reward` is None on a rank that has its rewards from another one; `context` is what it is built from, where it is
    built with the VLM. `measures` are the names of what it tells of each image beside the number.
    """

    name: str
    weight: float
    query: str
    labels: dict[str, str] | None = None
    context: RewardContext = field(default_factory=RewardContext)
    max_failure_share: float = 0.0
    reward: BuiltReward | None = None
    measures: tuple[str, ...] = ()

    @property
    def vlm(self) -> Vlm | None:
        """The VLM that gives it on this rank."""
        return self.context.vlm

    @property
    def metric(self) -> str:
        """What it is called in metrics: its name, with a word more where its settings give numbers of another unit."""
        variant = getattr(self.context.options, "variant", "")
        return f"{self.name}_{variant}" if variant else self.name

    def label(self, prompt: TrainingPrompt) -> str:
        return prompt.text if self.labels is None else self.labels[prompt.prompt_id]


class NotFiniteRewardError(RewardError):
    """A reward of one image failed or is not finite; carries what scores it again."""

    def __init__(self, message: str, image: Image.Image, facts: dict[str, Any]):
        super().__init__(message)
        self.image, self.facts = image, facts


@dataclass
class RolloutScores:
    """What all rewards say of n images; three tensors [rewards, n] in float64, and one text for each reward.

    `rewards` are NaN where an image has none, which only some rewards may say. Of `replies` that were asked for, so
    many `failed`; `examples` hold the first of them, "" where none did. `measures` [all rewards' measures, n] are what
    rewards tell beside, NaN where one tells nothing.
    """

    rewards: torch.Tensor
    replies: torch.Tensor
    failed: torch.Tensor
    examples: list[str]
    measures: torch.Tensor

    @classmethod
    def of(cls, facts: torch.Tensor, examples: list[str], measures: torch.Tensor | None = None) -> RolloutScores:
        """From the three tensors as one, [3, rewards, n]."""
        rewards, replies, failed = facts
        none = rewards.new_zeros((0, rewards.shape[1]))
        return cls(rewards, replies, failed, examples, none if measures is None else measures)

    @classmethod
    def none(cls, rewards: list[WeightedReward]) -> RolloutScores:
        """Scores of no image."""
        facts = torch.zeros((3, len(rewards), 0), dtype=torch.float64)
        measures = facts.new_zeros((sum(len(entry.measures) for entry in rewards), 0))
        return cls.of(facts, [""] * len(rewards), measures)

    @classmethod
    def joined(cls, parts: list[RolloutScores]) -> RolloutScores:
        """Those of all images of `parts`, in their order."""
        rewards, replies, failed, measures = (
            torch.cat([getattr(p, key) for p in parts], 1) for key in ("rewards", "replies", "failed", "measures")
        )
        examples = [next(filter(None, texts), "") for texts in zip(*(p.examples for p in parts), strict=True)]
        return cls(rewards, replies, failed, examples, measures)

    def to_json(self) -> dict[str, Any]:
        """A value for `json`, whose numbers include NaN on both ends in Python."""
        return {key: value.tolist() if torch.is_tensor(value) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> RolloutScores:
        values = [value["rewards"], value["replies"], value["failed"]]
        examples = value["examples"]
        facts = torch.tensor(values, dtype=torch.float64).view(3, len(examples), -1)
        measures = torch.tensor(value["measures"], dtype=torch.float64)
        return cls.of(facts, examples, measures.view(len(value["measures"]), facts.shape[2]))


def score_images(
    rewards: list[WeightedReward], images: list[Image.Image], prompts: list[TrainingPrompt], names: list[str], moved
) -> RolloutScores:
    """What all rewards say of `images[n]`, those of one VLM after those of another.

    Collective where VLMs are shared: ranks leave the passes of each together, and one that fails still takes part in
    those of the VLMs that follow.
    Images of several sizes go to a reward size by size: in a batch of several, most of what is padded would be places
    of images.

    Raises:
        NotFiniteRewardError: a reward failed or is not finite; names prompt and image.
    """
    found: dict[int, list[ImageScore]] = {}
    failed: Exception | None = None
    for vlm in distinct_vlms(rewards, with_none=True):
        mine = [index for index, entry in enumerate(rewards) if entry.vlm is vlm]
        try:
            with nullcontext() if vlm is None else vlm.in_step():
                for index in [] if failed else mine:
                    found[index] = _scores(rewards[index], images, prompts, names)
                    moved(len(found))
        except Exception as error:
            failed = failed or error
    if failed is not None:
        raise failed
    rows, examples, measures = [], [], []
    for index, entry in enumerate(rewards):
        scores = found[index]
        facts = [[score.reward, score.replies, len(score.failures)] for score in scores]
        rows.append(torch.tensor(facts, dtype=torch.float64).view(-1, 3).T)
        examples.append(next((failure for score in scores for failure in score.failures), ""))
        measures += [[score.measures.get(name, math.nan) for score in scores] for name in entry.measures]
    told = torch.tensor(measures, dtype=torch.float64).view(len(measures), len(images))
    return RolloutScores.of(torch.stack(rows, 1), examples, told)


def distinct_vlms(rewards: Sequence[WeightedReward], *, with_none: bool = False) -> list[Vlm | None]:
    """The VLMs that are on this rank for `rewards`, each once, in their order; None among them where a reward has none
    and `with_none` is set."""
    found: list[Vlm | None] = []
    for entry in rewards:
        if not any(entry.vlm is one for one in found) and (with_none or entry.vlm is not None):
            found.append(entry.vlm)
    return found


def _scores(
    entry: WeightedReward, images: list[Image.Image], prompts: list[TrainingPrompt], names: list[str]
) -> list[ImageScore]:
    """What one reward says of `images[n]`."""
    groups = by_shape([image.size for image in images])
    if len(groups) > 1:
        found: dict[int, ImageScore] = {}
        for group, _ in groups:
            own = [images[index] for index in group], [prompts[index] for index in group]
            found |= zip(group, _scores(entry, *own, [names[index] for index in group]), strict=True)
        return [found[index] for index in range(len(images))]
    for image, name in zip(images, names, strict=True):
        image.info["path"] = name
    assert entry.reward is not None, "it is built where images are scored"
    labels = [entry.label(prompt) for prompt in prompts]
    scores: list[ImageScore] = []
    try:
        scores = entry.reward.score(images, labels, [p.prompt_id for p in prompts]) if images else []
    except RewardError as error:
        if error.index is None:
            raise
        _raise_for(error.index, str(error), entry, images, prompts, names)
    for position, value in enumerate(score.reward for score in scores):
        if not math.isfinite(value) and not (math.isnan(value) and entry.reward.may_be_missing):
            message = (
                f"reward {entry.name} of prompt {prompts[position].prompt_id}, {names[position]}: {value} is not finite"
            )
            _raise_for(position, message, entry, images, prompts, names)
    return scores


def too_many_failures(rewards: list[WeightedReward], scores: RolloutScores) -> tuple[int, str] | None:
    """Which reward failed too often for its images to be trained on, and how; None if none did."""
    for index, entry in enumerate(rewards):
        replies, failed = int(scores.replies[index].sum()), int(scores.failed[index].sum())
        if failed > entry.max_failure_share * replies:
            share = f"{failed} of {replies} replies ({failed / replies:.1%}) to rewards.{index} ({entry.name}) are "
            return index, f"{share}unreadable, more than its max_failure_share of {entry.max_failure_share:.1%}"
        if failed and scores.rewards[index].isnan().all():
            return index, f"not one reply to rewards.{index} ({entry.name}) is readable"
    if scores.rewards.isnan().any(0).all():
        return int(scores.failed.sum(1).argmax()), "no image has all of its rewards: too many replies are unreadable"
    return None


def _raise_for(
    index: int, message: str, entry: WeightedReward, images, prompts: list[TrainingPrompt], names: list[str]
):
    prompt = prompts[index]
    facts = {
        "kind": "reward", "reward": entry.name, "query": entry.query, "label": entry.label(prompt),
        "prompt_id": prompt.prompt_id, "prompt": prompt.text, "image": names[index],
        "vlm": None if entry.vlm is None else entry.vlm.path, "settings": given_settings(entry.context.options),
    }  # fmt: skip
    raise NotFiniteRewardError(message, images[index], facts)


def advantage_parts(rewards: torch.Tensor, weights: list[float], training: TrainingConfig) -> torch.Tensor:
    """Weighted advantages [R, G, K] of each of the rewards [R, G, K]; an image's advantage is their sum.

    A reward that an image lacks (NaN) adds nothing to its advantage; its other rewards do.
    """
    advantage = training.advantage
    clip = advantage.clip or float("inf")
    parts = [
        weight
        * awm.group_advantages(
            values, scale=advantage.scale, clip=clip, missing=values.isnan(), factor=advantage.factor
        )
        for values, weight in zip(rewards, weights, strict=True)
    ]
    return torch.stack(parts)


def combined_advantages(rewards: torch.Tensor, weights: list[float], training: TrainingConfig) -> torch.Tensor:
    """Advantages [G, K] of images: the sum of `advantage_parts`."""
    return advantage_parts(rewards, weights, training).sum(0)


def permuted(rewards: torch.Tensor, seed: int, iteration: int) -> torch.Tensor:
    """Rewards [R, G, K] with those of each prompt assigned to its images in another order, all rewards of an image
    together.

    A missing reward (NaN) is assigned like the others, so groups keep their sizes.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "permuted rewards", iteration))
    n_prompts, n_images = rewards.shape[1:]
    order = torch.stack([torch.randperm(n_images, generator=generator) for _ in range(n_prompts)]).to(rewards.device)
    return rewards.gather(2, order.expand_as(rewards))
