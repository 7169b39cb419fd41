# Helpers of all rules. The configuration is validated here once, before any job starts.
#
# `params:` of the rules come in two kinds. What decides a result (digests of configuration slices and of code)
# depends on the wildcards alone: Snakemake records it and reruns the rule when it changes. What merely tells
# the command where things are also takes `output`: Snakemake does not record such parameters, so a new
# resolved configuration, or a moved checkout, reruns nothing.
import gc
import inspect
import os
import shlex
import sys
from pathlib import Path

from snakemake.common import overwrite_function_params
from snakemake.exceptions import WorkflowError


include: "common_place.smk"


from promptecho import config as configuration
from promptecho.config.command_line import lost_settings
from promptecho.config.initial import initial_adapter
from promptecho.config.inputs import Inputs, inputs_of
from promptecho.config.reruns import names_in
from promptecho.config.resolve import resolve, split_site
from promptecho.config.benchmarks import BENCHMARKS, available_benchmarks, official_sources
from promptecho.config.judge_kinds import judge_kind
from promptecho.config.scorers import MAX_FAILED_SHARE, backend_of, image_set_limit, is_pairwise, max_failed_share
from promptecho.config.counted_code import TABLES_CODE
from promptecho.config.slices import folders_of, versions_of
from promptecho.errors import ConfigError, DataError
from promptecho.file_hashes import FileHashes
from promptecho.hub_record import HUB_ID
from promptecho.plain_errors import UserError
from promptecho.tables.published import published

# Jobs find the checkout without its installation, also inside conda environments, whose activation clears
# PYTHONPATH before this prefix runs; else what stood there, such as a package of plugins, stays. Without conda they
# use the Python that runs Snakemake, unless they are in an image, which has its own.
_PREFIX = "set -euo pipefail; "
if ROOT is not None:
    _PREFIX += f"export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}; "
if not CONDA:
    _PREFIX += '[ -n "${APPTAINER_CONTAINER:-}${SINGULARITY_CONTAINER:-}" ] || ' if IMAGES else ""
    _PREFIX += f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"; '
shell.prefix(_PREFIX.replace("{", "{{").replace("}", "}}"))


# A plan is many small objects that stay, millions of them for ten thousand jobs; by default Python would look through
# them for garbage again and again.
gc.set_threshold(100_000)


class Experiments(dict):
    """Experiments by name, each validated when first asked for, so that a path alone can select one.

    The main process writes every resolved configuration to results/E/config/DIGEST.yaml and hands the paths on
    in Snakemake's own `--config`, so that a queued job reads the configuration it was made for, never a later edit.
    """

    def __init__(self, raw):
        super().__init__()
        raw = dict(raw)
        # A module may be given a part of the configuration only.
        given = raw.pop("resolved_configs", None) or workflow.config_settings.overwrite_config.get(
            "resolved_configs", {}
        )
        self.paths = {key.removeprefix(PREFIX): path for key, path in given.items() if key.startswith(PREFIX)}
        self.retrain = raw.pop("retrain", None)
        self.unwritten = []
        try:
            self.site, self.overrides = split_site(raw)
            if not self.paths:
                self.listed = resolve(raw)
        except ConfigError as error:
            raise UserError(f"the configuration has these problems; nothing was started:\n{error}")
        if not self.paths:
            for name, experiment in self.listed.items():
                self._add(name, experiment)

    def __missing__(self, name):
        try:
            if name in self.paths:
                self[name] = configuration.load_experiment(self.paths[name])
            else:
                self._add(name, configuration.resolve_experiment(self.site, name, self.overrides))
        except ConfigError as error:
            raise UserError(f"the configuration has these problems; nothing was started:\n{error}")
        return self[name]

    def _add(self, name, experiment):
        self[name] = experiment
        folder = Path(placed(f"results/{name}/config"))
        self.paths[name] = str(folder / f"{configuration.config_digest(experiment)}.yaml")
        if workflow.is_main_process:
            try:
                configuration.write_resolved(experiment, folder)
            except DataError as error:  # results that may only be read can be planned; jobs can't run (protect.py)
                self.unwritten.append(str(error))
            _pass_on(self.paths)


