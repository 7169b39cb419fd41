"""OneIG-Bench's text score as pure functions of strings (github.com/OneIG-Bench/OneIG-Benchmark, scripts/text).

What is required and what was read lose all but letters, digits and Chinese characters; white space becomes one space,
and none where there is a Chinese character. Of an image count the edits from the one to the other (ED), whether there
are none (CR), and the words, in Chinese the characters, that were read of those required (WAC). The score of all images
is 1 - min(M, ED) (1 - CR) (1 - WAC) / M, from the means of ED and CR and the share of all units (WAC), M being 100 in
English and 50 in Chinese. Case counts.

The published code compares with the required texts as Python writes their list, so that of a line break in one, which
is \\n there, the n counts; `official` does so, too. `fixed` takes the texts themselves.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

MODES = ("official", "fixed")
MOST_EDITS = {"en": 100, "zh": 50}
LONG = 60  # words; longer texts get twice the tokens
_KEPT = "\u4e00-\u9fa5a-zA-Z0-9àâäéèêëîïôöùûüçÀÂÄÉÈÊËÎÏÔÖÙÛÜÇ"
_CHINESE = re.compile("[\u4e00-\u9fff]")


def reference(texts: Sequence[str], mode: str) -> str:
    """The required texts as one."""
    return repr(list(texts)) if mode == "official" else " ".join(texts)


def max_new_tokens(text: str) -> int:
    """How long the model's answer about an image with this reference may be, in tokens."""
    return 256 if len(text.split()) > LONG else 128


def normalize(text: str) -> str:
    """The form in which texts are compared."""
    kept = re.sub(rf"[^{_KEPT}\s]", "", text)
    if _CHINESE.search(kept):
        return re.sub(r"\s", "", kept)
    return " ".join(kept.split())


def set_language(texts: Sequence[Sequence[str]]) -> str:
    """`zh` where most prompts of a set require Chinese text, else `en`."""
    chinese = sum(any(map(_CHINESE.search, required)) for required in texts)
    return "zh" if 2 * chinese > len(texts) else "en"


@dataclass(frozen=True)
class TextMatch:
    """What was read in an image, beside what is required: edits between the two, and of the required words or
    characters those that were read."""

    edits: int
    matched: int
    required: int

    @property
    def exact(self) -> bool:
        return self.edits == 0


def match_texts(required: str, read: str) -> TextMatch:
    """Compare a reference with what was read."""
    from rapidfuzz.distance import Levenshtein  # here: tables are made without the package

    wanted, shown = normalize(required), normalize(read)
    units = Counter(wanted) if _CHINESE.search(wanted) else Counter(wanted.split())
    found = Counter(shown) if _CHINESE.search(wanted) else Counter(shown.split())
    return TextMatch(Levenshtein.distance(wanted, shown), (units & found).total(), units.total())


def text_score(matches: Sequence[TextMatch], language: str) -> float:
    """The score of images of one language; of several it is no mean of those of each."""
    most = MOST_EDITS[language]
    edits = fmean(match.edits for match in matches)
    return 1 - min(most, edits) * (1 - completion(matches)) * (1 - word_accuracy(matches)) / most


def completion(matches: Sequence[TextMatch]) -> float:
    """CR: the share of images without any edit."""
    return fmean(match.exact for match in matches)


def word_accuracy(matches: Sequence[TextMatch]) -> float:
    """WAC: the share of all required words or characters that were read."""
    return sum(match.matched for match in matches) / sum(match.required for match in matches)
