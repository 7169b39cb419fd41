"""One prompt with and without an adapter, from the same noise: images beside each other, and their rewards."""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from promptecho.config import ExperimentConfig, parse_experiment
from promptecho.config.evaluation import ImageSetSection
from promptecho.config.families import DEFAULT, family_in, family_named
from promptecho.config.rewards import RewardSection
from promptecho.config.tried import check_tried
from promptecho.errors import ConfigError, DataError
from promptecho.files import atomic_path, write_json, write_jsonl
from promptecho.generate import checkpoint_files, make_images
from promptecho.generate_job import GenerateJob
from promptecho.image_maker import ImageMaker
from promptecho.models.locate import locate_model
from promptecho.reading.scales import number
from promptecho.shipped import is_shipped, model_path
from promptecho.suggest import maybe
from promptecho.t2i.external import convert_adapter, load_target, locate_adapter

IMAGE_SET, RUN = "try", "adapter"
SIDES = ("base", RUN)
LEAST = 256  # pixels: smaller images are shown larger in the picture of all
GAP = 12  # pixels between images


@dataclass(frozen=True)
class Tried:
    """What was made: the folder, and what its `try.json` holds."""

    folder: Path
    facts: dict[str, Any]


def config_of_model(path: str, vlm: str | None = None) -> ExperimentConfig:
    """A configuration for a model alone: sizes and guidance of its family, or for a shipped model those that its
    experiments have.

    Raises:
        ConfigError, ModelError: no family reads the model, it makes no images from text, or it is not there.
    """
    shipped = is_shipped(path)
    family = family_named(family_in(locate_model(model_path(path, "t2i"))) or DEFAULT)
    check_tried(family, family.frames)
    t2i: dict[str, Any] = {"family": family.name, "path": path, "height": family.height, "width": family.width}
    if shipped:
        t2i |= {"dtype": "float32", "height": 64, "width": 64}
    sampling: dict[str, Any] = {"num_inference_steps": 8, "guidance_scale": 1.0} if shipped else {}
    return parse_experiment(
        {
            "experiment": "try",
            "models": {"t2i": t2i, "vlm": {"path": vlm or "shapes", "dtype": "float32"}},
            "captions": {"prompts": "prompts.txt"},
            "image_sets": {IMAGE_SET: {"benchmark": "captions", "prompts": "prompts.txt", **sampling}},
        },
        "--model",
    )


def sampling_of(config: ExperimentConfig, image_set: str | None, options: Mapping[str, Any]) -> ImageSetSection:
    """How to sample: as an image set of the experiment (default: its first), with `options` that are not None on top.

    Raises:
        ConfigError: there is no such image set.
    """
    known = config.image_sets
    if image_set is not None and image_set not in known:
        raise ConfigError(
            f"--image-set {image_set}: no such entry (known: {', '.join(known)}){maybe(image_set, known)}"
        )
    chosen = known[image_set] if image_set else next(iter(known.values()), ImageSetSection(benchmark="captions"))
    own = {key: value for key, value in options.items() if value is not None}
    fixed = {"benchmark": "captions", "shapes": None, "heldout": None, "num_shards": 1, "storage": "files", "job": None}
    return ImageSetSection.model_validate({**chosen.model_dump(), **fixed, "prompts": "prompts.jsonl", **own})


def try_adapter(
    prompt: str, adapter: str, config: ExperimentConfig, out: Path, *, sampling: ImageSetSection,
    vlm: str | None = None, device: str = "cpu", threads: int | None = None,
) -> Tried:  # fmt: skip
    """Make the images, base model first, and write them to the new folder `out`.

    Args:
        adapter: a checkpoint (results/E/runs/R/N), an adapter folder, a LoRA file, or a hub id.
        vlm: also have this model read the prompt on each image: its echo reward; None: no reward.

    Raises:
        DataError: `out` exists, the prompt is empty or too long, the adapter is not one or does not fit, or the disk
            is full.
        ConfigError, ModelError: a model is not there.
    """
    if out.exists():
        raise DataError(f"{out}: exists already; give another folder to --out")
    if not prompt.strip():
        raise DataError("the prompt is empty")
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        folder = _adapter_folder(adapter, config, work / "imported")
        prompts = work / "prompts.jsonl"
        write_jsonl(prompts, [{"data_id": "prompt", "caption": prompt}])
        config = config.model_copy(update={"image_sets": {IMAGE_SET: sampling}})
        jobs = [
            GenerateJob(
                config=config, run=side, step=0, image_set=IMAGE_SET, prompts=prompts, shard=0, num_shards=1,
                out=work / side, work=work / f"{side}.work", adapter=None if side == "base" else folder,
                device=device, threads=threads,
            )
            for side in SIDES
        ]  # fmt: skip
        with ImageMaker(jobs[0]) as maker:
            make_images(jobs[:1], maker)
            maker.take(folder)
            make_images(jobs[1:], maker)
        del maker  # before another model needs the memory
        images = {
            side: [Image.open(path).convert("RGB") for path in sorted((work / side).glob("*.png"))] for side in SIDES
        }
    rewards = None if vlm is None else _rewards(prompt, images, vlm, config, device)
    facts = {
        "prompt": prompt, "adapter": adapter, "model": config.models.t2i.path, "seed": sampling.seed,
        "num_inference_steps": sampling.num_inference_steps, "guidance_scale": sampling.guidance_scale, "vlm": vlm,
        "rewards": rewards,
    }  # fmt: skip
    with atomic_path(out) as temporary:
        temporary.mkdir()
        for side, made in images.items():
            for index, image in enumerate(made):
                image.save(temporary / f"{side}-{index}.png")
        side_by_side(prompt, images, rewards).save(temporary / "side-by-side.png")
        write_json(temporary / "try.json", facts)
    return Tried(out, facts)


