"""Snakemake's own plan of what is to be made, read before anything starts, in a process of its own:

    python -m promptecho.upgrade.planned OUT.json ARGUMENTS...   # those of Snakemake

OUT.json holds the jobs that would run, with their reasons in words, and what the guard of finished trainings refuses.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from promptecho import protect
from promptecho.config import ExperimentConfig, run_training
from promptecho.config.reruns import refusal
from promptecho.files import write_json
from promptecho.upgrade.reasons import FOLLOWS, Reasons, Why


def main(out: str, arguments: list[str]) -> None:
    """Have Snakemake plan, and write what it would do. Ends as Snakemake does."""
    import snakemake.cli

    protect.READER = lambda protection: write_json(out, read(protection))
    snakemake.cli.main(arguments)


def read(protection: protect.Protection) -> dict[str, Any]:
    """The plan as JSON-able data; `jobs` in the order in which they would run."""
    conflicts, again = protection.find()
    reasons, dag = Reasons(protection), protection.dag
    why = {job: reasons.of(job) for job in _needed(dag)}  # before the plan is changed, and the reasons with it
    protection.plan_again(job for jobs in again.values() for job in jobs)
    needed = _needed(dag)
    levels = [needed.intersection(level) for level in dag.toposorted()]
    jobs = [job for level in levels for job in sorted(level, key=lambda job: (job.rule.name, str(job.output[0])))]
    finished = [job for job in dag.jobs if job.output and job not in needed]
    return {
        "jobs": [_job(job, why.get(job, FOLLOWS), needed) | _share(job, protection.experiments) for job in jobs],
        "finished_jobs": len(finished),
        "unrecorded": sum(1 for job in finished if not protection.persistence.has_metadata(job)),
        "experiments": sorted(protection.experiments),
        "refused": refusal(conflicts) if conflicts else None,
        "refused_runs": list(dict.fromkeys(f"{one.experiment}/{run}" for one in conflicts for run in one.runs)),
    }


def _needed(dag: Any) -> set[Any]:
    return {job for job in dag.needrun_jobs() if job.output}


def _job(job: Any, why: Why, needed: set[Any]) -> dict[str, Any]:
    there = [str(file) for file in job.output if os.path.lexists(file)]
    resources = {name: job.resources.get(name) for name in ("gpu", "gpus_per_node", "nodes", "tasks_per_node")}
    found = {
        "rule": job.rule.name,
        "experiment": job.wildcards_dict.get("E"),
        "wildcards": dict(job.wildcards_dict),
        "output": [str(file) for file in job.output],
        "there": there,
        "why": list(why.reasons) if there else [],
        "before": list(why.before),
        "now": list(why.now),
        "newer": list(why.newer),
        "timing": str(job.benchmark) if job.benchmark else None,
        "resources": {name: value for name, value in resources.items() if isinstance(value, int)},
    }
    if job.rule.name == "judge":
        made = {str(file) for other in needed if other is not job for file in other.output}
        found["judge"] = str(job.params.options)
        found["images_are_made_first"] = not made.isdisjoint(map(str, job.input))
    return found


def _share(job: Any, experiments: dict[str, ExperimentConfig]) -> dict[str, Any]:
    """What a plan's figures are to be multiplied with: `iterations` of a training's segment, or the job's `part` of all
    shards."""
    if job.rule.name == "train":
        steps = [0, *run_training(experiments[job.wildcards.E], job.wildcards.R).checkpoint_steps]
        step = int(job.wildcards.N)
        return {"iterations": step - steps[steps.index(step) - 1]}
    if job.rule.name == "caption_shard":
        return {"part": 1 / experiments[job.wildcards.E].captions.num_shards}
    if job.rule.name == "generate_shard":
        return {"part": 1 / experiments[job.wildcards.E].image_sets[job.wildcards.S].num_shards}
    return {}


if __name__ == "__main__":
    main(str(Path(sys.argv[1]).absolute()), sys.argv[2:])
