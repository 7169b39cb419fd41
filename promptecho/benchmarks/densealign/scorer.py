"""From two folders of images to score items: which image of a pair follows the caption better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from promptecho.benchmarks.backends import READERS
from promptecho.benchmarks.captions.scorer import GALLERY, CaptionRules, reader_and_rules
from promptecho.benchmarks.densealign import reply
from promptecho.benchmarks.densealign.bias import analyse_position, comparisons_of
from promptecho.benchmarks.densealign.facts import Fulfilment, compare, fulfilment
from promptecho.benchmarks.densealign.pairs import ImagePair, list_pairs
from promptecho.benchmarks.densealign.rules import is_swapped, outcome_of, rates
from promptecho.benchmarks.listing import prompts_digest
from promptecho.benchmarks.perception import ObjectReader, PerceptionFailure
from promptecho.benchmarks.scoring import ImageFolder, JudgeBackend, Judged, Scored, ScoringOptions, judge_all
from promptecho.benchmarks.templates import load_template
from promptecho.errors import ConfigError, DataError, ModelError
from promptecho.images import load_image
from promptecho.scores import ScoreItem
from promptecho.templates import Template

if TYPE_CHECKING:
    from promptecho.judges.base import Answer, CallEstimate, Order, Question

GROUP = "all"  # a comparison has no sub-task
JUDGE = "judge"
TEMPERATURE = 0.3  # paper 4.2.1
WORLDS = (*READERS, GALLERY)  # backends that read images of an embedded world
LABELS = ("**Image A:**", "**Image B:**")  # the authors' evaluator, before each image


def _begin(pair: ImagePair, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The key of a pair's item, and how its raw record starts."""
    key = {"prompt_id": pair.prompt.data_id, "image_index": pair.image_index, "group": GROUP}
    swapped = is_swapped(seed, pair.prompt.data_id, pair.image_index)
    files = {"candidate": pair.candidate.name, "baseline": pair.baseline.name}
    return key, {**key, "caption": pair.prompt.caption, **files, "swapped": swapped}


def _end(key: dict[str, Any], record: dict[str, Any], preference: str, reason: str) -> Judged:
    outcome = outcome_of(preference, record["swapped"])
    verdict = {"preference": preference, "reason": reason, "outcome": outcome, "failed": False}
    return ScoreItem(**key, outcome=float(outcome), failed=False), record | verdict


def _fail(key: dict[str, Any], record: dict[str, Any], reason: str) -> Judged:
    verdict = {"preference": None, "reason": reason, "outcome": None, "failed": True}
    return ScoreItem(**key, outcome=None, failed=True), record | verdict


def question_of(
    pair: ImagePair, template: Template, seed: int, parser: str = "tolerant", order: Order = "images_first"
) -> Question:
    """The question about a pair: the image shown first is Image A."""
    from promptecho.judges.base import Question

    images = (pair.candidate, pair.baseline)
    return Question(
        id=f"prompt {pair.prompt.data_id}, image {pair.image_index}",
        text=template.fill(prompt=pair.prompt.caption),
        images=images[::-1] if is_swapped(seed, pair.prompt.data_id, pair.image_index) else images,
        parse=reply.parse if parser == "official" else reply.read,
        schema=reply.Comparison,
        template=template.digest,
        temperature=TEMPERATURE,
        order=order,
        labels=LABELS if order == "official" else (),
        image_format="jpeg" if order == "official" else "png",
    )


def judged_by_model(entry: tuple[ImagePair, Answer], seed: int) -> Judged:
    """A pair's item and raw record from a judge's answer; one without value is a failed item."""
    pair, answer = entry
    key, record = _begin(pair, seed)
    record |= answer.record()
    if answer.failure is not None:
        return _fail(key, record, answer.failure)
    return _end(key, record, answer.value.preference, answer.value.reasoning)


@dataclass(frozen=True)
class FactReader:
    """What tells how much of a caption of an embedded world an image shows: `fulfilment` of a claim and the objects."""

    reader: ObjectReader
    rules: CaptionRules
    fulfilment: Callable[[Any, Sequence[Any]], Fulfilment]


def load_fact_reader(backend: str) -> FactReader:
    """That of a backend.

    Raises:
        ModelError: the name is unknown.
    """
    reader, rules = reader_and_rules(backend)
    if backend == GALLERY:
        from promptecho.benchmarks.densealign import dense

        return FactReader(reader, rules, dense.fulfilment)
    return FactReader(reader, rules, fulfilment)


def judged_by_reader(pair: ImagePair, facts: FactReader, seed: int) -> Judged:
    """A pair's item and raw record from the objects that are read in its images.

    A caption that cannot be judged, an image that cannot be decoded and a reader without answer are failed items.
    """
    key, record = _begin(pair, seed)
    try:
        claim = facts.rules.claim_of(pair.prompt.caption)
        files = {"candidate": pair.candidate, "baseline": pair.baseline}
        objects = {
            side: facts.reader(load_image(path, fix="delete it and rerun the generation"))
            for side, path in files.items()
        }
    except (DataError, PerceptionFailure) as failure:
        return _fail(key, record, str(failure))
    record["objects"] = {side: [asdict(d) for d in found] for side, found in objects.items()}
    shown = (objects["baseline"], objects["candidate"]) if record["swapped"] else tuple(objects.values())
    grades = [facts.fulfilment(claim, found) for found in shown]
    told = [
        f"image {name}: {g.facts} of the caption's facts, {g.extras} further objects" + (", exact" if g.exact else "")
        for name, g in zip("AB", grades, strict=True)
    ]
    return _end(key, record, compare(*grades), "; ".join(told))


