"""Tables of models compared with their base: groups, Overall, paired differences, and training seeds taken together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import promptecho
from promptecho.errors import DataError
from promptecho.item_columns import columns_of, groups_of, prompts_of
from promptecho.provenance import Provenance, git_commit, without_address
from promptecho.scores import ScoreItem
from promptecho.statistics import pool_seeds
from promptecho.tables.bold import Compared, bold_note, is_significant
from promptecho.tables.collect import ScoreFile, same_items
from promptecho.tables.guard_columns import Guards, Place
from promptecho.tables.kind import SEED_SD, SEEDS, RowItems, TableKind, difference_cell
from promptecho.tables.notes import footnotes, limit_told, mixed_versions, short_footnotes, warnings
from promptecho.tables.table import Cell, Column, Table

MAX_FAILURE_SHARE = 0.01
FailureShare = float | Mapping[str, float]  # of all, or by BENCHMARK or EXPERIMENT/BENCHMARK, "" for the others
SEED_OF_RUN = re.compile(r"(?P<name>.+)-s[0-9]+")  # how runs that differ by seed alone are named


def count_cells(items: Sequence[ScoreItem]) -> dict[str, Cell]:
    """How many prompts and items have an outcome, and how many items failed."""
    failures = int(columns_of(items).failed.sum())
    prompts = len(prompts_of(items, judged=True))
    return {"prompts": Cell(prompts), "images": Cell(len(items) - failures), "failures": Cell(failures)}


def failure_share(shares: FailureShare, provenance: Provenance) -> float:
    """The largest share of failed items that is allowed to a score file."""
    if not isinstance(shares, Mapping):
        return shares
    names = (f"{provenance.experiment}/{provenance.benchmark}", provenance.benchmark, "")
    return next((shares[name] for name in names if name in shares), MAX_FAILURE_SHARE)


def check_file(kind: TableKind, file: ScoreFile, max_failure_share: FailureShare) -> None:
    """Refuse a file that cannot go into a table.

    Raises:
        DataError: an unknown group, or too many failures.
    """
    provenance, items, known = file.scores.provenance, file.scores.items, kind.known_groups()
    unknown = sorted(groups_of(items) - known) if known is not None else []
    if unknown:
        raise DataError(
            f"{file.path}: unknown {kind.title} {kind.group_word} {unknown[0]!r}; known: {', '.join(kind.groups)}"
        )
    allowed = failure_share(max_failure_share, provenance)
    if provenance.failures > allowed * provenance.n:
        raise DataError(
            f"{file.path}: {provenance.failures} of {provenance.n} items failed, more than the {allowed:.1%} allowed; "
            f"score again, or raise benchmarks.{provenance.benchmark}.max_failed_share (by hand: --max-failures)"
        )


ANSWERERS = ("backend", "judge_model", "template_digest")  # keys of the provenance: who looked at the images, and how


def check_comparable(
    files: Sequence[ScoreFile], keys: Sequence[str] = ("benchmark",), but_for: Sequence[str] = ()
) -> None:
    """Modes, backends, judges and limits of one table must agree: their numbers measure different things. Keys of
    `but_for` may differ, where the table tells that.

    Raises:
        DataError: they do not, or `keys` of the provenance differ.
    """
    for key in (*keys, "mode", *ANSWERERS, "baseline", "limit"):
        if key in but_for:
            continue
        values = {_told(file, key): file for file in files}
        if len(values) > 1:
            told = ", ".join(f"{value!r} ({file.path})" for value, file in sorted(values.items()))
            raise DataError(f"score files differ in {key}: {told}; make one table for each")


def _told(file: ScoreFile, key: str) -> str:
    provenance = file.scores.provenance
    if key == "limit":
        return str(provenance.limit or "all prompts")
    value = str(getattr(provenance, key))
    return without_address(value) if key == "judge_model" and provenance.backend == "judge" else value


def check_versions(files: Sequence[ScoreFile]) -> None:
    """Refuse files whose judge was not of one version, for `judges.mixed_versions: refuse`.

    Raises:
        DataError: several versions answered.
    """
    if told := mixed_versions(files):
        raise DataError(f"{told}; judges.mixed_versions is refuse (by hand: --mixed-versions warn)")


def seed_groups(files: Sequence[ScoreFile]) -> dict[tuple[str, str, int], list[ScoreFile]]:
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
        if len(found) > 1 and all(same_items(found[0], file) for file in found)
    }


def _row(
    kind: TableKind, label: str, files: Sequence[ScoreFile], items: Sequence[ScoreItem], what: str
) -> dict[str, Cell]:
    cells = kind.cells(items, files, what)
    return {"model": Cell(text=label), **cells, **count_cells(items)}


def _with_seeds(kind: TableKind, columns: Sequence[Column]) -> list[Column]:
    """The columns with those of seeds after each gain; the number of seeds after the first."""
    out: list[Column] = []
    for column in columns:
        out.append(column)
        if column.key in kind.gains:
            out += [SEEDS] if SEEDS not in out else []
            out.append(replace(SEED_SD, key=kind.gains[column.key]))
    return out


def _place(file: ScoreFile) -> Place:
    provenance = file.scores.provenance
    return provenance.experiment, provenance.run, provenance.step


def comparison(
    kind: TableKind, files: list[ScoreFile], *, name: str, max_failure_share: FailureShare = MAX_FAILURE_SHARE,
    guards: Guards | None = None,
) -> Table:  # fmt: skip
    """Build a table from score files sorted as `read_score_files` returns them: base, runs by step, seeds together.

    Rows judged on other prompts than their base get no difference and a warning. A failed item leaves the
    denominator and shows in its column. `guards` watch the same images: their columns stand in a panel of their own.

    Raises:
        DataError: an unknown group, too many failures, or files of different mode, backend or benchmark.
    """
    if not files:
        raise DataError(f"{kind.title} table: no score files")
    for file in files:
        check_file(kind, file, max_failure_share)
    check_comparable(files)
    bases = {f.scores.provenance.experiment: f for f in files if kind.has_base and f.scores.provenance.step == 0}
    several = len({file.scores.provenance.experiment for file in files}) > 1
    rows, compared, lost = [], [], 0
    by_place: dict[tuple, dict[str, Cell]] = {}
    watched: list[tuple[str, list[Place]]] = []  # label and checkpoints of each row, for the guards
    for file in files:
        experiment = file.scores.provenance.experiment
        label = f"{experiment}: {file.label}" if several else file.label
        row = _row(kind, label, [file], file.scores.items, str(file.path))
        base = bases.get(experiment)
        if base is file or base is not None and not same_items(base, file):
            base = None
        compared.append(Compared(RowItems.of([file]), RowItems.of([base]) if base else None, str(file.path)))
        if base is not None:
            gained = kind.differences(base.scores.items, file.scores.items, f"{file.path} against {base.path}")
            lost += sum(difference.n_lost for difference in gained.values())
            gained |= kind.told_differences(RowItems.of([base]), RowItems.of([file]), str(file.path))
            row |= {key: difference_cell(difference) for key, difference in gained.items()}
        by_place[file.order] = row
        rows.append(row)
        watched.append((label, [_place(file)]))
    pooled = seed_groups(files)
    for (experiment, run, step), found in pooled.items():
        label = f"{run}, {len(found)} seeds @ {step}"
        what = f"{found[0].path} and {len(found) - 1} more seeds"
        items = pool_seeds([file.scores.items for file in found])
        row = _row(kind, f"{experiment}: {label}" if several else label, found, items, what)
        row["seeds"] = Cell(len(found))
        judged_base = None
        if kind.has_base and any(key in by_place[found[0].order] for key in kind.gains):
            judged_base = RowItems.of([bases[experiment]] * len(found))
            differences = kind.differences(judged_base.items, items, what)
            differences |= kind.told_differences(judged_base, RowItems.of(found), what)
            row |= {key: difference_cell(difference) for key, difference in differences.items()}
        for key, spread in kind.gains.items():
            cells = [by_place[file.order][key] for file in found if key in by_place[file.order]]
            gains = [cell.value for cell in cells if cell.value is not None]
            if len(gains) == len(found):
                row[spread] = Cell(float(np.std(gains, ddof=1)))
        rows.append(row)
        watched.append((row["model"].text, [_place(file) for file in found]))
        compared.append(Compared(RowItems.of(found), judged_base, what))
    experiments = ", ".join(dict.fromkeys(file.scores.provenance.experiment for file in files))
    columns, panels = list(kind.columns), list(kind.panels)
    if pooled:
        by_key = {column.key: column for column in columns}
        panels = [
            replace(panel, keys=tuple(c.key for c in _with_seeds(kind, [by_key[key] for key in panel.keys])))
            for panel in panels
        ]
        columns = _with_seeds(kind, columns)
    bold = bold_note(kind, compared)
    origin: dict[str, Any] = {"scores": [file.scores.provenance.model_dump(mode="json") for file in files]}
    told, alarms = [], []
    if guards:
        for row, (label, places) in zip(rows, watched, strict=True):
            row |= guards.cells(places)
            alarms += [alarm] if (alarm := guards.warning(label, places)) else []
        told = guards.notes(place for _, places in watched for place in places)
        panels, columns = guards.panels(panels, columns), [*columns, *guards.columns()]
        origin["guards"] = guards.facts()
    table = Table(
        name=name,
        title=f"{kind.title}, {experiments} (%){limit_told(files)}",
        columns=columns,
        rows=rows,
        footnotes=[*footnotes(kind, files, lost, bool(pooled), bold), *told],
        warnings=[*warnings(kind, files, bases), *alarms],
        provenance={"package_version": promptecho.__version__, "git_commit": git_commit(), **origin},
        panels=panels,
        short_notes=[*short_footnotes(kind, files, lost, bold), *told],
    )
    table.highlight_best(lambda index, column: is_significant(kind, compared[index], column))
    return table
