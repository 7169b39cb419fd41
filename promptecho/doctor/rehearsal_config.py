"""The experiment that a rehearsal runs: its own models and settings, one prompt, two images, one iteration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptecho.captions.inputs import list_images
from promptecho.config import ExperimentConfig, run_rewards, run_training
from promptecho.config.load import parse_experiment
from promptecho.config.resolve import write_resolved
from promptecho.config.training import ONE_SIZE
from promptecho.doctor.images import SAMPLE
from promptecho.doctor.preflight import Preflight
from promptecho.errors import DataError
from promptecho.images import load_image
from promptecho.train.smoke import settings as smoke_settings

IMAGES = 2  # of the prompt that is trained on
# By which runs differ in what they load and compute.
OWN = {
    "reward_vlm", "rewards", "seed", "sampling", "reward_placement", "finetuning", "algorithm", "height", "width",
    "sizes", "buckets", "lora", "zero_stage",
}  # fmt: skip


@dataclass(frozen=True)
class RehearsedRun:
    """A run of the experiment in its smallest form: `config` in memory, and at `path` as its commands read it."""

    name: str
    config: ExperimentConfig
    path: Path


def rehearsed_runs(preflight: Preflight, folder: Path, placement: str | None, *, small: bool) -> list[RehearsedRun]:
    """The runs to rehearse: of those that load and reward alike, the first. Without any run, the base model's images
    are rehearsed by a run that is not trained.

    Args:
        folder: of the rehearsal; nothing of an experiment's results is touched.
        placement: where rewards are computed instead of where the run has it (None: there).
        small: on processors.

    Raises:
        ConfigError: the experiment has no smallest form.
    """
    config, seen, found = preflight.config, set(), []
    for name in preflight.names("train"):
        training = run_training(config, name).model_dump(mode="json")
        rewards = [reward.model_dump(mode="json") for reward in run_rewards(config, name)]
        key = json.dumps([{k: training.get(k) for k in sorted(OWN - {"seed"})}, rewards], sort_keys=True, default=str)
        if key not in seen:
            seen.add(key)
            found.append(_smallest(preflight, name, folder, placement, small))
    return found or [_smallest(preflight, None, folder, placement, small)]


def _smallest(
    preflight: Preflight, run: str | None, folder: Path, placement: str | None, small: bool
) -> RehearsedRun:  # fmt: skip
    config = preflight.config
    raw = config.model_dump(mode="json")
    if run is not None:
        tried = smoke_settings(config, run, 1, folder, small=small)
        micro = min(tried["training"]["micro_batch_size"], IMAGES)
        raw["training"] = tried["training"] | {
            "iterations": 1, "checkpoints": [1], "prompts_per_iteration": 1, "images_per_prompt": IMAGES,
            "batch_size": IMAGES, "micro_batch_size": micro,
        }  # fmt: skip
        if (training := run_training(config, run)).has_several_sizes:  # the one prompt has the largest
            height, width = training.size(config.models.t2i)
            raw["training"] |= {**ONE_SIZE, "height": height, "width": width}
        raw["rewards"] = tried["rewards"]
        if placement is not None:
            raw["training"]["reward_placement"] = {"mode": placement}
    raw["runs"] = {} if run is None else {run: {}}
    raw |= {"adapters": {}, "evaluate": [], "tables": [], "captions": _captions(preflight, raw["captions"], folder)}
    raw["benchmarks"] = {
        name: raw["benchmarks"][name] | {"limit": 1, "baseline": None} for name in preflight.benchmarks
    }
    used = {section.image_set for section in preflight.benchmarks.values()}
    raw["image_sets"] = {name: _one_prompt(section) for name, section in raw["image_sets"].items() if name in used}
    raw["models_prompt_cache"] = None if raw["models_prompt_cache"] is None else str(folder / "prompt-cache")
    smallest = parse_experiment(raw, f"{preflight.source} (rehearsal)")
    return RehearsedRun(run or "base", smallest, write_resolved(smallest, folder / "config"))


def _one_prompt(raw: dict[str, Any]) -> dict[str, Any]:
    """An image set's keys for one image of one prompt, at its real size."""
    heldout = None if raw["heldout"] is None else 1
    return raw | {"images_per_prompt": 1, "batch_size": 1, "num_shards": 1, "heldout": heldout}


def _captions(preflight: Preflight, raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The key `captions` for one caption to train on, and one that is held out where an image set takes such."""
    sets = (preflight.config.image_sets[one.image_set] for one in preflight.benchmarks.values())
    heldout = int(any(one.heldout is not None for one in sets))
    raw = raw | {"heldout": heldout, "num_shards": 1, "batch_size": 1 + heldout}
    if raw["images"] is not None:
        raw["images"] = str(_some_images(raw["images"], folder / "images.txt", 1 + heldout))
    if raw["shapes"] is not None:
        raw["shapes"] = raw["shapes"] | {"count": 1 + heldout}
    return raw


def _some_images(source: str, file: Path, count: int) -> Path:
    """A list of the first images that can be read; of the first ones where none can."""
    try:
        items = list_images(source)[:SAMPLE]
    except DataError:
        return Path(source)  # captioning says what is wrong with it
    readable = []
    for item in items:
        try:
            load_image(item.path)
        except DataError:
            continue
        readable.append(item)
        if len(readable) == count:
            break
    file.write_text("".join(f"{Path(item.path).absolute()}\n" for item in (readable or items)[:count]), "utf-8")
    return file
