"""`promptecho shapes`: the embedded world's data, models and their trainings."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import typer

from promptecho.commands.group import BenchmarksGroup
from promptecho.commands.options import THREADS, PluginsConfig, use_threads
from promptecho.commands.shapes_moving import train_t2v, train_video_vlm

MODEL = typer.Option(..., "--out", help="Folder to write the model to.")
World = Literal["shapes", "gallery"]
OF_WORLD: World = typer.Option("shapes", "--world", help="Which embedded world: shapes, or the wider gallery.")
BATCH_SIZE = typer.Option(None, "--batch-size", min=1, help="Images in a step. Default: as the shipped models had.")

SEED = typer.Option(0, "--seed", help="Seed of everything that is drawn.")
PER_TAG = typer.Option(
    ..., "--per-tag", min=1, help="Prompts for each tag, category or attribute; fewer where the vocabulary has no more."
)


class _ShapesGroup(BenchmarksGroup):
    prefix = "shapes"

    def of_benchmarks(self, ours_only: bool = False) -> dict[str, tuple[Callable[..., Any], str]]:
        from promptecho.config.benchmarks import available_benchmarks

        found = [one.thing for one in available_benchmarks(ours_only) if one.thing.shapes]
        told = "Write prompts of {} over the embedded world."
        return {one.name: (_writer(one.name), told.format(one.title)) for one in found}


shapes = typer.Typer(
    cls=_ShapesGroup, no_args_is_help=True, help="The embedded world: its images and prompts, and its small models."
)


def register(app: typer.Typer) -> None:
    shapes.command("train-t2v")(train_t2v)
    shapes.command("train-video-vlm")(train_video_vlm)
    app.add_typer(shapes, name="shapes")


def _writer(benchmark: str) -> Callable[..., None]:
    def write_prompts(
        per_tag: int = PER_TAG,
        seed: int = SEED,
        out: Path = typer.Option(..., "--out", help="File to write, as its ending says; else JSON Lines."),
        world: World = OF_WORLD,
        config: PluginsConfig = None,
    ) -> None:
        from promptecho.config.benchmarks import load_part, mistakes_told
        from promptecho.errors import counted

        write = load_part(benchmark, world)
        with mistakes_told(benchmark, world):
            count = write(per_tag, seed, out)
        print(f"{out}: {counted(count, 'prompt')}")

    return write_prompts


def _only_for(owner: World, world: World, given: dict[str, bool]) -> None:
    """Refuses options of the world `owner` where another one is asked for.

    Raises:
        typer.BadParameter: an option of `given` would be without effect.
    """
    if useless := [name for name, is_given in given.items() if is_given and world != owner]:
        raise typer.BadParameter(f"{_no_effect(useless)} with --world {world}; leave it out, or use --world {owner}.")


def _no_effect(options: list[str]) -> str:
    return f"{', '.join(options)} {'has' if len(options) == 1 else 'have'} no effect"


def _check_models(vlm: str | None, t2i: str | None, vae: Path | None) -> None:
    """Says which of these holds a model of another kind, or none, before torch is imported and minutes are spent."""
    from promptecho.models.locate import check_model_path, check_pipeline_path, check_vae_path
    from promptecho.shipped import model_path

    if vlm is not None:
        check_model_path(model_path(vlm, "vlm"))
    if t2i is not None:
        check_pipeline_path(t2i)
    if vae is not None:
        check_vae_path(vae)


@shapes.command("paths")
def paths(world: World = OF_WORLD, as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Print the folders of the embedded models."""
    from promptecho.shipped import model_path

    found = {"vlm": model_path(world, "vlm"), "t2i": model_path(world, "t2i")}
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        for kind, path in found.items():
            print(f"{kind}: {path}")


@shapes.command("render")
def render(
    count: int = typer.Option(..., "--count", min=1, help="Number of images to render."),
    seed: int = SEED,
    world: World = OF_WORLD,
    out: Path = typer.Option(..., "--out", help="Folder to write the images to."),
    images_list: Path | None = typer.Option(
        None, "--list", help="Also list the images in this file, as `promptecho caption list` does. Default: no list."
    ),
) -> None:
    """Render training images: scenes of plain shapes, or the gallery's dense scenes."""
    from promptecho.shapes.datasets import prompt_scene, render_images

    draw = prompt_scene
    if world == "gallery":
        from promptecho.gallery.datasets import training_scene as draw
    render_images(count, seed, out, draw)
    if images_list is not None:
        from promptecho.captions.inputs import image_list, with_hashes, write_list
        from promptecho.file_hashes import FileHashes

        write_list(images_list, with_hashes(image_list(out), FileHashes()))


@shapes.command("posters")
def posters(
    count: int = typer.Option(..., "--count", min=1, help="Number of prompts."),
    seed: int = SEED,
    out: Path = typer.Option(..., "--out", help="File to write, as its ending says; else JSON Lines."),
) -> None:
    """Write training prompts for posters of the gallery, each with its label."""
    from promptecho.errors import counted
    from promptecho.gallery.datasets import write_poster_prompts

    write_poster_prompts(count, seed, out)
    print(f"{out}: {counted(count, 'prompt')}")


