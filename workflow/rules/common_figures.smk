# Helpers of the figures' rules; those of all rules are in common.smk.

# Files whose code decides a figure; relative to the package.
FIGURES_CODE = ("figures", "statistics.py", "intervals.py", "scores.py", "images.py", "pixels.py", "train/metrics.py")
FIGURES_CODE += tuple(f"tables/{name}.py" for name in ("bold", "collect", "compare", "notes", "table", "tiif"))
FIGURES_CODE += ("benchmarks/tiif/attributes.py",)


def curve_metrics(wildcards):
    """Metrics of every segment up to the last scored checkpoint of each run."""
    chosen = experiment(wildcards)
    files = []
    for run, training in chosen.runs.items():
        last = max(configuration.evaluation_steps(chosen, wildcards.B, run), default=0)
        steps = [step for step in training.checkpoint_steps if step <= last]
        files += [f"results/{wildcards.E}/runs/{run}/{step}/metrics.jsonl" for step in steps]
    return files


def sampled_benchmark(name, run):
    """The first of the experiment's tables whose benchmark scores this run; None if there is none."""
    chosen = EXPERIMENTS[name]
    return next((table for table in chosen.tables if configuration.evaluation_steps(chosen, table, run)), None)


def sampled_checkpoints(wildcards):
    """(run, step) of the figure's columns: the base model, then every scored checkpoint."""
    benchmark = sampled_benchmark(wildcards.E, wildcards.R) if wildcards.R in experiment(wildcards).runs else None
    if benchmark is None:
        raise UserError(f"{wildcards.E}: no table has scores of run {wildcards.R}, so there are no samples to show")
    return benchmark, [
        (run, step)
        for run in ("base", wildcards.R)
        for step in configuration.evaluation_steps(experiment(wildcards), benchmark, run)
    ]


def sampled_shards(wildcards):
    """Every generation shard that the figure may pick images from."""
    benchmark, checkpoints = sampled_checkpoints(wildcards)
    name = experiment(wildcards).benchmarks[benchmark].image_set
    shards = range(experiment(wildcards).image_sets[name].num_shards)
    folder = f"results/{wildcards.E}/images"
    return [f"{folder}/{run}/{step}/{name}/shards/{k}.jsonl" for run, step in checkpoints for k in shards]


def sampled_scores(wildcards):
    benchmark, checkpoints = sampled_checkpoints(wildcards)
    return [f"results/{wildcards.E}/scores/{benchmark}/{run}/{step}.json" for run, step in checkpoints]


def listed_figures():
    files = []
    for name in EXPERIMENTS.site.experiments:
        chosen = EXPERIMENTS[name]
        files += [f"results/{name}/figures/curves_{table}.{kind}" for table in chosen.tables for kind in ("png", "html", "pdf", "json")]
        runs = [run for run in chosen.runs if sampled_benchmark(name, run)]
        files += [f"results/{name}/figures/samples_{run}.{kind}" for run in runs for kind in ("png", "html")]
    return files
