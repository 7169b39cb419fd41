"""Find what belongs to a benchmark's page in an experiment's folder: scores, raw records, images, words."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from promptecho.benchmarks.layout import name_below
from promptecho.benchmarks.packing import unpacked
from promptecho.config import ExperimentConfig, baseline_of
from promptecho.config.benchmarks import benchmark_named, load_part
from promptecho.errors import ConfigError, DataError
from promptecho.figures.samples import CheckpointImages, Key, read_column, verdicts_of
from promptecho.files import read_json, read_jsonl
from promptecho.provenance import UNKNOWN
from promptecho.scores import Scores, raw_path, read_scores
from promptecho.suggest import maybe
from promptecho.tables.collect import ScoreFile, check_place, checkpoint_scores, find_score_files

Means = dict[str, dict[str, float]]  # prompt id -> group -> mean of what was judged


@dataclass
class JudgedCheckpoint:
    """A column of the page.

    `scores` is None for a baseline that was compared with only; `groups` are those of each image, `parts` the means of
    what items consist of; `records` are raw records by image, `files` the images' names in the experiment's folder.
    """

    column: CheckpointImages
    files: dict[Key, str]
    scores: Scores | None = None
    groups: dict[Key, str] = field(default_factory=dict)
    parts: Means = field(default_factory=dict)
    records: dict[Key, list[dict[str, Any]]] = field(default_factory=dict)


def benchmarks_in(results: Path) -> list[str]:
    """Benchmarks that have scores in the folder.

    Raises:
        DataError: there are none.
    """
    found = sorted({path.parent.parent.name for path in checkpoint_scores(results)})
    if not found:
        raise DataError(f"{results}: no scores/BENCHMARK/RUN/STEP.json in it; give results/E of a scored experiment")
    return found


def configuration_of(results: Path) -> Path:
    """The resolved configuration that the newest scores of an experiment were made with.

    Raises:
        DataError: it is not there.
    """
    files = sorted(checkpoint_scores(results), key=lambda path: path.stat().st_mtime_ns)
    digests = dict.fromkeys(read_json(path).get("provenance", {}).get("config_digest", UNKNOWN) for path in files[::-1])
    for name in digests:
        if (path := results / "config" / f"{name}.yaml").is_file():
            return path
    raise DataError(f"{results}: no config/DIGEST.yaml that its scores were made with; give --config FILE")


def read_checkpoints(
    results: Path, benchmark: str, experiment: ExperimentConfig, *, runs: Sequence[str] = (), most: int | None = None,
    stack: contextlib.ExitStack,
) -> list[JudgedCheckpoint]:  # fmt: skip
    """The page's columns: the baseline or base model first, then runs by name and step.

    Args:
        experiment: says which images the benchmark looked at.
        runs: only these and the base model; () for all.
        most: at most so many columns: the first, the last and an even choice between them.
        stack: keeps unpacked images until it is closed.

    Raises:
        ConfigError: the configuration has no such benchmark.
        DataError: a file is missing, damaged or of another checkpoint than its path says.
    """
    if benchmark not in experiment.benchmarks:
        told = (
            f"{experiment.experiment}: benchmarks.{benchmark}: no such entry{maybe(benchmark, experiment.benchmarks)}"
        )
        raise ConfigError(f"{told}; which images have its scores? Give the experiment's file: --config FILE")
    files = []
    for path in find_score_files([results], benchmark):
        scores = read_scores(path)
        check_place(path, scores)
        files.append(ScoreFile(path, scores))
    files.sort(key=lambda file: file.order)
    known = [file.scores.provenance.run for file in files]
    if unknown := [run for run in runs if run not in known]:
        raise ConfigError(f"--run {unknown[0]}: has no scores of {benchmark} in {results}{maybe(unknown[0], known)}")
    chosen = [file for file in files if not runs or file.scores.provenance.run in ("base", *runs)]
    places = [(file.scores.provenance.run, file.scores.provenance.step, file) for file in chosen]
    columns: list[tuple[str, int, ScoreFile | None]] = [*places]
    if benchmark_named(experiment.benchmarks[benchmark].scorer).pairwise:
        baseline = baseline_of(experiment, benchmark)
        columns = [(*baseline, None)] + [one for one in places if one[:2] != baseline]
    if most is not None and len(columns) > most:
        columns = [columns[k * (len(columns) - 1) // (most - 1)] for k in range(most)]
    image_set = experiment.benchmarks[benchmark].image_set
    return [_read(results, run, step, image_set, file, stack) for run, step, file in columns]


def _read(
    results: Path, run: str, step: int, image_set: str, file: ScoreFile | None, stack: contextlib.ExitStack
) -> JudgedCheckpoint:
    place = f"images/{run}/{step}/{image_set}"
    root = stack.enter_context(unpacked(results / place))
    column = read_column(root)
    names = {key: f"{place}/{name_below(root.absolute(), one.path)}" for key, one in column.images.items()}
    if file is None:
        return JudgedCheckpoint(column, names)
    scores, scorer = file.scores, benchmark_named(file.scores.provenance.scorer)
    column = replace(column, verdicts=verdicts_of(scores), difference=scorer.pairwise)
    image_of = load_part(scorer.name, "image_of") if scorer.image_of else _own_image
    records: dict[Key, list[dict[str, Any]]] = {}
    raw = raw_path(file.path)
    if raw.is_file():  # scores can be shown without
        for row in read_jsonl(raw):
            try:
                records.setdefault(image_of(row), []).append(row)
            except (KeyError, TypeError, AttributeError) as error:
                raise DataError(f"{raw}: a record without {error}; delete it and its scores, and score again") from None
    groups = {key: str(rows[0]["group"]) for key, rows in records.items() if rows[0].get("group")}
    if not scorer.verdicts:
        groups = {(item.prompt_id, item.image_index): item.group for item in scores.items}
    return JudgedCheckpoint(column, names, scores, groups, _means(scores), records)


def _own_image(record: dict[str, Any]) -> Key:
    return record["prompt_id"], record["image_index"]


def _means(scores: Scores) -> Means:
    found: dict[str, dict[str, list[float]]] = {}
    for part in scores.parts:
        if part.outcome is not None:
            found.setdefault(part.prompt_id, {}).setdefault(part.group, []).append(part.outcome)
    return {prompt: {group: fmean(values) for group, values in some.items()} for prompt, some in found.items()}


def read_echo(results: Path, image_set: str, columns: Sequence[CheckpointImages]) -> dict[tuple[str, Key], dict]:
    """How the VLM read prompts word by word, where `figures/words_R.json` says it: by column's label and image.

    Raises:
        DataError: a file is damaged.
    """
    labels = {column.label: column for column in columns}
    found: dict[tuple[str, Key], dict] = {}
    for path in sorted(results.glob("figures/words_*.json")):
        told = read_json(path)
        try:
            if told.get("image_set", image_set) != image_set:
                continue
            for shown, read in zip(told["shown"], told["read"], strict=True):
                key = (shown["prompt_id"], shown["image_index"])
                for place, (label, facts) in enumerate(zip(told["columns"], read, strict=True)):
                    column = labels.get(label)
                    if column is None or key not in column.images or column.images[key].prompt != shown["prompt"]:
                        continue
                    base = read[0]["words"] if place else None
                    found[label, key] = {"words": facts["words"], "base": base, "from": told["columns"][0]}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: is no page of words' numbers ({error}); delete it and make it again") from None
    return found
