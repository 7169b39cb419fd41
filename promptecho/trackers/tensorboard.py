"""Metrics and images as TensorBoard events: `tensorboard --logdir results/E/tensorboard`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from promptecho.config.tracker_kinds import TrackerKind
from promptecho.trackers.base import TrackedImage, TrackedRun
from promptecho.trackers.tags import tagged

KIND = TrackerKind(
    name="tensorboard",
    summary="event files for TensorBoard",
    build="promptecho.trackers.tensorboard:TensorBoardTracker",
    package="tensorboard",
    install="pip install -c constraints.txt tensorboard==2.21.0",
    takes_back=True,
    folder="tensorboard/{run}",
)


class TensorBoardTracker:
    """Resumed at an iteration, it takes back what was written beyond it."""

    def __init__(self, run: TrackedRun):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.folder), purge_step=run.start_iteration + 1)

    def log(self, row: Mapping[str, Any]) -> None:
        for tag, value in tagged(row).items():
            self._writer.add_scalar(tag, value, row["iteration"])
        self._writer.flush()

    def log_images(self, iteration: int, images: Sequence[TrackedImage]) -> None:
        """An image for each prompt, with a slider over iterations; TensorBoard's images have no captions, so that the
        prompts are a text of their own."""
        import numpy as np

        for number, one in enumerate(images, 1):
            pixels = np.asarray(one.image.convert("RGB"))
            self._writer.add_image(f"samples/{number:02d}", pixels, iteration, dataformats="HWC")
        prompts = "\n".join(f"{number:02d}. {' '.join(one.prompt.split())}" for number, one in enumerate(images, 1))
        self._writer.add_text("samples/prompts", f"```\n{prompts}\n```", iteration)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
