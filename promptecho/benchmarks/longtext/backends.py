"""What reads the text of LongText-Bench's images, by name; a judge is asked by scorer.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from promptecho.benchmarks.backends import find_backend
from promptecho.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image

    from promptecho.benchmarks.scoring import ScoringOptions


class PageReader(Protocol):
    """Reads all text of an image. `name` says who reads, with revisions. Raises PerceptionFailure where an image has no
    answer."""

    name: str

    def __call__(self, image: Image.Image) -> str: ...


class RapidPage:
    """`PageReader` by RapidOCR: its lines in reading order."""

    def __init__(self) -> None:
        from promptecho.benchmarks.textocr.rapid import RapidReader

        self._reader = RapidReader()
        self.name = self._reader.name

    def __call__(self, image: Image.Image) -> str:
        return "\n".join(line.text for line in self._reader(image))


class PosterPage:
    """`PageReader` of the gallery's posters by its own oracle."""

    name = "the gallery's oracle"

    def __call__(self, image: Image.Image) -> str:
        from promptecho.gallery.text_oracle import read_poster

        return "\n".join(word for _, word in read_poster(image).poster.texts)


def _own(reader: Callable[[], PageReader]) -> Callable[[ScoringOptions], PageReader]:
    """A reader that has its model in its package."""

    def load(options: ScoringOptions) -> PageReader:
        if options.model:
            raise ConfigError(
                f"model {options.model!r}: {options.backend} has its model in its package; remove `model`"
            )
        return reader()

    return load


def _vlm(options: ScoringOptions) -> PageReader:
    from promptecho.benchmarks.longtext.defaults import MODEL
    from promptecho.benchmarks.longtext.vlm_page import VlmPage

    return VlmPage(options.model or MODEL, options.device, options.mode)


READERS: dict[str, Callable[[ScoringOptions], PageReader]] = {
    "vlm": _vlm,
    "rapidocr": _own(RapidPage),
    "gallery": _own(PosterPage),
}


def load_page_reader(options: ScoringOptions) -> PageReader:
    """The reader of `options.backend`.

    Raises:
        ConfigError: a model is given to one that has its own.
        ModelError: the name is unknown, or the backend is not available.
    """
    return find_backend(READERS, options.backend)(options)
