# A dry run says in short what would stop its jobs later: models that are not here, packages that are not installed, keys
# that are not set. The whole preflight is `promptecho doctor` (docs/doctor.md).
import sys

from promptecho import protect as guard
from promptecho.errors import bug_line

STAGES = {
    "caption_shard": "caption",
    "train": "train",
    "generate_shard": "generate",
    "judge": "judge",
    "score": "score",
    "guard": "guard",
}
STAGES |= {"generate_together": "generate"}


def doctors_lines(jobs):
    """Lines about what would stop `jobs`."""
    stages, benchmarks = {}, {}
    named = {MODIFIER.modify_rulename(rule): stage for rule, stage in STAGES.items()}
    for job in jobs:
        if (stage := named.get(job.rule.name)) is not None:
            stages.setdefault(job.wildcards.E, set()).add(stage)
            benchmarks.setdefault(job.wildcards.E, set()).update({getattr(job.wildcards, "B", "")} - {""})
    lines = []
    for name, some in stages.items():
        from promptecho.doctor.short import short_lines  # here, as a plan without such jobs needs nothing of it

        source = Path(EXPERIMENTS.site.experiments_dir) / f"{name}.yaml"
        lines += short_lines(EXPERIMENTS[name], source, some, benchmarks[name], CONDA or IMAGES, ENVS)
    return lines


def _tell(build):
    """`build`, after which a dry run says what the doctor finds; not where `promptecho upgrade` reads the plan."""

    def build_and_tell():
        build()
        if workflow.is_main_process and workflow.dryrun and guard.READER is None:
            try:
                lines = doctors_lines(workflow.dag.needrun_jobs())
            except Exception as error:  # the plan itself is sound
                lines = [f"could not look: {bug_line(error)}; promptecho doctor --config FILE looks at more"]
            for line in lines:
                print(f"doctor: {line}", file=sys.stderr, flush=True)

    return build_and_tell


workflow._build_dag = _tell(workflow._build_dag)
