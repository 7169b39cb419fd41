"""Time and memory per phase of a training iteration, and the AWM update against the straightforward one.

    python perf/train_step.py --config config/experiments/shapes.yaml --run promptecho-s1 --iterations 5 \
        --captions results/shapes/captions/captions.h5 --threads 1

Phases: seconds and peak memory of sampling, rewards, the passes without gradient, and the optimizer steps, over real
iterations. Update: each iteration's images go through our update (old log-probabilities and reference velocities
computed once) and through one that does what the formulas say in every pass: three more forward passes per
micro-batch, for the old log-probability, the base model and the moving average. Both start from the same weights, in
alternating order; reported is the ratio of the paired times with its spread, and the largest difference of the
resulting weights, because a faster step that computes something else is no comparison.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from alone import alone
from rich.console import Console
from rich.table import Table

from promptecho import awm
from promptecho.config import load_experiment, run_training
from promptecho.train import loop
from promptecho.train.data import batches_of
from promptecho.train.losses import loss_of, velocity
from promptecho.train.meter import Meter
from promptecho.train.trainer import Trainer
from promptecho.train.update import precompute, timestep_groups, update


def straightforward_update(trainer: Trainer, batch, training, iteration: int, old: dict, ema: dict) -> None:
    """Every reference of every micro-batch from a forward pass of its own, with the weights swapped around it."""
    engine, family = trainer.engine, trainer.family
    n_images = training.update_images

    def forward(chunk, weights: dict | None) -> torch.Tensor:
        current = {name: p.detach().clone() for name, p in engine.parameters.items()}
        x_t = awm.interpolate(chunk.x0, chunk.noise[0], chunk.t[0])
        with torch.no_grad():
            if weights is None:
                with engine.model.disable_adapter():
                    return velocity(family, x_t, chunk.t[0], chunk.cond, training)
            engine.use_weights(weights)
            result = velocity(family, x_t, chunk.t[0], chunk.cond, training)
        engine.use_weights(current)
        return result

    for pass_index in range(training.passes):
        for images in batches_of(n_images, training, iteration, pass_index):
            for start in range(0, len(images), training.micro_batch_size):
                for times in timestep_groups(training, pass_index):
                    chunk = batch.take(images[start : start + training.micro_batch_size], times)
                    v = forward(chunk, old)
                    chunk.old_log_prob = awm.matching_log_prob(
                        v,
                        chunk.x0,
                        chunk.noise[0],
                        chunk.t[0],
                        weighting=training.weighting,
                        power=training.ghuber_power,
                    )[None]
                    if training.kl_ema.weight > 0:
                        chunk.ema_velocity = forward(chunk, ema)[None]
                    if training.kl_base.weight > 0:
                        chunk.base_velocity = forward(chunk, None)[None]
                    engine.backward(loss_of(family, chunk, training)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--kl-base", type=float, default=0.1, help="Weight of the KL to the base model, so that it runs."
    )
    parser.add_argument("--passes", type=int, help="Passes over an iteration's images; default: the run's.")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    configured = run_training(load_experiment(arguments.config), arguments.run)
    changes = {
        "kl_base": configured.kl_base.model_copy(update={"weight": arguments.kl_base}),
        "ema": configured.ema.model_copy(update={"decay": None}),  # is no part of what is compared
        "per_timestep": True,
        "passes": arguments.passes or configured.passes,
    }
    phases: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    ratios, differences = [], []
    with alone(arguments.config, arguments.run, arguments.captions, **changes) as trainer:
        training, device = trainer.training, trainer.engine.device
        engine = trainer.engine
        kl_ema = engine.weights()  # the start's weights, so that average and policy differ after one iteration
        for iteration in range(arguments.iterations):
            trainer.phase.begin(iteration + 1)
            measured = trainer.phase.meter
            rollout = loop.collect(trainer, iteration, engine.weights())
            before, moments, steps = engine.weights(), engine.moments(), engine.optimizer_steps
            ours_first = iteration % 2 == 0
            results = {}
            for ours in (ours_first, not ours_first):
                engine.set_state(before, moments, steps)
                start = time.monotonic()
                trainer.phase.meter = measured if ours else Meter(device)
                batch = precompute(trainer, rollout, iteration, kl_ema)
                if ours:
                    update(trainer, batch, iteration, before)
                else:
                    start = time.monotonic()  # it needs no precomputation; only its draws are taken over
                    straightforward_update(trainer, batch, training, iteration, before, kl_ema)
                results[ours] = (time.monotonic() - start, engine.weights())
            ratios.append(results[False][0] / results[True][0])
            differences.append(max(float((results[True][1][k] - v).abs().max()) for k, v in results[False][1].items()))
            for name, seconds in measured.seconds.items():
                phases.setdefault(name, []).append(seconds)
                memory.setdefault(name, []).append(measured.memory[name])
            print(f"iteration {iteration + 1}/{arguments.iterations}: ratio {ratios[-1]:.2f}", file=sys.stderr)
    report(phases, memory, ratios, differences, training, arguments, device)


def report(phases, memory, ratios, differences, training, arguments, device) -> None:
    console = Console()
    images = training.sampled_images
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {arguments.threads} thread(s)"
    what = f"{images} images, {training.passes} pass(es)"
    table = Table(title=f"One iteration of {what} on {where}; n = {len(ratios)}, median (range)")
    for column in ("phase", "seconds", "share", "peak memory, GB"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    total = sum(statistics.median(values) for values in phases.values())
    for name, values in phases.items():
        middle = statistics.median(values)
        table.add_row(
            name, f"{middle:.2f} ({min(values):.2f} - {max(values):.2f})", f"{100 * middle / total:.0f} %",
            f"{max(memory[name]):.2f}",
        )  # fmt: skip
    console.print(table)
    console.print(
        f"straightforward update / ours: {statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f}), "
        f"n = {len(ratios)} pairs; largest difference of a weight afterwards {max(differences):.1e}"
    )


if __name__ == "__main__":
    main()
