"""`promptecho score` and `promptecho judge`: images -> answers -> score file, with the raw answers beside it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptecho.suggest import maybe

if TYPE_CHECKING:
    from promptecho.benchmarks.scoring import ImageFolder, Scored, Scorer
    from promptecho.config.evaluation import BenchmarkSection
    from promptecho.config.models import ExperimentConfig
    from promptecho.memory import MemoryAdvice


def register(app: typer.Typer) -> None:
    app.command()(score)
    app.command()(judge)


BenchmarkName = Annotated[str, typer.Option(help="Benchmark: a key of the configuration's `benchmarks`.")]
Images = Annotated[
    Path, typer.Option(help="Folder of images in the benchmark's official layout, results/E/images/R/N/SET.")
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="Experiment file or resolved configuration (results/E/config/DIGEST.yaml). Default: none; scorer and "
        "backend then say all."
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        help="Prompt file that the images must be complete for. Default: the metadata beside the images are trusted."
    ),
]
PerPrompt = Annotated[
    int | None,
    typer.Option(min=1, help="Number of images to expect for each prompt. Default: the largest number found."),
]
Baseline = Annotated[
    Path | None,
    typer.Option("--baseline", help="Image folder to compare with, for benchmarks of pairs. Default: none."),
]
Answers = Annotated[
    Path | None, typer.Option(help="Folder that keeps what a judge answered, results/E/judges/JUDGE. Default: none.")
]
Device = Annotated[
    str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, ...; auto takes a GPU if there is one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]


def score(
    benchmark: BenchmarkName,
    images: Images,
    out: Annotated[
        Path, typer.Option(help="Score file to write, N.json; the answer for each image goes to N.raw.jsonl beside it.")
    ],
    experiment: Annotated[str, typer.Option(help="Name of the experiment, as tables show it.")],
    run: Annotated[str, typer.Option(help="Name of the run, as tables show it; base for the untrained model.")],
    step: Annotated[int, typer.Option(min=0, help="Checkpoint, in iterations; 0 for base.")],
    config: Config = None,
    scorer: Annotated[
        str, typer.Option(help="Rules of which benchmark. Default: that of --config; without it, the benchmark's name.")
    ] = "",
    backend: Annotated[
        str, typer.Option(help="Who looks at the images. Default: that of --config, or the benchmark's first.")
    ] = "",
    mode: Annotated[
        str,
        typer.Option(
            help="official: the published rules as they are; fixed: without their bugs. Default: that of "
            "--config, or official."
        ),
    ] = "",
    config_digest: Annotated[
        str, typer.Option(help="Digest that the score file records. Default: the name of the --config file.")
    ] = "",
    prompts: Prompts = None,
    images_per_prompt: PerPrompt = None,
    baseline: Baseline = None,
    answers: Answers = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Score a folder of images by the rules of a benchmark."""
    from promptecho.benchmarks.registry import configured_scorer
    from promptecho.errors import ConfigError, counted
    from promptecho.files import write_jsonl
    from promptecho.provenance import UNKNOWN, Provenance, git_commit
    from promptecho.scores import Scores, raw_path, write_scores

    if (run == "base") != (step == 0):
        raise ConfigError(f"run {run!r} with step {step}: the run 'base' has step 0 and no other run has")
    if out.suffix != ".json":
        raise ConfigError(f"{out}: a score file is named N.json (--out)")
    section, whole = _section(config, benchmark, scorer=scorer, backend=backend, mode=mode)
    with _memory(section, whole, device)("score"):
        looking = configured_scorer(section, whole, answers, device)
        with _folder(benchmark, section, images, prompts, images_per_prompt, baseline) as folder:
            scored = _scored(looking, folder, section)
    items, failures = scored.items, sum(item.failed for item in scored.items)
    _check_failed(benchmark, section, whole, scored)
    result = Scores(
        provenance=Provenance(
            experiment=experiment,
            run=run,
            step=step,
            benchmark=benchmark,
            scorer=section.scorer,
            backend=section.backend,
            mode=section.mode,
            config_digest=config_digest or (config.stem if config else UNKNOWN),
            prompts_digest=scored.prompts_digest,
            git_commit=git_commit(),
            judge_model=looking.judge_model,
            template_digest=looking.template_digest,
            baseline=_baseline(section, whole, baseline),
            judge_versions=scored.judge.versions if scored.judge else None,
            unanswered=scored.judge.unanswered if scored.judge else None,
            judge_orders=scored.judge.orders if scored.judge else None,
            limit=scored.limit,
            n=len(items),
            failures=failures,
        ),
        summary=scored.summary,
        items=items,
        parts=scored.parts,
    )
    write_jsonl(raw_path(out), scored.raw)  # first: where a score file exists, its raw answers do
    write_scores(out, result)
    if as_json:
        typer.echo(json.dumps({"out": str(out), "n": len(items), "failures": failures, "summary": result.summary}))
    else:
        limit = f"; limit: {scored.limit}" if scored.limit else ""
        told = f"{counted(len(items), 'item')}, {failures} failed{limit}"
        typer.echo(f"{out}: overall {result.summary['overall']:.2%}; {told}")


