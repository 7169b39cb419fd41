"""What this version would make again in a folder of results: Snakemake's own plan, read and priced.

`shadow.py` gives it a folder that it may write to, `planned.py` reads the plan there, `reasons.py` says why, `costs.py`
what it costs, and `files.py` looks for files that this version cannot read. Nothing is made, asked or changed.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import promptecho
from promptecho import plugins
from promptecho.errors import DataError
from promptecho.files import read_json
from promptecho.upgrade.costs import PlanFile, environment_of, gpus_of, judge_calls, recorded_seconds
from promptecho.upgrade.files import Schemas, read_schemas
from promptecho.upgrade.shadow import shadow_of

PACKAGE = Path(promptecho.__file__).resolve().parent.parent  # the folder that holds the package


@dataclass
class JobGroup:
    """Jobs of one rule and experiment with the same reasons. `seconds` and `gpu_hours` are of the `timed` and the
    `priced` of them; the others were never timed here, and no plan was given. `digests`: pairs of what was recorded and
    what holds now, where those differ; `newer`: inputs that are newer than what was made from them."""

    experiment: str | None
    rule: str
    why: list[str]
    jobs: int = 0
    files: list[str] = field(default_factory=list)
    digests: list[tuple[str, str]] = field(default_factory=list)
    newer: list[str] = field(default_factory=list)
    timed: int = 0
    seconds: float = 0.0
    priced: int = 0
    gpu_hours: float = 0.0


@dataclass
class Report:
    """`again`: finished results that would be made again. `missing`: rule -> jobs whose results are not there.
    `unrecorded`: how many of the `finished_jobs` have no record of Snakemake's, so that only times of files count.
    `others`: experiments with results that were not looked at, because the site does not list them.
    `judge`: calls of judges; `refused`: what the workflow refuses to make again, with the ways on, or None."""

    version: str
    again: list[JobGroup]
    missing: dict[str, int]
    finished_jobs: int
    unrecorded: int
    others: list[str]
    judge: list[dict[str, Any]]
    refused: str | None
    schemas: Schemas
    command: str

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        return asdict(self)


def make_report(
    root: Path, experiments: list[str], profile: str, settings: str | None = None, plan: PlanFile | None = None,
    unpack: bool = False,
) -> Report:  # fmt: skip
    """The report on `experiments` (empty: those that `config/config.yaml` lists) in the folder `root`.

    Args:
        settings: what `--config set=` takes, for runs that were added on the command line.
        unpack: whether packed images are to be unpacked in the folder for temporary files, to count calls of judges.

    Raises:
        DataError: Snakemake cannot plan here; says why.
    """
    arguments = _arguments(root, experiments, profile, settings)
    environment = environment_of(PACKAGE)
    with shadow_of(root) as shadow:
        planned = _planned(shadow, arguments, environment)
        refused = planned["refused"]
        if refused:  # what it would be with them: Snakemake looks no further than to a training that it must not make
            retrain = f"retrain={','.join(planned['refused_runs'])}"
            options = [*arguments, *([] if "--config" in arguments else ["--config"]), retrain]
            planned = _planned(shadow, options, environment)
        again = [job for job in planned["jobs"] if job["there"]]
        groups = _groups(root, again, plan)
        judged = [job for job in planned["jobs"] if job["rule"] == "judge"]
        calls = [_judge(shadow, job, environment, unpack) for job in judged]
    here = {folder.parent.name for folder in (root / "results").glob("*/config")}
    others = [] if experiments else sorted(here.difference(planned["experiments"]))
    missing = Counter(job["rule"] for job in planned["jobs"] if not job["there"])
    return Report(
        promptecho.__version__, groups, dict(sorted(missing.items())), planned["finished_jobs"],
        planned["unrecorded"], others, calls, refused, read_schemas(root / "results", planned["experiments"]),
        shlex.join(["snakemake", *arguments, "--", "all"]),
    )  # fmt: skip


def _planned(shadow: Path, arguments: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """What `planned.py` reads from Snakemake's plan.

    Raises:
        DataError: there is no plan; says why.
    """
    out = shadow / ".plan.json"
    out.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "promptecho.upgrade.planned", str(out), "-n", "--quiet", "all", *arguments, "--", "all"],
        cwd=shadow, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if not out.is_file():
        raise DataError(f"Snakemake cannot plan here:\n{_told(done.stdout)}")
    return read_json(out)


def _arguments(root: Path, experiments: list[str], profile: str, settings: str | None) -> list[str]:
    """Those of Snakemake, without the target."""
    found = []
    if not any((root / name).is_file() for name in ("Snakefile", "workflow/Snakefile")):
        found += ["-s", str(PACKAGE / "Snakefile")]  # docs/module.md: the checkout may lie anywhere
    place = profile if (root / profile).is_dir() else str(PACKAGE / profile)
    if not (root / place).is_dir():
        raise DataError(f"--profile {profile}: no such folder, neither in {root} nor in {PACKAGE}")
    found += ["--profile", place]
    given = [f"experiments=[{','.join(experiments)}]"] if experiments else []
    given += [f"set={settings}"] if settings else []
    given += ["allow_plugins=true"] if plugins.allowed() else []
    return [*found, *(["--config", *given] if given else [])]


def _groups(root: Path, jobs: list[dict[str, Any]], plan: PlanFile | None) -> list[JobGroup]:
    found: dict[tuple, JobGroup] = {}
    for job in jobs:
        key = (job["experiment"], job["rule"], tuple(job["why"]))
        group = found.setdefault(key, JobGroup(*key[:2], job["why"]))
        group.jobs += 1
        group.files += job["there"]
        pair = (", ".join(job["before"]), ", ".join(job["now"]))
        group.digests += [pair] if any(pair) and pair not in group.digests else []
        group.newer += [path for path in job["newer"] if path not in group.newer]
        gpus = gpus_of(job["resources"])
        seconds = recorded_seconds(root / job["timing"]) if job["timing"] else None
        planned = None
        if seconds is not None:
            group.timed, group.seconds = group.timed + 1, group.seconds + seconds
            planned = seconds * gpus / 3600
        elif plan is not None:
            planned = plan.gpu_hours(job)
        if planned is not None:
            group.priced, group.gpu_hours = group.priced + 1, group.gpu_hours + planned
    return list(found.values())


def _judge(shadow: Path, job: dict[str, Any], environment: dict[str, str], unpack: bool) -> dict[str, Any]:
    names = job["wildcards"]
    facts = {"experiment": names["E"], "benchmark": names["B"], "run": names["R"], "step": int(names["N"])}
    if job["images_are_made_first"]:
        return facts | {"unknown": "its images are made first"}
    return facts | judge_calls(shadow, job["judge"], environment, unpack)


def _told(output: str) -> str:
    """What Snakemake says of an error, without what it says of itself first (indented lines, progress)."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    start = next((k for k, line in enumerate(lines) if "Error" in line or "rror:" in line), max(len(lines) - 10, 0))
    return "\n".join(lines[start:])
