"""What trackers have written, read back: TensorBoard's events, the files of Weights & Biases, trackio's database.

Weights & Biases and trackio are in .venv/trackers (`make test` puts them there), behind everything else on the path.
"""

from __future__ import annotations

import importlib.util
import json
import sqlite3
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PACKAGES = Path(sys.prefix) / "trackers"
BLOCK = 32768  # of a .wandb file, which is a log as LevelDB writes it


def need(name: str) -> None:
    """Skip the test where the package is neither installed nor in `PACKAGES`."""
    if PACKAGES.is_dir() and str(PACKAGES) not in sys.path:
        sys.path.append(str(PACKAGES))
    if importlib.util.find_spec(name) is None:  # not imported: trackio is told its folder before
        pytest.skip(f"NOT TESTED: {name} is not installed; `make test` installs it")


def tensorboard_events(folder: Path) -> Any:
    from tensorboard.backend.event_processing import event_accumulator

    events = event_accumulator.EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def tensorboard_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(iteration, value) by tag."""
    events = tensorboard_events(folder)
    tags = sorted(events.Tags()["scalars"])
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def wandb_records(file: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    data, at, record = file.read_bytes(), 7, b""  # 7: the file's header
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            found = wandb_internal_pb2.Record()
            found.ParseFromString(record)
            record = b""
            yield found


def wandb_runs(folder: Path) -> list[dict[str, Any]]:
    """Of each segment's file, in order of time: the run's `id` and `name`, its `config`, and `rows` by iteration."""
    found = []
    for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        one: dict[str, Any] = {"rows": {}, "folder": file.parent}
        for record in wandb_records(file):
            if record.WhichOneof("record_type") == "run":
                one |= {"id": record.run.run_id, "name": record.run.display_name, "project": record.run.project}
                one["config"] = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            elif record.WhichOneof("record_type") == "history":
                items = record.history.item
                row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
                one["rows"].setdefault(record.history.step.num, {}).update(row)
        found.append(one)
    return found


def trackio_rows(folder: Path) -> dict[tuple[str, str], list[tuple[int, dict[str, Any]]]]:
    """(iteration, metrics) by (run's name, trackio's id of it)."""
    (database,) = folder.glob("*.db")
    connection = sqlite3.connect(database)
    rows: dict[tuple[str, str], list[tuple[int, dict[str, Any]]]] = {}
    for name, run_id, step, metrics in connection.execute(
        "SELECT run_name, run_id, step, metrics FROM metrics ORDER BY id"
    ):
        rows.setdefault((name, run_id), []).append((step, json.loads(metrics)))
    connection.close()
    return rows
