"""InferScore: the frozen vision-language model writes how well an image fits its prompt, and the number is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isnan, nan
from typing import Annotated

from PIL import Image
from pydantic import BaseModel, Field

from promptecho.json_reply import parse_json
from promptecho.rewards.base import Details, ImageScore, RewardContext, image_name
from promptecho.rewards.inferscore.options import QUESTION, InferScoreSection
from promptecho.seeds import derive_seed
from promptecho.templates import Template, read_template
from promptecho.vlm.generation import complete
from promptecho.vlm.inputs import batch_inputs, check_plain, render_prompt
from promptecho.vlm.model import Vlm

HIGHEST = 10.0
SHOWN = 80  # characters of a reply in a message


class ScoreReply(BaseModel):
    """What a reply must hold; further keys, such as the reasoning, are not looked at."""

    score: Annotated[float, Field(strict=True, ge=0, le=HIGHEST, allow_inf_nan=False)]


@dataclass(frozen=True)
class ScoredReply:
    """One reply: its score from 0 to 10, or None and why there is none."""

    text: str
    score: float | None = None
    problem: str = ""


def read_reply(text: str) -> ScoredReply:
    """Read a reply: one JSON object, alone or in a ``` fence, with a number `score` from 0 to 10.

    Anything else, such as a number as text or an object within prose, has no score: guessing what a model meant would
    put noise where a failure can be counted.
    """
    try:
        return ScoredReply(text, parse_json(text, ScoreReply).score)
    except ValueError as error:
        return ScoredReply(text, problem=str(error))


def mean_score(replies: Sequence[ScoredReply]) -> float:
    """Mean of the readable scores, divided by 10: from 0 to 1; NaN where none is readable."""
    scores = [reply.score for reply in replies if reply.score is not None]
    return sum(scores) / len(scores) / HIGHEST if scores else nan


class InferScoreReward:
    """The mean of `settings.samples` scores that the VLM writes for an image, divided by 10.

    Source: the comparison in PromptEcho (arXiv 2604.12652), section 4.3.1, which leaves question, temperature and
    number of samples open; they are ours. Sampled replies are functions of (seed, prompt id, image name, number of
    the reply) and the image, up to float tolerance, whatever the batch.

    Args:
        template: the question; by default the one that `settings` names.
        batch_size: replies written together.

    Raises:
        DataError: the template is unreadable, lacks {prompt} or has another placeholder.
    """

    may_be_missing = True

    def __init__(
        self, vlm: Vlm, settings: InferScoreSection | None = None, *, template: Template | None = None,
        batch_size: int = 16, seed: int = 0,
    ):  # fmt: skip
        self.vlm, self.settings = vlm, settings or InferScoreSection()
        self.template = template or read_template(self.settings.template or QUESTION)
        self.template.fill(prompt="")
        self.batch_size, self.seed = batch_size, seed
        self.counts: Counter[str] = Counter()  # images, replies and failed so far

    def __call__(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[float]:
        """Rewards of `images[N]` for `prompts[N]`, from 0 to 1; NaN for an image without a readable reply.

        Raises:
            DataError: a prompt holds control tokens, or does not fit into the context; names the prompt id.
        """
        return [score.reward for score in self.score(images, prompts, prompt_ids)]

    def score(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[ImageScore]:
        """As `__call__`, with failed replies."""
        found = []
        all_replies = self.replies(images, prompts, prompt_ids)
        for index, (image, prompt_id, replies) in enumerate(zip(images, prompt_ids, all_replies, strict=True)):
            failures = tuple(
                f"prompt {prompt_id}, {image_name(image, index)}: the reply {reply.text[:SHOWN]!r} ({reply.problem})"
                for reply in replies if reply.score is None
            )  # fmt: skip
            found.append(ImageScore(mean_score(replies), len(replies), failures))
        return found

    def details(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> Details:
        """As `__call__`, with every reply."""
        rewards, facts, rows = [], [], []
        for replies in self.replies(images, prompts, prompt_ids):
            score = mean_score(replies)
            rewards.append(None if isnan(score) else score)
            facts.append({"replies": [asdict(reply) for reply in replies]})
            rows.append([_row(reply) for reply in replies])
        caption = "the reward is the mean of readable scores, divided by 10"
        return Details(rewards, facts, caption, ("score", "reply"), rows)

    def replies(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[list[ScoredReply]]:
        """`settings.samples` replies for each of `images[N]`."""
        questions = [self._question(prompt, prompt_id) for prompt, prompt_id in zip(prompts, prompt_ids, strict=True)]
        rows = [(image, sample) for image in range(len(images)) for sample in range(self.settings.samples)]
        found: list[list[ScoredReply]] = [[] for _ in images]
        for start in range(0, len(rows), self.batch_size):
            batch = rows[start : start + self.batch_size]
            inputs = batch_inputs(
                self.vlm, [images[i] for i, _ in batch], [questions[i] for i, _ in batch], padding_side="left"
            )
            seeds = [
                derive_seed(self.seed, "inferscore", prompt_ids[i], image_name(images[i], i), sample)
                for i, sample in batch
            ]
            answers = complete(
                self.vlm, inputs, [f"prompt {prompt_ids[i]}" for i, _ in batch], seeds,
                max_new_tokens=self.settings.max_new_tokens, temperature=self.settings.temperature,
            )  # fmt: skip
            for (i, _), answer in zip(batch, answers, strict=True):
                reply = read_reply(answer.text)
                if reply.score is None and answer.finish_reason == "length":
                    problem = f"cut off after max_new_tokens {self.settings.max_new_tokens}"
                    reply = ScoredReply(reply.text, problem=problem)
                found[i].append(reply)
        written = [reply for replies in found for reply in replies]
        self.counts.update(
            images=len(images), replies=len(written), failed=sum(reply.score is None for reply in written)
        )
        return found

    def _question(self, prompt: str, prompt_id: str) -> str:
        check_plain(self.vlm, prompt, f"prompt {prompt_id}:")
        return render_prompt(self.vlm, self.template.fill(prompt=prompt))


def _row(reply: ScoredReply) -> tuple[str, str]:
    score = "none" if reply.score is None else f"{reply.score:g}"
    return score, f"{reply.text} ({reply.problem})" if reply.problem else reply.text


def build(context: RewardContext) -> InferScoreReward:
    """As a descriptor's `build`."""
    assert context.vlm is not None, "its descriptor says that it needs one"
    return InferScoreReward(
        context.vlm, context.options, template=context.template, batch_size=context.batch_size, seed=context.seed
    )
