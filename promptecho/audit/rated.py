"""Ask rewards about images and texts, and keep what they said, so that an interrupted audit goes on.

Questions are taken in pieces of fixed size and order. A piece that was answered is a file of its own, named after all
that decides the answer: weights, reward, settings and the content of the images. So the numbers do not depend on
interruptions, and a second audit with a further VLM asks the first one nothing.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from promptecho.audit.material import Ask
from promptecho.config.descriptors import given_settings, reward_named
from promptecho.errors import DataError, ModelError, RewardError
from promptecho.files import digest, read_json, write_json
from promptecho.progress import Progress
from promptecho.templates import read_template

PIECE = 64  # questions of a file
VERSION = 1
LEAST_SIDE = 28  # pixels of a side below which an image is not shrunk further


@dataclass(frozen=True)
class Candidate:
    """One reward to look at: `reward` is its name, `options` its settings, `vlm` and `revision` the model, which tables
    call `model_label`, and `scale` what images' sides are multiplied with before the reward sees them."""

    reward: str
    vlm: str | None = None
    revision: str | None = None
    query: str | None = None
    dtype: str = "float32"
    scale: float = 1.0
    options: Any = None
    trust_remote_code: bool = False
    model_label: str = ""

    @property
    def label(self) -> str:
        """How tables call it: reward, model, query, and the settings that are not at their defaults."""
        model = self.model_label or (Path(self.vlm).name if self.vlm else "")
        settings = [f"{key} {_short(value)}" for key, value in changed_settings(self.reward, self.options)]
        return ", ".join(part for part in (self.reward, model, self.query and f'"{self.query}"', *settings) if part)

    def with_dtype(self, dtype: str) -> Candidate:
        """The same, computed in another type."""
        return replace(self, dtype=dtype)

    def with_scale(self, scale: float) -> Candidate:
        """The same, on images of another size."""
        return replace(self, scale=scale)


def changed_settings(reward: str, options: Any) -> tuple[tuple[str, str], ...]:
    """The settings of a reward that change what it says and are not at their defaults: key and value as JSON."""
    found, passive = given_settings(options), reward_named(reward).not_in_digest
    return tuple((key, json.dumps(value, ensure_ascii=False)) for key, value in found.items() if key not in passive)


def _short(value: str) -> str:
    """A setting's JSON without the quotes of a text."""
    return value[1:-1] if value.startswith('"') else value


@dataclass(frozen=True)
class Rated:
    """A reward, None where there is none; where the reward tells of the text's tokens their number, and `words` with
    the sums of their log-probabilities [nats]."""

    reward: float | None
    tokens: int = 0
    words: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class RatedAll:
    """What a candidate said of `asks`, and how long it took for all of them, without loading."""

    by_ask: dict[Ask, Rated]
    seconds: float


