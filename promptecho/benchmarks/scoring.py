"""What every scorer has in common: images in, score items and raw answers out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from promptecho.errors import ConfigError, DataError
from promptecho.progress import progress
from promptecho.scores import ScoreItem

if TYPE_CHECKING:
    from promptecho.config.judges import JudgeSection
    from promptecho.judges.base import Answer, CallEstimate, Order, Question
    from promptecho.provenance import Limit

EntryT = TypeVar("EntryT")
Judged = tuple[ScoreItem, dict[str, Any]]


@dataclass(frozen=True)
class JudgeFacts:
    """What is known about a judge's answers: version -> how many it gave, why there are none -> how many, and order of
    the message's parts -> how many answers were given to it."""

    versions: dict[str, int]
    unanswered: dict[str, int]
    orders: dict[str, int]


@dataclass(frozen=True)
class Scored:
    """The judged images of a folder: items, one raw record each, the prompt set's digest, and name -> fraction.

    `parts` are what items consist of, where that has groups of its own; `judge` is there where one was asked; `limit`
    where not all prompts of the set were.
    """

    items: list[ScoreItem]
    raw: list[dict[str, Any]]
    prompts_digest: str
    summary: dict[str, float]
    parts: list[ScoreItem] = field(default_factory=list)
    judge: JudgeFacts | None = None
    limit: Limit | None = None


@dataclass(frozen=True)
class ScoringOptions:
    """How to score: what `benchmarks.NAME` of the configuration says, and where things are.

    `judge` answers where the backend is `judge`, and `answers` is the folder that keeps what it answered.
    `templates` is a folder whose BENCH/NAME.txt replace the project's own texts for the judge. `seed` decides what a
    scorer draws (the order of a pair). `model` is a model folder that replaces the backend's own. `parser` says how
    replies are read: see benchmarks/replies.py. `order` is that of a message's parts, where the authors' is known.
    `questions_per_call`: of one image, asked together. `outage_s` bounds the wait for an endpoint that answers
    nobody; with `again` questions that were given up before are asked once more in any case.
    """

    backend: str
    mode: str = "official"
    judge: JudgeSection | None = None
    answers: Path | None = None
    templates: Path | None = None
    seed: int = 0
    device: str = "cpu"
    model: str | None = None
    parser: str = "tolerant"
    order: Order = "images_first"
    questions_per_call: int = 1
    outage_s: float | None = None
    again: bool = False


@dataclass(frozen=True)
class ImageFolder:
    """Images to score. `prompts` None trusts the folder's own metadata, `images_per_prompt` None the most found;
    `baseline` is the folder of the images that they are compared with, for scorers of pairs. `limit`: only the first of
    `prompts` (limit.py), which must be given then; images of others may be there or not."""

    root: Path
    prompts: Path | None = None
    images_per_prompt: int | None = None
    baseline: Path | None = None
    limit: int | None = None


class Scorer(Protocol):
    """Scores a folder of images; built as `Scorer(options)`. `judge_model` names who looked, `template_digest` what a
    judge was asked.

    A scorer whose backend is a judge also has `estimate(folder) -> judges.base.CallEstimate`.
    """

    judge_model: str
    template_digest: str | None

    def score(self, folder: ImageFolder) -> Scored:
        """Judge all images.

        Raises:
            DataError: images are missing or not those of the prompt set, or every one failed.
        """
        ...


@runtime_checkable
class Estimating(Protocol):
    """A scorer that estimates the calls to its judge."""

    def estimate(self, folder: ImageFolder) -> CallEstimate: ...


class JudgeBackend:
    """The judge of `options`, for scorers whose backend is `judge`; `name` is what tables call it.

    Raises:
        ConfigError: the judge or the folder of its answers is not given.
    """

    def __init__(self, options: ScoringOptions):
        from promptecho.judges.names import judge_name

        if options.judge is None or options.answers is None:
            raise ConfigError(
                "backend judge: which one? set `judge:` to a key of `judges.models`, and give --config and --answers"
            )
        self._settings, self._folder, self._options = options.judge, options.answers, options
        self.name = judge_name(self._settings)
        self.facts: JudgeFacts | None = None  # of the last call of `ask`

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers, in the order of the questions; see `judges.ask.ask_all`."""
        from promptecho.judges.ask import BACKOFF, ask_all

        outage_s = self._options.outage_s
        backoff = BACKOFF if outage_s is None else replace(BACKOFF, outage_s=outage_s)
        answers = ask_all(self._settings, questions, self._folder, backoff=backoff, again=self._options.again)
        versions = Counter(one.model_version for one in answers if one.failure is None)
        failed = Counter(one.kind for one in answers if one.failure is not None)
        orders = Counter(one.message for one in answers if one.failure is None)
        self.facts = JudgeFacts(*(dict(sorted(counts.items())) for counts in (versions, failed, orders)))
        return answers

    def estimate(self, questions: Sequence[Question]) -> CallEstimate:
        """What `ask` would take now, without a call."""
        from promptecho.judges.ask import estimate

        return estimate(self._settings, questions, self._folder)


def judge_all(
    what: str, images: Path, entries: Sequence[EntryT], judge: Callable[[EntryT], Judged]
) -> tuple[list[ScoreItem], list[dict[str, Any]]]:
    """Judge every entry; its record has a `reason` where it failed.

    Raises:
        DataError: all failed, so that there is no score.
    """
    items, raw = [], []
    with progress(what, len(entries), "images") as bar:
        for entry in entries:
            item, record = judge(entry)
            items.append(item)
            raw.append(record)
            bar.advance()
    if all(item.failed for item in items):
        raise DataError(f"{images}: the backend failed on all {len(items)} images; the first time: {raw[0]['reason']}")
    return items, raw
