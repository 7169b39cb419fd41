"""Models without weights: the real classes on torch's meta device, from a model folder's own configuration files.

Where this machine does not have a model of the paper, a description that ships with the project stands in for its
configuration files (`models/*.json`, and those that families name as `sizes`; each with its source).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from promptecho.config import ExperimentConfig
from promptecho.config.described import described_as, descriptions
from promptecho.config.editing import refuse_editing
from promptecho.config.families import INDEX, Family, available_families, family_named, misfit
from promptecho.config.models import T2iSection
from promptecho.config.rewards import VlmSection
from promptecho.config.slices import as_written
from promptecho.errors import ModelError
from promptecho.files import read_json
from promptecho.models.inventory import ModelStatus, model_status, models_folder
from promptecho.models.required import ModelKind, RequiredModel
from promptecho.plan.stand_ins import CountingTokenizer, counting_processor
from promptecho.t2i.base import T2iModel
from promptecho.vlm.model import DTYPES, Vlm, wrap_vlm

SHIPPED = Path(__file__).parent / "models"
META = torch.device("meta")


def locate_or_describe(
    config: ExperimentConfig, section: T2iSection | VlmSection, key: str, root: Path | None
) -> ModelStatus:
    """Where a model is; `path` None for a model that the project, or a family from outside, describes.

    Args:
        key: the section's place in the configuration, for messages.
        root: folder of fetched models; None: as the configuration or the site's has it.

    Raises:
        ModelError: it is not here, and the project has no description of it; or it is here at another revision.
    """
    kind: ModelKind = "pipeline" if isinstance(section, T2iSection) else "transformers"
    source = as_written(config, section.path)
    found = model_status(RequiredModel(source, kind, section.revision, (key,)), models_folder(config, root))
    if found.path is None and description(source) is None:
        raise ModelError(
            f"{key}.path: {source} is not on this machine, and its sizes are not among those that come with the "
            f"project ({', '.join(known())}); `promptecho models fetch` gets it, or give its folder"
        )
    if found.path is not None and found.problem:
        raise ModelError(f"{key}: {found.problem}")
    return found


def _description_files() -> list[Path]:
    of_families = [path for found in available_families() for path in found.thing.sizes]
    return [*sorted(SHIPPED.glob("*.json")), *of_families]


def known() -> list[str]:
    """Names of the models that are described."""
    return [name for content in descriptions(_description_files()) for name in content["names"]]


def description(source: str) -> dict[str, Any] | None:
    """What is said of the model `source`; None where nothing is."""
    return described_as(source, _description_files())


def _described(model: RequiredModel) -> dict[str, Any]:
    content = description(model.source)
    assert content is not None, "a model without files is planned with only where it is described"
    return content


def build_family(found: ModelStatus, section: T2iSection) -> T2iModel:
    """The family's model around a pipeline of meta tensors, as `load` would return it.

    Raises:
        ModelError: the folder is not a pipeline of this family.
    """
    import diffusers

    from promptecho.t2i.diffusers_model import pipeline_class, quiet_diffusers
    from promptecho.t2i.registry import as_built, family_class, guarded

    quiet_diffusers()
    family = family_named(section.family)
    refuse_editing(family, "planning")
    if found.path is not None and (problem := misfit(family, found.path)):
        raise ModelError(f"models.t2i.path: {found.path}: {problem}")
    content = _described(found.model) if found.path is None else _read_pipeline(Path(found.path), family)
    index = content["model_index"]
    parts = ("transformer", "vae", *(one.part for one in family.text_encoders))
    classes = {part: (index.get(part) or [None, None])[1] for part in parts}
    if (index.get("_class_name"), classes["transformer"]) != family.classes:
        raise ModelError(
            f"models.t2i.path: {found.model.source} is no {family.title} pipeline; check models.t2i.family and "
            "models.t2i.path"
        )
    dtype = DTYPES[section.dtype]
    transformer = _diffusers_part(classes["transformer"], content["transformer"], dtype)
    vae: Any = _diffusers_part(classes["vae"], content["vae"], torch.float32)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_config(content["scheduler"])
    others: dict[str, Any] = {}
    for one in family.text_encoders:
        if classes[one.part] is not None:  # some pipelines do without one of theirs
            others[one.tokenizer] = CountingTokenizer(one)
            others[one.part] = _text_encoder(classes[one.part], content[one.part], dtype, found.model.source)
    whole = pipeline_class(family)
    told = {**content, **index}
    settings = {name: told[name] for name in _options(whole) if isinstance(told.get(name), bool | int | float | str)}
    parts_of_it = {"scheduler": scheduler, "vae": vae, "transformer": transformer, **others}
    pipeline = whole(**{**dict.fromkeys(_needed(whole)), **settings, **parts_of_it})
    if section.vae_slicing:
        vae.enable_slicing()
    if section.vae_tiling:
        vae.enable_tiling()
    made = guarded(family.name, family_class(family.name))(family, pipeline, negative_prompt=section.negative_prompt)
    made.device = META
    if family.makes_videos:
        made.frames = section.frames
    return as_built(family.name, made)


def build_vlm(found: ModelStatus, section: VlmSection) -> Vlm:
    """A reward's VLM of meta tensors, with the processor of its folder where it has one.

    Raises:
        ModelError: the folder holds no image-text-to-text model.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    if found.path is None:
        config = AutoConfig.for_model(**_described(found.model)["config"])
    else:
        try:
            config = AutoConfig.from_pretrained(found.path, trust_remote_code=section.trust_remote_code)
        except Exception as error:  # from OSError to ValueError; all mean the same here
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{found.path}: no model configuration that can be read ({reason})") from error

    def make() -> nn.Module:
        return AutoModelForImageTextToText.from_config(config, trust_remote_code=section.trust_remote_code)

    model = _on_meta(make, DTYPES[section.dtype], found.model.source)
    if found.path is None:
        content = _described(found.model)
        processor = counting_processor(content["preprocessor"], content["config"])
    else:
        from promptecho.vlm.processor import load_processor

        processor = load_processor(found.path, trust_remote_code=section.trust_remote_code)
    return wrap_vlm(found.model.source, model, processor)


