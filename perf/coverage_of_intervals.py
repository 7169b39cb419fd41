"""What the intervals of the tables cover, and how wide they are, by simulation.

    python perf/coverage_of_intervals.py --out docs/coverage.md      # 20,000 data sets a cell, about a minute

Prompts with four images each whose outcomes go together (intra-class correlation 0, 0.3, 0.7), drawn as counts of kinds
of prompts: a beta-binomial for right and wrong, a Dirichlet-multinomial for pairs that gain, lose or stay. The
intervals are the package's own (`promptecho.intervals.mean_interval`), on all data sets at once.

Width is told as a multiple of the exact one: the distance between the 2.5 % and 97.5 % quantiles of the estimate.
Beside it stands that of Wilson's (or Bonett and Price's) interval of an evaluator who knows the correlation.
"""

from __future__ import annotations

import argparse
import os
import platform
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from scipy.special import gammaln

from promptecho.intervals import CONFIDENCE, Moments, bonett_price, mean_interval, normal_quantile, wilson

IMAGES = 4
CORRELATIONS = (0.0, 0.3, 0.7)
PROMPTS = (20, 48, 100, 400)
ENOUGH, WIDE = 0.93, 1.3


@dataclass(frozen=True)
class Kinds:
    """Kinds of prompts: how many of a prompt's images gain and lose `[K]`, and how often the kind occurs `[K]`."""

    plus: np.ndarray
    minus: np.ndarray
    chance: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.chance @ (self.plus - self.minus)) / IMAGES


def kinds(plus: float, minus: float, correlation: float) -> Kinds:
    """Prompts whose images gain with chance `plus` and lose with chance `minus`, with this intra-class correlation."""
    shares = np.array([plus, minus, 1 - plus - minus])
    counts = np.array([c for c in product(range(IMAGES + 1), repeat=3) if sum(c) == IMAGES], dtype=float)
    counts = counts[(counts[:, shares <= 0] == 0).all(axis=1)]
    there = shares > 0
    c, p = counts[:, there], shares[there]
    log = gammaln(IMAGES + 1) - gammaln(c + 1).sum(axis=1)
    if correlation == 0:
        log = log + c @ np.log(p)
    else:
        a = p * (1 - correlation) / correlation
        log = log + gammaln(a.sum()) - gammaln(IMAGES + a.sum()) + (gammaln(c + a) - gammaln(a)).sum(axis=1)
    return Kinds(counts[:, 0], counts[:, 1], np.exp(log))


def moments(drawn: np.ndarray, kinds: Kinds, weight: float = 1.0) -> Moments:
    """What an interval needs of data sets, given as numbers of prompts of each kind `[R, K]`."""
    n_prompts = int(drawn[0].sum())
    n_items = n_prompts * IMAGES
    plus, minus = drawn @ kinds.plus / n_items, drawn @ kinds.minus / n_items
    mean = plus - minus
    left = (kinds.plus - kinds.minus)[None] - IMAGES * mean[:, None]
    v_prompts = n_prompts / (n_prompts - 1) * (drawn * left**2).sum(axis=1) / n_items**2
    v_items = np.maximum(plus + minus - mean**2, 0) / (n_items - 1)
    return Moments(weight, n_prompts, n_items, IMAGES, plus, minus, v_items, v_prompts)


@dataclass(frozen=True)
class Found:
    """Share of data sets whose interval holds the truth; mean widths as multiples of the exact one."""

    coverage: float
    width: float
    known: float | None

    def row(self) -> str:
        short, wide = self.coverage < ENOUGH, self.width > WIDE
        known = "–" if self.known is None else f"{self.known:.2f}"
        return (
            f"{f'**{100 * self.coverage:.1f}**' if short else f'{100 * self.coverage:.1f}'} | "
            f"{f'**{self.width:.2f}**' if wide else f'{self.width:.2f}'} | {known} |"
        )


def exact_width(estimates: np.ndarray) -> float:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(estimates, [tail, 1 - tail], method="inverted_cdf")
    return float(high - low)


def cell(rng: np.random.Generator, sort: Kinds, n: int, correlation: float, replicates: int, signed: bool) -> Found:
    """One population, `n` prompts."""
    drawn, times = np.unique(rng.multinomial(n, sort.chance, size=replicates), axis=0, return_counts=True)
    found = moments(drawn.astype(float), sort)
    low, high = mean_interval([found], signed=signed)
    exact = exact_width(np.repeat(found.mean, times))
    size, z = n * IMAGES / (1 + (IMAGES - 1) * correlation), normal_quantile(CONFIDENCE)
    known = bonett_price(found.plus, found.minus, size, z) if signed else wilson(found.plus, size, z)
    holds = (low <= sort.mean + 1e-12) & (sort.mean - 1e-12 <= high)
    widths = [float(times @ (b - a)) / replicates / exact for a, b in ((low, high), known)]
    return Found(float(times @ holds) / replicates, *widths)


