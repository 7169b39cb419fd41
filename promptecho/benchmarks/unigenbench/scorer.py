"""UniGenBench from a folder of images to score items, one for each test point of each image.

An item's group is a dimension; where that has parts, the same test point is a part too, whose group is the
sub-dimension. Its image_index is STRIDE times the image's, and the place of the test point in the prompt. All test
points of an image without an answer are failed items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from promptecho.benchmarks.limit import first_prompts
from promptecho.benchmarks.listing import prompts_digest
from promptecho.benchmarks.scoring import ImageFolder, JudgeBackend, Scored, ScoringOptions
from promptecho.benchmarks.unigenbench.dimensions import PARTS, dimension_of
from promptecho.benchmarks.unigenbench.judge import load_wordings, question_of
from promptecho.benchmarks.unigenbench.layout import UnigenbenchImage, list_images
from promptecho.benchmarks.unigenbench.oracle import PointOracle, load_oracle
from promptecho.benchmarks.unigenbench.prompts import MOST_POINTS, read_prompts, tag_of
from promptecho.benchmarks.unigenbench.rules import accuracies
from promptecho.errors import ConfigError, DataError
from promptecho.files import digest
from promptecho.images import load_image
from promptecho.judges.base import CallEstimate, Question
from promptecho.progress import progress
from promptecho.provenance import Limit
from promptecho.scores import ScoreItem

STRIDE = MOST_POINTS


def record_of(entry: UnigenbenchImage, scores: Sequence[int] | None, reason: str = "", **more: Any) -> dict[str, Any]:
    """The raw record of one image: all that its items need. `scores` None: there are none, and `reason` says why."""
    told = [None] * len(entry.prompt.points) if scores is None else [score == 1 for score in scores]
    points = [
        {"subdimension": point.subdimension, "description": point.description, "right": right}
        for point, right in zip(entry.prompt.points, told, strict=True)
    ]
    return {
        "prompt_id": entry.prompt.data_id,
        "image_index": entry.image_index,
        "prompt": entry.prompt.prompt,
        "filename": entry.path.name,
        "points": points,
        "failed": scores is None,
        "reason": reason,
        **more,
    }


def items_of(raw: Sequence[Mapping[str, Any]]) -> tuple[list[ScoreItem], list[ScoreItem]]:
    """The score items of raw records, and their parts."""
    items, parts = [], []
    for record in raw:
        for place, point in enumerate(record["points"]):
            right, subdimension = point["right"], point["subdimension"]
            said: dict[str, Any] = {
                "prompt_id": record["prompt_id"],
                "image_index": STRIDE * record["image_index"] + place,
                "outcome": None if right is None else float(right),
                "failed": right is None,
            }
            items.append(ScoreItem(**said, group=dimension_of(subdimension)))
            if subdimension in PARTS:
                parts.append(ScoreItem(**said, group=subdimension))
    return items, parts


def summary_of(raw: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The summary of raw records (rules.accuracies); failed ones leave the denominators."""
    points = (point for record in raw for point in record["points"] if point["right"] is not None)
    return accuracies((point["subdimension"], float(point["right"])) for point in points)


def verdicts(items: Sequence[ScoreItem]) -> dict[tuple[str, int], float | None]:
    """Of each image: the share of its test points that are right; None where none was judged."""
    found: dict[tuple[str, int], list[float]] = {}
    for item in items:
        about = found.setdefault((item.prompt_id, item.image_index // STRIDE), [])
        about += [] if item.outcome is None else [item.outcome]
    return {key: sum(about) / len(about) if about else None for key, about in found.items()}


class UnigenbenchScorer:
    """`Scorer` by UniGenBench's rules. Backends: `judge`, a model that is asked about all test points of an image in
    one call; `oracle` and `gallery`, for prompts over an embedded world."""

    template_digest: str | None = None

    def __init__(self, options: ScoringOptions):
        if options.mode != "official":
            raise ConfigError(f"mode {options.mode!r}: UniGenBench++ has only 'official'; set mode: official")
        self._options = options
        self._oracle: PointOracle | None = None
        if options.backend != "judge":
            self._oracle = load_oracle(options.backend)
            self.judge_model = self._oracle.name
            return
        self._judge = JudgeBackend(options)
        self._wordings = load_wordings(options.templates)
        self.judge_model = self._judge.name
        self.template_digest = digest([wording.digest for wording in self._wordings.values()])

    def score(self, folder: ImageFolder) -> Scored:
        entries, limit = self._list(folder)
        raw = self._look(self._oracle, entries) if self._oracle else self._ask(entries)
        if all(record["failed"] for record in raw):
            reason = raw[0]["reason"]
            raise DataError(f"{folder.root}: no answer about any of {len(raw)} images; the first time: {reason}")
        items, parts = items_of(raw)
        digest_of_prompts = prompts_digest(list(dict.fromkeys(entry.prompt for entry in entries)))
        facts = None if self._oracle else self._judge.facts
        return Scored(items, raw, digest_of_prompts, summary_of(raw), parts, judge=facts, limit=limit)

    def estimate(self, folder: ImageFolder) -> CallEstimate:
        """What asking the judge would take.

        Raises:
            ConfigError: the backend is no judge.
        """
        if self._oracle:
            raise ConfigError(f"backend {self._oracle.name}: asks no judge, so that there is nothing to estimate")
        return self._judge.estimate(self._questions(self._list(folder)[0]))

    def _list(self, folder: ImageFolder) -> tuple[list[UnigenbenchImage], Limit | None]:
        prompts = read_prompts(folder.prompts) if folder.prompts else None
        only, limit = first_prompts(prompts, tag_of, folder.limit)
        return list_images(folder.root, prompts, folder.images_per_prompt, only), limit

    def _look(self, oracle: PointOracle, entries: Sequence[UnigenbenchImage]) -> list[dict[str, Any]]:
        raw = []
        with progress("UniGenBench++", len(entries), "images") as bar:
            for entry in entries:
                try:
                    image = load_image(entry.path, fix="delete it and rerun the generation")
                except DataError as error:
                    raw.append(record_of(entry, None, str(error)))
                else:
                    raw.append(record_of(entry, oracle.scores(image, entry.prompt.points)))
                bar.advance()
        return raw

    def _questions(self, entries: Sequence[UnigenbenchImage]) -> list[Question]:
        how = (self._options.parser, self._options.order)
        return [question_of(entry, self._wordings[entry.prompt.language], *how) for entry in entries]

    def _ask(self, entries: Sequence[UnigenbenchImage]) -> list[dict[str, Any]]:
        answers = self._judge.ask(self._questions(entries))
        return [
            record_of(entry, None if found.failure else found.value, found.failure or "", **found.record())
            for entry, found in zip(entries, answers, strict=True)
        ]
