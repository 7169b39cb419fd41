"""Sections about rewards: the VLM that gives them, what each one asks, and where the VLM sits while training."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from promptecho.config.fields import Count, Flag, NonNegative, Real, Section, Share, Text

QUESTION = Path(__file__).parents[1] / "rewards" / "templates" / "inferscore.txt"


class VlmSection(Section):
    """A frozen vision-language model."""

    path: Text = Field(
        description="Folder, or hub id, of an image-text-to-text model; `shapes`: the model that ships with the "
        "project."
    )
    revision: Text | None = Field(None, description="Hub revision (commit); null: the folder as it is.")
    dtype: Literal["float32", "bfloat16"] = Field("bfloat16", description="Type of the weights.")
    trust_remote_code: Flag = Field(False, description="Run Python code that comes with the model. Off unless needed.")


class InferScoreSection(Section):
    """How inferscore asks for a score. The paper compares with it (section 4.3.1) and leaves its settings open."""

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

    @property
    def template_file(self) -> Path:
        return QUESTION if self.template is None else Path(self.template)


class RewardSection(Section):
    """One reward; the advantages of several are added up with their weights (`training.advantage.scale` says whether
    they are brought to one size first)."""

    name: Literal["echo", "inferscore"] = Field(
        "echo", description="Which reward: echo (PromptEcho), inferscore (the VLM writes a score)."
    )
    weight: Real = Field(1.0, description="Weight of its advantage in the sum.")
    query: Text | None = Field(None, description="echo: what the VLM is asked; null: `captions.query`.")
    label: Text | None = Field(
        None,
        description="echo: what the VLM should answer. null: the prompt; else a .jsonl or .csv file with data_id and "
        "label for every training prompt, the label a text or a JSON value (relative to where you start).",
    )
    inferscore: InferScoreSection | None = Field(
        None, description="Settings of name: inferscore; null: its defaults. Not for echo."
    )
    batch_size: Count = Field(16, description="Images (inferscore: replies) that the VLM takes together.")


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


def reward_problems(rewards: list[RewardSection]) -> list[tuple[str, str]]:
    """Impossible combinations: (key within the list, what is wrong and how to fix it)."""
    problems = []
    for index, entry in enumerate(rewards):
        if entry.name == "echo" and entry.inferscore is not None:
            problems.append((f"{index}.inferscore", "echo has no such settings; remove it, or set name: inferscore"))
        if entry.name == "inferscore":
            for key in ("query", "label"):
                if getattr(entry, key) is not None:
                    problems.append((f"{index}.{key}", "inferscore has none: its question is inferscore.template"))
            settings = entry.inferscore or InferScoreSection()
            if settings.temperature == 0 and settings.samples > 1:
                problems.append(
                    (f"{index}.inferscore.samples", f"{settings.samples} greedy replies are one and the same; set 1, "
                     "or a temperature above 0")
                )  # fmt: skip
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
