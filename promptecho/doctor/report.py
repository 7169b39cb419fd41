"""All checks of the preflight, one after the other. Read this first.

A check (`finding.py`) is a function of a `Preflight` that yields findings; each has a file of its own. `short.py` is
what a dry run of Snakemake says of them, `show.py` prints the whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial

from promptecho.doctor.backends import backends
from promptecho.doctor.caption_server import caption_server
from promptecho.doctor.cluster import cluster
from promptecho.doctor.diagnosis import Diagnosis, run_checks
from promptecho.doctor.finding import PreflightCheck
from promptecho.doctor.image_sizes import image_sizes
from promptecho.doctor.images import images_readable, images_there
from promptecho.doctor.initial_adapters import initial_adapters
from promptecho.doctor.judges import judge_keys, judges_answer
from promptecho.doctor.local_gpus import local_gpus
from promptecho.doctor.models import models
from promptecho.doctor.packages import packages
from promptecho.doctor.places import clock, results_writable, room, shared_folders
from promptecho.doctor.preflight import Preflight
from promptecho.doctor.probe import probe
from promptecho.doctor.profile_mistakes import profile_mistakes
from promptecho.doctor.prompt_files import prompt_files
from promptecho.doctor.rehearsal import Rehearsal
from promptecho.doctor.reward_servers import reward_servers
from promptecho.doctor.texts import texts
from promptecho.doctor.torch_build import torch_build
from promptecho.doctor.totals import Totals, budgets
from promptecho.doctor.trackers import trackers
from promptecho.errors import ConfigError
from promptecho.suggest import maybe

CHECKS: dict[str, PreflightCheck] = {
    "profile": profile_mistakes,
    "images": images_there,
    "images, read": images_readable,
    "sizes": image_sizes,
    "models": models,
    "initial adapters": initial_adapters,
    "packages": packages,
    "backends": backends,
    "torch": torch_build,
    "trackers": trackers,
    "rewards' servers": reward_servers,
    "captions' server": caption_server,
    "judges' keys": judge_keys,
    "judges' endpoints": judges_answer,
    "prompt files": prompt_files,
    "prompts": texts,
    "folders": results_writable,
    "shared folders": shared_folders,
    "clock": clock,
    "GPUs": local_gpus,
    "partitions": cluster,
}


def diagnose(
    preflight: Preflight, totals: Totals | None = None, probe_minutes: float | None = None,
    only: Collection[str] | None = None, rehearsal: Rehearsal | None = None,
) -> Diagnosis:  # fmt: skip
    """Run all checks, or those that `only` names; with `totals` those of what is needed in all, too, with
    `probe_minutes` what nodes see, and with `rehearsal` what came of it, whatever `only` names.

    Raises:
        ConfigError: there is no check of such a name.
    """
    checks = dict(CHECKS)
    if totals is not None:
        checks |= {"room": partial(room, totals=totals), "budgets": partial(budgets, totals=totals)}
    if probe_minutes is not None:
        checks["nodes"] = partial(probe, minutes=probe_minutes, lacking_told=not only or "packages" in only)
    if rehearsal is not None:
        checks["rehearsal"] = lambda _: rehearsal.findings()
    require_known(only or (), checks)
    if only:
        checks = {name: check for name, check in checks.items() if name in only or name == "rehearsal"}
    facts = totals.facts() if totals is not None else {}
    tried = rehearsal.facts() if rehearsal is not None else {}
    return Diagnosis(preflight.config.experiment, run_checks(preflight, checks), facts, tried)


def require_known(only: Iterable[str], checks: Iterable[str]) -> None:
    """Refuse what is no name of a check.

    Raises:
        ConfigError: there is no check of such a name.
    """
    checks = list(checks)
    for name in only:
        if name not in checks:
            known = f"(known: {', '.join(checks)}; nodes with --probe, rehearsal with --rehearse){maybe(name, checks)}"
            raise ConfigError(f"--only {name}: no such check {known}")
