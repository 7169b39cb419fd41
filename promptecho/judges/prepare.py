"""Questions made ready: images read and encoded, the key of the record, and a guess at the tokens."""

from __future__ import annotations

import hashlib
import io
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from PIL import Image

from promptecho.config.judges import JudgeSection
from promptecho.errors import DataError
from promptecho.images import load_image
from promptecho.judges.base import ImageSource, Payload, Question
from promptecho.judges.keys import (
    EndpointAndLimit,
    ImageFacts,
    former_key,
    json_schema,
    record_key,
    sampling_temperature,
    sent_format,
)
from promptecho.seeds import derive_seed

BYTES_PER_TOKEN = 3  # of UTF-8: English has about 4, Chinese 3
OVERHEAD_TOKENS = 32  # roles and separators
KEPT_IMAGES = 16
MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}


@dataclass(frozen=True)
class Prepared:
    """A question with its record's key; `input_tokens` is a guess. `former`: its keys in journals of before, which sent
    images first; `as_png`: its keys in those that sent images as png, whatever the benchmark's authors do."""

    question: Question
    key: str
    former: tuple[str, ...]
    images: tuple[ImageFacts, ...]
    input_tokens: int
    as_png: tuple[str, ...] = ()


class PayloadMaker(Protocol):
    """Makes what is sent."""

    def payload(self, prepared: Prepared, attempt: int) -> Payload:
        """What is sent for a question at its `attempt` (from 1).

        Raises:
            UnaskableError: an image of its own cannot be sent; others can.
            DataError: asking must end, for example because an image has changed.
        """
        ...


class Preparer:
    """Makes questions ready for the judge of `settings`. `model` identifies it: its name, for a folder its weights.
    `places`: (address, limit of tokens) at which journals of before asked."""

    def __init__(self, settings: JudgeSection, model: str, places: Sequence[EndpointAndLimit] = ()):
        self.settings, self.model, self.places = settings, model, tuple(places)
        self._facts: dict[ImageSource, ImageFacts] = {}  # many questions share an image
        self._encoded: OrderedDict[tuple, tuple[str, bytes]] = OrderedDict()  # of the last few
        self._lock = threading.Lock()

    def prepare(self, question: Question) -> Prepared:
        """Read the images and find the key.

        Raises:
            DataError: an image cannot be read; names the question.
        """
        images = tuple(self._image_facts(source, question) for source in question.images)
        texts = (question.system, question.text, json.dumps(json_schema(question.schema)))
        size = sum(len(text.encode("utf-8", "replace")) for text in texts)
        tokens = OVERHEAD_TOKENS + math.ceil(size / BYTES_PER_TOKEN) + sum(image.tokens for image in images)
        known = (self.settings, self.model, question, images)
        former = list(self._former(question, images))
        as_png: tuple[str, ...] = ()
        if question.image_format != "png" and self.settings.image_format == "official":
            other = replace(question, image_format="png")
            former += self._former(other, images)
            as_png = (record_key(self.settings, self.model, other, images),)
        return Prepared(question, record_key(*known), tuple(former), images, tokens, as_png)

    def _former(self, question: Question, images: tuple[ImageFacts, ...]) -> Iterator[str]:
        for place in self.places:
            yield former_key(self.settings, self.model, question, images, place)
        if question.order != "images_first":  # as everything was asked once
            yield record_key(self.settings, self.model, replace(question, order="images_first"), images)

    def payload(self, prepared: Prepared, attempt: int) -> Payload:
        """What is sent, with the images as they were when the key was found.

        Raises:
            DataError: an image cannot be read any more, or changed meanwhile.
        """
        question = prepared.question
        images = []
        for source, facts in zip(question.images, prepared.images, strict=True):
            images.append(self._encoded_once(source, facts, question))
        seed = derive_seed("judge", prepared.key, attempt)
        temperature = sampling_temperature(self.settings, question)
        return Payload(
            question.system, question.text, tuple(images), question.schema, temperature, seed, question.order,
            question.labels,
        )  # fmt: skip

    def _encoded_once(self, source: ImageSource, facts: ImageFacts, question: Question) -> tuple[str, bytes]:
        place = (facts.sha256, *sent_format(self.settings, question))
        with self._lock:
            if place in self._encoded:
                self._encoded.move_to_end(place)
                return self._encoded[place]
        data = _read(source, question)
        if hashlib.sha256(data).hexdigest() != facts.sha256:
            raise DataError(f"{question.id}: {_name(source)} changed while it was judged; run this again")
        found = self._encode(data, source, question)
        with self._lock:
            self._encoded[place] = found
            while len(self._encoded) > max(KEPT_IMAGES, 2 * self.settings.concurrency):
                self._encoded.popitem(last=False)
        return found

    def _image_facts(self, source: ImageSource, question: Question) -> ImageFacts:
        facts = self._facts.get(source)
        if facts is None:
            data = _read(source, question)
            image = _open(data, source, question)
            width, height = image.size
            try:
                image.verify()  # a file cut short is found now, not by the endpoint
            except Exception as error:  # as when opening
                raise _bad_image(source, question, error) from None
            facts = self._facts[source] = ImageFacts(hashlib.sha256(data).hexdigest(), width, height)
        return facts

    def _encode(self, data: bytes, source: ImageSource, question: Question) -> tuple[str, bytes]:
        """(media type, bytes) in the format of the settings; bytes that have it already stay as they are."""
        image_format, quality = sent_format(self.settings, question)
        wanted = image_format.upper()
        if _open(data, source, question).format == wanted:
            return MEDIA_TYPES[wanted], data
        buffer = io.BytesIO()
        options: dict[str, Any] = {} if quality is None else {"quality": quality}
        try:
            load_image(io.BytesIO(data)).save(buffer, wanted, **options)
        except (DataError, OSError, ValueError, SyntaxError) as error:
            raise _bad_image(source, question, error) from None
        return MEDIA_TYPES[wanted], buffer.getvalue()


def _name(source: ImageSource) -> str:
    return "the image" if callable(source) else str(source)


def _read(source: ImageSource, question: Question) -> bytes:
    try:
        return source() if callable(source) else source.read_bytes()
    except OSError as error:
        what = f"{error.filename or _name(source)} ({error.strerror or error})"
        raise DataError(f"{question.id}: cannot read {what}; generate it again") from None
    except DataError as error:
        raise DataError(f"{question.id}: {error}") from None


def _open(data: bytes, source: ImageSource, question: Question) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise _bad_image(source, question, error) from None


def _bad_image(source: ImageSource, question: Question, error: Exception) -> DataError:
    return DataError(f"{question.id}: {_name(source)} is no readable image ({type(error).__name__}); generate it again")
