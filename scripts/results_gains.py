"""Blocks of docs/results-shapes.md that compare trainings: by what was changed, by the VLM of the reward, over the
checkpoints, and beside what an audit of the rewards said. They are made of what docs/results keeps, and of nothing
else.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit
from scipy.stats import rankdata

from promptecho.config import ExperimentConfig, load_experiment, run_rewards, run_training, run_vlm
from promptecho.errors import DataError
from promptecho.files import read_json
from promptecho.statistics import Difference, pool_seeds
from promptecho.tables.collect import ScoreFile, find_score_files, read_score_files, same_items
from promptecho.tables.compare import SEED_OF_RUN
from promptecho.tables.kinds import kind_of

STUDIES = ("ablations", "shapes")  # a training that several of them have is taken from the first
REFERENCE = "promptecho"
NOT_RUN = "not run yet"
PICTURES = ("results/gain-by-vlm.png", "results/reward-and-score.png")  # relative to the page
MOST_RANKED = 8  # values of which all orders are tried


def name_of(run: str) -> str:
    """What runs are called that differ by their seed alone."""
    match = SEED_OF_RUN.fullmatch(run)
    return match["name"] if match else run


def kept_files(folder: Path, benchmark: str) -> list[ScoreFile]:
    """The kept score files of an experiment, sorted; none where none are kept."""
    if not any((folder / "scores" / benchmark).glob("*/*.json")):
        return []
    paths = find_score_files([folder], benchmark)
    return read_score_files(paths, read_json(paths[0])["provenance"]["scorer"])


@dataclass(frozen=True)
class Judged:
    """One training at one checkpoint, with the base model that was judged beside it."""

    file: ScoreFile
    base: ScoreFile


@dataclass(frozen=True)
class Training:
    """What the seeds of one training have in common: its experiment, its first run, and its runs by name."""

    name: str
    config: ExperimentConfig
    runs: tuple[str, ...]
    judged: dict[str, dict[int, Judged]]  # run -> checkpoint
    followed: dict[str, dict[int, float]]  # run -> iteration -> reward on held-out captions

    @property
    def last(self) -> dict[str, Judged]:
        """Each judged run at its last checkpoint."""
        return {run: steps[max(steps)] for run, steps in self.judged.items() if steps}

    @property
    def reward(self) -> tuple[str, list[dict[str, Any]]]:
        """The VLM and the rewards, as the configuration says them."""
        entries = [entry.model_dump(mode="json", exclude={"batch_size"}) for entry in self._entries]
        return run_vlm(self.config, self.runs[0]).path, entries

    @property
    def _entries(self) -> list[Any]:
        return run_rewards(self.config, self.runs[0])

    @property
    def asked(self) -> tuple[str, str, str | None, dict[str, Any]] | None:
        """Reward, VLM, query and changed settings of its only reward; None where there are several."""
        if len(self._entries) != 1:
            return None
        entry = self._entries[0]
        default = type(entry.options)().model_dump(mode="json") if entry.options is not None else {}
        given = entry.options.model_dump(mode="json") if entry.options is not None else {}
        settings = {key: value for key, value in given.items() if value != default[key]}
        query = entry.query or self.config.captions.query if "query" in entry.reward.takes else None
        return entry.name, run_vlm(self.config, self.runs[0]).path, query, settings

    @property
    def in_nats(self) -> bool:
        """Whether its rewards are the paper's, in nats per token."""
        return self.asked is not None and self.asked[0] == "echo" and "reduction" not in self.asked[3]

    @property
    def training(self) -> dict[str, Any]:
        """All that decides it but seed and VLM."""
        section = run_training(self.config, self.runs[0]).model_dump(mode="json", exclude={"seed", "reward_vlm"})
        return section | {"rewards": self.reward[1]}


def trainings(kept: Path, configs: Path, benchmark: str, studies: Sequence[str] = STUDIES) -> list[Training]:
    """The trainings of the experiment files, in their order, with what is kept of them."""
    found: dict[str, Training] = {}
    for study in studies:
        config = load_experiment(configs / f"{study}.yaml")
        files = kept_files(kept / study, benchmark)
        base = next((file for file in files if file.scores.provenance.step == 0), None)
        place = kept / study / "training.json"
        followed = read_json(place) if place.is_file() else {}
        for run in config.runs:
            name = name_of(run)
            one = found.setdefault(name, Training(name, config, (), {}, {}))
            if run not in one.runs:
                found[name] = one = Training(name, one.config, (*one.runs, run), one.judged, one.followed)
            mine = [file for file in files if file.scores.provenance.run == run]
            if mine and base is not None and run not in one.judged:
                one.judged[run] = {file.scores.provenance.step: Judged(file, base) for file in mine}
            if run in followed and run not in one.followed:
                one.followed[run] = {int(step): value for step, value in followed[run].items()}
    return list(found.values())


