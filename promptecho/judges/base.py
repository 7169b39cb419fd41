"""Questions to a judge, and its answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel

from promptecho.archives import ImageFile

Order = Literal["images_first", "official"]
ImageFormat = Literal["png", "jpeg"]
ImageSource = ImageFile | Callable[[], bytes]  # an image file (PNG best), or what makes one's bytes; read when asked


@dataclass(frozen=True)
class Question:
    """One question about images.

    `id` names it in errors and records ("prompt 00012, image 3"). `images` are sent in this order, before the text,
    or with `order` official after it, each after its text of `labels` where there are some. `parse` turns the reply
    into the answer. It raises ValueError for a reply that is none, which is asked again, and RefusedError for one that
    declines, which is final. `schema` is the JSON that the reply should be, for judges that can be held to one.
    `template` is the digest of the template that the texts were made from; `repeat` distinguishes questions that are
    equal otherwise. `temperature` holds where the judge's settings give none, and `image_format` where they leave it to
    the benchmark.
    """

    id: str
    text: str
    images: tuple[ImageSource, ...]
    parse: Callable[[str], Any]
    system: str = ""
    schema: type[BaseModel] | None = None
    template: str = ""
    temperature: float = 0.0
    repeat: int = 0
    order: Order = "images_first"
    labels: tuple[str, ...] = ()
    image_format: ImageFormat = "png"


@dataclass(frozen=True)
class Answer:
    """The end of one question: `value` is what `parse` made of `text`; or `failure` tells why there is none.

    `kind` sorts failures: refused, cut, unparsable, outage, or an
    HTTP status. `cached`: no call was made now. `attempts` counts the calls that were ever answered for it.
    """

    question: Question
    value: Any = None
    text: str = ""
    failure: str | None = None
    cached: bool = False
    attempts: int = 0
    model_version: str = ""
    kind: str = ""
    order: Order = "images_first"
    image_format: ImageFormat = "png"

    @property
    def message(self) -> str:
        """How the message was put together, as score files record it."""
        as_usual = self.image_format == self.question.image_format
        return self.order if as_usual else f"{self.order}, images as {self.image_format}"

    def record(self) -> dict[str, Any]:
        """What the raw record of a score keeps of it, so that a verdict can be looked into."""
        return {
            "template_digest": self.question.template,
            "reply": self.text,
            "model_version": self.model_version,
            "attempts": self.attempts,
        }


@dataclass(frozen=True)
class Reply:
    """What a model answered to one call. `refusal` says why it declined, if it did; tokens are 0 where it names none.

    `finish` is why it ended, in the endpoint's words; `cut`: because the limit of tokens was reached, of which
    `thinking_tokens` (part of `output_tokens`) went into thoughts. `empty`: it sent no candidate at all, and no reason.
    """

    text: str
    model_version: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    refusal: str | None = None
    finish: str = ""
    cut: bool = False
    thinking_tokens: int = 0
    empty: bool = False


@dataclass(frozen=True)
class Payload:
    """A question made ready to be sent: texts, and encoded images as (media type, bytes).

    `seed` is for models that run in this process; it differs between attempts at one question. `order` and `labels` as
    in `Question`.
    """

    system: str
    text: str
    images: tuple[tuple[str, bytes], ...]
    schema: type[BaseModel] | None
    temperature: float
    seed: int = 0
    order: Order = "images_first"
    labels: tuple[str, ...] = ()

    def parts(self) -> list[str | tuple[str, bytes]]:
        """Texts and images as they follow each other in the user's message."""
        if self.order == "images_first":
            return [*self.images, self.text]
        labels = self.labels or ("",) * len(self.images)
        labelled = [part for pair in zip(labels, self.images, strict=True) for part in pair if part != ""]
        return [self.text, *labelled]


class Judge(Protocol):
    """A model that answers. Called from several threads at once."""

    name: str  # the model, as tables name it

    def ask(self, payload: Payload) -> Reply:
        """One call.

        Raises:
            JudgeBusyError: the call may succeed later (429, 5xx, time-out, connection lost).
            JudgeRejectedError: it will not, others may (the endpoint refuses this request).
            JudgeError: no call will (key or model refused).
        """
        ...


@runtime_checkable
class FreelyAsked(Protocol):
    """A judge whose key can be tried without a call that costs something."""

    def lists_model(self, seconds: float) -> bool | None:
        """Whether the endpoint takes the key and names the model; None where it answers and has no list of models.

        Raises:
            JudgeBusyError: no answer within `seconds`, or the endpoint is busy.
            JudgeError: key or model is refused.
        """
        ...


@dataclass(frozen=True)
class CallEstimate:
    """What asking would take: `calls` still to make, `recorded` already answered; tokens and USD are estimates.

    `usd` None: the judge's settings name no prices.
    """

    calls: int
    recorded: int
    input_tokens: int
    output_tokens: int
    usd: float | None
