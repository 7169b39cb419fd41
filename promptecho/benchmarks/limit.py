"""The first prompts of a set, for a smoke test: `benchmarks.NAME.limit`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from promptecho.provenance import Limit

P = TypeVar("P")


def first_places(
    prompts: Sequence[P], tag_of: Callable[[P], str], limit: int | None, last: Collection[int] = ()
) -> list[int]:
    """Places of the first `limit` prompts, stratified by tag, in the order of the set; None: of all.

    Each tag gets places in proportion to its prompts (Webster's method), at least one where there are enough, and of a
    tag the first prompts are taken. What a limit takes, every larger one takes too, so that raising it makes nothing
    again. The prompts at the places `last` are taken after all others.
    """
    if limit is None or limit >= len(prompts):
        return list(range(len(prompts)))
    tags = [tag_of(prompt) for prompt in prompts]
    sizes = Counter(tags)
    seen: defaultdict[str, int] = defaultdict(int)
    order = []
    for place, tag in enumerate(tags):
        nth = seen[tag]
        if place not in last:
            seen[tag] += 1
        order.append((place in last, nth > 0, (nth + 0.5) / sizes[tag], place))
    return sorted(place for *_, place in sorted(order)[:limit])


def first_prompts(
    prompts: Sequence[P] | None, tag_of: Callable[[P], str], limit: int | None, last: Collection[int] = ()
) -> tuple[list[P] | None, Limit | None]:
    """The prompts at `first_places`, and what scores record of it; None where that is all of them."""
    if prompts is None or limit is None or limit >= len(prompts):
        return None, None
    places = first_places(prompts, tag_of, limit, last)
    return [prompts[place] for place in places], Limit(prompts=limit, of=len(prompts))
