"""The card of a published adapter: README.md with the hub's metadata in front."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml

import promptecho
from promptecho.config import ExperimentConfig, run_rewards, run_vlm, run_vlms
from promptecho.config.benchmarks import benchmark_named
from promptecho.config.families import family_named
from promptecho.hub_record import HUB_ID, read_record
from promptecho.publish.evaluation import model_index
from promptecho.shipped import is_shipped, model_path
from promptecho.tables.collect import ScoreFile
from promptecho.tables.table import Table, to_markdown

_CARD = Path(__file__).with_name("card.txt")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|!~$&])")


@dataclass(frozen=True)
class Shown:
    """Two images of the gallery, by their places in the folder."""

    prompt: str
    base: str
    adapter: str


def hub_id_of(path: str, given: str | None = None, root: str | None = None) -> str | None:
    """What the hub calls a model: as `given`, or as this machine knows it; None: unknown.

    `owner/name` may be a folder of another machine just as well. It is a hub id where the model was fetched:
    its folder, at `path` or in `root`, has the record, or the hub's cache has it.
    """
    if given is not None:
        return given
    folder, could_be_id = Path(path).expanduser(), HUB_ID.fullmatch(path) is not None
    if could_be_id and root is not None and (Path(root) / path).is_dir():
        folder = Path(root) / path
    if folder.is_dir():
        record = read_record(folder)
        return record.hub_id if record is not None else None
    return path if could_be_id and _in_hub_cache(path) else None


def _in_hub_cache(hub_id: str) -> bool:
    """Whether any revision of it is there."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=hub_id, repo_type="model")
    return any(Path(constants.HF_HUB_CACHE, folder, "snapshots").glob("*"))


def name_of_model(path: str, given: str | None = None, root: str | None = None) -> str:
    """A model as a card names it: never by a path of this machine."""
    if is_shipped(path) and given is None:
        return f"the small model `{path}` that comes with the program"
    return hub_id_of(path, given, root) or Path(path).name


def card(
    config: ExperimentConfig, run: str, step: int, *, licence: str, adapter: Mapping[str, Any],
    found: list[tuple[Table, ScoreFile]], gallery: Sequence[Shown], gallery_title: str, comfyui: bool,
    base_model: str | None = None, hub_name: str = "OWNER/NAME",
) -> str:  # fmt: skip
    """The text of README.md.

    Args:
        adapter: what adapter_config.json holds; with `finetuning: full`, what config.json holds.
        found: tables of base model and checkpoint, as `evaluations` returns them.
    """
    t2i = config.models.t2i
    vlms = list(run_vlms(config, run).values()) or [run_vlm(config, run)]
    family = family_named(t2i.family)
    root = config.models_root
    base = name_of_model(t2i.path, base_model, root)
    base_id = hub_id_of(model_path(t2i.path, "t2i"), base_model, root)
    title, full = f"{config.experiment}: {run} at {step}", config.runs[run].finetuning == "full"
    metadata: dict[str, Any] = {"license": licence, "library_name": "diffusers", "pipeline_tag": "text-to-image"}
    if base_id is not None:
        metadata |= {"base_model": base_id, "base_model_relation": "finetune" if full else "adapter"}
    tags = ["lora", "text-to-image", "diffusers", "peft", "promptecho", "reinforcement-learning"]
    metadata["tags"] = [tag for tag in tags if not (full and tag in ("lora", "peft"))]
    if gallery:
        metadata["widget"] = [{"text": one.prompt, "output": {"url": one.adapter}} for one in gallery]
    if index := model_index(hub_name.rpartition("/")[2], found):
        metadata["model-index"] = index
    sampling = next(iter(config.image_sets.values()), None)
    environment = jinja2.Environment(autoescape=False, trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(_CARD.read_text(encoding="utf-8")).render(
        metadata=yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=1000),
        title=plain(title),
        base=plain(base) if "`" not in base else base,
        base_short="base model",
        base_id=base_id or "THE_BASE_MODEL",
        vlm=" and ".join(
            name_of_model(vlm.path) if is_shipped(vlm.path) else plain(name_of_model(vlm.path, root=root))
            for vlm in vlms
        ),
        echo={one.name for one in run_rewards(config, run)} == {"echo"},
        run=run,
        step=step,
        experiment=config.experiment,
        gallery=[Shown(plain(one.prompt), one.base, one.adapter) for one in gallery],
        gallery_title=plain(gallery_title),
        full=full,
        kind="The trained transformer of" if full else "A LoRA adapter for",
        pipeline=family.pipeline_class,
        transformer=family.transformer_class,
        dtype=t2i.dtype,
        hub_name=hub_name,
        example=_quoted(gallery[0].prompt if gallery else "A red circle."),
        guidance=sampling.guidance_scale if sampling else family.guidance_scale,
        steps=sampling.num_inference_steps if sampling else 50,
        comfyui=comfyui,
        rank=adapter.get("r"),
        alpha=adapter.get("lora_alpha"),
        tables=[_below(to_markdown(table)) for table, _ in found],
        with_base=[any(row["model"].text == "base" for row in table.rows) for table, _ in found],
        version=promptecho.__version__,
        training=[plain(line) for line in _training(config, run, step)],
        license=licence,
        **_sources(config, found),
    )
    return text.rstrip() + "\n"


def plain(text: str) -> str:
    """A text from outside as Markdown shows it literally, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _quoted(text: str) -> str:
    """Inside of a Python string on one line."""
    return " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"').replace("`", "'")


def _below(table: str) -> str:
    """A table's Markdown with its headings two levels lower."""
    return re.sub(r"^#", "###", table, flags=re.MULTILINE)


def _training(config: ExperimentConfig, run: str, step: int) -> list[str]:
    training = config.runs[run]
    rewards = ", ".join(f"{one.name} (weight {one.weight:g})" for one in run_rewards(config, run))
    images = training.prompts_per_iteration * training.images_per_prompt
    trained = f"LoRA rank {training.lora.rank}, alpha {training.lora.alpha:g}"
    if training.finetuning == "full":
        trained = "all weights of the transformer"
    if training.init_adapter is not None:
        entry = config.adapters.get(training.init_adapter)
        whose = training.init_adapter
        if entry is not None:
            whose = f"{entry.adapter} at {entry.revision}" if entry.revision else entry.adapter
        trained += f"; began with the adapter of {whose}, whose licence holds as well"
    if training.algorithm != "awm":
        trained += f"; algorithm {training.algorithm} in place of AWM"
    return [
        f"{step} iterations of {training.prompts_per_iteration} prompts with {training.images_per_prompt} images each, "
        f"{step * images} images in all; seed {training.seed}",
        f"reward: {rewards}; question to the VLM: {config.captions.query}",
        f"learning rate {training.learning_rate:g}, {trained}",
    ]


def _sources(config: ExperimentConfig, found: Sequence[tuple[Table, ScoreFile]]) -> dict[str, list[str]]:
    """Licences and citations of the official prompts that the checkpoint was judged on."""
    licences, citations = [], []
    for table, file in found:
        entry = config.benchmarks[table.name]
        prompts = config.image_sets[entry.image_set].prompts or ""
        for source in benchmark_named(file.scores.provenance.scorer).sources:
            if source.name in prompts:
                told = source.licence or "its repository states no licence"
                licences.append(plain(f"Prompts of {source.title} ({source.repository}): {told}."))
                citations.append(plain(source.citation))
    return {"licences": list(dict.fromkeys(licences)), "citations": list(dict.fromkeys(citations))}
