"""Pictures of docs/results-shapes.md; their numbers stand in the page's tables."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from results_gains import PICTURES, drawn_paths, drawn_sizes

from promptecho.figures.style import COLORS, MARKERS, save, style

WIDTH, HEIGHT = 4.6, 2.9  # inches


def draw_pictures(kept: Path, configs: Path, benchmark: str) -> list[Path]:
    """Write the pictures that there are numbers for, beside the kept scores; returns their paths."""
    drawn = []
    with style():
        for place, draw in zip(PICTURES, (_gain_by_vlm, _reward_and_score), strict=True):
            figure = draw(kept, configs, benchmark)
            if figure is not None:
                drawn.append(kept / Path(place).name)
                save(figure, drawn[-1], dpi=200)
    return drawn


def _gain_by_vlm(kept: Path, configs: Path, benchmark: str) -> Figure | None:
    """Gain against parameters: bars are intervals over prompts, hollow markers the seeds."""
    rows = drawn_sizes(kept, configs, benchmark)
    if len(rows) < 2:
        return None
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    x = [one["parameters"] / 1e6 for one in rows]
    y = [100 * one["gain"].value for one in rows]
    ends = [[100 * (one["gain"].value - one["gain"].low) for one in rows],
            [100 * (one["gain"].high - one["gain"].value) for one in rows]]  # fmt: skip
    axes.errorbar(x, y, yerr=ends, color=COLORS[0], marker="o", markersize=5, linewidth=1.2, capsize=3,
                  label="seeds together, 95 % over prompts")  # fmt: skip
    for place, one in zip(x, rows, strict=True):
        seeds = [100 * value for value in one["seeds"]]
        axes.plot([place] * len(seeds), seeds, "o", markersize=3.5, markerfacecolor="white", color=COLORS[1],
                  label="each seed" if one is rows[0] else None)  # fmt: skip
        axes.annotate(one["name"], (place, 100 * one["gain"].high), xytext=(0, 5), textcoords="offset points",
                      ha="center")  # fmt: skip
    axes.axhline(0, color="#555555", linewidth=0.6)
    axes.margins(x=0.15, y=0.15)
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{value:.2g}" for value in x])
    axes.minorticks_off()
    axes.set_xlabel("parameters of the reward's VLM, millions")
    axes.set_ylabel("gain on held-out captions, points")
    axes.legend(loc="best")
    return figure


def _reward_and_score(kept: Path, configs: Path, benchmark: str) -> Figure | None:
    """Score against reward over the checkpoints of each training whose rewards have the paper's unit."""
    found = drawn_paths(kept, configs, benchmark)
    if not found:
        return None
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    for index, (one, rows) in enumerate(found):
        gains = [row["gain"] for row in rows]
        y = [0.0 if gain is None else 100 * gain.value for gain in gains]
        ends = [[0.0 if gain is None else 100 * (gain.value - gain.low) for gain in gains],
                [0.0 if gain is None else 100 * (gain.high - gain.value) for gain in gains]]  # fmt: skip
        x = [row["reward"] for row in rows]
        look = {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)]}
        axes.errorbar(x, y, yerr=ends, markersize=4.5, linewidth=1.2, capsize=2.5, label=one.name, **look)
        for row, place, value in zip(rows, x, y, strict=True):
            axes.annotate(str(row["iteration"]), (place, value), xytext=(5, -9), textcoords="offset points")
    axes.axhline(0, color="#555555", linewidth=0.6)
    axes.margins(x=0.12, y=0.1)
    axes.set_xlabel("reward on held-out captions, nats per token")
    axes.set_ylabel("gain on held-out captions, points")
    axes.legend(loc="upper left")
    return figure
