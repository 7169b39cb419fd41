"""What the gradient loses when the update trains on some of a prompt's images (`training.update_images_per_prompt`).

    python perf/chosen_images.py --config config/experiments/shapes.yaml --run promptecho-s1 \
        --captions results/shapes/captions/captions.h5 --sets 5

The gradient of each image's log-probability is computed by itself, for the untrained policy and the run's settings.
Policy gradients of any choice of images are sums of these with other weights, so all rows compare the same images,
timesteps and noise. A row is one choice, and its columns are

- signal: the mean of <g, h> over pairs of different prompts, over the mean of <g, g>, where g and h are prompts'
  gradients. Different prompts share nothing but what a step is taken for, so this is signal over noise, per prompt.
- step: how far a step of given length goes along the expected gradient of all images, over how far the gradient of all
  images goes; ± is a 95 % jackknife interval over prompts. 1: as good as all images, per prompt.
- cosine: between the sum of all prompts' gradients, and that of all images.
- size: of that sum along the one of all images. Above 1, the KL terms weigh as much less.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from alone import alone
from rich.console import Console
from rich.table import Table

from promptecho import awm
from promptecho.progress import Progress
from promptecho.train import loop
from promptecho.train.scoring import combined_advantages
from promptecho.train.selection import most_varied
from promptecho.train.trainer import Trainer
from promptecho.train.update import draw_timesteps_and_noise, velocity

COLUMNS = 20_000  # of the gradients, that are multiplied at a time

Choice = Callable[[np.ndarray], np.ndarray]  # advantages [K] of a prompt to the weights of its images


def gradients(trainer: Trainer, sets: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the images of so many iterations: inner products [N, N] of their gradients, which are means over their
    timesteps, and advantages [G, K] (N = G * K)."""
    training = trainer.training
    parameters = [p for p in trainer.engine.parameters.values() if p.requires_grad]
    bar = Progress("gradients", sets * training.sampled_images, "images")
    rows, advantages = [], []
    for number in range(sets):
        rollout = loop.collect(trainer, number, trainer.engine.weights())
        images = list(range(rollout.total))
        t, noise = draw_timesteps_and_noise(rollout, images, training, number, trainer.grid)
        for image in images:
            n, x0 = len(t), rollout.latents[image : image + 1].repeat(len(t), *[1] * (rollout.latents.ndim - 1))
            times, eps = t[:, image], noise[:, image]
            cond = [rollout.cond[rollout.prompt_of(image)]] * n
            v = velocity(trainer.family, awm.interpolate(x0, eps, times), times, cond, training)
            log_prob = awm.matching_log_prob(
                v, x0, eps, times, weighting=training.weighting, power=training.ghuber_power
            ).mean()
            parts = torch.autograd.grad(log_prob.float(), parameters, allow_unused=True)
            rows.append(torch.cat([part.flatten() for part in parts if part is not None]).cpu())
            bar.advance()
        weights = [entry.weight for entry in trainer.rewards]
        advantages.append(combined_advantages(rollout.rewards, weights, training))
    stacked = torch.stack(rows)
    products = torch.zeros(len(stacked), len(stacked), dtype=torch.float64)
    for start in range(0, stacked.shape[1], COLUMNS):
        part = stacked[:, start : start + COLUMNS].double()
        products += part @ part.T
    return products.numpy(), torch.cat(advantages).numpy()


def some(n: int, *, centred: bool = True, seed: int | None = None) -> Choice:
    """`n` images with the largest variance, or random ones; `centred`: their mean is subtracted, as the update does."""
    rng = None if seed is None else np.random.default_rng(seed)

    def choice(advantages: np.ndarray) -> np.ndarray:
        k = len(advantages)
        chosen = most_varied(advantages.tolist(), n) if rng is None else rng.permutation(k)[:n]
        weights = np.zeros(k)
        weights[chosen] = (advantages[chosen] - centred * advantages[chosen].mean()) / n
        return weights

    return choice


def choices(k: int) -> dict[str, Choice]:
    """Name of a row -> what it does with the advantages of a prompt's `k` images."""
    rows: dict[str, Choice] = {f"all {k}": lambda advantages: advantages / k}
    for n in (n for n in (k - k // 4, k // 2, k // 2 - 1, 2) if 2 <= n < k):
        rows.setdefault(f"{n}", some(n))
        rows.setdefault(f"{n}, not centred", some(n, centred=False))
    rows[f"{k // 2} at random"] = some(k // 2, seed=0)
    return rows


def reached(own: np.ndarray, cross: np.ndarray, prompts: np.ndarray) -> float:
    """How far a step of length 1 along a prompt's gradient goes along the expected gradient of all images, up to a
    factor that all rows share; from inner products [G, G] of the choice's with its own and with all images' ones."""
    n, between = len(prompts), cross[np.ix_(prompts, prompts)]
    return (between.sum() - np.trace(between)) / (n * (n - 1)) / np.sqrt(np.diag(own)[prompts].mean())


def compared(products: np.ndarray, advantages: np.ndarray) -> dict[str, dict[str, float]]:
    """Row -> column -> value."""
    g, k = advantages.shape
    everyone = np.arange(g)

    def spread(choice: Choice) -> np.ndarray:
        """Weights [G, N] of all images in each prompt's gradient."""
        weights = np.zeros((g, g * k))
        for prompt in range(g):
            weights[prompt, prompt * k : (prompt + 1) * k] = choice(advantages[prompt])
        return weights

    rows = choices(k)
    whole = spread(rows[f"all {k}"])
    full = whole @ products @ whole.T
    found = {}
    for name, choice in rows.items():
        weights = spread(choice)
        own, cross = weights @ products @ weights.T, weights @ products @ whole.T

        def ratio(prompts: np.ndarray, own: np.ndarray = own, cross: np.ndarray = cross) -> float:
            return reached(own, cross, prompts) / reached(full, full, prompts)

        left_out = np.array([ratio(np.delete(everyone, prompt)) for prompt in range(g)])
        error = np.sqrt((g - 1) / g * ((left_out - left_out.mean()) ** 2).sum())
        found[name] = {
            "signal": (own.sum() - np.trace(own)) / (g - 1) / np.trace(own),
            "step": ratio(everyone), "± (95 %)": 1.96 * error,
            "cosine": cross.sum() / np.sqrt(own.sum() * full.sum()), "size": cross.sum() / full.sum(),
        }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--sets", type=int, default=5, help="iterations' worth of prompts")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with alone(arguments.config, arguments.run, arguments.captions, update_images_per_prompt=None) as trainer:
        products, advantages = gradients(trainer, arguments.sets)
    found = compared(products, advantages)
    table = Table(title="Gradients of {} prompts with {} images each".format(*advantages.shape))
    for column in ("images", *next(iter(found.values()))):
        table.add_column(column, justify="left" if column == "images" else "right", no_wrap=True)
    for name, row in found.items():
        digits = {"signal": 4}
        table.add_row(name, *(f"{value:.{digits.get(column, 2)}f}" for column, value in row.items()))
    Console().print(table)


if __name__ == "__main__":
    main()
