"""Labels for training on text rendering (paper, Appendix B.1 and B.2): what the reward model should read in an image.

A judge sorts the texts that a prompt requires by their role; the result, as JSON, is the answer whose likelihood the
reward measures, and `templates/query.txt` is the question that it answers (`rewards[].query`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, StrictStr

from promptecho.benchmarks.replies import read_object
from promptecho.benchmarks.templates import load_template
from promptecho.errors import DataError
from promptecho.files import write_jsonl

if TYPE_CHECKING:
    from promptecho.config.judges import JudgeSection
    from promptecho.judges.base import CallEstimate, Question

FIELDS = ("main_title", "subtitle", "selling_points", "other_text")
TEMPERATURE = 0.0  # B.1 tells none


class LabelReply(BaseModel):
    """What the judge answers."""

    model_config = ConfigDict(frozen=True)

    reasoning: StrictStr = Field(description="How the texts were found and sorted.")
    main_title: list[StrictStr] = Field(description="The headline, an entry for each line.")
    subtitle: list[StrictStr] = Field(description="What supports the headline.")
    selling_points: list[StrictStr] = Field(description="Advantages and phrases that advertise.")
    other_text: list[StrictStr] = Field(description="Any other text.")


@dataclass(frozen=True)
class Labelled:
    """How many labels were written, and prompt id -> reason of the prompts without one."""

    written: int
    failed: dict[str, str]


def canonical_label(fields: Mapping[str, Sequence[str]]) -> str:
    """The label that training uses, always in the same form: the four lists in the order of FIELDS and nothing else
    (`reasoning` is dropped), on one line with Python's own separators (", " and ": ", as in the query's example and as
    training writes a label that is a JSON value), characters as they are. Empty entries and white space at the ends go.

    Raises:
        DataError: a list is missing.
    """
    if absent := [name for name in FIELDS if name not in fields]:
        raise DataError(f"label: {absent[0]} is missing; give a list, [] where there is no such text")
    texts = {name: [text.strip() for text in fields[name] if text.strip()] for name in FIELDS}
    return json.dumps(texts, ensure_ascii=False)


def reward_query(templates: str | Path | None = None) -> str:
    """The question that the labels answer, for `rewards[].query`; `templates` is the user's folder.

    Raises:
        DataError: the user's template is faulty.
    """
    return load_template("textocr", "query", templates).fill()


def read_texts(path: str | Path) -> dict[str, str]:
    """Prompt id -> prompt of training prompts: `captions.h5` (what training really uses, cut and without the held-out
    ones), a file that `captions.prompts` takes, or a benchmark's prompt file.

    Raises:
        DataError: the file is missing, empty or faulty.
    """
    path = Path(path)
    if path.suffix.lower() == ".h5":
        from promptecho.captions.store import load_training_captions

        return {caption.prompt_id: caption.text for caption in load_training_captions(path)}
    from promptecho.captions.prompts import read_prompts

    return {row.image_id: row.caption for row in read_prompts(path)}


def questions_of(prompts: Mapping[str, str], templates: str | Path | None = None) -> list[Question]:
    """A question for each prompt; no image goes with it.

    Raises:
        DataError: the user's template is faulty.
    """
    from promptecho.judges.base import Question

    template = load_template("textocr", "label", templates)
    return [
        Question(
            id=f"prompt {name}",
            text=template.fill(prompt=text),
            images=(),
            parse=partial(read_object, model=LabelReply, optional=("reasoning",)),
            schema=LabelReply,
            template=template.digest,
            temperature=TEMPERATURE,
        )
        for name, text in prompts.items()
    ]


def estimate_labels(
    prompts: Mapping[str, str], settings: JudgeSection, folder: Path, templates: str | Path | None = None
) -> CallEstimate:
    """What `write_labels` would still ask."""
    from promptecho.judges.ask import estimate

    return estimate(settings, questions_of(prompts, templates), folder)


def failed_path(out: str | Path) -> Path:
    """Prompts without label beside a label file: NAME.jsonl -> NAME.failed.jsonl."""
    return Path(out).with_suffix(".failed.jsonl")


def write_labelled(prompts: Mapping[str, str], made: Labelled, out: str | Path) -> None:
    """Write the prompts that got a label as JSON Lines {data_id, caption}, which `captions.prompts` reads."""
    rows = [{"data_id": name, "caption": text} for name, text in prompts.items() if name not in made.failed]
    write_jsonl(out, rows)


def write_labels(
    prompts: Mapping[str, str],
    settings: JudgeSection,
    folder: Path,
    out: str | Path,
    templates: str | Path | None = None,
    *,
    outage_s: float | None = None,
) -> Labelled:
    """Have a judge make the labels and write them as JSON Lines {data_id, label}, which `rewards[].label` reads.

    Answers are recorded under `folder`, so that a second call asks only what is still open. Prompts without a label are
    listed beside `out`; training refuses to start without labels for all of its prompts, so leave them out there.

    Raises:
        JudgeError: more prompts than the settings allow stayed without label, or the budget is used up; nothing is
            written then.
        DataError: there are no prompts, every one failed, or the user's template is faulty.
    """
    from promptecho.judges.ask import BACKOFF, ask_all

    if not prompts:
        raise DataError(f"{out}: there are no prompts to label")
    backoff = BACKOFF if outage_s is None else replace(BACKOFF, outage_s=outage_s)
    answers = ask_all(settings, questions_of(prompts, templates), folder, backoff=backoff)
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for name, answer in zip(prompts, answers, strict=True):
        if answer.failure is not None:
            failed[name] = answer.failure
        else:
            rows.append({"data_id": name, "label": canonical_label(answer.value.model_dump())})
    if not rows:
        raise DataError(f"{out}: none of {len(failed)} prompts got a label; the first: {next(iter(failed.values()))}")
    write_jsonl(failed_path(out), [{"data_id": name, "reason": reason} for name, reason in failed.items()])
    write_jsonl(out, rows)
    return Labelled(len(rows), failed)
