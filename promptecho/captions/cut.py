"""Cut captions once, so that the text encoder and the reward see the same string."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from promptecho.errors import DataError, ModelError
from promptecho.models.place import locate


@dataclass
class Cutter:
    """Cuts a text to `max_words` white-space separated words and then to `max_tokens` tokens of `tokenizer`.

    `tokenizer` is a folder with a tokenizer, or the folder or hub id of a diffusers pipeline that has one in its
    `tokenizer/`; None leaves tokens uncounted. Control tokens don't count.
    """

    max_words: int
    max_tokens: int | None = None
    tokenizer: str | None = None
    revision: str | None = None

    def __call__(self, text: str) -> str:
        """The longest start of `text` within both limits, without white space at its ends."""
        text = text.strip()
        words = list(re.finditer(r"\S+", text))
        if len(words) > self.max_words:
            text = text[: words[self.max_words - 1].end()]
        if self.tokenizer is not None and self.max_tokens is not None:
            text = self._cut_tokens(text)
        return text

    def _cut_tokens(self, text: str) -> str:
        limit = self.max_tokens
        assert limit is not None
        encoded = self._loaded(text, add_special_tokens=False, return_offsets_mapping=True)
        keep = limit
        while len(encoded.input_ids) > limit:
            # A shorter text may split into other tokens at its new end: cut until it fits.
            start, end = encoded.offset_mapping[keep]
            text = text[: min(start, end)].rstrip()
            encoded = self._loaded(text, add_special_tokens=False, return_offsets_mapping=True)
            keep -= 1
        return text

    @cached_property
    def _loaded(self) -> Any:
        from transformers import AutoTokenizer

        found = locate(str(self.tokenizer), self.revision)
        folder = Path(found).expanduser()
        inside = "" if folder.is_dir() and not (folder / "tokenizer").is_dir() else "tokenizer"
        try:
            tokenizer = AutoTokenizer.from_pretrained(found, subfolder=inside, revision=self.revision)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{self.tokenizer}: cannot load the tokenizer ({reason}); correct the path") from error
        if not tokenizer.is_fast:
            raise DataError(f"{self.tokenizer}: only tokenizers with a tokenizer.json can cut texts; add that file")
        return tokenizer
