"""Prompts are checked before anything is spent on them: all that could not be used are named at once.

The merge checks what it writes, training (before it loads a model) its prompts, labels and held-out captions, and
generation the prompts of an image set. What each has to ask is in `captions/readers.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from promptecho.captions.readers import PromptReader, t2i_reader, vlm_readers
from promptecho.config import ExperimentConfig, reward_templates, reward_vlm, run_rewards, run_training
from promptecho.config.rewards import RewardSection, VlmSection
from promptecho.errors import ModelError, listed
from promptecho.progress import Progress
from promptecho.templates import Template

CHUNK = 2000  # texts between two looks at the clock


def faults(readers: Sequence[PromptReader], texts: Sequence[str], *, quiet: bool = False) -> dict[int, str]:
    """Index -> why that text cannot be used, by the first reader that cannot take it. Many texts show progress, unless
    `quiet`."""
    return _faults(readers, len(texts), lambda part: texts[part], quiet)


def _faults(
    readers: Sequence[PromptReader], total: int, texts: Callable[[slice], Sequence[str]], quiet: bool
) -> dict[int, str]:
    found: dict[int, str] = {}
    bar = Progress("check prompts", total, "prompts") if total > CHUNK and not quiet else None
    for start in range(0, total, CHUNK):
        chunk = texts(slice(start, start + CHUNK))
        for reader in readers:
            found = {start + index: problem for index, problem in reader.problems(chunk).items()} | found
        if bar is not None:
            bar.advance(len(chunk))
    return dict(sorted(found.items()))


def problems_of(
    readers: Sequence[PromptReader], items: Sequence[tuple[str, str]], where: str | Path, what: str = "prompts", *,
    quiet: bool = False,
) -> str | None:  # fmt: skip
    """A line for each of `items` (its name, its text) that cannot be used, `where` and their number in front; None
    where all can."""
    found = _faults(readers, len(items), lambda part: [text for _, text in items[part]], quiet)
    if not found:
        return None
    lines = [f"  {items[index][0]}: {problem}" for index, problem in found.items()]
    return f"{where}: {len(found)} of {len(items)} {what} cannot be used:\n{listed(lines, what)}"


def prompt_readers(config: ExperimentConfig) -> list[PromptReader]:
    """Whoever reads the training prompts of an experiment, as far as their files are on this machine; of a VLM that is
    not, a line says so: training looks again before it begins.

    Raises:
        ModelError: the text-to-image model's tokenizer cannot be loaded.
    """
    found = [t2i_reader(config.models.t2i)]
    for asked in _asked(config):
        found += available_readers(partial(vlm_readers, *asked))
    return found


def available_readers(load: Callable[[], list[PromptReader]]) -> list[PromptReader]:
    """What `load` finds; [] and a line where the model is not here."""
    try:
        return load()
    except ModelError as error:
        print(f"prompts are not checked against a VLM yet: {error}", file=sys.stderr, flush=True)
        return []


def run_readers(config: ExperimentConfig, run: str) -> list[list[PromptReader]]:
    """For each reward of `run`, who reads its label.

    Raises:
        ModelError: the VLM's processor cannot be loaded.
    """
    asked = list(zip(run_rewards(config, run), reward_templates(config, run), strict=True))
    size = run_training(config, run).size(config.models.t2i)
    sections = [reward_vlm(config, entry, run) for entry, _ in asked]
    found: list[list[PromptReader]] = [[] for _ in asked]
    for section in (one for index, one in enumerate(sections) if one is not None and one not in sections[:index]):
        mine = [index for index, one in enumerate(sections) if one == section]
        templated = [index for index in mine if asked[index][1] is not None]
        answered = [index for index in mine if _answers(*asked[index])]
        queries = [asked[index][0].query or config.captions.query for index in answered]
        templates = [(asked[index][1], _reply(asked[index][0])) for index in templated]
        if answered or templated:
            n_images = max(_images(config, asked[index][0]) for index in mine)
            readers = vlm_readers(section, size, queries, templates, n_images)
            for index, reader in zip([*answered, *templated], readers, strict=True):
                found[index] = [reader]
    return found


def _asked(config: ExperimentConfig) -> list[tuple[VlmSection, tuple[int, int], list[str], list, int]]:
    """The rewards' VLMs with the size of their images, each with the questions whose answer is a prompt, the templates
    that hold one, and how many images it sees together."""
    found: dict[tuple, tuple[VlmSection, tuple[int, int], list[str], list, int]] = {}
    for run in config.runs:
        size = run_training(config, run).size(config.models.t2i)
        for entry, template in zip(run_rewards(config, run), reward_templates(config, run), strict=True):
            if (section := reward_vlm(config, entry, run)) is None:
                continue
            n_images = _images(config, entry)
            key = (section.model_dump_json(), size, n_images)
            _, _, queries, templates, _ = found.setdefault(key, (section, size, [], [], n_images))
            if template is not None:
                if (template, _reply(entry)) not in templates:
                    templates.append((template, _reply(entry)))
            elif not _answers(entry, template):
                continue
            elif entry.label is None and (query := entry.query or config.captions.query) not in queries:
                queries.append(query)
    return [one for one in found.values() if one[2] or one[3]]


def _images(config: ExperimentConfig, entry: RewardSection) -> int:
    """How many images of a sample the reward's VLM sees together: the frames of a video."""
    frames = config.models.t2i.frames
    return min(frames, getattr(entry.options, "frames", None) or frames)


def _answers(entry: RewardSection, template: Template | None) -> bool:
    """Whether the VLM gets the label as its answer to a query."""
    return template is None and "query" in entry.reward.takes


def _reply(entry: RewardSection) -> int:
    """Tokens to keep free for a reply, or for the answer that the model is given."""
    return entry.options.max_new_tokens if entry.reward.writes else getattr(entry.options, "answer_tokens", 0)
