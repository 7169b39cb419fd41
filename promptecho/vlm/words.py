"""Which tokens of a label make up which of its words, with places in the text that are exact to the character."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from promptecho.errors import ModelError
from promptecho.vlm.inputs import label_span, label_text, opens_itself
from promptecho.vlm.model import Vlm

# One letter for each character: w letter or digit, c ideograph or kana (no spaces between words), s white space,
# m mark that belongs to what stands before it, j and d what may join letters or digits, o any other.
_PIECES = re.compile("(?:w[wm]*(?:[jd](?=w)w[wm]*)*|[^s]m*)")
_JOIN_LETTERS, _JOIN_DIGITS = "'’-‐‑", ".,:"  # don't, left-hand; 3.5, 1,000, 12:30


@dataclass(frozen=True)
class LabelWord:
    """One word of a label: `label[start:end]`, made up of the label's tokens `first` to `last - 1`.

    White space in front of a word is part of its tokens, not of its text. The token that ends an answer is a word
    without text.
    """

    start: int
    end: int
    first: int
    last: int


def text_words(text: str) -> list[tuple[int, int]]:
    """Start and end of each word of a text: letters and digits that stand together (`don't`, `left-hand` and `3.5` are
    one each), every other character that is not white space alone, and every ideograph alone. Marks (accents) belong
    to the character before them."""
    kinds = "".join(_kind(text, place) for place in range(len(text)))
    return [found.span() for found in _PIECES.finditer(kinds)]


def _kind(text: str, place: int) -> str:
    character = text[place]
    category = unicodedata.category(character)
    if character.isspace():
        return "s"
    if category[0] == "M" or category == "Cf":
        return "m"
    if category[0] in "LN":
        wide = unicodedata.east_asian_width(character) in "WF" and category == "Lo"
        return "c" if wide and not unicodedata.name(character, "").startswith("HANGUL") else "w"
    if character in _JOIN_LETTERS:
        return "j"
    if character in _JOIN_DIGITS and text[place - 1 : place].isdigit() and text[place + 1 : place + 2].isdigit():
        return "d"
    return "o"


def group_tokens(text: str, offsets: Sequence[tuple[int, int]]) -> list[LabelWord]:
    """Deal tokens out over the words of `text`, each to one; `offsets[L]` are start and end of each token in it.

    Words that share a token become one. White space and tokens without text go to the word behind them, at the end to
    the one before.
    """
    pieces = text_words(text)
    words: list[tuple[int, int, int, int]] = []  # first and last piece, first token and the one behind the last
    at, begun = 0, 0  # pieces before `at` end before this token; tokens from `begun` on have no word yet
    for index, (start, end) in enumerate(offsets):
        while at < len(pieces) and pieces[at][1] <= start:
            at += 1
        last = at - 1
        while last + 1 < len(pieces) and pieces[last + 1][0] < end:
            last += 1
        if last < at:
            continue
        if words and at <= words[-1][1]:
            before = words[-1]
            words[-1] = (before[0], max(before[1], last), before[2], index + 1)
        else:
            words.append((at, last, begun, index + 1))
        begun = index + 1
    if words and begun < len(offsets):
        words[-1] = (*words[-1][:3], len(offsets))
    return [LabelWord(pieces[a][0], pieces[b][1], first, last) for a, b, first, last in words]


def label_words(vlm: Vlm, query: str, label: str, *, name: str, include_eos: bool = False) -> list[LabelWord]:
    """The words of a label, with the tokens that `label_log_probs` gives values of; each token is in exactly one.

    Args:
        name: what to call the label in an error, for example its prompt id.

    Raises:
        DataError: the label is empty, or cannot be told from the chat template.
        ModelError: the tokenizer does not say where in the text a token lies.
    """
    labelled = label_text(vlm, query, label, name=name, include_eos=include_eos)
    whole, _, start, end = label_span(vlm, query, label, name=name)
    count = len(labelled.label_ids)
    problem = (
        f"{vlm.path}: its tokenizer does not say where in a text its tokens lie; words have no values of their own"
    )
    try:
        found = vlm.tokenizer(
            labelled.text, add_special_tokens=not opens_itself(vlm, whole), return_offsets_mapping=True
        )
    except NotImplementedError:
        raise ModelError(problem) from None
    if found.input_ids[-count:] != labelled.label_ids:
        raise ModelError(problem)
    inner = count - 1 if include_eos else count
    offsets = [(max(a, start) - start, min(b, end) - start) for a, b in found.offset_mapping[-count:][:inner]]
    words = group_tokens(label, offsets)
    if include_eos:
        words.append(LabelWord(len(label), len(label), inner, count))
    return words