# Means of groups of different difficulty: GenEval's sub-tasks at their size and at the demo's, TIIF-Bench's attributes;
# (chance to gain, to lose) of each group's images, and its prompts.
STRATA = {
    "GenEval, 6 sub-tasks of 92 prompts": ([(p, 0) for p in (0.99, 0.9, 0.7, 0.85, 0.5, 0.6)], 92),
    "the demo's GenEval, 6 sub-tasks of 11 prompts": ([(p, 0) for p in (0.9, 0.5, 0.2, 0.9, 0.7, 0.3)], 11),
    "2 groups of 12 prompts, one near its end": ([(0.97, 0), (0.5, 0)], 12),
    "6 groups of 11 prompts, all near their end": ([(0.98, 0)] * 6, 11),
    "36 attributes of 4 prompts": ([(p, 0) for p in np.linspace(0.35, 0.95, 36)], 4),
    "6 sub-tasks of 11 prompts, differences": ([(0.1, 0.05), (0.2, 0.05)] * 3, 11),
    "36 attributes of 4 prompts, differences": ([(0.1, 0.05), (0.05, 0.02)] * 18, 4),
}


def stratified(
    rng: np.random.Generator, chances: list[tuple[float, float]], n: int, correlation: float, replicates: int
) -> Found:
    """The mean of groups' means, or of their differences."""
    groups, truth = [], 0.0
    for plus, minus in chances:
        sort = kinds(plus, minus, correlation)
        drawn = rng.multinomial(n, sort.chance, size=replicates).astype(float)
        groups.append(moments(drawn, sort, 1 / len(chances)))
        truth += sort.mean / len(chances)
    low, high = mean_interval(groups, signed=any(minus for _, minus in chances))
    estimates = sum(group.weight * group.mean for group in groups)
    coverage = float(np.mean((low <= truth) & (truth <= high)))
    return Found(coverage, float(np.mean(high - low)) / exact_width(estimates), None)


def tables(replicates: int, seed: int) -> tuple[list[str], list[Found]]:
    """Lines of Markdown, and what is in them."""
    rng, every = np.random.default_rng(seed), []
    columns = " Covers % | Width | Known |"
    lines = ["## Shares", "", f"| p | Correlation | Prompts |{columns}", "| ---: | ---: | ---: | ---: | ---: | ---: |"]
    for p, correlation, n in product((0.5, 0.9, 0.95, 0.97, 0.99), CORRELATIONS, PROMPTS):
        found = cell(rng, kinds(p, 0, correlation), n, correlation, replicates, signed=False)
        lines.append(f"| {p} | {correlation:g} | {n} | {found.row()}")
        every.append(found)
    lines += ["", "## Paired differences", "", f"| Differ | Of these gain | Correlation | Prompts |{columns}"]
    lines.append("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for differ, gain, correlation, n in product((0.05, 0.2), (0.5, 0.75, 1.0), CORRELATIONS, PROMPTS):
        sort = kinds(differ * gain, differ * (1 - gain), correlation)
        found = cell(rng, sort, n, correlation, replicates, signed=True)
        lines.append(f"| {differ:.0%} | {gain:.0%} | {correlation:g} | {n} | {found.row()}")
        every.append(found)
    lines += ["", "## Means of groups", "", f"| Groups | Correlation |{columns}"]
    lines.append("| :--- | ---: | ---: | ---: | ---: |")
    for (name, (chances, n)), correlation in product(STRATA.items(), CORRELATIONS):
        found = stratified(rng, chances, n, correlation, min(replicates, 10_000))
        lines.append(f"| {name} | {correlation:g} | {found.row()}")
        every.append(found)
    return lines, every


def verdict(every: list[Found]) -> str:
    """The tables in a sentence."""
    least, wide = min(found.coverage for found in every), sum(found.width > WIDE for found in every)
    return (
        f"**None of {len(every)} cells covers less than {100 * least:.1f} %; {len(every) - wide} are at most {WIDE} "
        "times as wide as the exact interval.**"
    )


HEAD = """\
# What the intervals cover

The methods are described in [tables.md](tables.md#intervals). Each line is {replicates:,} simulated data sets
({groups:,} for means of groups) of prompts with {images} images each; "Correlation" is how much the images of one
prompt go together (intra-class correlation). "Covers" is the share of 95 % intervals that hold the truth; its standard
error is {error:.2f} points. "Width" is the mean width as a multiple of the distance between the 2.5 % and 97.5 %
quantiles of the estimate itself, and "Known" the same for the plain interval that uses the known correlation.
Bold: less than {enough:.0%}, or more than {wide} times the width.

{verdict}
Wide are those in which hardly any prompt differs from the others, such as 99 % right among 100 prompts or 5 % of the
pairs of 20: a handful of prompts makes the whole variance, and nothing in the data tells whether wrong images come
together. "Known" shows how much of the width would remain if that were known. Where both could not be computed,
coverage was preferred.

```bash
{command}
```

On {machine}, numpy {numpy}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=20_000, help="simulated data sets a cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--machine", default=f"{os.cpu_count()} cores of {platform.machine()}", help="told in the text")
    parser.add_argument("--out", type=Path, help="Markdown file; prints without it")
    given = parser.parse_args()
    lines, every = tables(given.replicates, given.seed)
    head = HEAD.format(
        verdict=verdict(every),
        replicates=given.replicates,
        groups=min(given.replicates, 10_000),
        images=IMAGES,
        error=100 * (0.95 * 0.05 / given.replicates) ** 0.5,
        enough=ENOUGH,
        wide=WIDE,
        command=f"python perf/coverage_of_intervals.py --replicates {given.replicates} --seed {given.seed}",
        machine=given.machine,
        numpy=np.__version__,
    )
    text = "\n".join([head, *lines]) + "\n"
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
