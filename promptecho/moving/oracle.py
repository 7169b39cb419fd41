"""The oracle of moving shapes: what the shapes world's oracle finds in each frame, and where it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """What a video shows of what a caption claims: its objects in every frame, and motions of them; both make it
    right."""

    objects: bool
    motions: bool

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
    return MotionVerdict(
        objects, objects and all(motion_of(mover, found[0], found[-1]) == mover.motion for mover in movers)
    )


def motion_of(mover: Mover, first: list[DetectedShape], last: list[DetectedShape]) -> str | None:
    """Where what has a mover's shape and colour has gone between two frames that have it once; None: neither in one
    direction nor nowhere."""
    (x0, y0), (x1, y1) = (
        next(_centre(one) for one in frame if (one.shape, one.color) == (mover.shape, mover.color))
        for frame in (first, last)
    )
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
