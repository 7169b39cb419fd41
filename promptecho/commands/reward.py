"""`promptecho reward`: the PromptEcho reward of images for a text, token by token."""

from __future__ import annotations

import json
from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    app.command("reward")(reward)


def reward(
    vlm: str = typer.Option(..., "--vlm", help="Folder (or hub id) of a Hugging Face image-text-to-text model."),
    image: list[Path] = typer.Option(..., "--image", help="Image file; repeat for several."),  # noqa: B008
    label: str = typer.Option(..., "--label", help="The text whose likelihood is the reward."),
    query: str = typer.Option("Describe this image in detail.", "--query", help="The question put to the model."),
    include_eos: bool = typer.Option(False, "--include-eos", help="Count the end token as the label's last."),
    dtype: str = typer.Option("float32", "--dtype", help="float32, bfloat16 or float16."),
    device: str = typer.Option("cpu", "--device", help="cpu, cuda, cuda:1, ..."),
    batch_size: int = typer.Option(8, "--batch-size", min=1),
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run code that comes with the model."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Print the mean log-probability per token of LABEL as the model's answer to QUERY on each image."""
    from promptecho.rewards import make_reward
    from promptecho.vlm import load_vlm
    from promptecho.vlm.images import load_image

    images = [load_image(path) for path in image]
    model = load_vlm(vlm, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    echo = make_reward("echo", model, query=query, batch_size=batch_size, include_eos=include_eos)
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
