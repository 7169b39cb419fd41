"""Draw the numbers of `training.training_data`, and nothing else."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from promptecho.figures.style import BASE_COLOR, DOUBLE, Look, legend_below, line_style, shortened

Points = list[list[float]]
FAINT: Look = {"linewidth": 0.5, "alpha": 0.35}
LONE: Look = {"marker": "o", "markersize": 2.5}  # a line needs two points
BOLD: Look = {"linewidth": 1.4}
WATCHED: Look = {"marker": "o", "markersize": 3.5, "markerfacecolor": "white", "markeredgewidth": 0.9,
                 "linewidth": 0.8}  # fmt: skip


def draw(data: dict[str, Any], width: float) -> Figure:
    """The panels, `width` inches in all: beside each other where there is room (at most three), else below."""
    count = len(data["panels"])
    across = min(count, 2 if count == 4 else 3) if width >= DOUBLE else 1
    rows = -(-count // across)
    figure = Figure(figsize=(width, 1.85 * rows + 0.4), layout="constrained")
    grid = figure.add_gridspec(rows, across)
    places = [figure.add_subplot(grid[divmod(index, across)]) for index in range(count)]
    for index, (axes, panel) in enumerate(zip(places, data["panels"], strict=True)):
        _metric(axes, data["groups"], panel)
        axes.set_ylabel(panel["label"])
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
        if index + across < count:
            axes.sharex(places[-1])
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel("training iteration")
    legend_below(figure, _handles(data), width)
    return figure


def _metric(axes: Axes, groups: dict[str, list[str]], panel: dict[str, Any]) -> None:
    """Faint: every iteration of every run. Bold: the running mean of a run, or of its seeds' mean."""
    for index, (name, members) in enumerate(groups.items()):
        look = line_style(index)
        several = len(members) > 1
        for run in members:
            if run in panel["runs"]:
                lone = LONE if len(panel["runs"][run]) == 1 else Look()
                axes.plot(*_columns(panel["runs"][run]), **(look | FAINT | lone))
            if several and run in panel["heldout"]:
                axes.plot(*_columns(panel["heldout"][run]), **(FAINT | {"color": look["color"]}))
        which = ("means_smoothed", "heldout_means") if several else ("runs_smoothed", "heldout")
        bold, watched = (panel[key].get(name) for key in which)
        if bold:
            axes.plot(*_columns(bold), **(look | BOLD))
        if watched:
            axes.plot(*_columns(watched), **(look | WATCHED))


def _handles(data: dict[str, Any]) -> list[Line2D]:
    handles = []
    for index, (name, members) in enumerate(data["groups"].items()):
        text = shortened(f"{name}, mean of {len(members)} seeds" if len(members) > 1 else name, 48)
        handles.append(Line2D([], [], **(line_style(index) | BOLD), label=text))
    smooth = any(_smooth(panel) for panel in data["panels"])
    several = any(len(members) > 1 for members in data["groups"].values())
    if smooth or several:  # else the bold curves hide the faint ones
        handles.append(Line2D([], [], color=BASE_COLOR, linewidth=0.5, alpha=0.6, label="each iteration"))
    if smooth:
        handles.append(Line2D([], [], **(BOLD | {"color": BASE_COLOR}), label="running mean, last 1/15 of a run"))
    if any(panel["heldout"] for panel in data["panels"]):
        handles.append(Line2D([], [], **(WATCHED | {"color": BASE_COLOR}), label="reward on held-out captions"))
    return handles


def _smooth(panel: dict[str, Any]) -> bool:
    """Whether a bold curve is another than the faint one: short runs have no running mean."""
    return any(panel[f"{key}_smoothed"] != panel[key] for key in ("runs", "means"))


def _columns(curve: Points) -> tuple[list[float], list[float]]:
    return [x for x, _ in curve], [y for _, y in curve]