class Rater:
    """Asks candidates, one model in memory at a time."""

    def __init__(self, work: Path, *, batch_size: int, device: str, seed: int):
        self.work, self.batch_size, self.device, self.seed = work, batch_size, device, seed
        self._loaded: tuple[Any, Any] = (None, None)
        self._revisions: dict[tuple[str, str | None], str] = {}

    def ask(self, candidate: Candidate, asks: Sequence[Ask]) -> RatedAll:
        """What a candidate says of each, from the record where it is there.

        Raises:
            RewardError, ModelError, DataError: the reward fails, the model is not to be had, or an image is none.
        """
        folder = self.work / self._digest(candidate)
        pieces = [list(asks[start : start + PIECE]) for start in range(0, len(asks), PIECE)]
        names = [
            digest([[one.prompt_id, one.image.name, one.image.digest, one.text] for one in some]) for some in pieces
        ]
        found = [_read(folder / f"{name}.json", len(some)) for name, some in zip(names, pieces, strict=True)]
        done = sum(len(some) for some, one in zip(pieces, found, strict=True) if one)
        bar = Progress(candidate.label, len(asks), "rewards", done)
        result: dict[Ask, Rated] = {}
        seconds = 0.0
        for name, some, known in zip(names, pieces, found, strict=True):
            if known is None:
                known = self._answers(candidate, some)
                write_json(folder / f"{name}.json", known)
                bar.advance(len(some))
            seconds += known["seconds"]
            rows = zip(some, known["rewards"], known["tokens"], known["words"], strict=True)
            for ask, value, tokens, words in rows:
                result[ask] = Rated(value, tokens, tuple((word, log_prob) for word, log_prob in words))
        return RatedAll(result, seconds)

    def _digest(self, candidate: Candidate) -> str:
        options = candidate.options
        place = reward_named(candidate.reward).template_file(options)
        return digest(
            [
                VERSION, candidate.reward, reward_named(candidate.reward).version, self.revision(candidate),
                candidate.query, candidate.dtype, candidate.scale,
                None if options is None else options.model_dump(mode="json"), self.batch_size, self.seed,
                read_template(place).digest if place else None,
            ]
        )  # fmt: skip

    def revision(self, candidate: Candidate) -> str | None:
        """What identifies the model's weights."""
        if candidate.vlm is None:
            return None
        key = (candidate.vlm, candidate.revision)
        if key not in self._revisions:
            from promptecho.vlm import model_revision

            self._revisions[key] = model_revision(*key)
        return self._revisions[key]

    def _answers(self, candidate: Candidate, asks: Sequence[Ask]) -> dict[str, Any]:
        built = self._built(candidate)
        images = [_scaled(ask.image.open(), candidate.scale) for ask in asks]
        started = time.perf_counter()
        details = built.details(images, [ask.text for ask in asks], [ask.prompt_id for ask in asks])
        seconds = time.perf_counter() - started
        rewards = [None if value is None or math.isnan(value) else value for value in details.rewards]
        for ask, value in zip(asks, rewards, strict=True):
            if value is not None and math.isinf(value):
                raise RewardError(
                    f"reward {candidate.reward}: prompt {ask.prompt_id}, {ask.image.name}: it is infinite"
                )
        values = [list(fact.get("log_probs", ())) for fact in details.facts]
        words = _words(built.audit_vlm, candidate, asks, values) if any(values) else [[] for _ in asks]
        return {"seconds": seconds, "rewards": rewards, "tokens": [len(some) for some in values], "words": words}

    def _built(self, candidate: Candidate) -> Any:
        """The reward, with its model; that of before is dropped first."""
        if self._loaded[0] == candidate:
            return self._loaded[1]
        import torch

        from promptecho.cluster.device import choose_device
        from promptecho.rewards import RewardContext, make_reward

        before, vlm = self._loaded[0], None
        where = choose_device(self.device)
        if candidate.vlm is not None:
            same = before is not None and model_of(before) == model_of(candidate)
            vlm = getattr(self._loaded[1], "audit_vlm", None) if same else None
            if vlm is None:
                from promptecho.vlm import load_vlm

                self._loaded = (None, None)
                vlm = load_vlm(
                    candidate.vlm, dtype=candidate.dtype, device=self.device, revision=candidate.revision,
                    trust_remote_code=candidate.trust_remote_code,
                )  # fmt: skip
        context = RewardContext(
            vlm=vlm, device=torch.device(where), options=candidate.options, batch_size=self.batch_size, seed=self.seed,
        )  # fmt: skip
        if candidate.query is not None:
            context = replace(context, query=candidate.query)
        built: Any = make_reward(candidate.reward, context)
        built.audit_vlm = vlm
        self._loaded = (candidate, built)
        return built


def _words(vlm: Any, candidate: Candidate, asks: Sequence[Ask], values: Sequence[Sequence[float]]) -> list[list]:
    """Words of each text with their log-probabilities; none where the tokenizer does not tell where its tokens lie, or
    a reward's values are not those of the text's tokens. The end token, where it counts, is a word without text."""
    from promptecho.vlm.words import label_words

    cuts: dict[str, list] = {}
    found: list[list] = []
    for ask, some in zip(asks, values, strict=True):
        if ask.text not in cuts:
            try:
                cuts[ask.text] = label_words(
                    vlm, candidate.query or "", ask.text, name=f"prompt {ask.prompt_id}",
                    include_eos=getattr(candidate.options, "include_eos", False),
                )  # fmt: skip
            except ModelError:
                cuts[ask.text] = []
        words = cuts[ask.text]
        fits = bool(words) and words[-1].last == len(some)
        found.append([[ask.text[w.start : w.end], sum(some[w.first : w.last])] for w in words] if fits else [])
    return found


def model_of(candidate: Candidate) -> tuple[Any, ...]:
    """What of a candidate decides which weights are in memory."""
    return candidate.vlm, candidate.revision, candidate.dtype


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    if scale == 1.0:
        return image
    width, height = (max(round(side * scale), min(LEAST_SIDE, side)) for side in image.size)
    shrunk = image.resize((width, height), Image.Resampling.LANCZOS)
    shrunk.info["path"] = image.info["path"]
    return shrunk


def _read(path: Path, n: int) -> dict[str, Any] | None:
    """A piece on record; None where there is none, or one that nobody can read: it is asked again."""
    if not path.is_file():
        return None
    with suppress(DataError):
        value = read_json(path)
        if isinstance(value, dict) and len(value.get("rewards", ())) == n:
            return value
    return None
