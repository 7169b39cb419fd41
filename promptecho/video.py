"""A video as training, rewards and files have it: an image that has further frames.

A file of a video is an animated PNG: lossless, the same bytes each time, shown by browsers, and its first frame by all
that reads images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from PIL import Image, ImageOps, ImageSequence
from PIL.PngImagePlugin import Blend

from promptecho.archives import ImageFile
from promptecho.errors import DataError
from promptecho.images import load_image
from promptecho.names import shown
from promptecho.pixels import facts, to_rgb

FRAME_MS = 125  # how long a viewer shows a frame; no model and no reward reads it


class Video(Image.Image):
    """`frames` (two or more, of one size and mode) in order.

    As an image it is its first frame, for all that shows one picture of each sample; a copy or a conversion of it is an
    image. What reads videos asks `frames_of`; what cannot is refused when a configuration is read.
    """

    def __init__(self, frames: Sequence[Image.Image], info: dict[Any, Any] | None = None) -> None:
        assert len(frames) > 1, "one frame is an image"
        assert len({(frame.size, frame.mode) for frame in frames}) == 1, "frames of a video are alike"
        super().__init__()
        vars(self).update(vars(frames[0]))
        self.info = {} if info is None else info
        self.frames = tuple(frames)

    def save(self, fp: str | Path | IO[bytes], format: str | None = None, **params: Any) -> None:  # type: ignore[override]
        """Write an animated PNG."""
        # Pillow joins equal neighbours to one longer frame unless they differ in something; of opaque frames both ways
        # of blending show the same.
        blend = [Blend.OP_OVER if k % 2 else Blend.OP_SOURCE for k in range(len(self.frames))]
        first, *others = self.frames
        first.save(
            fp, format="PNG", save_all=True, append_images=others, duration=FRAME_MS, loop=0, disposal=0, blend=blend,
            **params,
        )  # fmt: skip


def frames_of(sample: Image.Image) -> list[Image.Image]:
    """The frames of a video; an image alone."""
    return list(sample.frames) if isinstance(sample, Video) else [sample]


def evenly(sample: Image.Image, most: int | None) -> Image.Image:
    """A video of `most` frames (2 or more) of `sample`, evenly spaced, with its first and its last; `sample` itself if
    it has no more, or where `most` is None."""
    if most is None or not isinstance(sample, Video) or len(sample.frames) <= most:
        return sample
    last = len(sample.frames) - 1
    return Video([sample.frames[(2 * k * last + most - 1) // (2 * (most - 1))] for k in range(most)], sample.info)


def count_frames(path: ImageFile) -> int:
    """How many frames the PNG file at `path` has; 1 of any other file, and of one that cannot be read, which is told
    where it is read."""
    try:
        with path.open("rb") as file, Image.open(file) as opened:
            return int(getattr(opened, "n_frames", 1)) if opened.format == "PNG" else 1
    except Exception:  # as in `load_image`
        return 1


def refuse_video(path: ImageFile, what: str) -> None:
    """Nothing, unless a file is a video, of which `what`, which reads images, would take the first frame for all.

    Raises:
        DataError: it is one.
    """
    if (frames := count_frames(path)) > 1:
        raise DataError(f"{shown(path)}: a video of {frames} frames, and {what} reads images; give an image instead")


def load_video(
    path: ImageFile, fix: str = "replace or remove it", *, background: str = "white", max_pixels: int | None = None
) -> Video:
    """Read an animated PNG, each frame as 8-bit RGB by the rules of `pixels.py`, as `load_image` reads an image.

    Raises:
        DataError: as `load_image`, or the file has one frame.
    """
    first = load_image(path, fix, background=background, max_pixels=max_pixels)
    frames = []
    try:
        with path.open("rb") as file, Image.open(file) as opened:
            raw = facts(opened)
            for frame in ImageSequence.Iterator(opened):
                image, _ = to_rgb(ImageOps.exif_transpose(frame), background, raw)
                frames.append(image if image.size == first.size else image.resize(first.size, Image.Resampling.LANCZOS))
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{shown(path)}: not a readable video ({reason}); {fix}") from error
    if len(frames) < 2:
        raise DataError(f"{shown(path)}: an image, where a video is expected; {fix}")
    return Video(frames, {"path": first.info["path"]})
