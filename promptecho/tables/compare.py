"""Tables of models compared with their base: groups, Overall, paired differences, and training seeds taken together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

import promptecho
from promptecho.errors import DataError
from promptecho.provenance import git_commit
from promptecho.scores import ScoreItem
from promptecho.statistics import (
    CONFIDENCE,
    RESAMPLES,
    Difference,
    Estimate,
    mean_of_group_means,
    paired_difference,
    pool_seeds,
)
from promptecho.tables.collect import ScoreFile
from promptecho.tables.table import Cell, Column, Table

MAX_FAILURE_SHARE = 0.01
SEED_OF_RUN = re.compile(r"(?P<name>.+)-s[0-9]+")  # how runs that differ by seed alone are named
PERCENT = Column(key="", label="", decimals=1, unit="%", interval=True, best=True)
MODEL = Column("model", "Model", decimals=None)
OVERALL = replace(PERCENT, key="overall", label="Overall")
DELTA = replace(PERCENT, key="delta", label="Δ vs base", signed=True, best=False)
PROMPTS = Column("prompts", "Prompts", decimals=0)
IMAGES = Column("images", "Images", decimals=0)
FAILURES = Column("failures", "Failed", decimals=0)
# Only where seeds are taken together; after the difference.
SEEDS = [
    Column("seeds", "Seeds", decimals=0),
    replace(DELTA, key="seed_sd", label="s.d. over seeds", signed=False, interval=False),
]


@dataclass(frozen=True)
class Kind:
    """What one benchmark's table has of its own.

    `groups`: name -> label of those with a column; `ungrouped`: groups that count for Overall alone. `stratified`:
    Overall is the unweighted mean of the groups, otherwise the mean over all images. `rules` is the first footnote,
    formatted with the provenance's `mode` and `judge_model`.
    """

    title: str
    groups: dict[str, str]
    columns: list[Column]
    rules: str
    stratified: bool
    group_word: str = "group"
    ungrouped: tuple[str, ...] = ()

    def estimates(self, items: Sequence[ScoreItem], what: str) -> tuple[Estimate, dict[str, Estimate]]:
        """Overall and the groups that have outcomes."""
        if self.stratified:
            return mean_of_group_means(items, what=what)
        judged = {item.group for item in items if not item.failed}
        groups = {
            group: mean_of_group_means([item for item in items if item.group == group], what=what)[0]
            for group in self.groups
            if group in judged
        }
        return mean_of_group_means(self._strata(items), what=what)[0], groups

    def difference(self, first: Sequence[ScoreItem], second: Sequence[ScoreItem], what: str) -> Difference:
        """Overall of `second` minus that of `first`, paired."""
        return paired_difference(self._strata(first), self._strata(second), what=what)

    def _strata(self, items: Sequence[ScoreItem]) -> Sequence[ScoreItem]:
        return items if self.stratified else [item.model_copy(update={"group": "all"}) for item in items]


def _cell(estimate: Estimate | Difference, note: str = "") -> Cell:
    return Cell(100 * estimate.value, 100 * estimate.low, 100 * estimate.high, note=note)


def _p_text(p_value: float) -> str:
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _check(kind: Kind, file: ScoreFile, max_failure_share: float) -> None:
    provenance, items = file.scores.provenance, file.scores.items
    unknown = sorted({item.group for item in items} - {*kind.groups, *kind.ungrouped})
    if unknown:
        raise DataError(
            f"{file.path}: unknown {kind.title} {kind.group_word} {unknown[0]!r}; known: {', '.join(kind.groups)}"
        )
    if provenance.failures > max_failure_share * provenance.n:
        raise DataError(
            f"{file.path}: {provenance.failures} of {provenance.n} items failed, more than the {max_failure_share:.1%} "
            "allowed; score again, or raise --max-failures"
        )


def _same_items(first: ScoreFile, second: ScoreFile) -> bool:
    a, b = ({(i.prompt_id, i.image_index, i.group) for i in file.scores.items} for file in (first, second))
    return a == b and first.scores.provenance.prompts_digest == second.scores.provenance.prompts_digest


def _warnings(kind: Kind, files: list[ScoreFile], bases: dict[str, ScoreFile]) -> list[str]:
    warnings = []
    odd = [file.label for file in files if not _same_items(files[0], file)]
    if odd:
        warnings.append(
            f"rows were judged on different prompts or images: {', '.join(odd)} differ from {files[0].label}; "
            "compare them with care"
        )
    for experiment in sorted({file.scores.provenance.experiment for file in files}):
        mine = [file for file in files if file.scores.provenance.experiment == experiment]
        digests: dict[str, list[str]] = {}
        for file in mine:
            digests.setdefault(file.scores.provenance.config_digest, []).append(file.label)
        if len(digests) > 1:
            told = "; ".join(f"{digest}: {', '.join(labels)}" for digest, labels in digests.items())
            warnings.append(f"rows of {experiment} were made under different configs ({told})")
        if experiment not in bases:
            warnings.append(f"no scores of the base model of {experiment}: no differences")
    for file in files:
        there = {item.group for item in file.scores.items if not item.failed}
        absent = [group for group in kind.groups if group not in there]
        if absent:
            told = f": its Overall is the mean of the other {kind.group_word}s" if kind.stratified else ""
            warnings.append(f"{file.label} has no {', '.join(absent)}{told}")
    return warnings


def _check_comparable(files: list[ScoreFile]) -> None:
    """Modes, backends and judges of one table must agree: their numbers measure different things."""
    for key in ("benchmark", "mode", "backend", "judge_model"):
        values = {str(getattr(file.scores.provenance, key)): file for file in files}
        if len(values) > 1:
            told = ", ".join(f"{value!r} ({file.path})" for value, file in sorted(values.items()))
            raise DataError(f"score files differ in {key}: {told}; make one table for each")


def _footnotes(kind: Kind, files: list[ScoreFile], lost: int, pooled: bool) -> list[str]:
    first = files[0].scores.provenance
    prompts = sorted({len({item.prompt_id for item in file.scores.items}) for file in files})
    per_prompt = sorted({file.scores.provenance.n / len({i.prompt_id for i in file.scores.items}) for file in files})

    def span(values: list[float]) -> str:
        return f"{values[0]:g}" if values[0] == values[-1] else f"{values[0]:g} to {values[-1]:g}"

    method = "stratified bootstrap" if kind.stratified else "bootstrap"
    agree = f"all images of a {kind.group_word} agree" if kind.stratified else "all images agree"
    notes = [
        kind.rules.format(mode=first.mode, judge_model=first.judge_model),
        f"In brackets: {CONFIDENCE:.0%} intervals, {method} over prompts ({RESAMPLES} resamples, all "
        f"images of a prompt together); Wilson interval over prompts where {agree}.",
        "Δ vs base: difference of Overall in points on the same prompts and image indices, paired, same bootstrap; "
        "p by sign-flip test over prompts, two-sided, not corrected for the number of rows.",
        f"n: {span(prompts)} prompts, {span(per_prompt)} images each. Failed images are left out, not counted as wrong"
        + (f"; {lost} pairs lost to them." if lost else "."),
    ]
    runs: dict[str, list[str]] = {}
    for file in files:
        provenance = file.scores.provenance
        runs.setdefault(provenance.experiment, [])
        if provenance.run not in runs[provenance.experiment]:
            runs[provenance.experiment].append(provenance.run)
    told = "; ".join(f"{experiment}: {', '.join(names)}" for experiment, names in runs.items())
    trained = {(f.scores.provenance.experiment, f.scores.provenance.run) for f in files if f.scores.provenance.step}
    if trained:
        notes.append(
            f"Runs ({told}): a run is one training with one seed, named in it; the intervals hold the sampling of "
            "prompts and images, not the spread between training seeds."
        )
    if pooled:
        notes.append(
            "A row of several seeds takes the runs NAME-s1, NAME-s2, ... at one step together: its values are means "
            "over the images of all these runs, its Δ the mean of theirs. Its intervals and p resample prompts, each "
            "with its images from all seeds, and keep the seeds as they are: they tell how sure the mean of these "
            "trainings is over prompts of this kind, not where another seed would end. For that see s.d. over seeds: "
            "the standard deviation (n - 1) of the runs' Δ in points, on the same prompts and image noise."
        )

    def listed(key: str) -> str:
        return ", ".join(dict.fromkeys(str(getattr(file.scores.provenance, key)) for file in files))

    notes.append(
        f"Config digest: {listed('config_digest')}. Prompt set: {listed('prompts_digest')}. Scored by promptecho "
        f"{listed('package_version')}, commit {listed('git_commit')}."
    )
    return notes


def _seed_groups(files: list[ScoreFile]) -> dict[tuple[str, str, int], list[ScoreFile]]:
    """(experiment, NAME, step) -> the files of runs NAME-sK that were judged on the same items; two or more each."""
    groups: dict[tuple[str, str, int], list[ScoreFile]] = {}
    for file in files:
        provenance = file.scores.provenance
        match = SEED_OF_RUN.fullmatch(provenance.run)
        if match and provenance.step:
            groups.setdefault((provenance.experiment, match["name"], provenance.step), []).append(file)
    return {
        key: found
        for key, found in groups.items()
        if len(found) > 1 and all(_same_items(found[0], file) for file in found)
    }


def _row(kind: Kind, label: str, items: Sequence[ScoreItem], what: str) -> dict[str, Cell]:
    overall, groups = kind.estimates(items, what)
    failures = sum(item.failed for item in items)
    return {
        "model": Cell(text=label),
        **{key: _cell(estimate) for key, estimate in groups.items()},
        "overall": _cell(overall),
        "prompts": Cell(overall.n_prompts),
        "images": Cell(len(items) - failures),
        "failures": Cell(failures),
    }


def comparison(kind: Kind, files: list[ScoreFile], *, name: str, max_failure_share: float = MAX_FAILURE_SHARE) -> Table:
    """Build a table from score files sorted as `read_score_files` returns them: base, runs by step, seeds together.

    Rows judged on other prompts than their base get no difference and a warning. A failed item leaves the
    denominator and shows in its column.

    Raises:
        DataError: an unknown group, too many failures, or files of different mode, backend or benchmark.
    """
    if not files:
        raise DataError(f"{kind.title} table: no score files")
    for file in files:
        _check(kind, file, max_failure_share)
    _check_comparable(files)
    bases = {f.scores.provenance.experiment: f for f in files if f.scores.provenance.step == 0}
    several = len({file.scores.provenance.experiment for file in files}) > 1
    rows, lost = [], 0
    gains: dict[tuple, float] = {}
    for file in files:
        experiment = file.scores.provenance.experiment
        row = _row(kind, f"{experiment}: {file.label}" if several else file.label, file.scores.items, str(file.path))
        base = bases.get(experiment)
        if base is not None and base is not file and _same_items(base, file):
            what = f"{file.path} against {base.path}"
            difference = kind.difference(base.scores.items, file.scores.items, what)
            lost += difference.n_lost
            gains[file.order] = difference.value
            row["delta"] = _cell(difference, _p_text(difference.p_value))
        rows.append(row)
    seed_groups = _seed_groups(files)
    for (experiment, run, step), found in seed_groups.items():
        label = f"{run}, {len(found)} seeds @ {step}"
        what = f"{found[0].path} and {len(found) - 1} more seeds"
        items = pool_seeds([file.scores.items for file in found])
        row = _row(kind, f"{experiment}: {label}" if several else label, items, what)
        row["seeds"] = Cell(len(found))
        if found[0].order in gains:
            difference = kind.difference(pool_seeds([bases[experiment].scores.items] * len(found)), items, what)
            row["delta"] = _cell(difference, _p_text(difference.p_value))
            row["seed_sd"] = Cell(100 * float(np.std([gains[file.order] for file in found], ddof=1)))
        rows.append(row)
    experiments = ", ".join(dict.fromkeys(file.scores.provenance.experiment for file in files))
    columns = [part for column in kind.columns for part in ([DELTA, *SEEDS] if column is DELTA else [column])]
    table = Table(
        name=name,
        title=f"{kind.title}, {experiments} (%)",
        columns=columns if seed_groups else kind.columns,
        rows=rows,
        footnotes=_footnotes(kind, files, lost, bool(seed_groups)),
        warnings=_warnings(kind, files, bases),
        provenance={
            "package_version": promptecho.__version__,
            "git_commit": git_commit(),
            "scores": [file.scores.provenance.model_dump(mode="json") for file in files],
        },
    )
    table.highlight_best()
    return table
