"""Difference between two recipes that were trained with the same seeds, on the same held-out captions.

    python scripts/compare_runs.py results/shapes kaiming gaussian --step 12

Runs are named RECIPE-sSEED. Prints a table in Markdown: for each seed both scores and their difference, paired by
prompt, with a 95 % bootstrap interval over prompts; then all seeds together, over prompts (seeds as they are) and over
seeds (Student's t with as many degrees of freedom as seeds less one: wide with three). The held-out reward of the last
iteration stands beside it: the same images' log-probability, which is less noisy than right or wrong.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import fmean, stdev

from scipy.stats import t as student

from promptecho.errors import DataError, counted
from promptecho.files import read_jsonl
from promptecho.scores import read_scores
from promptecho.statistics import Difference, mean_of_group_means, paired_difference, pool_seeds


def over_seeds(values: list[float]) -> tuple[float, float]:
    """95 % interval of the mean of a few seeds' differences; without bounds for a single one."""
    if len(values) < 2:
        return float("-inf"), float("inf")
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return fmean(values) - half, fmean(values) + half


def heldout_reward(metrics: Path) -> float | None:
    """The last value of a finished segment; None where the run watched none."""
    rows = read_jsonl(metrics) if metrics.is_file() else []
    return next((row["heldout_reward"] for row in reversed(rows) if "heldout_reward" in row), None)


def common_seeds(folder: Path, first: str, second: str, step: int) -> list[str]:
    """Seeds of which both recipes have a score.

    Raises:
        DataError: there is none.
    """
    have = [{path.parent.name.removeprefix(f"{name}-s") for path in folder.glob(f"{name}-s*/{step}.json")}
            for name in (first, second)]  # fmt: skip
    if seeds := sorted(have[0] & have[1]):
        return seeds
    raise DataError(f"{folder}: no seed of which both {first} and {second} are scored at {step}")


def table(results: Path, first: str, second: str, step: int, benchmark: str) -> str:
    folder = results / "scores" / benchmark
    seeds = common_seeds(folder, first, second, step)
    items = {(name, seed): read_scores(folder / f"{name}-s{seed}" / f"{step}.json").items
             for name in (first, second) for seed in seeds}  # fmt: skip

    def share(name: str, which: list[str]) -> str:
        pooled = pool_seeds([items[name, seed] for seed in which])
        return f"{100 * mean_of_group_means(pooled, ungrouped=True, what=name)[0].value:.1f}"

    def difference(which: list[str]) -> Difference:
        a, b = (pool_seeds([items[name, seed] for seed in which]) for name in (first, second))
        return paired_difference(a, b, ungrouped=True, what=f"{second} against {first}")

    def told(value: float, low: float, high: float, decimals: int = 1, scale: float = 100) -> str:
        return "{:+.{d}f} [{:+.{d}f}, {:+.{d}f}]".format(*(scale * x for x in (value, low, high)), d=decimals)

    def of_rewards(seed: str) -> float | None:
        values = [heldout_reward(results / "runs" / f"{name}-s{seed}" / str(step) / "metrics.jsonl")
                  for name in (first, second)]  # fmt: skip
        return None if None in values else values[1] - values[0]

    rewards = [value for seed in seeds if (value := of_rewards(seed)) is not None]
    lines = [f"| Seed | {first} | {second} | {second} - {first} | Held-out reward |"]
    lines.append("| :--- | ---: | ---: | ---: | ---: |")
    for seed in seeds:
        one, reward = difference([seed]), of_rewards(seed)
        shown = "–" if reward is None else f"{reward:+.3f}"
        scores = f"{share(first, [seed])} | {share(second, [seed])}"
        lines.append(f"| {seed} | {scores} | {told(one.value, one.low, one.high)} | {shown} |")
    every = difference(seeds)
    head = f"| {counted(len(seeds), 'seed')}, over prompts | {share(first, seeds)} | {share(second, seeds)}"
    lines.append(f"{head} | {told(every.value, every.low, every.high)} | |")
    spread = told(every.value, *over_seeds([difference([seed]).value for seed in seeds]))
    reward = told(fmean(rewards), *over_seeds(rewards), decimals=3, scale=1) if rewards else "–"
    lines.append(f"| {counted(len(seeds), 'seed')}, over seeds | | | {spread} | {reward} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="results/E")
    parser.add_argument("first", help="a recipe: runs FIRST-s1, FIRST-s2, ...")
    parser.add_argument("second", help="the recipe that is compared with it")
    parser.add_argument("--step", type=int, required=True, help="checkpoint of both")
    parser.add_argument("--benchmark", default="heldout")
    given = parser.parse_args()
    try:
        print(table(given.results, given.first, given.second, given.step, given.benchmark))
    except DataError as error:
        sys.exit(f"compare_runs: {error}")


if __name__ == "__main__":
    main()
