"""Descriptors of the families of text-to-image models: everything that differs between families follows from them.

As other descriptors, these are imported without torch; `model` names the code that needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptecho.config.descriptors import NAME
from promptecho.errors import ConfigError, DataError
from promptecho.files import read_json
from promptecho.plugins import SPEC, Plugins, Registration, wrong_types

INDEX = "model_index.json"
TAKES = {"pad_prompts"}


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """One text encoder of a pipeline.

    Args:
        part: its name in the pipeline, which is also its folder.
        tokenizer: likewise that of its tokenizer.
        starts_only: of a long prompt it gets the start only, as in the pipeline, while another one gets the whole.
        template_tokens: how many tokens it gets beside those of the prompt; for plans.
        max_length: how many tokens it takes with these, and to how many its tokenizer pads and cuts where it is asked
            to; for plans.
        deepest_state: the number of the deepest layer whose states are taken by number, so that plans compute as many
            of them; 0: none is.
    """

    part: str = "text_encoder"
    tokenizer: str = "tokenizer"
    starts_only: bool = False
    template_tokens: int = 16
    max_length: int = 512
    deepest_state: int = 0


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of text-to-image models.

    Args:
        name: by which `models.t2i.family` chooses it; lower-case letters, digits, `_` and `-`.
        title: what people call it.
        model: `module:object`, a class with what promptecho/t2i/base.py lists: how it loads, encodes prompts, predicts
            velocities, samples and decodes. For diffusers pipelines a subclass of `DiffusersModel`.
        pipeline_class: class of the pipeline in diffusers; a model's folder is recognised by it.
        transformer_class: likewise that of its transformer, which is trained.
        version: raise it when a change of the code makes other images: trainings and images with it are then made
            again.
        text_encoders: one of them gets the whole prompt, and its tokens are counted.
        lora_attention: name endings of the linear layers of attention that get an adapter where the configuration
            names none.
        lora_feed_forward: likewise of the feed-forward layers.
        lora_converted: diffusers' loader of this pipeline reads files with other tools' names of layers (ComfyUI,
            kohya). Where it does not, such files are read only if their names are diffusers' behind a prefix.
        lora_fused: name endings that other tools have for layers which diffusers splits; for each, under which names
            the same file may hold the parts once more.
        comfyui_prefix: what ComfyUI has before diffusers' names of layers; None: no file for ComfyUI is written.
        guided_in_one_pass: guidance is a number that the model was taught to follow, so no prompt is led away from, and
            a `negative_prompt` is refused.
        source_image: a prompt is an instruction for an image, which it edits (docs/editing.md): `encode_prompts` gets
            each prompt with its source image, and what guidance leads away from belongs to what it gives.
        takes: which of the settings it uses that only some families do: `pad_prompts`.
        vae_widths: key of the VAE's configuration that lists the widths of its stages; each but the first halves the
            sides of an image, and the transformer makes one token of 2 x 2 of what is left. With it a size that the
            model cannot make is refused before it is loaded; None: when it is loaded.
        vae_defaults: what the VAE's class takes where its configuration has no such key, as in older copies of a model:
            `scale_factor_spatial`, `scale_factor_temporal`.
        positions: key of the transformer's configuration that says how many such tokens fit along a side: a number, or
            a list that ends with those along height and width; None: as many as one likes.
        height, width: images in pixels where the configuration says nothing.
        frames: likewise how many frames a sample has. With more than 1 the family makes videos: `models.t2i.frames` may
            be given, its models know `frames`, latents have a dimension for time, and decoding gives a `Video`
            (promptecho/video.py) for each sample, or an image where one frame is asked for.
        guidance_scale: likewise guidance, as the pipeline understands it, of images that are evaluated.
        training_guidance_scale: likewise of sampling in training; None: the same.
        sizes: JSON files that describe models of this family, so that they can be planned with on machines that do not
            have them (docs/plan.md).
    """

    name: str
    title: str
    model: str
    pipeline_class: str
    transformer_class: str
    version: int = 1
    text_encoders: tuple[TextEncoder, ...] = (TextEncoder(),)
    lora_attention: tuple[str, ...]
    lora_feed_forward: tuple[str, ...] = ()
    lora_converted: bool = False
    lora_fused: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    comfyui_prefix: str | None = None
    guided_in_one_pass: bool = False
    source_image: bool = False
    takes: frozenset[str] = frozenset()
    vae_widths: str | None = None
    vae_defaults: Mapping[str, int] = field(default_factory=dict)
    positions: str | None = None
    height: int = 1024
    width: int = 1024
    frames: int = 1
    guidance_scale: float = 4.0
    training_guidance_scale: float | None = None
    sizes: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        problems = wrong_types(self)
        encoders = self.text_encoders
        if not isinstance(encoders, list | tuple) or not all(isinstance(one, TextEncoder) for one in encoders):
            problems.append("text_encoders: expected (TextEncoder(...),), with a comma after each")
        if problems:
            raise ValueError(f"Family: {'; '.join(problems)}")
        if not NAME.fullmatch(self.name):
            problems.append(f"name {self.name!r}: take lower-case letters, digits, _ and -")
        if not SPEC.fullmatch(self.model):
            problems.append(f"model {self.model!r}: expected MODULE:OBJECT")
        if type(self.version) is not int or self.version < 1:
            problems.append(f"version {self.version!r}: count from 1")
        if [one.starts_only for one in self.text_encoders].count(False) != 1:
            problems.append("text_encoders: exactly one gets the whole prompt; the others have starts_only=True")
        if isinstance(self.lora_attention, str) or isinstance(self.lora_feed_forward, str) or not self.lora_targets:
            problems.append("lora_attention, lora_feed_forward: tuples of name endings, not both empty")
        if unknown := set(self.takes) - TAKES:
            problems.append(f"takes {', '.join(sorted(unknown))}: choose of {', '.join(sorted(TAKES))}")
        for key in ("height", "width"):
            if type(value := getattr(self, key)) is not int or value < 1:
                problems.append(f"{key} {value!r}: a number of pixels")
        if type(self.frames) is not int or self.frames < 1:
            problems.append(f"frames {self.frames!r}: count from 1")
        for key in ("guidance_scale", "training_guidance_scale"):
            value = getattr(self, key)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                problems.append(f"{key} {value!r}: a number")
        if problems:
            raise ValueError(f"Family: {'; '.join(problems)}")

    @property
    def parts(self) -> dict[str, str]:
        """Its `module:object` strings by key."""
        return {"model": self.model}

    @property
    def lora_targets(self) -> tuple[str, ...]:
        """Name endings of all layers that get an adapter by default."""
        return (*self.lora_attention, *self.lora_feed_forward)

    @property
    def makes_videos(self) -> bool:
        return self.frames > 1

    @property
    def guidance_of_training(self) -> float:
        return self.guidance_scale if self.training_guidance_scale is None else self.training_guidance_scale

    @property
    def reader(self) -> TextEncoder:
        """The text encoder that gets the whole prompt."""
        return next(one for one in self.text_encoders if not one.starts_only)

    @property
    def classes(self) -> tuple[str, str]:
        """What its pipelines are recognised by."""
        return self.pipeline_class, self.transformer_class


