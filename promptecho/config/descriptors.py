"""What is said of each thing that can be chosen by name in an experiment file: all else follows from that.

Descriptors are found by promptecho/plugins.py. They are imported without torch: heavy parts are named by
`module:object` strings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator

from promptecho.config.fields import Count, NonNegative, Section, Share, Text
from promptecho.plugins import SPEC, Plugins, Registration, wrong_types
from promptecho.shipped import is_shipped

# Keys of an entry of `rewards` or `guards` that all rewards have; a reward's own settings stand under its name.
SHARED = ("name", "weight", "vlm", "query", "label", "batch_size", "column", "image_sets")
NAME = re.compile(r"[a-z][a-z0-9_-]*")
TAKES = {"query", "label", "include_eos"}
# What metrics.jsonl has of each reward, whatever it measures.
METRICS = {"reward", "heldout_reward", "failed_replies", "failed_share", "missing_rewards", "advantage_size"}


class ReplyOptions(Section):
    """Settings of a reward that is read from replies which the VLM writes. Subclasses may add their own."""

    temperature: NonNegative = Field(
        0.7, description="0: greedy; above: sampled, with a seed per image, prompt and sample."
    )
    samples: Count = Field(1, description="Replies per image; their mean is the reward.")
    max_new_tokens: Count = Field(256, description="Longest reply in tokens of the VLM.")
    template: Text | None = Field(
        None,
        description="Text file with the question, {prompt} standing for the prompt; null: the one that ships with "
        "the project. The reply must be JSON with a number `score` from 0 to 10.",
    )
    max_failure_share: Share = Field(
        0.05,
        description="Training stops above this share of unreadable replies in an iteration. An image without any "
        "readable reply takes no part in its group's mean and has advantage 0. Raising it does not restart a run.",
    )


@dataclass(frozen=True)
class OwnModel:
    """A model of a reward, by folder or hub id.

    `kind` is what of it is loaded: what transformers loads; or exactly `files`, of a model or of a tokenizer.
    """

    source: str
    revision: str | None
    kind: Literal["transformers", "files", "tokenizer"] = "transformers"
    files: tuple[str, ...] = ()


class ModelOptions(Section):
    """Settings of a reward that has a model of its own, which transformers loads. Subclasses give `path` a default.

    `promptecho models`, the preflight and the digest of a training know such a model by these keys. Of the models that
    ship with the project it takes those of `shipped`, by name; None: any.
    """

    shipped: ClassVar[tuple[str, ...] | None] = None

    path: Text = Field(description="Folder or hub id of the model.")
    revision: Text | None = Field(None, description="Hub revision (commit); null: the folder as it is.")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Type of the weights.")

    @property
    def models(self) -> dict[str, OwnModel]:
        """By key, what it loads: `path`, and `tokenizer` where that is a model of its own."""
        return {"path": OwnModel(self.path, self.revision)}

    @property
    def files(self) -> dict[str, str]:
        """By key, further files that it reads; what they hold counts, not where they lie."""
        return {}

    @model_validator(mode="after")
    def _check_shipped(self) -> Self:
        for key, model in self.models.items():
            if self.shipped is not None and is_shipped(model.source) and model.source not in self.shipped:
                fix = "give " + "".join(f"{name}, " for name in self.shipped) + "a folder or a hub id"
                raise ValueError(f"{key}: {model.source} ships with the project, but is no model for this; {fix}")
        return self


@dataclass(frozen=True, kw_only=True)
class Reward:
    """One reward.

    Args:
        name: by which an experiment's `rewards` choose it; lower-case letters, digits, `_` and `-`.
        summary: what it is, in a few words.
        build: `module:object`, called with one `promptecho.rewards.RewardContext`; returns a function of
            (images, prompts, prompt_ids) that gives a number for each image (promptecho/rewards/base.py).
        version: raise it when a change of the code makes other rewards: trainings with it are then made again.
        options: pydantic model of its settings, a subclass of `Section`, all keys with defaults; they are below its
            name beside `weight`. One of `ReplyOptions` says that the VLM writes replies, one of `ModelOptions` that
            the reward has a model of its own.
        needs_vlm: whether it is built with the experiment's VLM; where no reward is, none is loaded.
        takes: which of the shared settings it uses: `query`, `label` (keys of an entry of `rewards`) and `include_eos`
            (of `promptecho reward`). The others are refused.
        template: the text file with its question, in which {prompt} stands for the prompt; `options.template`, where
            there is one, names another.
        not_in_digest: keys of `options` that change no reward, so that changing them makes no training again.
        unit: what its numbers are, for figures.
        seconds_per_image: for `promptecho plan`: what it takes on a GPU beside the VLM's passes, which are counted.
        null_elsewhere: its options stand as null in the digests of other rewards; true for those that are as old as
            these digests.
        measures: what it tells of each image beside the number, by names as in `ImageScore.measures`; the means over an
            iteration's images are logged.
        reads_videos: the images that it gets may be `Video`s (promptecho/video.py).
        probe: `module:object` of a reward that asks a server: called by `promptecho doctor` with the options and
            seconds, it returns who answers, or raises RewardError.
    """

    name: str
    summary: str
    build: str
    version: int = 1
    options: type[Section] | None = None
    needs_vlm: bool = True
    takes: frozenset[str] = frozenset()
    template: Path | None = None
    not_in_digest: frozenset[str] = frozenset()
    unit: str = ""
    seconds_per_image: float = 0.0
    null_elsewhere: bool = False
    measures: tuple[str, ...] = ()
    reads_videos: bool = False
    probe: str = ""

    def __post_init__(self) -> None:
        if problems := wrong_types(self):
            raise ValueError(f"Reward: {'; '.join(problems)}")
        if not NAME.fullmatch(self.name) or self.name in SHARED:
            problems.append(f"name {self.name!r}: take lower-case letters, digits, _ and -, and none of {SHARED}")
        if not SPEC.fullmatch(self.build):
            problems.append(f"build {self.build!r}: expected MODULE:OBJECT")
        if self.probe and not SPEC.fullmatch(self.probe):
            problems.append(f"probe {self.probe!r}: expected MODULE:OBJECT")
        if type(self.version) is not int or self.version < 1:
            problems.append(f"version {self.version!r}: count from 1")
        if unknown := set(self.takes) - TAKES:
            problems.append(f"takes {', '.join(sorted(unknown))}: choose of {', '.join(sorted(TAKES))}")
        if wrong := [one for one in self.measures if not (isinstance(one, str) and NAME.fullmatch(one))]:
            problems.append(f"measures {wrong}: take lower-case letters, digits, _ and -")
        elif taken := sorted(METRICS.intersection(self.measures)):
            problems.append(f"measures {taken}: metrics of that name exist already; choose another")
        if self.template is not None and not self.template.is_file():
            problems.append(f"template {self.template}: no such file")
        if self.options is not None:
            if not (isinstance(self.options, type) and issubclass(self.options, Section)):
                problems.append("options: must be a subclass of promptecho.rewards.Section")
            else:
                try:
                    self.options()
                except ValidationError as error:
                    keys = ", ".join(".".join(map(str, item["loc"])) for item in error.errors())
                    problems.append(f"options: {keys}: must have a default that is valid")
        if problems:
            raise ValueError(f"Reward: {'; '.join(problems)}")

    @property
    def parts(self) -> dict[str, str]:
        """Its `module:object` strings by key."""
        return {"build": self.build, **({"probe": self.probe} if self.probe else {})}

    @property
    def writes(self) -> bool:
        """Whether the VLM writes replies for it."""
        return self.options is not None and issubclass(self.options, ReplyOptions)

    @property
    def needs(self) -> str:
        """What it needs, in words."""
        if not self.needs_vlm:
            return "no VLM"
        return "a VLM that writes" if self.writes else "a VLM"

    def template_file(self, options: Any) -> Path | None:
        """The file of its question with these options; None where it has no such file."""
        own = getattr(options, "template", None)
        return Path(own) if own is not None else self.template


def given_settings(options: Any) -> dict[str, Any]:
    """The settings of a reward that are not at their defaults, as JSON has them; {} for a reward without any."""
    if options is None:
        return {}
    default = type(options)().model_dump(mode="json")
    return {key: value for key, value in options.model_dump(mode="json").items() if value != default[key]}


REWARDS: Plugins[Reward] = Plugins(
    "rewards",
    Reward,
    {
        "echo": "promptecho.rewards.echo:REWARD",
        "inferscore": "promptecho.rewards.inferscore:REWARD",
        "expected_score": "promptecho.rewards.expected_score:REWARD",
        "contrastive_echo": "promptecho.rewards.contrastive_echo:REWARD",
        "weighted_echo": "promptecho.rewards.weighted_echo:REWARD",
        "pickscore": "promptecho.rewards.pickscore:REWARD",
        "clipscore": "promptecho.rewards.clipscore:REWARD",
        "aesthetic": "promptecho.rewards.aesthetic:REWARD",
        "imagereward": "promptecho.rewards.imagereward:REWARD",
        "http": "promptecho.rewards.http:REWARD",
        "served_echo": "promptecho.rewards.served_echo:REWARD",
    },
)


def reward_named(name: str) -> Reward:
    """The descriptor of a reward.

    Raises:
        ConfigError: there is none of that name, or it cannot be imported.
    """
    return REWARDS.find(name).thing


def available_rewards(ours_only: bool = False) -> list[Registration[Reward]]:
    """All rewards that may be written now and can be imported, ours first."""
    return REWARDS.available(ours_only)
