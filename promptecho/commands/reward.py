"""`promptecho reward`: the PromptEcho reward of images for a text, token by token."""

from __future__ import annotations

import json
from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    app.command("reward")(reward)


def reward(
    vlm: str | None = typer.Option(None, "--vlm", help="Folder (or hub id) of an image-text-to-text model."),
    image: list[Path] = typer.Option(..., "--image", help="Image file; repeat for several."),
    label: str = typer.Option(..., "--label", help="The text whose likelihood is the reward."),
    query: str | None = typer.Option(None, "--query", help="The question put to the model."),
    config: Path | None = typer.Option(None, "--config", help="Configuration that names model and query."),
    include_eos: bool = typer.Option(False, "--include-eos", help="Count the end token as the label's last."),
    dtype: str | None = typer.Option(None, "--dtype", help="float32 (default without --config), bfloat16, float16."),
    device: str = typer.Option("auto", "--device", help="cpu, cuda, cuda:1, ...; auto: a GPU where there is one."),
    batch_size: int = typer.Option(8, "--batch-size", min=1),
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run code that comes with the model."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Print the mean log-probability per token of LABEL as the model's answer to QUERY on each image."""
    from promptecho.captions.settings import read_settings

    settings = read_settings(config)
    from promptecho.images import load_image
    from promptecho.rewards import make_reward
    from promptecho.vlm import load_vlm

    if vlm is None and settings.vlm is None:
        raise typer.BadParameter("give --vlm, or a --config that names it")
    own = settings.vlm if vlm is None else None  # what the configuration says of its model holds for that model only
    images = [load_image(path) for path in image]
    model = load_vlm(
        own.path if own else vlm,
        dtype=dtype or (own.dtype if own else "float32"),
        device=device,
        revision=own.revision if own else None,
        trust_remote_code=trust_remote_code or bool(own and own.trust_remote_code),
    )
    echo = make_reward(
        "echo", model, query=settings.pick("query", query), batch_size=batch_size, include_eos=include_eos
    )
    details = echo.score_details(images, [label] * len(images), ["--label"] * len(images))
    if as_json:
        rows = [
            {"image": str(path), "reward": detail.mean, "tokens": detail.tokens, "log_probs": detail.log_probs.tolist()}
            for path, detail in zip(image, details, strict=True)
        ]
        typer.echo(json.dumps(rows, ensure_ascii=False, allow_nan=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(caption="log-probability per token (natural log); the reward is their mean")
    table.add_column("image", overflow="fold")
    table.add_column("reward", justify="right")
    table.add_column("tokens", overflow="fold")
    for path, detail in zip(image, details, strict=True):
        tokens = "  ".join(f"{t!r} {p:.2f}" for t, p in zip(detail.tokens, detail.log_probs.tolist(), strict=True))
        table.add_row(Text(str(path)), f"{detail.mean:.4f}", Text(tokens))
    Console().print(table)
