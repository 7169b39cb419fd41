"""What `promptecho plan` has for the work of a rehearsal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from promptecho.doctor.preflight import Preflight
from promptecho.doctor.rehearsal_config import RehearsedRun
from promptecho.doctor.rehearsed_stage import RehearsedStage
from promptecho.doctor.totals import usual_settings
from promptecho.errors import PromptEchoError, bug_line


def add_plan(preflight: Preflight, runs: Sequence[RehearsedRun], stages: Sequence[RehearsedStage], gpu: str) -> str:
    """Put the plan's seconds and GB, for one GPU of a kind, to the stages that it knows; returns the kind's name, ""
    where nothing can be planned. What several ranks or judges and scorers take, and loading models, it does not know.

    Raises:
        ConfigError: there is no such kind of GPU.
    """
    from promptecho.plan.gpus import find_gpu
    from promptecho.plan.plan import Planner
    from promptecho.plan.result import Cluster

    cluster = Cluster(find_gpu(gpu), 1, 1)
    planner = Planner(usual_settings(preflight))
    by_name = {stage.name: stage for stage in stages}
    for number, run in enumerate(runs):
        if run.name not in run.config.runs:  # the base model alone: the plan takes a run
            return ""
        try:
            images = 1 + run.config.captions.heldout
            plan = planner.plan(run.config, cluster, [run.name], images)
        except PromptEchoError as error:
            print(f"rehearsal: no plan: {error}", file=sys.stderr)
            return ""
        except Exception as error:  # as in `make_totals`
            print(f"rehearsal: no plan: {bug_line(error)}", file=sys.stderr)
            return ""
        if (stage := by_name.get(f"train {run.name}")) is not None:
            stage.plan_seconds = plan.runs[0].seconds
            stage.plan_gb = max(memory.peak for memory in plan.runs[0].memory) / 1e9
        if number:
            continue
        if (stage := by_name.get("caption")) is not None and plan.captions is not None:
            stage.plan_seconds = _seconds([plan.captions.gpu_hours])
            stage.plan_gb = plan.captions.memory.peak / 1e9
        for stage in stages:
            if stage.sets:
                stage.plan_seconds = _seconds([one.gpu_hours for one in plan.evaluations if one.name in stage.sets])
                stage.plan_gb = max(plan.generation[name].peak for name in stage.sets) / 1e9
    return cluster.gpu.name


def _seconds(hours: Sequence[float | None]) -> float | None:
    known = [one for one in hours if one is not None]
    return 3600 * sum(known) if len(known) == len(hours) else None
