"""Digests of the part of the configuration that a stage depends on: a stage reruns when its digest changes."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from promptecho.config.benchmarks import BENCHMARKS, benchmark_named
from promptecho.config.counted_code import (
    JUDGE_CODE,
    NOT_SCORING,
    ORACLES,
    SCORING_CODE,
    TABLES_CODE,
    code_digest,
)
from promptecho.config.descriptors import REWARDS, ModelOptions
from promptecho.config.families import version_in_digest
from promptecho.config.fields import Section
from promptecho.config.former_behaviour import FORMER_BEHAVIOUR
from promptecho.config.guards import guard_entry
from promptecho.config.initial import initial_adapter
from promptecho.config.judge_kinds import judge_kind
from promptecho.config.load import reward_templates, reward_vlm, rewards_key, run_rewards, run_training, run_vlm
from promptecho.config.models import ExperimentConfig, T2iSection
from promptecho.config.rewards import NamedReward, VlmSection
from promptecho.config.scorers import backend_of
from promptecho.config.training_sizes import SizeSection
from promptecho.errors import ConfigError, DataError
from promptecho.files import digest, sha256_file
from promptecho.shipped import CLIPS, is_shipped, model_path
from promptecho.suggest import maybe
from promptecho.templates import Template, read_template

# These stages, or those that follow, take days on many GPUs, so a changed line of their code must not restart them.
# Raise the number by hand when a change makes old results wrong.
STAGE_VERSION = {"images": 1, "caption": 1, "merge": 1, "train": 1, "prompts": 1, "generate": 1, "guard": 1}

# Keys that move work around or say how far to go, but do not change what is computed (beyond the last digits).
_NOT_IN_TRAINING = {"iterations", "checkpoints", "checkpoint_every", "micro_batch_size", "zero_stage", "save_every_s"}
_NOT_IN_TRAINING |= {"keep_states", "timeout_s", "load_timeout_s", "accept_captions", "reward_placement"}
_NOT_IN_TRAINING |= {"activation_checkpointing"}
_NOT_IN_TRAINING |= {"trackers", "tracked_images"}
_NOT_IN_TRAINING |= {"preset"}  # its keys count
_NOT_IN_TRAINING |= {"rewards", "reward_vlm"}  # named beside it, with the experiment's where a run has none
_OF_ALGORITHM = ("nft", "grpo")  # sections of `training` that are named after their algorithm
_SIZE = {"height", "width"}  # those of the model do not count where the training has its own
_NOT_IN_INITIAL = {"step", "schedule", "pad_prompts"}  # of an adapter's own images
_NOT_IN_REWARD = {"batch_size"}
# How and at what price answers are got, not what they are.
_NOT_IN_ANSWERS = {"api_key_env", "concurrency", "requests_per_minute", "timeout_s", "max_attempts", "budget_usd"}
# An address is no identity; and how many failures are let pass changes none of the others.
_NOT_IN_ANSWERS |= {"endpoint", "max_failed_share"}
_NOT_IN_ANSWERS |= {"max_calls", "usd_per_million_input_tokens", "usd_per_million_output_tokens"}
_NOT_IN_MERGE = {"batch_size"}
_OF_SERVER = {"model", "request"}  # what of `captions.server` decides a caption: not where it is, nor how it is asked
_MERGE_ONLY = {"heldout", "max_words", "max_tokens", "max_rejected_share"}


def config_digest(config: ExperimentConfig) -> str:
    """Digest of the whole resolved configuration: 16 hex digits."""
    return digest(config.model_dump(mode="json"))


def slice_digest(config: ExperimentConfig, stage: str, run: str | None = None, **names: str | None) -> str:
    """Digest of `slice_value`: 16 hex digits."""
    return digest(slice_value(config, stage, run, **names))


def slice_value(
    config: ExperimentConfig,
    stage: str,
    run: str | None = None,
    *,
    image_set: str | None = None,
    benchmark: str | None = None,
    guard: str | None = None,
) -> dict[str, Any]:
    """What `stage` depends on, as JSON-able data.

    Args:
        stage: `images` (rendered training images), `caption` (one shard), `merge` (the training captions),
            `train` and `adapter` (need `run`), `prompts` and `generate` (need `image_set`), `score` (needs
            `benchmark`), `guard` (needs `guard`, the name of its column), `tables` (of `benchmark`, or of all).

    Raises:
        ConfigError: an unknown stage, run, image set or benchmark.
    """
    captions = _keys(config.captions, "captions")
    if "server" in captions:
        captions["server"] = {key: value for key, value in captions["server"].items() if key in _OF_SERVER}
    models = {"t2i": _model(config, config.models.t2i, "t2i"), "vlm": _model(config, config.models.vlm, "vlm")}
    if stage == "images":
        return {"version": STAGE_VERSION["images"], "shapes": captions["shapes"]}
    if stage == "caption":
        keys = {key: value for key, value in captions.items() if key not in _NOT_IN_MERGE | _MERGE_ONLY}
        return {"version": STAGE_VERSION["caption"], "vlm": models["vlm"], "captions": keys}
    if stage == "merge":
        return _merge_slice(captions, models)
    if stage == "train":
        run = _needed(run, stage, "run")
        settings = run_training(config, run)
        training = _keys(settings, "training")
        for name in _OF_ALGORITHM:  # those of another algorithm mean nothing
            if name != settings.algorithm or not training[name]:
                training.pop(name)
        training["sampling"].pop("batch_size")
        if training["sampling"]["policy"] == "ema":  # once they were those of the trained weights
            training["sampling"]["old_log_prob"] = "of the weights that sample"
        if training["heldout"]["patience"] is None:
            training.pop("heldout")  # merely watched
        if training.pop("lr_schedule", None) is not None:  # else it is constant, and the others mean nothing
            training["lr_schedule"] = settings.lr_schedule
            training["lr_decay_iterations"] = settings.decay_iterations
        else:
            training.pop("lr_decay_iterations", None)
            training.pop("lr_floor", None)
        if "finetuning" in training:
            training.pop("lora")  # means nothing to the whole model
        if settings.buckets is not None:  # as if they were written out
            del training["buckets"]
            sizes = settings.image_sizes(config.models.t2i)
            training["sizes"] = [SizeSection(height=h, width=w).model_dump(mode="json") for h, w in sizes]
        if settings.image_sizes(config.models.t2i) == [(config.models.t2i.height, config.models.t2i.width)]:
            for key in _SIZE:  # the same images as without these keys
                training.pop(key, None)
        training |= _initial_slice(config, run)
        entries = run_rewards(config, run)
        common = any(entry.reward.needs_vlm and entry.vlm is None for entry in entries)
        own = {"vlm": _model(config, run_vlm(config, run), "vlm")} if common else {}
        own_size = {"height", "width"} if "sizes" in training else _SIZE & training.keys()
        t2i = {key: value for key, value in models["t2i"].items() if key not in own_size}
        return {
            "version": STAGE_VERSION["train"],
            "models": {"t2i": t2i, **own},
            "captions": _merge_slice(captions, models),
            "rewards": _rewards_slice(config, run),
            "training": {key: value for key, value in training.items() if key not in _NOT_IN_TRAINING},
        }
    if stage in ("prompts", "generate"):
        keys = _entry(config, "image_sets", _needed(image_set, stage, "image_set"))
        keys.pop("batch_size")
        keys.pop("keep")
        keys.pop("storage")
        keys.pop("job")
        if stage == "prompts":
            keys = {key: keys[key] for key in ("benchmark", "prompts", "shapes", "heldout")}
            return {"version": STAGE_VERSION["prompts"], "image_set": keys, **_prompts_version(keys["benchmark"])}
        keys = {key: value for key, value in keys.items() if value is not None or key not in ("height", "width")}
        return {"version": STAGE_VERSION["generate"], "t2i": models["t2i"], "image_set": keys}
    if stage == "score":
        return _score_slice(config, _needed(benchmark, stage, "benchmark"))
    if stage == "guard":
        return _guard_slice(config, _needed(guard, stage, "guard"), image_set)
    if stage == "adapter":
        entry = _entry(config, "adapters", _needed(run, stage, "run"))
        return entry | version_in_digest(config.models.t2i.family)
    if stage == "tables":
        names = [benchmark] if benchmark else [*config.benchmarks]
        scorers = {_entry(config, "benchmarks", name)["scorer"] for name in names}
        return {**versions_of(scorers), "code": code_digest(*TABLES_CODE, *folders_of(scorers))}
    known = "images, caption, merge, train, adapter, prompts, generate, score, guard, tables"
    raise ConfigError(f"{stage}: no such stage (known: {known})")


def _initial_slice(config: ExperimentConfig, run: str) -> dict[str, Any]:
    """What the adapter is that a run begins with, whatever its entry is called."""
    initial = initial_adapter(config, run)
    if initial is None:
        return {}
    if initial.step is not None:
        return {"init_adapter": {"training": slice_digest(config, "train", initial.name), "step": initial.step}}
    entry = slice_value(config, "adapter", initial.name)
    return {"init_adapter": {key: value for key, value in entry.items() if key not in _NOT_IN_INITIAL}}


def _rewards_slice(config: ExperimentConfig, run: str) -> list[dict[str, Any]]:
    rewards = []
    elsewhere = {name: None for name in REWARDS.built_in if REWARDS.find(name).thing.null_elsewhere}
    pairs = zip(run_rewards(config, run), reward_templates(config, run), strict=True)
    for index, (entry, template) in enumerate(pairs):
        where = f"{rewards_key(config, run)}.{index}"
        section = None if entry.vlm is None else reward_vlm(config, entry, run)
        rewards.append(elsewhere | _reward_slice(config, entry, template, where, section))
    return rewards


def _reward_slice(
    config: ExperimentConfig, entry: NamedReward, template: Template | None, where: str, vlm: VlmSection | None
) -> dict[str, Any]:
    """Of the entry at `where`; `vlm`: one that counts by what it is, whatever it is called."""
    found, left_out = REWARDS.find(entry.name), {*_NOT_IN_REWARD, *(entry.model_extra or {})}
    keys = {key: value for key, value in _keys(entry, "rewards").items() if key not in left_out}
    own = {} if entry.options is None else _keys(entry.options, f"rewards.{entry.name}")
    if vlm is not None:
        keys["vlm"] = _model(config, vlm, "vlm")
    if template is not None:  # its text counts, not where it lies
        own["template"] = template.digest
    if isinstance(entry.options, ModelOptions):
        if entry.options.path in CLIPS:  # as in `_model`
            own["model_files"] = _folder_digest(model_path(entry.options.path, "clip"))
        for key, file in entry.options.files.items():
            own[key] = _file_digest(config, f"{where}.{entry.name}.{key}", file)
    if own:
        keys[entry.name] = {key: value for key, value in own.items() if key not in found.thing.not_in_digest}
    if found.thing.version > 1 or not found.is_ours:  # digests are older than the versions of our own
        keys["version"] = found.thing.version
    return keys


def _guard_slice(config: ExperimentConfig, title: str, image_set: str | None) -> dict[str, Any]:
    index, guard = guard_entry(config, title)
    where, place = f"guards.{index}", guard.reward.template_file(guard.options)
    try:
        template = None if place is None else read_template(place)
    except DataError as error:
        raise ConfigError(f"{config.experiment}: {where}.{guard.name}.template: {error}") from None
    keys = _reward_slice(config, guard, template, where, reward_vlm(config, guard))
    for key in ("column", "image_sets"):
        del keys[key]
    if "query" in guard.reward.takes:
        keys["query"] = guard.query or config.captions.query
    if image_set is not None:
        _entry(config, "image_sets", image_set)
    return {"version": STAGE_VERSION["guard"], "reward": keys}


def _score_slice(config: ExperimentConfig, benchmark: str) -> dict[str, Any]:
    keys = _entry(config, "benchmarks", benchmark)
    del keys["max_failed_share"]
    scorer, backend = benchmark_named(config.benchmarks[benchmark].scorer), backend_of(config.benchmarks[benchmark])
    oracle = ORACLES[backend.world] if backend.embedded_only or backend.videos else ()
    code = [*SCORING_CODE, *folders_of({scorer.name}), *oracle]
    code += ["config/defaults.py"] if backend.models else []
    value = {"benchmark": keys, **versions_of({scorer.name, scorer.images})}
    if keys["judge"] is not None:
        code += JUDGE_CODE
        judge = _keys(config.judges.models[keys["judge"]], "judges.models")
        if (version := judge_kind(judge["kind"]).version) > 1:  # digests are older than the versions of our own
            judge["kind_version"] = version
        value["judge"] = {key: setting for key, setting in judge.items() if key not in _NOT_IN_ANSWERS}
        templates = config.judges.templates
        if templates and not Path(templates).is_dir():
            raise ConfigError(f"{config.experiment}: judges.templates: {templates}: no such folder")
        value["templates"] = _folder_digest(templates) if templates else None
    return {**value, "code": code_digest(*code, leave_out=NOT_SCORING)}


def folders_of(benchmarks: Iterable[str]) -> list[str]:
    """Folders of the package that hold the code of these benchmarks and of those that they take images or code of;
    those from outside are left out."""
    found = [BENCHMARKS.find(name).thing for name in benchmarks]
    names = {name for one in found for name in (one.name, one.images, *one.shares)}
    return [f"benchmarks/{name}" for name in sorted(names) if BENCHMARKS.find(name).is_ours]


def versions_of(benchmarks: Iterable[str]) -> dict[str, Any]:
    """The versions of benchmarks from outside, whose code does not count, and those that were raised."""
    found = {name: BENCHMARKS.find(name) for name in sorted(benchmarks)}
    raised = {name: one.thing.version for name, one in found.items() if one.thing.version > 1 or not one.is_ours}
    return {"versions": raised} if raised else {}


def _prompts_version(benchmark: str) -> dict[str, int]:
    found = BENCHMARKS.find(benchmark)
    raised = found.thing.prompts_version > 1 or not found.is_ours
    return {"prompts_version": found.thing.prompts_version} if raised else {}


def _merge_slice(captions: dict[str, Any], models: dict[str, Any]) -> dict[str, Any]:
    keys = {key: value for key, value in captions.items() if key not in _NOT_IN_MERGE}
    # The text-to-image model's tokenizer cuts captions.
    tokenizer = {key: models["t2i"][key] for key in ("family", "path", "revision")}
    version = [STAGE_VERSION["caption"], STAGE_VERSION["merge"]]
    return {"version": version, "vlm": models["vlm"], "tokenizer": tokenizer, "captions": keys}


def _model(config: ExperimentConfig, section: Section, name: Literal["t2i", "vlm"]) -> dict[str, Any]:
    """Keys of a model of kind `name`; its path as written, so that moving `models_root` restarts nothing.

    A model that ships with the project may change with it, so its files count too.
    """
    keys = _keys(section, f"models.{name}")
    if is_shipped(keys["path"]):
        keys["files"] = _folder_digest(model_path(keys["path"], name))
    keys["path"] = as_written(config, keys["path"])
    if isinstance(section, T2iSection):
        keys["vae_slicing"] = False  # the same pixels
        keys |= version_in_digest(section.family)
    return keys


def as_written(config: ExperimentConfig, path: str) -> str:
    """A model's path as the experiment file has it, wherever `models_root` lies."""
    if config.models_root and Path(path).is_relative_to(config.models_root):
        return str(Path(path).relative_to(config.models_root))
    return path


