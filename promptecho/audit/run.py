"""The audit: ask every candidate about all pairs and images, and put what comes out into one report."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import promptecho
from promptecho.audit import measures
from promptecho.audit.advice import advise
from promptecho.audit.cost import cost_of
from promptecho.audit.lengths import spearman
from promptecho.audit.material import SIDES, Ask, JudgedImage, Pairs, unique_asks
from promptecho.audit.rated import Candidate, Rated, RatedAll, Rater, changed_settings, model_of
from promptecho.audit.words import CaptionSignal, by_class, signal_of, word_table
from promptecho.errors import DataError, ModelError, PromptEchoError, RewardError
from promptecho.item_columns import LightItem

SCHEMA_VERSION = 1
HEATMAPS = 24  # captions shown word by word
DIGITS = 6


@dataclass(frozen=True)
class AuditPlan:
    """What is to be done: `candidates` to compare on `pairs` and `verdicts`, and again with images of other `scales`
    and in other `dtypes`, on the pairs of captions alone."""

    candidates: Sequence[Candidate]
    pairs: Pairs
    verdicts: Sequence[JudgedImage] = ()
    scales: Sequence[float] = ()
    dtypes: Sequence[str] = ()
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Found:
    """What one candidate said, and the items that follow."""

    candidate: Candidate
    rated: RatedAll
    items: dict[str, list[LightItem]]
    auc: list[LightItem]


def run_audit(plan: AuditPlan, rater: Rater) -> dict[str, Any]:
    """The report, as it is written to audit.json: a function of inputs and models, but for the seconds.

    Raises:
        DataError: there is nothing to ask about.
    """
    pairs = plan.pairs.pairs
    asks = unique_asks([[ask for pair in pairs for ask in (pair.true, pair.false)], [one.ask for one in plan.verdicts]])
    if not asks:
        reasons = f" (of {plan.pairs.n_captions} captions no fact could be changed)" if plan.pairs.n_captions else ""
        raise DataError(
            f"{plan.pairs.source or 'audit'}: nothing to ask a reward about{reasons}; give other captions or images"
        )
    text_pairs = [pair for pair in pairs if pair.side == "text"]
    text_asks = unique_asks([[ask for pair in text_pairs for ask in (pair.true, pair.false)]])
    answers, varied = _ask_all(plan, rater, asks, text_asks)
    found, told = [], []
    for place, (candidate, rated) in enumerate(zip(plan.candidates, answers, strict=True)):
        if isinstance(rated, str):
            told.append(_head(candidate, None) | {"failed": rated})
            found.append(_Found(candidate, RatedAll({}, 0.0), {side: [] for side in SIDES}, []))
            continue
        items = {
            side: measures.pair_items([pair for pair in pairs if pair.side == side], rated.by_ask) for side in SIDES
        }
        found.append(_Found(candidate, rated, items, measures.auc_items(plan.verdicts, rated.by_ask)))
        told.append(_head(candidate, rater.revision(candidate)) | _told(plan, found[-1], asks))
        told[-1]["sensitivity"] = [
            _sensitivity(what, name, text_pairs, rated, other) for what, name, other in varied[place]
        ] + _other_queries(found, place, text_pairs)
    evidence = (
        "auc" if any(one.auc for one in found) else "image" if any(one.items["image"] for one in found) else "text"
    )

    def differ(measure: str, i: int, j: int) -> dict | None:
        first, second = (one.auc if measure == "auc" else one.items[measure] for one in (found[i], found[j]))
        return measures.difference(first, second, by_kind=measure != "auc")

    return _rounded(
        {
            "schema_version": SCHEMA_VERSION, "package_version": promptecho.__version__, "settings": plan.settings,
            "captions": {
                "source": plan.pairs.source, "n": plan.pairs.n_captions, "pairs": len(pairs),
                "edits": {kind: dict(sorted(counts.items())) for kind, counts in sorted(plan.pairs.edits.items())},
            },
            "images": _images(plan.verdicts), "rewards_asked": len(asks), "candidates": told,
            "recommendation": advise(told, evidence, len(asks), differ),
        }
    )  # fmt: skip


def _ask_all(
    plan: AuditPlan, rater: Rater, asks: Sequence[Ask], text_asks: Sequence[Ask]
) -> tuple[list[RatedAll | str], list[list[tuple[str, str, RatedAll]]]]:
    """What each candidate said of `asks`, or why it could not be asked; and for each, what it said of `text_asks` in
    other ways. What needs the same model is asked together, so that each is loaded once.

    Raises:
        RewardError, ModelError, DataError: no candidate can be asked, for the reason of the first.
    """
    tasks: list[tuple[int, str, str, Candidate]] = [(i, "", "", one) for i, one in enumerate(plan.candidates)]
    if text_asks:
        tasks += [(i, *variant) for i, one in enumerate(plan.candidates) for variant in _variants(plan, one)]
    models = list(dict.fromkeys(model_of(one[-1]) for one in tasks))
    answers: list[RatedAll | str] = ["not asked" for _ in plan.candidates]
    varied: list[list[tuple[str, str, RatedAll]]] = [[] for _ in plan.candidates]
    failures: list[PromptEchoError] = []
    for place, what, name, candidate in sorted(tasks, key=lambda one: models.index(model_of(one[-1]))):
        try:
            if not what:
                answers[place] = rater.ask(candidate, asks)
            elif not isinstance(answers[place], str):
                varied[place].append((what, name, rater.ask(candidate, text_asks)))
        except (RewardError, ModelError, DataError) as error:
            told = " ".join(str(error).split())
            print(f"{candidate.label}{what and f' ({name})'}: cannot be asked: {told}", file=sys.stderr, flush=True)
            if not what:
                answers[place] = told
                failures.append(error)
    if len(failures) == len(plan.candidates):
        raise failures[0]
    return answers, varied


def _variants(plan: AuditPlan, candidate: Candidate) -> list[tuple[str, str, Candidate]]:
    """Kind, name and candidate of the ways in which one is asked once more."""
    found = [("size", f"images at {scale:g} of their size", candidate.with_scale(scale)) for scale in plan.scales]
    if candidate.vlm is not None:
        some = [dtype for dtype in plan.dtypes if dtype != candidate.dtype]
        found += [("dtype", dtype, candidate.with_dtype(dtype)) for dtype in some]
    return found


def _sensitivity(what: str, name: str, pairs: Sequence[Any], first: RatedAll, second: RatedAll) -> dict:
    """How another way of computing changes the order of true captions' rewards, and the pairs' accuracy."""
    trues = list(dict.fromkeys(pair.true for pair in pairs))
    both = [
        (first.by_ask[ask].reward, second.by_ask[ask].reward)
        for ask in trues
        if first.by_ask[ask].reward is not None and second.by_ask[ask].reward is not None
    ]
    items = [measures.pair_items(pairs, rated.by_ask) for rated in (first, second)]
    return {
        "what": what, "name": name, "order": spearman([a for a, _ in both], [b for _, b in both]),  # type: ignore[misc]
        "accuracy": measures.difference(*items),
    }  # fmt: skip


def _other_queries(found: Sequence[_Found], place: int, pairs: Sequence[Any]) -> list[dict]:
    """A candidate beside the first one that differs from it in the query alone."""
    own = found[place].candidate
    for other in found[:place]:
        before = other.candidate
        if replace(before, query=own.query) == own and pairs and other.rated.by_ask:
            return [_sensitivity("query", f'after "{before.query}"', pairs, other.rated, found[place].rated)]
    return []


def _head(candidate: Candidate, revision: str | None) -> dict[str, Any]:
    """What every candidate has in the report, also one that could not be asked."""
    return {
        "label": candidate.label, "reward": candidate.reward, "vlm": candidate.vlm, "revision": revision,
        "query": candidate.query, "dtype": candidate.dtype,
        "settings": {key: json.loads(value) for key, value in changed_settings(candidate.reward, candidate.options)},
        "failed": None, "missing": None, "pairs": {}, "auc": {}, "words": {}, "length": {}, "sensitivity": [],
        "cost": None,
    }  # fmt: skip


def _told(plan: AuditPlan, one: _Found, asks: Sequence[Ask]) -> dict[str, Any]:
    candidate, ratings = one.candidate, one.rated.by_ask
    signals = _signals(plan, ratings)
    return {
        "missing": sum(rated.reward is None for rated in ratings.values()),
        "pairs": {side: measures.accuracy(items) for side, items in one.items.items() if items},
        "auc": measures.auc(one.auc),
        "words": {
            name: {
                "captions": len(some), "classes": by_class(some), "table": word_table(some),
                "heatmaps": _heatmaps(some),
            }
            for name, some in signals.items() if some
        },
        "length": _length(plan, ratings),
        "cost": cost_of(candidate, asks, one.rated),
    }  # fmt: skip


def _signals(plan: AuditPlan, ratings: dict[Ask, Rated]) -> dict[str, list[CaptionSignal]]:
    """Signal of words between images with better and worse verdicts, and between a caption's own image and changed
    ones; nothing where a reward tells of no tokens."""

    def signals(groups: dict[Any, tuple[list[Ask], list[Ask]]]) -> list[CaptionSignal]:
        made = []
        for good, bad in groups.values():
            if good and bad and all(ratings[ask].words for ask in (*good, *bad)):
                ask = good[0]
                made.append(
                    signal_of(
                        ask.prompt_id, ask.text, [ratings[a].words for a in good], [ratings[a].words for a in bad]
                    )
                )
        return made

    judged: dict[Any, tuple[list[Ask], list[Ask]]] = {}
    by_prompt: dict[Any, list[JudgedImage]] = defaultdict(list)
    for verdict in plan.verdicts:
        by_prompt[verdict.ask.prompt_id, verdict.ask.text].append(verdict)
    for key, some in by_prompt.items():
        middle = float(np.mean([one.outcome for one in some]))
        judged[key] = ([o.ask for o in some if o.outcome > middle], [o.ask for o in some if o.outcome < middle])
    changed: dict[Any, tuple[list[Ask], list[Ask]]] = {}
    for pair in plan.pairs.pairs:
        if pair.side == "image":
            changed.setdefault(pair.true, ([pair.true], []))[1].append(pair.false)
    return {"right and wrong images": signals(judged), "own and changed image": signals(changed)}


def _heatmaps(signals: Sequence[CaptionSignal]) -> list[dict]:
    """Captions spread evenly over all."""
    step = max(1, len(signals) // HEATMAPS)
    some = signals[::step][:HEATMAPS]
    return [{"prompt_id": one.prompt_id, "words": list(one.words), "signals": list(one.signals)} for one in some]


def _length(plan: AuditPlan, ratings: dict[Ask, Rated]) -> dict[str, dict]:
    """Rank correlation of rewards with the number of words: over true captions on their images, and over the images of
    a model with their verdicts given, a value for each prompt."""
    found = {}
    trues = list(dict.fromkeys(pair.true for pair in plan.pairs.pairs))
    rows = [(ratings[ask].reward, len(ask.text.split())) for ask in trues if ratings[ask].reward is not None]
    if rows:
        found["true captions"] = spearman(*map(list, zip(*rows, strict=True)))
    by_prompt: dict[str, list[JudgedImage]] = defaultdict(list)
    for verdict in plan.verdicts:
        if ratings[verdict.ask].reward is not None:
            by_prompt[verdict.ask.prompt_id].append(verdict)
    if by_prompt:
        some = [by_prompt[key] for key in sorted(by_prompt)]
        rewards = [float(np.mean([ratings[one.ask].reward for one in group])) for group in some]
        lengths = [len(group[0].ask.text.split()) for group in some]
        found["images, given their verdicts"] = spearman(
            rewards, lengths, [float(np.mean([one.outcome for one in group])) for group in some]
        )
    return found


def _images(verdicts: Sequence[JudgedImage]) -> list[dict]:
    rows: dict[tuple[str, str], list[JudgedImage]] = defaultdict(list)
    for one in verdicts:
        rows[one.benchmark, one.checkpoint].append(one)
    return [
        {
            "benchmark": benchmark, "checkpoint": checkpoint, "images": len(some),
            "prompts": len({one.ask.prompt_id for one in some}),
            "mean_verdict": float(np.mean([one.outcome for one in some])),
        }
        for (benchmark, checkpoint), some in rows.items()
    ]  # fmt: skip


def _rounded(value: Any) -> Any:
    """Numbers of few digits, so that a last bit changes no file."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value
