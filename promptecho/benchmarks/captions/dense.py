"""The same for captions of the gallery, of one and more clauses; and which of a caption's facts an image shows."""

from __future__ import annotations

from collections import Counter

from PIL import Image

from promptecho.benchmarks.captions.rules import OTHER, CaptionVerdict
from promptecho.errors import DataError
from promptecho.gallery.captions import DenseClaim, parse_dense
from promptecho.gallery.look_oracle import WELL_FORMED, DetectedThing, detect_things, facts_shown, judge_dense
from promptecho.shapes.world import RELATIONS

CLAUSES = ("one", "two", "three", "more")  # groups of captions, by how many clauses they have
FACTS = ("object", "count", "color", "size", "texture", "relation", "negation")


class SceneReader:
    """The oracle of the gallery's scenes."""

    name = "the gallery's oracle"

    def __call__(self, image: Image.Image) -> list[DetectedThing]:
        return detect_things(image)


def claim_of(caption: str) -> DenseClaim:
    """What a caption claims, if it can be judged.

    Raises:
        DataError: the caption is not in the gallery's language, or two of its phrases may mean the same objects.
    """
    claim = parse_dense(caption)
    for index, group in enumerate(claim.groups):
        for other in claim.groups[:index]:
            open_ = all(None in (a, b) or a == b for a, b in ((group.color, other.color), (group.size, other.size)))
            if group.shape == other.shape and open_ and group.texture == other.texture:
                raise DataError(f"caption {caption!r}: names {group.shape} twice, so that it is not clear how many")
    return claim


def group_of(claim: DenseClaim) -> str:
    """The benchmark's group: how many clauses the claim has; `other` for a claim of no object."""
    return CLAUSES[min(claim.clauses, len(CLAUSES)) - 1] if claim.groups else OTHER


def evaluate(claim: DenseClaim, found: list[DetectedThing]) -> CaptionVerdict:
    """Judge an image: exactly the objects claimed and no others, where they are claimed to be."""
    if judge_dense(claim, found):
        return CaptionVerdict(True, "")
    seen = Counter(_told(thing) for thing in found)
    shown = ", ".join(f"{count} {what}" for what, count in sorted(seen.items())) or "nothing"
    wrong = ", ".join(dict.fromkeys(kind for kind, there in facts_of(claim, found) if not there))
    return CaptionVerdict(False, f"shows {shown}" + (f"; wrong: {wrong}" if wrong else ""))


def facts_of(claim: DenseClaim, found: list[DetectedThing]) -> list[tuple[str, bool]]:
    """Each fact of a claim, by its kind in `FACTS`, and whether an image shows it."""
    return [("relation" if kind in RELATIONS else kind, there) for kind, there in facts_shown(claim, found)]


def _told(thing: DetectedThing) -> str:
    look = thing.look
    words = [look.size if look.size != "medium" else "", look.texture if look.texture != "plain" else ""]
    broken = " (malformed)" if thing.score < WELL_FORMED else ""
    return " ".join(word for word in (*words, look.color, look.shape) if word) + broken
