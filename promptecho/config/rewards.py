"""Sections about rewards: the VLM that gives them, what each one asks, and where the VLM sits while training."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator
from pydantic.fields import FieldInfo

from promptecho.config.choices import name_of
from promptecho.config.chosen import ChosenSection, options_fields
from promptecho.config.descriptors import REWARDS, Reward, available_rewards, reward_named
from promptecho.config.fields import Count, Flag, Name, Real, Section, Text
from promptecho.shipped import CLIPS, VLMS, WORLDS
from promptecho.suggest import maybe


class VlmSection(Section):
    """A frozen vision-language model."""

    path: Text = Field(
        description="Folder, or hub id, of an image-text-to-text model; `shapes` or `gallery`: one that ships with "
        "the project."
    )
    revision: Text | None = Field(None, description="Hub revision (commit); null: the folder as it is.")
    dtype: Literal["float32", "bfloat16"] = Field("bfloat16", description="Type of the weights.")
    trust_remote_code: Flag = Field(False, description="Run Python code that comes with the model. Off unless needed.")

    @field_validator("path")
    @classmethod
    def _no_clip(cls, path: str) -> str:
        if path in CLIPS:
            raise ValueError(f"{path} is a CLIP, no VLM; VLMs ship as {', '.join((*WORLDS, *VLMS))}")
        return path


QUERY = "what the VLM is asked; null: `captions.query`."
BATCH_SIZE = "Images (or replies, where the VLM writes some) that are taken together."


class NamedReward(ChosenSection):
    """A reward that is chosen by name, with its settings."""

    name: Annotated[Text, AfterValidator(name_of(REWARDS))] = Field("echo", description="Which reward")

    @classmethod
    def choices(cls, ours_only: bool = False) -> list[Reward]:
        return [found.thing for found in available_rewards(ours_only)]

    @property
    def reward(self) -> Reward:
        """What is said of this reward."""
        return reward_named(self.name)

    @property
    def options(self) -> Any:
        """Its settings, those that are not written at their defaults; None for a reward without any."""
        model = self.reward.options
        return (self.model_extra or {}).get(self.name) or (None if model is None else model())

    @classmethod
    def written_fields(cls, ours_only: bool = False) -> dict[str, FieldInfo]:
        return _written_fields(cls, tuple(cls.choices(ours_only)))


class RewardSection(NamedReward):
    """One reward; the advantages of several are added up with their weights (`training.advantage.scale` says whether
    they are brought to one size first)."""

    weight: Real = Field(1.0, description="Weight of its advantage in the sum.")
    vlm: Text | None = Field(
        None,
        description="Which VLM gives it: a name of `models.vlms`; null: the run's `reward_vlm`, or `models.vlm`.",
    )
    query: Text | None = Field(None, description=QUERY)
    label: Text | None = Field(
        None,
        description="what the VLM should answer. null: the prompt; else a .jsonl or .csv file with data_id and "
        "label for every training prompt, the label a text or a JSON value (relative to where you start).",
    )
    batch_size: Count = Field(16, description=BATCH_SIZE)


class GuardSection(NamedReward):
    """A reward that watches: it scores the images of each checkpoint beside the benchmarks, and tables and curves show
    it (docs/tables.md). List the reward that is trained, too: then they warn where it rises and another falls."""

    column: Name | None = Field(
        None, description="Name of its column and of its folder of scores; null: the reward's name."
    )
    vlm: Text | None = Field(
        None, description="Which VLM it asks, where it asks one: a name of `models.vlms`; null: `models.vlm`."
    )
    query: Text | None = Field(None, description=QUERY)
    image_sets: list[Text] | None = Field(
        None,
        min_length=1,
        description="Keys of `image_sets` whose images it scores, at the checkpoints at which a benchmark of "
        "`evaluate` scores them; null: of all that have such a benchmark.",
    )
    batch_size: Count = Field(16, description=BATCH_SIZE)

    @property
    def title(self) -> str:
        """What it is called in tables, curves and folders."""
        return self.column or self.name


@functools.cache
def _written_fields(section: type[NamedReward], rewards: tuple[Reward, ...]) -> dict[str, FieldInfo]:
    """The keys of an entry that may name any of these rewards."""
    fields = dict(section.model_fields)
    told = ", ".join(f"{one.name} ({one.summary})" for one in rewards)
    names = tuple(one.name for one in rewards)
    fields["name"] = _retold(fields["name"], f"Which reward: {told}; or one from outside (docs/extending.md).")
    fields["name"].annotation = Literal[names]  # type: ignore[assignment]  # made when it is asked for
    for key in ("query", "label"):
        if key not in fields:
            continue
        takers = " and ".join(one.name for one in rewards if key in one.takes)
        fields[key] = _retold(fields[key], f"{takers}: {fields[key].description}")
    return fields | options_fields(rewards)


def _retold(field: FieldInfo, description: str) -> FieldInfo:
    retold = copy.copy(field)
    retold.description = description
    return retold


def unequal_sizes(rewards: list[RewardSection], scale: str) -> str:
    """A warning: several rewards whose advantages keep the sizes of their rewards; "" where there is nothing to say."""
    if len(rewards) < 2 or scale != "none":
        return ""
    names = " and ".join(dict.fromkeys(entry.name for entry in rewards))
    return (
        f"{len(rewards)} rewards ({names}) with training.advantage.scale: none keep their own sizes, so that the one "
        "with the larger spread decides nearly alone whatever the weights are; set scale: global_std, or choose "
        "weights by advantage_size_* in metrics.jsonl"
    )


def writes_sharded(rewards: list[RewardSection], placement: PlacementSection, processes: int) -> str:
    """Names of the rewards that the VLM writes while its weights lie spread over processes that share it; else ""."""
    several = placement.per_node > 1 if placement.mode == "dedicated" else processes > 1
    if placement.mode == "replicated" or not (several or placement.mode == "offloaded"):
        return ""
    return " and ".join(dict.fromkeys(entry.name for entry in rewards if entry.reward.writes))


def told_of_tokens(rewards: list[RewardSection], placement: PlacementSection, processes: int) -> str:
    """A warning: the VLM is gathered for every token that it writes; else ""."""
    names = writes_sharded(rewards, placement, processes)
    if not names or placement.gather == "phase":
        return ""
    return (
        f"{names} lets the VLM write its replies token by token, and with training.reward_placement.mode "
        f"{placement.mode} and gather {placement.gather} the whole VLM is gathered for every token (`promptecho plan` "
        "says how long that takes); where it fits, gather: phase is faster"
    )


def reward_problems(rewards: Sequence[NamedReward]) -> list[tuple[str, str]]:
    """Impossible combinations: (key within the list, what is wrong and how to fix it)."""
    problems = []
    for index, entry in enumerate(rewards):
        reward, options = entry.reward, entry.options
        for other in entry.model_extra or {}:
            if other != entry.name:
                message = f"{entry.name} has no such settings; remove it, or set name: {other}"
                problems.append((f"{index}.{other}", message))
        for key, message in getattr(options, "problems", {}).items():
            problems.append((f"{index}.{entry.name}.{key}", message))
        if getattr(entry, "vlm", None) is not None and not reward.needs_vlm:
            problems.append((f"{index}.vlm", f"{entry.name} is given by no VLM; remove it"))
        for key in ("query", "label"):
            if getattr(entry, key, None) is not None and key not in reward.takes:
                instead = f": its question is {entry.name}.template" if hasattr(options, "template") else "; remove it"
                problems.append((f"{index}.{key}", f"{entry.name} has none{instead}"))
        if reward.writes and options.temperature == 0 and options.samples > 1:
            problems.append(
                (f"{index}.{entry.name}.samples", f"{options.samples} greedy replies are one and the same; set 1, "
                 "or a temperature above 0")
            )  # fmt: skip
    return problems


def placement_problem(rewards: list[RewardSection], mode: str) -> str | None:
    """Why rewards cannot be computed in this placement; None where they can."""
    if mode not in ("offloaded", "dedicated") or any(entry.reward.needs_vlm for entry in rewards):
        return None
    names = " and ".join(dict.fromkeys(entry.name for entry in rewards))
    return f"{mode} says where the reward's VLM sits, and {names} needs none; set colocated"


def guard_problems(guards: Sequence[GuardSection], image_sets: dict[str, Any] | None) -> list[tuple[str, str]]:
    """As `reward_problems`, of a list of guards."""
    problems, titles = reward_problems(guards), set()
    for index, guard in enumerate(guards):
        if guard.title in titles:
            problems.append((f"{index}.column", f"{guard.title} is another guard's already; choose another name"))
        titles.add(guard.title)
        for place, name in enumerate(guard.image_sets or ()):
            if image_sets is not None and name not in image_sets:
                known = ", ".join(image_sets) or "none"
                told = f"{name}: no such image set (known: {known}){maybe(name, image_sets)}"
                problems.append((f"{index}.image_sets.{place}", told))
    return problems


class PlacementSection(Section):
    """Where the reward's VLM sits while training. All modes give the same rewards to float tolerance."""

    mode: Literal["colocated", "offloaded", "dedicated", "replicated"] = Field(
        "colocated",
        description="colocated: sharded over the GPUs of each node, always on them; offloaded: sharded likewise, but "
        "in pinned host memory, from which each layer comes when it is needed; dedicated: `per_node` GPUs of each node "
        "do nothing but rewards, while the others sample on; replicated: whole on every GPU.",
    )
    per_node: Count = Field(1, description="GPUs of each node that serve rewards; for mode dedicated.")
    gather: Literal["auto", "layer", "phase"] = Field(
        "auto",
        description="Where GPUs share the VLM: layer: each layer is gathered for every pass, and dropped behind it; "
        "phase: the whole VLM is gathered when rewards begin, and dropped when they end (mode dedicated: for each "
        "batch of images that is sent). auto: layer; for rewards that the VLM writes (inferscore), whose every token "
        "is a pass, phase where that fits, or else refused.",
    )
