"""What rewards are asked about: images, texts, pairs in which one of two is true, and images with verdicts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from PIL import Image

from promptecho.archives import ImageFile

SIDES = ("text", "image")  # what differs between the two of a pair


@dataclass(frozen=True, eq=False)
class AuditImage:
    """An image, equal to itself alone, with a name that stays the same wherever it lies.

    `source` is what it was rendered to, or its file.
    """

    name: str
    source: Image.Image | ImageFile

    def open(self) -> Image.Image:
        """The image, RGB; `info["path"]` is its name, on which sampled replies depend.

        Raises:
            DataError: the file is no image, or a video.
        """
        from promptecho.images import load_image
        from promptecho.video import refuse_video

        if isinstance(self.source, Image.Image):
            image = self.source.copy()
        else:
            refuse_video(self.source, "the audit")
            image = load_image(self.source)
        image.info["path"] = self.name
        return image

    @cached_property
    def digest(self) -> str:
        """Of its content."""
        if isinstance(self.source, Image.Image):
            data = repr(self.source.size).encode() + self.source.tobytes()
        else:
            data = self.source.read_bytes()
        return hashlib.sha256(data).hexdigest()[:16]


@dataclass(frozen=True)
class Ask:
    """One reward to compute: how well does `image` fit `text`?"""

    prompt_id: str
    image: AuditImage
    text: str


@dataclass(frozen=True)
class FactPair:
    """`true` fits and `false` has one fact wrong; they differ in the text or in the image (`side`)."""

    kind: str
    side: str
    true: Ask
    false: Ask


@dataclass(frozen=True)
class JudgedImage:
    """An image of a text-to-image model, and what a scorer said of it: from 0 (wrong) to 1 (right)."""

    benchmark: str
    checkpoint: str
    ask: Ask
    image_index: int
    outcome: float


@dataclass
class Pairs:
    """Pairs, and for each kind how many captions it was made of and why not of others."""

    pairs: list[FactPair] = field(default_factory=list)
    edits: dict[str, Counter[str]] = field(default_factory=dict)
    n_captions: int = 0
    source: str = ""

    def count(self, kind: str, what: str) -> None:
        """One caption more: `made`, or the reason why no edit was made."""
        self.edits.setdefault(kind, Counter())[what] += 1


@dataclass(frozen=True)
class Captioned:
    """An image with a true caption."""

    id: str
    image: AuditImage
    caption: str


def captioned_file(path: Path, name: str, caption: str) -> Captioned:
    """Of a file: it is called by the name that the caption's source gives it."""
    return Captioned(name, AuditImage(name, path), caption)


def unique_asks(groups: Sequence[Sequence[Ask]]) -> list[Ask]:
    """Every question once, in the order of their first occurrence."""
    return list(dict.fromkeys(ask for group in groups for ask in group))
