"""The oracle of moving shapes: what the shapes world's oracle finds in each frame, and where it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from PIL import Image

from promptecho.moving.world import FRAMES, MOTIONS, STRIDE, Mover
from promptecho.shapes.oracle import DetectedShape, detect
from promptecho.shapes.world import IMAGE_SIZE

# From the first frame to the last, in units of a frame of 64 pixels; in between is neither a motion nor a rest.
MOVES = 0.5 * STRIDE[0] * (FRAMES - 1)
RESTS = 0.25 * STRIDE[0] * (FRAMES - 1)
WELL_FORMED = 0.6  # least score of an object: lower than for images, since frames are half as large and decoded softly


@dataclass(frozen=True)
class MotionVerdict:
    """What a video shows of what a caption claims: its objects in every frame, and motions of them; both make it right.

    `colors` and `ways` are less strict, for models that draw badly: the share of frames with as many objects of the
    caption's colours and no others, and the share of its movers that go where they should, known by their colour, or by
    colour and shape where two have the same.
    """

    objects: bool
    motions: bool
    colors: float
    ways: float

    @property
    def right(self) -> bool:
        return self.objects and self.motions


def detect_frame(frame: Image.Image) -> list[DetectedShape]:
    """Objects of a frame; their boxes are in units of a frame of 64 pixels."""
    return detect(frame.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))


def judge(movers: Sequence[Mover], frames: Sequence[Image.Image]) -> MotionVerdict:
    """What `frames` (two or more) show of `movers`: exactly these objects in each, and each goes where it should."""
    found = [detect_frame(frame) for frame in frames]
    wanted = sorted((mover.shape, mover.color) for mover in movers)
    objects = all(
        sorted((one.shape, one.color) for one in frame) == wanted and all(one.score >= WELL_FORMED for one in frame)
        for frame in found
    )
    palette = sorted(mover.color for mover in movers)
    colors = fmean(sorted(one.color for one in frame) == palette for frame in found)
    by_color = len(set(palette)) == len(palette)
    ways = fmean(_goes(mover, found[0], found[-1], by_color) == mover.motion for mover in movers)
    motions = objects and all(_goes(mover, found[0], found[-1]) == mover.motion for mover in movers)
    return MotionVerdict(objects, motions, colors, ways)


def _goes(mover: Mover, first: list[DetectedShape], last: list[DetectedShape], by_color: bool = False) -> str | None:
    """Where what has a mover's shape and colour, or colour alone, has gone between two frames; None where one of them
    does not have it once, and where it has gone neither in one direction nor nowhere."""
    ends = [
        [one for one in frame if one.color == mover.color and (by_color or one.shape == mover.shape)]
        for frame in (first, last)
    ]
    if any(len(end) != 1 for end in ends):
        return None
    (start,), (end,) = ends
    return motion_of(start, end)


def motion_of(first: DetectedShape, last: DetectedShape) -> str | None:
    """Where an object has gone between two frames; None: neither in one direction nor nowhere."""
    (x0, y0), (x1, y1) = _centre(first), _centre(last)
    dx, dy = x1 - x0, y1 - y0
    if max(abs(dx), abs(dy)) <= RESTS:
        return "still"
    for name, (right, down) in MOTIONS.items():
        along, across = dx * right + dy * down, dx * down + dy * right
        if name != "still" and along >= MOVES and abs(across) <= 0.5 * along:
            return name
    return None


def _centre(one: DetectedShape) -> tuple[float, float]:
    x1, y1, x2, y2 = one.box
    return (x1 + x2) / 2, (y1 + y2) / 2
