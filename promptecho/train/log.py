"""Rank 0's metrics while a segment runs: a JSON Lines file, and the run's trackers."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptecho.config import ExperimentConfig, run_rewards, run_training, slice_digest
from promptecho.config.trackers import TrackerSection
from promptecho.errors import DataError
from promptecho.files import write_jsonl
from promptecho.trackers.feed import TrackerFeed, TrackerFeeds, tracker_folder
from promptecho.train.metrics import read_segment

if TYPE_CHECKING:
    from promptecho.train.trainer import Segment


class MetricsLog:
    """Starts with the rows up to the state that the segment goes on from; what came after is computed again."""

    def __init__(self, path: Path, trackers: TrackerFeeds, rows: list[dict[str, Any]]):
        write_jsonl(path, rows)
        self.path, self.trackers = Path(path), trackers

    def add(self, row: dict[str, Any]) -> None:
        """Append one iteration's row."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.trackers.log(row)

    def close(self) -> None:
        self.trackers.close()


def begin_trackers(segment: Segment, start_iteration: int, rows: list[dict[str, Any]]) -> TrackerFeeds:
    """The trackers of a segment, each with its folder: those of the configuration where the segment has a place for
    their files; and TensorBoard where it has a folder of its own.

    Args:
        start_iteration: that of the state from which the segment goes on.
        rows: of this segment, up to there.
    """
    entries: list[tuple[TrackerSection, Path]] = []
    if segment.trackers is not None:
        chosen = run_training(segment.config, segment.run).trackers
        entries = [(entry, tracker_folder(entry.tracker, segment.trackers, segment.run)) for entry in chosen]
    if segment.tensorboard is not None:
        entries = [(entry, folder) for entry, folder in entries if entry.name != "tensorboard"]
        entries.append((TrackerSection(name="tensorboard"), segment.tensorboard))
    if not entries:
        return TrackerFeeds()
    config, run = segment.config, segment.run
    training, told = slice_digest(config, "train", run=run), told_config(config, run)
    earlier = _earlier_rows(segment, start_iteration, rows) if start_iteration else []

    def say(message: str) -> None:
        print(f"train {run}: {message}", file=sys.stderr, flush=True)

    return TrackerFeeds(
        [
            TrackerFeed(
                entry, experiment=config.experiment, run=run, folder=folder, training=training,
                start_iteration=start_iteration or -1, config=told, say=say, earlier=earlier,
            )
            for entry, folder in entries
        ]
    )  # fmt: skip


def _earlier_rows(segment: Segment, iteration: int, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The run's rows up to `iteration`, as far as they are there: of its earlier checkpoints, and this segment's."""
    found: dict[int, dict[str, Any]] = {}
    if segment.resume is not None and segment.resume.name.isdecimal():
        steps = [path for path in segment.resume.parent.iterdir() if path.name.isdecimal()]
        for step in sorted(steps, key=lambda path: int(path.name)):
            if int(step.name) <= int(segment.resume.name):
                with suppress(DataError, OSError):  # what is missing is told, and stops no training
                    found |= {row["iteration"]: row for row in read_segment(step / "metrics.jsonl")}
    found |= {row["iteration"]: row for row in rows}
    return [found[number] for number in sorted(found) if number <= iteration]


def told_config(config: ExperimentConfig, run: str) -> dict[str, Any]:
    """What trackers are told of a run's configuration: models, rewards and training; no judges, no keys."""
    training = run_training(config, run).model_dump(mode="json", exclude={"trackers", "rewards"})
    return {
        "experiment": config.experiment,
        "run": run,
        "models": config.models.model_dump(mode="json"),
        "rewards": [entry.model_dump(mode="json") for entry in run_rewards(config, run)],
        "training": training,
    }