def _pass_on(paths):
    """Add `resolved_configs` to the --config arguments of the jobs that Snakemake starts elsewhere."""
    everything = workflow.__dict__.setdefault("resolved_configs", {})  # of other modules, too
    everything.update({f"{PREFIX}{name}": path for name, path in paths.items()})
    others = [item for item in workflow.config_settings.config_args if not item.startswith("resolved_configs=")]
    workflow.config_settings.config_args = [*others, f"resolved_configs={everything!r}"]


if workflow.is_main_process and (LOST := lost_settings(sys.argv[1:], workflow.config_settings.config_args)):
    raise UserError(
        f"--config stands twice, and Snakemake takes the last one alone, without {' '.join(LOST)}: write all settings "
        "behind one --config; nothing was started"
    )
EXPERIMENTS = Experiments(config)


wildcard_constraints:
    E=r"[a-z0-9][a-z0-9._-]*",
    R=r"[a-z0-9][a-z0-9._-]*",
    S=r"[a-z0-9][a-z0-9._-]*",
    B=r"[a-z0-9][a-z0-9._-]*",
    J=r"[a-z0-9][a-z0-9._-]*",
    G=r"[a-z0-9][a-z0-9._-]*",
    N=r"0|[1-9][0-9]*",
    K=r"0|[1-9][0-9]*",
    shard=r"[0-9]{5}",


def experiment(wildcards):
    """The validated configuration that `{E}` names."""
    return EXPERIMENTS[wildcards.E]


def config_path(wildcards, output):
    """Path of the resolved configuration. It takes `output` so that Snakemake does not record it."""
    experiment(wildcards)
    return EXPERIMENTS.paths[wildcards.E]


INPUTS = {}


def inputs_of_experiment(name):
    """What is known of an experiment's inputs."""
    if name not in INPUTS:
        results = placed(f"results/{name}")
        INPUTS[name] = Inputs(f"{results}/config", FileHashes(f"{results}/work/file_hashes.json"), placed)
    return INPUTS[name]


def listed_experiments():
    """The experiments that the site lists, in whatever process: what their plugins bring is known from then on."""
    return {name: EXPERIMENTS[name] for name in EXPERIMENTS.site.experiments}


def once(function_of):
    """Have the parameter functions that `function_of` makes compute each value once: thousands of jobs ask for the same
    few."""
    known = {}

    def make(stage, **names):
        compute = function_of(stage, **names)

        def value(wildcards):
            key = (stage, *names, wildcards.E, *(wildcards[name] for name in names.values()))
            if key not in known:
                known[key] = compute(wildcards)
            return known[key]

        return value

    return make


@once
def slice_of(stage, **names):
    """A parameter function: the digest of `stage`'s slice; `names` maps its arguments to wildcards."""

    def value(wildcards):
        chosen = {argument: wildcards[wildcard] for argument, wildcard in names.items()}
        try:
            return configuration.slice_digest(experiment(wildcards), stage, **chosen)
        except ConfigError as error:
            raise UserError(str(error))

    return value


def tell_parameters():
    """Functions of the rules say what they take, once: Snakemake looks it up several times for every job, which costs as
    much again as what most of them do."""
    for each in workflow.rules:
        for item in [*each.params, *each.input, *each.resources.values()]:
            for holder in ("_evaluator", "_file", "callable"):  # of a resource, of an input, of `unpack`
                item = getattr(item, holder, item)
            if callable(item) and getattr(inspect.unwrap(item), "__globals__", None) is globals():
                overwrite_function_params(item, inspect.signature(item).parameters)


@once
def made_from(stage, **names):
    """`slice_of`, and whether the inputs from outside are still the ones that were there first. Jobs elsewhere find the
    same by the hashes that the main process has kept, so that they read no models for it."""

    def value(wildcards):
        chosen = {argument: wildcards[wildcard] for argument, wildcard in names.items()}
        found = slice_of(stage, **names)(wildcards)
        try:
            inputs = inputs_of(experiment(wildcards), stage, **chosen)
            return inputs_of_experiment(wildcards.E).marked(found, inputs)
        except DataError as error:
            if not workflow.is_main_process:  # what its own job can't read, that job says
                return found
            raise UserError(f"{wildcards.E}: {error}")

    return value


MADE_FROM_PROMPTS = made_from("generate", image_set="S")