def difference(first: Sequence[ScoreFile], second: Sequence[ScoreFile], what: str) -> Difference:
    """What `second[N]` have more than `first[N]`, paired by prompt and image and pooled over the N.

    Raises:
        DataError: they judged other images.
    """
    for a, b in zip(first, second, strict=True):
        if not same_items(a, b):
            raise DataError(f"{b.path}: judged on other prompts or images than {a.path}; score both alike")
    kind = kind_of(first[0].scores.provenance.scorer, [*first, *second])
    items = [pool_seeds([file.scores.items for file in side]) for side in (first, second)]
    return next(iter(kind.differences(*items, what).values()))


def gain(some: Sequence[Judged], what: str) -> Difference:
    """What trainings have more than their base models."""
    return difference([one.base for one in some], [one.file for one in some], what)


def signed(value: float, decimals: int = 1) -> str:
    text = f"{value:+.{decimals}f}"
    return text if float(text) else text[1:]


def points(found: Difference) -> str:
    """In points, with the interval."""
    return f"{signed(100 * found.value)} [{signed(100 * found.low)}, {signed(100 * found.high)}]"


def mean_of_seeds(values: Sequence[float]) -> str:
    """The mean of the seeds' gains with Student's 95 % interval, for which trainings are random; in points."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return "–"
    half = float(stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return f"{signed(100 * mean)} [{signed(100 * (mean - half))}, {signed(100 * (mean + half))}], n {len(values)}"


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table whose first column is text."""
    rule = ["---:" if index else ":---" for index in range(len(head))]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]


def gains_block(kept: Path, configs: Path, benchmark: str) -> list[str]:
    """What each training gains, seed by seed and together, and how that differs from the reference's."""
    found = trainings(kept, configs, benchmark, STUDIES)
    seeds = max(len(one.runs) for one in found)
    head = ["Training", *(f"Seed {k + 1}" for k in range(seeds)), "Seeds together, prompts random"]
    head += ["Mean of seeds, seeds random", f"Less {REFERENCE}"]
    rows, told = [], []
    reference = next(one for one in found if one.name == REFERENCE)
    for one in found:
        done = one.last
        cells = [points(gain([done[run]], run)) if run in done else NOT_RUN for run in one.runs]
        cells += ["–"] * (seeds - len(cells))
        if not done:
            rows.append([one.name, *cells, NOT_RUN, NOT_RUN, "–" if one is reference else NOT_RUN])
            continue
        values = [gain([some], run).value for run, some in done.items()]
        cells += [points(gain(list(done.values()), one.name)), mean_of_seeds(values)]
        beside = _beside(reference, one)
        rows.append([one.name, *cells, "–" if beside is None else points(beside)])
        if beside is not None:
            word = "less than" if beside.high < 0 else "more than" if beside.low > 0 else "not told apart from"
            told.append(f"- {one.name}: {points(beside)} points beside {REFERENCE}: {word} it.")
    return [*grid(head, rows), "", *told, *([""] if told else [])]


def _beside(reference: Training, other: Training) -> Difference | None:
    """What `other` has more than the reference over the seeds that both have; None for the reference or without any."""
    first, second = ({_seed(run): some for run, some in one.last.items()} for one in (reference, other))
    both = sorted(first.keys() & second.keys())
    if not both or reference is other:
        return None
    return difference([first[seed].file for seed in both], [second[seed].file for seed in both], other.name)


def _seed(run: str) -> str:
    return run.removeprefix(name_of(run))


