# Who gets which GPU. Slurm assigns its own; on a workstation a job's resource `gpu` counts against the machine's
# GPUs (or `--resources gpu=N`), and `promptecho gpus run` gives its command GPUs that no other job has, also between
# two Snakemakes. Without GPUs none of this exists.
import functools

from promptecho.cluster import gpus as machine
from promptecho.config.job_sizes import as_reader, cluster_resources, takes_gpu
from promptecho.errors import PromptEchoError
from promptecho.train.placement.layout import make_layout


def _gpus_here():
    """Number of GPUs for jobs that run on this machine; 0 where another executor runs them, or Slurm assigns GPUs."""
    if workflow.resource_settings.nodes is not None or workflow.remote_exec or "SLURM_JOB_ID" in os.environ:
        return 0
    try:
        return len(machine.visible(os.environ, machine.detect()))
    except PromptEchoError as error:
        raise UserError(str(error))


GPUS_HERE = _gpus_here()
ON_CLUSTER = workflow.remote_exec or workflow.resource_settings.nodes is not None
RULE_OF = {"caption": "caption_shard", "generate": "generate_shard"}  # other stages are rules of the same name
OF_CLUSTERS = {"gpus_per_node", "nodes", "tasks_per_node"}  # one machine's GPUs are found, or given by a profile
RANKS = str(workflow.source_path("../scripts/ranks.sh") if ROOT is None else ROOT / "workflow/scripts/ranks.sh")
if GPUS_HERE and workflow.global_resources.get("gpu").value is None:
    workflow.register_resource("gpu", GPUS_HERE)


def _overwritten(rule):
    """What `set-resources` says of a rule."""
    return workflow.resource_settings.overwrite_resources.get(MODIFIER.modify_rulename(rule), {})


def _asked(rule, resource):
    """What `set-resources` says, where it is a plain number."""
    overwritten = _overwritten(rule)
    if resource not in overwritten or overwritten[resource].is_evaluable():
        return None
    return overwritten[resource].value


def _says_gpus(rule):
    """Whether `set-resources` says in other words, of the whole job or Slurm's, how many GPUs a job gets."""
    overwritten = _overwritten(rule)
    return "gpu" in overwritten or ("gres" in overwritten and "gpu" in str(overwritten["gres"].value))


def gpus_of(rule, needs):
    """A resource function: the GPUs of a job on this machine; elsewhere nothing. `needs` says whether its work takes
    one; more are what the user gives to several processes."""

    if not GPUS_HERE:
        return None

    def number(wildcards):
        return (_asked(rule, "tasks_per_node") or 1) if needs(wildcards) else 0

    return number


def captions_on_gpu(wildcards):
    return takes_gpu(experiment(wildcards), "caption")


def images_on_gpu(wildcards):
    return takes_gpu(experiment(wildcards), "generate")


def training_on_gpu(wildcards):
    return takes_gpu(experiment(wildcards), "train", wildcards.R)


def judge_on_gpu(wildcards):
    benchmark_of(wildcards)  # names one that there is not
    return takes_gpu(experiment(wildcards), "judge", wildcards.B)


def score_on_gpu(wildcards):
    benchmark_of(wildcards)  # names one that there is not
    return takes_gpu(experiment(wildcards), "score", wildcards.B)


def asks(stage, resource, needs, here=None, seen=lambda config: config):
    """A resource function: what a job of `stage` asks for, as the experiment says (`resources`). On this machine what
    it says itself, else `here`; on a cluster else what its size says, with GPUs where `needs` says so. `seen` makes of
    the experiment what the job is to see of it."""

    if not ON_CLUSTER and resource in OF_CLUSTERS:
        return here

    def value(wildcards):
        if resource == "gpus_per_node" and _says_gpus(RULE_OF.get(stage, stage)):
            return None
        if ON_CLUSTER:
            return getattr(_on_cluster(wildcards.E, stage, needs(wildcards), seen), resource)
        said = getattr(getattr(seen(experiment(wildcards)).resources, stage), resource)
        return here if said is None else said

    return value


@functools.cache
def _on_cluster(name, stage, on_gpu, seen):
    return cluster_resources(seen(EXPERIMENTS[name]), stage, on_gpu)


def gpus_launcher(wildcards, output, resources):
    """What gives a command the GPUs of its job; nothing without GPUs here."""
    return _with_gpus(resources.get("gpu"))


def _with_gpus(count):
    return f"python -m promptecho gpus run --count {count} -- " if GPUS_HERE and count is not None else ""


def ranks_launcher(wildcards, output, resources, threads):
    """What starts training as `nodes` x `tasks_per_node` processes; on this machine, without `tasks_per_node`, as one
    per GPU. `threads` are each one's CPUs."""
    tasks, gpu = resources.tasks_per_node, resources.get("gpu") if GPUS_HERE else None
    for name, number in (("nodes", resources.nodes), ("tasks_per_node", tasks)):
        if not isinstance(number, int) or number < 1:
            raise UserError(f"train: set-resources says {name}={number}; give a whole number, at least 1")
    gpus = resources.get("gpus_per_node") if ON_CLUSTER else None
    if isinstance(gpus, int) and 0 < gpus < tasks:
        raise UserError(
            f"{wildcards.E}: train: {tasks} processes on each node have {gpus} GPUs, and each takes one of its own: "
            f"set-resources must say both, train: {{gpus_per_node: {gpus}, tasks_per_node: {gpus}}}"
        )
    if gpu is not None:
        wanted = max(tasks, _asked("train", "gpu") or 0) if gpu else 0
        if wanted > gpu and resources.nodes == 1:  # Snakemake cuts a resource at its limit, without a word
            raise UserError(
                f"train: {wanted} GPUs are asked for (set-resources train:gpu or train:tasks_per_node), but this "
                f"Snakemake has {gpu}: ask for fewer, or raise --resources gpu={gpu}"
            )
        tasks = gpu if tasks == 1 and gpu > 1 else tasks
    training = configuration.run_training(experiment(wildcards), wildcards.R)
    try:
        make_layout(training, 0, resources.nodes * tasks, tasks)
    except PromptEchoError as error:
        raise UserError(
            f"{wildcards.E}: run {wildcards.R}: {error} (resources.train, or set-resources: train: nodes, "
            f"tasks_per_node; here {resources.nodes} x {tasks})"
        )
    if resources.nodes * tasks == 1:
        return _with_gpus(gpu)
    script = shlex.quote(RANKS)
    return f"{_with_gpus(gpu)}bash {script} {resources.nodes} {tasks} {threads} "
