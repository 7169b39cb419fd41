"""Prompts against what will read them: control tokens and context lengths, by tokenizers alone."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from promptecho.captions.readers import PromptReader
from promptecho.config.benchmarks import benchmark_named
from promptecho.config.families import family_named
from promptecho.doctor.finding import Finding, fine, problem, unchecked
from promptecho.doctor.preflight import JOBS, Preflight
from promptecho.errors import PromptEchoError

FIX = "correct or remove these prompts"


def texts(preflight: Preflight) -> Iterator[Finding]:
    """The training captions, or the prompts that are brought in their place, and the prompts of image sets."""
    said, strikes = io.StringIO(), JOBS["train" if preflight.names("train") else "generate"]
    try:
        with contextlib.redirect_stderr(said):  # it tells there which VLM is not here
            readers = _readers(preflight)
    except PromptEchoError as error:
        told = f"prompts against context lengths and control tokens: {error}"
        yield unchecked(told, strikes, "look again when the model is here")
        return
    for line in said.getvalue().splitlines():
        yield unchecked(line, strikes, "look again when the model is here")
    if "train" in preflight.stages:
        yield from _captions(preflight, readers)
    if "generate" in preflight.stages:
        yield from _image_sets(preflight, readers[0])


def _readers(preflight: Preflight) -> list[PromptReader]:
    from promptecho.captions.checks import prompt_readers
    from promptecho.models.locate import use

    use(preflight.config)
    return prompt_readers(preflight.config)


def _captions(preflight: Preflight, readers: Sequence[PromptReader]) -> Iterator[Finding]:
    from promptecho.captions.checks import problems_of
    from promptecho.captions.merge import MergeSpec, import_prompts
    from promptecho.captions.settings import CaptionSettings
    from promptecho.captions.store import load_training_captions

    made = preflight.results / "captions/captions.h5"
    prompts = preflight.config.captions.prompts
    if not made.is_file() and prompts is None:
        told = "captions against context lengths and control tokens: there are none yet"
        yield unchecked(told, JOBS["train"], "look again when captions/captions.h5 is there; the merge looks, too")
        return
    try:
        if made.is_file():
            items = [(one.prompt_id, one.text) for one in load_training_captions(made)]
            if lines := problems_of(readers, items, made, "captions", quiet=True):
                yield problem(lines, JOBS["train"], FIX)
            else:
                yield fine(f"{made}: {len(items)} captions can be read by {_names(readers)}")
            return
        assert prompts is not None, "one of the two is there"
        captions, models = preflight.config.captions, preflight.config.models
        settings = CaptionSettings(captions, models.vlm, models.t2i)
        with tempfile.TemporaryDirectory(prefix="promptecho-doctor-") as folder:
            spec = MergeSpec(
                Path(folder, "captions.h5"), Path(folder, "heldout.jsonl"), captions.heldout, captions.max_words,
                captions.max_tokens, seed=captions.seed, readers=readers, family=settings.family, keeps_images=False,
                **settings.tokenizer(),  # type: ignore[arg-type]
            )  # fmt: skip
            summary = import_prompts(prompts, spec)
        cut = f", {summary['cut']} of them cut to length" if summary.get("cut") else ""
        yield fine(f"{prompts}: {summary['training']} prompts to train on{cut} can be read by {_names(readers)}")
    except PromptEchoError as error:
        yield problem(str(error), "captions (rule captions)", FIX)


def _image_sets(preflight: Preflight, reader: PromptReader) -> Iterator[Finding]:
    from promptecho.benchmarks.registry import load_layout
    from promptecho.captions.checks import problems_of
    from promptecho.captions.sources import check_sources, read_sources

    for name in {section.image_set: None for section in preflight.benchmarks.values()}:
        section = preflight.config.image_sets[name]
        path = Path(section.prompts or preflight.results / "prompts" / name / "metadata.jsonl")
        if not path.is_file():
            continue  # fetched or written by the workflow, or told by Snakemake
        told: str | None
        try:
            layout = load_layout(section.benchmark, path, path.parent, section.images_per_prompt)
            items = list(zip(layout.ids, layout.texts, strict=True))
            if benchmark_named(section.benchmark).takes_heldout:
                family = family_named(preflight.config.models.t2i.family)
                check_sources(family, layout.ids, read_sources(path, family), path)
            told = problems_of([reader], items, path, quiet=True)
        except PromptEchoError as error:
            told = f"image_sets.{name}: {error}"
        if told:
            yield problem(told, JOBS["generate"], FIX)
        else:
            yield fine(f"image_sets.{name}: {len(items)} prompts can be read by {reader.name}")


def _names(readers: Sequence[PromptReader]) -> str:
    return ", ".join(dict.fromkeys(reader.name for reader in readers))
