# Helpers of the rules about scores and tables; those of all rules are in common.smk.


def benchmark_of(wildcards):
    benchmarks = experiment(wildcards).benchmarks
    if wildcards.B not in benchmarks:
        raise UserError(f"{wildcards.E}: benchmarks.{wildcards.B}: no such entry (known: {', '.join(benchmarks)})")
    return benchmarks[wildcards.B]


def scored_image_set(wildcards):
    return experiment(wildcards).image_sets[benchmark_of(wildcards).image_set]


def _shards(wildcards, run, step):
    folder = f"results/{wildcards.E}/images/{run}/{step}/{benchmark_of(wildcards).image_set}"
    return [f"{folder}/shards/{k}.jsonl" for k in range(scored_image_set(wildcards).num_shards)]


def judged_images(wildcards):
    """Inputs of a judgement: every generation shard, those of the baseline for pairs, and the prompts."""
    prompts = _prompts(wildcards, benchmark_of(wildcards).image_set)
    inputs = {"shards": _shards(wildcards, wildcards.R, wildcards.N), "prompts": prompts}
    if is_pairwise(benchmark_of(wildcards)):
        baseline = configuration.baseline_of(experiment(wildcards), wildcards.B)
        if baseline == (wildcards.R, int(wildcards.N)):
            raise UserError(f"{wildcards.E}: {wildcards.B} compares with {wildcards.R} at {wildcards.N} itself")
        inputs["baseline"] = _shards(wildcards, *baseline)
    return inputs


def scored_answers(wildcards):
    """Inputs of a score by a judge: that it has answered."""
    if benchmark_of(wildcards).judge is None:
        return {}
    return {"answers": f"results/{wildcards.E}/answers/{wildcards.B}/{wildcards.R}/{wildcards.N}.json"}


def scoring_environment(wildcards):
    """The conda environment of a backend: only some need torch, an API client or packages that clash with others."""
    entry = benchmark_of(wildcards)
    environment = backend_of(entry).environment
    if entry.judge is not None:
        environment = judge_kind(experiment(wildcards).judges.models[entry.judge].kind).environment
    return str(environment) if isinstance(environment, Path) else f"../../envs/{environment}.yaml"


def _folder_of(shards):
    return os.path.dirname(os.path.dirname(shards[0]))


def judging_options(wildcards, input, output):
    """Options that `score` and `judge` have in common. It takes `output` so that Snakemake does not record them."""
    options = {
        "--benchmark": wildcards.B,
        "--config": config_path(wildcards, output),
        "--images": _folder_of(input.shards),
        "--prompts": input.prompts,
        "--images-per-prompt": scored_image_set(wildcards).images_per_prompt,
    }
    if "baseline" in input.keys():
        options["--baseline"] = _folder_of(input.baseline)
    if benchmark_of(wildcards).judge is not None:
        # Shared by all benchmarks and checkpoints, so that no question is paid for twice.
        options["--answers"] = placed(f"results/{wildcards.E}/judges/{benchmark_of(wildcards).judge}")
    return " ".join(f"{name} {shlex.quote(str(value))}" for name, value in options.items())


def score_files(name, benchmark):
    """Score files of a benchmark that `evaluate` asks for: the base model first, then run by run."""
    chosen = EXPERIMENTS[name]
    try:
        files = [
            f"results/{name}/scores/{benchmark}/{run}/{step}.json"
            for run in ["base", *chosen.runs, *chosen.adapters]
            for step in configuration.evaluation_steps(chosen, benchmark, run)
        ]
    except ConfigError as error:
        raise UserError(str(error))
    if not files:
        raise UserError(f"{name}: no entry of evaluate names benchmark {benchmark}, so it has no scores")
    return files


def _uses(name, image_set):
    """(run, step) of images -> what is made of them, for the checkpoints that `evaluate` names."""
    chosen, uses = EXPERIMENTS[name], {}
    for benchmark, entry in chosen.benchmarks.items():
        if entry.image_set != image_set:
            continue
        for run in ["base", *chosen.runs, *chosen.adapters]:
            for step in configuration.evaluation_steps(chosen, benchmark, run):
                score = f"results/{name}/scores/{benchmark}/{run}/{step}.json"
                uses.setdefault((run, step), []).append(score)
                if is_pairwise(entry):
                    uses.setdefault(configuration.baseline_of(chosen, benchmark), []).append(score)
        for place in uses:
            uses[place] += [path for path in guard_files(name, benchmark, [place]) if path not in uses[place]]
    for run in chosen.runs:
        benchmark = sampled_benchmark(name, run)
        if benchmark is not None and chosen.benchmarks[benchmark].image_set == image_set:
            for key in uses:
                if key[0] in ("base", run):
                    uses[key].append(f"results/{name}/figures/samples_{run}.png")
                    uses[key] += [f"results/{name}/figures/words_{run}.html"] if chosen.words else []
    return uses


