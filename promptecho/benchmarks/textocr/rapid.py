"""RapidOCR as the reader of images: PP-OCRv6 with the weights that lie in RapidOCR's package, nothing is downloaded."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from promptecho.benchmarks.perception import PerceptionFailure
from promptecho.errors import ModelError

if TYPE_CHECKING:
    from PIL import Image

# Where lines of text are, which way up they stand, what they say.
MODELS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
}
INSTALL = "install this project with its extra `score`"
SAME_ROW = 0.5  # share of the lower line's height by which two lines of one row overlap at least


@dataclass(frozen=True)
class TextLine:
    """One line of text. `score` in 0-1 is the recogniser's; `box` is (x1, y1, x2, y2) in pixels, upright."""

    text: str
    score: float
    box: tuple[float, float, float, float]


class TextReader(Protocol):
    """Reads all text of an image, in reading order. Raises PerceptionFailure where an image has no answer."""

    name: str

    def __call__(self, image: Image.Image) -> list[TextLine]: ...


def reading_order(lines: Sequence[TextLine]) -> list[TextLine]:
    """Lines from top to bottom, those of one row from left to right.

    A line belongs to the row above it where it overlaps the row's first line by half of the lower one's height.
    """
    rows: list[list[TextLine]] = []
    for line in sorted(lines, key=lambda line: (line.box[1] + line.box[3], line.box[0])):
        _, top, _, bottom = line.box
        _, first_top, _, first_bottom = rows[-1][0].box if rows else (0.0, 0.0, 0.0, 0.0)
        lower = min(bottom - top, first_bottom - first_top)
        if rows and min(bottom, first_bottom) - max(top, first_top) > SAME_ROW * lower:
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda line: line.box[0])]


class RapidReader:
    """`TextReader` with RapidOCR on the CPU, its own default settings, one thread: an image always reads the same.

    Lines that the recogniser gives a score below 0.5 count as no text. What it confuses depends on the type face: a
    zero among capitals, for example, is read as the letter.
    """

    def __init__(self) -> None:
        """
        Raises:
            ModelError: RapidOCR is not installed, or is a release without these weights.
        """
        try:
            import onnxruntime  # noqa: F401  RapidOCR tells of its absence with a traceback
            import rapidocr
        except ImportError as error:
            raise ModelError(f"backend rapidocr: cannot import {error.name or error}; {INSTALL}") from error
        version = importlib.metadata.version("rapidocr")
        folder = Path(rapidocr.__file__).parent / "models"
        if absent := [name for name in MODELS.values() if not (folder / name).is_file()]:
            raise ModelError(f"{folder / absent[0]}: no such file in RapidOCR {version}; {INSTALL}")
        self.name = f"RapidOCR {version}, PP-OCRv6 small"
        threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
        models = {f"{part}.model_path": str(folder / name) for part, name in MODELS.items()}
        self._engine = rapidocr.RapidOCR(params={"Global.log_level": "error", **threads, **models})
        self._output = rapidocr.utils.output.RapidOCROutput

    def __call__(self, image: Image.Image) -> list[TextLine]:
        try:
            found = self._engine(image)
        except Exception as error:  # RapidOCR, OpenCV and onnxruntime raise what they like
            reason = " ".join(str(error).split())[-200:]
            raise PerceptionFailure(f"RapidOCR: {type(error).__name__}: {reason}") from error
        if not isinstance(found, self._output):
            raise PerceptionFailure(f"RapidOCR: found text but did not read it ({type(found).__name__})")
        if found.txts is None:
            return []
        return reading_order(
            [
                TextLine(text, round(float(score), 4), _upright(box))
                for text, score, box in zip(found.txts, found.scores, found.boxes, strict=True)
            ]
        )


def _upright(corners: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """The upright box around four corners, in tenths of a pixel."""
    xs, ys = ([round(float(corner[axis]), 1) for corner in corners] for axis in (0, 1))
    return min(xs), min(ys), max(xs), max(ys)
