"""Texts that a reward's model reads up to a number of tokens: how long they are, and a word on those that it cuts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any


class CutTexts:
    """Counts the tokens of the texts asked so far.

    Args:
        name: of the reward, for messages.
        reader: of the model that reads them, likewise.
        tokenizer: of transformers.
        most: how many tokens the model reads, begin and end counted.
    """

    def __init__(self, name: str, reader: str, tokenizer: Any, most: int):
        self.name, self.reader, self.tokenizer, self.most = name, reader, tokenizer, most
        self._lengths: dict[str, int] = {}

    def length(self, text: str) -> int:
        """How many tokens a text has, its beginning and its end counted."""
        if text not in self._lengths:
            self._lengths[text] = len(self.tokenizer(text, verbose=False)["input_ids"])
        return self._lengths[text]

    def tell(self, texts: Sequence[str]) -> None:
        """Tell on stderr of texts that are too long, at the 1st, the 10th, the 100th and so on."""
        for text in texts:
            if text in self._lengths or self.length(text) <= self.most:
                continue
            cut = sum(length > self.most for length in self._lengths.values())
            if str(cut).strip("0") == "1":
                print(
                    f"{self.name}: {cut} of {len(self._lengths)} texts so far are longer than the {self.most} tokens "
                    f"that {self.reader} reads; what is beyond is not read: {text[:60]!r} ...",
                    file=sys.stderr, flush=True,
                )  # fmt: skip

    def facts(self, texts: Sequence[str]) -> tuple[list[dict[str, Any]], str]:
        """Of each text its tokens and whether it is cut, for `Details`; and all of them in words."""
        lengths = [self.length(text) for text in texts]
        cut = sum(length > self.most for length in lengths)
        told = f"; {cut} of {len(texts)} texts are longer and were cut" if cut else ""
        facts = [{"tokens": length, "truncated": length > self.most} for length in lengths]
        return facts, f"{self.reader} reads {self.most} tokens{told}"
