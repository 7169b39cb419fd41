"""Which of a poster's texts an image shows, role by role."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rapidfuzz.distance import Levenshtein

from promptecho.gallery.posters import ROLES


@dataclass(frozen=True)
class ShownText:
    """One text of a role: what was asked for, and what stands there; "" where there is none."""

    role: str
    asked: str
    shown: str

    @property
    def edits(self) -> int:
        """Fewest insertions, deletions and substitutions that make the one of the other."""
        return Levenshtein.distance(self.asked, self.shown)


def shown_texts(asked: Sequence[tuple[str, str]], shown: Sequence[tuple[str, str]]) -> list[ShownText]:
    """(role, word) pairs of two posters side by side: within a role the first with the first, and so on."""
    found = []
    for role in ROLES:
        sides = ([word for name, word in texts if name == role] for texts in (asked, shown))
        found += [ShownText(role, *pair) for pair in zip_longest(*sides, fillvalue="")]
    return found