def sizes(kept: Path, configs: Path, benchmark: str) -> list[dict[str, Any]]:
    """Trainings that differ from the reference in the reward's VLM alone, the reference first."""
    found = trainings(kept, configs, benchmark)
    reference = next(one for one in found if one.name == REFERENCE)
    place = kept / "vlms.json"
    parameters = read_json(place) if place.is_file() else {}
    rows = []
    for one in found:
        if one.training == reference.training and (one is reference or one.reward[0] != reference.reward[0]):
            done = list(one.last.values())
            rows.append(
                {
                    "name": one.name, "parameters": parameters.get(one.reward[0]),
                    "gain": gain(done, one.name) if done else None,
                    "seeds": [gain([some], one.name).value for some in done],
                }
            )  # fmt: skip
    return rows


def sizes_block(kept: Path, configs: Path, benchmark: str) -> list[str]:
    """Gain against the parameters of the reward's VLM."""
    head = ["Reward's VLM", "Parameters, millions", "Seeds together, prompts random", "Mean of seeds, seeds random",
            "Each seed"]  # fmt: skip
    rows = []
    for one in sizes(kept, configs, benchmark):
        size = NOT_RUN if one["parameters"] is None else f"{one['parameters'] / 1e6:.2f}"
        if one["gain"] is None:
            rows.append([one["name"], size, NOT_RUN, NOT_RUN, NOT_RUN])
            continue
        seeds = " ".join(signed(100 * value) for value in one["seeds"])
        rows.append([one["name"], size, points(one["gain"]), mean_of_seeds(one["seeds"]), seeds])
    drawn = f"![Gain on held-out captions against the parameters of the reward's VLM]({PICTURES[0]})"
    note = "*VLMs of nearly the same size are drawn side by side; the table has their sizes.*"
    return [*grid(head, rows), "", *([drawn, "", note, ""] if len(drawn_sizes(kept, configs, benchmark)) > 1 else [])]


def drawn_sizes(kept: Path, configs: Path, benchmark: str) -> list[dict[str, Any]]:
    """Those of `sizes` that have a place in the picture, the smallest VLM first."""
    rows = [one for one in sizes(kept, configs, benchmark) if one["gain"] is not None and one["parameters"]]
    return sorted(rows, key=lambda one: one["parameters"])


def paths(kept: Path, configs: Path, benchmark: str) -> list[tuple[Training, list[dict[str, Any]]]]:
    """For each training whose metrics are kept, its iterations with a reward on held-out captions: the mean of this
    over seeds, and what they gain over the base model (None where one was not judged, and at 0)."""
    found = []
    for one in trainings(kept, configs, benchmark):
        runs = [run for run in one.runs if run in one.followed and run in one.judged]
        steps = sorted(set.intersection(*(set(one.followed[run]) for run in runs))) if runs else []
        rows = []
        for step in steps:
            done = [one.judged[run][step] for run in runs if step in one.judged[run]]
            rows.append(
                {
                    "iteration": step, "reward": float(np.mean([one.followed[run][step] for run in runs])),
                    "judged": done, "gain": gain(done, one.name) if len(done) == len(runs) else None,
                }
            )  # fmt: skip
        if rows:
            found.append((one, rows))
    return found


def path_block(kept: Path, configs: Path, benchmark: str) -> list[str]:
    """Reward on held-out captions beside the score, over the iterations of each training."""
    found = paths(kept, configs, benchmark)
    if not found:
        return [f"No metrics are kept: {NOT_RUN}.", ""]
    rows, told = [], []
    for one, steps in found:
        rows += [
            [one.name, str(row["iteration"]), signed(row["reward"], 3), _gained(row)] for row in steps
        ]  # fmt: skip
        told += _told_of(one, steps)
    head = ["Training", "Iteration", "Reward on held-out captions", "Gain in score"]
    drawn = f"![Gain in score against the reward on held-out captions, by iteration]({PICTURES[1]})"
    lines = [*grid(head, rows), "", *told, *([""] if told else [])]
    return [*lines, *([drawn, ""] if drawn_paths(kept, configs, benchmark) else [])]


def drawn_paths(kept: Path, configs: Path, benchmark: str) -> list[tuple[Training, list[dict[str, Any]]]]:
    """Those of `paths` that have a place in the picture: rewards of the paper's unit, and judged iterations."""
    found = [
        (one, [row for row in rows if row["gain"] is not None or row["iteration"] == 0])
        for one, rows in paths(kept, configs, benchmark) if one.in_nats
    ]  # fmt: skip
    return [(one, rows) for one, rows in found if len(rows) > 1]


def _gained(row: dict[str, Any]) -> str:
    if row["iteration"] == 0:
        return "0 (the base model)"
    return "not judged" if row["gain"] is None else points(row["gain"])


