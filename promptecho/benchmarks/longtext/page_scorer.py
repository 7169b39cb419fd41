"""What scorers have in common that read all text of an image: who reads, which images, and what a judge would cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from promptecho.benchmarks.limit import first_prompts
from promptecho.benchmarks.scoring import ImageFolder, JudgeBackend, ScoringOptions
from promptecho.benchmarks.templates import load_template
from promptecho.benchmarks.textocr.layout import TextOcrImage, list_images, tag_of
from promptecho.benchmarks.textocr.prompts import read_prompts
from promptecho.errors import ConfigError

if TYPE_CHECKING:
    from promptecho.judges.base import CallEstimate, Question
    from promptecho.provenance import Limit

R = TypeVar("R")


class PageScorer(Generic[R]):
    """Base of a `Scorer` of images of text rendering, read by a reader R in this process, or by a judge.

    Args:
        benchmark: its name, for messages.
        modes: those that it has.
        reply_mode: how a judge's reply is cleaned, see `longtext.rules.without_stock_phrases`.
        load: makes the reader of `options.backend`, and says its name.

    Raises:
        ConfigError: an unknown mode, a model for a backend with its own, or no judge for `judge`.
        ModelError: the backend is unknown or not available.
        DataError: the user's template is faulty.
    """

    template_digest: str | None = None

    def __init__(
        self, options: ScoringOptions, benchmark: str, modes: Sequence[str], reply_mode: str,
        load: Callable[[ScoringOptions], tuple[R, str]],
    ):  # fmt: skip
        if options.mode not in modes:
            raise ConfigError(f"mode {options.mode!r}: {benchmark} has {' and '.join(modes)}; set one of these")
        self._mode, self._parser, self._reply_mode = options.mode, options.parser, reply_mode
        self._reader: R | None = None
        if options.backend == "judge":
            self._judge = JudgeBackend(options)
            self._template = load_template("longtext", "read", options.templates)
            self._template.fill()  # a faulty one is reported before any image is read
            self.judge_model, self.template_digest = self._judge.name, self._template.digest
        else:
            self._reader, self.judge_model = load(options)

    def _language(self, folder: ImageFolder, entries: Sequence[TextOcrImage]) -> str:
        """The language of the prompts of all images.

        Raises:
            DataError: the benchmark has no score for such prompts.
        """
        raise NotImplementedError

    def _entries(self, folder: ImageFolder) -> tuple[list[TextOcrImage], str, Limit | None]:
        """The images, the language of their prompts, and the limit."""
        prompts = read_prompts(folder.prompts) if folder.prompts else None
        only, limit = first_prompts(prompts, tag_of, folder.limit)
        entries = list_images(folder.root, prompts, folder.images_per_prompt, only)
        return entries, self._language(folder, entries), limit

    def _questions(self, entries: Sequence[TextOcrImage]) -> list[Question]:
        from promptecho.benchmarks.longtext.judge import question_of

        return [question_of(entry, self._template, self._reply_mode, self._parser) for entry in entries]

    def estimate(self, folder: ImageFolder) -> CallEstimate:
        """Calls that the judge would need; none for other backends.

        Raises:
            DataError: as score, before anything is judged.
        """
        from promptecho.judges.base import CallEstimate

        entries, *_ = self._entries(folder)
        if self._reader is not None:
            return CallEstimate(calls=0, recorded=0, input_tokens=0, output_tokens=0, usd=0.0)
        return self._judge.estimate(self._questions(entries))
