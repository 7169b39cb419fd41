"""Put together what is published: a folder that is there whole or not at all."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from promptecho.benchmarks.packing import unpacked
from promptecho.config import ExperimentConfig, run_rewards, run_vlm
from promptecho.config.benchmarks import benchmark_named
from promptecho.config.families import family_named
from promptecho.config.reruns import finished_checkpoints
from promptecho.errors import ConfigError, DataError
from promptecho.figures.samples import choose, read_column
from promptecho.files import atomic_path, copy_file, read_json, write_json, write_text
from promptecho.hub_record import HUB_ID
from promptecho.images import load_image
from promptecho.publish.card import Shown, card, hub_id_of
from promptecho.publish.evaluation import evaluations
from promptecho.suggest import maybe
from promptecho.tables.collect import ScoreFile
from promptecho.tables.table import Table, to_json

ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "pytorch_lora_weights.safetensors")
MODEL = ("config.json", "diffusion_pytorch_model.safetensors")  # of a run with `finetuning: full`
COMFYUI = "comfyui_lora.safetensors"
_SPACE, _SUFFIX = re.compile(r"\s"), re.compile(r"\.\w{1,12}$")
FIX = "delete it and rerun the generation"


def last_step(results: Path, run: str) -> int:
    """The run's last checkpoint.

    Raises:
        DataError: it has none.
    """
    steps = [int(path.parent.name) for path in results.glob(f"runs/{run}/*/adapter") if path.parent.name.isdigit()]
    if not steps:
        known = list(finished_checkpoints(results))
        raise DataError(f"{results}/runs/{run}: no checkpoint N/adapter in it{maybe(run, known)}; train it first")
    return max(steps)


def publish(
    results: Path, config: ExperimentConfig, run: str, step: int, out: Path, *, licence: str,
    base_model: str | None = None, hub_name: str = "OWNER/NAME", images: int = 8,
) -> list[str]:  # fmt: skip
    """Write the folder; returns the names of its files.

    Args:
        licence: of the adapter, as the hub names it.
        base_model: what the hub calls the base model; None: as the configuration or the model's record says.
        images: prompts of the gallery; their wins and losses have the shares that they have among all.

    Raises:
        ConfigError: the configuration does not train this run.
        DataError: `out` exists, there is no such checkpoint, a file is missing or damaged, a table in the results is of
            other scores, or the disk is full.
    """
    if out.exists():
        raise DataError(f"{out}: exists already; nothing is overwritten, give another folder to --out")
    if run not in config.runs:
        told = f"--run {run}: is not trained by {config.experiment}{maybe(run, config.runs)}"
        raise ConfigError(f"{told} (known: {', '.join(config.runs) or 'none'})")
    adapter = results / f"runs/{run}/{step}/adapter"
    full = config.runs[run].finetuning == "full"
    files = MODEL if full else ADAPTER
    missing = [name for name in files if not (adapter / name).is_file()]
    if missing:
        raise DataError(f"{adapter}: {missing[0]} is missing; is there a checkpoint {step} of {run}?")
    found = evaluations(results, config, run, step)
    with atomic_path(out) as folder:
        folder.mkdir()
        for name in files:
            copy_file(adapter / name, folder / name, out)
        comfyui = not full and _comfyui(adapter, folder, config)
        gallery, told = _gallery(results, config, found, run, step, folder, images)
        write_json(folder / "experiment.json", published_config(config, run))
        for table, _ in found:
            write_text(folder / f"evaluation/{table.name}.json", to_json(table) + "\n")
        text = card(
            config, run, step, licence=licence, adapter=read_json(folder / files[0]), found=found, gallery=gallery,
            gallery_title=told, comfyui=comfyui, base_model=base_model, hub_name=hub_name,
        )  # fmt: skip
        write_text(folder / "README.md", text)
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _comfyui(adapter: Path, folder: Path, config: ExperimentConfig) -> bool:
    """The file for ComfyUI, made where an older checkpoint has none; whether there is one."""
    if (adapter / COMFYUI).is_file():
        copy_file(adapter / COMFYUI, folder / COMFYUI, folder)
        return True
    if family_named(config.models.t2i.family).comfyui_prefix is None:
        return False
    from promptecho.t2i.comfyui import export

    export([adapter], folder / COMFYUI)
    return True


def _gallery(
    results: Path, config: ExperimentConfig, found: list[tuple[Table, ScoreFile]], run: str, step: int, folder: Path,
    images: int,
) -> tuple[list[Shown], str]:  # fmt: skip
    """Images of both models on prompts of the first benchmark that judges images one by one, and how they were chosen;
    none where the images are not there."""
    names = [
        table.name for table, file in found if not benchmark_named(file.scores.provenance.scorer).pairwise
    ]  # fmt: skip
    for name in names:
        places = [
            results / f"images/{place}/{config.benchmarks[name].image_set}" for place in ("base/0", f"{run}/{step}")
        ]
        scores = [results / f"scores/{name}/{place}.json" for place in ("base/0", f"{run}/{step}")]
        if not all(any(place.glob("shards/*.jsonl")) for place in places) or not scores[0].is_file():
            continue
        with contextlib.ExitStack() as stack:
            columns = [
                read_column(stack.enter_context(unpacked(place)), path)
                for place, path in zip(places, scores, strict=True)
            ]
            chosen = choose(columns, images)
            shown = []
            for number, key in enumerate(chosen.keys):
                one = Shown(columns[0].images[key].prompt, f"images/{number:02}-base.png", f"images/{number:02}.png")
                for column, place in zip(columns, (one.base, one.adapter), strict=True):
                    (folder / place).parent.mkdir(exist_ok=True)
                    load_image(column.images[key].path, fix=FIX).save(folder / place)
                shown.append(one)
            return shown, f"Prompts of {name}, image 0 of each, not chosen by eye. {chosen.title}"
    return [], ""


def published_config(config: ExperimentConfig, run: str) -> dict[str, Any]:
    """What made the adapter, without what belongs to one site: of paths only the last part, no judges' addresses."""
    values = config.model_dump(mode="json")
    named = {key: value for key, value in values["models"].items() if key == "vlms" and value}
    own = {
        "experiment": config.experiment,
        "models": {"t2i": values["models"]["t2i"], "vlm": run_vlm(config, run).model_dump(mode="json"), **named},
        "captions": values["captions"],
        "training": values["runs"][run],
        "rewards": [one.model_dump(mode="json") for one in run_rewards(config, run)],
        "image_sets": values["image_sets"],
        "benchmarks": values["benchmarks"],
    }
    return _without_paths(own, config.models_root)


def _without_paths(value: Any, models_root: str | None) -> Any:
    if isinstance(value, dict):
        return {key: one if key == "query" else _without_paths(one, models_root) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_paths(one, models_root) for one in value]
    return Path(value).name if isinstance(value, str) and _is_path(value, models_root) else value


def _is_path(text: str, models_root: str | None) -> bool:
    """Whether a value names a file or folder: no sentence, no address, no id of a fetched model."""
    if "\n" in text or "://" in text:
        return False
    if text.startswith(("/", "~", "./", "../")):
        return True
    if "/" not in text or (HUB_ID.fullmatch(text) and hub_id_of(text, root=models_root) == text):
        return False
    return _SPACE.search(text) is None or _SUFFIX.search(text) is not None
