"""What an answer's identity is: the key of a record, without what only says where, how long or how much."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from promptecho.config.judge_kinds import judge_kind
from promptecho.config.judges import JudgeSection
from promptecho.judges.base import ImageFormat, Question

PIXELS_PER_TOKEN = 28 * 28  # the Qwen-VL families' count; other models take fewer for a large image
MIN_IMAGE_TOKENS = 560  # Gemini counts 258 to 1120, however small the image
OFFICIAL_JPEG_QUALITY = 95  # of the authors who send JPEG
EndpointAndLimit = tuple[str | None, int]  # address and limit of tokens that a journal of before was asked with


@dataclass(frozen=True)
class ImageFacts:
    """SHA-256 of an image's bytes as they are found, and its size in pixels."""

    sha256: str
    width: int
    height: int

    @property
    def tokens(self) -> int:
        return max(MIN_IMAGE_TOKENS, math.ceil(self.width * self.height / PIXELS_PER_TOKEN))


def sampling_temperature(settings: JudgeSection, question: Question) -> float:
    """The settings' temperature, or where they give none the question's own."""
    return question.temperature if settings.temperature is None else settings.temperature


def sent_format(settings: JudgeSection, question: Question) -> tuple[ImageFormat, int | None]:
    """Format in which images are sent, and the quality of jpeg."""
    if settings.image_format == "official":
        return question.image_format, OFFICIAL_JPEG_QUALITY if question.image_format == "jpeg" else None
    return settings.image_format, settings.jpeg_quality if settings.image_format == "jpeg" else None


def asked_beside(settings: JudgeSection) -> dict[str, Any]:
    """The user's `request`, with what is to be unpacked (`extra_body` of the openai package) at the level where it is
    sent. Where a kind takes two spellings, names are in snake_case, whichever was written."""
    values, kind = dict(settings.request), judge_kind(settings.kind)
    for name in kind.unpacked:
        if isinstance(more := values.pop(name, None), dict):
            values |= more
    if kind.camel_case:
        values = {_snake(name): value for name, value in values.items()}
    return values


def decides(settings: JudgeSection) -> dict[str, Any]:
    """What of the user's `request` decides an answer: all but limits of its length."""
    kind = judge_kind(settings.kind)
    asked = {name: one for name, one in asked_beside(settings).items() if name not in kind.limit_keys}
    return _spelt(asked) if kind.camel_case else asked


def token_limit(settings: JudgeSection) -> int:
    """Most tokens of a reply, thoughts included."""
    asked = asked_beside(settings)
    told = [asked[name] for name in judge_kind(settings.kind).limit_keys if type(asked.get(name)) is int]
    return told[0] if told else settings.max_output_tokens


def record_key(settings: JudgeSection, model: str, question: Question, images: tuple[ImageFacts, ...]) -> str:
    """SHA-256 of everything that decides an answer: equal keys are one answer, and nothing else is part of it.

    Not the address, which a server may change, and no limit of length or time: a reply that was not cut is the same.
    """
    value, version = _shared(settings, model, question, images), judge_kind(settings.kind).version
    asked = decides(settings)
    raised = {"kind_version": version} if version > 1 else {}  # keys are older than the versions
    return _sha(value | raised | ({"request": asked} if asked else {}) | _order(question))


def former_key(
    settings: JudgeSection, model: str, question: Question, images: tuple[ImageFacts, ...], place: EndpointAndLimit
) -> str:
    """The key under which journals of before keep the same answer: they counted address and limit in, and sent images
    first."""
    endpoint, limit = place
    value = _shared(settings, model, question, images)
    return _sha(value | {"endpoint": endpoint, "max_output_tokens": limit})


def former_endpoints(settings: JudgeSection, judge: str) -> list[str | None]:
    """The addresses that journals of before may have meant by the name `judge`, MODEL or MODEL@HOST:PORT."""
    if judge == settings.model:
        return [None]
    now, host = normal_endpoint(settings), judge.removeprefix(f"{settings.model}@")
    paths = dict.fromkeys([urlsplit(now).path if now else "", "/v1", ""])
    return [f"{scheme}://{host}{path}" for scheme in ("http", "https") for path in paths]


def _order(question: Question) -> dict[str, Any]:
    """The order of a message's parts; that of before the key existed is left out."""
    return {} if question.order == "images_first" else {"order": [question.order, *question.labels]}


def _shared(settings: JudgeSection, model: str, question: Question, images: tuple[ImageFacts, ...]) -> dict[str, Any]:
    image_format, jpeg_quality = sent_format(settings, question)
    return {
        "kind": settings.kind,
        "model": model,
        "dtype": settings.dtype if judge_kind(settings.kind).in_process else None,
        "template": question.template,
        "system": question.system,
        "text": question.text,
        "images": [image.sha256 for image in images],
        "image_format": image_format,
        "jpeg_quality": jpeg_quality,
        "temperature": float(sampling_temperature(settings, question)),
        "structured_output": settings.structured_output,
        "schema": json_schema(question.schema),
        "repeat": question.repeat,
    }


def _sha(value: dict[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def json_schema(schema: type[BaseModel] | None) -> dict[str, Any] | None:
    return None if schema is None else schema.model_json_schema()


def normal_endpoint(settings: JudgeSection) -> str | None:
    """The endpoint without a final slash; None for the provider's own and for a local model."""
    endpoint = (settings.endpoint or "").rstrip("/")
    return None if not endpoint or endpoint == judge_kind(settings.kind).provider else endpoint


def _spelt(value: Any) -> Any:
    """The same part of a call in one spelling, so that another one asks nothing again."""
    if isinstance(value, dict):
        return {_snake(name): _spelt(one) for name, one in value.items()}
    return [_spelt(one) for one in value] if isinstance(value, list) else value


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
