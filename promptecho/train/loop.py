"""The training loop: one segment of one run, from the previous checkpoint to the next. Read this file first.

    promptecho train --config results/E/config/DIGEST.yaml --run R --to N --captions captions.h5 \
        --out results/E/runs/R/N --work results/E/work/train/R/N [--resume results/E/runs/R/PREVIOUS]

An iteration (PromptEcho, arXiv 2604.12652, section 3.2; AWM, arXiv 2509.25050):

1. `collect`: 32 prompts x 8 images by the plain ODE with guidance; the frozen VLM's log-probability of each prompt
   given its image is the reward; advantages are rewards minus their group's mean. Some of the images may be chosen
   by these to be trained on (selection.py).
2. `precompute`: what needs no gradient, once: old log-probabilities, velocities of the references.
3. `update`: 4 passes over the 256 images in batches of 128, i.e. 8 optimizer steps of the clipped, advantage-weighted
   matching loss, with a velocity KL to a moving average of the policy as trust region.
4. `_save`: the state between two iterations; after the segment's last one, `_finish` writes the checkpoint.

Where we deviate or the paper is silent: timesteps and loss noise are drawn once per iteration and shared by its
passes (so reference passes run once; `timesteps.redraw` changes it); the moving average is updated per iteration;
see docs/training.md.

State is saved between iterations. Asked to stop inside one, the loop drops the unfinished iteration and saves the
state at its start: the iteration is a pure function of that state, so resuming gives the same bits as never
having stopped.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from promptecho.compute.mode import set_up
from promptecho.config import run_rewards, run_training
from promptecho.config.memory import training_keys
from promptecho.config.rewards import told_of_tokens, unequal_sizes
from promptecho.errors import DataError
from promptecho.memory import MemoryAdvice
from promptecho.phases import Phase
from promptecho.progress import Progress
from promptecho.source_images import Prompt
from promptecho.train import checkpoint, heldout, reward_list, setup, tracked
from promptecho.train import rollout as ro
from promptecho.train.data import NotFiniteError, Rollout, prompts_of
from promptecho.train.failures import report_not_finite
from promptecho.train.launch import Launch, init_distributed
from promptecho.train.log import MetricsLog, begin_trackers
from promptecho.train.phases import Phases
from promptecho.train.placement.layout import RankLayout
from promptecho.train.placement.local import load_reward_vlms
from promptecho.train.placement.server import serve
from promptecho.train.ranks import any_rank, named
from promptecho.train.saving import on_host
from promptecho.train.scoring import advantage_parts, permuted
from promptecho.train.selection import chosen_images
from promptecho.train.start import start
from promptecho.train.state import TrainingState, averaged, distance
from promptecho.train.stop import EXIT_CODE, StopCheck, StopRequestedError
from promptecho.train.stop_file import stop_file_above
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
    set_up(segment.config, device, partitioned=training.zero_stage == 3)
    # Our own watchdog speaks first, and names the rank.
    longest = max(training.timeout_s, training.load_timeout_s)
    layout, launch = init_distributed(training, device, timeout_s=2 * longest + 60)
    keys = partial(training_keys, segment.config, segment.run, layout.trainers)
    with named(launch.rank, launch.world_size, launch.store):
        if layout.serves:
            return _serve(segment, device, layout, launch, MemoryAdvice(str(device), keys))
        stop = StopCheck(
            segment.stop_file, launch, segment.on_leave, run_file=stop_file_above(segment.work, segment.run)
        )
        stop.install()
        limits = training.timeout_s, training.load_timeout_s
        with Watchdog(segment.work / "ranks", layout.index, layout.trainers, *limits) as watchdog:
            phase = Phases(watchdog, stop, device, keys, in_step=training.zero_stage == 3)
            with stop.loading():
                trainer = setup.prepare(segment, training, layout, launch, phase)
                with phase(Phase.RESUME):
                    state, trainer.rows = start(trainer)
            try:
                with trainer.saver:
                    finished = _run(trainer, state)
            except BaseException:
                trainer.rewarder.abandon()
                raise
            if layout.trainers > 1:
                dist.barrier()  # a launcher ends all ranks once one has left; rank 0 may still be saving
            watchdog(Phase.END, segment.to)
        if layout.trainers > 1:
            dist.barrier()  # no watchdog writes any more
        if layout.index == 0 and finished:
            checkpoint.clear(segment.work)
        trainer.rewarder.close(0 if finished else EXIT_CODE)
    return finished


def _serve(segment: Segment, device: torch.device, layout: RankLayout, launch: Launch, memory: MemoryAdvice) -> bool:
    """Serve rewards until the trainers of this node are done; returns what they return."""
    # Trainers react to requests, and end this process when they have finished; while models load, all ranks react to a
    # request that one of them has received.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    stop = StopCheck(None, launch)
    prompts, watched = setup.all_prompts(segment, run_training(segment.config, segment.run), check=False)
    rewards = reward_list.list_rewards(segment.config, segment.run, prompts, watched)
    with stop.loading(serves=True):
        with memory(Phase.LOAD_VLM):
            vlms = load_reward_vlms(segment.config, segment.run, device, layout)
        return serve(reward_list.with_models(rewards, vlms, device), layout, launch.store, memory, stop) == 0


def _run(trainer: Trainer, state: TrainingState) -> bool:
    """All iterations of the segment; False when asked to stop."""
    segment, training, leads = trainer.segment, trainer.training, dist.get_rank() == 0
    bar = Progress(f"train {segment.run}", segment.to, "iterations", done=state.iteration)
    updates = "" if training.update_group == training.images_per_prompt else f" ({training.update_images} to train on)"
    trainer.say(
        f"from iteration {state.iteration} to {segment.to}, {training.prompts_per_iteration} prompts x "
        f"{training.images_per_prompt} images = {training.sampled_images}{updates}, {len(trainer.prompts)} captions, "
        f"{dist.get_world_size()} process(es)"
    )
    rewards = run_rewards(segment.config, segment.run)
    spread = told_of_tokens(rewards, training.reward_placement, dist.get_world_size())
    for warning in filter(None, (unequal_sizes(rewards, training.advantage.scale), spread)):
        trainer.say(warning)
    log = None
    if leads:
        trackers = begin_trackers(segment, state.iteration, list(trainer.rows))
        log = MetricsLog(segment.work / checkpoint.LIVE, trackers, trainer.rows)
    try:
        return _iterations(trainer, state, log, bar)
    finally:
        if log is not None:
            log.close()


def _iterations(trainer: Trainer, state: TrainingState, log: MetricsLog | None, bar: Progress) -> bool:
    """All iterations of the segment and its checkpoint; False when asked to stop."""
    segment, training, leads = trainer.segment, trainer.training, log is not None
    last_save, began = time.monotonic(), state.iteration
    trainer.phase.begin(state.iteration)
    try:
        if state.iteration == 0:
            _watch_base(trainer, log, state)
            _log_images(trainer, log, state, state.tensors[_evaluated(trainer, state)])
        while state.iteration < segment.to and not state.early_stop.get("stopped"):
            trainer.saver.check()
            state, row = iterate(trainer, state)
            _log_row(trainer, log, row)
            if row["iteration"] <= EARLY and (sign := below_eps(row)):
                trainer.say(f"iteration {row['iteration']}: {sign}")
            if leads:
                bar.advance(note=f"reward {row['reward_mean']:.4f}, {row['images_per_s']:.2f} images/s")
            due = state.iteration < segment.to and time.monotonic() - last_save >= training.save_every_s
            if any_rank(leads and due):
                _save(trainer, state)
                last_save = time.monotonic()
            if state.iteration < segment.to and not state.early_stop.get("stopped"):
                trainer.phase.stop.between_iterations()
    except StopRequestedError:
        _save(trainer, state)
        trainer.saver.wait()
        trainer.say(f"asked to stop; state of iteration {state.iteration} saved in {segment.work}")
        return False
    except NotFiniteError as error:
        raise report_not_finite(error, segment.work, segment.run, state.iteration + 1, trainer.engine) from error
    trainer.saver.wait()
    _finish(trainer, state)
    if state.iteration > began:
        with suppress(StopRequestedError):  # the checkpoint is there, so that the segment is finished all the same
            _log_images(trainer, log, state, state.tensors[_evaluated(trainer, state)])
    return True


def _watch_base(trainer: Trainer, log: MetricsLog | None, state: TrainingState) -> None:
    """Collective: the held-out reward before training."""
    if trainer.rows:  # it was watched before a stop; once more would count as an evaluation without a new best
        if log is not None:
            log.trackers.log(trainer.rows[-1])
    elif watched := heldout.watch(trainer, state):
        _log_row(trainer, log, {"iteration": 0, **watched})


def iterate(trainer: Trainer, state: TrainingState) -> tuple[TrainingState, dict[str, Any]]:
    """One iteration: the state after it, and its row of metrics. Collective."""
    training, engine, iteration = trainer.training, trainer.engine, state.iteration
    trainer.phase.begin(iteration + 1)
    weights = average = engine.weights()
    if iteration:
        average = averaged(state.tensors["kl_ema"], weights, training.kl_ema.decay_at(state.optimizer_steps))

    rollout = collect(trainer, iteration, average if training.sampling.policy == "ema" else weights)
    engine.use_weights(weights)
    batch = precompute(trainer, rollout, iteration, average)
    metrics, ema = update(trainer, batch, iteration, state.tensors["ema"])

    trained = engine.weights()
    best = {"best": state.tensors["best"]} if "best" in state.tensors else {}
    tensors = {
        **best, "weights": trained, "kl_ema": average, "ema": ema if training.ema.decay is not None else trained,
    }  # fmt: skip
    prompts = trainer.use.extended(state.prompts, iteration)
    after = TrainingState(
        iteration + 1, engine.optimizer_steps, tensors, state.digests, early_stop=state.early_stop, prompts=prompts,
        parts=engine.moment_parts(),
    )  # fmt: skip
    watched = heldout.watch(trainer, after)
    return after, {
        "iteration": after.iteration,
        **ro.reward_metrics(rollout, trainer.rewards),
        **watched,
        **metrics,
        "update_norm": distance(weights, trained),
        "learning_rate": training.learning_rate_at(after.optimizer_steps - 1),
        "optimizer_steps": after.optimizer_steps,
        **trainer.measured(iteration, rollout.total),
    }


def collect(trainer: Trainer, iteration: int, weights: dict[str, torch.Tensor]) -> Rollout:
    """Images by `weights`, which stay in the module, their rewards and advantages."""
    training = trainer.training
    chosen = prompts_of(trainer.prompts, training.seed, iteration, training.prompts_per_iteration)
    key, called = (training.seed, "sampling", iteration), f"image {{image}} of iteration {iteration + 1}"
    series = ro.Series(chosen, training.images_per_prompt, key, called)
    noise_level = training.grpo.noise_level if training.algorithm == "grpo" else None
    sampled = ro.sample(trainer, weights, series, upcoming=_later_prompts(trainer, iteration), noise_level=noise_level)
    rewards, replies = ro.score(trainer, sampled)
    with trainer.phase(Phase.EXCHANGE):
        credited = rewards if training.control == "none" else permuted(rewards, training.seed, iteration)
        parts = advantage_parts(credited, [entry.weight for entry in trainer.rewards], training)
        diversity = ro.group_diversity(sampled)
        advantages = parts.sum(0).flatten().to(sampled.latents.device)
    replies |= ro.advantage_sizes(parts, trainer.rewards)
    kept = chosen_images(parts.sum(0), training.update_images_per_prompt)
    return Rollout(
        chosen, sampled.cond, sampled.mine, sampled.latents, rewards, advantages, diversity, replies, chosen=kept,
        path=sampled.path, sizes=sampled.sizes if trainer.sizes.several else None,
    )  # fmt: skip


def _later_prompts(trainer: Trainer, iteration: int) -> Iterator[Prompt]:
    """What the family is asked for this segment's prompts after `iteration`."""
    training = trainer.training
    for later in range(iteration + 1, trainer.segment.to):
        for prompt in prompts_of(trainer.prompts, training.seed, later, training.prompts_per_iteration):
            yield trainer.asked(prompt)