def n_bytes(module: nn.Module) -> int:
    """Bytes of all weights and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in [*module.parameters(), *module.buffers()])


def _needed(pipeline: Any) -> list[str]:
    """The parts that a pipeline's class asks for and has no default for."""
    return [one.name for one in _parameters(pipeline) if one.default is inspect.Parameter.empty]


def _options(pipeline: Any) -> list[str]:
    """What a pipeline's class has a default for: settings, such as whether a model is distilled, and parts."""
    return [one.name for one in _parameters(pipeline) if one.default is not inspect.Parameter.empty]


def _parameters(pipeline: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(pipeline.__init__).parameters.values())[1:]


def _read_pipeline(folder: Path, family: Family) -> dict[str, Any]:
    if not (folder / INDEX).is_file():
        raise ModelError(f"models.t2i.path: {folder / INDEX} is missing; is {folder} a diffusers pipeline?")
    index = read_json(folder / INDEX)
    parts = ["transformer", "vae", *(one.part for one in family.text_encoders if (index.get(one.part) or [None])[0])]
    files = {part: folder / part / "config.json" for part in parts}
    files["scheduler"] = folder / "scheduler" / "scheduler_config.json"
    for path in files.values():
        if not path.is_file():
            raise ModelError(f"models.t2i.path: {path} is missing; is {folder} a diffusers pipeline?")
    contents = {part: json.loads(path.read_text(encoding="utf-8")) for part, path in files.items()}
    return {"model_index": index, **contents}


def _diffusers_part(name: str, config: dict[str, Any], dtype: torch.dtype) -> nn.Module:
    import diffusers

    return _on_meta(lambda: getattr(diffusers, name).from_config(config), dtype, name)


def _text_encoder(name: str, config: dict[str, Any], dtype: torch.dtype, source: str) -> nn.Module:
    import transformers

    settings = transformers.AutoConfig.for_model(**config)
    return _on_meta(lambda: getattr(transformers, name)(settings), dtype, source)


def _on_meta(make: Callable[[], nn.Module], dtype: torch.dtype, what: str) -> nn.Module:
    """A model without values. Weights get `dtype`, buffers keep theirs, as in loading."""
    try:
        with META:
            model = make()
    except Exception as error:  # a class that this library does not have, or sizes that do not fit together
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{what}: cannot be built from its configuration ({reason})") from error
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model.requires_grad_(False).eval()
