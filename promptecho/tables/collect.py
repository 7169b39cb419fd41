"""Find and read score files; what a file says of itself must agree with its path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from promptecho.config.reruns import REPLACED
from promptecho.errors import DataError
from promptecho.item_columns import columns_of
from promptecho.names import by_number
from promptecho.scores import Scores
from promptecho.tables.light import read_light


@dataclass(frozen=True)
class ScoreFile:
    """A score file that was read."""

    path: Path
    scores: Scores

    @property
    def label(self) -> str:
        """`base` or `RUN @ STEP`."""
        provenance = self.scores.provenance
        return provenance.run if provenance.step == 0 else f"{provenance.run} @ {provenance.step}"

    @property
    def order(self) -> tuple:
        """Experiment, base first, then runs by name, those of ten seeds in the order of their numbers."""
        provenance = self.scores.provenance
        return (provenance.experiment, provenance.run != "base", by_number(provenance.run), provenance.step)


def same_items(first: ScoreFile, second: ScoreFile) -> bool:
    """Whether two files judged the same images of the same prompts."""
    if first.scores.provenance.prompts_digest != second.scores.provenance.prompts_digest:
        return False
    keys = [columns_of(file.scores.items).keys for file in (first, second)]
    if keys[0].same(keys[1]):
        return True
    a, b = (set(zip(*one.columns(), strict=True)) for one in keys)
    return a == b


def check_place(path: Path, scores: Scores) -> None:
    """`.../scores/BENCH/R/N.json` must hold that benchmark, run and step; files elsewhere are free."""
    parts = path.absolute().parts
    if len(parts) < 4 or parts[-4] != "scores":
        return
    provenance = scores.provenance
    told = {"benchmark": provenance.benchmark, "run": provenance.run, "step": str(provenance.step)}
    for (key, value), place in zip(told.items(), (parts[-3], parts[-2], path.stem), strict=True):
        if value != place:
            raise DataError(f"{path}: provenance.{key} is {value!r}, the path says {place!r}; score again, don't copy")


def checkpoint_scores(results: Path, benchmark: str | None = None) -> list[Path]:
    """Files scores/B/R/N.json in an experiment's folder, of one benchmark or of all, sorted.

    Those of runs that were moved aside do not count, nor what is no checkpoint's, as ._40.json of a foreign copy.
    """
    folders = results.glob("scores/*") if benchmark is None else [results / "scores" / benchmark]
    found = sorted(path for folder in folders for path in folder.glob("*/*.json"))
    return [path for path in found if path.stem.isdigit() and REPLACED not in path.parent.name]


def find_score_files(sources: list[Path], benchmark: str) -> list[Path]:
    """Score files given as files, or as experiment folders (results/E, with scores/BENCH/R/N.json in them).

    Raises:
        DataError: a source does not exist, or a folder holds no score file of `benchmark`.
    """
    paths: list[Path] = []
    for source in sources:
        if source.is_dir():
            found = checkpoint_scores(source, benchmark)
            if not found:
                there = sorted({path.parent.parent.name for path in checkpoint_scores(source)})
                fix = f"give --benchmark, one of: {', '.join(there)}" if there else "run the scoring first"
                raise DataError(f"{source}: no score files scores/{benchmark}/RUN/STEP.json in it; {fix}")
            paths += found
        elif source.is_file():
            paths.append(source)
        else:
            raise DataError(f"{source}: no such score file or folder")
    if not paths:
        raise DataError("no score files given; name files or results/EXPERIMENT folders")
    return list(dict.fromkeys(paths))


def read_score_files(paths: list[Path], scorer: str) -> list[ScoreFile]:
    """Read score files that go into one table, sorted by experiment, base first, then run and step.

    Raises:
        DataError: a file is damaged, lies in the wrong place, has another scorer, or two are of the same checkpoint.
    """
    files = []
    seen: dict[tuple, Path] = {}
    for path in paths:
        file = ScoreFile(path, read_light(path))
        check_place(path, file.scores)
        found = file.scores.provenance.scorer
        if found != scorer:
            raise DataError(f"{path}: scored by {found!r}, this table needs {scorer!r}; leave the file out")
        if file.order in seen:
            raise DataError(f"{path}: the same run and step as {seen[file.order]}; leave one out")
        seen[file.order] = path
        files.append(file)
    return sorted(files, key=lambda file: file.order)