def _file_digest(config: ExperimentConfig, key: str, file: str) -> str:
    """Digest of what a file holds that a setting names.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return sha256_file(Path(file).expanduser())
    except DataError as error:
        raise ConfigError(f"{config.experiment}: {key}: {error}") from None


@functools.cache
def _folder_digest(folder: str) -> str:
    """Digest of a folder's files, read once per process."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return digest({str(path.relative_to(folder)): sha256_file(path) for path in files})


def _keys(section: Section, path: str) -> dict[str, Any]:
    """Keys of `section`, which stands at `path`, without those of `FORMER_BEHAVIOUR` at their former value."""
    keys = section.model_dump(mode="json")
    for dotted, former in FORMER_BEHAVIOUR.items():
        if dotted.startswith(f"{path}."):
            *parents, last = dotted.removeprefix(f"{path}.").split(".")
            holder: Any = keys
            for parent in parents:
                holder = holder.get(parent) if isinstance(holder, dict) else None
            if isinstance(holder, dict) and last in holder and holder[last] == former:
                del holder[last]
    return keys


def _entry(config: ExperimentConfig, section: str, name: str) -> dict[str, Any]:
    entries = getattr(config, section)
    if name not in entries:
        known = ", ".join(entries) or "none"
        where = f"{config.experiment}: {section}.{name}"
        raise ConfigError(f"{where}: no such entry (known: {known}){maybe(name, entries)}")
    return _keys(entries[name], section)


def _needed(value: str | None, stage: str, name: str) -> str:
    if value is None:
        raise ConfigError(f"the digest of stage {stage} needs {name}")
    return value