def judge(
    benchmark: BenchmarkName,
    images: Images,
    config: Annotated[
        Path, typer.Option(help="Experiment file or resolved configuration (results/E/config/DIGEST.yaml).")
    ],
    answers: Annotated[Path, typer.Option(help="Folder that keeps what the judge answered, results/E/judges/JUDGE.")],
    out: Annotated[
        Path | None,
        typer.Option(help="JSON file to write once every question is answered. Needed, except with --estimate."),
    ] = None,
    prompts: Prompts = None,
    images_per_prompt: PerPrompt = None,
    baseline: Baseline = None,
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="Ask nothing; print how many calls, tokens and dollars are still to come."),
    ] = False,
    again: Annotated[
        bool,
        typer.Option("--again", help="Ask questions once more that were given up, though few enough failed to go on."),
    ] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Ask a benchmark's judge what it has not answered yet.

    All answers are kept; promptecho score then needs neither key nor network.
    """
    from promptecho.benchmarks.registry import configured_scorer
    from promptecho.benchmarks.scoring import Estimating
    from promptecho.config.benchmarks import mistakes_told
    from promptecho.config.scorers import backend_of
    from promptecho.errors import ConfigError
    from promptecho.files import write_json

    section, whole = _section(config, benchmark)
    if not backend_of(section).is_judge:
        raise ConfigError(f"{config}: benchmarks.{benchmark}: backend {section.backend} asks no judge; run score")
    if estimate == (out is not None):
        raise ConfigError("give either --out FILE, to ask, or --estimate")
    looking = configured_scorer(section, whole, answers, device, again=again)
    if estimate and not isinstance(looking, Estimating):
        raise ConfigError(f"benchmark {section.scorer}: its scorer has no `estimate`, so that the costs are not known")
    facts: dict[str, Any] = {"benchmark": benchmark, "judge": looking.judge_model}
    looked_at = _folder(benchmark, section, images, prompts, images_per_prompt, baseline)
    with _memory(section, whole, device)("judge"), looked_at as folder:
        if estimate and isinstance(looking, Estimating):
            with mistakes_told(section.scorer, "scorer"):
                facts |= asdict(looking.estimate(folder))
        else:
            scored = _scored(looking, folder, section)
            _check_failed(benchmark, section, whole, scored)
            facts |= {"items": len(scored.items), "failures": sum(item.failed for item in scored.items)}
            facts |= asdict(scored.judge) if scored.judge else {}
            facts |= {"limit": str(scored.limit)} if scored.limit else {}
    if out is not None:
        write_json(out, facts)
    typer.echo(json.dumps(facts) if as_json else "; ".join(f"{key}: {value}" for key, value in facts.items()))


def _scored(scorer: Scorer, folder: ImageFolder, section: BenchmarkSection) -> Scored:
    """What a scorer makes of a folder.

    Raises:
        BenchmarkError: the benchmark is from outside, and its code fails.
    """
    from promptecho.benchmarks.scoring import Scored
    from promptecho.config.benchmarks import mistakes_told
    from promptecho.errors import BenchmarkError

    with mistakes_told(section.scorer, "scorer"):
        scored = scorer.score(folder)
    if not isinstance(scored, Scored):
        told = f"a {type(scored).__name__}" if scored is not None else "nothing"
        raise BenchmarkError(f"benchmark {section.scorer}: its scorer returns {told}; `score` must return a Scored")
    return scored


@contextlib.contextmanager
def _folder(
    benchmark: str, section: BenchmarkSection, images: Path, prompts: Path | None, per_prompt: int | None,
    baseline: Path | None,
) -> Iterator[ImageFolder]:  # fmt: skip
    """The images to look at, unpacked where they are packed.

    Raises:
        ConfigError: the benchmark has a limit, and it is not known of which prompts.
        DataError: the images are videos, and the backend reads images.
    """
    from promptecho.benchmarks.packing import unpacked
    from promptecho.benchmarks.scoring import ImageFolder
    from promptecho.config.scorers import backend_of
    from promptecho.errors import ConfigError

    if section.limit is not None and prompts is None:
        raise ConfigError(
            f"benchmarks.{benchmark}.limit is {section.limit}: the first of which prompts? Give --prompts, the file of "
            "all prompts of the image set"
        )
    with contextlib.ExitStack() as stack:
        others = stack.enter_context(unpacked(baseline)) if baseline else None
        folder = stack.enter_context(unpacked(images))
        if not backend_of(section).videos:
            for one in filter(None, (others, folder)):
                _refuse_videos(one, f"{section.backend} of {section.scorer}")
        yield ImageFolder(folder, prompts, per_prompt, others, section.limit)


def _refuse_videos(folder: Path, what: str) -> None:
    """Look at one of a folder's images, which are alike.

    Raises:
        DataError: it is a video, while `what` reads images.
    """
    from promptecho.archives import ImageStore
    from promptecho.errors import DataError
    from promptecho.video import refuse_video

    store, first = ImageStore(folder), None
    with contextlib.suppress(DataError):  # a damaged archive is told by what needs it
        first = min(store.names(), default=None)
    if first is not None:
        refuse_video(store.find(first), what)


def _section(config: Path | None, benchmark: str, **given: str) -> tuple[BenchmarkSection, ExperimentConfig | None]:
    """The benchmark's section of the config with what is given over it; all of it where there is no config."""
    from promptecho.config.benchmarks import benchmark_named
    from promptecho.errors import ConfigError
    from promptecho.models.locate import job_config

    given = {key: value for key, value in given.items() if value}
    if config is None:
        first = benchmark_named(given.get("scorer", benchmark)).backend_names[0]
        values = {"image_set": benchmark, "scorer": benchmark, "backend": first, **given}
        return _validated(values), None
    whole = job_config(config)
    if benchmark not in whole.benchmarks:
        known = ", ".join(whole.benchmarks) or "none"
        meant = maybe(benchmark, whole.benchmarks)
        raise ConfigError(f"{config}: benchmarks.{benchmark}: no such benchmark (known: {known}){meant}")
    values = {**whole.benchmarks[benchmark].model_dump(mode="json"), **given}
    return _validated(values), whole


