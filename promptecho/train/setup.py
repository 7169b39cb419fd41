"""What a segment loads before its first iteration: prompts, labels, models."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from promptecho.config import ExperimentConfig, run_rewards
from promptecho.config.compute import ComputeSection
from promptecho.config.descriptors import REWARDS
from promptecho.config.families import family_named
from promptecho.config.training import TrainingConfig
from promptecho.errors import DataError, counted
from promptecho.phases import Phase
from promptecho.source_images import SourceImage
from promptecho.t2i.base import T2iModel
from promptecho.t2i.checkpointing import use_checkpointing
from promptecho.t2i.initial import initial_weights
from promptecho.t2i.prompt_cache import PromptCache
from promptecho.t2i.trained import make_trainable
from promptecho.train.data import TrainingPrompt
from promptecho.train.deal import accumulation
from promptecho.train.engine import Engine
from promptecho.train.labels import load_labels as load_labels
from promptecho.train.launch import Launch
from promptecho.train.phases import Phases
from promptecho.train.placement.base import Rewarder
from promptecho.train.placement.layout import RankLayout
from promptecho.train.prompt_sizes import sizes_by_image
from promptecho.train.reward_list import list_rewards, with_models
from promptecho.train.scoring import WeightedReward
from promptecho.train.sizes import TrainingSizes
from promptecho.train.trainer import Segment, Trainer


def prepare(segment: Segment, training: TrainingConfig, layout: RankLayout, launch: Launch, phase: Phases) -> Trainer:
    """Everything that is loaded before the first iteration. Collective."""
    device = phase.device
    prompts, watched = all_prompts(segment, training, check=layout.index == 0)
    sources = load_sources(segment, prompts, watched)
    by_image = sizes_by_image(training, segment.config.models.t2i, segment.captions, chain(prompts, watched))
    rewards = list_rewards(segment.config, segment.run, prompts, watched)
    check_texts(segment, prompts, watched, rewards, quiet=layout.index != 0)
    with phase(Phase.LOAD_T2I):
        family = load_policy(segment.config, training, device)
        initial = None
        if segment.init_adapter is not None:
            initial = initial_weights(segment.init_adapter, family.transformer, training.lora, family.lora_targets)
        turn = layout.index, layout.trainers
        encoder = PromptCache.of(segment.config, family, turn)
    assert training.activation_checkpointing != "auto", "the command has chosen before it starts a segment"
    use_checkpointing(family, training.activation_checkpointing)
    with phase(Phase.LOAD_VLM):
        rewarder = make_rewarder(segment, layout, launch, rewards, phase)
    with phase(Phase.OPTIMIZER):
        family.transformer = make_trainable(family.transformer, training, family.lora_targets)
        engine = Engine(family.transformer, training, device, accumulation=accumulation(training, layout.trainers))
        base = engine.weights() if training.finetuning == "full" and training.kl_base.weight > 0 else None
    phase.stop.watch_passes(family.transformer)
    t2i, times = segment.config.models.t2i, phase.meter.load_metrics()
    trainer = Trainer(
        segment, training, family, encoder, engine, rewards, rewarder, prompts, watched,
        TrainingSizes.of(family, training, t2i, by_image), phase, gpus=launch.world_size, initial=initial, base=base,
        sources=sources, first_row=times,
    )  # fmt: skip
    told = ", ".join(f"{key.removeprefix('seconds_load_')} {value:.1f} s" for key, value in times.items())
    trainer.say(f"models loaded: {told}")
    return trainer


def all_prompts(
    segment: Segment, training: TrainingConfig, *, check: bool = True
) -> tuple[Sequence[TrainingPrompt], list[TrainingPrompt]]:
    """What is trained on, and the held-out captions that are watched; `check` as in `load_prompts`."""
    return load_prompts(segment.captions, check=check), load_heldout(segment.heldout, training.heldout.prompts)


def load_prompts(captions: Path, *, check: bool = True) -> Sequence[TrainingPrompt]:
    """The training prompts of captions.h5, which stay in the file until they are used; with `check` they are compared
    with their checksum first, which the first rank does for all."""
    from promptecho.captions.store import load_training_captions

    return load_training_captions(captions, check=check)


def load_heldout(path: Path | None, n: int) -> list[TrainingPrompt]:
    """The last `n` held-out captions of heldout.jsonl; benchmarks take the first ones, so that what a run may stop on
    is not what it is judged on.

    Raises:
        DataError: no file given although `n` is above 0, faulty, or fewer captions in it.
    """
    from promptecho.captions.prompts import read_prompts

    if not n:
        return []
    if path is None:
        raise DataError("training.heldout.prompts is set, so --heldout must name the held-out captions (heldout.jsonl)")
    rows = read_prompts(path)
    if len(rows) < n:
        there = counted(len(rows), "held-out caption")
        raise DataError(f"{path}: {there}, but training.heldout.prompts is {n}; lower it")
    return [TrainingPrompt(row.image_id, row.caption) for row in rows[-n:]]


def load_sources(
    segment: Segment, prompts: Sequence[TrainingPrompt], watched: Sequence[TrainingPrompt]
) -> dict[str, SourceImage]:
    """The source images of all these prompts, by their ids; {} for a family that takes none.

    Raises:
        DataError: one has none, or has one that the family does not take; or an image is missing. All are named.
    """
    from promptecho.captions.sources import check_sources, kept_sources, read_sources

    family = family_named(segment.config.models.t2i.family)
    found = kept_sources(segment.captions)
    check_sources(family, (one.prompt_id for one in prompts), found, segment.captions)
    if watched and segment.heldout is not None:
        held = read_sources(segment.heldout, family)
        check_sources(family, (one.prompt_id for one in watched), held, segment.heldout)
        found |= held
    return found


def load_family(config: ExperimentConfig, device: torch.device, **options: Any) -> T2iModel:
    from promptecho.t2i.registry import load_configured

    return load_configured(config, device, **options)


def load_policy(config: ExperimentConfig, training: TrainingConfig, device: torch.device) -> T2iModel:
    """The family, placed for training: what is on the GPU only now and then begins on the CPU."""
    family = load_family(
        config, device,
        transformer_device="cpu" if training.zero_stage == 3 else None,  # ZeRO-3 takes it from there piece by piece
        text_encoder_device="cpu" if config.models_prompt_cache else None,
    )  # fmt: skip
    family.one_pass = training.zero_stage == 3  # passes are those of all ranks, which must have equally many
    return family


def check_texts(
    segment: Segment, prompts: Sequence[TrainingPrompt], watched: Sequence[TrainingPrompt],
    rewards: Sequence[WeightedReward], *, quiet: bool = False,
) -> None:  # fmt: skip
    """Look at all texts that the run will need, with tokenizers alone; `quiet`: another rank shows the progress.

    Raises:
        DataError: the text-to-image model or a reward's VLM could not take some of them; names all at once.
        ModelError: a tokenizer or processor cannot be loaded.
    """
    from promptecho.captions.checks import problems_of, run_readers
    from promptecho.captions.readers import t2i_reader

    by_reward = run_readers(segment.config, segment.run)
    asked = zip(rewards, by_reward, run_rewards(segment.config, segment.run), strict=True)
    readers, labelled = [t2i_reader(segment.config.models.t2i)], []
    for number, (entry, found, section) in enumerate(asked):
        if fixed := list(getattr(section.options, "fixed_texts", {}).items()):
            labelled.append((found, fixed, f"rewards.{number}.{section.name}", "texts"))
        if entry.labels is None:
            readers += found
        else:
            labels = [(one.prompt_id, entry.labels[one.prompt_id]) for one in [*prompts, *watched]]
            labelled.append((found, labels, str(section.label), "labels"))
    texts = [
        (readers, group, str(file), "prompts")
        for group, file in ((prompts, segment.captions), (watched, segment.heldout))
    ]
    if problems := [problem for one in [*texts, *labelled] if (problem := problems_of(*one, quiet=quiet))]:
        raise DataError("\n".join(problems))


def make_rewarder(
    segment: Segment, layout: RankLayout, launch: Launch, rewards: list[WeightedReward], phase: Phases
) -> Rewarder:
    """Where this trainer gets its rewards, as `training.reward_placement` says. Collective."""
    if layout.servers_per_node:
        from promptecho.train.placement.client import RemoteRewarder
        from promptecho.train.placement.server import store_key

        address, key = launch.store.get(store_key(layout.node)).decode().split()
        first = (layout.node + 1) * layout.per_node - layout.servers_per_node
        server = f"the reward server, rank {first} of {layout.world_size} ({socket.gethostname()}),"
        return RemoteRewarder(address, bytes.fromhex(key), server=server, rewards=rewards, stop=phase.stop)
    from promptecho.train.placement.local import LocalRewarder, load_reward_vlms
    from promptecho.train.placement.overlapped import OverlappedRewarder

    vlms = load_reward_vlms(segment.config, segment.run, phase.device, layout, phase.moved)
    built = with_models(rewards, vlms, phase.device)
    if overlaps(segment.config.compute, built, phase.device):
        return OverlappedRewarder(built, phase.stop, phase.device)
    return LocalRewarder(built, phase.stop)


def overlaps(compute: ComputeSection, rewards: list[WeightedReward], device: torch.device) -> bool:
    """Whether images are scored while others are sampled, as `compute.overlap` says."""
    sharded = any(entry.vlm is not None and entry.vlm.placed is not None for entry in rewards)
    if compute.overlap == "off" or sharded:  # of a sharded VLM all ranks pass together
        return False
    ours = all(REWARDS.find(entry.name).is_ours for entry in rewards)
    return compute.overlap == "on" or (device.type == "cuda" and ours and not compute.deterministic)
