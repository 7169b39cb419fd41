"""How much of an update's gradient is signal: where along t, and for which settings.

    python perf/gradient_signal.py --config config/experiments/shapes.yaml --run promptecho-s1 \
        --captions results/shapes/captions/captions.h5 --sets 8 --threads 2

Each set is one iteration's worth of prompts, images and rewards of the untrained policy. Its policy gradient
-mean(A grad l) is computed once for each row of the table, with noise and timesteps of its own. Gradients of
different sets share only what prompts have in common: the mean cosine between them is the share of a gradient's
squared length that is signal. 0: noise only. The interval is a jackknife over sets, and wide: prompts differ.

What only the loss noise and timesteps do is seen better on the same images: each gradient is computed twice, with
other draws, and the cosine between the two is what a draw of them leaves unchanged. 1: they do not matter.

Rows: six bands of t, each without and with loss noise shared by a prompt's images (`timesteps.shared_by`); then the
run's own timesteps and weighting, and changes of them one by one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from alone import alone
from rich.console import Console
from rich.table import Table

from promptecho import awm
from promptecho.config import TrainingConfig
from promptecho.progress import Progress
from promptecho.train import loop
from promptecho.train.data import Rollout
from promptecho.train.scoring import combined_advantages
from promptecho.train.trainer import Trainer
from promptecho.train.update import draw_timesteps_and_noise, velocity

BANDS = ((0.0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 0.9), (0.9, 1.0))


def gradient(trainer: Trainer, rollout: Rollout, training: TrainingConfig, number: int, band=None) -> torch.Tensor:
    """Flat gradient of a rollout under `training`; `band`: t uniform in there instead, one per image."""
    images = list(range(len(rollout.latents)))
    if band is not None:
        section = training.timesteps.model_copy(update={"distribution": "uniform", "per_sample": 1})
        training = training.model_copy(update={"timesteps": section, "weighting": "uniform"})
    t, noise = draw_timesteps_and_noise(rollout, images, training, number, trainer.grid)
    if band is not None:
        t = band[0] + (band[1] - band[0]) * t
    advantages = combined_advantages(rollout.rewards, [entry.weight for entry in trainer.rewards], training).flatten()
    parameters = [p for p in trainer.engine.parameters.values() if p.requires_grad]
    total = [torch.zeros_like(p) for p in parameters]
    for row in range(len(t)):
        for start in range(0, len(images), training.micro_batch_size):
            chunk = slice(start, start + training.micro_batch_size)
            x0, eps, times = rollout.latents[chunk], noise[row, chunk], t[row, chunk]
            cond = [rollout.cond[rollout.prompt_of(i)] for i in images[chunk]]
            v = velocity(trainer.family, awm.interpolate(x0, eps, times), times, cond, training)
            log_prob = awm.matching_log_prob(
                v, x0, eps, times, weighting=training.weighting, power=training.ghuber_power
            )
            loss = -(advantages[chunk].to(log_prob.device) * log_prob).sum().float() / (len(images) * len(t))
            for sums, part in zip(total, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
                if part is not None:
                    sums += part
    return torch.cat([part.flatten() for part in total]).cpu()


def signal(gradients: list[torch.Tensor]) -> tuple[float, float]:
    """Mean cosine between different sets' gradients, and its jackknife standard error (nan below three sets)."""
    stacked = torch.stack(gradients).double()
    stacked = stacked / stacked.norm(dim=1, keepdim=True)
    cosines = (stacked @ stacked.T).numpy()
    n = len(cosines)

    def mean(kept: np.ndarray) -> float:
        part = cosines[np.ix_(kept, kept)]
        return float((part.sum() - np.trace(part)) / (len(kept) * (len(kept) - 1)))

    if n < 3:
        return mean(np.arange(n)), float("nan")
    leave_one_out = np.array([mean(np.delete(np.arange(n), i)) for i in range(n)])
    error = np.sqrt((n - 1) / n * ((leave_one_out - leave_one_out.mean()) ** 2).sum())
    return mean(np.arange(n)), float(error)


def variants(training: TrainingConfig) -> dict[str, tuple[TrainingConfig, tuple[float, float] | None]]:
    """Name of a row -> what it changes."""

    def timesteps(**change) -> TrainingConfig:
        return training.model_copy(update={"timesteps": training.timesteps.model_copy(update=change)})

    rows: dict[str, tuple[TrainingConfig, tuple[float, float] | None]] = {}
    for band in BANDS:
        for shared in ("none", "prompt"):
            rows[f"t in {band[0]}..{band[1]}, shared_by: {shared}"] = (timesteps(shared_by=shared), band)
    rows["this run's settings"] = (training, None)
    other = "none" if training.timesteps.shared_by == "prompt" else "prompt"
    rows[f"... timesteps.shared_by: {other}"] = (timesteps(shared_by=other), None)
    twice = 2 * training.timesteps.per_sample
    rows[f"... timesteps.per_sample: {twice}"] = (timesteps(per_sample=twice), None)
    for weighting in ("uniform", "t", "t2", "ghuber"):
        if weighting != training.weighting:
            rows[f"... weighting: {weighting}"] = (training.model_copy(update={"weighting": weighting}), None)
    for scale in ("none", "group_std"):
        if scale != training.advantage.scale:
            section = training.advantage.model_copy(update={"scale": scale})
            rows[f"... advantage.scale: {scale}"] = (training.model_copy(update={"advantage": section}), None)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--sets", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with alone(arguments.config, arguments.run, arguments.captions) as trainer:
        rows = variants(trainer.training)
        found: dict[str, list[torch.Tensor]] = {name: [] for name in rows}
        again: dict[str, list[torch.Tensor]] = {name: [] for name in rows}
        bar = Progress("gradient signal", arguments.sets * len(rows), "gradients")
        for number in range(arguments.sets):
            rollout = loop.collect(trainer, number, trainer.engine.weights())
            for name, (changed, band) in rows.items():
                found[name].append(gradient(trainer, rollout, changed, number, band))
                again[name].append(gradient(trainer, rollout, changed, number + arguments.sets, band))
                bar.advance()
    table = Table(title=f"Signal in the gradient of {len(rollout.latents)} images; {arguments.sets} sets")
    for column in ("gradient", "other sets", "± (95 %)", "same images", "s.d."):
        table.add_column(column, justify="left" if column == "gradient" else "right", no_wrap=True)
    for name, gradients in found.items():
        value, error = signal(gradients)
        repeats = [float(torch.cosine_similarity(a, b, 0)) for a, b in zip(gradients, again[name], strict=True)]
        spread = f"{np.std(repeats, ddof=1):.3f}"
        table.add_row(name, f"{value:.3f}", f"{1.96 * error:.3f}", f"{np.mean(repeats):.3f}", spread)
    Console().print(table)


if __name__ == "__main__":
    main()
