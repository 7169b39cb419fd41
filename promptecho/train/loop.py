"""The training loop: one segment of one run, from the previous checkpoint to the next. Read this file first.

    promptecho train --config results/E/config/DIGEST.yaml --run R --to N --captions captions.h5 \
        --out results/E/runs/R/N --work results/E/work/train/R/N [--resume results/E/runs/R/PREVIOUS]

An iteration (PromptEcho, arXiv 2604.12652, section 3.2; AWM, arXiv 2509.25050):

1. `rollout`: 32 prompts x 8 images by the plain ODE with guidance; the frozen VLM's log-probability of each prompt
   given its image is the reward; advantages are rewards minus their group's mean.
2. `update`: 4 passes over the 256 images in batches of 128, i.e. 8 optimizer steps of the clipped, advantage-weighted
   matching loss, with a velocity KL to a moving average of the policy as trust region.

Where we deviate or the paper is silent: timesteps and loss noise are drawn once per iteration and shared by its
passes (so reference passes run once); the moving average is updated per iteration; see docs/training.md.

State is saved between iterations. Asked to stop inside one, the loop drops the unfinished iteration and saves the
state at its start: the iteration is a pure function of that state, so resuming gives the same bits as never
having stopped.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

import promptecho
from promptecho.config import ExperimentConfig, run_training, slice_digest
from promptecho.errors import DataError, PromptEchoError, StateError
from promptecho.files import atomic_path, read_jsonl, sha256_file, write_jsonl
from promptecho.progress import Progress
from promptecho.train import rollout as ro
from promptecho.train.data import Prompt, prompts_of
from promptecho.train.engine import Engine, init_distributed, zero_moments
from promptecho.train.lora import add_lora, save_adapter
from promptecho.train.state import TrainingState, load_state, save_state
from promptecho.train.stop import StopCheck, StopRequestedError
from promptecho.train.update import precompute, update

ROLLING = "rolling"


@dataclass
class Segment:
    """What to train and where to put it."""

    config: ExperimentConfig
    run: str
    to: int
    captions: Path
    out: Path
    work: Path
    resume: Path | None = None
    stop_file: Path | None = None
    device: str = "cpu"


def train_segment(segment: Segment) -> bool:
    """Train up to `segment.to` completed iterations and write adapter, state and metrics to `segment.out`.

    Returns False when asked to stop early; the rolling state is then in `segment.work`.

    Raises:
        ConfigError, DataError, ModelError, RewardError, StateError: one line each, with the culprit.
    """
    training = run_training(segment.config, segment.run)
    if segment.to not in training.checkpoint_steps:
        steps = ", ".join(map(str, training.checkpoint_steps))
        raise DataError(f"--to {segment.to}: run {segment.run} has no such checkpoint (it has {steps})")
    device = torch.device(segment.device)
    rank, world_size = init_distributed(device)
    stop = StopCheck(segment.stop_file)
    stop.install()
    digests = {
        "training configuration": slice_digest(segment.config, "train", run=segment.run),
        "captions file": sha256_file(segment.captions),
    }
    prompts = _load_prompts(segment.captions)
    family = _load_family(segment.config, device)
    shape = family.latent_shape(segment.config.models.t2i.height, segment.config.models.t2i.width)
    grid = family.timesteps(
        training.sampling.num_inference_steps, segment.config.models.t2i.height, segment.config.models.t2i.width
    )[:-1]
    rewards = _load_rewards(segment.config, device)
    model = add_lora(family.transformer, training.lora, training.seed)
    family.transformer = model
    images = training.prompts_per_iteration * training.images_per_prompt
    engine = Engine(model, training, accumulation=_accumulation(training, world_size))

    state, rows = _starting_state(segment, digests, engine)
    engine.set_state(
        state.tensors["weights"], {key: state.tensors[key] for key in ("exp_avg", "exp_avg_sq")}, state.optimizer_steps
    )
    bar = Progress(f"train {segment.run}", segment.to, "iterations", done=state.iteration)
    say = print if rank == 0 else _silent
    say(
        f"train {segment.run}: from iteration {state.iteration} to {segment.to}, {training.prompts_per_iteration} "
        f"prompts x {training.images_per_prompt} images = {images}, {len(prompts)} captions, {world_size} process(es)",
        file=sys.stderr,
        flush=True,
    )
    last_save = time.monotonic()
    try:
        while state.iteration < segment.to:
            row = _iterate(segment, family, engine, rewards, prompts, state, training, shape, grid, stop)
            rows.append(row)
            if rank == 0:
                bar.advance(note=f"reward {row['reward_mean']:.4f}, {row['images_per_s']:.2f} images/s")
            due = time.monotonic() - last_save >= training.save_every_s
            if state.iteration < segment.to and due:
                _save_rolling(segment, state, rows)
                last_save = time.monotonic()
    except StopRequestedError:
        _save_rolling(segment, state, rows)
        say(
            f"train {segment.run}: asked to stop; state of iteration {state.iteration} saved in {segment.work}",
            file=sys.stderr,
            flush=True,
        )
        if world_size > 1:
            dist.barrier()  # a launcher ends all ranks once one has left; rank 0 may still be saving
        return False
    if rank == 0:
        _finish(segment, family, model, state, rows)
    if world_size > 1:
        dist.barrier()
    return True


def _iterate(segment, family, engine, rewards, prompts, state, training, shape, grid, stop) -> dict:
    """One iteration; on success `state` becomes the state after it."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    iteration, seconds, clock = state.iteration, {}, _Clock()
    weights = engine.weights()
    kl_ema = _averaged(state.tensors["kl_ema"], weights, training.kl_ema.decay) if iteration else weights
    sampler = kl_ema if training.sampling.policy == "ema" else weights

    chosen = prompts_of(prompts, training.seed, iteration, training.prompts_per_iteration)
    cond = family.encode_prompts([prompt.text for prompt in chosen])
    total = len(chosen) * training.images_per_prompt
    mine = ro.share_of_rank(total, rank, world_size)
    stop()
    engine.use_weights(sampler)
    latents, images = ro.sample_images(family, chosen, cond, training, iteration, shape, mine)
    engine.use_weights(weights)
    seconds["sample"] = clock.lap()
    stop()
    owners = [chosen[i // training.images_per_prompt] for i in mine]
    names = [f"image {i % training.images_per_prompt} of iteration {iteration + 1}" for i in mine]
    local, error = None, None
    try:
        local = ro.score_images(rewards, images, owners, names)
    except PromptEchoError as caught:
        error = caught
    ro.agree(error)
    scores = ro.gather_by_index(local.T.contiguous(), mine, total).T.reshape(len(rewards), len(chosen), -1)
    advantages = ro.combined_advantages(scores, [entry.weight for entry in rewards], training)
    seconds["reward"] = clock.lap()
    stop()
    rollout = ro.Rollout(
        chosen, cond, ro.gather_by_index(latents, mine, total), scores, advantages.flatten().to(latents.device)
    )
    targets = precompute(family, engine, rollout, training, iteration, kl_ema, grid)
    seconds["precompute"] = clock.lap()

    ema = state.tensors["ema"]

    def after_step() -> None:
        nonlocal ema
        if training.ema.decay is not None:
            ema = _averaged(ema, engine.weights(), training.ema.decay)

    metrics = update(family, engine, rollout, targets, training, iteration, after_step, stop)
    seconds["update"] = clock.lap()
    state.iteration = iteration + 1
    state.optimizer_steps = engine.optimizer_steps
    trained = engine.weights()
    state.tensors = {
        "weights": trained,
        **engine.moments(),
        "kl_ema": kl_ema,
        "ema": ema if training.ema.decay is not None else trained,
    }
    combined = sum(entry.weight * values for entry, values in zip(rewards, scores, strict=True))
    return {
        "iteration": state.iteration,
        "reward_mean": float(combined.mean()),
        "reward_std": float(combined.std(correction=0)),
        "reward_group_std": float(combined.std(1, correction=0).mean()),
        "zero_std_groups": float((combined.std(1, correction=0) < 1e-8).double().mean()),
        **{f"reward_{i}_{entry.reward.name}": float(scores[i].mean()) for i, entry in enumerate(rewards)},
        "advantage_abs_mean": float(advantages.abs().mean()),
        **metrics,
        "learning_rate": training.learning_rate,
        "optimizer_steps": state.optimizer_steps,
        **{f"seconds_{key}": round(value, 3) for key, value in seconds.items()},
        "seconds": round(sum(seconds.values()), 3),
        "images_per_s": round(total / sum(seconds.values()), 4),
    }


class _Clock:
    def __init__(self) -> None:
        self.last = time.monotonic()

    def lap(self) -> float:
        now = time.monotonic()
        lap, self.last = now - self.last, now
        return lap


def _silent(*_: object, **__: object) -> None:
    """Other ranks than 0 print nothing."""


def _averaged(average: dict, value: dict, decay: float) -> dict:
    return {name: decay * average[name] + (1 - decay) * value[name] for name in value}


def _accumulation(training, world_size: int) -> int:
    """Backward passes per optimizer step on each rank.

    Raises:
        DataError: the batch can't be dealt out evenly.
    """
    share, rest = divmod(training.batch_size, world_size)
    if rest or share % training.micro_batch_size:
        raise DataError(
            f"training.batch_size {training.batch_size} over {world_size} processes is not a multiple of "
            f"micro_batch_size {training.micro_batch_size}; change one of the three"
        )
    passes = training.timesteps.per_sample if training.per_timestep else 1
    return share // training.micro_batch_size * passes


def _load_prompts(path: Path) -> list[Prompt]:
    from promptecho.captions.store import load_training_captions

    return [Prompt(caption.prompt_id, caption.text) for caption in load_training_captions(path)]


def _load_family(config: ExperimentConfig, device: torch.device):
    from promptecho.t2i.registry import load_configured

    return load_configured(config, device)


def _load_rewards(config: ExperimentConfig, device: torch.device) -> list[ro.WeightedReward]:
    from promptecho.rewards.registry import make_reward
    from promptecho.vlm import load_vlm

    vlm = config.models.vlm
    loaded = load_vlm(
        vlm.path, dtype=vlm.dtype, device=device, revision=vlm.revision, trust_remote_code=vlm.trust_remote_code
    )
    return [
        ro.WeightedReward(make_reward(entry.name, loaded, query=entry.query or config.captions.query), entry.weight)
        for entry in config.rewards
    ]


def _starting_state(segment: Segment, digests: dict[str, str], engine: Engine) -> tuple[TrainingState, list[dict]]:
    """The rolling state of a killed attempt, else the previous checkpoint, else a fresh adapter; and its metrics."""
    for rolling in _rolling_folders(segment.work):
        try:
            state = load_state(rolling, digests)
            return state, read_jsonl(rolling / "metrics.jsonl")
        except (StateError, DataError) as error:
            print(f"promptecho: {error}; starting this segment from its beginning instead", file=sys.stderr)
    if segment.resume is not None:
        state = load_state(segment.resume / "state", digests)
        if state.iteration >= segment.to:
            raise StateError(f"{segment.resume}: is at iteration {state.iteration}, not before --to {segment.to}")
        return state, []
    weights = engine.weights()
    tensors = {"weights": weights, **zero_moments(weights), "kl_ema": weights, "ema": weights}
    return TrainingState(0, 0, tensors, digests, _facts()), []


def _rolling_folders(work: Path) -> list[Path]:
    """The rolling state, or the one that had just stepped aside for its successor when the process was killed."""
    rolling = work / ROLLING
    return [rolling] if rolling.is_dir() else sorted(work.glob(f".{ROLLING}.*.old"))


def _facts() -> dict:
    return {
        "promptecho_version": promptecho.__version__,
        "torch_version": torch.__version__,
        "world_size": dist.get_world_size(),
        "threads": torch.get_num_threads(),
    }


def _save_rolling(segment: Segment, state: TrainingState, rows: list[dict]) -> None:
    if dist.get_rank() == 0:
        state.facts = _facts()
        with atomic_path(segment.work / ROLLING) as temporary:
            save_state(state, temporary)
            write_jsonl(temporary / "metrics.jsonl", rows)


def _finish(segment: Segment, family, model, state: TrainingState, rows: list[dict]) -> None:
    """Write the checkpoint; adapter and metrics last, so that a complete checkpoint has all three."""
    state.facts = _facts()
    save_state(state, segment.out / "state")
    evaluated = run_training(segment.config, segment.run).ema.decay is not None
    save_adapter(model, state.tensors["ema" if evaluated else "weights"], segment.out / "adapter", family.pipeline)
    write_jsonl(segment.out / "metrics.jsonl", rows)
    if segment.work.is_dir():
        for left in segment.work.iterdir():  # the rolling state, and what a kill in the middle of a save left
            if left.name == ROLLING or left.name.lstrip(".").startswith(f"{ROLLING}."):
                shutil.rmtree(left)
    print(f"train {segment.run}: checkpoint {segment.to} in {os.path.relpath(segment.out)}", file=sys.stderr)