@shapes.command("train-vae")
def train_vae(
    out: Path = MODEL,
    log: Path = typer.Option(..., "--log", help="JSON Lines file for the losses."),
    world: World = OF_WORLD,
    init: Path | None = typer.Option(None, "--init", help="VAE folder to go on from. Default: none, from scratch."),
    steps: int = typer.Option(1400, "--steps", min=1, help="Optimizer steps; the learning rate ends at zero."),
    kl_weight: float = typer.Option(4e-3, "--kl-weight", min=0.0, help="The KL's part of the loss."),
    seed: int = SEED,
    threads: int | None = THREADS,
):
    """Train the VAE (about ten minutes)."""
    from promptecho.models.locate import check_vae_path
    from promptecho.shapes.train_vae import train_vae as run
    from promptecho.shapes.train_vae import wide_picture

    init = None if init is None else Path(check_vae_path(init))
    picture = wide_picture
    if world == "gallery":
        from promptecho.gallery.pictures import fine_picture as picture
    use_threads(threads)
    run(out, log, picture=picture, init=init, steps=steps, seed=seed, kl_weight=kl_weight)


@shapes.command("train-t2i")
def train_t2i(
    vae: Path = typer.Option(..., "--vae", help="Folder of the trained VAE."),
    out: Path = MODEL,
    log: Path = typer.Option(..., "--log", help="JSON Lines file for the losses."),
    world: World = OF_WORLD,
    init: Path | None = typer.Option(
        None, "--init", help="Pipeline folder to go on from; it may know other words. Default: none, from scratch."
    ),
    steps: int = typer.Option(1800, "--steps", min=1, help="Optimizer steps; the learning rate ends at zero."),
    posters: float | None = typer.Option(
        None, "--posters", min=0.0, max=1.0, help="For the gallery: share of posters among its images. Default: 0.4."
    ),
    cooldown: float = typer.Option(
        0.35, "--cooldown", min=0.0, max=1.0, help="Share of the steps in which the learning rate falls."
    ),
    batch_size: int | None = BATCH_SIZE,
    seed: int = SEED,
    threads: int | None = THREADS,
) -> None:
    """Train the Z-Image transformer and its text encoder (about an hour)."""
    _only_for("gallery", world, {"--posters": posters is not None})
    from promptecho.models.locate import check_pipeline_path, check_vae_path

    vae, init = Path(check_vae_path(vae)), None if init is None else Path(check_pipeline_path(str(init)))
    from promptecho.shapes.train_t2i import PaintingRecipe
    from promptecho.shapes.train_t2i import train_t2i as run

    recipe = PaintingRecipe()
    if world == "gallery":
        from promptecho.gallery.pictures import painting

        recipe = painting(0.4 if posters is None else posters)
    use_threads(threads)
    run(vae, out, log, recipe=recipe, init=init, steps=steps, cooldown=cooldown, batch_size=batch_size or 96, seed=seed)


@shapes.command("train-vlm")
def train_vlm(
    out: Path = MODEL,
    log: Path = typer.Option(..., "--log", help="JSON Lines file for the losses."),
    world: World = OF_WORLD,
    relations: float | None = typer.Option(
        None,
        "--relations",
        min=0.0,
        max=0.8,
        help="For the gallery: share of captions that say where objects lie, or what is not there. Default: 0.",
    ),
    directions: float = typer.Option(
        1.0,
        "--directions",
        min=1.0,
        help="What the words left, right, above and below count in the loss, for a VLM that is trained on (--init). "
        "Default: 1, as any word.",
    ),
    size: Literal["full", "third", "tenth"] = typer.Option(
        "full", "--size", help="How many parameters, as a share of the shipped VLM's."
    ),
    scores: bool = typer.Option(
        False,
        "--scores",
        help="For shapes: teach it to write scores as well, for InferScore; the gallery's always learns that.",
    ),
    init: Path | None = typer.Option(
        None, "--init", help="VLM folder to take over what fits from. Default: none, from scratch."
    ),
    steps: int = typer.Option(1500, "--steps", min=1, help="Optimizer steps; the learning rate ends at zero."),
    batch_size: int | None = BATCH_SIZE,
    seed: int = SEED,
    threads: int | None = THREADS,
) -> None:
    """Train the vision-language model (about forty minutes)."""
    _only_for("gallery", world, {"--relations": relations is not None})
    _only_for("shapes", world, {"--scores": scores})
    from promptecho.models.locate import check_model_path
    from promptecho.shipped import model_path

    init = None if init is None else Path(check_model_path(model_path(str(init), "vlm")))
    from promptecho.shapes.models import VLM_SIZES
    from promptecho.shapes.train_vlm import ReadingRecipe
    from promptecho.shapes.train_vlm import train_vlm as run

    recipe = ReadingRecipe()
    if world == "gallery":
        from promptecho.gallery.pictures import reading_recipe

        recipe = reading_recipe(relations or 0.0)
    elif scores:
        from promptecho.shapes.scored import SCORING as recipe
    use_threads(threads)
    recipe = replace(recipe, directions=directions)
    run(out, log, recipe=recipe, size=VLM_SIZES[size], init=init, steps=steps, batch_size=batch_size or 96, seed=seed)


