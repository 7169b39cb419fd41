"""The paper's Tables 1-8: the same columns, each of our rows above the published one, and whether they agree."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import promptecho
from promptecho.config.yaml_files import read_yaml
from promptecho.errors import ConfigError, DataError
from promptecho.intervals import CONFIDENCE
from promptecho.provenance import git_commit
from promptecho.statistics import pool_seeds
from promptecho.tables.collect import ScoreFile, same_items
from promptecho.tables.compare import (
    ANSWERERS,
    MAX_FAILURE_SHARE,
    FailureShare,
    check_comparable,
    check_file,
    check_versions,
    count_cells,
)
from promptecho.tables.kind import difference_cell
from promptecho.tables.kinds import kind_of
from promptecho.tables.notes import (
    count_note,
    delta_note,
    interval_note,
    limit_note,
    mixed_orders,
    mixed_versions,
    odd_items,
    origin_note,
    rules_note,
    seeds_note,
    short_footnotes,
    unanswered_note,
)
from promptecho.tables.published import PublishedTable, agrees, published
from promptecho.tables.results import Results
from promptecho.tables.table import Cell, Column, Panel, Table

PLACE = re.compile(r"(?P<experiment>[^/@\s]+)/(?P<run>[^/@\s]+)(@(?P<step>[0-9]+))?")
MODEL = Column("model", "Model", decimals=None)
COUNTS = ("prompts", "images", "failures")
AGREE = (
    f"agrees: the published number, give or take half its last digit, lies in our {CONFIDENCE:.0%} interval; differs: "
    "it does not. The published number's own uncertainty is not known and not counted, and no correction is made for "
    "the number of comparisons. Numbers without an interval of ours are not compared."
)


@dataclass(frozen=True)
class PaperPlace:
    """A run of an experiment; `step` None is its last that all benchmarks have. `given` by the user, or a default."""

    experiment: str
    run: str
    step: int | None
    given: bool


def parse_rows(texts: Sequence[str]) -> dict[str, PaperPlace]:
    """`ROW=EXPERIMENT/RUN[@STEP]` each, or a YAML file of such pairs; over the defaults of published.json.

    Raises:
        ConfigError: a text is of another form, or names no published row.
    """
    rows = {row: _place(row, text, given=False) for row, text in published().runs.items()}
    for text in texts:
        for row, place in _row_texts(text).items():
            if row not in rows:
                raise ConfigError(f"--paper-rows: {row!r} is no row of the paper; its rows: {', '.join(rows)}")
            rows[row] = _place(row, place, given=True)
    return rows


def _row_texts(text: str) -> dict[str, str]:
    if text.endswith((".yaml", ".yml")):
        try:
            found = read_yaml(text)
        except ConfigError as error:
            raise ConfigError(f"--paper-rows {error}") from None
        if not all(isinstance(part, str) for pair in found.items() for part in pair):
            raise ConfigError(f"--paper-rows {text}: expected pairs `ROW: EXPERIMENT/RUN@STEP`")
        return found
    row, equals, place = text.partition("=")
    if not equals:
        raise ConfigError(f"--paper-rows {text!r}: expected ROW=EXPERIMENT/RUN@STEP, or a .yaml file of such pairs")
    return {row.strip(): place.strip()}


def _place(row: str, text: str, given: bool) -> PaperPlace:
    match = PLACE.fullmatch(text)
    if not match:
        raise ConfigError(f"--paper-rows {row!r}: {text!r} is not EXPERIMENT/RUN or EXPERIMENT/RUN@STEP")
    step = int(match["step"]) if match["step"] else None
    if match["run"] == "base":
        step = 0
    return PaperPlace(match["experiment"], match["run"], step, given)


@dataclass(frozen=True)
class _Measured:
    """What the score files of one run, or of its seeds, contain for one benchmark; cells by COLUMN."""

    files: list[ScoreFile]
    cells: dict[str, Cell]
    lost: int


@dataclass
class _Ours:
    """A row of ours: cells by SCORER.COLUMN, what they are made of by scorer, and where that is from."""

    cells: dict[str, Cell] = field(default_factory=dict)
    measured: dict[str, _Measured] = field(default_factory=dict)
    label: str = ""

    def is_published_metric(self, scorer: str) -> bool:
        """Whether its images were looked at as those of the published numbers, where that decides what is measured."""
        wanted, measured = published().backends.get(scorer), self.measured.get(scorer)
        if wanted is None or measured is None:
            return True
        return all(file.scores.provenance.backend == wanted for file in measured.files)


class PaperTables:
    """Makes the paper's tables from `results`; what several tables show is worked out once.

    `rows` says which run is compared with which published row, as `parse_rows` returns it.
    """

    def __init__(
        self, results: Results, rows: Mapping[str, PaperPlace], *, max_failure_share: FailureShare = MAX_FAILURE_SHARE,
        one_version: bool = False,
    ):  # fmt: skip
        self._one_version = one_version
        self._results, self._rows, self._max_failure_share = results, rows, max_failure_share
        self._known: dict[tuple[str, PaperPlace], _Measured | None] = {}

    def _step(self, place: PaperPlace) -> int | None:
        own = self._results.last_step
        return own(place.experiment, place.run, published().scorers) if place.step is None else place.step

    def _measure(self, scorer: str, place: PaperPlace) -> _Measured | None:
        """None where there are no files."""
        if (scorer, place) not in self._known:
            step, kind = self._step(place), kind_of(scorer)
            files = []
            if step is not None and (step or kind.has_base):
                files = self._results.find(scorer, place.experiment, place.run, step)
            self._known[scorer, place] = self._of_files(scorer, place, files) if files else None
        return self._known[scorer, place]

    def _of_files(self, scorer: str, place: PaperPlace, files: list[ScoreFile]) -> _Measured:
        kind = kind_of(scorer)
        for file in files:
            check_file(kind, file, self._max_failure_share)
            if not same_items(files[0], file):
                raise DataError(f"{file.path}: judged on other items than {files[0].path}; name one run of them")
        what = " and ".join(str(file.path) for file in files)
        items = pool_seeds([file.scores.items for file in files])
        cells = {**kind.cells(items, files, what), **count_cells(items)}
        lost, trained = 0, files[0].scores.provenance.step > 0
        base = self._results.find(scorer, place.experiment, "base", 0) if kind.has_base and trained else []
        if base and same_items(base[0], files[0]):
            check_comparable([base[0], *files], keys=())
            base_items = pool_seeds([base[0].scores.items] * len(files))
            found = kind.differences(base_items, items, f"{what} against {base[0].path}")
            cells |= {key: difference_cell(difference) for key, difference in found.items()}
            lost = sum(difference.n_lost for difference in found.values())
        return _Measured(files, cells, lost)

    def _ours(self, table: PublishedTable, place: PaperPlace) -> _Ours:
        ours, seeds = _Ours(), 0
        for scorer in dict.fromkeys(key.partition(".")[0] for key in table.keys):
            if measured := self._measure(scorer, place):
                ours.measured[scorer] = measured
                ours.cells |= {f"{scorer}.{key}": _scaled(c, f"{scorer}.{key}") for key, c in measured.cells.items()}
                seeds = max(seeds, len(measured.files))
        runs = {file.scores.provenance.run for found in ours.measured.values() for file in found.files}
        told = f"{place.run}, {seeds} seeds" if seeds > 1 else "".join(sorted(runs))
        step = self._step(place)
        ours.label = f"{place.experiment}/{told}" + (f" @ {step}" if step else "")
        return ours

    def table(self, name: str) -> Table:
        """One of the paper's tables: each published row, below ours where there are score files for it.

        Raises:
            ConfigError: there is no such table.
            DataError: a row that the user named has no score files, or files do not belong together.
        """
        tables = published().tables
        if name not in tables:
            raise ConfigError(f"the paper has no {name!r}; known: {', '.join(tables)}, all (--paper)")
        table, number, source = tables[name], name.removeprefix("table"), published().source
        by_key = {key: _column(table, key) for key in table.keys}
        panels = [Panel(panel.title, tuple(panel.columns)) for panel in table.panels]
        titled = [(panel.title.partition(",")[0], by_key[key]) for panel in panels for key in panel.keys]
        out: list[dict[str, Cell]] = []
        verdicts, without, every = [], [], []
        for row, label in table.rows.items():
            place = self._rows[row]
            ours = self._ours(table, place)
            paper = _paper_row(label, row, ours, list(by_key.values()))
            if ours.measured:
                out.append({"model": Cell(text=label, note=f"({ours.label})"), **ours.cells})
                verdicts += _agreement(label, paper, titled)
                every.append(ours)
            elif place.given:
                step = "" if place.step is None else f" @ {place.step}"
                raise DataError(
                    f"{name}: no score files of {place.experiment}/{place.run}{step} for row {row!r}; correct "
                    f"--paper-rows, or run the scoring. There are: {self._results.told()}"
                )
            else:
                without.append(label)
            out.append(paper)
        if self._one_version:
            for scorer in dict.fromkeys(scorer for ours in every for scorer in ours.measured):
                check_versions([file for ours in every for file in getattr(ours.measured.get(scorer), "files", [])])
        notes, short, warnings = _notes(every)
        if without:
            notes.append(f"No score files of ours for: {', '.join(without)}.")
        files = [file for ours in every for found in ours.measured.values() for file in found.files]
        told = f"(paper): as published in arXiv {source.arxiv}, Table {number}; no intervals there."
        return Table(
            name=name,
            title=f"Table {number} of arXiv {source.arxiv}: {table.title}",
            columns=[MODEL, *by_key.values()],
            rows=out,
            footnotes=[
                told,
                *([AGREE, *verdicts] if verdicts else []),
                *notes,
            ],
            warnings=warnings,
            provenance={
                "package_version": promptecho.__version__,
                "git_commit": git_commit(),
                "scores": [file.scores.provenance.model_dump(mode="json") for file in files],
                "published": source.model_dump(mode="json"),
            },
            panels=panels if len(panels) > 1 else [],
            short_notes=[told, *short],
        )


def _scaled(cell: Cell, key: str) -> Cell:
    column = published().columns.get(key)
    if column is None or cell.value is None:
        return cell
    low, high = (None if bound is None else bound * column.scale for bound in (cell.low, cell.high))
    return replace(cell, value=cell.value * column.scale, low=low, high=high)


def _column(table: PublishedTable, key: str) -> Column:
    scorer, _, name = key.partition(".")
    known = {column.key: column for column in kind_of(scorer).columns}
    if key in published().columns:
        column = published().columns[key]
        # one digit more than printed where the unit is a fraction: ours are not rounded to whole percents
        decimals = column.decimals + (column.scale < 1)
        unit = "" if column.scale < 1 else "%"
        label = table.labels.get(key, column.label)
        signed = name in known and known[name].signed
        return Column(key, label, decimals=decimals, unit=unit, interval=True, signed=signed)
    return replace(known[name], key=key, label=table.labels.get(key, known[name].label), best=False)


def _paper_row(label: str, row: str, ours: _Ours, columns: Sequence[Column]) -> dict[str, Cell]:
    """The published row; each number that has an interval of ours says whether it agrees."""
    cells = {"model": Cell(text=label, note="(paper)")}
    for column in columns:
        if (value := published().values[row].get(column.key)) is None:
            continue
        decimals, mine = published().columns[column.key].decimals, ours.cells.get(column.key)
        if not ours.is_published_metric(column.key.partition(".")[0]):
            mine = None
        note = ""
        if mine is not None and mine.low is not None and mine.high is not None:
            note = "agrees" if agrees(value, decimals, mine.low, mine.high) else "differs"
        cells[column.key] = Cell(value, note=note, decimals=decimals)
    return cells


def _agreement(label: str, row: dict[str, Cell], titled: Sequence[tuple[str, Column]]) -> list[str]:
    """How many published numbers of a row agree; nothing where none is compared."""
    compared = [(title, column) for title, column in titled if column.key in row and row[column.key].note]
    differ: dict[str, list[str]] = {}
    for title, column in compared:
        if row[column.key].note == "differs":
            differ.setdefault(title, []).append(column.label)
    parts = [f"{title}: {', '.join(names)}" if title else ", ".join(names) for title, names in differ.items()]
    told = f" (not {'; '.join(parts)})" if parts else ""
    agreeing = sum(row[column.key].note == "agrees" for _, column in compared)
    return [f"{label}: {agreeing} of {len(compared)} published numbers agree{told}."] if compared else []


def _notes(every: Sequence[_Ours]) -> tuple[list[str], list[str], list[str]]:
    """Footnotes, those of the short form, and warnings by benchmark."""
    notes, short, warnings = [], [], []
    scorers = list(dict.fromkeys(scorer for ours in every for scorer in ours.measured))
    for scorer in scorers:
        kind = kind_of(scorer)
        measured = [ours.measured[scorer] for ours in every if scorer in ours.measured]
        files = [file for found in measured for file in found.files]
        compared = [ours.label for ours in every if scorer in ours.measured and ours.is_published_metric(scorer)]
        others = [ours.label for ours in every if not ours.is_published_metric(scorer)]
        check_comparable(files, keys=(), but_for=ANSWERERS if compared and others else ())  # the warning tells of it
        lost = sum(found.lost for found in measured)
        mine = [rules_note(kind, files), *kind.notes(files), interval_note(kind), count_note(kind, files, lost)]
        mine += [note] if (note := unanswered_note(files)) else []
        of = f"{kind.title}: " if len(scorers) > 1 else ""
        notes += [f"{of}{note}" for note in mine]
        short += [f"{of}{note}" for note in short_footnotes(kind, files, lost)]
        if note := limit_note(files):
            warnings.append(f"{kind.title}: {note}")
        if odd := odd_items(files):
            warnings.append(f"{kind.title}: {odd}")
        if others:
            told = f"not compared with the published numbers, which are {published().backends[scorer]}'s"
            which = f" in the rows {', '.join(others)}" if compared else ""
            warnings.append(f"{kind.title}: another metric than the paper's{which}, {told}")
        mixed = [note for note in (mixed_versions(files), mixed_orders(files)) if note]
        warnings += [f"{kind.title}: {note}" for note in mixed]
    if with_base := [kind_of(scorer) for scorer in scorers if kind_of(scorer).has_base]:
        notes.append(delta_note(with_base[0]))
    if pooled := [scorer for ours in every for scorer, found in ours.measured.items() if len(found.files) > 1]:
        notes.append(seeds_note(kind_of(pooled[0])))
    files = [file for ours in every for found in ours.measured.values() for file in found.files]
    return notes + ([origin_note(files)] if files else []), short, warnings
