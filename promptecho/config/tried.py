"""What `promptecho try` cannot do, which has one prompt, without an image, and puts images beside each other."""

from __future__ import annotations

from promptecho.config.editing import refuse_editing
from promptecho.config.families import Family
from promptecho.config.video_checks import refuse_videos


def check_tried(family: Family, frames: int) -> None:
    """Nothing, where a family makes images from text, in samples of one frame.

    Raises:
        ConfigError: it edits images, or samples are videos.
    """
    refuse_editing(family, "promptecho try")
    if frames > 1:
        refuse_videos(family, "promptecho try", "give an experiment file with models.t2i.frames: 1 to --config")
