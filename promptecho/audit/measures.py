"""How often the true one wins, and how well a reward tells right images from wrong ones of the same prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

from promptecho.audit.material import Ask, FactPair, JudgedImage
from promptecho.audit.rated import Rated
from promptecho.item_columns import LightItem
from promptecho.statistics import Difference, Estimate, mean_of_group_means, paired_difference

TIE = 1e-6  # rewards as close as this are equal: float32 tells no more
Ratings = Mapping[Ask, Rated]


def outcome(first: float | None, second: float | None) -> float | None:
    """1 where the first is higher, 0 where the second is, a half for a tie, None where one is missing."""
    if first is None or second is None:
        return None
    return 0.5 if abs(first - second) <= TIE else float(first > second)


def pair_items(pairs: Sequence[FactPair], ratings: Ratings) -> list[LightItem]:
    """An item for each pair, its kind as group: 1 where the true one wins."""
    found = []
    for index, pair in enumerate(pairs):
        value = outcome(ratings[pair.true].reward, ratings[pair.false].reward)
        found.append(LightItem(pair.true.prompt_id, index, pair.kind, value, value is None))
    return found


def accuracy(items: Sequence[LightItem]) -> dict:
    """Overall (mean of the kinds) and by kind: value, 95 % interval, pairs, ties, and pairs without a reward.

    The intervals are Wilson's at the effective number of pairs (intervals.py); for the pairs of one kind, each of a
    caption of its own, that is their number.
    """
    judged = {item.group for item in items if not item.failed}
    kinds: dict[str, dict] = {}
    for kind in sorted({item.group for item in items}):
        some = [item for item in items if item.group == kind]
        counts = {
            "ties": sum(item.outcome == 0.5 for item in some),
            "missing": sum(item.failed for item in some),
        }
        estimate = mean_of_group_means(some, ungrouped=True)[0] if kind in judged else None  # type: ignore[arg-type]
        kinds[kind] = _told(estimate) | counts
    rest = [item for item in items if item.group in judged]
    overall = mean_of_group_means(rest)[0] if rest else None  # type: ignore[arg-type]
    totals = {key: sum(one[key] for one in kinds.values()) for key in ("ties", "missing")}
    return {"overall": _told(overall) | totals, "kinds": kinds}


def _told(estimate: Estimate | None) -> dict:
    if estimate is None:
        return {"value": None, "low": None, "high": None, "n": 0}
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n_items}


def auc_items(verdicts: Sequence[JudgedImage], ratings: Ratings) -> list[LightItem]:
    """An item for each two images of one prompt with different verdicts: 1 where the better one has the higher reward.

    Images of all checkpoints of one benchmark count as images of the prompt.
    """
    by_prompt: dict[tuple[str, str], list[JudgedImage]] = defaultdict(list)
    for verdict in verdicts:
        by_prompt[verdict.benchmark, verdict.ask.prompt_id].append(verdict)
    found = []
    for (benchmark, prompt_id), some in sorted(by_prompt.items()):
        index = 0
        for a, b in combinations(some, 2):
            if a.outcome == b.outcome:
                continue
            better, worse = (a, b) if a.outcome > b.outcome else (b, a)
            value = outcome(ratings[better.ask].reward, ratings[worse.ask].reward)
            found.append(LightItem(prompt_id, index, benchmark, value, value is None))
            index += 1
    return found


def auc(items: Sequence[LightItem]) -> dict:
    """Within-prompt AUC by benchmark and over all: the share of pairs in which the better image has the higher reward,
    with an interval that counts prompts as random (intervals.py), the pairs and the prompts."""
    judged = [item for item in items if not item.failed]
    result = {}
    for name in [*sorted({item.group for item in judged}), "all"]:
        some = [item for item in judged if name in (item.group, "all")]
        if some:
            estimate = mean_of_group_means(some, ungrouped=True)[0]  # type: ignore[arg-type]
            ties = sum(item.outcome == 0.5 for item in some)
            result[name] = _told(estimate) | {"prompts": estimate.n_prompts, "ties": ties}
    return result


def difference(first: Sequence[LightItem], second: Sequence[LightItem], *, by_kind: bool = True) -> dict | None:
    """Second less first over the same items, with a 95 % interval; None where no item has both.

    `by_kind`: the mean of the groups' differences, as `accuracy` has it; else that over all items.
    """
    both = [(a, b) for a, b in zip(first, second, strict=True) if not a.failed and not b.failed]
    if not both:
        return None
    left, right = [a for a, _ in both], [b for _, b in both]
    found: Difference = paired_difference(left, right, ungrouped=not by_kind, resamples=1)  # type: ignore[arg-type]
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n_items}
