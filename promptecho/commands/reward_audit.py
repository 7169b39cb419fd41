"""`promptecho reward-audit`: which VLM and which query to trust as a reward, before GPU hours are spent."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from promptecho.commands.options import DEVICE, TRUST_REMOTE_CODE, VLM_DTYPE
from promptecho.suggest import maybe

if TYPE_CHECKING:
    from promptecho.audit.material import Pairs
    from promptecho.audit.rated import Candidate
    from promptecho.config.models import ExperimentConfig

SCALES = [0.5]
OTHER_DTYPES = ["bfloat16"]


def register(app: typer.Typer) -> None:
    app.command("reward-audit")(reward_audit)


def reward_audit(
    vlm: list[str] = typer.Option(
        None,
        "--vlm",
        help="Vision-language model: folder or hub id; shapes and gallery come with the project. Repeat it for "
        "several. Default: those of --config.",
    ),
    query: list[str] = typer.Option(
        None,
        "--query",
        help="What the model is asked about an image, for rewards that take a query. Repeat it for several. Default: "
        "those of --config, or captions.query.",
    ),
    reward: list[str] = typer.Option(
        None,
        "--reward",
        help="Which reward; `promptecho list rewards` lists them. Repeat it for several. Default: those of --config, "
        "or echo.",
    ),
    config: Path | None = typer.Option(
        None,
        "--config",
        help="Experiment file or resolved configuration that names rewards, models, queries and judges. Default: none.",
    ),
    captions: str | None = typer.Option(
        None,
        "--captions",
        help="Images with true captions: a .jsonl or .csv of image and caption, a folder of images with a NAME.txt "
        "beside each or a metadata.jsonl, or what an embedded world draws: shapes, gallery, or posters with their "
        "texts as JSON (a folder of such a name: ./posters). Default: none; give --images then.",
    ),
    caption_images: Path | None = typer.Option(
        None,
        "--caption-images",
        help="Folder that the image names in --captions count from. Default: that of the file.",
    ),
    images: list[Path] = typer.Option(
        None,
        "--images",
        help="Images of a text-to-image model, results/E/images/R/N/SET. Repeat it, each with its --scores; "
        "checkpoints of one set count as images of the same prompts. Default: none.",
    ),
    scores: list[Path] = typer.Option(
        None, "--scores", help="Score file of the images, results/E/scores/BENCH/R/N.json. Default: none."
    ),
    out: Path = typer.Option(
        ..., "--out", help="Folder for audit.md, audit.html and audit.json; work/ in it keeps what models answered."
    ),
    n: int = typer.Option(400, "--n", min=1, help="Number of captions, drawn by --seed where there are more."),
    judge: str | None = typer.Option(
        None,
        "--judge",
        help="Key of judges.models of --config: that model writes the edits of captions. Default: rules do.",
    ),
    scale: list[float] = typer.Option(
        SCALES, "--scale", min=0.05, max=4.0, help="Ask again with images of so much of their size; 1: not again."
    ),
    other_dtype: list[str] = typer.Option(
        OTHER_DTYPES, "--other-dtype", help="Ask again computed in this type; that of --dtype: not again."
    ),
    seed: int = typer.Option(1, "--seed", min=0, help="Seed of rendered scenes, edits and what is sampled."),
    dtype: str | None = VLM_DTYPE,
    device: str = DEVICE,
    batch_size: int = typer.Option(16, "--batch-size", min=1, help="Images that the model takes together."),
    trust_remote_code: bool = TRUST_REMOTE_CODE,
) -> None:
    """Find out which VLM and which query give a reward that can be trusted, before GPU hours are spent.

    Each reward is asked whether it prefers a true caption to the same with one fact changed, and right images of a
    prompt to wrong ones; which words carry that; and what it costs. The page recommends one by rules that it states.
    """
    from promptecho.captions.settings import read_settings
    from promptecho.errors import ConfigError

    settings = read_settings(config)
    if captions is None and not images:
        raise typer.BadParameter("give --captions (a world, a file or a folder), or --images with --scores, or both")
    if scores and not images:
        raise typer.BadParameter("--scores: give --images, the folder that they are of")
    from promptecho.audit.worlds import WORLDS

    if judge is not None and (captions is None or captions in WORLDS):
        raise typer.BadParameter("--judge writes edits of --captions from a file or a folder; drawn ones are exact")
    for one in (dtype, *other_dtype):
        if one not in (None, "float32", "bfloat16", "float16"):
            raise ConfigError(f"dtype {one!r}: choose float32, bfloat16 or float16")
    from promptecho.audit.candidates import candidates_of

    candidates = candidates_of(settings, config, vlm or [], query or [], reward or [], dtype, trust_remote_code)
    _check_models(candidates)
    from promptecho.audit.sources import read_verdicts

    verdicts = read_verdicts(images or [], scores or [])
    pairs = _pairs(captions, caption_images, n, seed, judge, settings.experiment, config, out)
    from promptecho.audit.rated import Rater
    from promptecho.audit.run import AuditPlan, run_audit
    from promptecho.audit.write import write_audit
    from promptecho.cluster.device import choose_device
    from promptecho.config.memory import reward_keys
    from promptecho.memory import MemoryAdvice
    from promptecho.phases import Phase

    told = {
        "captions": captions, "n": n, "seed": seed, "judge": judge, "batch_size": batch_size,
        "images": [str(one) for one in images or []], "scores": [str(one) for one in scores or []],
    }  # fmt: skip
    scales = [one for one in dict.fromkeys(scale) if one != 1.0]
    plan = AuditPlan(candidates, pairs, verdicts, scales, list(dict.fromkeys(other_dtype)), told)
    rater = Rater(out / "work" / "rewards", batch_size=batch_size, device=device, seed=seed)
    memory = MemoryAdvice(choose_device(device), partial(reward_keys, batch_size, candidates[0].dtype))
    with memory(Phase.REWARD):
        report = run_audit(plan, rater)
    paths = write_audit(report, out)
    advice = report["recommendation"]
    typer.echo(f"recommended: {advice['recommended'] or 'none of them'}")
    for one in [*(f"tied: {name}" for name in advice["tied"]), *(f"warning: {one}" for one in advice["warnings"])]:
        typer.echo(one)
    typer.echo(f"the page: {paths[2]}, {paths[1]}; its numbers: {paths[0]}")


def _check_models(candidates: list[Candidate]) -> None:
    """Raises:
    ModelError: a VLM is not to be had; all are named.
    """
    from promptecho.errors import ModelError, listed
    from promptecho.models.locate import check_model_path
    from promptecho.shipped import model_path

    problems: dict[str, None] = {}
    for one in candidates:
        if one.vlm is not None:
            try:
                check_model_path(model_path(one.vlm, "vlm"), revision=one.revision)
            except ModelError as error:
                problems[str(error)] = None
    if problems:
        raise ModelError(listed(list(problems), "models"))


def _pairs(
    captions: str | None, folder: Path | None, n: int, seed: int, judge: str | None, whole: ExperimentConfig | None,
    config: Path | None, out: Path,
) -> Pairs:  # fmt: skip
    """The pairs of `--captions`.

    Raises:
        ConfigError: the judge is none of the configuration's.
    """
    from promptecho.audit.drawn_pairs import drawn_pairs
    from promptecho.audit.material import Pairs
    from promptecho.audit.worlds import WORLDS, world_named
    from promptecho.errors import ConfigError

    if captions is None:
        return Pairs()
    if captions in WORLDS:
        return drawn_pairs(world_named(captions), n, seed)
    from promptecho.audit.sources import chosen, read_captioned, rule_pairs

    some = chosen(read_captioned(Path(captions), folder), n, seed)
    if judge is None:
        return rule_pairs(some, captions, seed)
    judges = whole.judges.models if whole else {}
    if judge not in judges:
        known = ", ".join(judges) or "none"
        raise ConfigError(
            f"{config or '--config'}: judges.models.{judge}: no such judge (known: {known}){maybe(judge, judges)}"
        )
    from promptecho.audit.judge_edits import judge_pairs

    return judge_pairs(some, captions, judges[judge], out / "work" / "judge")
