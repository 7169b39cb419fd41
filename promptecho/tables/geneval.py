"""The GenEval table: sub-tasks, Overall, and each checkpoint's paired difference to its base."""

from __future__ import annotations

from dataclasses import replace

import promptecho
from promptecho.errors import DataError
from promptecho.provenance import git_commit
from promptecho.statistics import CONFIDENCE, RESAMPLES, Difference, Estimate, mean_of_group_means, paired_difference
from promptecho.tables.collect import ScoreFile
from promptecho.tables.table import Cell, Column, Table

MAX_FAILURE_SHARE = 0.01

SUBTASKS = {
    "single_object": "Single Obj.",
    "two_object": "Two Obj.",
    "counting": "Counting",
    "colors": "Colors",
    "position": "Position",
    "color_attr": "Attr. Bind.",
}
_PERCENT = Column(key="", label="", decimals=1, unit="%", interval=True, best=True)
COLUMNS = [
    Column("model", "Model", decimals=None),
    *(replace(_PERCENT, key=key, label=label) for key, label in SUBTASKS.items()),
    replace(_PERCENT, key="overall", label="Overall"),
    replace(_PERCENT, key="delta", label="Δ vs base", signed=True, best=False),
    Column("images", "Images", decimals=0),
    Column("failures", "Failed", decimals=0),
]


def _cell(estimate: Estimate | Difference, note: str = "") -> Cell:
    return Cell(100 * estimate.value, 100 * estimate.low, 100 * estimate.high, note=note)


def _p_text(p_value: float) -> str:
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _check(file: ScoreFile, max_failure_share: float) -> None:
    provenance, items = file.scores.provenance, file.scores.items
    unknown = sorted({item.group for item in items} - set(SUBTASKS))
    if unknown:
        raise DataError(f"{file.path}: unknown GenEval sub-task {unknown[0]!r}; known: {', '.join(SUBTASKS)}")
    if provenance.failures > max_failure_share * provenance.n:
        raise DataError(
            f"{file.path}: {provenance.failures} of {provenance.n} items failed, more than the {max_failure_share:.1%} "
            "allowed; score again, or raise --max-failures"
        )


def _same_items(first: ScoreFile, second: ScoreFile) -> bool:
    a, b = ({(i.prompt_id, i.image_index, i.group) for i in file.scores.items} for file in (first, second))
    return a == b and first.scores.provenance.prompts_digest == second.scores.provenance.prompts_digest


def _warnings(files: list[ScoreFile], bases: dict[str, ScoreFile]) -> list[str]:
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
        absent = sorted(set(SUBTASKS) - {item.group for item in file.scores.items}, key=list(SUBTASKS).index)
        if absent:
            warnings.append(f"{file.label} has no {', '.join(absent)}: its Overall is the mean of the other sub-tasks")
    return warnings


def _check_comparable(files: list[ScoreFile]) -> None:
    """Modes, backends and judges of one table must agree: their numbers measure different things."""
    for key in ("benchmark", "mode", "backend", "judge_model"):
        values = {str(getattr(file.scores.provenance, key)): file for file in files}
        if len(values) > 1:
            told = ", ".join(f"{value!r} ({file.path})" for value, file in sorted(values.items()))
            raise DataError(f"score files differ in {key}: {told}; make one table for each")


def _footnotes(files: list[ScoreFile], lost: int) -> list[str]:
    first = files[0].scores.provenance
    prompts = sorted({len({item.prompt_id for item in file.scores.items}) for file in files})
    per_prompt = sorted({file.scores.provenance.n / len({i.prompt_id for i in file.scores.items}) for file in files})

    def span(values: list[float]) -> str:
        return f"{values[0]:g}" if values[0] == values[-1] else f"{values[0]:g} to {values[-1]:g}"

    notes = [
        f"Percent of images right by GenEval's {first.mode} rules, detector: {first.judge_model}. "
        "Overall is the mean of the sub-tasks.",
        f"In brackets: {CONFIDENCE:.0%} intervals, stratified bootstrap over prompts ({RESAMPLES} resamples, all "
        "images of a prompt together); Wilson interval over prompts where all images of a sub-task agree.",
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

    def listed(key: str) -> str:
        return ", ".join(dict.fromkeys(str(getattr(file.scores.provenance, key)) for file in files))

    notes.append(
        f"Config digest: {listed('config_digest')}. Prompt set: {listed('prompts_digest')}. Scored by promptecho "
        f"{listed('package_version')}, commit {listed('git_commit')}."
    )
    return notes


def geneval_table(
    files: list[ScoreFile], *, name: str = "geneval", max_failure_share: float = MAX_FAILURE_SHARE
) -> Table:
    """Build the table from score files sorted as `read_score_files` returns them.

    Rows judged on other prompts than their base get no difference and a warning. A failed item leaves the
    denominator and shows in its column.

    Raises:
        DataError: unknown sub-task, too many failures, or files of different mode, backend or benchmark.
    """
    if not files:
        raise DataError("GenEval table: no score files")
    for file in files:
        _check(file, max_failure_share)
    _check_comparable(files)
    bases = {f.scores.provenance.experiment: f for f in files if f.scores.provenance.step == 0}
    several = len({file.scores.provenance.experiment for file in files}) > 1
    rows, lost = [], 0
    for file in files:
        provenance = file.scores.provenance
        overall, groups = mean_of_group_means(file.scores.items, what=str(file.path))
        row = {
            "model": Cell(text=f"{provenance.experiment}: {file.label}" if several else file.label),
            **{key: _cell(estimate) for key, estimate in groups.items()},
            "overall": _cell(overall),
            "images": Cell(provenance.n - provenance.failures),
            "failures": Cell(provenance.failures),
        }
        base = bases.get(provenance.experiment)
        if base is not None and base is not file and _same_items(base, file):
            difference = paired_difference(
                base.scores.items, file.scores.items, what=f"{file.path} against {base.path}"
            )
            lost += difference.n_lost
            row["delta"] = _cell(difference, _p_text(difference.p_value))
        rows.append(row)
    experiments = ", ".join(dict.fromkeys(file.scores.provenance.experiment for file in files))
    table = Table(
        name=name,
        title=f"GenEval, {experiments} (%)",
        columns=COLUMNS,
        rows=rows,
        footnotes=_footnotes(files, lost),
        warnings=_warnings(files, bases),
        provenance={
            "package_version": promptecho.__version__,
            "git_commit": git_commit(),
            "scores": [file.scores.provenance.model_dump(mode="json") for file in files],
        },
    )
    table.highlight_best()
    return table
