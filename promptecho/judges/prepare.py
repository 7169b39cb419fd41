"""Questions made ready: images read and encoded, the key of the record, and a guess at the tokens."""

from __future__ import annotations

import hashlib
import io
import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import BaseModel

from promptecho.config.judges import JudgeSection
from promptecho.errors import DataError
from promptecho.images import load_image
from promptecho.judges.base import ImageSource, Payload, Question
from promptecho.seeds import derive_seed

BYTES_PER_TOKEN = 3  # of UTF-8: English has about 4, Chinese 3
PIXELS_PER_TOKEN = 28 * 28  # the Qwen-VL families' count; other models take fewer for a large image
MIN_IMAGE_TOKENS = 560  # Gemini counts 258 to 1120, however small the image
OVERHEAD_TOKENS = 32  # roles and separators
MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}


PROVIDER_ENDPOINTS = {
    "gemini": "https://generativelanguage.googleapis.com",
    "openai": "https://api.openai.com/v1",
}


@dataclass(frozen=True)
class ImageFacts:
    """SHA-256 of an image's bytes as they are found, and its size in pixels."""

    sha256: str
    width: int
    height: int

    @property
    def tokens(self) -> int:
        return max(MIN_IMAGE_TOKENS, math.ceil(self.width * self.height / PIXELS_PER_TOKEN))


@dataclass(frozen=True)
class Prepared:
    """A question with its record's key; `input_tokens` is a guess."""

    question: Question
    key: str
    images: tuple[ImageFacts, ...]
    input_tokens: int


class Preparer:
    """Makes questions ready for the judge of `settings`. `model` identifies it: its name, for a folder its weights."""

    def __init__(self, settings: JudgeSection, model: str):
        self.settings, self.model = settings, model
        self._facts: dict[ImageSource, ImageFacts] = {}  # many questions share an image

    def prepare(self, question: Question) -> Prepared:
        """Read the images and find the key.

        Raises:
            DataError: an image cannot be read; names the question.
        """
        images = tuple(self._image_facts(source, question) for source in question.images)
        texts = (question.system, question.text, json.dumps(_json_schema(question.schema)))
        size = sum(len(text.encode("utf-8", "replace")) for text in texts)
        tokens = OVERHEAD_TOKENS + math.ceil(size / BYTES_PER_TOKEN) + sum(image.tokens for image in images)
        return Prepared(question, record_key(self.settings, self.model, question, images), images, tokens)

    def payload(self, prepared: Prepared, attempt: int) -> Payload:
        """What is sent, with the images as they were when the key was found.

        Raises:
            DataError: an image cannot be read any more, or changed meanwhile.
        """
        question = prepared.question
        images = []
        for source, facts in zip(question.images, prepared.images, strict=True):
            data = _read(source, question)
            if hashlib.sha256(data).hexdigest() != facts.sha256:
                raise DataError(f"{question.id}: {_name(source)} changed while it was judged; run this again")
            images.append(self._encode(data, source, question))
        seed = derive_seed("judge", prepared.key, attempt)
        temperature = sampling_temperature(self.settings, question)
        return Payload(question.system, question.text, tuple(images), question.schema, temperature, seed)

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
        wanted = self.settings.image_format.upper()
        if _open(data, source, question).format == wanted:
            return MEDIA_TYPES[wanted], data
        buffer = io.BytesIO()
        options: dict[str, Any] = {"quality": self.settings.jpeg_quality} if wanted == "JPEG" else {}
        try:
            load_image(io.BytesIO(data)).save(buffer, wanted, **options)
        except (DataError, OSError, ValueError, SyntaxError) as error:
            raise _bad_image(source, question, error) from None
        return MEDIA_TYPES[wanted], buffer.getvalue()


def sampling_temperature(settings: JudgeSection, question: Question) -> float:
    """The settings' temperature, or where they give none the question's own."""
    return question.temperature if settings.temperature is None else settings.temperature


def record_key(settings: JudgeSection, model: str, question: Question, images: tuple[ImageFacts, ...]) -> str:
    """SHA-256 of everything that decides an answer: equal keys are one answer, and nothing else is part of it."""
    value = {
        "kind": settings.kind,
        "model": model,
        "endpoint": normal_endpoint(settings),
        "dtype": settings.dtype if settings.kind == "local" else None,
        "template": question.template,
        "system": question.system,
        "text": question.text,
        "images": [image.sha256 for image in images],
        "image_format": settings.image_format,
        "jpeg_quality": settings.jpeg_quality if settings.image_format == "jpeg" else None,
        "temperature": float(sampling_temperature(settings, question)),
        "max_output_tokens": settings.max_output_tokens,
        "structured_output": settings.structured_output,
        "schema": _json_schema(question.schema),
        "repeat": question.repeat,
    }
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _json_schema(schema: type[BaseModel] | None) -> dict[str, Any] | None:
    return None if schema is None else schema.model_json_schema()


def normal_endpoint(settings: JudgeSection) -> str | None:
    """The endpoint without a final slash; None for the provider's own and for a local model."""
    endpoint = (settings.endpoint or "").rstrip("/")
    return None if not endpoint or endpoint == PROVIDER_ENDPOINTS.get(settings.kind) else endpoint


def _name(source: ImageSource) -> str:
    return str(source) if isinstance(source, Path) else "the image"


def _read(source: ImageSource, question: Question) -> bytes:
    try:
        return source.read_bytes() if isinstance(source, Path) else source()
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