FAMILIES: Plugins[Family] = Plugins(
    "families",
    Family,
    {
        "zimage": "promptecho.t2i.zimage:FAMILY",
        "qwenimage": "promptecho.t2i.qwenimage:FAMILY",
        "qwenimage_edit": "promptecho.t2i.qwenimage_edit:FAMILY",
        "flux": "promptecho.t2i.flux:FAMILY",
        "sd3": "promptecho.t2i.sd3:FAMILY",
        "flux2": "promptecho.t2i.flux2:FAMILY",
        "wan": "promptecho.t2i.wan:FAMILY",
    },
)
DEFAULT = next(iter(FAMILIES.built_in))


def family_named(name: str) -> Family:
    """The descriptor of a family.

    Raises:
        ConfigError: there is none of that name, or it cannot be imported.
    """
    return FAMILIES.find(name).thing


def available_families(ours_only: bool = False) -> list[Registration[Family]]:
    """All families that may be written now and can be imported, ours first."""
    return FAMILIES.available(ours_only)


def version_in_digest(name: str) -> dict[str, int]:
    """What the digests of trainings and images hold of a family's version; they are older than those of our own."""
    found = FAMILIES.find(name)
    return {} if found.is_ours and found.thing.version == 1 else {"family_version": found.thing.version}


def with_defaults(raw: Mapping[str, Any], training: Any) -> tuple[dict[str, Any], Any]:
    """An experiment file's content and its `training`, what they leave out filled in as the family has it.

    What is not a mapping, and a family that there is not, stay as they are: they are reported later.
    """
    models, sets = raw.get("models"), raw.get("image_sets")
    t2i = models.get("t2i") if isinstance(models, dict) else None
    if not isinstance(models, dict) or not isinstance(t2i, dict):
        return dict(raw), training
    try:
        family = family_named(str(t2i.get("family", DEFAULT)))
    except ConfigError:
        return dict(raw), training
    t2i = {"height": family.height, "width": family.width, "frames": family.frames, **t2i}
    made = {**raw, "models": {**models, "t2i": t2i}}
    if isinstance(sets, dict):
        own = {"guidance_scale": family.guidance_scale}
        made["image_sets"] = {name: {**own, **one} if isinstance(one, dict) else one for name, one in sets.items()}
    sampling = training.get("sampling", {}) if isinstance(training, dict) else None
    if isinstance(sampling, dict):
        own = {"guidance_scale": family.guidance_of_training}
        training = {**training, "sampling": {**own, **sampling}}
    return made, training


def classes_in(folder: str | Path) -> tuple[str, str] | None:
    """Classes of the pipeline and the transformer in a folder; None where it says nothing of them."""
    try:
        index = read_json(Path(folder).expanduser() / INDEX)
    except (DataError, OSError):
        return None
    transformer = index.get("transformer") if isinstance(index, dict) else None
    if not isinstance(transformer, list) or not isinstance(index.get("_class_name"), str):
        return None
    return index["_class_name"], str(transformer[-1])


def family_in(folder: str | Path) -> str | None:
    """The name of the family that a pipeline's folder belongs to; None where none that is at hand reads it."""
    classes = classes_in(folder)
    return next((found.thing.name for found in available_families() if found.thing.classes == classes), None)


def misfit(family: Family, folder: str | Path) -> str | None:
    """Why a pipeline's folder is not of this family; None where it is, or says nothing of it."""
    classes = classes_in(folder)
    if classes is None or classes == family.classes:
        return None
    other = family_in(folder)
    way = f"set models.t2i.family: {other}, or" if other else "no family that is at hand reads it (docs/extending.md):"
    return f"holds a {' with a '.join(classes)}, not a {family.title} pipeline; {way} correct models.t2i.path"
