"""What reads a prompt: the text-to-image model's encoder and the rewards' VLMs, as tokenizers and lengths, no weights.

They say, before any model is loaded, which prompts could not be used later, and where a caption has to be cut.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from promptecho.config.families import family_named
from promptecho.config.models import T2iSection
from promptecho.config.rewards import VlmSection
from promptecho.errors import DataError, ModelError
from promptecho.files import read_json
from promptecho.models.locate import locate_model
from promptecho.shipped import model_path
from promptecho.templates import Template

START = 12  # letters


@dataclass
class PromptReader:
    """One model that reads prompts.

    `whole(text)` is the text within the model's template; it raises DataError or ModelError where that cannot be.
    `limit` counts the tokens of the whole, of which `beside` are not text (the image's, or those of a reply).
    """

    name: str
    tokenizer: Any
    limit: int
    whole: Callable[[str], str]
    special_tokens: Sequence[str]
    beside: int = 0
    add_special_tokens: bool = True

    def problems(self, texts: Sequence[str]) -> dict[int, str]:
        """Index -> why the model could not read that text."""
        found, wholes = {}, {}
        for index, text in enumerate(texts):
            if control := self._special.search(text):
                found[index] = f"holds {control[0]!r}, a control token of {self.name}; remove it from the text"
                continue
            try:
                wholes[index] = self.whole(text)
            except (DataError, ModelError) as error:
                found[index] = str(error).removeprefix(": ")
        for index, count in zip(wholes, self._counts(list(wholes.values())), strict=True):
            if count > self.limit:
                more = f", {self.beside} of image or reply among them" if self.beside else ""
                found[index] = f"{count} tokens with the template{more}, {self.name} takes {self.limit}; shorten it"
        return found

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has in its template, of texts that have no `problems`."""
        if not texts:
            return []
        wholes = [self.whole(text) for text in texts]
        return [len(one) for one in self.tokenizer(wholes, add_special_tokens=self.add_special_tokens).input_ids]

    def _counts(self, wholes: Sequence[str]) -> list[int]:
        """How many tokens of `limit` each text takes; for one that fits in any case, an upper bound."""
        # No tokenizer makes more tokens than there are bytes, but for one at each end.
        found = [len(whole.encode(errors="replace")) + 2 + self.beside for whole in wholes]
        unsure = [index for index, count in enumerate(found) if count > self.limit]
        if unsure:
            ids = self.tokenizer(
                [wholes[index] for index in unsure], add_special_tokens=self.add_special_tokens, verbose=False
            ).input_ids
            for index, one in zip(unsure, ids, strict=True):
                found[index] = len(one) + self.beside
        return found

    def cut(self, text: str) -> str:
        """The longest start of `text`, by this model's tokens, with which the whole fits; a text that it cannot read at
        all, or whose tokens the tokenizer does not place in it, stays as it is."""
        if not self.tokenizer.is_fast or self._special.search(text):
            return text
        try:
            count = self._counts([self.whole(text)])[0]
        except (DataError, ModelError):
            return text
        while count > self.limit and text:
            encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            spans = encoded.offset_mapping
            start, end = spans[max(len(spans) - (count - self.limit), 0)]
            text = text[: min(start, end)].rstrip()
            count = self._counts([self.whole(text)])[0] if text else 0
        return text

    @cached_property
    def _special(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, sorted(self.special_tokens, key=len, reverse=True))) or "(?!)")


def load_tokenizer(path: str, revision: str | None = None, part: str = "tokenizer") -> Any:
    """The tokenizer in a folder, or of the folder or hub id of a diffusers pipeline, where it is called `part`.

    Raises:
        ModelError: it cannot be loaded.
        DataError: it has no tokenizer.json.
    """
    from transformers import AutoTokenizer

    found = locate_model(path, revision)
    folder = Path(found).expanduser()
    inside = "" if folder.is_dir() and not (folder / part).is_dir() else part
    try:
        tokenizer = AutoTokenizer.from_pretrained(found, subfolder=inside, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path}: cannot load the tokenizer ({reason}); correct the path") from error
    if not tokenizer.is_fast:
        raise DataError(f"{path}: only tokenizers with a tokenizer.json can cut texts; add that file")
    return tokenizer


