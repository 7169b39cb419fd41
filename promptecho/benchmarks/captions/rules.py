"""Whether an image fulfils its caption's claim: pure functions of caption and what the oracle read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from promptecho.errors import DataError
from promptecho.shapes.grammar import Claim, parse
from promptecho.shapes.oracle import WELL_FORMED, DetectedShape, judge
from promptecho.shapes.world import KINDS

OTHER = "other"  # captions without a claim of the four kinds
GROUPS = (*KINDS, OTHER)


@dataclass(frozen=True)
class CaptionVerdict:
    """`reason` says what a wrong image shows; empty for a right one."""

    correct: bool
    reason: str


def claim_of(caption: str) -> Claim:
    """What a caption claims, if it can be judged.

    Raises:
        DataError: the caption is not in the language of shapes, names one thing twice, or relates groups of several,
            for which there is no rule.
    """
    claim = parse(caption)
    if claim.relation and any(group.count != 1 for group in claim.groups):
        raise DataError(f"caption {caption!r}: a relation between several objects has no rule")
    for index, group in enumerate(claim.groups):
        for other in claim.groups[:index]:
            if group.shape == other.shape and (group.color == other.color or None in (group.color, other.color)):
                raise DataError(f"caption {caption!r}: names {group.shape} twice, so that it is not clear how many")
    return claim


def group_of(claim: Claim) -> str:
    """The benchmark's group: the claim's kind, or `other` for a claim of no object."""
    return claim.kind if claim.groups else OTHER


def evaluate(claim: Claim, detections: list[DetectedShape]) -> CaptionVerdict:
    """Judge an image: exactly the objects claimed and no others, in the relation claimed (shapes.oracle.judge)."""
    if judge(claim, detections):
        return CaptionVerdict(True, "")
    seen = Counter(f"{d.color} {d.shape}" + (" (malformed)" if d.score < WELL_FORMED else "") for d in detections)
    shown = ", ".join(f"{count} {what}" for what, count in sorted(seen.items())) or "nothing"
    only_misplaced = claim.relation and judge(Claim(claim.groups), detections)
    where = f", not {claim.relation}" if only_misplaced else ""
    return CaptionVerdict(False, f"shows {shown}{where}")
