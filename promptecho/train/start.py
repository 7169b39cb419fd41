"""Where a segment starts: the newest state that fits this run, or a fresh one, put into the engine."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch.distributed as dist

from promptecho.compute import mode
from promptecho.config import TrainingConfig, run_rewards, slice_digest
from promptecho.config.reruns import INITIAL, SLICE
from promptecho.errors import DataError, PromptEchoError, StateError
from promptecho.files import sha256_file
from promptecho.t2i.lora_files import PEFT_FILE
from promptecho.train import checkpoint
from promptecho.train.engine import MOMENTS, zero_moments
from promptecho.train.prompt_sizes import SIZES, SIZES_FILE
from promptecho.train.prompts import CAPTIONS
from promptecho.train.ranks import agree
from promptecho.train.state import HELDOUT, TrainingState
from promptecho.train.trainer import Segment, Trainer


def digests_of(segment: Segment, training: TrainingConfig) -> dict[str, str]:
    """What a state belongs to."""
    files = {CAPTIONS: segment.captions}
    if training.heldout.patience is not None and segment.heldout is not None:
        files[HELDOUT] = segment.heldout
    if training.size_by == "image":
        files[SIZES] = segment.captions.with_name(SIZES_FILE)
    if segment.init_adapter is not None:
        files[INITIAL] = segment.init_adapter / PEFT_FILE
    for index, entry in enumerate(run_rewards(segment.config, segment.run)):
        if entry.label is not None:
            files[f"label file of rewards.{index}"] = Path(entry.label)
    slices = {SLICE: slice_digest(segment.config, "train", run=segment.run)}
    return slices | {name: sha256_file(path) for name, path in files.items()}


def check_layers(state: TrainingState, trained: Collection[str], folder: Path) -> None:
    """Nothing, if the state has the weights that are trained, by name.

    Raises:
        StateError: it has others, since another version of the code chose the layers.
    """
    odd = sorted(state.tensors["weights"].keys() ^ set(trained))
    if odd:
        has = "this run does not train" if odd[0] in state.tensors["weights"] else "it does not have"
        raise StateError(
            f"{folder}: its state is of other layers than this run has, such as {odd[0]}, which {has}; it was written "
            "by another version of the project: go on with that one, or train under another name of the run"
        )


def start(trainer: Trainer) -> tuple[TrainingState, list[dict]]:
    """The state to go on from, put into the engine, and this segment's metrics so far."""
    segment, engine = trainer.segment, trainer.engine
    digests = digests_of(segment, trainer.training)
    state: TrainingState | None = None
    rows: list[dict] = []
    error: PromptEchoError | None = None
    try:
        state, rows = checkpoint.find_start(
            segment.work, segment.resume, digests, segment.to, announce=dist.get_rank() == 0, use=trainer.use,
            accept=segment.accept_captions or trainer.training.accept_captions,
        )  # fmt: skip
    except PromptEchoError as caught:
        error = caught
    agree(error)
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, None if state is None else state.iteration)
    if len(set(found)) > 1:
        raise DataError(
            f"{segment.work}: the processes find states of different iterations ({', '.join(map(str, found))}); "
            "put results on a file system that all nodes share"
        )
    if state is None:
        weights = engine.weights()
        if trainer.initial is not None:
            weights = {name: trainer.initial[name].to(engine.device) for name in weights}
            trainer.say(f"begins with the adapter {segment.init_adapter}")
        tensors = {"weights": weights, **zero_moments(weights), "kl_ema": weights, "ema": weights}
        state = TrainingState(0, 0, tensors, digests, prompts=trainer.use.record(0))
    elif state.prompts["since"] == state.iteration > 0:
        trainer.first_row["captions_changed"] = 1
        trainer.say(
            f"from iteration {state.iteration + 1} on with other captions than before, as asked; state and metrics "
            "tell it"
        )
    if state.iteration and (changed := mode.changes(state.facts.get("compute"))):
        trainer.first_row["compute_changed"] = 1
        trainer.say(
            f"from iteration {state.iteration + 1} on computed in another way than before ({'; '.join(changed)}): the "
            "bits are others than with the former one; state and metrics tell it"
        )
    check_layers(state, engine.parameters, segment.resume or segment.work)
    moments = {kind: state.tensors[kind] for kind in MOMENTS}
    engine.set_state(state.tensors["weights"], moments, state.optimizer_steps)
    for kind in state.tensors.keys() - moments.keys():  # moments are in the engine; these are needed in each iteration
        state.tensors[kind] = {name: value.to(engine.device) for name, value in state.tensors[kind].items()}
    return state, rows
