"""Draw the numbers of `curves.curve_data`, and nothing else."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from promptecho.figures.style import BASE_COLOR, label_ends, line_style

Curve = list[list[float]]


def draw(data: dict[str, Any]) -> Figure:
    """Panels over the iteration: the scores, reward, KL, diversity."""
    scores = [data["score"], *data["further_scores"]]
    used = len(scores) + 3
    rows = (used + 1) // 2
    figure = Figure(figsize=(10, 3.2 * rows), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
    panels = list(figure.subplots(rows, 2, sharex=True).flat)
    for panel in panels[used:]:
        panel.set_visible(False)
    panels = panels[:used]
    for panel, score in zip(panels, scores, strict=False):
        _score(panel, data, score)
    _reward(panels[-3], data)
    kl = "kl_base" if data["metrics"]["kl_base"]["runs"] else "kl_ema"
    to = "base model" if kl == "kl_base" else "moving average of the policy"
    _metric(panels[-2], data, kl, f"KL to the {to}")
    _metric(panels[-1], data, "diversity", "Image diversity (RMS distance within a prompt)")
    for panel in panels:
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    for panel in panels[-2:]:
        panel.tick_params(labelbottom=True)
        panel.set_xlabel("iteration")
    figure.suptitle(f"{data['experiment']}: learning curves", x=0.01, ha="left")
    return figure


def _score(axes: Axes, data: dict[str, Any], score: dict[str, Any]) -> None:
    ends = []
    axes.set_title(f"{data['benchmark']}: {score['title']} (%), {data['confidence']:.0%} intervals")
    base = score["base"]
    start = [base] if base else []
    for index, (name, members) in enumerate(data["groups"].items()):
        look = line_style(index)
        for run in members:
            if len(members) > 1 and score["runs"][run]:
                points = start + score["runs"][run]
                axes.plot(*_xy(points), **look, linewidth=0.8, alpha=0.6)
        points = score["means"].get(name) if len(members) > 1 else score["runs"][name]
        if points:
            points = start + points
            xs, ys = _xy(points)
            axes.fill_between(
                xs, [100 * p["low"] for p in points], [100 * p["high"] for p in points],
                color=look["color"], alpha=0.15, linewidth=0,
            )  # fmt: skip
            if len(points) == 1:  # no band to see
                axes.errorbar(xs, ys, yerr=_error(points[0]), color=look["color"], capsize=3)
            axes.plot(xs, ys, **look, linewidth=2, marker="o", markersize=4)
            ends.append((_label(name, members), ys[-1], look["color"]))
    if score["difference"]:  # from the baseline, which is 0
        axes.axhline(0, color=BASE_COLOR, linestyle=":", linewidth=1)
        ends.append(("baseline", 0.0, BASE_COLOR))
    if base:
        value = 100 * base["value"]
        axes.axhline(value, color=BASE_COLOR, linestyle=":", linewidth=1)
        axes.errorbar([0], [value], yerr=_error(base), color=BASE_COLOR, marker="s", markersize=5, capsize=3, zorder=5)
        ends.append(("base model", value, BASE_COLOR))
    label_ends(axes, ends)


def _error(point: dict[str, float]) -> list[list[float]]:
    return [[100 * (point["value"] - point["low"])], [100 * (point["high"] - point["value"])]]


def _reward(axes: Axes, data: dict[str, Any]) -> None:
    axes.set_title("Reward: training, held-out (circles)")
    ends = _iterations(axes, data, "reward_mean")
    held = data["metrics"]["heldout_reward"]
    for index, (name, members) in enumerate(data["groups"].items()):
        color = line_style(index)["color"]
        if len(members) > 1:
            for run in members:
                if run in held["runs"]:
                    axes.plot(*_columns(held["runs"][run]), color=color, linewidth=0.6, alpha=0.5)
        if curve := _bold(held, name, members):
            axes.plot(*_columns(curve), color=color, marker="o", markersize=5, markerfacecolor="white", linewidth=1.2)
            ends.append((f"{name}, held-out", curve[-1][1], color))
    _finish(axes, ends)


def _metric(axes: Axes, data: dict[str, Any], key: str, title: str) -> None:
    axes.set_title(title)
    _finish(axes, _iterations(axes, data, key))


def _iterations(axes: Axes, data: dict[str, Any], key: str) -> list[tuple[str, float, str]]:
    """Faint: every iteration of every run. Bold: the running mean of a run, or of its seeds' mean. Returns labels."""
    raw, smooth, ends = data["metrics"][key], data["metrics"][f"{key}_smoothed"], []
    for index, (name, members) in enumerate(data["groups"].items()):
        look = line_style(index)
        for run in members:
            if run in raw["runs"]:
                axes.plot(*_columns(raw["runs"][run]), **look, linewidth=0.7, alpha=0.35)
        if curve := _bold(smooth, name, members):
            axes.plot(*_columns(curve), **look, linewidth=2)
            ends.append((_label(name, members), curve[-1][1], look["color"]))
    return ends


def _bold(found: dict[str, Any], name: str, members: list[str]) -> Curve | None:
    return found["means"].get(name) if len(members) > 1 else found["runs"].get(name)


def _finish(axes: Axes, ends: list[tuple[str, float, str]]) -> None:
    if ends:
        label_ends(axes, ends)
    else:
        axes.yaxis.set_visible(False)
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=BASE_COLOR)


def _label(name: str, members: list[str]) -> str:
    return f"{name}, {len(members)} seeds" if len(members) > 1 else name


def _xy(points: list[dict[str, float]]) -> tuple[list[float], list[float]]:
    return [point["iteration"] for point in points], [100 * point["value"] for point in points]


def _columns(curve: Curve) -> tuple[list[float], list[float]]:
    return [x for x, _ in curve], [y for _, y in curve]
