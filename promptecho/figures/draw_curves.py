"""Draw the numbers of `curves.curve_data`: points with error bars, since nothing was measured between them."""

from __future__ import annotations

import textwrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from promptecho.figures.style import ALARM_COLOR, BASE_COLOR, DOUBLE, Look, legend_below, point_style, shortened

SINGLE_SEED: Look = {"linestyle": "none", "markersize": 3, "markerfacecolor": "none", "markeredgewidth": 0.7}
POINT: Look = {"linestyle": "none", "markersize": 4}
ALARM: Look = {
    "linestyle": "none", "marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.2,
    "color": ALARM_COLOR,
}  # fmt: skip


def draw(data: dict[str, Any], width: float) -> Figure:
    """A panel for each score, `width` inches in all: beside each other where there is room, else below; guards at most
    three beside each other."""
    scores = [data["score"], *data["further_scores"]]
    guarded = any(score.get("guard") for score in scores)
    across = (min(len(scores), 3) if guarded else len(scores)) if width >= DOUBLE else 1
    rows = -(-len(scores) // across)
    figure = Figure(figsize=(width, 1.85 * rows + 0.4), layout="constrained")
    panels = list(figure.subplots(rows, across, sharex=True, squeeze=False).flat)
    for panel, score in zip(panels, scores, strict=False):
        _score(panel, data, score)
    for panel in panels[len(scores) :]:
        panel.set_visible(False)
    for panel in panels[max(0, len(scores) - across) : len(scores)]:  # the lowest of each column
        panel.set_xlabel("training iteration")
        panel.tick_params(labelbottom=True)
    legend_below(figure, _handles(data), width)
    return figure


def _score(axes: Axes, data: dict[str, Any], score: dict[str, Any]) -> None:
    told = [*textwrap.wrap(score["title"], 26), *([f"({data['limit']})"] if data.get("limit") else [])]
    axes.set_ylabel("\n".join(told if score.get("guard") else [f"{shortened(data['benchmark'], 26)}:", *told]))
    scale = 1.0 if score.get("guard") else 100.0
    groups, base = data["groups"], score["base"]
    last = max((point["iteration"] for points in score["runs"].values() for point in points), default=0)
    apart = _apart(score, len(groups))
    for index, (name, members) in enumerate(groups.items()):
        look = point_style(index)
        aside = (index - (len(groups) - 1) / 2) * apart  # bars at one iteration are next to each other
        several = len(members) > 1
        if several:
            for run in members:
                xs, ys = _xy(score["runs"][run], aside, scale)
                axes.plot(xs, ys, **(look | SINGLE_SEED), alpha=0.7)
        points = score["means"].get(name, []) if several else score["runs"][name]
        if points:
            xs, ys = _xy(points, aside, scale)
            axes.plot(xs, ys, color=look["color"], linewidth=0.7, alpha=0.5)
            axes.plot(xs, ys, **(look | POINT))
            _bars(axes, xs, points, look["color"], scale)
            alarms = [point for point in points if point["iteration"] in score.get("alarms", {}).get(name, ())]
            axes.plot(*_xy(alarms, aside, scale), **ALARM)
    if score["difference"]:  # from the baseline, which is 0
        axes.axhline(0, color=BASE_COLOR, linestyle=":", linewidth=0.9)
    if base:
        value = scale * base["value"]
        axes.axhline(value, color=BASE_COLOR, linestyle=":", linewidth=0.9)
        axes.plot([0], [value], color=BASE_COLOR, marker="s", markersize=4)
        _bars(axes, [0], [base], BASE_COLOR, scale)
    edge = 0.05 * (last or 1) + apart * (len(groups) - 1) / 2
    axes.set_xlim(-edge, (last or 1) + edge)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))


def _apart(score: dict[str, Any], groups: int) -> float:
    """Iterations between the points of one checkpoint and the next group's: all stay nearer to it than to others."""
    steps = sorted({0, *(point["iteration"] for points in score["runs"].values() for point in points)})
    nearest = min((after - before for before, after in zip(steps, steps[1:], strict=False)), default=0)
    return min(0.015 * steps[-1], 0.6 * nearest / max(groups, 1))


def _handles(data: dict[str, Any]) -> list[Line2D]:
    """The legend: each group, what small marks are, and the base model or baseline."""
    handles = []
    for index, (name, members) in enumerate(data["groups"].items()):
        text = shortened(f"{name}, mean of {len(members)} seeds" if len(members) > 1 else name, 48)
        handles.append(Line2D([], [], **(point_style(index) | POINT), label=text))
    if any(len(members) > 1 for members in data["groups"].values()):
        look = SINGLE_SEED | {"color": BASE_COLOR, "marker": "o"}
        handles.append(Line2D([], [], **look, label="single seeds"))
    if data["score"]["base"]:
        handles.append(Line2D([], [], color=BASE_COLOR, marker="s", markersize=4, linestyle=":", linewidth=0.9,
                              label="base model"))  # fmt: skip
    if any(score.get("alarms") for score in data["further_scores"]):
        handles.append(Line2D([], [], **ALARM, label="trained reward up, guard down"))
    if data["score"]["difference"]:
        handles.append(Line2D([], [], color=BASE_COLOR, linestyle=":", linewidth=0.9, label="baseline"))
    bar = f"bars: {data['confidence']:.0%} intervals"
    return [*handles, Line2D([], [], color=BASE_COLOR, marker="|", markersize=7, linestyle="none", label=bar)]


def _bars(axes: Axes, xs: list[float], points: list[dict[str, Any]], color: str, scale: float) -> None:
    """Each from its interval's lower end to the upper one, wherever between them the value lies."""
    known = [(x, point["low"], point["high"]) for x, point in zip(xs, points, strict=True) if point["low"] is not None]
    middle = [scale * (low + high) / 2 for _, low, high in known]
    half = [scale * (high - low) / 2 for _, low, high in known]
    axes.errorbar(
        [x for x, *_ in known],
        middle,
        yerr=half,
        color=color,
        linestyle="none",
        capsize=2,
        elinewidth=0.9,
        capthick=0.9,
    )


def _xy(points: list[dict[str, Any]], aside: float, scale: float) -> tuple[list[float], list[float]]:
    return [point["iteration"] + aside for point in points], [scale * point["value"] for point in points]
