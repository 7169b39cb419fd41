"""Score files of several experiments by experiment, run, step and scorer; read when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from promptecho.errors import DataError
from promptecho.scores import read_scores
from promptecho.tables.collect import ScoreFile, check_place, checkpoint_scores
from promptecho.tables.compare import SEED_OF_RUN


class Results:
    """An index of folders results/E and single score files.

    Raises:
        DataError: a source does not exist, or a folder has no score files.
    """

    def __init__(self, sources: Sequence[Path]):
        self._read: dict[Path, ScoreFile] = {}
        # (experiment, benchmark key, run, step) -> file
        self._paths: dict[tuple[str, str, str, int], Path] = {}
        for source in sources:
            if source.is_dir():
                found = checkpoint_scores(source)
                if not found:
                    raise DataError(f"{source}: no score files scores/BENCHMARK/RUN/STEP.json in it; score first")
                name = source.absolute().name
                for path in found:
                    self._add((name, path.parts[-3], path.parts[-2], int(path.stem)), path)
            elif source.is_file():
                provenance = self._file(source).scores.provenance
                place = (provenance.experiment, provenance.benchmark, provenance.run, provenance.step)
                self._add(place, source)
            else:
                raise DataError(f"{source}: no such score file or folder")
        self._scorers: dict[tuple[str, str], str] = {}

    def _add(self, place: tuple[str, str, str, int], path: Path) -> None:
        other = self._paths.setdefault(place, path)
        if other.absolute() != path.absolute():
            raise DataError(f"{path}: the same run and step as {other}; leave one out")

    def _file(self, path: Path) -> ScoreFile:
        if path not in self._read:
            file = ScoreFile(path, read_scores(path))
            check_place(path, file.scores)
            self._read[path] = file
        return self._read[path]

    def _key(self, experiment: str, scorer: str) -> str | None:
        """The benchmark key of a scorer in an experiment: that of its name where several have it."""
        keys = []
        for (name, key, *_), path in self._paths.items():
            if name == experiment:
                if (name, key) not in self._scorers:
                    self._scorers[name, key] = self._file(path).scores.provenance.scorer
                if self._scorers[name, key] == scorer and key not in keys:
                    keys.append(key)
        if len(keys) > 1 and scorer not in keys:
            raise DataError(
                f"{experiment}: benchmarks {', '.join(keys)} are all scored by {scorer}; instead of the experiment's "
                "folder, give the score files of one of them"
            )
        return scorer if scorer in keys else keys[0] if keys else None

    def _runs(self, experiment: str, run: str, key: str | None = None) -> dict[int, list[tuple[str, Path]]]:
        """Step -> (run, file) of a run, or of the runs NAME-s1, NAME-s2, ... where none is called NAME."""
        exact: dict[int, list[tuple[str, Path]]] = {}
        seeds: dict[int, list[tuple[str, Path]]] = {}
        for (name, benchmark, found, step), path in self._paths.items():
            if name == experiment and key in (None, benchmark):
                match = SEED_OF_RUN.fullmatch(found)
                if found == run:
                    exact.setdefault(step, []).append((found, path))
                elif match and match["name"] == run:
                    seeds.setdefault(step, []).append((found, path))
        return exact or seeds

    def last_step(self, experiment: str, run: str, scorers: Sequence[str]) -> int | None:
        """The last step that all of these scorers have that scored the run at all; None without scores."""
        keys = {key for scorer in scorers if (key := self._key(experiment, scorer)) is not None}
        steps = [set(found) for key in sorted(keys) if (found := self._runs(experiment, run, key))]
        if not steps:
            return None
        return max(set.intersection(*steps) or set.union(*steps))

    def find(self, scorer: str, experiment: str, run: str, step: int) -> list[ScoreFile]:
        """The file of a run at a step, or those of its seeds, in order of their names; [] for none.

        Raises:
            DataError: a file is damaged, or several benchmarks have this scorer.
        """
        key = self._key(experiment, scorer)
        if key is None:
            return []
        found = sorted(self._runs(experiment, run, key).get(step, []))
        return [self._file(path) for _, path in found]

    def told(self) -> str:
        """Runs that there are, for an error."""
        runs = sorted({f"{experiment}/{run}" for experiment, _, run, _ in self._paths})
        return ", ".join(runs[:12]) + (f" and {len(runs) - 12} more" if len(runs) > 12 else "")
