"""Cut captions once, so that the text encoder and the reward see the same string."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from promptecho.captions.packed import Packed, seen
from promptecho.captions.readers import PromptReader, load_tokenizer

if TYPE_CHECKING:
    import numpy as np

SPACES = b" \t\n\r\v\f\x1c\x1d\x1e\x1f"  # of ASCII


def _most_words(text: str) -> int:
    """No fewer than the words of a text: far quicker than to count them, and exact where single spaces part them."""
    if not text.isascii():
        return len(text)
    return len(text) - len(text.encode().translate(None, SPACES)) + 1


@dataclass
class Cutter:
    """Cuts a text to `max_words` white-space separated words, then to `max_tokens` tokens of `tokenizer`, then to what
    each of `readers` can take.

    `tokenizer` is a folder with a tokenizer, or the folder or hub id of a diffusers pipeline that has one, called
    `part`; None leaves tokens uncounted. Control tokens don't count.
    """

    max_words: int
    max_tokens: int | None = None
    tokenizer: str | None = None
    revision: str | None = None
    part: str = "tokenizer"
    readers: Sequence[PromptReader] = ()

    def __call__(self, text: str) -> str:
        """The longest start of `text` within all limits, without white space at its ends."""
        return self.cut(text)[0]

    def cut(self, text: str) -> tuple[str, str | None]:
        """What is left of `text`, and the limit that cut it last; None where none did."""
        whole, by = text.strip(), None
        text = whole
        # split() knows the same white space as \S, and is ten times as fast.
        if _most_words(whole) > self.max_words and len(whole.split()) > self.max_words:
            last = next(islice(re.finditer(r"\S+", whole), self.max_words - 1, None))
            text = whole[: last.end()]
            by = f"max_words {self.max_words}"
        if self.tokenizer is not None and self.max_tokens is not None:
            shorter = self._cut_tokens(text)
            if shorter != text:
                text, by = shorter, f"max_tokens {self.max_tokens}"
        for reader in self.readers:
            shorter = reader.cut(text)
            if shorter != text:
                text, by = shorter, f"the {reader.limit} tokens of {reader.name}"
        return text, by

    def untouched(self, texts: Packed) -> np.ndarray:
        """Texts that `cut` surely leaves as they are, found without looking at each alone: bool [n]."""
        import numpy as np

        if self.readers or (self.tokenizer is not None and self.max_tokens is not None):
            return np.zeros(len(texts), bool)
        # White space beyond ASCII has such a byte, too: no text has more words than this.
        ends = np.searchsorted(np.flatnonzero(~seen(texts.codes())), texts.offsets)
        return texts.framed() & (np.diff(ends) < self.max_words)

    def _cut_tokens(self, text: str) -> str:
        limit = self.max_tokens
        assert limit is not None
        encoded = self._loaded(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        keep = limit
        while len(encoded.input_ids) > limit:
            # A shorter text may split into other tokens at its new end: cut until it fits.
            start, end = encoded.offset_mapping[keep]
            text = text[: min(start, end)].rstrip()
            encoded = self._loaded(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            keep -= 1
        return text

    @cached_property
    def _loaded(self) -> Any:
        return load_tokenizer(str(self.tokenizer), self.revision, self.part)