def summary_of(raw: Sequence[dict[str, Any]], where: str = "raw records") -> dict[str, float]:
    """The summary of raw records; failed ones leave the denominators.

    Names: overall = net (wins - losses) / n, net, win, tie, loss; and where they are defined first_position_rate and
    position_bias_p (bias.analyse_position).

    Raises:
        DataError: a record is none of a comparison, or all failed.
    """
    comparisons = comparisons_of(raw, where)
    shares = rates([outcome for _, outcome in comparisons])
    position = analyse_position(comparisons)
    bias = {"first_position_rate": position["first_position_rate"], "position_bias_p": position["p_value"]}
    return {"overall": shares["net"], **shares, **{name: value for name, value in bias.items() if value is not None}}


class DenseAlignScorer:
    """`Scorer` of pairs: `folder.root` holds the candidate's images, `folder.baseline` those compared with.

    Backend `judge`: a vision-language model looks at both images. Backends `oracle` (shapes) and `gallery`: in an
    embedded world, the image that shows more of its caption's facts wins. An item's outcome is 1 (win), 0 (tie) or -1
    (loss), its mean is net.

    Two settings are published, and both are settings of image set and judge here:

    - the paper: 50 sampling steps; Gemini-3-flash-preview at temperature 0.3; order swapped with probability 0.5. The
      format of images, seeds, retries and unusable replies are not published.
    - the authors' scripts: 30 sampling steps; gemini-2.0-flash through Gemini's OpenAI-compatible endpoint at
      temperature 0.3; images sent as JPEG of quality 95; another wording of the same questions. Pairs without a usable
      reply after 3 attempts are dropped, ids that only one folder holds too.

    Deviations: a pair without usable reply is a failed item, folders must hold the same ids, the order is fixed by the
    seed. With `order: images_first` both images come before the text, which says which is which.
    """

    template_digest: str | None = None

    def __init__(self, options: ScoringOptions):
        """
        Raises:
            ConfigError: a mode but "official" (there are no rules with a bug), or no judge for the backend `judge`.
            ModelError: the backend is unknown.
            DataError: the user's template is faulty.
        """
        if options.mode != "official":
            raise ConfigError(f"mode {options.mode!r}: densealign has only 'official'; set mode: official")
        self._seed, self._options = options.seed, options
        self._facts: FactReader | None = None
        if options.backend == JUDGE:
            self._judge = JudgeBackend(options)
            self._template = load_template("densealign", "pairwise", options.templates)
            self._template.fill(prompt="")  # a faulty one is reported before any image is read
            self.judge_model, self.template_digest = self._judge.name, self._template.digest
        elif options.backend in WORLDS:
            self._facts = load_fact_reader(options.backend)
            self.judge_model = self._facts.reader.name
        else:
            known = ", ".join(sorted([JUDGE, *WORLDS]))
            raise ModelError(f"backend {options.backend!r} is unknown; known backends: {known}")

    def _questions(self, pairs: Sequence[ImagePair]) -> list[Question]:
        how = (self._seed, self._options.parser, self._options.order)
        return [question_of(pair, self._template, *how) for pair in pairs]

    def estimate(self, folder: ImageFolder) -> CallEstimate:
        """Calls that the judge would need; none for other backends.

        Raises:
            ConfigError, DataError: as list_pairs.
        """
        from promptecho.judges.base import CallEstimate

        pairs, _ = list_pairs(folder)
        if self._facts is not None:
            return CallEstimate(calls=0, recorded=0, input_tokens=0, output_tokens=0, usd=0.0)
        return self._judge.estimate(self._questions(pairs))

    def score(self, folder: ImageFolder) -> Scored:
        """Compare all pairs.

        Raises:
            ConfigError, DataError: as list_pairs, or every comparison failed.
            JudgeError: more questions than allowed stayed without answer, or the budget is used up.
        """
        pairs, limit = list_pairs(folder)
        if self._facts is not None:
            judge = partial(judged_by_reader, facts=self._facts, seed=self._seed)
            items, raw = judge_all("DenseAlign", folder.root, pairs, judge)
        else:
            answers = self._judge.ask(self._questions(pairs))
            judge = partial(judged_by_model, seed=self._seed)
            items, raw = judge_all("DenseAlign", folder.root, list(zip(pairs, answers, strict=True)), judge)
        prompts = prompts_digest(list(dict.fromkeys(pair.prompt for pair in pairs)))
        facts = None if self._facts else self._judge.facts
        return Scored(items, raw, prompts, summary_of(raw), judge=facts, limit=limit)
