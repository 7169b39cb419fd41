"""`promptecho caption`: caption images shard by shard, merge the shards, or bring prompts instead."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import typer

from promptecho.commands.files import given_files
from promptecho.commands.options import DEVICE, THREADS, TRUST_REMOTE_CODE, VLM_DTYPE

caption = typer.Typer(
    no_args_is_help=True,
    help="Training prompts: caption images, or bring prompts of your own. Options that are not given come "
    "from --config; without it they have the defaults of config/README.md.",
)

CONFIG = typer.Option(
    None, "--config", help="Experiment file or resolved configuration (results/E/config/DIGEST.yaml). Default: none."
)
OUT = typer.Option(..., "--out", help="HDF5 file to write.")
HELDOUT_OUT = typer.Option(..., "--heldout-out", help="JSON Lines file of held-out captions to write.")
HELDOUT = typer.Option(
    None,
    "--heldout",
    min=0,
    help="Number of captions to keep out of training, chosen by the images' hashes. Default: captions.heldout.",
)
MAX_WORDS = typer.Option(
    None, "--max-words", min=1, help="Cut captions after this many words. Default: captions.max_words."
)
MAX_TOKENS = typer.Option(
    None,
    "--max-tokens",
    min=1,
    help="Cut captions after this many tokens of --tokenizer. Default: captions.max_tokens.",
)
TOKENIZER = typer.Option(
    None,
    "--tokenizer",
    help="Folder of a tokenizer or of a diffusers pipeline, for --max-tokens. Default: that of --config; "
    "without either, tokens are not counted.",
)
SEED = typer.Option(
    None, "--seed", help="Seed of sampled captions and of the choice of held-out ones. Default: captions.seed."
)
AS_JSON = typer.Option(False, "--json", help="Print a summary as JSON.")


def register(app: typer.Typer) -> None:
    app.add_typer(caption, name="caption")


@caption.command("list")
def list_(
    images: str | None = typer.Option(
        None,
        "--images",
        help="Images: a folder, a .txt of paths, or a .jsonl of {image_id, path}. Default: captions.images.",
    ),
    config: Path | None = CONFIG,
    out: Path = typer.Option(..., "--out", help="JSON Lines file to write, for --list of the other commands."),
    hashes: Path | None = typer.Option(
        None,
        "--hashes",
        help="File of the hashes that were found before: only new and changed images are read. Default: OUT.hashes.",
    ),
    as_json: bool = AS_JSON,
) -> None:
    """List the images to caption, with their sizes and hashes, and say what else is there and why it is left out."""
    from promptecho.captions.folders import told
    from promptecho.captions.inputs import image_list, with_hashes, write_list
    from promptecho.captions.settings import read_settings
    from promptecho.file_hashes import FileHashes
    from promptecho.names import name_of

    found = image_list(read_settings(config).pick("images", images))
    with FileHashes(hashes or out.with_name(f"{out.name}.hashes")) as known:
        listed = with_hashes(found, known)
    write_list(out, listed)
    for line in told([name_of(item.image_id) for item in listed.items], listed.left_out):
        typer.echo(line, err=as_json)
    missing = sum(item.size is None for item in listed.items)
    if missing:
        typer.echo(f"{missing} of them {'is' if missing == 1 else 'are'} not there", err=True)
    if as_json:
        reasons = {reason: count for some in listed.left_out.values() for reason, count in some.items()}
        reasons = {reason: sum(some[reason] for some in listed.left_out.values()) for reason in sorted(reasons)}
        _report({"out": str(out), "images": len(listed.items), "missing": missing, "left_out": reasons}, True)


@caption.command("shard")
def shard(
    config: Path | None = CONFIG,
    vlm: str | None = typer.Option(
        None,
        "--vlm",
        help="Vision-language model: folder or hub id; shapes and gallery come with the project. Default: models.vlm.",
    ),
    images: str | None = typer.Option(
        None,
        "--images",
        help="Images: a folder, a .txt of paths, or a .jsonl of {image_id, path}. Default: captions.images.",
    ),
    images_list: Path | None = typer.Option(
        None,
        "--list",
        help="File that `promptecho caption list` wrote for these images: exactly its images are captioned. It may be "
        "missing. Default: what --images holds now.",
    ),
    max_pixels: int | None = typer.Option(
        None, "--max-pixels", min=1, help="Shrink larger images to so many pixels. Default: captions.max_pixels."
    ),
    query: str | None = typer.Option(
        None, "--query", help="What the model is asked about each image. Default: captions.query."
    ),
    shard: int = typer.Option(0, "--shard", min=0, help="Number of this shard, from 0."),
    num_shards: int | None = typer.Option(
        None,
        "--num-shards",
        min=1,
        help="Number of shards that the images are divided into. Default: captions.num_shards; without --config 1.",
    ),
    out: Path = OUT,
    work: Path = typer.Option(
        ..., "--work", help="Folder for unfinished work; the same command goes on from there after an interruption."
    ),
    earlier: str | None = typer.Option(
        None,
        "--earlier",
        help="Pattern of files that hold this shard from before, as 'captions.replaced-*/shards/00000.h5'. One that is "
        "what would be made now is copied. Default: none.",
    ),
    batch_size: int | None = typer.Option(
        None, "--batch-size", min=1, help="Images captioned together. Default: captions.batch_size."
    ),
    max_new_tokens: int | None = typer.Option(
        None, "--max-new-tokens", min=1, help="Longest caption, in tokens. Default: captions.max_new_tokens."
    ),
    temperature: float | None = typer.Option(
        None,
        "--temperature",
        min=0.0,
        help="0: always the likeliest token; above 0: sampled. Default: captions.temperature.",
    ),
    seed: int | None = SEED,
    endpoint: str | None = typer.Option(
        None,
        "--endpoint",
        help="Base URL of an OpenAI-compatible server that captions, as http://node7:8000/v1. Default: "
        "captions.server; without it transformers in this process.",
    ),
    server_log: Path | None = typer.Option(
        None,
        "--server-log",
        help="Where a server that is started here (captions.server.command) says what it does. Default: in WORK.",
    ),
    dtype: str | None = VLM_DTYPE,
    device: str = DEVICE,
    threads: int | None = THREADS,
    revision: str | None = typer.Option(
        None, "--revision", help="Commit of the model on the hub. Default: models.vlm.revision."
    ),
    trust_remote_code: bool = TRUST_REMOTE_CODE,
    as_json: bool = AS_JSON,
) -> None:
    """Caption the images of one shard.

    A shard is every NUM_SHARDS-th image, beginning with number SHARD. If it is interrupted, the same command goes on
    where it was.
    """
    from promptecho.captions.settings import read_settings

    settings = read_settings(config)
    own = settings.vlm if vlm is None else None  # what the configuration says of its model holds for that model only
    if (path := own.path if own else vlm) is None:
        raise typer.BadParameter("give --vlm, or a --config that names it")
    images = settings.pick("images", images)

    from promptecho.captions.shard_spec import GenerationSettings, ShardSpec

    generation = GenerationSettings(
        max_new_tokens=settings.pick("max_new_tokens", max_new_tokens),
        temperature=settings.pick("temperature", temperature),
        seed=settings.pick("seed", seed),
        dtype=dtype or (own.dtype if own else "float32"),
        batch_size=settings.pick("batch_size", batch_size),
    )
    spec = ShardSpec(
        vlm=path,
        images=images,
        query=settings.pick("query", query),
        shard=shard,
        num_shards=settings.pick("num_shards", num_shards) if config else num_shards or 1,
        out=out,
        work=work,
        settings=generation,
        device=device,
        revision=revision or (own.revision if own else None),
        trust_remote_code=trust_remote_code or bool(own and own.trust_remote_code),
        images_list=images_list,
        max_pixels=max_pixels or settings.captions.max_pixels,
        background=settings.captions.background,
        earlier=earlier,
        server=settings.server(endpoint),
        server_log=server_log,
    )
    if spec.server is not None:
        from promptecho.captions.server_shard import caption_shard_by_server

        _report(caption_shard_by_server(spec), as_json)
        return

    import torch

    from promptecho.captions.shard import caption_shard
    from promptecho.cluster.device import choose_device
    from promptecho.config.memory import caption_keys
    from promptecho.memory import MemoryAdvice

    if threads is not None:
        torch.set_num_threads(threads)
    keys = partial(caption_keys, own, generation.batch_size, generation.dtype)
    with MemoryAdvice(choose_device(device), keys)("caption"):
        summary = caption_shard(spec)
    _report(summary, as_json)


@caption.command("merge")
def merge(
    more: list[Path] = typer.Argument(None, metavar="[SHARD]...", help="The shards to merge: all of them."),
    shards: list[Path] = typer.Option(
        None, "--shards", help="The same as an option; more files may follow it. Default: none."
    ),
    config: Path | None = CONFIG,
    out: Path = OUT,
    heldout_out: Path = HELDOUT_OUT,
    heldout: int | None = HELDOUT,
    max_words: int | None = MAX_WORDS,
    max_tokens: int | None = MAX_TOKENS,
    tokenizer: str | None = TOKENIZER,
    max_rejected_share: float | None = typer.Option(
        None,
        "--max-rejected-share",
        min=0.0,
        max=1.0,
        help="Largest share of captions that may be rejected; above it the merge fails. Default: "
        "captions.max_rejected_share.",
    ),
    seed: int | None = SEED,
    images: str | None = typer.Option(
        None, "--images", help="With --list: where the listed images are from. Default: none."
    ),
    images_list: Path | None = typer.Option(
        None,
        "--list",
        help="File that `promptecho caption list` wrote: the shards must hold exactly its images. Default: no check.",
    ),
    as_json: bool = AS_JSON,
) -> None:
    """Merge shards into the training captions: leave out rejected ones, cut long ones, keep some out of training."""
    from promptecho.captions.merge import merge_shards, wanted_images

    files = given_files("--shards", shards, more)
    spec = _merge_spec(config, out, heldout_out, heldout, max_words, max_tokens, tokenizer, max_rejected_share, seed)
    _report(merge_shards(files, spec, wanted_images(images, images_list)), as_json)


@caption.command("prompts")
def prompts(
    prompts: str | None = typer.Option(
        None,
        "--prompts",
        help="Prompts: a .txt with one in each line, or a .jsonl or .csv with caption, and data_id if you like. "
        "Default: captions.prompts.",
    ),
    config: Path | None = CONFIG,
    out: Path = OUT,
    heldout_out: Path = HELDOUT_OUT,
    heldout: int | None = HELDOUT,
    max_words: int | None = MAX_WORDS,
    max_tokens: int | None = MAX_TOKENS,
    tokenizer: str | None = TOKENIZER,
    seed: int | None = SEED,
    as_json: bool = AS_JSON,
) -> None:
    """Take prompts from a file instead of captioning images; what is written has the same form."""
    from promptecho.captions.merge import import_prompts
    from promptecho.captions.settings import read_settings
    from promptecho.config.image_sizes import runs_by_image

    spec = _merge_spec(config, out, heldout_out, heldout, max_words, max_tokens, tokenizer, None, seed)
    settings = read_settings(config)
    path = settings.pick("prompts", prompts)
    if settings.experiment is not None and runs_by_image(settings.experiment.runs):
        from promptecho.captions.image_sizes import sizes_of_prompts

        sizes_of_prompts(path)  # told before anything is made of prompts that cannot be trained on
    _report(import_prompts(path, spec), as_json)


@caption.command("sizes")
def sizes(
    config: Path | None = CONFIG,
    captions: Path | None = typer.Option(
        None,
        "--captions",
        help="The merged captions, captions.h5, of whose images sizes are wanted. Default: none, with --prompts.",
    ),
    heldout: Path | None = typer.Option(
        None, "--heldout", help="Held-out captions, heldout.jsonl, of whose images they are wanted, too. Default: none."
    ),
    images: str | None = typer.Option(
        None,
        "--images",
        help="Images: a folder, a .txt of paths, or a .jsonl of {image_id, path}. Default: captions.images.",
    ),
    images_list: Path | None = typer.Option(
        None,
        "--list",
        help="File that `promptecho caption list` wrote for these images. It may be missing. Default: what --images "
        "holds now.",
    ),
    prompts: str | None = typer.Option(
        None,
        "--prompts",
        help="Prompts with width and height beside them, in place of images. Default: captions.prompts.",
    ),
    out: Path = typer.Option(
        ..., "--out", help="JSON Lines file to write; training looks for image_sizes.jsonl beside captions.h5."
    ),
    as_json: bool = AS_JSON,
) -> None:
    """Write down how large the image of each caption is, for training whose sizes follow the images.

    Needed where a run has size_by: image. Sizes are those that a viewer shows. Of JPEG and WebP files the head alone
    is read, of PNG files all.
    """
    from promptecho.captions.image_sizes import sizes_of_images, sizes_of_prompts, write_sizes
    from promptecho.captions.settings import read_settings

    settings = read_settings(config)
    given = prompts or (settings.captions.prompts if images is None else None)
    if given is not None:
        found = sizes_of_prompts(given)
    else:
        if captions is None:
            raise typer.BadParameter("give --captions, the file of `promptecho caption merge`, or --prompts")
        from promptecho.captions.prompts import read_prompts
        from promptecho.captions.shard_spec import listed_images
        from promptecho.captions.store import load_training_captions

        ids = [one.prompt_id for one in load_training_captions(captions)]
        if heldout is not None and heldout.stat().st_size:  # without any held-out caption it is empty
            ids += [row.image_id for row in read_prompts(heldout)]
        found = sizes_of_images(ids, listed_images(settings.pick("images", images), images_list).items)
    write_sizes(out, found)
    _report({"out": str(out), "sizes": len(found)}, as_json)


def _merge_spec(
    config: Path | None,
    out: Path,
    heldout_out: Path,
    heldout: int | None,
    max_words: int | None,
    max_tokens: int | None,
    tokenizer: str | None,
    max_rejected_share: float | None,
    seed: int | None,
) -> Any:
    from promptecho.captions.checks import prompt_readers
    from promptecho.captions.merge import MergeSpec
    from promptecho.captions.settings import read_settings

    settings = read_settings(config)
    counted = {"tokenizer": tokenizer} if tokenizer else settings.tokenizer()
    return MergeSpec(
        out=out,
        heldout_out=heldout_out,
        heldout=settings.pick("heldout", heldout),
        max_words=settings.pick("max_words", max_words),
        max_tokens=settings.pick("max_tokens", max_tokens),
        readers=prompt_readers(settings.experiment) if settings.experiment else (),
        max_rejected_share=settings.pick("max_rejected_share", max_rejected_share),
        seed=settings.pick("seed", seed),
        family=settings.family,
        **counted,
    )


def _report(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False))
    else:
        typer.echo(", ".join(f"{key} {value}" for key, value in summary.items() if value not in ({}, None)))