def _adapter_folder(source: str, config: ExperimentConfig, scratch: Path) -> Path:
    """An adapter folder as it is, or one that is made of what was trained elsewhere."""
    for folder in (Path(source), Path(source) / "adapter"):
        if all((folder / name).is_file() for name in checkpoint_files(folder)):
            return folder
    t2i = config.models.t2i
    target = load_target(family_named(t2i.family), model_path(t2i.path, "t2i"), t2i.revision)
    convert_adapter(locate_adapter(source), scratch, target, origin=source)
    return scratch


def _rewards(
    prompt: str, images: Mapping[str, Sequence[Image.Image]], vlm: str, config: ExperimentConfig, device: str
) -> dict[str, list[float]]:
    """The echo reward of each image, asked as the configuration asks: as its first `echo` does, where it has one."""
    import torch

    from promptecho.cluster.device import choose_device
    from promptecho.rewards import RewardContext, make_reward
    from promptecho.vlm import load_vlm

    flat = [image for made in images.values() for image in made]
    own = config.models.vlm if config.models.vlm.path == vlm else None
    model = load_vlm(
        vlm, dtype=own.dtype if own else "float32", device=device, revision=own.revision if own else None,
        trust_remote_code=bool(own and own.trust_remote_code),
    )  # fmt: skip
    entry = next((one for one in config.rewards if one.name == "echo"), RewardSection())
    context = RewardContext(
        vlm=model, device=torch.device(choose_device(device)), options=entry.options,
        query=entry.query or config.captions.query, batch_size=8, seed=0,
    )  # fmt: skip
    details = make_reward("echo", context).details(flat, [prompt] * len(flat), ["prompt"] * len(flat))
    values = iter(float(value) for value in details.rewards if value is not None)
    return {side: [next(values) for _ in made] for side, made in images.items()}


def side_by_side(
    prompt: str, images: Mapping[str, Sequence[Image.Image]], rewards: Mapping[str, Sequence[float]] | None = None
) -> Image.Image:
    """A row of images for each side, equal noise below each other, with the prompt above."""
    first = next(iter(images.values()))[0]
    grow = max(1, -(-LEAST // max(first.size)))
    width, height = first.width * grow, first.height * grow
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", 16)
    line, count = 22, max(len(made) for made in images.values())
    total = count * (width + GAP) + GAP
    lines = [part for whole in prompt.splitlines() for part in textwrap.wrap(whole, max(20, total // 10)) or [""]]
    row = line + height + (line if rewards else 0) + GAP
    picture = Image.new("RGB", (total, GAP + len(lines) * line + GAP + len(images) * row), "white")
    pen = ImageDraw.Draw(picture)
    for place, text in enumerate(lines):
        pen.text((GAP, GAP + place * line), text, fill="black", font=font)
    for place, (side, made) in enumerate(images.items()):
        top = GAP + len(lines) * line + GAP + place * row
        told = {"base": "without the adapter", RUN: "with the adapter"}.get(side, side)
        pen.text((GAP, top), told, fill="#555", font=font)
        for index, image in enumerate(made):
            left = GAP + index * (width + GAP)
            picture.paste(image.resize((width, height), Image.Resampling.NEAREST), (left, top + line))
            if rewards:
                pen.text((left, top + line + height), f"echo {number(rewards[side][index])}", fill="black", font=font)
    return picture
