"""What jobs cost: seconds that they took before, a plan's estimate where there are none, and calls of judges."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from promptecho import plugins
from promptecho.benchmarks.packing import PACKED
from promptecho.errors import DataError
from promptecho.files import read_json


def recorded_seconds(timing: Path) -> float | None:
    """Wall seconds of a job from the file that Snakemake writes beside the results; None where there is none."""
    try:
        with open(timing, encoding="utf-8", newline="") as file:
            return sum(float(row["s"]) for row in csv.DictReader(file, delimiter="\t"))
    except (OSError, KeyError, ValueError, TypeError):  # not there, or cut off by a kill: then nothing is known
        return None


def gpus_of(resources: dict[str, int]) -> int:
    """GPUs that a job takes, by its resources under the profile; 0 where these name none."""
    nodes = max(resources.get("nodes", 1), 1)
    if "gpus_per_node" in resources:
        return resources["gpus_per_node"] * nodes
    return resources.get("gpu", 0)


class PlanFile:
    """What `promptecho plan --json` printed, for jobs that were never timed.

    Raises:
        DataError: it is no such file.
    """

    def __init__(self, path: Path):
        facts = read_json(path)
        try:
            self.experiment: str = facts["experiment"]
            self.runs = {run["run"]: run["gpu_hours"] / run["iterations"] for run in facts["runs"]}
            self.sets = {one["name"]: one["gpu_hours"] for one in facts["evaluations"]}
            captions = facts["captions"]
            self.captions: float | None = captions["gpu_hours"] if captions else None
        except (KeyError, TypeError, ZeroDivisionError):
            raise DataError(f"{path}: not what `promptecho plan --json` prints; make it again") from None

    def gpu_hours(self, job: dict[str, Any]) -> float | None:
        """Of one job of `planned.py`; None where the plan says nothing about it."""
        if job["experiment"] != self.experiment:
            return None
        hours = {
            "train": self.runs.get(job["wildcards"].get("R")),  # of an iteration
            "generate_shard": self.sets.get(job["wildcards"].get("S")),
            "caption_shard": self.captions,
        }.get(job["rule"])
        return None if hours is None else hours * job.get("iterations", job.get("part", 0))


def judge_calls(shadow: Path, options: str, environment: dict[str, str], unpack: bool = False) -> dict[str, Any]:
    """`calls` still to make and how many are `recorded`, of a job of the rule `judge`; nothing is asked.

    `unknown` says instead why that is not known.

    Args:
        unpack: whether packed images are to be unpacked for it, in the shadow.
    """
    words = shlex.split(options)
    for place in [k + 1 for k, word in enumerate(words) if word in ("--images", "--baseline")]:
        images = shadow / words[place]
        if not images.is_dir():
            return {"unknown": f"{words[place]} is not there"}
        if (images / PACKED).is_file():
            size, free = (images / PACKED).stat().st_size, shutil.disk_usage(shadow).free
            if not unpack:
                return {"unknown": "its images are packed: --unpack unpacks them to count"}
            if size > 0.9 * free:
                return {"unknown": f"its images take {size / 1e9:.1f} GB unpacked, and the folder for temporary files "
                        f"has {free / 1e9:.1f} GB: set TMPDIR"}  # fmt: skip
            words[place] = str(_beside_the_original(shadow, images))
    allowed = ["--allow-plugins"] if plugins.allowed() else []
    done = subprocess.run(
        [sys.executable, "-m", "promptecho", "judge", *words, "--estimate", "--json", *allowed],
        cwd=shadow, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        facts = json.loads(done.stdout)
        return {"calls": facts["calls"], "recorded": facts["recorded"], "usd": facts["usd"]}
    except (ValueError, KeyError):
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"unknown": lines[-1].removeprefix("promptecho: ")}


def _beside_the_original(shadow: Path, images: Path) -> Path:
    """A link to a folder of packed images: they are unpacked beside the path that is given."""
    link = shadow.joinpath(".packed", *images.parts[-3:])
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(images.resolve())
    return link


def environment_of(package: Path) -> dict[str, str]:
    """The environment of a process in the shadow, which finds this package."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))}
