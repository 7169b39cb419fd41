# Images of several image sets from one checkpoint in one process, where the experiment says so (image_sets.NAME.job). That
# process makes images only. Each shard's own job looks afterwards at what is there, makes what is missing, and writes the
# list of its images, so that these jobs and their files are the same with and without it.
import functools

from snakemake.iocontainers import Wildcards

UNFINISHED_IMAGES = work_folder("generate", "generate_shard/{R}/{N}/{S}/{K}", image_set="S")
USES = functools.cache(_uses)


def shards_together(name, job, run, step):
    """(image set, shard) of all images of one checkpoint that are made together: of the sets that name this job, those
    that `evaluate` asks for at this checkpoint."""
    return [
        (image_set, shard)
        for image_set, entry in EXPERIMENTS[name].image_sets.items()
        if entry.job == job and (run, step) in USES(name, image_set)
        for shard in range(entry.num_shards)
    ]


def images_made_together(wildcards):
    """Input of a shard: that its images were made with others, where they are. Its age says nothing."""
    job = _image_set(wildcards, wildcards.S).job
    if job is None:
        return {}
    shards = shards_together(wildcards.E, job, wildcards.R, int(wildcards.N))
    if len(shards) < 2 or (wildcards.S, int(wildcards.K)) not in shards:
        return {}
    return {"together": ancient(f"results/{wildcards.E}/work/generate_together/{wildcards.R}/{wildcards.N}/{job}.done")}


def _together(wildcards):
    """The wildcards of each of the shards."""
    experiment(wildcards)
    shards = shards_together(wildcards.E, wildcards.J, wildcards.R, int(wildcards.N))
    if not shards:
        raise UserError(
            f"{wildcards.E}: evaluate asks for no images of {wildcards.R} at {wildcards.N} whose image set names the job "
            f"{wildcards.J}"
        )
    return [
        Wildcards(fromdict={"E": wildcards.E, "R": wildcards.R, "N": wildcards.N, "S": image_set, "K": str(shard)})
        for image_set, shard in shards
    ]


def prompts_together(wildcards):
    return list({each.S: _prompts(each, each.S) for each in _together(wildcards)}.values())


def sets_together(wildcards, output):
    return ", ".join(dict.fromkeys(each.S for each in _together(wildcards)))


def options_together(wildcards, input, output):
    """What `generate` is told of each shard. It takes `output` so that Snakemake does not record it."""
    told, prompts = [], {}
    for each in _together(wildcards):
        # In the order of the inputs.
        prompts.setdefault(each.S, input.prompts[len(prompts)] if each.S not in prompts else None)
        options = {
            "--image-set": each.S,
            "--shard": each.K,
            "--num-shards": experiment(wildcards).image_sets[each.S].num_shards,
            "--prompts": prompts[each.S],
            "--out": placed(f"results/{each.E}/images/{each.R}/{each.N}/{each.S}"),
            "--work": UNFINISHED_IMAGES(each, output),
        }
        told += [f"{name} {shlex.quote(str(value))}" for name, value in options.items()]
    return " ".join(told)
