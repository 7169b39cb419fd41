# Which photographs are captioned. The main process lists them once for each experiment, when it plans, and finds out
# which finished shards are of other ones (promptecho/captions/renewal.py); these are forced to run again. The list is no
# declared file: results that are older than lists have none, and must not run again for the want of it.
import sys

from promptecho.errors import DataError
from promptecho.plain_errors import in_plain_words

RENEWALS = {}


def captioned_images(wildcards):
    """The images of a shard: the user's folder or list of files, whose own time says nothing, or the rendered ones."""
    images = experiment(wildcards).captions.images
    if images is None:
        return f"results/{wildcards.E}/captions/images"
    if workflow.is_main_process and os.path.exists(placed(images)):
        renewal = _renewal(wildcards.E)
        if int(wildcards.shard) in renewal.shards:
            workflow.dag.forcefiles.add(placed(f"results/{wildcards.E}/captions/shards/{wildcards.shard}.h5"))
    return ancient(images)


def images_list(wildcards, output):
    """The file of the list, which may be missing. It takes `output` so that Snakemake does not record it."""
    from promptecho.captions.renewal import LIST  # here, as most jobs need nothing of it

    return placed(f"results/{wildcards.E}/captions/{LIST}")


def merged_images(wildcards):
    """Options by which the merge knows the images that must be there."""
    images = experiment(wildcards).captions.images or f"results/{wildcards.E}/captions/images"
    return f"--images {shlex.quote(placed(images))} --list {shlex.quote(images_list(wildcards, None))}"


def sized_images(wildcards, output):
    """Options that say where the captioned images are, or the user's prompts with sizes beside them. It takes `output`
    so that Snakemake does not record it."""
    prompts = experiment(wildcards).captions.prompts
    return merged_images(wildcards) if prompts is None else f"--prompts {shlex.quote(prompts)}"


def _renewal(name):
    from promptecho.captions.renewal import renew

    if name not in RENEWALS:
        captions, folder = EXPERIMENTS[name].captions, placed(f"results/{name}/captions")
        hashes = inputs_of_experiment(name).hashes
        try:
            RENEWALS[name] = renew(placed(captions.images), folder, captions.num_shards, hashes)
        except DataError as error:
            raise UserError(f"{name}: {error}")
        finally:
            hashes.save()
        for line in RENEWALS[name].told(name):
            print(line, file=sys.stderr)
    return RENEWALS[name]


def _write_lists(build):
    """`build`, after which the lists are written: not for `-n`, nor beside another Snakemake that works with them."""

    def build_and_write():
        build()
        writes = workflow.is_main_process and workflow.executor_plugin is not None and not workflow.dryrun
        if writes and RENEWALS and not workflow.persistence.locked:
            for name, renewal in RENEWALS.items():
                try:
                    renewal.write(placed(f"results/{name}/captions"))
                except DataError as error:
                    if any(job.rule.name.endswith("caption_shard") for job in workflow.dag.needrun_jobs()):
                        raise UserError(str(error))

    return build_and_write


# Snakemake has no hook between its plan and the first job.
workflow._build_dag = _write_lists(workflow._build_dag)


def _brought():
    """What the user brings, and which key names it."""
    return {
        placed(path): f"{name}: captions.{key}"
        for name, of in EXPERIMENTS.items()
        for key, path in (("images", of.captions.images), ("prompts", of.captions.prompts))
        if path
    }


# Last, so that it is around the others.
in_plain_words(workflow, _brought)