def _log_row(trainer: Trainer, log: MetricsLog | None, row: dict[str, Any]) -> None:
    row |= trainer.first_row
    trainer.first_row = {}
    trainer.rows.append(row)
    if log is not None:
        log.add(row)


def _log_images(
    trainer: Trainer, log: MetricsLog | None, state: TrainingState, weights: dict[str, torch.Tensor]
) -> None:
    """Collective: sample images to the trackers, if there are any."""
    if tracked.wanted(trainer):
        images = tracked.sample_grid(trainer, weights)
        if log is not None:
            log.trackers.log_images(state.iteration, images)


def _evaluated(trainer: Trainer, state: TrainingState) -> str:
    """Which of a state's tensors are the adapter that is saved."""
    if state.early_stop.get("stopped"):
        return "best"
    return "ema" if trainer.training.ema.decay is not None else "weights"


def _completed(trainer: Trainer, state: TrainingState) -> None:
    """Collective: give the state what only all ranks together have of it, and its facts."""
    if state.parts is not None:
        state.tensors, state.parts = {**state.tensors, **trainer.engine.moments_of(state.parts)}, None
    state.facts = checkpoint.facts()


def _save(trainer: Trainer, state: TrainingState) -> None:
    """Collective: rank 0 begins to write the state in a thread."""
    with trainer.phase(Phase.SAVE):
        _completed(trainer, state)
        if dist.get_rank() == 0:
            rows, keep, whole = list(trainer.rows), trainer.training.keep_states, on_host(state)
            trainer.saver.begin(lambda: checkpoint.save_rolling(trainer.segment.work, whole(), rows, keep))


def _finish(trainer: Trainer, state: TrainingState) -> None:
    """Collective: rank 0 writes the checkpoint."""
    segment, early, evaluated = trainer.segment, state.early_stop, _evaluated(trainer, state)
    if early.get("stopped"):
        trainer.say(
            f"stopped early at iteration {state.iteration}: no better held-out reward than {early['best']:.4f} at "
            f"iteration {early['best_iteration']}, whose weights are the adapter from here on"
        )
    with trainer.phase(Phase.SAVE):
        _completed(trainer, state)
        if dist.get_rank() != 0:
            return
        checkpoint.write_checkpoint(segment.out, trainer.family, trainer.engine.model, state, evaluated, trainer.rows)
    trainer.say(f"checkpoint {segment.to} in {checkpoint.describe(segment.out)}")
