"""Benchmarks by name, as `image_sets.NAME.benchmark` and `benchmarks.NAME.scorer` give them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from promptecho.config.benchmarks import benchmark_named, load_part, mistakes_told

if TYPE_CHECKING:
    from promptecho.benchmarks.layout import Layout
    from promptecho.benchmarks.scoring import Scorer, ScoringOptions
    from promptecho.config.evaluation import BenchmarkSection
    from promptecho.config.models import ExperimentConfig


def load_layout(name: str, prompts: Path, root: Path, images_per_prompt: int, limit: int | None = None) -> Layout:
    """The image folder `root` of benchmark `name` for the prompts of a file; `limit`: for the first of them alone.

    Raises:
        ConfigError: unknown benchmark.
        DataError: the prompt file is missing or faulty.
        BenchmarkError: code from outside fails.
    """
    owner = benchmark_named(name).images
    layout = load_part(owner, "layout")
    with mistakes_told(owner, "layout"):
        return layout(prompts, root, images_per_prompt, limit)


def load_scorer(name: str, options: ScoringOptions) -> Scorer:
    """The scorer of benchmark `name`.

    Raises:
        ConfigError: unknown benchmark, or a mode that it does not have.
        ModelError: unknown backend, or one that is not available.
        BenchmarkError: code from outside fails.
    """
    scorer = load_part(name, "scorer")
    with mistakes_told(name, "scorer"):
        return scorer(options)


def configured_scorer(
    section: BenchmarkSection, whole: ExperimentConfig | None, answers: Path | None, device: str, *, again: bool = False
) -> Scorer:
    """The scorer of an entry of `benchmarks`, as the rest of its experiment has it; see `ScoringOptions`.

    Raises:
        ConfigError, ModelError, BenchmarkError: as `load_scorer`.
    """
    from promptecho.benchmarks.scoring import ScoringOptions
    from promptecho.config.judge_kinds import judge_kind
    from promptecho.config.scorers import backend_of, max_failed_share

    judges = whole.judges if whole else None
    if backend_of(section).uses_gpu:
        from promptecho.cluster.device import choose_device

        device = choose_device(device)
    judge = judges.models[section.judge] if judges and section.judge else None
    if whole and judge is not None:
        judge = judge.model_copy(update={"max_failed_share": max_failed_share(whole, section)})
    return load_scorer(
        section.scorer,
        ScoringOptions(
            backend=section.backend,
            mode=section.mode,
            judge=judge,
            answers=answers,
            templates=Path(judges.templates) if judges and judges.templates else None,
            seed=section.seed,
            device=device,
            model=section.model,
            parser=section.parser,
            order="images_first" if judge is not None and judge_kind(judge.kind).images_first else section.order,
            questions_per_call=section.questions_per_call,
            outage_s=judges.outage_s if judges else None,
            again=again,
        ),
    )
