"""Metrics and images to trackio, which keeps them in files of its own: `trackio show`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from promptecho.config.fields import Text
from promptecho.config.tracker_kinds import TrackerKind, TrackerOptions
from promptecho.trackers.base import TrackedImage, TrackedRun
from promptecho.trackers.tags import tagged


class TrackioOptions(TrackerOptions):
    """Settings of trackio."""

    project: Text | None = Field(None, description="Project; null: promptecho-EXPERIMENT.")


KIND = TrackerKind(
    name="trackio",
    summary="trackio, a dashboard from local files",
    build="promptecho.trackers.trackio:TrackioTracker",
    package="trackio",
    install="pip install --no-deps -r envs/trackio.txt",
    options=TrackioOptions,
)


class TrackioTracker:
    """All runs of an experiment are in one folder, beside the run's own, so that they are shown together."""

    def __init__(self, run: TrackedRun):
        folder = run.folder.parent.absolute() / "_files"  # no run can have that name
        os.environ["TRACKIO_DIR"] = str(folder)  # trackio reads it once, as it is imported
        import trackio
        from trackio.utils import TRACKIO_DIR

        if folder != TRACKIO_DIR:
            raise RuntimeError(f"trackio was imported with {TRACKIO_DIR} as its folder before, not {folder}")
        self._trackio = trackio
        self._run = trackio.init(
            project=run.options.project or f"promptecho-{run.experiment}",
            name=run.run,
            group=run.experiment,
            config={**run.config, "run_id": run.id},
            resume="allow" if run.resumed else "never",
            embed=False,
        )

    def log(self, row: Mapping[str, Any]) -> None:
        self._run.log(tagged(row), step=row["iteration"])

    def log_images(self, iteration: int, images: Sequence[TrackedImage]) -> None:
        numbered = enumerate(images, 1)
        shown = {
            f"samples/{number:02d}": self._trackio.Image(one.image, caption=one.prompt) for number, one in numbered
        }
        self._run.log(shown, step=iteration)

    def close(self) -> None:
        self._run.finish()