def _validated(values: dict) -> BenchmarkSection:
    from pydantic import ValidationError

    from promptecho.config.benchmarks import benchmark_named
    from promptecho.config.evaluation import BenchmarkSection
    from promptecho.errors import ConfigError

    scorer, backend = benchmark_named(values["scorer"]), values["backend"]
    if backend not in (backends := scorer.backend_names):
        known, meant = ", ".join(backends), maybe(backend, backends)
        raise ConfigError(f"backend {backend!r}: {scorer.name} has no such backend; known backends: {known}{meant}")
    try:
        return BenchmarkSection.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{first['loc'][0]} {first['input']!r}: {first['msg'].lower()}") from None


def _check_failed(benchmark: str, section: BenchmarkSection, whole: ExperimentConfig | None, scored: Scored) -> None:
    """Refuse what no table would take, where answers are on record. What others found took time; tables refuse it.

    Raises:
        DataError: more items failed than the configuration allows.
    """
    from promptecho.config.scorers import backend_of, max_failed_share
    from promptecho.errors import DataError

    failures, n = sum(item.failed for item in scored.items), len(scored.items)
    if whole is None or not backend_of(section).is_judge or failures <= max_failed_share(whole, section) * n:
        return
    why = scored.judge.unanswered if scored.judge else {}
    told = f" (questions without answer: {', '.join(f'{count} {kind}' for kind, count in why.items())})" if why else ""
    first = next((row["reason"] for row in scored.raw if row.get("failed") and row.get("reason")), "")
    raise DataError(
        f"benchmarks.{benchmark}: {failures} of {n} items failed{told}, more than max_failed_share "
        f"{max_failed_share(whole, section):g}{f'; the first: {first}' if first else ''}; see to the cause, or raise "
        f"benchmarks.{benchmark}.max_failed_share (the table then tells how many failed); judge --again asks "
        "once more what was given up"
    )


def _memory(section: BenchmarkSection, whole: ExperimentConfig | None, device: str) -> MemoryAdvice:
    """What to say when memory runs out."""
    from promptecho.config.memory import score_keys
    from promptecho.memory import MemoryAdvice

    return MemoryAdvice("cuda" if device == "auto" else device, partial(score_keys, whole, section.judge))


def _baseline(section: BenchmarkSection, whole: ExperimentConfig | None, baseline: Path | None) -> str | None:
    """What the images were compared with, as tables name it."""
    if baseline is None:
        return None
    return (section.baseline or "base").replace("@", " @ ") if whole else str(baseline)
