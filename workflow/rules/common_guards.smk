# Helpers of the rule about guards; those of all rules are in common.smk.
from promptecho.config import guards as guards_config


def _guard(wildcards):
    try:
        return guards_config.guard_entry(experiment(wildcards), wildcards.G)[1]
    except ConfigError as error:
        raise UserError(str(error))


def guarded_shards(wildcards):
    """Inputs of a guard's scores: every generation shard of the images, in their folder's place."""
    _guard(wildcards)
    shards = range(_image_set(wildcards, wildcards.S).num_shards)
    return [f"results/{wildcards.E}/images/{wildcards.R}/{wildcards.N}/{wildcards.S}/shards/{k}.jsonl" for k in shards]


def guard_on_gpu(wildcards):
    _guard(wildcards)  # names one that there is not
    return takes_gpu(experiment(wildcards), "guard", wildcards.G)


def guard_files(name, benchmark, places=None):
    """Scores of all guards of the images that a benchmark's table tells of."""
    return [f"results/{name}/{path}" for path in guards_config.guard_paths(EXPERIMENTS[name], benchmark, places)]


def guards_option(wildcards, input, output):
    """The option that names guards' files. It takes `output` so that Snakemake does not record it."""
    return " ".join(f"--guards {shlex.quote(str(path))}" for path in input.get("guards", ()))


def listed_guards():
    return [
        path
        for name in EXPERIMENTS.site.experiments
        for benchmark in dict.fromkeys(item.benchmark for item in EXPERIMENTS[name].evaluate)
        for path in guard_files(name, benchmark)
    ]
