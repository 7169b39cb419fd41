"""Metrics and images to Weights & Biases, or offline into files that `wandb sync` sends later."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from promptecho.config.fields import Text
from promptecho.config.tracker_kinds import TrackerKind, TrackerOptions
from promptecho.trackers.base import TrackedImage, TrackedRun
from promptecho.trackers.tags import tagged

KEY = "WANDB_API_KEY"


class WandbOptions(TrackerOptions):
    """Settings of Weights & Biases."""

    project: Text | None = Field(None, description="Project; null: promptecho-EXPERIMENT.")
    entity: Text | None = Field(None, description="User or team that it belongs to; null: the key's own.")
    mode: Literal["online", "offline"] = Field(
        "online",
        description="offline: nothing is sent; `wandb sync` sends the files later, from a machine that has a network.",
    )

    def missing(self) -> str:
        if self.mode == "offline" or os.environ.get(KEY) or _logged_in():
            return ""
        return f"no key is known: set the environment variable {KEY}, run `wandb login`, or set mode: offline"


def _logged_in() -> bool:
    """Whether `wandb login` has left a key on this machine."""
    file = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0].split(":")[0]
    try:
        return netrc.netrc(str(file)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


KIND = TrackerKind(
    name="wandb",
    summary="Weights & Biases",
    build="promptecho.trackers.wandb:WandbTracker",
    package="wandb",
    install="pip install --no-deps -r envs/wandb.txt",
    options=WandbOptions,
)


class WandbTracker:
    """All segments have one id, by which the server, or `wandb sync`, puts them together."""

    def __init__(self, run: TrackedRun):
        import wandb

        options: WandbOptions = run.options
        quiet = {"silent": True, "console": "off", "init_timeout": 60.0}
        ours = {"disable_git": True, "disable_code": True, "x_save_requirements": False}  # of the code: nothing
        self._wandb = wandb
        self._run = wandb.init(
            project=options.project or f"promptecho-{run.experiment}",
            entity=options.entity,
            id=run.id,
            name=run.run,
            group=run.experiment,
            dir=str(run.folder),
            mode=options.mode,
            resume="allow",
            config=dict(run.config),
            settings=wandb.Settings(**quiet, **ours),
        )

    def log(self, row: Mapping[str, Any]) -> None:
        self._run.log(tagged(row), step=row["iteration"])

    def log_images(self, iteration: int, images: Sequence[TrackedImage]) -> None:
        shown = [self._wandb.Image(one.image, caption=one.prompt) for one in images]
        self._run.log({"samples": shown}, step=iteration)

    def close(self) -> None:
        self._run.finish()
