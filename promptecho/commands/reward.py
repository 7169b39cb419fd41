"""`promptecho reward`: rewards of images for a text: PromptEcho's, token by token, or InferScore's, with replies."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import typer

from promptecho.commands.files import given_files
from promptecho.commands.options import DEVICE, TRUST_REMOTE_CODE, VLM_DTYPE


def register(app: typer.Typer) -> None:
    app.command("reward")(reward)


OF_INFERSCORE = ("temperature", "samples", "max_new_tokens", "template")


def reward(
    more: list[Path] = typer.Argument(None, metavar="[IMAGE]...", help="Image files."),
    name: str = typer.Option(
        "echo", "--name", help="Which reward: echo (PromptEcho) or inferscore (the model writes a score)."
    ),
    vlm: str | None = typer.Option(
        None,
        "--vlm",
        help="Vision-language model: folder or hub id; shapes is the one that comes with the project. "
        "Default: models.vlm of --config.",
    ),
    image: list[Path] = typer.Option(
        None, "--image", help="The same as an option; more images may follow it. Default: none."
    ),
    label: str | None = typer.Option(
        None,
        "--label",
        help="The prompt that the images should show; echo: the text whose likelihood is the reward. Needed, except "
        "with --labels.",
    ),
    labels: Path | None = typer.Option(
        None,
        "--labels",
        help="A label for each image: a .txt with a line for each in their order, or a .jsonl or .csv of image and "
        "label. Default: --label for all.",
    ),
    query: str | None = typer.Option(
        None, "--query", help="echo: what the model is asked about the image. Default: captions.query."
    ),
    config: Path | None = typer.Option(
        None, "--config", help="Experiment file or resolved configuration that names model and question. Default: none."
    ),
    include_eos: bool = typer.Option(False, "--include-eos", help="echo: count the token that ends the answer too."),
    temperature: float | None = typer.Option(
        None,
        "--temperature",
        min=0,
        help="inferscore: 0 takes always the likeliest token; above 0: sampled. Default: that of --config, or 0.7.",
    ),
    samples: int | None = typer.Option(
        None, "--samples", min=1, help="inferscore: replies for each image. Default: that of --config, or 1."
    ),
    max_new_tokens: int | None = typer.Option(
        None, "--max-new-tokens", min=1, help="inferscore: longest reply, in tokens. Default: that of --config, or 256."
    ),
    template: Path | None = typer.Option(
        None,
        "--template",
        help="inferscore: text file with the question; {prompt} stands for the label. Default: the project's own.",
    ),
    seed: int = typer.Option(
        1, "--seed", min=0, help="inferscore: seed of what is sampled, together with the image's file name."
    ),
    dtype: str | None = VLM_DTYPE,
    device: str = DEVICE,
    batch_size: int = typer.Option(8, "--batch-size", min=1, help="Images that the model takes together."),
    trust_remote_code: bool = TRUST_REMOTE_CODE,
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Print the reward of images for a prompt.

    echo: the model is asked QUERY about the image; the reward is the mean log-probability of the tokens of LABEL as
    its answer. inferscore: the model writes scores from 0 to 10; the reward is their mean, divided by 10.
    """
    from promptecho.captions.settings import read_settings

    settings = read_settings(config)
    if vlm is None and settings.vlm is None:
        raise typer.BadParameter("give --vlm, or a --config that names it")
    asked = dict(zip(OF_INFERSCORE, (temperature, samples, max_new_tokens, template), strict=True))
    asked = {key: value for key, value in asked.items() if value is not None}
    if name not in ("echo", "inferscore"):
        raise typer.BadParameter(f"--name {name}: choose echo or inferscore")
    foreign = asked if name == "echo" else {"query": query, "include_eos": include_eos or None}
    for key in (key for key, value in foreign.items() if value is not None):
        raise typer.BadParameter(f"--{key.replace('_', '-')}: {name} has no such option")
    own = settings.vlm if vlm is None else None  # what the configuration says of its model holds for that model only
    files = given_files("--image", image, more)
    texts = _labels(files, label, labels)
    images = _checked(own.path if own else vlm, own.revision if own else None, files, settings.captions)
    # What is missing is said before these seconds.
    from promptecho.cluster.device import choose_device
    from promptecho.config.memory import reward_keys
    from promptecho.memory import MemoryAdvice
    from promptecho.rewards import make_reward
    from promptecho.vlm import load_vlm

    dtype = dtype or (own.dtype if own else "float32")
    memory = MemoryAdvice(choose_device(device), partial(reward_keys, batch_size, dtype))
    with memory("load_vlm"):
        model = load_vlm(
            own.path if own else vlm,
            dtype=dtype,
            device=device,
            revision=own.revision if own else None,
            trust_remote_code=trust_remote_code or bool(own and own.trust_remote_code),
        )
    if name == "inferscore":
        with memory("reward"):
            replies = _inferscore(model, settings.rewards, asked, batch_size, seed, images, texts)
        _print_replies(files, replies, as_json)
        return
    echo = make_reward(
        "echo", model, query=settings.pick("query", query), batch_size=batch_size, include_eos=include_eos
    )
    names = [f"of {path}" for path in files] if labels else ["--label"] * len(files)
    with memory("reward"):
        details = echo.score_details(images, texts, names)
    if as_json:
        rows = [
            {"image": str(path), "reward": detail.mean, "tokens": detail.tokens, "log_probs": detail.log_probs.tolist()}
            for path, detail in zip(files, details, strict=True)
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
    for path, detail in zip(files, details, strict=True):
        tokens = "  ".join(f"{t!r} {p:.2f}" for t, p in zip(detail.tokens, detail.log_probs.tolist(), strict=True))
        table.add_row(Text(str(path)), f"{detail.mean:.4f}", Text(tokens))
    Console().print(table)


def _checked(vlm: str, revision: str | None, files: list[Path], captions: Any) -> list:
    """The images, as the captioner of these settings sees them.

    Raises:
        DataError: some cannot be read, or the model is not to be had; names all of them.
    """
    from promptecho.errors import DataError, ModelError, listed
    from promptecho.images import load_image
    from promptecho.models.place import check_model_path
    from promptecho.shipped import model_path

    images, problems = [], []
    try:
        check_model_path(model_path(vlm, "vlm"), revision=revision)
    except ModelError as error:
        problems.append(str(error))
    for path in files:
        try:
            images.append(load_image(path, background=captions.background, max_pixels=captions.max_pixels))
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError(listed(problems, "faulty inputs"))
    return images


def _labels(files: list[Path], label: str | None, source: Path | None) -> list[str]:
    """A label for each image.

    Raises:
        DataError: the file of labels is faulty, or has none for some images; names all of them.
    """
    from promptecho.errors import DataError, counted, listed
    from promptecho.text_files import LISTS, differing, read_lines, read_rows, suffix_of, value_of

    if (label is None) == (source is None):
        raise typer.BadParameter("give either --label TEXT, for all images, or --labels FILE")
    if source is None:
        return [label] * len(files)
    if suffix_of(source) in LISTS:
        lines = [line for _, line in read_lines(source)]
        if len(lines) != len(files):
            there = f"{counted(len(lines), 'label')} for {counted(len(files), 'image')}"
            raise DataError(f"{source}: {there}; give one line for each, in order")
        return lines
    found: dict[str, str] = {}
    problems = []
    for number, row in read_rows(source):
        image = value_of(row, ("image", "filename", "path"))
        text = value_of(row, ("label", "caption", "prompt", "text"))
        if not image or not text or not isinstance(text[1], str) or not text[1].strip():
            problems.append(f"{source}:{number}: needs image and label")
        elif text[0] != "label" and (problem := differing(row, ("caption", "prompt", "text"))):
            problems.append(f"{source}:{number}: {problem}, or name the one that is meant `label`")
        elif found.setdefault(str(image[1]), text[1]) != text[1]:
            problems.append(f"{source}:{number}: {image[1]} has another label already; keep one of them")
    names = [next((name for name in (str(path), path.name) if name in found), None) for path in files]
    problems += [
        f"{source}: no label for {path} (by its path as given, or its name)"
        for path, name in zip(files, names, strict=True)
        if name is None
    ]
    if problems:
        raise DataError(listed(problems, "problems"))
    return [found[name] for name in names]


def _inferscore(model, rewards, asked: dict, batch_size: int, seed: int, images: list, labels: list[str]) -> list:
    """Replies for each image; settings of the configuration's first inferscore, with `asked` on top."""
    from promptecho.config.rewards import InferScoreSection
    from promptecho.rewards import make_reward

    configured = next((entry.inferscore for entry in rewards if entry.name == "inferscore"), None)
    settings = InferScoreSection().model_copy(update={**dict(configured or ()), **asked})
    for picture in images:  # its name decides what is sampled, not where it lies
        picture.info["path"] = Path(picture.info["path"]).name
    reward = make_reward("inferscore", model, settings=settings, batch_size=batch_size, seed=seed)
    return reward.replies(images, labels, ["--label"] * len(images))


def _print_replies(files: list[Path], replies: list, as_json: bool) -> None:
    from promptecho.rewards.inferscore import mean_score

    readable = [any(reply.score is not None for reply in some) for some in replies]
    rewards = [mean_score(some) if any_score else None for some, any_score in zip(replies, readable, strict=True)]
    if as_json:
        rows = [
            {"image": str(path), "reward": reward, "replies": [asdict(reply) for reply in some]}
            for path, reward, some in zip(files, rewards, replies, strict=True)
        ]
        typer.echo(json.dumps(rows, ensure_ascii=False, allow_nan=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(caption="the reward is the mean of readable scores, divided by 10", show_lines=True)
    table.add_column("image", overflow="fold")
    table.add_column("reward", justify="right")
    table.add_column("score", justify="right")
    table.add_column("reply", overflow="fold")
    for path, reward, some in zip(files, rewards, replies, strict=True):
        for number, reply in enumerate(some):
            first = (Text(str(path)), "none" if reward is None else f"{reward:.4f}") if number == 0 else ("", "")
            score = "none" if reply.score is None else f"{reply.score:g}"
            table.add_row(*first, score, Text(f"{reply.text} ({reply.problem})" if reply.problem else reply.text))
    Console().print(table)
