"""How much an image shows of what a caption of the gallery claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from promptecho.benchmarks.densealign.facts import Fulfilment
from promptecho.gallery.captions import DenseClaim
from promptecho.gallery.look_oracle import WELL_FORMED, DetectedThing, facts_shown, judge_dense


def fulfilment(claim: DenseClaim, found: Sequence[DetectedThing]) -> Fulfilment:
    """Count the facts of a claim that hold in an image, and the objects that it does not speak of.

    Facts: as `facts_shown` tells them of the whole objects. Extras: objects of a shape beyond those that the claim has
    of it, and malformed ones. An image that shows the claim exactly (judge_dense) shows all of its facts.
    """
    whole = [thing for thing in found if thing.score >= WELL_FORMED]
    facts = [shown for _, shown in facts_shown(claim, whole)]
    exact = judge_dense(claim, list(found))
    claimed: Counter[str] = Counter()
    for group in claim.groups:
        claimed[group.shape] += group.count
    further = Counter(thing.look.shape for thing in whole) - claimed
    extras = further.total() + len(found) - len(whole)
    return Fulfilment(exact, len(facts) if exact else sum(facts), -extras)
