"""The score file of a guard: results/E/guards/G/SET/R/N.json, its reward of each image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from promptecho.config.reruns import REPLACED
from promptecho.errors import DataError
from promptecho.files import read_json
from promptecho.provenance import Provenance
from promptecho.schema import read_schema
from promptecho.scores import FIX, SCHEMA_VERSION, Scores

FOLDER = "guards"


class GuardProvenance(Provenance):
    """As of every score file. `benchmark` is the image set, `scorer` the reward, `judge_model` its model."""

    guard: str = Field(min_length=1, description="name of its column")
    unit: str = ""
    trained: bool = Field(description="whether the run's training raises just this reward")
    benchmarks: list[str] = Field(default_factory=list, description="benchmarks that score the same images")


class GuardScores(Scores):
    """As every score file; an outcome is the reward of an image, in its own unit."""

    provenance: GuardProvenance


@dataclass(frozen=True)
class GuardFile:
    """A guard's score file that was read."""

    path: Path
    scores: GuardScores

    @property
    def place(self) -> tuple[str, str, int]:
        """Experiment, run and step."""
        provenance = self.scores.provenance
        return provenance.experiment, provenance.run, provenance.step


def read_guard_files(paths: Iterable[Path]) -> list[GuardFile]:
    """Read guards' score files.

    Raises:
        DataError: a file is missing, damaged or no guard's, or one guard has two files of a checkpoint.
    """
    found: dict[tuple, GuardFile] = {}
    for path in dict.fromkeys(paths):
        value = read_json(path)
        read_schema(path, value, SCHEMA_VERSION, FIX)
        try:
            file = GuardFile(path, GuardScores.model_validate(value))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "the file"
            raise DataError(f"{path}: {key}: {first['msg']}; this is no guard's score file, or a damaged one") from None
        place = (file.scores.provenance.guard, *file.place)
        if place in found:
            raise DataError(f"{path}: the same guard, run and step as {found[place].path}; leave one out")
        found[place] = file
    return list(found.values())


def find_guard_files(sources: Sequence[Path], benchmark: str) -> list[GuardFile]:
    """Of the folders results/E among `sources`, the guards' scores of the images that a benchmark scores.

    Raises:
        DataError: as `read_guard_files`.
    """
    paths = [path for source in sources if source.is_dir() for path in sorted(source.glob(f"{FOLDER}/*/*/*/*.json"))]
    paths = [path for path in paths if path.stem.isdigit() and REPLACED not in path.parent.name]
    mine = [path for path in paths if _scores(read_json(path), benchmark)]
    return read_guard_files(mine)


def _scores(value: object, benchmark: str) -> bool:
    """Whether a guard's file is of the images of this benchmark."""
    provenance = value.get("provenance") if isinstance(value, dict) else None
    named = provenance.get("benchmarks") if isinstance(provenance, dict) else None
    return isinstance(named, list) and benchmark in named