def wanted_images(wildcards):
    """What a shard is made from, and which images are wanted where that is not all. Apart from `made_from`, after which
    the work folder is named: images stay when a limit changes."""
    found = MADE_FROM_PROMPTS(wildcards)
    limit = image_set_limit(experiment(wildcards), wildcards.S)
    return found if limit is None else f"{found}, first {limit} prompts"


def work_folder(stage, path, **names):
    """A parameter function: where unfinished work of `stage` lies. It carries the digest of the slice and of inputs that
    were replaced, so work that was begun under another configuration, or with other models, is never taken up."""

    made, of_adapter = made_from(stage, **names), {origin: slice_of(origin, run="R") for origin in ("adapter", "train")}

    def value(wildcards, output):
        folder = path.format(**{name: wildcards[name] for name in wildcards.keys()})
        digest = made(wildcards)
        if stage == "generate" and wildcards.R != "base":  # images of one adapter are not those of another
            origin = "adapter" if wildcards.R in experiment(wildcards).adapters else "train"
            digest = f"{digest}-{of_adapter[origin](wildcards)}"
        return placed(f"results/{wildcards.E}/work/{folder}/{digest}")

    return value


def captions_source(wildcards):
    """Inputs of the training captions: caption shards, or the prompt file that the user brings."""
    captions = experiment(wildcards).captions
    if captions.prompts is not None:
        return {"prompts": ancient(captions.prompts)}
    return {"shards": [f"results/{wildcards.E}/captions/shards/{k:05d}.h5" for k in range(captions.num_shards)]}


def previous_checkpoint(wildcards):
    """Inputs of a training segment: the previous checkpoint, none for the first."""
    try:
        steps = configuration.run_training(experiment(wildcards), wildcards.R).checkpoint_steps
    except ConfigError as error:
        raise UserError(str(error))
    step = int(wildcards.N)
    _require_checkpoint(wildcards, step, steps)
    if step == steps[0]:
        return {}
    folder = f"results/{wildcards.E}/runs/{wildcards.R}/{steps[steps.index(step) - 1]}"
    return {"state": bound(wildcards, f"{folder}/state"), "adapter": bound(wildcards, f"{folder}/adapter")}


def bound(wildcards, path):
    """An input of a training. A checkpoint knows by hashes what it was trained on, and is protected (protect.py), so
    that a newer time of change alone means nothing; but a run that is to be trained again follows its inputs."""
    names = names_in(EXPERIMENTS.retrain or "")
    return path if {wildcards.R, f"{wildcards.E}/{wildcards.R}"}.intersection(names) else ancient(path)


def training_inputs(wildcards):
    """Inputs of a training segment: captions; with some experiments held-out ones to watch, and files of labels."""
    chosen = experiment(wildcards)
    inputs = {"captions": bound(wildcards, f"results/{wildcards.E}/captions/captions.h5")}
    if configuration.run_training(chosen, wildcards.R).heldout.prompts:
        inputs["heldout"] = bound(wildcards, f"results/{wildcards.E}/captions/heldout.jsonl")
    if configuration.run_training(chosen, wildcards.R).size_by == "image":  # training finds it beside the captions
        inputs["image_sizes"] = bound(wildcards, f"results/{wildcards.E}/captions/image_sizes.jsonl")
    if (initial := initial_adapter(chosen, wildcards.R)) is not None:
        inputs["initial"] = bound(wildcards, f"results/{wildcards.E}/{initial.folder}")
        _require_adapter(wildcards, initial)
    labels = [
        bound(wildcards, entry.label)
        for entry in configuration.run_rewards(chosen, wildcards.R)
        if entry.label is not None
    ]
    return inputs | ({"labels": labels} if labels else {})


def _require_adapter(wildcards, initial):
    """An adapter to begin with that should lie here is told when Snakemake plans; what the hub has, when jobs start."""
    from promptecho.models.inventory import unavailable_models

    chosen, folder = experiment(wildcards), placed(f"results/{wildcards.E}/{initial.folder}")
    if initial.step is not None or os.path.exists(folder) or HUB_ID.fullmatch(chosen.adapters[initial.name].adapter):
        return
    if problems := unavailable_models(chosen, {f"runs.{initial.name}"}):
        raise UserError("\n".join(problems))


