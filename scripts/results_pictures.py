"""Pictures of docs/results-shapes.md; their numbers stand in the page's tables."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from results_gains import PICTURES, drawn_paths, drawn_sizes

from promptecho.figures.style import COLORS, save, style

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
    x = _apart([one["parameters"] / 1e6 for one in rows])
    y = [100 * one["gain"].value for one in rows]
    ends = [[100 * (one["gain"].value - one["gain"].low) for one in rows],
            [100 * (one["gain"].high - one["gain"].value) for one in rows]]  # fmt: skip
    axes.errorbar(
        x, y, yerr=ends, color=COLORS[0], marker="o", markersize=5, linestyle="none", elinewidth=1.2, capsize=3,
        label="seeds together, 95 % over prompts",
    )  # fmt: skip
    for place, one in zip(x, rows, strict=True):
        seeds = [100 * value for value in one["seeds"]]
        axes.plot([place] * len(seeds), seeds, "o", markersize=3.5, markerfacecolor="white", color=COLORS[1],
                  label="each seed" if one is rows[0] else None)  # fmt: skip
        axes.annotate(one["name"], (place, 100 * one["gain"].high), xytext=(0, 5), textcoords="offset points",
                      ha="center")  # fmt: skip
    axes.axhline(0, color="#555555", linewidth=0.6)
    axes.margins(x=0.15, y=0.15)
    axes.set_xscale("log")
    sizes = sorted({float(f"{one['parameters'] / 1e6:.2g}") for one in rows})
    axes.set_xticks(sizes, [f"{value:g}" for value in sizes])
    axes.minorticks_off()
    axes.set_xlabel("parameters of the reward's VLM, millions")
    axes.set_ylabel("gain on held-out captions, points")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _apart(sizes: list[float]) -> list[float]:
    """Places on a logarithmic axis: VLMs of nearly the same size stand side by side, each 40 % further to the right."""
    places: list[float] = []
    for size in sizes:
        alike = sum(abs(size / other - 1) < 0.05 for other in sizes[: len(places)])
        places.append(size * 1.4**alike)
    return places


def _reward_and_score(kept: Path, configs: Path, benchmark: str) -> Figure | None:
    """Score against reward over the checkpoints of each training whose rewards have the paper's unit."""
    found = drawn_paths(kept, configs, benchmark)
    if not found:
        return None
    columns = min(4, len(found))
    height = 1.5 * -(-len(found) // columns) + 0.3
    figure = Figure(figsize=(1.6 * columns + 0.4, height), layout="constrained")
    panels = figure.subplots(-(-len(found) // columns), columns, sharey=True, squeeze=False).flat
    for (one, rows), axes in zip(found, panels, strict=False):
        gains = [row["gain"] for row in rows]
        y = [0.0 if gain is None else 100 * gain.value for gain in gains]
        ends = [[0.0 if gain is None else 100 * (gain.value - gain.low) for gain in gains],
                [0.0 if gain is None else 100 * (gain.high - gain.value) for gain in gains]]  # fmt: skip
        x = [row["reward"] for row in rows]
        axes.errorbar(x, y, yerr=ends, color=COLORS[0], marker="o", markersize=4, linewidth=1.2, capsize=2.5)
        for row, place, value in zip(rows, x, y, strict=True):
            axes.annotate(str(row["iteration"]), (place, value), xytext=(4, -9), textcoords="offset points")
        axes.axhline(0, color="#555555", linewidth=0.6)
        axes.margins(x=0.2, y=0.1)
        axes.set_title(one.name)
        axes.locator_params(axis="x", nbins=3)
    for axes in list(panels):
        axes.set_axis_off()
    figure.supxlabel("reward on held-out captions, nats per token", fontsize="medium")
    figure.supylabel("gain, points", fontsize="medium")
    return figure