def images_in_use(wildcards):
    """Inputs of a packed image set: everything that is made of its images."""
    _image_set(wildcards, wildcards.S)
    used = _uses(wildcards.E, wildcards.S).get((wildcards.R, int(wildcards.N)))
    if used is None:
        raise UserError(f"{wildcards.E}: evaluate asks for no {wildcards.S} images of {wildcards.R} at {wildcards.N}")
    return used


def listed_packs():
    return [
        f"results/{name}/images/{run}/{step}/{image_set}/packed.json"
        for name in EXPERIMENTS.site.experiments
        for image_set, entry in EXPERIMENTS[name].image_sets.items()
        if entry.keep != "loose"
        for run, step in _uses(name, image_set)
    ]


def listed_sources():
    listed_experiments()
    return official_sources()


def benchmark_names():
    """Benchmarks that are targets by their names, which is all but our `captions`, a stage."""
    listed_experiments()
    names = []
    for found in available_benchmarks():
        try:
            getattr(rules, found.thing.name)
        except WorkflowError:  # no rule has this name
            names.append(found.thing.name)
            continue
        if not found.is_ours:
            raise UserError(f"benchmark {found.thing.name} ({found}): a rule has this name; give it another one")
    return names


def listed_scores(scorer):
    return [
        path
        for name in EXPERIMENTS.site.experiments
        for benchmark, entry in EXPERIMENTS[name].benchmarks.items()
        if entry.scorer == scorer and benchmark in [item.benchmark for item in EXPERIMENTS[name].evaluate]
        for path in score_files(name, benchmark)
    ]


def listed_base_scores(wildcards):
    """Scores of the base models, which need no training. Asked for where `base` is: other targets need none."""
    paths = [
        score_files(name, benchmark)[0]  # the base model comes first
        for name in EXPERIMENTS.site.experiments
        for benchmark in dict.fromkeys(item.benchmark for item in EXPERIMENTS[name].evaluate)
        if configuration.evaluation_steps(EXPERIMENTS[name], benchmark, "base")
    ]
    if not paths:
        raise UserError("no entry of evaluate of the listed experiments asks for the base model (base: true)")
    return paths


def refused_by_table(name, benchmark):
    """Options of what a table refuses, where the experiment says other than usual."""
    chosen, options = EXPERIMENTS[name], []
    share = max_failed_share(chosen, chosen.benchmarks[benchmark])
    if share != MAX_FAILED_SHARE:
        options.append(f"--max-failures {name}/{benchmark}={share:g}")
    if chosen.judges.mixed_versions == "refuse":
        options.append("--mixed-versions refuse")
    return " ".join(options)


def refused_by_paper():
    """The same for the paper's tables, which are made of all listed experiments."""
    names = EXPERIMENTS.site.experiments
    options = [refused_by_table(name, benchmark) for name in names for benchmark in EXPERIMENTS[name].benchmarks]
    return " ".join(dict.fromkeys(option for option in options if option))


def paper_rows():
    """Options that say which runs stand beside which rows of the paper."""
    rows = EXPERIMENTS.site.paper_rows
    return " ".join(f"--paper-rows {shlex.quote(f'{row}={run}')}" for row, run in rows.items())


def listed_tables():
    """The listed experiments' own tables, and the paper's where one of them stands in these."""
    places = {**published().runs, **EXPERIMENTS.site.paper_rows}.values()
    in_paper = {place.partition("/")[0] for place in places}.intersection(EXPERIMENTS.site.experiments)
    return [
        f"results/{name}/tables/{table}.{kind}"
        for name in EXPERIMENTS.site.experiments
        for table in EXPERIMENTS[name].tables
        for kind in ("md", "html", "csv", "tex", "json")
    ] + (["results/paper/tables"] if in_paper else [])