def _told_of(one: Training, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Whether the score follows the reward from one judged checkpoint to the next, and where the reward is highest."""
    told = []
    judged = [row for row in rows if row["gain"] is not None or row["iteration"] == 0]
    for before, after in itertools.pairwise(judged):
        first = [some.base for some in after["judged"]] if before["iteration"] == 0 else [
            some.file for some in before["judged"]
        ]  # fmt: skip
        change = difference(first, [some.file for some in after["judged"]], one.name)
        reward = after["reward"] - before["reward"]
        score = "rises" if change.low > 0 else "falls" if change.high < 0 else "does not change beyond its interval"
        hacked = "; the reward rises while the score falls" if reward > 0 and change.high < 0 else ""
        told.append(
            f"- {one.name}, iteration {before['iteration']} to {after['iteration']}: the reward changes by "
            f"{signed(reward, 3)}, and the score {score}: {points(change)} points{hacked}."
        )
    top = max(rows, key=lambda row: row["reward"])
    told.append(f"- {one.name}: of the iterations listed the reward is highest at {top['iteration']}.")
    return told


MEASURES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "AUC within a prompt": lambda one: one["auc"],
    "Changed images": lambda one: one["image"],
    "Changed captions": lambda one: one["text"],
}


def audit_block(kept: Path, configs: Path, benchmark: str) -> list[str]:
    """What an audit said of each reward, beside what a training with it gained."""
    place = kept / "audit.json"
    audit = read_json(place) if place.is_file() else {"candidates": []}
    rows, pairs = [], []
    seen: list[Any] = []
    for one in trainings(kept, configs, benchmark):
        control = run_training(one.config, one.runs[0]).control
        if control != "none" or one.asked is None or one.asked in seen:
            continue  # other trainings with the reward of one before
        seen.append(one.asked)
        asked = next((some for some in audit["candidates"] if _same(some, one.asked)), None)
        done = list(one.last.values())
        gained = gain(done, one.name) if done else None
        cells = [_measured(asked, key) for key in MEASURES]
        rows.append([one.name, *cells, NOT_RUN if gained is None else f"{points(gained)}, {_counted(len(done))}"])
        if asked is not None and asked["failed"] is None and gained is not None:
            pairs.append((asked, gained.value))
    lines = [*grid(["Reward of", *(f"{key}, %" for key in MEASURES), "Trained gain"], rows), ""]
    for key, measure in MEASURES.items():
        some = [(measure(asked)["value"], value) for asked, value in pairs if measure(asked) is not None]
        lines.append(f'- Rank correlation of "{key}" with the gain: {rank_correlation(some)}.')
    if "settings" in audit:
        asked_of = audit["settings"]
        images = ", ".join(f"`{name}`" for name in asked_of["images"])
        lines += ["", f"Audited on {asked_of['n']} captions (`{asked_of['captions']}`) and the images {images}."]
    return [*lines, ""]


def _counted(n: int) -> str:
    return "1 seed" if n == 1 else f"{n} seeds"


def _same(candidate: dict[str, Any], asked: tuple[str, str, str | None, dict[str, Any]]) -> bool:
    return (candidate["reward"], candidate["vlm"], candidate["query"], candidate["settings"]) == asked


def _measured(candidate: dict[str, Any] | None, key: str) -> str:
    if candidate is None:
        return "not audited yet"
    if candidate["failed"] is not None:
        return "can't be asked"
    found = MEASURES[key](candidate)
    return "–" if found is None else f"{100 * found['value']:.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> str:
    """Spearman's, with n and the two-sided p over all orders of so few values."""
    n = len(pairs)
    if n < 4:
        return f"{NOT_RUN} (n = {n}; four are needed)"
    x, y = (rankdata(side) for side in zip(*pairs, strict=True))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return f"none, as all of one side are equal (n = {n})"
    r = float(np.corrcoef(x, y)[0, 1])
    if n > MOST_RANKED:
        return f"{signed(r, 2)} (n = {n})"
    all_orders = [abs(float(np.corrcoef(x, order)[0, 1])) for order in itertools.permutations(y)]
    p = float(np.mean([value >= abs(r) - 1e-9 for value in all_orders]))
    return f"{signed(r, 2)} (n = {n}, p {'< 0.001' if p < 0.0005 else f'= {p:.3f}'})"
