"""What an experiment will take in all, before anything is made: GPU-hours by stage, calls of judges, room on the disk.

GPU-hours are `promptecho plan`'s, calls are those of the scorers' own estimates, and the bytes follow from both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from promptecho.config import run_training
from promptecho.config.job_sizes import cluster_resources, takes_gpu
from promptecho.config.resources import TrainResources
from promptecho.doctor.finding import Finding, problem, unchecked, warning
from promptecho.doctor.judge_costs import JudgeCost, judge_costs
from promptecho.doctor.preflight import JOBS, Preflight
from promptecho.errors import PromptEchoError, bug_line

if TYPE_CHECKING:
    from promptecho.plan.settings import Settings

BYTES_PER_PIXEL = 1.5  # of a PNG of a photograph, about half of its raw bytes
BYTES_PER_CAPTION = 4_000
IN_JOB = "GPU-hours of a model in the job"
# Files of a checkpoint as large as the adapter, at most: weights, Adam's two moments, two moving averages, and the
# adapter in three formats.
COPIES = 8


@dataclass
class Totals:
    """GPU-hours by stage (None: nobody can tell), bytes on the disk by what they are, and calls of judges.

    `problems`: what does not fit into a GPU's memory, as the plan says it. `unknown`: what could not be estimated.
    """

    gpu: str
    gpu_hours: dict[str, float | None] = field(default_factory=dict)
    disk: dict[str, float] = field(default_factory=dict)
    judges: list[JudgeCost] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def known_gpu_hours(self) -> float:
        return sum(hours for hours in self.gpu_hours.values() if hours is not None)

    @property
    def usd(self) -> float | None:
        """None where no judge names prices."""
        known = [one.usd for one in self.judges if one.usd is not None]
        return sum(known) if known else None

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "gpu": self.gpu, "gpu_hours": self.gpu_hours, "gpu_hours_in_all": self.known_gpu_hours,
            "disk_bytes": self.disk, "disk_bytes_in_all": sum(self.disk.values()),
            "judges": [asdict(one) for one in self.judges], "unknown": self.unknown,
        }  # fmt: skip


def make_totals(preflight: Preflight, gpu: str) -> Totals:
    """The totals, with the plan for GPUs of this kind.

    Raises:
        ConfigError: there is no such kind of GPU.
    """
    from promptecho.plan.gpus import find_gpu

    totals = Totals(find_gpu(gpu).name)
    if preflight.config.runs or preflight.config.image_sets:
        try:
            _plan(preflight, gpu, totals)
        except PromptEchoError as error:
            totals.unknown.append(f"GPU-hours and disk: {error}")
        except Exception as error:  # as in `run_checks`
            totals.unknown.append(f"GPU-hours and disk: {bug_line(error)}")
    else:
        totals.unknown.append("GPU-hours and disk: the experiment has neither runs nor image sets to plan")
    totals.judges = judge_costs(preflight)
    totals.unknown += [f"judge of {one.benchmark}: {one.unknown}" for one in totals.judges if one.unknown]
    in_jobs = [name for name in preflight.names("judge") if takes_gpu(preflight.config, "judge", name)]
    totals.unknown += [f"judge of {name}: {IN_JOB}" for name in in_jobs]
    return totals


def usual_settings(preflight: Preflight) -> Settings:
    """What a plan assumes where nothing else is said."""
    from promptecho.plan import RESERVE_GB
    from promptecho.plan.settings import ASSUMED_MFU, Settings, caches_prompts, usual_prompt_tokens

    config = preflight.config
    return Settings(
        ASSUMED_MFU, 0.7, 50.0, RESERVE_GB, usual_prompt_tokens(config), 100, config.captions.query,
        caches_prompts(preflight.source),
    )  # fmt: skip


def _plan(preflight: Preflight, gpu: str, totals: Totals) -> None:
    from promptecho.plan.gpus import find_gpu
    from promptecho.plan.plan import Planner
    from promptecho.plan.result import Cluster

    config = preflight.config
    asked = cluster_resources(config, "train", on_gpu=True)
    assert isinstance(asked, TrainResources), "of training"
    assert asked.nodes is not None and asked.tasks_per_node is not None, "no key of it is null"
    planner = Planner(usual_settings(preflight))
    plan = planner.plan(config, Cluster(find_gpu(gpu), asked.nodes, asked.tasks_per_node), list(config.runs))
    totals.problems = plan.problems
    if plan.captions is not None:
        totals.gpu_hours["captions"] = plan.captions.gpu_hours
        if plan.captions.images is not None:
            totals.disk["captions"] = BYTES_PER_CAPTION * plan.captions.images
        else:
            totals.unknown.append("captions: how many images there are, since they are not here")
    for run in plan.runs:
        training = run_training(config, run.run)
        totals.gpu_hours[f"train {run.run}"] = run.hours * run.gpus
        adapter = 4 * planner.t2i(config, training).trained_params
        # One more state: that of a segment at work.
        totals.disk[f"train {run.run}"] = COPIES * adapter * (len(training.checkpoint_steps) + 1)
    for one in plan.evaluations:
        hours = None if one.gpu_hours is None else one.gpu_hours * one.checkpoints
        totals.gpu_hours[f"images {one.name}"] = hours
        if one.images is None:
            totals.unknown.append(f"images {one.name}: how many prompts there are, since their file is not here")
            continue
        height, width = config.image_sets[one.name].size(config.models.t2i)
        kept = one.checkpoints if config.image_sets[one.name].keep != "none" else 1
        totals.disk[f"images {one.name}"] = BYTES_PER_PIXEL * height * width * one.images * kept


def budgets(preflight: Preflight, totals: Totals) -> Iterator[Finding]:
    """What the totals do not fit into: a GPU's memory, a judge's limits."""
    for line in totals.problems:
        jobs = JOBS["train" if preflight.config.runs else "generate"]
        yield problem(line, jobs, "as it says; promptecho plan shows the parts")
    for line in totals.unknown:
        fix = "look again when this is there"
        if line.endswith(IN_JOB):
            fix = "nothing estimates them; results/E/timings/judge tells what the first checkpoint took"
        yield unchecked(line, "totals", fix)
    for name, settings in preflight.config.judges.models.items():
        costs = [one for one in totals.judges if one.judge == name and one.calls is not None]
        calls, usd = sum(one.calls or 0 for one in costs), sum(one.usd or 0.0 for one in costs)
        when = f"{JOBS['judge']}, in the middle of {', '.join(one.benchmark for one in costs)}"
        key = f"judges.models.{name}"
        if settings.max_calls is not None and calls > settings.max_calls:
            told = f"{key}.max_calls: {settings.max_calls}, and the experiment asks {calls} questions"
            yield problem(told, when, f"set max_calls: {calls} or more, or evaluate fewer checkpoints")
        if settings.budget_usd is not None and usd > settings.budget_usd:
            told = f"{key}.budget_usd: {settings.budget_usd:g}, and the answers may cost up to {usd:.2f} USD"
            yield warning(told, when, "raise budget_usd, or evaluate fewer checkpoints")
