"""Build rewards by name, and treat them all alike once they are built."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from promptecho.config.descriptors import REWARDS
from promptecho.errors import ConfigError, PromptEchoError, RewardError
from promptecho.plugins import MISTAKES, import_object
from promptecho.rewards.base import Details, ImageScore, RewardContext

if TYPE_CHECKING:
    from PIL import Image


class BuiltReward:
    """A reward that was built, with all that a `RewardFunction` may leave out."""

    def __init__(self, name: str, function: Any):
        self.name, self.function = name, function
        self.may_be_missing = bool(getattr(function, "may_be_missing", False))

    def __call__(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[float]:
        """Rewards of `images[N]` for `prompts[N]`."""
        return [score.reward for score in self.score(images, prompts, prompt_ids)]

    def score(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[ImageScore]:
        """As the call, with what became of replies.

        Raises:
            RewardError: the reward's code fails, or does not give one number for each image, or an ImageScore whose
                measures are numbers (NaN where it has none for an image).
        """
        own = getattr(self.function, "score", None)
        found = self._run(own or self.function, images, prompts, prompt_ids)
        if own is None:
            return [ImageScore(value) for value in self._numbers(found, len(images))]
        self._check_scores(found, len(images))
        return found

    def details(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> Details:
        """What `promptecho reward` prints."""
        own = getattr(self.function, "details", None)
        if own is not None:
            return self._run(own, images, prompts, prompt_ids)
        rewards = self(images, prompts, prompt_ids)
        return Details([None if math.isnan(value) else value for value in rewards], [{} for _ in images])

    def _run(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except PromptEchoError:
            raise
        except MISTAKES as error:
            if REWARDS.find(self.name).is_ours:
                raise
            raise RewardError(f"{_who(self.name)}: its code fails: {type(error).__name__}: {error}; {DEBUG}") from error

    def _numbers(self, found: Any, n: int) -> list[float]:
        values = found.tolist() if hasattr(found, "tolist") else found
        if not isinstance(values, Sequence) or len(values) != n:
            what = f"{len(values)} values" if isinstance(values, Sequence) else f"a {type(values).__name__}"
            raise RewardError(f"{_who(self.name)}: gave {what} for {n} images; it must give a list of {n} numbers")
        try:
            return [float(value) for value in values]
        except (TypeError, ValueError) as error:
            raise RewardError(f"{_who(self.name)}: gave something that is no number ({error})") from None

    def _check_scores(self, found: Any, n: int) -> None:
        must = f"`score` must give a list of {n} ImageScore"
        if not isinstance(found, Sequence) or len(found) != n:
            what = f"{len(found)} scores" if isinstance(found, Sequence) else f"a {type(found).__name__}"
            raise RewardError(f"{_who(self.name)}: gave {what} for {n} images; {must}")
        for score in found:
            if not isinstance(score, ImageScore):
                raise RewardError(f"{_who(self.name)}: gave a {type(score).__name__}; {must}")
            if not isinstance(score.measures, Mapping):
                raise RewardError(f"{_who(self.name)}: measures {score.measures!r}: must be numbers by name")
            for key, value in {"reward": score.reward, **score.measures}.items():
                number = _number(value)
                if number is None or (key != "reward" and math.isinf(number)):
                    raise RewardError(f"{_who(self.name)}: {key} is {value!r}; must be a number, NaN for none")


DEBUG = "--debug shows where"


def make_reward(name: str, context: RewardContext) -> BuiltReward:
    """Build the reward `name`. Its settings have their defaults where `context.options` is None, and its template is
    the one that these name where `context.template` is None.

    Raises:
        ConfigError: unknown name (lists the known ones), or what builds it cannot be imported.
        RewardError: building it fails.
    """
    from dataclasses import replace

    from promptecho.templates import read_template

    reward = REWARDS.find(name).thing
    if context.options is None and reward.options is not None:
        context = replace(context, options=reward.options())
    if context.template is None and (place := reward.template_file(context.options)) is not None:
        context = replace(context, template=read_template(place))
    if reward.needs_vlm and context.vlm is None:
        raise ConfigError(f"{_who(name)}: needs a VLM")
    build = import_object(reward.build, _who(name))
    try:
        return BuiltReward(name, build(context))
    except MISTAKES as error:
        if REWARDS.find(name).is_ours:
            raise
        message = f"{type(error).__name__}: {error}"
        raise RewardError(f"{_who(name)}: {reward.build} cannot be built: {message}; {DEBUG}") from error


def _number(value: Any) -> float | None:
    """As a float, of Python, NumPy or torch; None for what is no number."""
    try:
        return None if isinstance(value, str) else float(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def _who(name: str) -> str:
    return f"reward {name} ({REWARDS.find(name)})"