def training_begin(wildcards, input):
    """The options that say where a segment begins. One parameter, as in `seed_and_world`."""
    resume = f"--resume {shlex.quote(os.path.dirname(input.state))}" if "state" in input.keys() else ""
    initial = f"--init-adapter {shlex.quote(input.initial)}" if "initial" in input.keys() else ""
    return f"{resume} {initial}".strip()


def _require_checkpoint(wildcards, step, steps):
    if step not in steps:
        raise UserError(
            f"{wildcards.E}: run {wildcards.R} has no checkpoint {step} (checkpoints: {', '.join(map(str, steps))})"
        )


def evaluated_adapter(wildcards):
    """The adapter to generate with; the base model has none."""
    if wildcards.R == "base":
        _require_checkpoint(wildcards, int(wildcards.N), [0])
        return {}
    adapters = experiment(wildcards).adapters
    if wildcards.R in adapters:
        _require_checkpoint(wildcards, int(wildcards.N), [adapters[wildcards.R].step])
        return {"adapter": f"results/{wildcards.E}/adapters/{wildcards.R}"}
    return {"adapter": f"results/{wildcards.E}/runs/{wildcards.R}/{wildcards.N}/adapter"}


def benchmarks_mirror(wildcards, output):
    """The option that names the folder of official files, where the site has one."""
    mirror = EXPERIMENTS.site.benchmarks.mirror
    return f"--mirror {shlex.quote(mirror)}" if mirror else ""


def published_adapter(wildcards, output):
    """Where a published adapter comes from, as options."""
    entry = experiment(wildcards).adapters[wildcards.R]
    revision = f" --revision {shlex.quote(entry.revision)}" if entry.revision else ""
    alpha = "" if entry.alpha is None else f" --alpha {entry.alpha!r}"
    return f"--source {shlex.quote(entry.adapter)}{revision}{alpha}"


def image_set_prompts(wildcards):
    return _prompts(wildcards, wildcards.S)


def _image_set(wildcards, image_set):
    image_sets = experiment(wildcards).image_sets
    if image_set not in image_sets:
        raise UserError(f"{wildcards.E}: image_sets.{image_set}: no such entry (known: {', '.join(image_sets)})")
    return image_sets[image_set]


def _prompts(wildcards, image_set):
    """The prompt file of an image set: the user's, or one that the workflow writes."""
    given = _image_set(wildcards, image_set).prompts
    return ancient(given) if given else f"results/{wildcards.E}/prompts/{image_set}/metadata.jsonl"


def prompts_source(wildcards):
    """Inputs of an image set's prompts: the held-out captions, where it takes them."""
    if _image_set(wildcards, wildcards.S).heldout is None:
        return {}
    return {"heldout": f"results/{wildcards.E}/captions/heldout.jsonl"}


def prompts_command(wildcards, input, output):
    """The command that writes an image set's prompts."""
    chosen = _image_set(wildcards, wildcards.S)
    if chosen.heldout is not None:
        return f"benchmarks heldout --captions {shlex.quote(input.heldout)} --count {chosen.heldout}"
    if chosen.shapes is None:
        raise UserError(f"{wildcards.E}: image_sets.{wildcards.S} has prompts of its own; there are none to write")
    told = f"shapes {chosen.benchmark} --per-tag {chosen.shapes.per_tag} --seed {seed_and_world(chosen.shapes)}"
    return f"{told} {plugins_option(wildcards, output)}".rstrip()


def seed_and_world(rendered):
    """The value of `--seed`, and another world than the first. One parameter, so that what is finished stays: Snakemake
    makes it again where a rule has a parameter more."""
    return rendered.seed if rendered.world == "shapes" else f"{rendered.seed} --world {rendered.world}"


def source_option(wildcards, output):
    """The same for an official prompt set, which belongs to no single experiment."""
    for name, chosen in listed_experiments().items():
        scorers = {entry.scorer for entry in chosen.benchmarks.values()} if chosen.plugins else ()
        found = [source.name for scorer in scorers for source in BENCHMARKS.find(scorer).thing.sources]
        if wildcards.set in found:
            return f"--config {shlex.quote(EXPERIMENTS.paths[name])}"
    return ""


def plugins_option(wildcards, output):
    """Where a command finds the benchmarks that the experiment's plugins bring; nothing for all others."""
    if not experiment(wildcards).plugins:
        return ""
    return f"--config {shlex.quote(config_path(wildcards, output))}"
