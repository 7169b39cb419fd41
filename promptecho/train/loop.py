"""The training loop: one segment of one run, from the previous checkpoint to the next. Read this file first.

    promptecho train --config results/E/config/DIGEST.yaml --run R --to N --captions captions.h5 \
        --out results/E/runs/R/N --work results/E/work/train/R/N [--resume results/E/runs/R/PREVIOUS]

An iteration (PromptEcho, arXiv 2604.12652, section 3.2; AWM, arXiv 2509.25050):

1. `rollout`: 32 prompts x 8 images by the plain ODE with guidance; the frozen VLM's log-probability of each prompt
   given its image is the reward; advantages are rewards minus their group's mean.
2. `update`: 4 passes over the 256 images in batches of 128, i.e. 8 optimizer steps of the clipped, advantage-weighted
   matching loss, with a velocity KL to a moving average of the policy as trust region.

Where we deviate or the paper is silent: timesteps and loss noise are drawn once per iteration and shared by its
passes (so reference passes run once; `timesteps.redraw` changes it); the moving average is updated per iteration;
see docs/training.md.

State is saved between iterations. Asked to stop inside one, the loop drops the unfinished iteration and saves the
state at its start: the iteration is a pure function of that state, so resuming gives the same bits as never
having stopped.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any

import torch
import torch.distributed as dist

from promptecho.config import TrainingConfig, run_rewards, run_training
from promptecho.config.memory import training_keys
from promptecho.config.rewards import unequal_sizes
from promptecho.errors import DataError
from promptecho.memory import MemoryAdvice
from promptecho.progress import Progress
from promptecho.t2i.lora import add_lora
from promptecho.t2i.prompt_cache import PromptCache
from promptecho.train import checkpoint, heldout, setup
from promptecho.train import rollout as ro
from promptecho.train.data import NotFiniteError, Prompt, prompts_of
from promptecho.train.engine import Engine
from promptecho.train.failures import report_not_finite
from promptecho.train.launch import Launch, init_distributed
from promptecho.train.log import MetricsLog
from promptecho.train.meter import LoadTimes, Meter
from promptecho.train.placement.layout import Layout, accumulation
from promptecho.train.placement.local import load_reward_vlm
from promptecho.train.placement.server import serve
from promptecho.train.ranks import gather_by_index, named
from promptecho.train.scoring import advantage_parts, permuted
from promptecho.train.start import start
from promptecho.train.state import TrainingState, distance
from promptecho.train.stop import EXIT_CODE, StopCheck, StopRequestedError
from promptecho.train.trainer import Segment, Trainer
from promptecho.train.update import precompute, update
from promptecho.train.warning_signs import below_eps
from promptecho.train.watchdog import Watchdog

EARLY = 3  # iterations that say it at once when gradients are too small for Adam


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
    # Our own watchdog speaks first, and names the rank.
    longest = max(training.timeout_s, training.load_timeout_s)
    layout, launch = init_distributed(training, device, timeout_s=2 * longest + 60)
    with named(launch.rank, launch.world_size, launch.store):
        if layout.serves:
            return _serve(segment, training, device, layout, launch)
        limits = training.timeout_s, training.load_timeout_s
        stop = StopCheck(segment.stop_file, launch, segment.on_leave)
        stop.install()
        with Watchdog(segment.work / "ranks", layout.index, layout.trainers, *limits) as watchdog:
            with stop.loading():
                trainer = prepare(segment, training, device, watchdog, layout, launch, stop)
                watchdog("resume", 0)
                state, trainer.rows = start(trainer)
            finished = _run(trainer, state)
            if layout.trainers > 1:
                dist.barrier()  # a launcher ends all ranks once one has left; rank 0 may still be saving
            watchdog("end", segment.to)
        if layout.trainers > 1:
            dist.barrier()  # no watchdog writes any more
        if layout.index == 0 and finished:
            checkpoint.clear(segment.work)
        trainer.rewarder.close(0 if finished else EXIT_CODE)
    return finished


def prepare(
    segment: Segment, training: TrainingConfig, device: torch.device, watchdog: Watchdog, layout: Layout,
    launch: Launch, stop: StopCheck,
) -> Trainer:  # fmt: skip
    """Everything that is loaded before the first iteration. Collective."""
    memory = _memory(segment, device, layout, watchdog)
    models = segment.config.models
    prompts, watched = _all_prompts(segment, training)
    rewards = setup.list_rewards(segment.config, segment.run, [*prompts, *watched])
    setup.check_texts(segment, prompts, watched, rewards, quiet=layout.index != 0)
    times = LoadTimes()
    watchdog("load_t2i", 0)
    with times("t2i"), memory("load_t2i"):
        family = setup.load_policy(segment.config, training, device)
        encoder = PromptCache(
            family, segment.config.models_prompt_cache, turn=(dist.get_rank(), dist.get_world_size())
        )
    if training.activation_checkpointing:
        family.enable_activation_checkpointing()
    watchdog("load_vlm", 0)
    with times("vlm"), memory("load_vlm"):
        rewarder = setup.make_rewarder(
            segment, layout, launch, device, rewards, stop, lambda ranks: watchdog("load_vlm", 0, ranks)
        )
    if layout.index == 0:
        print(f"train {segment.run}: models loaded: {times.describe()}", file=sys.stderr, flush=True)
    watchdog("optimizer", 0)
    with memory("optimizer"):
        family.transformer = add_lora(family.transformer, training.lora, training.seed, family.lora_targets)
        engine = Engine(family.transformer, training, device, accumulation=accumulation(training, layout.trainers))
    stop.watch_passes(family.transformer)
    return Trainer(
        segment, training, family, encoder, engine, rewards, rewarder, prompts, watched,
        family.latent_shape(models.t2i.height, models.t2i.width),
        setup.sampler_grid(family, training, models.t2i),
        stop, watchdog, memory, load_seconds=times.metrics(),
    )  # fmt: skip


def _memory(
    segment: Segment, device: torch.device, layout: Layout, watchdog: Watchdog | None = None
) -> MemoryAdvice:
    """What this rank says when memory runs out, and in which iteration, where a watchdog knows it."""

    def keys(phase: str, on: str) -> list[str]:
        return training_keys(segment.config, segment.run, layout.trainers, phase, on)

    def where() -> str:
        return f" of iteration {watchdog.position.iteration}" if watchdog and watchdog.position.iteration else ""

    return MemoryAdvice(str(device), keys, where)


def _all_prompts(segment: Segment, training: TrainingConfig) -> tuple[list[Prompt], list[Prompt]]:
    return setup.load_prompts(segment.captions), setup.load_heldout(segment.heldout, training.heldout.prompts)


def _serve(
    segment: Segment, training: TrainingConfig, device: torch.device, layout: Layout, launch: Launch
) -> bool:
    """Serve rewards until the trainers of this node are done; returns what they return."""
    # Trainers heed requests, and end this process when they are done; while models load, all heed what one has heard.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    stop = StopCheck(None, launch)
    prompts, watched = _all_prompts(segment, training)
    rewards = setup.list_rewards(segment.config, segment.run, [*prompts, *watched])
    memory = _memory(segment, device, layout)
    with stop.loading(serves=True):
        with memory("load_vlm"):
            vlm = load_reward_vlm(segment.config, segment.run, device, layout)
        return serve(setup.with_models(rewards, vlm, device), vlm, layout, launch.store, memory, stop) == 0


def _run(trainer: Trainer, state: TrainingState) -> bool:
    """All iterations of the segment; False when asked to stop."""
    segment, training, rank = trainer.segment, trainer.training, dist.get_rank()
    say = print if rank == 0 else _silent
    bar = Progress(f"train {segment.run}", segment.to, "iterations", done=state.iteration)
    images = training.prompts_per_iteration * training.images_per_prompt
    say(
        f"train {segment.run}: from iteration {state.iteration} to {segment.to}, {training.prompts_per_iteration} "
        f"prompts x {training.images_per_prompt} images = {images}, {len(trainer.prompts)} captions, "
        f"{dist.get_world_size()} process(es)",
        file=sys.stderr,
        flush=True,
    )
    if warning := unequal_sizes(run_rewards(segment.config, segment.run), training.advantage.scale):
        say(f"train {segment.run}: {warning}", file=sys.stderr, flush=True)
    log = (
        MetricsLog(segment.work / checkpoint.LIVE, segment.tensorboard, trainer.rows, state.iteration)
        if rank == 0
        else None
    )
    last_save = time.monotonic()
    try:
        if state.iteration == 0 and heldout.is_due(0, training):
            _log_row(trainer, log, {"iteration": 0, **_watch_heldout(trainer, state)})
        while state.iteration < segment.to and not state.early_stop.get("stopped"):
            state, row = _iterate(trainer, state)
            _log_row(trainer, log, row)
            if row["iteration"] <= EARLY and (sign := below_eps(row)):
                say(f"train {segment.run}: iteration {row['iteration']}: {sign}", file=sys.stderr, flush=True)
            if rank == 0:
                bar.advance(note=f"reward {row['reward_mean']:.4f}, {row['images_per_s']:.2f} images/s")
            due = time.monotonic() - last_save >= training.save_every_s
            if rank == 0 and state.iteration < segment.to and due:
                trainer.watchdog("save", state.iteration)
                checkpoint.save_rolling(segment.work, state, trainer.rows, training.keep_states)
                last_save = time.monotonic()
    except StopRequestedError:
        if rank == 0:
            checkpoint.save_rolling(segment.work, state, trainer.rows, training.keep_states)
        say(
            f"train {segment.run}: asked to stop; state of iteration {state.iteration} saved in {segment.work}",
            file=sys.stderr,
            flush=True,
        )
        return False
    except NotFiniteError as error:
        raise report_not_finite(error, segment.work, segment.run, state.iteration + 1, trainer.engine) from error
    finally:
        if log is not None:
            log.close()
    if rank == 0:
        _finish(trainer, state)
    return True


def _finish(trainer: Trainer, state: TrainingState) -> None:
    segment, early = trainer.segment, state.early_stop
    evaluated = "ema" if trainer.training.ema.decay is not None else "weights"
    if early.get("stopped"):
        evaluated = "best"
        print(
            f"train {segment.run}: stopped early at iteration {state.iteration}: no better held-out reward than "
            f"{early['best']:.4f} at iteration {early['best_iteration']}, whose weights are the adapter from here on",
            file=sys.stderr,
        )
    trainer.watchdog("save", state.iteration)
    checkpoint.write_checkpoint(segment.out, trainer.family, trainer.engine.model, state, evaluated, trainer.rows)
    print(f"train {segment.run}: checkpoint {segment.to} in {checkpoint.describe(segment.out)}", file=sys.stderr)


def _iterate(trainer: Trainer, state: TrainingState) -> tuple[TrainingState, dict[str, Any]]:
    """One iteration: the state after it, and its row of metrics."""
    training, engine, family = trainer.training, trainer.engine, trainer.family
    iteration, meter = state.iteration, Meter(engine.device)
    current = iteration + 1  # as people count
    weights = engine.weights()
    kl_ema = (
        _averaged(state.tensors["kl_ema"], weights, training.kl_ema.decay_at(state.optimizer_steps))
        if iteration
        else weights
    )

    trainer.boundary("sample", current)
    engine.use_weights(kl_ema if training.sampling.policy == "ema" else weights)
    rollout = collect(trainer, iteration, meter)
    engine.use_weights(weights)

    def boundary(phase: str, step: int) -> None:
        trainer.watchdog("precompute" if phase == "exchange" else phase, current, step)
        if phase in ("exchange", "update"):
            trainer.stop()

    def listening() -> AbstractContextManager[None]:
        return trainer.stop.listening(in_step=engine.partitioned)

    trainer.boundary("precompute", current)
    with trainer.memory("precompute"):
        mine, batch = precompute(
            family, engine, rollout, training, iteration, kl_ema, trainer.grid, boundary, listening
        )
    meter.lap("precompute")

    ema = state.tensors["ema"]

    def after_step() -> None:
        nonlocal ema
        if training.ema.decay is not None:
            ema = _averaged(ema, engine.weights(), training.ema.decay_at(engine.optimizer_steps))

    total = len(rollout.latents)
    with trainer.memory("update"):
        metrics = update(family, engine, mine, batch, total, training, iteration, after_step, boundary)
    meter.lap("update")
    trained = engine.weights()
    after = TrainingState(
        current,
        engine.optimizer_steps,
        {
            **{name: value for name, value in state.tensors.items() if name == "best"},
            "weights": trained,
            **engine.moments(),
            "kl_ema": kl_ema,
            "ema": ema if training.ema.decay is not None else trained,
        },
        state.digests,
        early_stop=state.early_stop,
        prompts=trainer.use.extended(state.prompts, iteration),
    )
    watched = _watch_heldout(trainer, after) if heldout.is_due(current, training) else {}
    if watched:
        meter.lap("heldout")
    return after, {
        "iteration": current,
        **ro.reward_metrics(rollout, trainer.rewards),
        **watched,
        **metrics,
        "update_norm": distance(weights, trained),
        "learning_rate": engine.current_learning_rate,
        "optimizer_steps": after.optimizer_steps,
        **meter.metrics(),
        "images_per_s": round(total / meter.seconds, 4),
    }


def collect(trainer: Trainer, iteration: int, meter: Meter) -> ro.Rollout:
    """Images, rewards and advantages of an iteration, the same on every rank."""
    training = trainer.training
    chosen = prompts_of(trainer.prompts, training.seed, iteration, training.prompts_per_iteration)

    def moved(phase: str, step: int) -> None:
        if (phase, step) == ("reward", 0):
            meter.lap("sample")
        trainer.watchdog(phase, iteration + 1, step)

    made = ro.sample_and_score(
        trainer, chosen, training.images_per_prompt, (training.seed, "sampling", iteration), iteration + 1,
        "image {image} of iteration {iteration}", moved, upcoming=_later_prompts(trainer, iteration),
    )  # fmt: skip
    credited = made.rewards if training.control == "none" else permuted(made.rewards, training.seed, iteration)
    parts = advantage_parts(credited, [entry.weight for entry in trainer.rewards], training)
    sizes = ro.advantage_sizes(parts, trainer.rewards)
    latents = gather_by_index(made.latents, made.mine, len(chosen) * training.images_per_prompt)
    meter.lap("reward")
    advantages = parts.sum(0).flatten().to(latents.device)
    return ro.Rollout(chosen, made.cond, latents, made.rewards, advantages, made.replies | sizes)


def _later_prompts(trainer: Trainer, iteration: int) -> Iterator[str]:
    """Texts of this segment's prompts after `iteration`."""
    training = trainer.training
    for later in range(iteration + 1, trainer.segment.to):
        for prompt in prompts_of(trainer.prompts, training.seed, later, training.prompts_per_iteration):
            yield prompt.text


def _watch_heldout(trainer: Trainer, state: TrainingState) -> dict[str, float]:
    """Evaluate the weights that would be saved, and note whether they are the best so far."""
    training = trainer.training
    weights = state.tensors["ema" if training.ema.decay is not None else "weights"]
    found = heldout.evaluate(trainer, weights, state.iteration)
    early = heldout.EarlyStop(**state.early_stop)
    if early.update(found["heldout_reward"], state.iteration, training.heldout) and training.heldout.patience:
        state.tensors = {**state.tensors, "best": weights}
    state.early_stop = asdict(early)
    return found


def _log_row(trainer: Trainer, log: MetricsLog | None, row: dict) -> None:
    row |= trainer.load_seconds | trainer.first_row
    trainer.load_seconds, trainer.first_row = {}, {}
    trainer.rows.append(row)
    if log is not None:
        log.add(row)


def _silent(*_: object, **__: object) -> None:
    """Other ranks than 0 print nothing."""


def _averaged(average: dict, value: dict, decay: float) -> dict:
    return {name: decay * average[name] + (1 - decay) * value[name] for name in value}
