"""How an experiment's runs went, iteration by iteration: reward, KL, diversity. One figure for all of its runs.

Where the reward rises and score, held-out reward or diversity do not follow, the policy has found a weakness of the
reward. Runs named NAME-s1, NAME-s2, ... are seeds of one training: they share a colour, their mean is drawn bold.
"""

from __future__ import annotations

import re
from pathlib import Path
from statistics import fmean
from typing import Any

from promptecho.config.descriptors import reward_named
from promptecho.errors import ConfigError, DataError
from promptecho.figures.curves import groups_of
from promptecho.files import write_json
from promptecho.train.metrics import Row, series

MIXED = "weighted sum"  # of several rewards, or of one with another weight than 1
SMOOTHING = 15  # the running mean covers one fifteenth of a run

LABELS = {
    "kl_base": "KL to the base model\n(squared velocity diff.)",
    "kl_ema": "KL to the moving average\n(squared velocity diff.)",
    "diversity": "image diversity\n(RMS distance of latents)",
}

Points = list[list[float]]  # [[iteration, value], ...]


def reward_unit(rows: list[Row]) -> str:
    """The unit of a run's `reward_mean`: that of its only reward where this has weight 1."""
    names: dict[str, list[float]] = {}
    for row in rows:
        for key, value in row.items():
            if (match := re.fullmatch(r"reward_\d+_(.+)", key)) and value is not None:
                names.setdefault(match[1], []).append(value - (row.get("reward_mean") or 0.0))
    if len(names) != 1:
        return MIXED if names else ""
    name, beside = names.popitem()
    return _unit(name) if max(map(abs, beside)) < 1e-6 else MIXED


def _unit(reward: str) -> str:
    """What the numbers of a reward are; its name, where that is not known here."""
    try:
        return reward_named(reward).unit or reward
    except ConfigError:  # one from outside that is not installed; only the runs know it
        return reward


def training_data(experiment: str, metrics: dict[str, list[Row]]) -> dict[str, Any]:
    """Everything that is drawn, as JSON-able numbers: a panel for each thing that any run has recorded.

    Rewards of different units have panels of their own. KL to the moving average is there for the runs that record no
    KL to the base model.

    Args:
        experiment: its name.
        metrics: rows by run.

    Raises:
        DataError: no run has recorded anything that could be drawn.
    """
    panels = []
    units = {run: reward_unit(rows) for run, rows in metrics.items()}
    for unit in sorted(set(units.values()), key=lambda unit: (unit in ("", MIXED), unit)):
        chosen = {run: rows for run, rows in metrics.items() if units[run] == unit}
        label = f"reward ({unit})" if unit else "reward"
        panels.append(_panel("reward_mean", label, chosen, heldout="heldout_reward"))
    without = {run: rows for run, rows in metrics.items() if not series(rows, "kl_base")}
    panels.append(_panel("kl_base", LABELS["kl_base"], metrics))
    panels.append(_panel("kl_ema", LABELS["kl_ema"], without))
    panels.append(_panel("diversity", LABELS["diversity"], metrics))
    panels = [panel for panel in panels if panel["runs"] or panel["heldout"]]
    if not panels:
        raise DataError(f"{experiment}: no run has recorded reward, KL or diversity yet")
    return {"experiment": experiment, "groups": groups_of(list(metrics)), "panels": panels}


def _panel(key: str, label: str, metrics: dict[str, list[Row]], heldout: str = "") -> dict[str, Any]:
    """One metric: every iteration (`runs`), running means, and the same of the means over seeds."""
    groups = groups_of(list(metrics))
    runs = _curves(metrics, key)
    means = _means(groups, runs)
    watched = _curves(metrics, heldout) if heldout else {}
    return {
        "key": key,
        "label": label,
        "runs": runs,
        "means": means,
        "runs_smoothed": {run: smoothed(curve) for run, curve in runs.items()},
        "means_smoothed": {name: smoothed(curve) for name, curve in means.items()},
        "heldout": watched,
        "heldout_means": _means(groups, watched),
    }


def _curves(metrics: dict[str, list[Row]], key: str) -> dict[str, Points]:
    found = {run: [[iteration, value] for iteration, value in series(rows, key)] for run, rows in metrics.items()}
    return {run: curve for run, curve in found.items() if curve}


def _means(groups: dict[str, list[str]], runs: dict[str, Points]) -> dict[str, Points]:
    """Mean of the seeds' curves at the iterations that all have; none for fewer than two seeds."""
    means = {}
    for name, members in groups.items():
        if len(members) > 1 and all(run in runs for run in members):
            values = [{iteration: value for iteration, value in runs[run]} for run in members]
            shared = sorted(set.intersection(*(set(one) for one in values)))
            means[name] = [[iteration, fmean(one[iteration] for one in values)] for iteration in shared]
    return means


def smoothed(curve: Points) -> Points:
    """Running mean over the last n iterations, n a fifteenth of the curve; the curve itself where that is 1."""
    window = max(1, len(curve) // SMOOTHING)
    return [[curve[i][0], fmean(v for _, v in curve[max(0, i + 1 - window) : i + 1])] for i in range(len(curve))]


def write_training(data: dict[str, Any], folder: Path) -> list[Path]:
    """Write training.png, .pdf, .json, .html and single_column/training.pdf; returns their paths.

    Raises:
        DataError: the disk is full or not writable.
    """
    from promptecho.figures.draw_training import draw
    from promptecho.figures.page import write_page
    from promptecho.figures.style import write_widths

    stem = folder / "training"
    paths = write_widths(lambda width: draw(data, width), stem)
    told = stem.with_name("training.json")
    write_json(told, data)
    return [*paths, told, write_page(paths[0], f"{data['experiment']}: how its runs trained")]
