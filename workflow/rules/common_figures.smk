# Helpers of the figures' rules; those of all rules are in common.smk.

import json

from promptecho.shipped import is_shipped

# Files whose code decides a figure; relative to the package.
FIGURES_CODE = ("figures", "statistics.py", "shared_prompts.py", "intervals.py", "scores.py", "item_columns.py")
FIGURES_CODE += ("archives.py", "images.py", "pixels.py", "train/metrics.py")
FIGURES_CODE += tuple(f"tables/{name}.py" for name in ("bold", "collect", "compare", "kind", "notes", "table"))


def figures_code(name, *benchmarks):
    """A parameter: the digest of the code of figures of these benchmarks of an experiment."""
    scorers = {EXPERIMENTS[name].benchmarks[benchmark].scorer for benchmark in benchmarks}
    code = configuration.code_digest(*FIGURES_CODE, *folders_of(scorers))
    return " ".join(
        [code, *(f"{scorer} {version}" for scorer, version in versions_of(scorers).get("versions", {}).items())]
    )


# What reads prompts word by word, besides the figures' code; relative to the package.
WORDS_CODE = ("reading", "rewards/echo", "vlm")


def words_code(wildcards):
    """A parameter: the digests of the code of a run's page of words."""
    benchmark, _ = sampled_checkpoints(wildcards)
    return f"{figures_code(wildcards.E, benchmark)} {configuration.code_digest(*WORDS_CODE)}"


def words_settings(wildcards):
    """A parameter: what the reward of a run reads words with."""
    chosen, run = experiment(wildcards), wildcards.R
    echo = next((entry for entry in configuration.run_rewards(chosen, run) if entry.name == "echo"), None)
    vlm = words_vlm(wildcards).model_dump(mode="json")
    reward = {} if echo is None else echo.model_dump(mode="json", include={"query", "label", "echo"})
    return json.dumps({"vlm": vlm, "asked": chosen.captions.query, **reward}, sort_keys=True)


def words_vlm(wildcards):
    """The VLM that reads a run's words: that of its first echo."""
    chosen, run = experiment(wildcards), wildcards.R
    echo = next((entry for entry in configuration.run_rewards(chosen, run) if entry.name == "echo"), None)
    return configuration.run_vlm(chosen, run) if echo is None else configuration.reward_vlm(chosen, echo, run)


def words_on_gpu(wildcards):
    return not is_shipped(words_vlm(wildcards).path)


def words_pages(name):
    """The experiment's pages of words: one for each run that has samples."""
    runs = [run for run in EXPERIMENTS[name].runs if sampled_benchmark(name, run)]
    return [f"results/{name}/figures/words_{run}.html" for run in runs]


def listed_words():
    return [page for name in EXPERIMENTS.site.experiments for page in words_pages(name)]


# What decides a page to browse, besides the figures' code; relative to the package.
BROWSE_CODE = ("browse", "reading/scales.py", "reading/template.py", "tables/collect.py")


def browse_code(wildcards):
    """A parameter: the digest of the code of a benchmark's page."""
    return f"{figures_code(wildcards.E, wildcards.B)} {configuration.code_digest(*BROWSE_CODE)}"


def browsed_shards(wildcards):
    """The generation shards of all images that a benchmark's scores of an experiment are about."""
    chosen, entry = experiment(wildcards), benchmark_of(wildcards)
    checkpoints = [(Path(path).parent.name, Path(path).stem) for path in score_files(wildcards.E, wildcards.B)]
    checkpoints += [configuration.baseline_of(chosen, wildcards.B)] if is_pairwise(entry) else []
    return list(dict.fromkeys(shard for run, step in checkpoints for shard in _shards(wildcards, run, step)))


def browsed_words(wildcards):
    """The numbers of pages of words, where the experiment has them made."""
    return [page[:-5] + ".json" for page in words_pages(wildcards.E)] if experiment(wildcards).words else []


def listed_pages():
    return [
        f"results/{name}/browse/{benchmark}.html"
        for name in EXPERIMENTS.site.experiments
        for benchmark in dict.fromkeys(item.benchmark for item in EXPERIMENTS[name].evaluate)
    ]


# A figure's files: over two columns of a paper and in one, its numbers, and a page for the report.
FIGURE_FILES = ("{}.png", "{}.pdf", "single_column/{}.pdf", "{}.json", "{}.html")


def training_metrics(name):
    """Metrics of every segment up to the last checkpoint of each run that any of the experiment's tables scores."""
    chosen = EXPERIMENTS[name]
    files = []
    for run, training in chosen.runs.items():
        last = max(
            (step for table in chosen.tables for step in configuration.evaluation_steps(chosen, table, run)), default=0
        )
        steps = [step for step in training.checkpoint_steps if step <= last]
        files += [f"results/{name}/runs/{run}/{step}/metrics.jsonl" for step in steps]
    return files


def trained_metrics(wildcards):
    experiment(wildcards)
    metrics = training_metrics(wildcards.E)
    if not metrics:
        raise UserError(f"{wildcards.E}: no table has scores of a run that is trained, so there are no training curves")
    return metrics


def sampled_benchmark(name, run):
    """The first of the experiment's tables whose benchmark scores this run; None if there is none.

    One that judges each image by itself goes before one that compares it with the baseline's.
    """
    chosen = EXPERIMENTS[name]
    tables = sorted(chosen.tables, key=lambda table: is_pairwise(chosen.benchmarks[table]))
    return next((table for table in tables if configuration.evaluation_steps(chosen, table, run)), None)


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
        figures = [f"curves_{table}" for table in chosen.tables]
        figures += ["training"] if training_metrics(name) else []
        figures += [f"samples_{run}" for run in chosen.runs if sampled_benchmark(name, run)]
        files += [f"results/{name}/figures/{kind.format(figure)}" for figure in figures for kind in FIGURE_FILES]
        files += words_pages(name) if chosen.words else []
    return files
