"""LongText-Bench's metric as pure functions of strings (github.com/X-Omni-Team/X-Omni, textbench).

What is required and what was read lose all but letters, digits and Chinese characters. Then English is a bag of words
in lower case, and Chinese a bag of characters in the case that they have. A unit counts as often as it is required at
most; order, and what is read beyond, do not count. The score is the share of all units of all images that were read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from promptecho.benchmarks.textocr.rules import language_of
from promptecho.errors import DataError

MAX_NEW_TOKENS = 1024  # of the answer of the model that the published code asks
LANGUAGES = {"en": "English", "zh": "Chinese"}
# What the published code means to take out of an answer: an invention of this model, and its word for nothing.
STOCK_PHRASES = ("addCriterion", "No text recognized.")
_KEPT = "\u4e00-\u9fa5a-zA-Z0-9àâäéèêëîïôöùûüçÀÂÄÉÈÊËÎÏÔÖÙÛÜÇ"


def units(text: str, language: str) -> list[str]:
    """The words (`en`) or characters (`zh`) of a text that count. Punctuation is taken out, so that "it's" is one word
    and "A-B" another. `word_recall` and `character_recall` of text rendering count the same."""
    if language == "en":
        return re.sub(rf"[^{_KEPT}\s]", "", text).lower().split()
    return list(re.sub(f"[^{_KEPT}]", "", text))


def without_stock_phrases(reply: str, mode: str) -> str:
    """A model's answer without its stock phrases. The published code begins anew for each phrase, so that only the last
    one is taken out of the answer: `official` does the same, `fixed` takes out all."""
    for phrase in STOCK_PHRASES if mode == "fixed" else STOCK_PHRASES[-1:]:
        reply = reply.replace(phrase, "")
    return reply


def matched_units(required: Sequence[str], read: str, language: str) -> list[tuple[str, bool]]:
    """Each required word (`en`) or character (`zh`), in the order of the required texts, and whether it was read. Where
    it is required more often than it was read, the first ones count as read."""
    left = Counter(units(read, language))
    found = []
    for unit in units(" ".join(required), language):
        found.append((unit, left[unit] > 0))
        left[unit] -= 1
    return found


def one_language(texts: Sequence[tuple[str, Sequence[str]]]) -> str:
    """The language of a prompt set, from (prompt id, required texts) of each.

    Raises:
        DataError: a prompt has no text to look for, or there are prompts of both languages: words and characters
            cannot be counted together.
    """
    examples: dict[str, str] = {}
    for name, required in texts:
        language = language_of(required)
        if not units(" ".join(required), language):
            raise DataError(
                f"prompt {name!r} requires no text that counts, and LongText-Bench's score is a share of the required "
                "text; leave such prompts out, or use scorer textocr"
            )
        examples.setdefault(language, name)
    if len(examples) > 1:
        raise DataError(
            f"prompt {examples['zh']!r} requires Chinese text and prompt {examples['en']!r} none: words and characters "
            "do not make one score; give each language an image set of its own, as the published files do"
        )
    return next(iter(examples))