def t2i_reader(section: T2iSection) -> PromptReader:
    """The text-to-image model's text encoder, the one that gets the whole prompt.

    Raises:
        ModelError: its tokenizer cannot be loaded.
    """
    from promptecho.t2i.registry import family_class, guarded

    descriptor, path = family_named(section.family), model_path(section.path, "t2i")
    model_class = family_class(section.family)
    limit, templated = (guarded(section.family, one) for one in (model_class.prompt_limit, model_class.templated))
    tokenizer = load_tokenizer(path, section.revision, descriptor.reader.tokenizer)
    parts = [*(one.part for one in descriptor.text_encoders), "transformer"]
    configs = {part: _config(path, section.revision, part) for part in parts}
    return PromptReader(
        f"models.t2i ({section.path})",
        tokenizer,
        limit(configs),
        lambda text: templated(tokenizer, text),
        [token.content for token in tokenizer.added_tokens_decoder.values() if token.special],
    )


def vlm_readers(
    section: VlmSection,
    size: tuple[int, int],
    queries: Sequence[str],
    templates: Sequence[tuple[Any, int]] = (),
    n_images: int = 1,
) -> list[PromptReader]:
    """A VLM that gets a label as its answer to each of `queries`, and each of `templates` (with the tokens of its
    reply) as a question, always with an image of `size` (height, width), or with `n_images` of them.

    Raises:
        ModelError: its processor or configuration cannot be loaded.
    """
    from PIL import Image

    from promptecho.vlm.inputs import label_span, label_text, opens_itself, render_prompt, special_tokens
    from promptecho.vlm.model import load_outline

    vlm = load_outline(section.path, revision=section.revision, trust_remote_code=section.trust_remote_code)
    blank = Image.new("RGB", size[::-1])
    readers = []

    def add(whole: Callable[[str], str], prompt: str, reply: int) -> None:
        own = not opens_itself(vlm, prompt)
        ids = vlm.processor(images=[[blank] * n_images], text=[prompt], add_special_tokens=own)["input_ids"][0]
        beside = len(ids) - len(vlm.tokenizer(prompt, add_special_tokens=own).input_ids) + reply
        name, limit = f"the VLM {section.path}", vlm.context_length
        readers.append(PromptReader(name, vlm.tokenizer, limit, whole, special_tokens(vlm), beside, own))

    def answered(query: str) -> Callable[[str], str]:
        # Only a label's start can merge with the template, and many labels start alike.
        @functools.cache
        def starts(start: str) -> None:
            label_text(vlm, query, start, name="", n_images=n_images)

        def whole(text: str) -> str:
            starts(text[:START].strip())
            text, _, _, end = label_span(vlm, query, text, name="", n_images=n_images)
            return text[:end]

        return whole

    def filled(template: Template) -> Callable[[str], str]:
        return lambda text: render_prompt(vlm, template.fill(prompt=text), n_images=n_images)

    for query in queries:
        add(answered(query), render_prompt(vlm, query, n_images=n_images), 0)
    for template, reply in templates:
        prompt = render_prompt(vlm, template.fill(prompt="x"), n_images=n_images)
        add(filled(template), prompt, reply)
    return readers


def _config(path: str, revision: str | None, part: str) -> dict[str, Any]:
    """The config.json of a part of a pipeline; {} where there is none."""
    folder = Path(locate_model(path, revision)).expanduser()
    file = folder / part / "config.json"
    if not folder.is_dir():
        from huggingface_hub import hf_hub_download

        try:
            file = Path(hf_hub_download(path, f"{part}/config.json", revision=revision))
        except Exception as error:  # hub clients raise many types; all mean that the model is not available
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{path}: no such folder, and not to be had as a hub id ({reason})") from error
    return read_json(file) if file.is_file() else {}
