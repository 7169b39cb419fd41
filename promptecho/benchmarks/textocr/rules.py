"""Comparing required text with recognised text: pure functions of strings.

Two texts count as equal when they agree after `normalize`: letters, digits, punctuation and case all count; white space
does not, because a line break in an image means a space or nothing and recognisers drop spaces.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

# Shapes of one mark that NFKC keeps apart and a recogniser cannot be expected to: quotation marks and dashes.
_MARKS = str.maketrans({**dict.fromkeys("‘’‚‛′", "'"), **dict.fromkeys("“”„‟″", '"'), **dict.fromkeys("‐‑‒–—―−", "-")})
# What LongText-Bench's evaluator keeps of a text.
_KEPT = "\u4e00-\u9fa5a-zA-Z0-9àâäéèêëîïôöùûüçÀÂÄÉÈÊËÎÏÔÖÙÛÜÇ"
_CHINESE = re.compile("[\u4e00-\u9fa5]")


def normalize(text: str) -> str:
    """The form in which texts are compared: a string of visible Unicode code points.

    Unicode NFKC (full-width forms become ordinary ones, accents one code point with their letter), then typographic
    quotation marks and dashes become ' " and -, then white space, control and format characters go.
    """
    text = unicodedata.normalize("NFKC", text.translate(_MARKS)).translate(_MARKS)  # NFKC makes some from others
    text = "".join(c for c in text if not c.isspace() and unicodedata.category(c) not in ("Cc", "Cf"))
    return unicodedata.normalize("NFC", text)  # an invisible character may have stood between letter and accent


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance: the fewest insertions, deletions and substitutions of code points from `a` to `b`."""
    from rapidfuzz.distance import Levenshtein  # here: who only normalises texts may be without the package

    return Levenshtein.distance(a, b)


def character_error_rate(required: str, found: str) -> float:
    """Edit distance of the normalised texts over the length of the required one; above 1 where much is added.

    Where nothing is required it is the number of characters found.
    """
    required, found = normalize(required), normalize(found)
    return edit_distance(required, found) / max(len(required), 1)


@dataclass(frozen=True)
class TextComparison:
    """`edits` turn what is required, `characters` long, into what is shown."""

    edits: int
    characters: int

    @property
    def exact(self) -> bool:
        """Every required text is there, character by character, and nothing else."""
        return self.edits == 0

    @property
    def error_rate(self) -> float:
        return self.edits / max(self.characters, 1)


def compare(required: Sequence[str], lines: Sequence[str]) -> TextComparison:
    """Compare required texts with the lines read in an image, given in reading order.

    Order counts within a text but not between texts: a prompt may name a sign at the top after the one below it. The
    fewer edits of two arrangements count: each line given to the text that it fits best, the lines of a text in reading
    order (a text broken over several lines, columns, any order of texts); and all texts in the prompt's order against
    all lines as read (texts that were read as one line). The first is found greedily, longest line first, so `edits` is
    at most a little above the fewest possible.

    Where no text is required nothing is compared, whatever the image shows: the paper's B.3 gives its point at once.
    """
    texts = [normalize(text) for text in required]
    found = [line for line in map(normalize, lines) if line]
    if not texts:
        return TextComparison(0, 0)
    whole = edit_distance("".join(texts), "".join(found))
    return TextComparison(min(whole, _assigned(texts, found)), sum(map(len, texts)))


def _assigned(texts: list[str], lines: list[str]) -> int:
    """Edits where each line goes to one text, or to none and counts as added."""
    given: list[list[int]] = [[] for _ in texts]
    edits = [len(text) for text in texts]
    added = 0
    for line in sorted(range(len(lines)), key=lambda k: (-len(lines[k]), k)):
        best, best_key = None, (0, 0)
        for t, text in enumerate(texts):
            after = edit_distance(text, "".join(lines[k] for k in sorted([*given[t], line])))
            saved = edits[t] + len(lines[line]) - after  # against counting the line as added
            if saved > 0 and (best is None or (-saved, after) < best_key):  # of equals, the text that it completes
                best, best_key = t, (-saved, after)
        if best is None:
            added += len(lines[line])
        else:
            given[best].append(line)
            edits[best] = best_key[1]
    return sum(edits) + added


def language_of(required: Sequence[str]) -> str:
    """`zh` where a required text holds a Chinese character, else `en`.

    The public evaluator is told the language with the file; this agrees with it on every row of LongText-Bench.
    """
    return "zh" if any(map(_CHINESE.search, required)) else "en"


def longtext_recall(required: Sequence[str], found: str, language: str) -> tuple[int, int]:
    """LongText-Bench's metric (X-Omni, arXiv 2507.22058) for one image: (found, required) words or characters.

    Both texts lose everything but letters, digits, Chinese characters and (`en`) white space. `en`: lower case, a bag
    of words; `zh`: a bag of characters. A word counts as often as it is required at most; order and additions do not
    count. A benchmark's score is the sum of the found over the sum of the required of all images.

    Deviation: the public evaluator reads images with Qwen2.5-VL-7B and strips that model's stock phrases from the
    reply; here the recogniser is another, so the numbers compare with each other and not with published ones.
    """
    wanted, shown = (Counter(_units(text, language)) for text in (" ".join(required), found))
    return (wanted & shown).total(), wanted.total()


def _units(text: str, language: str) -> list[str]:
    if language == "en":
        return re.sub(rf"[^{_KEPT}\s]", "", text).lower().split()
    return list(re.sub(f"[^{_KEPT}]", "", text))
