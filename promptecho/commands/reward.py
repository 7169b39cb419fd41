"""`promptecho reward`: rewards of images for a text, with what the reward tells of each: its tokens, or its replies."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from promptecho.commands.files import given_files
from promptecho.commands.options import DEVICE, TRUST_REMOTE_CODE, VLM_DTYPE

if TYPE_CHECKING:
    from promptecho.config.descriptors import Reward
    from promptecho.rewards import Details


def register(app: typer.Typer) -> None:
    app.command("reward")(reward)


def reward(
    more: list[Path] = typer.Argument(None, metavar="[IMAGE]...", help="Image files."),
    name: str = typer.Option("echo", "--name", help="Which reward; `promptecho list rewards` lists them."),
    vlm: str | None = typer.Option(
        None,
        "--vlm",
        help="Vision-language model: folder or hub id; shapes and gallery come with the project. "
        "Default: models.vlm of --config.",
    ),
    image: list[Path] = typer.Option(
        None, "--image", help="The same as an option; more images may follow it. Default: none."
    ),
    label: str | None = typer.Option(
        None,
        "--label",
        help="The prompt that the images should show; for echo the text whose likelihood is the reward. Needed, except "
        "with --labels.",
    ),
    labels: Path | None = typer.Option(
        None,
        "--labels",
        help="A label for each image: a .txt with a line for each in their order, or a .jsonl or .csv of image and "
        "label. Default: --label for all.",
    ),
    query: str | None = typer.Option(
        None, "--query", help="What the model is asked about the image, as by echo. Default: captions.query."
    ),
    config: Path | None = typer.Option(
        None,
        "--config",
        help="Experiment file or resolved configuration that names model, question and the reward's settings. "
        "Default: none.",
    ),
    include_eos: bool = typer.Option(
        False, "--include-eos", help="Count the token that ends the answer too; for echo."
    ),
    temperature: float | None = typer.Option(
        None,
        "--temperature",
        min=0,
        help="Where the model writes replies: 0 takes always the likeliest token; above 0: sampled. Default: that of "
        "--config, or the reward's own.",
    ),
    samples: int | None = typer.Option(
        None, "--samples", min=1, help="Replies for each image. Default: that of --config, or the reward's own."
    ),
    max_new_tokens: int | None = typer.Option(
        None,
        "--max-new-tokens",
        min=1,
        help="Longest reply, in tokens. Default: that of --config, or the reward's own.",
    ),
    template: Path | None = typer.Option(
        None,
        "--template",
        help="Text file with the question; {prompt} is replaced by the label. Default: that of --config, or "
        "the reward's "
        "own.",
    ),
    setting: list[str] = typer.Option(
        None,
        "--set",
        metavar="KEY=VALUE",
        help="Any setting of the reward; repeat it for several. Default: those of --config, or the reward's own.",
    ),
    seed: int = typer.Option(1, "--seed", min=0, help="Seed of what is sampled, together with the image's file name."),
    dtype: str | None = VLM_DTYPE,
    device: str = DEVICE,
    batch_size: int = typer.Option(8, "--batch-size", min=1, help="Images that the model takes together."),
    trust_remote_code: bool = TRUST_REMOTE_CODE,
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    html: Path | None = typer.Option(
        None,
        "--html",
        help="HTML page to write: each image with its label, whose words are coloured by their log-probability and by "
        "what the image changes about it; for echo. Default: none.",
    ),
    blank: str | None = typer.Option(
        None,
        "--blank",
        help="What that change is measured from: blank images of these colours, with commas between them, or `mean` "
        "for each image's own mean brightness; also for --json. Default: black,grey,white with --html, otherwise none.",
    ),
) -> None:
    """Print the reward of images for a prompt.

    For echo, PromptEcho's own, the model is asked QUERY about the image; the reward is the mean log-probability of the
    tokens of LABEL as its answer. `promptecho list rewards` lists the others.
    """
    from promptecho.captions.settings import read_settings
    from promptecho.config.descriptors import REWARDS, reward_named
    from promptecho.video import frames_of

    settings = read_settings(config)
    if name not in REWARDS.names():
        raise typer.BadParameter(f"--name {name}: choose {' or '.join(REWARDS.names())}")
    chosen = reward_named(name)
    entry = next((one for one in settings.rewards if one.name == name), None)
    own = settings.own_vlm(vlm, entry)  # what the configuration says of its model holds for that model only
    path = own.path if own else vlm
    if chosen.needs_vlm and path is None:
        raise typer.BadParameter("give --vlm, or a --config that names it")
    shared = {"query": query, "include_eos": include_eos or None}
    for key in (key for key, value in shared.items() if value is not None and key not in chosen.takes):
        raise typer.BadParameter(f"--{key.replace('_', '-')}: {name} has no such option")
    asked = {"temperature": temperature, "samples": samples, "max_new_tokens": max_new_tokens, "template": template}
    for key, value in {"html": html, "blank": blank}.items():
        if value is not None and name != "echo":
            raise typer.BadParameter(f"--{key}: {name} reads no words; --name echo does")
    options = _options(chosen, settings.rewards, asked, setting or [])
    files = given_files("--image", image, more)
    texts = _labels(files, label, labels)
    model_place = (path, own.revision if own else None) if chosen.needs_vlm and path is not None else None
    images = _checked(model_place, files, settings.captions, chosen)
    if (html is not None or blank is not None) and any(len(frames_of(one)) > 1 for one in images):
        raise typer.BadParameter("--html and --blank read images; the video's own rewards come without them")
    if blank is not None:
        from promptecho.rewards.echo.blanks import check_blank

        check_blank(blank)
    # What is missing is said before these seconds.
    from promptecho.cluster.device import choose_device
    from promptecho.config.memory import reward_keys
    from promptecho.memory import MemoryAdvice
    from promptecho.phases import Phase
    from promptecho.rewards import RewardContext, make_reward

    dtype = dtype or (own.dtype if own else "float32")
    where = choose_device(device)
    memory = MemoryAdvice(where, partial(reward_keys, batch_size, dtype))
    model = None
    if model_place is not None:
        from promptecho.vlm import load_vlm

        with memory(Phase.LOAD_VLM):
            model = load_vlm(
                model_place[0],
                dtype=dtype,
                device=device,
                revision=model_place[1],
                trust_remote_code=trust_remote_code or bool(own and own.trust_remote_code),
            )
    import torch

    context = RewardContext(
        vlm=model, device=torch.device(where), options=options, query=settings.pick("query", query),
        batch_size=batch_size, seed=seed, include_eos=include_eos,
    )  # fmt: skip
    if chosen.writes:
        for picture in images:  # its name decides what is sampled, not where it lies
            picture.info["path"] = Path(picture.info["path"]).name
    names = [f"of {path}" for path in files] if labels else ["--label"] * len(files)
    built = make_reward(name, context)
    with memory(Phase.REWARD):
        if html is None and blank is None:
            details = built.details(images, texts, names)
        else:
            details = _read(built.function, images, texts, names, html, blank, f"{path}", files)
    _print(files, details, as_json)


def _read(
    echo: Any, images: list, texts: list[str], names: list[str], html: Path | None, blank: str | None, vlm: str,
    files: list[Path],
) -> Details:  # fmt: skip
    """Rewards word by word, with what blank images make of them; and the page of them, if one is asked for."""
    from promptecho.names import shown
    from promptecho.reading.page import ReadImage, ReadRow, about_lines, write_words
    from promptecho.rewards.echo.blanks import BLANK
    from promptecho.rewards.echo.words import read_words, told

    blank = blank or BLANK
    readings = read_words(echo, images, texts, names, blank=blank)
    if html is not None:
        rows = [
            ReadRow("", [ReadImage(shown(file), image, reading)])
            for file, image, reading in zip(files, images, readings, strict=True)
        ]
        write_words(html, "Prompts, word by word", rows, about=about_lines(vlm, echo.query, blank))
    return echo.reduced(told(readings))


def _options(reward: Reward, entries: Any, asked: dict[str, Any], given: list[str]) -> Any:
    """Settings of the configuration's first entry of that reward, with those of the command line on top.

    Raises:
        ConfigError: `--set` names no setting of the reward, or a value that it does not take.
    """
    import yaml
    from pydantic import ValidationError

    from promptecho.errors import ConfigError
    from promptecho.suggest import did_you_mean

    asked = {key: str(value) if isinstance(value, Path) else value for key, value in asked.items() if value is not None}
    known = [] if reward.options is None else list(reward.options.model_fields)
    for key in (key for key in asked if key not in known):
        raise typer.BadParameter(f"--{key.replace('_', '-')}: {reward.name} has no such option")
    for one in given:
        key, equals, value = one.partition("=")
        if not equals or key not in known:
            wrong = f"no such setting of {reward.name}; {did_you_mean(key, known)}" if equals else "expected KEY=VALUE"
            raise ConfigError(f"--set {one}: {wrong}")
        asked[key] = yaml.safe_load(value)
    if reward.options is None:
        return None
    configured = next((entry.options for entry in entries if entry.name == reward.name), None)
    try:
        return reward.options.model_validate({**dict(configured or ()), **asked})
    except ValidationError as error:
        keys = [".".join(map(str, item["loc"])) for item in error.errors()]  # "" where several do not go together
        said = [item["msg"].removeprefix("Value error, ") for item in error.errors()]
        lines = [f"--set{' ' * bool(key)}{key}: {one}" for key, one in zip(keys, said, strict=True)]
        raise ConfigError("\n".join(lines)) from None


def _print(files: list[Path], details: Details, as_json: bool) -> None:
    if as_json:
        facts = zip(files, details.rewards, details.facts, strict=True)
        rows = [{"image": str(path), "reward": reward, **more} for path, reward, more in facts]
        typer.echo(json.dumps(rows, ensure_ascii=False, allow_nan=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lines = details.rows or [[()] for _ in files]
    table = Table(caption=details.caption or None, show_lines=any(len(some) > 1 for some in lines))
    table.add_column("image", overflow="fold")
    table.add_column("reward", justify="right")
    for column in details.columns:
        table.add_column(column, overflow="fold")
    for path, reward, some in zip(files, details.rewards, lines, strict=True):
        for number, cells in enumerate(some):
            first = (Text(str(path)), "none" if reward is None else f"{reward:.4f}") if number == 0 else ("", "")
            table.add_row(*first, *map(Text, cells))
    Console().print(table)


def _checked(model: tuple[str, str | None] | None, files: list[Path], captions: Any, reward: Reward) -> list:
    """The images, as the captioner of these settings sees them, and videos, which are animated PNG files; `model`: the
    VLM's path and revision, if one is needed.

    Raises:
        DataError: some cannot be read, are videos and the reward reads images, or the model is not to be had; names all
            of them.
    """
    from promptecho.errors import DataError, ModelError, listed
    from promptecho.images import load_image
    from promptecho.models.locate import check_model_path
    from promptecho.shipped import model_path
    from promptecho.video import count_frames, load_video, refuse_video

    images: list[Any] = []
    problems = []
    try:
        if model is not None:
            check_model_path(model_path(model[0], "vlm"), revision=model[1])
    except ModelError as error:
        problems.append(str(error))
    for path in files:
        try:
            if not reward.reads_videos:
                refuse_video(path, reward.name)
            load: Any = load_video if count_frames(path) > 1 else load_image
            images.append(load(path, background=captions.background, max_pixels=captions.max_pixels))
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

    if label is not None and source is None:
        return [label] * len(files)
    if label is not None or source is None:
        raise typer.BadParameter("give either --label TEXT, for all images, or --labels FILE")
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
    return [found[name] for name in names if name is not None]
