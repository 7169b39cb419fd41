"""`promptecho caption`: caption images shard by shard, merge the shards, or bring prompts instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

caption = typer.Typer(
    no_args_is_help=True,
    help="Training captions: shards of captioned images, their merge and split, or prompts from a file.",
)

OUT = typer.Option(..., "--out", help="HDF5 file to write.")
HELDOUT_OUT = typer.Option(..., "--heldout-out", help="JSON Lines file of held-out captions to write.")
HELDOUT = typer.Option(1000, "--heldout", min=0, help="Captions kept out of training, chosen by image hash.")
MAX_WORDS = typer.Option(200, "--max-words", min=1, help="Cut longer captions to so many words.")
MAX_TOKENS = typer.Option(512, "--max-tokens", min=1, help="... and to so many tokens of --tokenizer.")
TOKENIZER = typer.Option(None, "--tokenizer", help="Tokenizer folder of the text-to-image model; none: no such cut.")
SPLIT_SEED = typer.Option(0, "--seed", help="Seed of the split.")
AS_JSON = typer.Option(False, "--json", help="Print a summary as JSON.")


def register(app: typer.Typer) -> None:
    app.add_typer(caption, name="caption")


@caption.command("shard")
def shard(
    vlm: str = typer.Option(..., "--vlm", help="Folder (or hub id) of a Hugging Face image-text-to-text model."),
    images: str = typer.Option(..., "--images", help="Folder, .txt list of paths, or .jsonl of {image_id, path}."),
    query: str = typer.Option("Describe this image in detail.", "--query", help="The question put to the model."),
    shard: int = typer.Option(0, "--shard", min=0, help="Which shard, from 0."),
    num_shards: int = typer.Option(1, "--num-shards", min=1, help="Into how many shards the images are dealt."),
    out: Path = OUT,
    work: Path = typer.Option(..., "--work", help="Folder of the journal, from which a killed run goes on."),  # noqa: B008
    batch_size: int = typer.Option(16, "--batch-size", min=1, help="Images captioned together."),
    max_new_tokens: int = typer.Option(512, "--max-new-tokens", min=1, help="Longest caption in tokens."),
    temperature: float = typer.Option(0.0, "--temperature", min=0.0, help="0: greedy; above: sampled."),
    seed: int = typer.Option(0, "--seed", help="With the image id it seeds each sampled caption."),
    dtype: str = typer.Option("float32", "--dtype", help="float32, bfloat16 or float16."),
    device: str = typer.Option("cpu", "--device", help="cpu, cuda, cuda:1, ..."),
    revision: str | None = typer.Option(None, "--revision", help="Hub revision of the model."),
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run code that comes with the model."),
    as_json: bool = AS_JSON,
) -> None:
    """Caption every NUM_SHARDS-th image from index SHARD on. Killed and started again, it goes on."""
    from promptecho.captions.captioner import GenerationSettings
    from promptecho.captions.shard import ShardSpec, caption_shard

    settings = GenerationSettings(max_new_tokens, temperature, seed, dtype, batch_size)
    summary = caption_shard(ShardSpec(
        vlm, images, query, shard, num_shards, out, work, settings, device, revision, trust_remote_code
    ))
    _report(summary, as_json)


@caption.command("merge")
def merge(
    shards: list[Path] = typer.Argument(..., metavar="SHARD...", help="All shards of the data set."),  # noqa: B008
    out: Path = OUT,
    heldout_out: Path = HELDOUT_OUT,
    heldout: int = HELDOUT,
    max_words: int = MAX_WORDS,
    max_tokens: int = MAX_TOKENS,
    tokenizer: str | None = TOKENIZER,
    max_rejected_share: float = typer.Option(0.05, "--max-rejected-share", min=0.0, max=1.0, help="Fail above it."),
    seed: int = SPLIT_SEED,
    as_json: bool = AS_JSON,
) -> None:
    """Merge shards: drop rejected captions, cut long ones, hold some out."""
    from promptecho.captions.merge import MergeSpec, merge_shards

    spec = MergeSpec(out, heldout_out, heldout, max_words, max_tokens, tokenizer, max_rejected_share, seed)
    _report(merge_shards(shards, spec), as_json)


@caption.command("prompts")
def prompts(
    prompts: Path = typer.Option(..., "--prompts", help=".txt (one a line) or .jsonl ({caption, data_id?})."),  # noqa: B008
    out: Path = OUT,
    heldout_out: Path = HELDOUT_OUT,
    heldout: int = HELDOUT,
    max_words: int = MAX_WORDS,
    max_tokens: int = MAX_TOKENS,
    tokenizer: str | None = TOKENIZER,
    seed: int = SPLIT_SEED,
    as_json: bool = AS_JSON,
) -> None:
    """Use prompts from a file instead of captions; the result has the same form."""
    from promptecho.captions.merge import MergeSpec, import_prompts

    spec = MergeSpec(out, heldout_out, heldout, max_words, max_tokens, tokenizer, seed=seed)
    _report(import_prompts(prompts, spec), as_json)


def _report(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False))
    else:
        typer.echo(", ".join(f"{key} {value}" for key, value in summary.items() if value not in ({}, None)))