@shapes.command("train-clip")
def train_clip(
    out: Path = MODEL,
    log: Path = typer.Option(..., "--log", help="JSON Lines file for the losses."),
    init: Path | None = typer.Option(None, "--init", help="CLIP folder to go on from. Default: none, from scratch."),
    steps: int = typer.Option(1500, "--steps", min=1, help="Optimizer steps; the learning rate ends at zero."),
    batch_size: int = typer.Option(64, "--batch-size", min=2, help="Images in a step, two of each draw."),
    seed: int = SEED,
    threads: int | None = THREADS,
) -> None:
    """Train a CLIP for the world shapes (half an hour on one core)."""
    from promptecho.models.locate import check_model_path
    from promptecho.shipped import model_path

    init = None if init is None else Path(check_model_path(model_path(str(init), "clip"), "CLIP"))
    from promptecho.shapes.train_clip import train_clip as run

    use_threads(threads)
    run(out, log, init=init, steps=steps, batch_size=batch_size, seed=seed)


@shapes.command("measure")
def measure(
    world: World = OF_WORLD,
    vlm: str | None = typer.Option(
        None, "--vlm", help="Folder of the vision-language model. Default: the world's that ships with the project."
    ),
    t2i: str | None = typer.Option(None, "--t2i", help="Folder of the text-to-image model. Default: likewise."),
    clip: str | None = typer.Option(
        None, "--clip", help="For shapes: folder of a CLIP to measure beside them, as a reward. Default: none."
    ),
    vae: Path | None = typer.Option(
        None, "--vae", help="For the gallery: folder of a VAE to measure alone. Default: that of the model."
    ),
    adapter: Path | None = typer.Option(
        None, "--adapter", help="Adapter folder; the model is then measured with it. Default: none."
    ),
    drawings: int | None = typer.Option(
        None,
        "--drawings",
        min=0,
        help="For the gallery: posters, and as many scenes, that go through the VAE. Default: 200.",
    ),
    pairs: int = typer.Option(
        500,
        "--pairs",
        min=0,
        help="Pairs of rendered images that the vision-language model and the oracle are tried on; for the gallery "
        "pairs for each kind of wrong fact, of which there are thirteen.",
    ),
    prompts: int = typer.Option(60, "--prompts", min=0, help="Number of prompts that images are generated for."),
    images: int = typer.Option(8, "--images", min=2, help="Images for each prompt."),
    steps: int = typer.Option(12, "--steps", min=1, help="ODE steps."),
    guidance_scale: float = typer.Option(1.0, "--guidance-scale", min=0.0, help="Guidance scale."),
    grid: Path | None = typer.Option(
        None, "--grid", help="PNG to write, of 100 generated images with the oracle's verdicts. Default: none."
    ),
    seed: int = SEED,
    threads: int | None = THREADS,
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Measure the embedded models: their accuracy, and how far the reward agrees with the oracle within a prompt."""
    _only_for("gallery", world, {"--vae": vae is not None, "--drawings": drawings is not None})
    _only_for("shapes", world, {"--clip": clip is not None})
    given = {"--adapter": adapter is not None, "--grid": grid is not None}
    if not prompts and (useless := [name for name, is_given in given.items() if is_given]):
        raise typer.BadParameter(
            f"{_no_effect(useless)} with --prompts 0, which generates no images; leave it out, or give more prompts."
        )
    vlm, t2i = vlm or world, t2i or world
    drawn = (200 if drawings is None else drawings) if world == "gallery" else 0
    draws = prompts or (drawn and vae is None)
    _check_models(vlm if world == "shapes" or pairs or prompts else None, t2i if draws else None, vae)
    if clip is not None:
        from promptecho.models.locate import check_model_path
        from promptecho.shipped import model_path

        check_model_path(model_path(clip, "clip"), "CLIP")
    asked: dict[str, Any] = {
        "pairs": pairs, "prompts": prompts, "images": images, "steps": steps, "guidance_scale": guidance_scale,
        "grid": grid, "seed": seed, "adapter": adapter,
    }  # fmt: skip
    use_threads(threads)
    if world == "gallery":
        from promptecho.measure_gallery import measure as measure_gallery

        facts = measure_gallery(vlm, t2i, vae=vae, drawings=drawn, **asked)
    else:
        from promptecho.measure_shapes import measure as measure_shapes

        facts = measure_shapes(vlm, t2i, clip, **asked)
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        for key, value in facts.items():
            print(f"{key}: {value}")
