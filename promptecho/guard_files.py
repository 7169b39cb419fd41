"""The score file of a guard: results/E/guards/G/SET/R/N.json, its reward of each image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from promptecho.config import read_yaml
from promptecho.config.reruns import REPLACED
from promptecho.errors import DataError
from promptecho.files import read_json
from promptecho.provenance import Provenance
from promptecho.schema import read_schema
from promptecho.scores import FIX, SCHEMA_VERSION, Scores

if TYPE_CHECKING:
    from promptecho.config import ExperimentConfig

FOLDER = "guards"


class GuardProvenance(Provenance):
    """As of every score file. `benchmark` is the image set, `scorer` the reward, `judge_model` its model."""

    guard: str = Field(min_length=1, description="name of its column")
    unit: str = ""
    trained: bool = Field(description="whether the run's training raises just this reward")
    adapter: bool = Field(False, description="whether it is a published adapter, which no training here made")
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


def find_guard_files(
    sources: Sequence[Path], benchmark: str, config: ExperimentConfig | None = None
) -> list[GuardFile]:
    """Of the folders results/E among `sources`, the guards' scores of the images that a benchmark scores; of the
    experiment `config` only those of guards that it has.

    Which image set that is says the configuration of the benchmark's newest scores, results/E/config/DIGEST.yaml; where
    it is not there, the benchmarks count that a guard's file names.

    Raises:
        DataError: as `read_guard_files`.
    """
    mine: list[Path] = []
    for source in sources:
        paths = [path for path in sorted(source.glob(f"{FOLDER}/*/*/*/*.json")) if _is_checkpoint(path)]
        if paths and (image_set := _image_set(source, benchmark)) is not None:
            mine += [path for path in paths if path.parent.parent.name == image_set]
        else:
            mine += [path for path in paths if _scores(read_json(path), benchmark)]
    found = read_guard_files(mine)
    if config is None:
        return found
    titles = {guard.title for guard in config.guards}
    return [one for one in found if one.place[0] != config.experiment or one.scores.provenance.guard in titles]


def _is_checkpoint(path: Path) -> bool:
    return path.stem.isdigit() and REPLACED not in path.parent.name


def _image_set(results: Path, benchmark: str) -> str | None:
    """The image set that the benchmark's newest scores in results/E are of."""
    scores = [path for path in results.glob(f"scores/{benchmark}/*/*.json") if _is_checkpoint(path)]
    for path in sorted(scores, key=lambda path: path.stat().st_mtime_ns, reverse=True)[:1]:
        value = read_json(path)
        provenance = value.get("provenance") if isinstance(value, dict) else None
        named = provenance.get("config_digest") if isinstance(provenance, dict) else None
        file = results / "config" / f"{named}.yaml"
        if file.is_file():
            return read_yaml(file).get("benchmarks", {}).get(benchmark, {}).get("image_set")
    return None


def _scores(value: object, benchmark: str) -> bool:
    """Whether a guard's file is of the images of this benchmark."""
    provenance = value.get("provenance") if isinstance(value, dict) else None
    named = provenance.get("benchmarks") if isinstance(provenance, dict) else None
    return isinstance(named, list) and benchmark in named
