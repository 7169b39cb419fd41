"""The site's policy for `promptecho clean`: what a finished experiment no longer needs."""

from __future__ import annotations

from pydantic import Field

from promptecho.config.fields import CountOrZero, Flag, Section


class CleanSection(Section):
    """What `promptecho clean --yes` deletes in `results/E` (docs/reruns.md). By its defaults nothing finished."""

    work: Flag = Field(
        True,
        description="Work in progress of jobs whose results are finished: rolling states of trainings, journals of "
        "captions, lists of images that are done.",
    )
    not_finite: Flag = Field(
        False,
        description="What a training left in its work folder that met a number that is not finite, once its checkpoint "
        "is finished.",
    )
    restored_images: Flag = Field(
        True,
        description="Images that were unpacked from `images.tar` by a job that was killed, and loose ones that the "
        "`images.tar` beside them holds too.",
    )
    half_written: Flag = Field(
        True, description="Temporary files and folders (`.NAME.xxxxxxxx.tmp`) of jobs that were killed as they wrote."
    )
    logs_days: CountOrZero | None = Field(
        30, description="Logs of jobs (`logs/`) that nothing was written to for so many days; null: all logs stay."
    )
    prompt_cache: Flag = Field(
        False,
        description="The text encoder's embeddings of prompts in `work/prompts`: images of another checkpoint would "
        "need them again.",
    )
    replaced: Flag = Field(
        False,
        description="Finished results that were moved aside: `*.replaced-DIGEST`. Nothing makes them again, unless the "
        "old configuration is asked for.",
    )
